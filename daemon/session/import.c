#include "session/import.h"

#include "session/answer.h"
#include "session/import_make.h"
#include "session/import_save.h"
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

static enum status take(struct store *store, const struct request *request,
                        struct transfer *transfer, struct error *error)
{
    const struct request_import *piece = &request->u.session_import;
    struct session *session = NULL;

    if (transfer->saving != NULL) {
        return error_set(error, STATUS_CONFLICT, "import %llu has its last piece already",
                         (unsigned long long)transfer->id);
    }
    TRY(portable_read(&transfer->reader, piece->data, error));
    TRY(transfer_count(transfer, error));
    if (!piece->end) {
        return STATUS_OK;
    }
    TRY(portable_read_end(&transfer->reader, error));
    TRY(import_make(store, transfer, error, &session));
    return import_save(store, transfer, session, request->client_key, error);
}

void import_execute(struct store *store, const struct request *request, struct reply_to to)
{
    const uint64_t id = request->u.session_import.transfer;
    struct transfer *transfer = NULL;
    struct error error = {0};
    enum status status = id == 0
                             ? begin(store, request, to, &error, &transfer)
                             : transfer_find(store, id, request->uid, to, true, &error, &transfer);
    const bool is_busy = transfer != NULL && transfer->saving != NULL;

    if (status == STATUS_OK && transfer != NULL) {
        transfer->to = is_busy ? transfer->to : to;
        status = take(store, request, transfer, &error);
    }
    if (status != STATUS_OK) {
        if (transfer != NULL && !is_busy) {
            transfer_destroy(store, transfer);
        }
        answer_error(store, to, request->type, &error);
    } else if (transfer != NULL && transfer->saving == NULL) {
        ask_for_more(store, transfer);
    }
}
