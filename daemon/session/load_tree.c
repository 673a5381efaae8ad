#include "session/load_tree.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/author_note.h"
#include "session/bookmark.h"
#include "session/context.h"
#include "session/cue_list.h"
#include "session/filling.h"
#include "session/load_check.h"

/* ---- nodes ---- */

static uint8_t *copy_bytes(struct bytes bytes)
{
    uint8_t *copy = memory_alloc(1, bytes.size);

    if (copy != NULL && bytes.size > 0) {
        memcpy(copy, bytes.data, bytes.size);
    }
    return copy;
}

static enum status fill_given(struct node *node, const struct rows_node *row)
{
    struct id_list ids = {0};

    TRY(id_list_append_bytes(&ids, row->ids));
    node->ids = ids.ids;
    node->id_count = ids.count;
    node->text = copy_bytes(row->text);
    node->text_bytes = (uint32_t)row->text.size;
    return node->text != NULL ? STATUS_OK : STATUS_MEMORY;
}

static enum status find_place(const struct filling *filling, const struct rows_node *row,
                              struct place *out)
{
    out->node = row->node.parent_id == 0 ? &filling->session->root
                                         : table_find(filling->nodes, row->node.parent_id);
    out->offset = row->node.parent_offset;
    if (out->node == NULL || out->node->session != filling->session) {
        return filling_damaged(filling, "the parent of node", row->node.id);
    }
    return STATUS_OK;
}

static enum status link_node(struct filling *filling, struct node *node)
{
    if (tree_reserve(node->parent, 1) != STATUS_OK ||
        table_insert(filling->nodes, node->id, node) != STATUS_OK) {
        return filling_out_of_memory(filling);
    }
    if (tree_link_stored(node) != STATUS_OK) {
        (void)table_remove(filling->nodes, node->id);
        return filling_damaged(filling, "the ordinal of node", node->id);
    }
    return STATUS_OK;
}

static enum status add_node(struct filling *filling, uint32_t at)
{
    const struct rows_node *row = &filling->rows->nodes[at];
    struct place place = {0};
    struct node *node = NULL;
    enum status status;

    if (row->node.origin > ORIGIN_EXPANDED || row->finish > NODE_WHOLE ||
        (!row->is_sampled && row->finish == NODE_GOING) ||
        row->node.speaker >= filling->session->cast.count) {
        return filling_damaged(filling, "node", row->node.id);
    }
    TRY(find_place(filling, row, &place));
    TRY(tree_node_create(filling->session, place, row->node.speaker, filling->error, &node));
    node->id = row->node.id;
    node->ordinal = row->node.ordinal;
    node->origin = (enum node_origin)row->node.origin;
    node->original = row->original;
    node->finish = (enum node_finish)row->finish;
    node->opens_turn = (row->node.flags & JOURNAL_NODE_OPENS_TURN) != 0;
    node->is_greeting = (row->node.flags & JOURNAL_NODE_GREETING) != 0;
    node->is_deleted = (row->node.flags & JOURNAL_NODE_DELETED) != 0;
    node->is_purged = (row->node.flags & JOURNAL_NODE_PURGED) != 0;
    node->created_us = row->node.created_us;
    node->finished_us = row->finished_us;
    node->is_visible = true;
    node->is_finish_visible = row->finish != NODE_GOING;
    filling->work += row->ids.size / 4 / FILLING_TOKENS_PER_WORK;
    if (!row->is_sampled) {
        status = fill_given(node, row);
        if (status != STATUS_OK) {
            node_destroy(node);
            return filling_failed(filling, status, "the content of node", row->node.id);
        }
    }
    status = link_node(filling, node);
    if (status != STATUS_OK) {
        node_destroy(node);
    }
    return status;
}

/* ---- steps ---- */

static enum status make_lists(struct filling *filling, uint32_t at)
{
    const struct rows_tree *rows = filling->rows;

    (void)at;
    filling->samplers = memory_alloc(rows->steps_count, sizeof(*filling->samplers));
    filling->cues = memory_alloc(rows->steps_count, sizeof(*filling->cues));
    filling->contexts = memory_alloc(rows->context_count, sizeof(*filling->contexts));
    return filling->samplers != NULL && filling->cues != NULL && filling->contexts != NULL
               ? STATUS_OK
               : filling_out_of_memory(filling);
}

static enum status parse_steps(struct filling *filling, uint32_t at)
{
    const struct journal_steps *row = &filling->rows->steps[at];
    const uint32_t vocabulary_count =
        tokenizer_vocabulary(filling->store->settings.tokenizer)->token_count;
    enum status status = cue_list_parse(row->cues, &filling->cues[at]);

    filling->work += (row->sampler.size + row->cues.size) / 4 / FILLING_TOKENS_PER_WORK;
    /* Steps name ids of a vocabulary, which for another model is not at hand. */
    if (status == STATUS_OK && !filling->session->is_foreign) {
        status = sampler_parse(row->sampler, vocabulary_count, NULL, &filling->samplers[at]);
    }
    return status == STATUS_OK ? STATUS_OK
                               : filling_failed(filling, status, "a list of sampler steps", at);
}

/* ---- what was sampled ---- */

static enum status copy_chunk(struct branch_output *output, const struct journal_chunk *chunk,
                              uint32_t text_from)
{
    const size_t row_bytes = (size_t)chunk->count * 4;
    const uint32_t at = chunk->first;
    const size_t top_bytes = (size_t)chunk->count * output->top_count * sizeof(struct sample_top);

    if (at > output->token_count_max || chunk->count > output->token_count_max - at ||
        chunk->count == 0 || chunk->tokens.size != row_bytes || chunk->logprobs.size != row_bytes ||
        chunk->logprobs_sampler.size != row_bytes || chunk->entropies.size != row_bytes ||
        chunk->text_ends.size != row_bytes || chunk->tops.size != top_bytes ||
        chunk->text.size > output->text_bytes_max - text_from) {
        return STATUS_BAD_INPUT;
    }
    memcpy(output->tokens + at, chunk->tokens.data, row_bytes);
    memcpy(output->logprobs + at, chunk->logprobs.data, row_bytes);
    memcpy(output->logprobs_sampler + at, chunk->logprobs_sampler.data, row_bytes);
    memcpy(output->entropies + at, chunk->entropies.data, row_bytes);
    memcpy(output->text_ends + at, chunk->text_ends.data, row_bytes);
    if (top_bytes > 0) {
        memcpy(output->tops + (size_t)at * output->top_count, chunk->tops.data, top_bytes);
    }
    if (chunk->text.size > 0) {
        memcpy(output->text + text_from, chunk->text.data, chunk->text.size);
    }
    for (uint32_t i = 0; i < chunk->count; i++) {
        const uint32_t before = i == 0 ? text_from : output->text_ends[at + i - 1];

        if (output->text_ends[at + i] < before ||
            output->text_ends[at + i] > text_from + chunk->text.size) {
            return STATUS_BAD_INPUT;
        }
    }
    return output->text_ends[at + chunk->count - 1] == text_from + chunk->text.size
               ? STATUS_OK
               : STATUS_BAD_INPUT;
}

static enum status copy_chunks(const struct filling *filling, const struct rows_node *row,
                               struct branch_output *output)
{
    uint32_t count = 0;
    uint32_t text_bytes = 0;

    for (uint32_t i = 0; i < row->chunk_count; i++) {
        const struct journal_chunk *chunk = &filling->rows->chunks[row->first_chunk + i];

        if (chunk->first != count) {
            return STATUS_BAD_INPUT;
        }
        TRY(copy_chunk(output, chunk, text_bytes));
        count += chunk->count;
        text_bytes += (uint32_t)chunk->text.size;
    }
    return count == row->sampled_count && row->kept <= count && row->content_bytes <= text_bytes
               ? STATUS_OK
               : STATUS_BAD_INPUT;
}

static uint64_t text_bytes_of(const struct filling *filling, const struct rows_node *row)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < row->chunk_count; i++) {
        bytes += filling->rows->chunks[row->first_chunk + i].text.size;
    }
    return bytes;
}

/* A block of exact size for what is over, of full size for what may go on. */
static enum status make_block(const struct filling *filling, const struct rows_node *row,
                              const struct sampler *sampler, const struct context *context,
                              struct node_sampled **out)
{
    const uint64_t text_bytes = text_bytes_of(filling, row);

    if (row->top_count > TOP_COUNT_MAX || row->sampled_count > REPLY_TOKEN_COUNT_MAX ||
        text_bytes > UINT32_MAX) {
        return STATUS_BAD_INPUT;
    }
    if (row->finish == NODE_GOING && sampler != NULL) {
        const uint32_t wanted = sampler->settings.max_tokens;
        const uint32_t room =
            row->room > context->token_count ? row->room - context->token_count : 0;

        if (room == 0 || sampler->settings.top_count != row->top_count) {
            return STATUS_BAD_INPUT;
        }
        return node_sampled_create(wanted < room ? wanted : room,
                                   tokenizer_token_bytes_max(filling->store->settings.tokenizer),
                                   row->top_count, out);
    }
    return node_sampled_create_sized(row->sampled_count, (uint32_t)text_bytes, row->top_count, out);
}

static enum status copy_error(struct node *node, const struct rows_node *row)
{
    if (row->error_status == STATUS_OK) {
        return STATUS_OK;
    }
    node->error = memory_alloc(1, sizeof(*node->error));
    if (node->error == NULL) {
        return STATUS_MEMORY;
    }
    error_set(node->error, (enum status)row->error_status, "%.*s", (int)row->error_text.size,
              (const char *)row->error_text.data);
    return STATUS_OK;
}

static void fill_event(struct node *node, const struct rows_node *row)
{
    struct node_sampled *sampled = node->sampled;

    sampled->event = (struct branch_event){
        .sampled_count = row->sampled_count,
        .released_count = row->kept,
        .released_bytes = row->content_bytes,
        .kept = row->kept,
        .content_bytes = row->content_bytes,
        .cue_pattern = row->cue_pattern,
        .context_cached_count = row->cached_count,
        .context_computed_count = row->computed_count,
        .queued_ns = row->queued_ns,
        .first_token_ns = row->first_token_ns,
        .last_token_ns = row->last_token_ns,
        .status = row->error_status,
    };
    sampled->shown = sampled->event;
    sampled->seed = row->seed;
    sampled->room = row->room;
    sampled->stored_count = row->sampled_count;
    sampled->stored_released_count = row->kept;
    sampled->has_intent = true;
    sampled->is_finish_given = row->finish != NODE_GOING;
    sampled->is_settled = row->finish != NODE_GOING;
}

static bool is_foreign(const struct store *store, const struct rows_node *row)
{
    return !bytes_equal(row->model_hash,
                        bytes_of(store->settings.model_hash, JOURNAL_DIGEST_BYTES)) ||
           !bytes_equal(row->numerics_id, bytes_of_text(store->settings.numerics_id));
}

static enum status fill_sampled(struct filling *filling, struct node *node,
                                const struct rows_node *row, struct context *context,
                                uint32_t steps)
{
    struct id_list tail = {0};

    TRY(make_block(filling, row, filling->samplers[steps], context, &node->sampled));
    TRY(copy_chunks(filling, row, &node->sampled->output));
    TRY(copy_error(node, row));
    fill_event(node, row);
    node->sampled->is_foreign = is_foreign(filling->store, row);
    node->sampled->context = context_acquire(context);
    node->sampled->cue_list = cue_list_acquire(filling->cues[steps]);
    if (filling->samplers[steps] != NULL) {
        node->sampled->sampler = sampler_acquire(filling->samplers[steps]);
    }
    if (row->tail.size > 0) {
        TRY(id_list_append_bytes(&tail, row->tail));
        node->ids = tail.ids;
        node->id_count = tail.count;
    }
    return STATUS_OK;
}

/* Contexts name nodes and nodes name contexts, so what was sampled comes after both. */
static enum status add_sampled(struct filling *filling, uint32_t at)
{
    const struct rows_node *row = &filling->rows->nodes[at];
    struct node *node = table_find(filling->nodes, row->node.id);
    uint32_t context;
    uint32_t steps;
    enum status status;

    CHECK(node != NULL);
    if (!row->is_sampled) {
        return STATUS_OK;
    }
    context = rows_tree_find_context(filling->rows, row->context_id);
    steps = rows_tree_find_steps(filling->rows, row->steps_digest);
    filling->work += row->sampled_count / FILLING_TOKENS_PER_WORK;
    if (context == ROWS_NONE) {
        return filling_damaged(filling, "the context of node", row->node.id);
    }
    if (steps == ROWS_NONE) {
        return filling_damaged(filling, "the sampler of node", row->node.id);
    }
    status = fill_sampled(filling, node, row, filling->contexts[context], steps);
    return status == STATUS_OK ? STATUS_OK : filling_failed(filling, status, "node", row->node.id);
}

/* Where nodes hang and what contexts name has to be there, once all content is. */
static enum status check_offset(struct filling *filling, uint32_t at)
{
    const struct rows_node *row = &filling->rows->nodes[at];
    const struct node *node = table_find(filling->nodes, row->node.id);
    uint32_t count = 0;

    node_content(node->parent, &count);
    return node->is_purged || node->parent_offset <= count
               ? STATUS_OK
               : filling_damaged(filling, "the offset of node", row->node.id);
}

static enum status check_context(struct filling *filling, uint32_t at)
{
    const struct context *context = filling->contexts[at];
    uint32_t count = 0;

    filling->work += context->own_count / FILLING_TOKENS_PER_WORK;
    for (uint32_t k = 0; k < context->own_count; k++) {
        const struct segment *segment = &context->own[k];

        if (segment->kind != SEGMENT_NODE || segment->node->is_purged) {
            continue; /* only contexts of purged nodes name purged ones */
        }
        node_content(segment->node, &count);
        if (segment->from > count || segment->count > count - segment->from) {
            return filling_damaged(filling, "the context of node", context->id);
        }
    }
    return STATUS_OK;
}

/* What is purged has nothing below it that is not, and holds nothing. */
static enum status drop_purged(struct filling *filling, uint32_t at)
{
    struct node *node = table_find(filling->nodes, filling->rows->nodes[at].node.id);

    if (node->parent->is_purged && !node->is_purged) {
        return filling_damaged(filling, "the purged parent of node", node->id);
    }
    if (node->is_purged && filling->rows->nodes[at].finish == NODE_GOING) {
        return filling_damaged(filling, "the purged node", node->id);
    }
    if (node->is_purged) {
        node_purge(node);
    }
    return STATUS_OK;
}

/* What a note is about may be purged. */
static enum status apply_note(const struct filling *filling, const struct journal_note *note)
{
    struct node *node = table_find(filling->nodes, note->id);

    if (note->name.size > LABEL_BYTES_MAX || note->label.size > LABEL_BYTES_MAX) {
        return STATUS_BAD_INPUT;
    }
    if (note->kind == JOURNAL_NOTE_BOOKMARK) {
        return bookmark_load(filling->nodes, filling->session, note);
    }
    if (node == NULL || node->is_purged || note->label.size == 0) {
        return STATUS_OK;
    }
    node->label = memory_copy_text((const char *)note->label.data, note->label.size);
    node->label_bytes = (uint32_t)note->label.size;
    return node->label != NULL ? STATUS_OK : STATUS_MEMORY;
}

static enum status take_note(struct filling *filling, uint32_t at)
{
    const enum status status = apply_note(filling, &filling->rows->notes[at]);

    return status == STATUS_OK
               ? STATUS_OK
               : filling_failed(filling, status, "a note about", filling->rows->notes[at].id);
}

static enum status take_author_note(struct filling *filling, uint32_t at)
{
    const struct journal_author_note *note = &filling->rows->author_notes[at];
    const enum status status = author_note_load(filling->nodes, filling->session, note);

    return status == STATUS_OK ? STATUS_OK
                               : filling_failed(filling, status, "a note at node", note->node_id);
}

/* What another model made is read and never computed on. */
static enum status check_prompts(struct filling *filling, uint32_t at)
{
    (void)at;
    return filling->session->is_foreign || load_check_prompts(filling->store, filling->session)
               ? STATUS_OK
               : filling_damaged(filling, "a token, a text or a size of node", 0);
}

static enum status check_node(struct filling *filling, uint32_t at)
{
    const struct rows_node *row = &filling->rows->nodes[at];

    filling->work += (row->ids.size / 4 + row->sampled_count) / FILLING_TOKENS_PER_WORK;
    return filling->session->is_foreign ||
                   load_check_node(filling->store, table_find(filling->nodes, row->node.id))
               ? STATUS_OK
               : filling_damaged(filling, "a token, a text or a size of node", row->node.id);
}

/* ---- all of it ---- */

enum kind { ONCE, NODES, STEPS, CONTEXTS, NOTES, AUTHOR_NOTES };

static uint32_t count_of(const struct rows_tree *rows, enum kind kind)
{
    const uint32_t counts[] = {1,
                               rows->node_count,
                               rows->steps_count,
                               rows->context_count,
                               rows->note_count,
                               rows->author_note_count};

    return counts[kind];
}

enum status load_tree_go_on(struct filling *filling, uint32_t work)
{
    static const struct {
        enum kind kind;
        enum status (*one)(struct filling *filling, uint32_t at);
    } phases[] = {
        {NODES, add_node},         {ONCE, make_lists},
        {STEPS, parse_steps},      {CONTEXTS, filling_make_context},
        {NODES, add_sampled},      {NODES, check_offset},
        {CONTEXTS, check_context}, {NODES, drop_purged},
        {ONCE, check_prompts},     {NODES, check_node},
        {NOTES, take_note},        {AUTHOR_NOTES, take_author_note},
    };
    const uint64_t until = filling->work + work;

    while (filling->phase < sizeof(phases) / sizeof(phases[0])) {
        if (filling->at == count_of(filling->rows, phases[filling->phase].kind)) {
            filling->phase++;
            filling->at = 0;
            continue;
        }
        if (filling->work >= until) {
            return STATUS_AGAIN;
        }
        TRY(phases[filling->phase].one(filling, filling->at));
        filling->at++;
        filling->work++;
    }
    return STATUS_OK;
}

void load_tree_release(struct filling *filling)
{
    for (uint32_t i = 0; filling->contexts != NULL && i < filling->rows->context_count; i++) {
        context_release(filling->contexts[i]);
    }
    for (uint32_t i = 0; i < filling->rows->steps_count; i++) {
        if (filling->samplers != NULL) {
            sampler_release(filling->samplers[i]);
        }
        if (filling->cues != NULL) {
            cue_list_release(filling->cues[i]);
        }
    }
    memory_free(filling->contexts);
    memory_free(filling->samplers);
    memory_free(filling->cues);
}

/* Nodes that were added before a failure go again. */
static void undo(struct filling *filling)
{
    for (uint32_t i = 0; i < filling->rows->node_count; i++) {
        (void)table_remove(filling->nodes, filling->rows->nodes[i].node.id);
    }
    bookmark_finish(filling->session);
    author_note_finish(filling->session);
    tree_finish(filling->session);
    memset(&filling->session->root.children, 0, sizeof(filling->session->root.children));
    filling->session->node_count = 0;
}

/* A head that is gone, or that was never stored, is the root. */
void load_tree_place_head(const struct filling *filling)
{
    struct session *session = filling->session;
    struct node *head = session->stored_head.node == 0
                            ? NULL
                            : table_find(filling->nodes, session->stored_head.node);

    session->head = head != NULL && head->session == session ? head : &session->root;
    session->head_offset = session->stored_head.offset;
    state_head_leave(session);
}

enum status load_tree(struct store *store, struct session *session, const struct rows_tree *rows,
                      struct error *error)
{
    struct filling filling = {
        .store = store, .session = session, .rows = rows, .nodes = &store->nodes, .error = error};
    enum status status = STATUS_AGAIN;

    session->node_count = 0;
    while (status == STATUS_AGAIN) {
        status = load_tree_go_on(&filling, FILLING_WORK_ALL);
    }
    load_tree_release(&filling);
    if (status == STATUS_OK) {
        load_tree_place_head(&filling);
        session->residence = SESSION_RESIDENT;
        state_account_bytes(store, session, author_note_bytes(session));
        for (uint32_t i = 0; i < rows->node_count; i++) {
            struct node *node = table_find(&store->nodes, rows->nodes[i].node.id);

            if (node->is_finish_visible) { /* the others are counted when they end */
                state_account(store, node, true);
            }
        }
    } else {
        undo(&filling);
    }
    return status;
}
