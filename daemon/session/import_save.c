#include "session/import_save.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/import.h"
#include "session/import_make.h"
#include "session/key.h"
#include "session/open.h"
#include "session/pending.h"
#include "session/record.h"

enum { SLICE_BYTES = 512 * 1024 };

struct import_saving {
    struct session *session; /* owned until it is in the list */
    struct key *key;         /* owned until it is remembered; NULL: none */
    uint32_t next_steps, next_context, next_node, next_note, next_author_note;
    bool has_ended; /* the last slice is under way */
};

/* Nobody gives a session such a label together with that mark. */
static const char unfinished_label[] = JOURNAL_IMPORTING;

void import_save_destroy(struct store *store, struct import_saving *saving)
{
    if (saving != NULL) {
        open_session_destroy(store, saving->session);
        key_destroy(saving->key);
        memory_free(saving);
    }
}

/* ---- records ---- */

static struct journal_origin origin_of(struct bytes hash, struct bytes numerics)
{
    struct journal_origin origin = {.numerics_id = numerics};

    CHECK(hash.size == JOURNAL_DIGEST_BYTES);
    memcpy(origin.model_hash, hash.data, JOURNAL_DIGEST_BYTES);
    return origin;
}

static enum status add_note(struct journal_batch *batch, const struct session *session,
                            uint32_t flags, struct bytes label)
{
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_SESSION, .id = session->id, .flags = flags, .label = label};

    return record_add_note(batch, &note);
}

static enum status add_session(struct transfer *transfer, struct journal_batch *batch)
{
    const struct session *session = transfer->saving->session;
    struct rows_tree *tree = transfer->portable.tree;
    const struct journal_origin origin = origin_of(tree->model_hash, tree->numerics_id);

    TRY(record_add_session(batch, session, &origin));
    for (uint32_t i = 0; i < tree->context_count; i++) {
        const uint32_t at = transfer->portable.context_prompts[i];

        memcpy(tree->contexts[i].prompt_digest, import_prompt(session, at)->digest,
               JOURNAL_DIGEST_BYTES);
    }
    return add_note(batch, session, JOURNAL_NOTE_DELETED | JOURNAL_NOTE_PURGED,
                    bytes_of_text(unfinished_label));
}

static enum status add_sampled(const struct rows_tree *tree, const struct rows_node *row,
                               struct journal_batch *batch)
{
    struct journal_record intent = {
        .kind = JOURNAL_INTENT,
        .u.intent = {.node = row->node,
                     .seed = row->seed,
                     .context_id = row->context_id,
                     .room = row->room,
                     .top_count = row->top_count,
                     .origin = origin_of(row->model_hash, row->numerics_id)},
    };
    struct journal_record finish = {
        .kind = JOURNAL_FINISH,
        .u.finish = {.node_id = row->node.id,
                     .finished_us = row->finished_us,
                     .chunk = {.first = row->sampled_count},
                     .finish = row->finish,
                     .kept = row->kept,
                     .content_bytes = row->content_bytes,
                     .cue_pattern = row->cue_pattern,
                     .cached_count = row->cached_count,
                     .computed_count = row->computed_count,
                     .error_status = row->error_status,
                     .queued_ns = row->queued_ns,
                     .first_token_ns = row->first_token_ns,
                     .last_token_ns = row->last_token_ns,
                     .tail = row->tail,
                     .error_text = row->error_text},
    };

    memcpy(intent.u.intent.steps_digest, row->steps_digest.data, JOURNAL_DIGEST_BYTES);
    TRY(journal_batch_add(batch, &intent));
    for (uint32_t i = 0; i < row->chunk_count; i++) {
        struct journal_record chunk = {
            .kind = JOURNAL_CHECKPOINT,
            .u.checkpoint = {.node_id = row->node.id, .chunk = tree->chunks[row->first_chunk + i]},
        };

        TRY(journal_batch_add(batch, &chunk));
    }
    return journal_batch_add(batch, &finish);
}

static enum status add_node(struct import_saving *saving, const struct rows_tree *tree,
                            struct journal_batch *batch)
{
    const struct rows_node *row = &tree->nodes[saving->next_node];
    const struct journal_record given = {
        .kind = JOURNAL_GIVEN,
        .u.given = {.node = row->node,
                    .finish = row->finish,
                    .original = row->original,
                    .ids = row->ids,
                    .text = row->text},
    };

    if (saving->next_context < tree->context_count &&
        tree->contexts[saving->next_context].id == row->node.id) {
        const struct journal_record context = {.kind = JOURNAL_CONTEXT,
                                               .u.context = tree->contexts[saving->next_context]};

        TRY(journal_batch_add(batch, &context));
        saving->next_context++;
    }
    saving->next_node++;
    return row->is_sampled ? add_sampled(tree, row, batch) : journal_batch_add(batch, &given);
}

static enum status add_end(struct transfer *transfer, struct journal_batch *batch)
{
    const struct import_saving *saving = transfer->saving;
    const struct session *session = saving->session;
    const struct journal_record head = {
        .kind = JOURNAL_HEAD,
        .u.head = {.session_id = session->id,
                   .node_id = session->stored_head.node,
                   .offset = session->stored_head.offset},
    };

    TRY(journal_batch_add(batch, &head));
    if (saving->key != NULL) {
        const struct journal_record key = {
            .kind = JOURNAL_KEY,
            .u.key = {.uid = transfer->uid,
                      .request = REQUEST_SESSION_IMPORT,
                      .session_id = session->id,
                      .key = saving->key->text},
        };

        TRY(journal_batch_add(batch, &key));
    }
    return add_note(batch, session, 0, bytes_of(session->label, session->label_bytes));
}

static enum status fill(struct transfer *transfer, struct journal_batch *batch)
{
    struct import_saving *saving = transfer->saving;
    const struct rows_tree *tree = transfer->portable.tree;

    while (batch->bytes < SLICE_BYTES) {
        if (saving->next_steps < tree->steps_count) {
            const struct journal_record steps = {.kind = JOURNAL_STEPS,
                                                 .u.steps = tree->steps[saving->next_steps++]};

            TRY(journal_batch_add(batch, &steps));
        } else if (saving->next_node < tree->node_count) {
            TRY(add_node(saving, tree, batch));
        } else if (saving->next_note < tree->note_count) {
            TRY(record_add_note(batch, &tree->notes[saving->next_note++]));
        } else if (saving->next_author_note < tree->author_note_count) {
            const struct journal_record note = {.kind = JOURNAL_AUTHOR_NOTE,
                                                .u.author_note =
                                                    tree->author_notes[saving->next_author_note++]};

            TRY(journal_batch_add(batch, &note));
        } else {
            saving->has_ended = true;
            return add_end(transfer, batch);
        }
    }
    return STATUS_OK;
}

/* ---- slices ---- */

static enum status submit(struct store *store, struct transfer *transfer,
                          enum status (*add)(struct transfer *transfer,
                                             struct journal_batch *batch),
                          struct error *error)
{
    struct journal_batch *batch = NULL;
    struct pending *pending = NULL;
    uint64_t ticket = 0;
    enum status status;

    TRY(pending_create(0, bytes_of(NULL, 0), error, &pending));
    status = journal_batch_create(&batch);
    if (status == STATUS_OK) {
        batch->is_silent = true;
        status = add(transfer, batch);
    }
    if (status == STATUS_OK) {
        status = record_submit(store, batch, error, &ticket);
    } else {
        journal_batch_destroy(batch);
        error_set(error, status, "out of memory for an import");
    }
    if (status != STATUS_OK) {
        pending_destroy(pending);
        return status;
    }
    pending->to = transfer->to;
    pending->type = REQUEST_SESSION_IMPORT;
    pending->uid = transfer->uid;
    pending->transfer = transfer->id;
    pending_start_ticket(store, pending, ticket);
    return STATUS_OK;
}

enum status import_save(struct store *store, struct transfer *transfer, struct session *session,
                        struct key *key, struct error *error)
{
    transfer->saving = memory_alloc(1, sizeof(*transfer->saving));
    if (transfer->saving == NULL) {
        key_destroy(key);
        open_session_destroy(store, session);
        return error_set(error, STATUS_MEMORY, "out of memory for an import");
    }
    transfer->saving->session = session;
    transfer->saving->key = key;
    return submit(store, transfer, add_session, error);
}

/* Into the list, by its id: sessions that were opened meanwhile have higher ones. */
static enum status list_session(struct store *store, struct transfer *transfer, struct error *error)
{
    struct import_saving *saving = transfer->saving;
    struct session *session = saving->session;
    const uint32_t at = state_session_index(store, session->id);
    void **items;

    if (state_push(&store->sessions, session) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY,
                         "out of memory: session %llu is there after the next start",
                         (unsigned long long)session->id);
    }
    items = store->sessions.items;
    memmove(items + at + 1, items + at, (store->sessions.count - 1 - at) * sizeof(*items));
    items[at] = session;
    session->is_open = true;
    transfer->user->session_count++;
    saving->session = NULL; /* handed over */
    if (saving->key != NULL) {
        saving->key->type = REQUEST_SESSION_IMPORT;
        saving->key->session_id = session->id;
        if (key_remember(store, saving->key, error) == STATUS_OK) {
            saving->key = NULL; /* handed over */
        }
    }
    /* Its nodes may have been asked for before they were there. */
    memset(store->absent_nodes, 0, sizeof(store->absent_nodes));
    import_answer(store, transfer->to, session);
    return STATUS_OK;
}

void import_saved(struct store *store, uint64_t id, enum status status)
{
    struct transfer *transfer = transfer_of(store, id);
    struct error error = {0};

    CHECK(transfer != NULL && transfer->saving != NULL);
    if (status != STATUS_OK) {
        error_set(&error, status, "%s", status_text(status));
    } else if (transfer->saving->has_ended) {
        status = list_session(store, transfer, &error);
    } else if (store->is_stopping) {
        status = error_set(&error, STATUS_STOPPING, "the daemon is stopping: nothing was imported");
    } else {
        status = submit(store, transfer, fill, &error);
        if (status == STATUS_OK) {
            return;
        }
    }
    if (status != STATUS_OK) {
        answer_error(store, transfer->to, REQUEST_SESSION_IMPORT, &error);
    }
    transfer_destroy(store, transfer);
}
