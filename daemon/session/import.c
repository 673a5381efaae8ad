#include "session/import.h"

#include "session/answer.h"
#include "session/import_make.h"
#include "session/import_save.h"
#include "session/key.h"
#include "session/transfer.h"

void import_answer(struct store *store, struct reply_to to, struct session *session)
{
    struct reply reply = {.type = REPLY_IMPORT, .request = REQUEST_SESSION_IMPORT};
    struct cast_view cast[SESSION_CAST_COUNT_MAX];

    reply.u.imported.has_session = true;
    answer_fill_session(session, cast, &reply.u.imported.session);
    store->settings.events.on_reply(store->settings.events.context, to, &reply, false);
}

static void ask_for_more(struct store *store, struct transfer *transfer)
{
    struct reply reply = {.type = REPLY_IMPORT, .request = REQUEST_SESSION_IMPORT};

    reply.u.imported.transfer = transfer->id;
    transfer_answer(store, transfer, &reply, false);
}

static enum status begin(struct store *store, const struct request *request, struct reply_to to,
                         struct error *error, struct transfer **out)
{
    const enum status status = transfer_create(store, request->uid, to, true, error, out);

    TRY(status);
    if (portable_reader_init(&(*out)->reader, &(*out)->portable) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory for an import");
    }
    return STATUS_OK;
}

static bool has_last_piece(const struct transfer *transfer)
{
    return transfer->making != NULL || transfer->saving != NULL;
}

static enum status take(struct store *store, const struct request *request,
                        struct transfer *transfer, struct error *error)
{
    const struct request_import *piece = &request->u.session_import;

    if (has_last_piece(transfer)) {
        return error_set(error, STATUS_CONFLICT, "import %llu has its last piece already",
                         (unsigned long long)transfer->id);
    }
    TRY(portable_read(&transfer->reader, piece->data, error));
    TRY(transfer_count(transfer, error));
    if (!piece->end) {
        return STATUS_OK;
    }
    TRY(portable_read_end(&transfer->reader, error));
    TRY(key_create(store, transfer->uid, request->client_key, 0, error, &transfer->key));
    return import_make_begin(store, transfer, error, &transfer->making);
}

void import_execute(struct store *store, const struct request *request, struct reply_to to)
{
    const uint64_t id = request->u.session_import.transfer;
    struct transfer *transfer = NULL;
    struct error error = {0};
    enum status status = id == 0
                             ? begin(store, request, to, &error, &transfer)
                             : transfer_find(store, id, request->uid, to, true, &error, &transfer);
    const bool is_busy = transfer != NULL && has_last_piece(transfer);

    if (status == STATUS_OK && transfer != NULL) {
        transfer->to = is_busy ? transfer->to : to;
        status = take(store, request, transfer, &error);
    }
    if (status != STATUS_OK) {
        if (transfer != NULL && !is_busy) {
            transfer_destroy(store, transfer);
        }
        answer_error(store, to, request->type, &error);
    } else if (transfer != NULL && !has_last_piece(transfer)) {
        ask_for_more(store, transfer);
    }
}

/* ---- slices ---- */

static enum status make(struct store *store, struct transfer *transfer, struct error *error)
{
    struct session *session = NULL;
    struct key *key = transfer->key;

    if (store->is_stopping) {
        return error_set(error, STATUS_STOPPING, "the daemon is stopping: nothing was imported");
    }
    if (transfer->is_gone) {
        return error_set(error, STATUS_CANCELLED, "the connection is gone");
    }
    TRY(import_make_go_on(transfer->making, error, &session));
    import_making_destroy(transfer->making);
    transfer->making = NULL;
    transfer->key = NULL; /* handed over */
    return import_save(store, transfer, session, key, error);
}

static void fail(struct store *store, struct transfer *transfer)
{
    const struct error error = transfer->failure;
    const struct reply_to to = transfer->to;

    transfer_destroy(store, transfer);
    answer_error(store, to, REQUEST_SESSION_IMPORT, &error);
}

static void go_on(struct store *store, struct transfer *transfer)
{
    enum status status = STATUS_AGAIN;

    if (transfer->failure.status == STATUS_OK) {
        status = make(store, transfer, &transfer->failure);
    } else if (import_make_drop(transfer->making)) {
        transfer->making = NULL;
    }
    if (status != STATUS_OK && transfer->making == NULL) {
        fail(store, transfer);
    }
}

void import_go_on(struct store *store)
{
    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        struct transfer *transfer = store->transfers[store->transfer_at++ % TRANSFER_COUNT_MAX];

        if (transfer != NULL && transfer->making != NULL) {
            go_on(store, transfer);
            return;
        }
    }
}

bool import_is_going(const struct store *store)
{
    bool is_going = false;

    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        is_going = is_going || (store->transfers[i] != NULL && store->transfers[i]->making != NULL);
    }
    return is_going;
}
