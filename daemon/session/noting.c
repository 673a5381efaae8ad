#include "session/noting.h"

enum status noting_init(struct noting *noting, struct store *store, const struct request *request,
                        struct reply_to to, struct error *error)
{
    *noting = (struct noting){.store = store, .error = error};
    TRY(pending_create(0, bytes_of(NULL, 0), error, &noting->pending));
    noting->pending->to = to;
    noting->pending->type = request->type;
    noting->pending->uid = request->uid;
    if (journal_batch_create(&noting->batch) != STATUS_OK) {
        noting_finish(noting);
        return error_set(error, STATUS_MEMORY, "out of memory while something was noted");
    }
    return STATUS_OK;
}

enum status noting_submit(struct noting *noting, enum status added)
{
    struct journal_batch *batch = noting->batch;

    if (added != STATUS_OK) {
        return error_set(noting->error, added, "out of memory while something was noted");
    }
    noting->batch = NULL; /* handed over */
    return record_submit(noting->store, batch, noting->error, &noting->ticket);
}

void noting_answer(struct noting *noting)
{
    struct pending *pending = noting->pending;

    noting->pending = NULL; /* belongs to itself */
    pending_start_ticket(noting->store, pending, noting->ticket);
}

void noting_finish(struct noting *noting)
{
    journal_batch_destroy(noting->batch);
    pending_destroy(noting->pending);
    noting->batch = NULL;
    noting->pending = NULL;
}
