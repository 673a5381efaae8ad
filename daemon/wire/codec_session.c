/* SessionOpen, SessionList. */
#include "limits.h"
#include "wire/codec_inside.h"

static enum status variables_decode(Personad__V1__Variable *const *from, size_t count,
                                    struct arena *arena, struct error *error,
                                    const struct variable **out, uint32_t *out_count)
{
    TRY(codec_check_count(count, PERSONA_VARIABLE_COUNT_MAX, "PERSONA_VARIABLE_COUNT_MAX",
                          "variables", error));
    struct variable *variables = arena_alloc(arena, count, sizeof *variables);
    if (variables == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading the variables");
    }
    for (size_t i = 0; i < count; i++) {
        TRY(codec_check_text(from[i]->name, PERSONA_NAME_BYTES_MAX, "PERSONA_NAME_BYTES_MAX",
                             "variables.name", error, &variables[i].name));
        TRY(codec_check_text(from[i]->value, TEXT_BYTES_MAX, "TEXT_BYTES_MAX", "variables.value",
                             error, &variables[i].value));
        if (variables[i].name.size == 0) {
            return error_set(error, STATUS_BAD_INPUT, "variables: a name is empty");
        }
    }
    *out = variables;
    *out_count = (uint32_t)count;
    return STATUS_OK;
}

static enum status member_decode(const Personad__V1__CastEntry *from, struct arena *arena,
                                 struct error *error, struct request_member *out)
{
    out->persona = from->has_persona ? from->persona : 0;
    TRY(codec_check_text(from->persona_name, PERSONA_NAME_BYTES_MAX, "PERSONA_NAME_BYTES_MAX",
                         "cast.persona_name", error, &out->persona_name));
    TRY(codec_check_text(from->name, PERSONA_NAME_BYTES_MAX, "PERSONA_NAME_BYTES_MAX", "cast.name",
                         error, &out->name));
    if ((out->persona != 0 || out->persona_name.size > 0) == (out->name.size > 0)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "cast: an entry names a persona, which brings its name, or a human");
    }
    return variables_decode(from->variables, from->n_variables, arena, error, &out->variables,
                            &out->variable_count);
}

enum status codec_decode_members(Personad__V1__CastEntry *const *from, size_t count,
                                 struct arena *arena, struct error *error,
                                 const struct request_member **out, uint32_t *out_count)
{
    TRY(codec_check_count(count, SESSION_CAST_COUNT_MAX, "SESSION_CAST_COUNT_MAX", "cast", error));
    struct request_member *members = arena_alloc(arena, count, sizeof *members);
    if (members == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading the cast");
    }
    for (size_t i = 0; i < count; i++) {
        TRY(member_decode(from[i], arena, error, &members[i]));
    }
    *out = members;
    *out_count = (uint32_t)count;
    return STATUS_OK;
}

enum status codec_decode_session_open(const Personad__V1__SessionOpenRequest *from,
                                      struct arena *arena, struct error *error, struct request *out)
{
    struct request_session_open *open = &out->u.session_open;
    out->type = REQUEST_SESSION_OPEN;
    open->persona = from->has_persona ? from->persona : 0;
    TRY(codec_check_text(from->persona_name, PERSONA_NAME_BYTES_MAX, "PERSONA_NAME_BYTES_MAX",
                         "session_open.persona_name", error, &open->persona_name));
    TRY(codec_check_text(from->user_name, PERSONA_NAME_BYTES_MAX, "PERSONA_NAME_BYTES_MAX",
                         "session_open.user_name", error, &open->user_name));
    TRY(codec_check_text(from->label, LABEL_BYTES_MAX, "LABEL_BYTES_MAX", "session_open.label",
                         error, &open->label));
    TRY(variables_decode(from->variables, from->n_variables, arena, error, &open->variables,
                         &open->variable_count));
    TRY(codec_decode_members(from->cast, from->n_cast, arena, error, &open->members,
                             &open->member_count));
    open->group_mode = from->has_group_mode && from->group_mode == PERSONAD__V1__GROUP_MODE__JOINT
                           ? GROUP_JOINT
                           : GROUP_SEPARATE;
    open->has_seed = from->has_seed;
    open->seed = from->seed;
    open->context_tokens = from->has_context_tokens ? from->context_tokens : 0;
    open->no_greeting = from->has_no_greeting && from->no_greeting;
    return STATUS_OK;
}

enum status codec_fill_session(const struct session_view *view, struct arena *arena,
                               Personad__V1__SessionInfo *out)
{
    CODEC_SET(out, id, view->id);
    CODEC_SET(out, owner_uid, view->owner_uid);
    CODEC_SET_BYTES(out, label, view->label);
    CODEC_SET(out, seed, view->seed);
    CODEC_SET(out, context_tokens, view->context_tokens);
    CODEC_SET(out, node_count, view->node_count);
    CODEC_SET(out, created_us, view->created_us);
    CODEC_SET(out, group_mode, (Personad__V1__GroupMode)view->group_mode);
    if (view->is_deleted) {
        CODEC_SET(out, deleted, true);
    }
    out->head = codec_build_position(view->head, arena);
    out->cast = codec_new_list(arena, &personad__v1__cast_member__descriptor, view->cast_count);
    if (out->head == NULL || out->cast == NULL) {
        return STATUS_MEMORY;
    }
    out->n_cast = view->cast_count;
    for (uint32_t i = 0; i < view->cast_count; i++) {
        CODEC_SET(out->cast[i], speaker, view->cast[i].speaker);
        CODEC_SET_BYTES(out->cast[i], name, view->cast[i].name);
        if (view->cast[i].persona != 0) {
            CODEC_SET(out->cast[i], persona, view->cast[i].persona);
        }
    }
    return STATUS_OK;
}

/* The greetings' texts come from one card, which fits a frame; alternates of one that is larger
 * come without. */
static enum status greetings_fill(const struct reply *reply, struct arena *arena,
                                  Personad__V1__SessionOpenReply *out)
{
    const uint32_t count = reply->u.session.greeting_count;
    out->greetings = codec_new_list(arena, &personad__v1__node_info__descriptor, count);
    if (out->greetings == NULL) {
        return STATUS_MEMORY;
    }
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct node_view *view = &reply->u.session.greetings[i];
        size += view->text_bytes;
        const struct codec_parts parts = {.text = size < CODEC_LIST_BYTES_MAX / 2};
        TRY(codec_fill_node(view, parts, arena, out->greetings[i]));
    }
    out->n_greetings = count;
    return STATUS_OK;
}

static enum status session_set_build(const struct reply *reply, struct arena *arena,
                                     Personad__V1__Reply *out)
{
    Personad__V1__SessionSetReply *body =
        codec_new(arena, &personad__v1__session_set_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    body->session = codec_new(arena, &personad__v1__session_info__descriptor);
    if (body->session == NULL) {
        return STATUS_MEMORY;
    }
    out->result_case = PERSONAD__V1__REPLY__RESULT_SESSION_SET;
    out->session_set = body;
    return codec_fill_session(&reply->u.session.session, arena, body->session);
}

enum status codec_build_session(const struct reply *reply, struct arena *arena,
                                Personad__V1__Reply *out)
{
    if (reply->request == REQUEST_SESSION_SET) {
        return session_set_build(reply, arena, out);
    }
    Personad__V1__SessionOpenReply *body =
        codec_new(arena, &personad__v1__session_open_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    body->session = codec_new(arena, &personad__v1__session_info__descriptor);
    if (body->session == NULL) {
        return STATUS_MEMORY;
    }
    TRY(codec_fill_session(&reply->u.session.session, arena, body->session));
    TRY(greetings_fill(reply, arena, body));
    out->result_case = PERSONAD__V1__REPLY__RESULT_SESSION_OPEN;
    out->session_open = body;
    return STATUS_OK;
}

enum status codec_build_sessions(const struct reply *reply, struct arena *arena,
                                 Personad__V1__Reply *out)
{
    const uint32_t count = reply->u.sessions.count;
    Personad__V1__SessionListReply *body =
        codec_new(arena, &personad__v1__session_list_reply__descriptor);
    Personad__V1__SessionInfo **list =
        codec_new_list(arena, &personad__v1__session_info__descriptor, count);
    if (body == NULL || list == NULL) {
        return STATUS_MEMORY;
    }
    size_t size = 0;
    uint32_t taken = 0;
    while (taken < count) {
        TRY(codec_fill_session(&reply->u.sessions.items[taken], arena, list[taken]));
        size += personad__v1__session_info__get_packed_size(list[taken]) + CODEC_ITEM_BYTES;
        if (size > CODEC_LIST_BYTES_MAX && taken > 0) {
            break;
        }
        taken++;
    }
    body->n_sessions = taken;
    body->sessions = list;
    CODEC_SET(body, end, reply->u.sessions.end && taken == count);
    out->result_case = PERSONAD__V1__REPLY__RESULT_SESSION_LIST;
    out->session_list = body;
    return STATUS_OK;
}
