/* SessionExport, SessionImport. */
#include "limits.h"
#include "wire/codec_inside.h"

enum status codec_decode_transfer(const Personad__V1__Request *from, struct error *error,
                                  struct request *out)
{
    if (from->op_case == PERSONAD__V1__REQUEST__OP_SESSION_EXPORT) {
        const Personad__V1__SessionExportRequest *asked = from->session_export;
        out->type = REQUEST_SESSION_EXPORT;
        out->u.session_export.session = asked->has_session ? asked->session : 0;
        out->u.session_export.node = asked->has_node ? asked->node : 0;
        out->u.session_export.transfer = asked->has_transfer ? asked->transfer : 0;
        return STATUS_OK;
    }
    const Personad__V1__SessionImportRequest *piece = from->session_import;
    out->type = REQUEST_SESSION_IMPORT;
    out->u.session_import.transfer = piece->has_transfer ? piece->transfer : 0;
    out->u.session_import.data = codec_view(piece->data);
    out->u.session_import.end = piece->has_end && piece->end;
    return codec_check_count(piece->data.len, IMPORT_PIECE_BYTES_MAX, "IMPORT_PIECE_BYTES_MAX",
                             "session_import.data", error);
}

static enum status export_build(const struct reply *reply, struct arena *arena,
                                Personad__V1__Reply *out)
{
    Personad__V1__SessionExportReply *body =
        codec_new(arena, &personad__v1__session_export_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    CODEC_SET_BYTES(body, data, reply->u.exported.data);
    CODEC_SET(body, transfer, reply->u.exported.transfer);
    if (reply->u.exported.end) {
        CODEC_SET(body, end, true);
    }
    out->result_case = PERSONAD__V1__REPLY__RESULT_SESSION_EXPORT;
    out->session_export = body;
    return STATUS_OK;
}

enum status codec_build_transfer(const struct reply *reply, struct arena *arena,
                                 Personad__V1__Reply *out)
{
    if (reply->type == REPLY_EXPORT) {
        return export_build(reply, arena, out);
    }
    Personad__V1__SessionImportReply *body =
        codec_new(arena, &personad__v1__session_import_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    out->result_case = PERSONAD__V1__REPLY__RESULT_SESSION_IMPORT;
    out->session_import = body;
    if (!reply->u.imported.has_session) {
        CODEC_SET(body, transfer, reply->u.imported.transfer);
        return STATUS_OK;
    }
    body->session = codec_new(arena, &personad__v1__session_info__descriptor);
    return body->session == NULL
               ? STATUS_MEMORY
               : codec_fill_session(&reply->u.imported.session, arena, body->session);
}
