#include "session/portable.h"

#include <assert.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/context.h"
#include "session/request.h"
#include "session/template.h"

void portable_finish(struct portable *portable)
{
    rows_tree_destroy(portable->tree);
    memory_free(portable->context_prompts);
    portable->tree = NULL;
    portable->context_prompts = NULL;
}

/* ---- names ---- */

static const char *name_at(const char *const *names, uint32_t count, uint32_t at)
{
    return at < count ? names[at] : NULL;
}

#define NAME_COUNT(names) (sizeof(names) / sizeof((names)[0]))
#define NAME_AT(names, at) name_at(names, NAME_COUNT(names), at)

const char *portable_origin_name(uint32_t origin)
{
    static const char *const names[] = {"sampled", "given", "edited", "imported", "expanded"};

    static_assert(NAME_COUNT(names) == ORIGIN_EXPANDED + 1, "every origin has a name");
    return NAME_AT(names, origin);
}

const char *portable_finish_name(uint32_t finish)
{
    static const char *const names[] = {"none", "end",    "cue",         "length", "context",
                                        "cut",  "failed", "interrupted", "whole"};

    static_assert(NAME_COUNT(names) == NODE_WHOLE + 1, "every finish has a name");
    return NAME_AT(names, finish);
}

const char *portable_side_name(uint32_t side)
{
    static const char *const names[] = {"start", "user", "persona"};

    static_assert(NAME_COUNT(names) == TEMPLATE_PERSONA + 1, "every side has a name");
    return NAME_AT(names, side);
}

/* enum template_format, none of whose numbers ever moves: the journal has them too. */
const char *portable_format_name(uint32_t format)
{
    static const char *const names[] = {"none",    "chatml", "llama2",     "llama3",
                                        "mistral", "gemma",  "transcript", "plain"};

    static_assert(NAME_COUNT(names) == TEMPLATE_PLAIN + 1, "every format has a name");
    return NAME_AT(names, format);
}

const char *portable_segment_name(uint32_t kind)
{
    static const char *const names[] = {"prompt", "node", "frame", "start", "insert"};

    static_assert(NAME_COUNT(names) == SEGMENT_INSERT + 1, "every kind has a name");
    return NAME_AT(names, kind);
}

/* ---- numbers ---- */

/* The bytes lie in the tree's own arena. */
static void renumber_segments(struct bytes segments, uint64_t shift)
{
    uint8_t *data = (uint8_t *)(uintptr_t)segments.data;

    for (size_t at = 0; at < segments.size;) {
        const uint32_t kind = bytes_load_u32(data + at);
        const uint32_t count = bytes_load_u32(data + at + 4);

        if (kind == SEGMENT_NODE) {
            bytes_store_u64(data + at + 8, bytes_load_u64(data + at + 8) + shift);
            at += 20;
        } else {
            at += kind == SEGMENT_PROMPT ? 8 : 8 + (size_t)count * 4;
        }
        CHECK(at <= segments.size);
    }
}

static void shift_id(uint64_t *id, uint64_t shift)
{
    *id += *id != 0 ? shift : 0;
}

void portable_renumber(struct portable *portable, uint64_t session, uint64_t first_node)
{
    struct rows_tree *tree = portable->tree;
    const uint64_t shift = first_node - 1;

    tree->session_id = session;
    for (uint32_t i = 0; i < tree->node_count; i++) {
        struct rows_node *node = &tree->nodes[i];

        node->node.session_id = session;
        shift_id(&node->node.id, shift);
        shift_id(&node->node.parent_id, shift);
        shift_id(&node->original, shift);
        shift_id(&node->context_id, shift);
    }
    for (uint32_t i = 0; i < tree->context_count; i++) {
        struct journal_context *context = &tree->contexts[i];

        context->session_id = session;
        shift_id(&context->id, shift);
        shift_id(&context->base_id, shift);
        renumber_segments(context->segments, shift);
    }
    for (uint32_t i = 0; i < tree->note_count; i++) {
        struct journal_note *note = &tree->notes[i];

        if (note->kind == JOURNAL_NOTE_BOOKMARK) {
            note->id = session;
            shift_id(&note->node_id, shift);
        } else {
            shift_id(&note->id, shift);
        }
    }
    for (uint32_t i = 0; i < tree->author_note_count; i++) {
        tree->author_notes[i].session_id = session;
        shift_id(&tree->author_notes[i].node_id, shift);
    }
    shift_id(&portable->head.node, shift);
}
