#include "session/lore.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "limits.h"
#include "text/case_fold.h"

/* A card without a budget may take a part of the session's context. */
enum { BUDGET_PART = 4 };

/* What keys are looked for in: the last turns, the newest last. */
struct scanned {
    struct buffer text, folded; /* owned */
    uint32_t *starts;           /* owned; [turn_count]: where each turn begins in `text` */
    uint32_t *folded_starts;    /* owned; likewise in `folded` */
    uint32_t first;             /* the oldest turn in there */
    uint32_t end;               /* the turn that is written */
};

struct active {
    const struct card_lore *lore;
    uint32_t index;
    struct id_list ids; /* owned; of what fits the budget */
};

static enum status out_of_memory(const struct inserting *inserting)
{
    return error_set(inserting->error, STATUS_MEMORY, "out of memory while lore was looked for");
}

/* ---- the text ---- */

static enum status append_turn(const struct inserting *inserting, uint32_t turn, struct buffer *out)
{
    const struct tokenizer *tokenizer = inserting->encoder->tokenizer;
    const uint32_t end =
        turn + 1 < inserting->turn_count ? inserting->turns[turn + 1] : inserting->path->count;

    for (uint32_t i = inserting->turns[turn]; i < end; i++) {
        const struct tree_step *step = &inserting->path->steps[i];

        TRY(buffer_append(out, node_text_until(step->node, step->count, tokenizer)));
    }
    return buffer_append_text(out, "\n");
}

static size_t turn_bytes(const struct inserting *inserting, uint32_t turn)
{
    const struct tokenizer *tokenizer = inserting->encoder->tokenizer;
    const uint32_t end =
        turn + 1 < inserting->turn_count ? inserting->turns[turn + 1] : inserting->path->count;
    size_t bytes = 1;

    for (uint32_t i = inserting->turns[turn]; i < end; i++) {
        const struct tree_step *step = &inserting->path->steps[i];

        bytes += node_text_until(step->node, step->count, tokenizer).size;
    }
    return bytes;
}

/* Turns from the newest back, as deep as some entry looks and as the bound allows; of the newest
 * one at least the end is there. */
static uint32_t first_turn(const struct inserting *inserting, uint32_t depth)
{
    uint32_t turn = inserting->written;
    size_t bytes = 0;

    while (turn > 0 && inserting->written - turn < depth) {
        bytes += turn_bytes(inserting, turn - 1);
        if (bytes > LORE_SCAN_BYTES_MAX && turn < inserting->written) {
            break;
        }
        turn--;
    }
    return turn;
}

/* Of a turn longer than the bound, the end. */
static void keep_end(struct buffer *text, size_t from)
{
    const size_t size = text->size - from;

    if (size > LORE_SCAN_BYTES_MAX) {
        memmove(text->data + from, text->data + text->size - LORE_SCAN_BYTES_MAX,
                LORE_SCAN_BYTES_MAX);
        text->size = from + LORE_SCAN_BYTES_MAX;
    }
}

static enum status scan(const struct inserting *inserting, uint32_t depth, struct scanned *out)
{
    out->end = inserting->written;
    out->first = first_turn(inserting, depth);
    out->starts = memory_alloc(out->end - out->first + 1, sizeof(*out->starts));
    out->folded_starts = memory_alloc(out->end - out->first + 1, sizeof(*out->folded_starts));
    if (out->starts == NULL || out->folded_starts == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t turn = out->first; turn < out->end; turn++) {
        const size_t at = out->text.size;

        out->starts[turn - out->first] = (uint32_t)at;
        out->folded_starts[turn - out->first] = (uint32_t)out->folded.size;
        TRY(append_turn(inserting, turn, &out->text));
        keep_end(&out->text, at);
        TRY(case_fold(bytes_of(out->text.data + at, out->text.size - at), &out->folded));
    }
    out->starts[out->end - out->first] = (uint32_t)out->text.size;
    out->folded_starts[out->end - out->first] = (uint32_t)out->folded.size;
    return STATUS_OK;
}

/* ---- keys ---- */

/* The part of the text that an entry looks at. */
static struct bytes part_of(const struct scanned *scanned, const struct card_lore *lore,
                            uint32_t depth)
{
    const struct buffer *text = lore->is_case_sensitive ? &scanned->text : &scanned->folded;
    const uint32_t *starts = lore->is_case_sensitive ? scanned->starts : scanned->folded_starts;
    const uint32_t count = scanned->end - scanned->first;
    const uint32_t from = starts[depth < count ? count - depth : 0];

    return from == text->size ? bytes_of(NULL, 0) : bytes_of(text->data + from, text->size - from);
}

/* Keys are folded already, where case does not matter. */
static bool has_key(const struct inserting *inserting, struct bytes text, const struct bytes *keys,
                    uint32_t count)
{
    for (uint32_t i = 0; i < count && *inserting->work >= text.size && text.size > 0; i++) {
        *inserting->work -= text.size;
        if (memmem(text.data, text.size, keys[i].data, keys[i].size) != NULL) {
            return true;
        }
    }
    return false;
}

static bool is_active(const struct inserting *inserting, const struct scanned *scanned,
                      const struct card *card, const struct card_lore *lore)
{
    const uint32_t depth = lore->has_scan_depth ? lore->scan_depth : card->lore_scan_depth;
    const struct bytes text = part_of(scanned, lore, depth);

    if (lore->is_constant) {
        return true;
    }
    return has_key(inserting, text, lore->keys, lore->key_count) &&
           (lore->secondary_count == 0 ||
            has_key(inserting, text, lore->secondary, lore->secondary_count));
}

/* ---- choosing ---- */

/* The most important first. */
static int by_priority(const void *a, const void *b)
{
    const struct active *left = a;
    const struct active *right = b;

    if (left->lore->priority != right->lore->priority) {
        return left->lore->priority > right->lore->priority ? -1 : 1;
    }
    return left->index < right->index ? -1 : 1;
}

static int by_order(const void *a, const void *b)
{
    const struct active *left = a;
    const struct active *right = b;

    if (left->lore->order != right->lore->order) {
        return left->lore->order < right->lore->order ? -1 : 1;
    }
    return left->index < right->index ? -1 : 1;
}

static uint32_t scan_depth_of(const struct card *card)
{
    uint32_t depth = card->lore_scan_depth;

    for (uint32_t i = 0; i < card->lore_count; i++) {
        if (card->lore[i].has_scan_depth && card->lore[i].scan_depth > depth) {
            depth = card->lore[i].scan_depth;
        }
    }
    return depth;
}

static enum status list_active(const struct inserting *inserting, const struct prompt *prompt,
                               struct active *active, uint32_t *count)
{
    const struct card *card = prompt->persona->card;
    struct scanned scanned = {0};
    enum status status;

    buffer_init(&scanned.text, SIZE_MAX / 2); /* as the turns, which have their own bounds */
    buffer_init(&scanned.folded, SIZE_MAX / 2);
    status = scan(inserting, scan_depth_of(card), &scanned);
    for (uint32_t i = 0; i < card->lore_count && status == STATUS_OK; i++) {
        if (prompt->inserts.lore[i].size > 0 &&
            is_active(inserting, &scanned, card, &card->lore[i])) {
            active[(*count)++] = (struct active){.lore = &card->lore[i], .index = i};
        }
    }
    buffer_finish(&scanned.text);
    buffer_finish(&scanned.folded);
    memory_free(scanned.starts);
    memory_free(scanned.folded_starts);
    return status == STATUS_OK ? STATUS_OK : out_of_memory(inserting);
}

/* Keeps what fits the budget, the most important first. */
static enum status spend(const struct inserting *inserting, const struct prompt *prompt,
                         struct active *active, uint32_t *count)
{
    const struct card *card = prompt->persona->card;
    uint64_t left = card->has_lore_budget ? card->lore_budget
                                          : inserting->session->context_tokens / BUDGET_PART;
    const uint32_t found = *count;

    *count = 0;
    if (found > 0) {
        qsort(active, found, sizeof(*active), by_priority);
    }
    for (uint32_t i = 0; i < found && left > 0; i++) {
        struct active one = active[i];
        const enum status status = encoder_text(inserting->encoder, prompt->inserts.lore[one.index],
                                                false, inserting->error, &one.ids);

        if (status == STATUS_OK && one.ids.count <= left) {
            left -= one.ids.count;
            active[(*count)++] = one;
        } else {
            id_list_finish(&one.ids);
        }
        TRY(status);
    }
    return STATUS_OK;
}

enum status lore_add(const struct inserting *inserting, uint32_t speaker, struct insert_list *out)
{
    const struct prompt *prompt = inserting->session->cast.members[speaker].prompt;
    const uint32_t most = prompt->persona->card->lore_count;
    struct active *active;
    uint32_t count = 0;
    enum status status;

    if (most == 0) {
        return STATUS_OK;
    }
    active = memory_alloc(most, sizeof(*active));
    if (active == NULL) {
        return out_of_memory(inserting);
    }
    status = list_active(inserting, prompt, active, &count);
    if (status == STATUS_OK) {
        status = spend(inserting, prompt, active, &count);
    }
    if (status == STATUS_OK && count > 0) {
        qsort(active, count, sizeof(*active), by_order);
    }
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        const struct card_lore *lore = active[i].lore;
        const bool is_deep = lore->place == CARD_LORE_DEPTH;

        status = inserting_add_ids(inserting, lore->role, is_deep ? lore->depth : UINT32_MAX,
                                   &active[i].ids, out);
    }
    for (uint32_t i = 0; i < count; i++) {
        id_list_finish(&active[i].ids);
    }
    memory_free(active);
    return status;
}
