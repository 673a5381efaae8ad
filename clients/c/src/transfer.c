/* Blocking calls that take a session out as a file, and in. */
#include "client.h"

enum { PIECE_BYTES = 256 * 1024 };

int personad_session_export(personad_client *client, uint64_t session, uint64_t node,
                            bool (*on_data)(void *context, const void *data, size_t size),
                            void *context)
{
    Personad__V1__SessionExportRequest body = PERSONAD__V1__SESSION_EXPORT_REQUEST__INIT;
    const Personad__V1__Reply *reply = NULL;
    body.has_session = true;
    body.session = session;
    body.has_node = node != 0;
    body.node = node;
    do {
        const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_SESSION_EXPORT, &body,
                                    PERSONAD__V1__REPLY__RESULT_SESSION_EXPORT, &reply);
        if (code != PERSONAD_OK) {
            return code;
        }
        const Personad__V1__SessionExportReply *page = reply->session_export;
        if (page->has_data && !on_data(context, page->data.data, page->data.len)) {
            return client_fail(client, PERSONAD_CANCELLED, "the export was ended by its receiver");
        }
        body.has_transfer = true;
        body.transfer = page->has_transfer ? page->transfer : 0;
        if (body.transfer == 0) {
            return client_fail(client, PERSONAD_PROTOCOL, "the daemon sent a page without its id");
        }
    } while (!(reply->session_export->has_end && reply->session_export->end));
    return PERSONAD_OK;
}

static int take_session(personad_client *client, const Personad__V1__SessionImportReply *reply,
                        const struct personad_session **out)
{
    struct personad_session *session = message_alloc(client->current, 1, sizeof *session);
    if (session == NULL || !session_of(client->current, reply->session, session)) {
        return client_no_memory(client);
    }
    *out = session;
    return PERSONAD_OK;
}

int personad_session_import(personad_client *client,
                            long (*read_data)(void *context, void *data, size_t size),
                            void *context, const struct personad_session **out)
{
    static _Thread_local uint8_t data[PIECE_BYTES];
    Personad__V1__SessionImportRequest body = PERSONAD__V1__SESSION_IMPORT_REQUEST__INIT;
    const Personad__V1__Reply *reply = NULL;
    for (;;) {
        const long size = read_data(context, data, sizeof data);
        if (size < 0) {
            return client_fail(client, PERSONAD_CANCELLED, "the file could not be read");
        }
        body.has_data = true;
        body.data = (ProtobufCBinaryData){(size_t)size, data};
        body.has_end = true;
        body.end = size == 0;
        const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_SESSION_IMPORT, &body,
                                    PERSONAD__V1__REPLY__RESULT_SESSION_IMPORT, &reply);
        if (code != PERSONAD_OK) {
            return code;
        }
        if (reply->session_import->session != NULL) {
            return take_session(client, reply->session_import, out);
        }
        if (body.end || !reply->session_import->has_transfer) {
            return client_fail(client, PERSONAD_PROTOCOL, "the daemon answered without a session");
        }
        body.has_transfer = true;
        body.transfer = reply->session_import->transfer;
    }
}
