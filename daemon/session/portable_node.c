/* The records of nodes and of their tokens. */
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/context.h"
#include "session/portable_read.h"
#include "session/record.h"

enum {
    ORDINAL_MAX = 0x7fffffff,
    STEPS_BYTES_MAX = 4 * 1024 * 1024,
};

static void insert(struct portable_json *json, struct table *table, uint64_t key, uint32_t number)
{
    (void)table_remove(table, key);
    if (json->status == STATUS_OK && table_insert_number(table, key, number) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
}

/* ---- contexts ---- */

static uint32_t take_number(struct portable_json *json, const json_t *list, size_t at)
{
    return portable_json_number(json, json_array_get(list, at), "segments", UINT32_MAX);
}

static void append(struct portable_json *json, struct buffer *out, const void *data, size_t size)
{
    if (json->status == STATUS_OK && buffer_append(out, bytes_of(data, size)) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
}

static void append_u32(struct portable_json *json, struct buffer *out, uint32_t value)
{
    uint8_t bytes[4];

    bytes_store_u32(bytes, value);
    append(json, out, bytes, sizeof(bytes));
}

static void read_segment(struct portable_json *json, const json_t *segment, uint32_t node_count,
                         const struct journal_prompt *prompt, struct buffer *out)
{
    const char *name = json_string_value(json_array_get(segment, 0));
    uint32_t kind = 0;
    uint8_t number[8];

    while (name != NULL && portable_segment_name(kind) != NULL &&
           strcmp(name, portable_segment_name(kind)) != 0) {
        kind++;
    }
    append_u32(json, out, kind);
    if (name == NULL || portable_segment_name(kind) == NULL) {
        portable_json_fail(json, "segments", "has one that is no prompt, node, frame or the like");
    } else if (kind == SEGMENT_PROMPT) {
        append_u32(json, out, (uint32_t)(prompt->ids.size / 4));
    } else if (kind == SEGMENT_NODE) {
        const uint32_t node = take_number(json, segment, 1);

        if (node == 0 || node > node_count) {
            portable_json_fail(json, "segments", "name a node that does not stand before this one");
        }
        append_u32(json, out, take_number(json, segment, 3));
        bytes_store_u64(number, node);
        append(json, out, number, sizeof(number));
        append_u32(json, out, take_number(json, segment, 2));
    } else {
        const struct bytes ids = portable_json_ids(json, json_array_get(segment, 1), "segments");

        append_u32(json, out, (uint32_t)(ids.size / 4));
        append(json, out, ids.data, ids.size);
    }
}

static struct bytes read_segments(struct portable_json *json, const json_t *from,
                                  uint32_t node_count, const struct journal_prompt *prompt)
{
    const json_t *list = portable_json_list(json, from, "segments", true);
    struct bytes kept = {0};
    struct buffer out;

    buffer_init(&out, IMPORT_LINE_BYTES_MAX);
    for (size_t i = 0; i < json_array_size(list) && json->status == STATUS_OK; i++) {
        read_segment(json, json_array_get(list, i), node_count, prompt, &out);
    }
    if (json->status == STATUS_OK && out.size > 0) {
        kept = bytes_of(arena_copy(json->arena, out.data, out.size), out.size);
        if (kept.data == NULL) {
            portable_json_fail_memory(json);
        }
    }
    buffer_finish(&out);
    return kept;
}

/* Leading tokens that the persona's sessions may share: its prompt. Never what a file says. */
static uint32_t scope_of(const struct portable_reader *reader,
                         const struct journal_context *context, const struct journal_prompt *prompt)
{
    const struct rows_tree *tree = reader->portable->tree;
    const uint32_t base = table_find_number(&reader->contexts, context->base_id);

    if (base != 0) {
        return context->base_count > 0 ? tree->contexts[base - 1].scope_token_count : 0;
    }
    return context->segments.size >= 8 && bytes_load_u32(context->segments.data) == SEGMENT_PROMPT
               ? (uint32_t)(prompt->ids.size / 4)
               : 0;
}

static void add_context(struct portable_reader *reader, struct portable_json *json,
                        const struct journal_context *context, uint32_t member)
{
    struct portable *portable = reader->portable;
    const uint32_t count = portable->tree->context_count;

    if (count == reader->context_capacity) {
        const uint32_t capacity = count == 0 ? 64 : 2 * count;
        uint8_t *members = memory_resize(portable->context_prompts, capacity, 1);

        if (members == NULL) {
            portable_json_fail_memory(json);
            return;
        }
        portable->context_prompts = members;
        reader->context_capacity = capacity;
    }
    portable->context_prompts[count] = (uint8_t)member;
    if (rows_tree_add_context(portable->tree, context) != STATUS_OK) {
        portable_json_fail_memory(json);
        return;
    }
    insert(json, &reader->contexts, context->id, count + 1);
}

/* A member's, or a joint one; NULL: there is none. */
static const struct journal_prompt *find_prompt(const struct portable *portable,
                                                struct portable_json *json, const json_t *from,
                                                uint32_t *index)
{
    const uint32_t most = SESSION_CAST_COUNT_MAX;
    const uint32_t member = portable_json_u32(json, from, "member", most, most);
    const uint32_t joint = portable_json_u32(json, from, "joint", most, most);

    if (joint < portable->joint_count) {
        *index = PORTABLE_JOINT | joint;
        return &portable->joints[joint].prompt;
    }
    *index = member;
    return !portable->is_joint && member < portable->member_count &&
                   portable->members[member].has_prompt
               ? &portable->members[member].prompt
               : NULL;
}

/* Whole with the first node that has it; a number names that node. */
static uint64_t read_context(struct portable_reader *reader, struct portable_json *json,
                             const json_t *record, uint32_t number)
{
    const struct portable *portable = reader->portable;
    const json_t *from = json_object_get(record, "context");
    const struct journal_prompt *prompt;
    uint32_t index = 0;
    struct journal_context context;

    if (json_is_integer(from)) {
        const uint32_t first = portable_json_u32(json, record, "context", number, 0);

        if (table_find(&reader->contexts, first) == NULL) {
            portable_json_fail(json, "context", "names a node that brought none");
        }
        return first;
    }
    if (!json_is_object(from)) {
        portable_json_fail(json, "context", "is no object");
        return 0;
    }
    prompt = find_prompt(portable, json, from, &index);
    if (prompt == NULL) {
        portable_json_fail(json, "member", "is none that came with a prompt");
        return 0;
    }
    context = (struct journal_context){
        .id = number,
        .base_id = portable_json_u32(json, from, "base", number, 0),
        .base_count = portable_json_u32(json, from, "base_count", UINT32_MAX, 0),
        .speaker = portable_json_u32(json, from, "speaker", portable->member_count - 1, 0),
        .token_count = portable_json_u32(json, from, "tokens", CONTEXT_TOKEN_COUNT_MAX, 0),
        .first_turn = portable_json_u32(json, from, "first_turn", SESSION_NODE_COUNT_MAX, 0),
        .segments = read_segments(json, from, number - 1, prompt),
    };
    if (context.base_id != 0 && table_find(&reader->contexts, context.base_id) == NULL) {
        portable_json_fail(json, "base", "names a node that brought no context");
    }
    if (context.token_count == 0) {
        portable_json_fail(json, "tokens", "of a context are at least 1");
    }
    context.scope_token_count = scope_of(reader, &context, prompt);
    if (json->status == STATUS_OK) {
        add_context(reader, json, &context, index);
    }
    return number;
}

/* ---- steps ---- */

static void add_steps(struct portable_reader *reader, struct portable_json *json,
                      const json_t *from, uint32_t number, struct journal_steps *steps)
{
    struct rows_tree *tree = reader->portable->tree;

    steps->sampler = portable_json_base64(json, from, "sampler");
    steps->cues = portable_json_base64(json, from, "cues");
    if (steps->sampler.size > STEPS_BYTES_MAX || steps->cues.size > STEPS_BYTES_MAX) {
        portable_json_fail(json, "steps", "are too long");
    }
    record_digest_steps(steps->sampler, steps->cues, steps->digest);
    if (json->status == STATUS_OK && rows_tree_add_steps(tree, steps) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
    insert(json, &reader->steps, number, tree->steps_count);
}

static struct bytes read_steps(struct portable_reader *reader, struct portable_json *json,
                               const json_t *record, uint32_t number)
{
    const json_t *from = json_object_get(record, "steps");
    struct journal_steps steps = {.digest = {0}};
    uint8_t *digest;

    if (json_is_integer(from)) {
        const uint32_t first = portable_json_u32(json, record, "steps", number, 0);
        const uint32_t at = table_find_number(&reader->steps, first);

        if (at == 0) {
            portable_json_fail(json, "steps", "names a node that brought none");
            return bytes_of(NULL, 0);
        }
        steps = reader->portable->tree->steps[at - 1];
    } else if (json_is_object(from)) {
        add_steps(reader, json, from, number, &steps);
    } else {
        portable_json_fail(json, "steps", "is no object");
    }
    digest = arena_copy(json->arena, steps.digest, sizeof(steps.digest));
    if (digest == NULL) {
        portable_json_fail_memory(json);
        return bytes_of(NULL, 0);
    }
    return bytes_of(digest, sizeof(steps.digest));
}

/* ---- nodes ---- */

static void read_sampled(struct portable_reader *reader, struct portable_json *json,
                         const json_t *record, struct rows_node *row)
{
    const struct rows_tree *tree = reader->portable->tree;
    const uint32_t number = (uint32_t)row->node.id;

    row->is_sampled = true;
    row->seed = portable_json_u64(json, record, "seed");
    row->room = portable_json_u32(json, record, "room", CONTEXT_TOKEN_COUNT_MAX, 0);
    row->top_count = portable_json_u32(json, record, "top_count", TOP_COUNT_MAX, 0);
    row->sampled_count = portable_json_u32(json, record, "sampled", REPLY_TOKEN_COUNT_MAX, 0);
    row->kept = portable_json_u32(json, record, "kept", row->sampled_count, 0);
    row->content_bytes = portable_json_u32(json, record, "content_bytes", UINT32_MAX, 0);
    row->cue_pattern = portable_json_u32(json, record, "cue", UINT32_MAX, 0);
    row->tail =
        portable_json_ids(json, portable_json_list(json, record, "content", false), "content");
    row->queued_ns = portable_json_u64(json, record, "queued_ns");
    row->first_token_ns = portable_json_u64(json, record, "first_token_ns");
    row->last_token_ns = portable_json_u64(json, record, "last_token_ns");
    row->cached_count = portable_json_u32(json, record, "cached", UINT32_MAX, 0);
    row->computed_count = portable_json_u32(json, record, "computed", UINT32_MAX, 0);
    row->error_status = portable_json_u32(json, record, "error", STATUS_NUMERIC, 0);
    row->error_text = portable_json_text(json, record, "error_text", TEXT_BYTES_MAX);
    row->model_hash = tree->model_hash;
    row->numerics_id = tree->numerics_id;
    if (portable_json_has(record, "model")) {
        row->model_hash = portable_json_hex(json, record, "model");
    }
    if (portable_json_has(record, "numerics")) {
        row->numerics_id = portable_json_text(json, record, "numerics", LABEL_BYTES_MAX);
    }
    if (row->model_hash.size != JOURNAL_DIGEST_BYTES || row->numerics_id.size == 0) {
        portable_json_fail(json, "model", "of a sampled node is not known");
    }
    row->context_id = read_context(reader, json, record, number);
    row->steps_digest = read_steps(reader, json, record, number);
    row->first_chunk = tree->chunk_count;
    if (row->node.origin != ORIGIN_SAMPLED || row->finish == NODE_WHOLE) {
        portable_json_fail(json, "context", "belongs to sampled nodes");
    }
}

/* What was sampled and comes without its context can only be read. */
static void read_given(struct portable_json *json, const json_t *record, struct rows_node *row)
{
    row->ids =
        portable_json_ids(json, portable_json_list(json, record, "content", false), "content");
    row->text = portable_json_bytes(json, record, "text", 4 * (size_t)TEXT_BYTES_MAX);
    row->finish = NODE_WHOLE;
    row->finished_us = row->node.created_us;
    row->node.origin =
        row->node.origin == ORIGIN_SAMPLED ? (uint32_t)ORIGIN_IMPORTED : row->node.origin;
    if (row->ids.size / 4 > TEXT_TOKEN_COUNT_MAX ||
        (row->ids.size == 0 && row->text.size > TEXT_BYTES_MAX)) {
        portable_json_fail(json, "content", "is longer than a text may be");
    }
}

/* One that is left out is the next of its place, which is counted again once all offsets are known:
 * "the end" and its number may be the same place. */
static uint32_t take_ordinal(struct portable_reader *reader, struct portable_json *json,
                             const json_t *record, const struct journal_node *node)
{
    const uint64_t place = node->parent_id << 32 | node->parent_offset;
    const uint32_t next = table_find_number(&reader->siblings, place);
    const uint32_t ordinal = portable_json_u32(json, record, "ordinal", ORDINAL_MAX, next);

    insert(json, &reader->siblings, place, (ordinal > next ? ordinal : next) + 1);
    return ordinal;
}

static void add_label(struct portable_reader *reader, struct portable_json *json,
                      const json_t *record, uint64_t number)
{
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_NODE,
        .id = number,
        .label = portable_json_text(json, record, "label", LABEL_BYTES_MAX),
    };

    if (note.label.size > 0 && json->status == STATUS_OK &&
        rows_tree_add_note(reader->portable->tree, &note) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
}

static uint32_t read_flags(struct portable_json *json, const json_t *record)
{
    return (portable_json_flag(json, record, "opens_turn") ? JOURNAL_NODE_OPENS_TURN : 0u) |
           (portable_json_flag(json, record, "greeting") ? JOURNAL_NODE_GREETING : 0u) |
           (portable_json_flag(json, record, "deleted") ? JOURNAL_NODE_DELETED : 0u) |
           (portable_json_flag(json, record, "purged") ? JOURNAL_NODE_PURGED : 0u);
}

void portable_read_node(struct portable_reader *reader, struct portable_json *json,
                        const json_t *record)
{
    const struct portable *portable = reader->portable;
    const uint32_t number = portable->tree->node_count + 1;
    struct rows_node row = {.node = {.id = number}};

    portable_check_tokens(reader, json);
    if (number > SESSION_NODE_COUNT_MAX || portable->member_count == 0) {
        portable_json_fail(json, "record", "is one node too many, or comes before the members");
        return;
    }
    if (portable_json_u32(json, record, "node", UINT32_MAX, number) != number) {
        portable_json_fail(json, "node", "is not the next number: nodes count from 1");
    }
    row.node.parent_id = portable_json_u32(json, record, "parent", number - 1, number - 1);
    row.node.parent_offset = portable_json_u32(json, record, "offset", OFFSET_END - 1,
                                               row.node.parent_id == 0 ? 0 : OFFSET_END);
    row.node.ordinal = take_ordinal(reader, json, record, &row.node);
    row.is_ordinal_open = !portable_json_has(record, "ordinal");
    row.node.speaker = portable_json_u32(json, record, "speaker", portable->member_count - 1, 0);
    row.node.flags = read_flags(json, record);
    row.node.created_us = portable_json_u64(json, record, "created_us");
    row.node.origin =
        portable_json_name(json, record, "origin", portable_origin_name, ORIGIN_IMPORTED);
    row.finish = portable_json_name(json, record, "finish", portable_finish_name, NODE_WHOLE);
    row.finished_us = portable_json_u64(json, record, "finished_us");
    row.original = portable_json_u32(json, record, "original", number - 1, 0);
    if (row.finish == NODE_GOING) {
        portable_json_fail(json, "finish", "is none: nothing in a file is still under way");
    }
    if (portable_json_has(record, "context") && (row.node.flags & JOURNAL_NODE_PURGED) == 0) {
        read_sampled(reader, json, record, &row);
    } else {
        read_given(json, record, &row);
    }
    add_label(reader, json, record, number);
    if (json->status == STATUS_OK && rows_tree_add_node(portable->tree, &row) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
    reader->token_count = 0;
}

/* ---- tokens ---- */

void portable_check_tokens(struct portable_reader *reader, struct portable_json *json)
{
    const struct rows_tree *tree = reader->portable->tree;

    if (tree->node_count > 0 &&
        reader->token_count != tree->nodes[tree->node_count - 1].sampled_count) {
        portable_json_fail(json, "record", "comes before all tokens of the last node have");
    }
}

static struct bytes read_list(struct portable_json *json, const json_t *record, const char *key,
                              bool is_float, size_t count)
{
    const json_t *list = portable_json_list(json, record, key, true);

    if (json_array_size(list) != count) {
        portable_json_fail(json, key, "has not one member a token");
        return bytes_of(NULL, 0);
    }
    return is_float ? portable_json_floats(json, list, key) : portable_json_ids(json, list, key);
}

/* (id, log probability) pairs from two lists. */
static struct bytes read_tops(struct portable_json *json, const json_t *record, size_t count)
{
    const struct bytes ids = read_list(json, record, "top_tokens", false, count);
    const struct bytes numbers = read_list(json, record, "top_logprobs", true, count);
    uint8_t *data;

    if (ids.data == NULL || numbers.data == NULL || json->status != STATUS_OK) {
        return bytes_of(NULL, 0);
    }
    data = arena_alloc(json->arena, count, 8);
    if (data == NULL) {
        portable_json_fail_memory(json);
        return bytes_of(NULL, 0);
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(data + 8 * i, ids.data + 4 * i, 4);
        memcpy(data + 8 * i + 4, numbers.data + 4 * i, 4);
    }
    return bytes_of(data, 8 * count);
}

void portable_read_tokens(struct portable_reader *reader, struct portable_json *json,
                          const json_t *record)
{
    struct rows_tree *tree = reader->portable->tree;
    struct rows_node *row = tree->node_count > 0 ? &tree->nodes[tree->node_count - 1] : NULL;
    const size_t count = json_array_size(portable_json_list(json, record, "tokens", true));
    struct journal_chunk chunk = {.first = reader->token_count, .count = (uint32_t)count};

    if (row == NULL || portable_json_u32(json, record, "node", UINT32_MAX, 0) != row->node.id) {
        portable_json_fail(json, "node", "is not the node that stands before its tokens");
        return;
    }
    if (count == 0 || count > row->sampled_count - reader->token_count) {
        portable_json_fail(json, "tokens", "are none, or more than the node says that it has");
        return;
    }
    chunk.tokens = read_list(json, record, "tokens", false, count);
    chunk.logprobs = read_list(json, record, "logprobs", true, count);
    chunk.logprobs_sampler = read_list(json, record, "sampler_logprobs", true, count);
    chunk.entropies = read_list(json, record, "entropies", true, count);
    chunk.text_ends = read_list(json, record, "text_ends", false, count);
    chunk.text = portable_json_bytes(json, record, "text", IMPORT_LINE_BYTES_MAX);
    if (row->top_count > 0) {
        chunk.tops = read_tops(json, record, count * row->top_count);
    }
    if (json->status == STATUS_OK && rows_tree_add_chunk(tree, &chunk) != STATUS_OK) {
        portable_json_fail_memory(json);
    }
    row->chunk_count++;
    reader->token_count += (uint32_t)count;
}
