#include "session/export.h"

#include <string.h>

#include "session/answer.h"
#include "session/inspect.h"
#include "session/record.h"
#include "session/transfer.h"

/* Pages are cut from what is written already, which may be much more than one: it stays where it is
 * until most of it is sent. */
static void send_page(struct store *store, struct transfer *transfer)
{
    struct reply reply = {.type = REPLY_EXPORT, .request = REQUEST_SESSION_EXPORT};
    const size_t left = transfer->out.size - transfer->sent;
    const size_t size = left < IMPORT_PIECE_BYTES_MAX ? left : IMPORT_PIECE_BYTES_MAX;

    reply.u.exported.transfer = transfer->id;
    if (size > 0) {
        reply.u.exported.data = bytes_of(transfer->out.data + transfer->sent, size);
    }
    reply.u.exported.end = transfer->is_over && size == left;
    transfer->sent += size;
    transfer_answer(store, transfer, &reply, reply.u.exported.end);
}

static void fail(struct store *store, struct transfer *transfer, struct reply_to to,
                 const struct error *error)
{
    if (transfer != NULL) {
        transfer_destroy(store, transfer);
    }
    answer_error(store, to, REQUEST_SESSION_EXPORT, error);
}

static enum status write_page(struct transfer *transfer)
{
    if (transfer->is_over || transfer->out.size - transfer->sent >= EXPORT_PAGE_BYTES) {
        return STATUS_OK;
    }
    buffer_consume(&transfer->out, transfer->sent);
    transfer->sent = 0;
    return portable_write_some(transfer->writer, EXPORT_PAGE_BYTES, &transfer->out,
                               &transfer->is_over);
}

static void go_on(struct store *store, struct transfer *transfer, struct reply_to to)
{
    struct error error = {0};
    const enum status status = write_page(transfer);

    transfer->to = to;
    if (status != STATUS_OK) {
        error_set(&error, status,
                  status == STATUS_STORAGE ? "session %llu cannot be exported: it is damaged"
                                           : "out of memory for the export of session %llu",
                  (unsigned long long)transfer->session_id);
        fail(store, transfer, to, &error);
        return;
    }
    send_page(store, transfer);
}

/* ---- the beginning ---- */

/* Deleted and another's are as for everything else; its tree need not be in memory. */
static enum status open_session(const struct store *store, uint64_t id, uint32_t uid,
                                struct error *error, struct session **out)
{
    struct session *session = state_session_find(store, id);

    if (session != NULL && session->owner_uid == uid && !session->is_deleted && session->is_open) {
        *out = session;
        return STATUS_OK;
    }
    if (session != NULL && session->owner_uid == uid && !session->is_deleted) {
        return error_set(error, STATUS_CONFLICT, "session %llu is being opened",
                         (unsigned long long)id);
    }
    return state_session_open(store, id, uid, error, out);
}

static enum status begin(struct store *store, const struct request *request, struct reply_to to,
                         struct error *error)
{
    const struct request_export *asked = &request->u.session_export;
    struct session *session = NULL;
    struct transfer *transfer = NULL;
    struct journal_read read = {.session_id = asked->session};

    TRY(open_session(store, asked->session, request->uid, error, &session));
    TRY(transfer_create(store, request->uid, to, false, error, &transfer));
    transfer->session_id = asked->session;
    transfer->node = asked->node;
    read.transfer = transfer->id;
    if (journal_read(store->settings.journal, &read) != STATUS_OK) {
        transfer_destroy(store, transfer);
        return error_set_limit(error, "JOURNAL_READ_COUNT_MAX", JOURNAL_READ_COUNT_MAX,
                               "too many sessions are being read; try again");
    }
    return STATUS_OK;
}

static enum status find(const struct store *store, const struct request *request,
                        struct reply_to to, struct error *error, struct transfer **out)
{
    TRY(transfer_find(store, request->u.session_export.transfer, request->uid, to, false, error,
                      out));
    if ((*out)->writer == NULL) {
        return error_set(error, STATUS_CONFLICT, "export %llu has not begun yet: await its reply",
                         (unsigned long long)(*out)->id);
    }
    return STATUS_OK;
}

void export_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct transfer *transfer = NULL;
    struct error error = {0};

    if (request->u.session_export.transfer == 0) {
        if (begin(store, request, to, &error) != STATUS_OK) {
            fail(store, NULL, to, &error);
        }
    } else if (find(store, request, to, &error, &transfer) != STATUS_OK) {
        fail(store, NULL, to, &error);
    } else {
        go_on(store, transfer, to);
    }
}

/* ---- once the rows are there ---- */

/* The parts borrow from the session and its prompts: the head is written before this turn ends. */
static enum status fill_prompt(const struct prompt *prompt, struct arena *arena,
                               struct journal_prompt *out)
{
    struct buffer greetings;
    enum status status;

    buffer_init(&greetings, FRAME_BODY_BYTES_MAX);
    status = record_fill_prompt(prompt, &greetings, out);
    if (status == STATUS_OK && greetings.size > 0) {
        out->greetings =
            bytes_of(arena_copy(arena, greetings.data, greetings.size), greetings.size);
        status = out->greetings.data != NULL ? STATUS_OK : STATUS_MEMORY;
    }
    buffer_finish(&greetings);
    memcpy(out->digest, prompt->digest, sizeof(out->digest));
    return status;
}

static enum status fill_member(const struct session *session, const struct cast_member *from,
                               struct arena *arena, struct portable_member *to)
{
    *to = (struct portable_member){.name = from->name, .is_persona = from->prompt != NULL};
    if (from->prompt == NULL) {
        return STATUS_OK;
    }
    to->persona_name = from->prompt->persona->card->name;
    to->is_hidden = !inspect_may_see(session, from->prompt);
    if (!to->is_hidden) {
        TRY(fill_prompt(from->prompt, arena, &to->prompt));
        to->has_prompt = true;
        to->system = from->system;
        to->examples = from->examples;
    }
    if (from->prompt->persona->owner_uid == session->owner_uid) {
        to->card = from->prompt->persona->card->json;
    }
    return STATUS_OK;
}

static enum status fill_joints(struct portable *portable, const struct session *session)
{
    const struct cast *cast = &session->cast;

    portable->is_joint = cast->mode == GROUP_JOINT;
    for (uint32_t i = 0; i < cast->joint_count && inspect_may_see(session, cast->joints[i].prompt);
         i++) {
        struct portable_joint *joint = &portable->joints[portable->joint_count++];

        joint->member_count = cast->joints[i].member_count;
        TRY(fill_prompt(cast->joints[i].prompt, &portable->tree->arena, &joint->prompt));
    }
    return STATUS_OK;
}

static enum status fill(struct transfer *transfer, const struct session *session)
{
    struct portable *portable = &transfer->portable;
    const bool is_resident = session->residence == SESSION_RESIDENT;

    portable->seed = session->seed;
    portable->created_us = session->created_us;
    portable->context_tokens = session->context_tokens;
    portable->label = bytes_of(session->label, session->label_bytes);
    portable->head = is_resident ? (struct position){session->head->id, session->head_offset}
                                 : session->stored_head;
    for (uint32_t i = 0; i < session->cast.count; i++) {
        TRY(fill_member(session, &session->cast.members[i], &portable->tree->arena,
                        &portable->members[i]));
        portable->member_count++;
    }
    return fill_joints(portable, session);
}

static enum status start(const struct store *store, struct transfer *transfer, struct error *error)
{
    struct session *session = NULL;
    enum status status;

    TRY(open_session(store, transfer->session_id, transfer->uid, error, &session));
    status = fill(transfer, session);
    if (status != STATUS_OK) {
        return error_set(error, status, "out of memory for an export");
    }
    TRY(portable_writer_create(&transfer->portable, transfer->node, error, &transfer->writer));
    status = portable_write_head(transfer->writer, &transfer->out);
    return status == STATUS_OK ? STATUS_OK
                               : error_set(error, status, "out of memory for an export");
}

void export_take(struct store *store, struct journal_tree *read)
{
    struct transfer *transfer = transfer_of(store, read->read.transfer);
    struct error error = read->error;
    enum status status = read->status;

    if (transfer == NULL) {
        return;
    }
    if (status == STATUS_OK) {
        transfer->portable.tree = read->tree;
        read->tree = NULL; /* handed over */
        status = transfer_count(transfer, &error);
    }
    if (status == STATUS_OK) {
        status = start(store, transfer, &error);
    }
    if (status != STATUS_OK) {
        fail(store, transfer, transfer->to, &error);
        return;
    }
    go_on(store, transfer, transfer->to);
}
