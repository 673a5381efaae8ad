#include "session/keep.h"

#include "base/check.h"
#include "session/answer.h"
#include "session/change.h"
#include "session/expansion.h"

/* The tokens of the path, without an end of the turn. */
static enum status list_tokens(const struct expansion *expansion, uint32_t number,
                               struct error *error, struct id_list *out)
{
    if (number == 0 || number > expansion->node_count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "there is no node %u in expansion %llu: it has 1 to %u", number,
                         (unsigned long long)expansion->id, expansion->node_count);
    }
    if (expansion_path(expansion, number, out) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory while a path was kept");
    }
    out->count -= expansion->nodes[number - 1].is_end;
    if (out->count == 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the path to node %u is nothing but the end of the turn: there is no "
                         "text to keep",
                         number);
    }
    return STATUS_OK;
}

static enum status execute(struct store *store, const struct request *request, struct reply_to to,
                           struct change *change, struct id_list *ids, struct error *error)
{
    const struct request_keep *asked = &request->u.keep;
    struct change_answer answer = {
        .to = to, .type = request->type, .uid = request->uid, .key = request->client_key};
    struct change_given given = {.is_expanded = true};
    struct expansion *expansion = NULL;
    struct session *session = NULL;
    struct place behind;

    TRY(expansion_find(store, asked->expansion, request->uid, error, &expansion));
    TRY(list_tokens(expansion, asked->node, error, ids));
    TRY(state_session_open(store, expansion->session_id, request->uid, error, &session));
    TRY(state_place(store, session, true, expansion->position, error, &given.place));
    given.speaker = expansion->speaker;
    given.opens_turn = expansion->opens_turn;
    given.ids = ids->ids;
    given.count = ids->count;
    TRY(change_init(change, store, session, 1, error));
    TRY(change_give(change, &given, &behind));
    answer.head = behind.node;
    TRY(change_commit(change, &answer));
    session->head = behind.node;
    session->head_offset = OFFSET_END;
    return STATUS_OK;
}

void keep_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct change change = {0};
    struct id_list ids = {0};
    struct error error = {0};
    const enum status status = execute(store, request, to, &change, &ids, &error);

    change_finish(&change);
    id_list_finish(&ids);
    if (status != STATUS_OK) {
        CHECK(error.status == status);
        answer_error(store, to, request->type, &error);
    }
}
