/* Blocking calls: one request, one reply. */
#include <stdlib.h>
#include <string.h>

#include "client.h"

Personad__V1__Request client_request(Personad__V1__Request__OpCase op, void *body)
{
    Personad__V1__Request request = PERSONAD__V1__REQUEST__INIT;
    request.op_case = op;
    /* The union holds one pointer, whichever of its names it goes by. */
    memcpy(&request.hello, &body, sizeof body);
    return request;
}

int client_ask(struct personad_client *client, Personad__V1__Request__OpCase op, void *body,
               Personad__V1__Reply__ResultCase wanted, const Personad__V1__Reply **reply)
{
    Personad__V1__Request request = client_request(op, body);
    const int code = client_call(client, &request, -1, reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    if ((*reply)->result_case != wanted) {
        return client_fail(client, PERSONAD_PROTOCOL, "the daemon answered something else");
    }
    return PERSONAD_OK;
}

int client_no_memory(struct personad_client *client)
{
    return client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
}

int personad_info(personad_client *client, const struct personad_info **out)
{
    Personad__V1__InfoRequest body = PERSONAD__V1__INFO_REQUEST__INIT;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_INFO, &body,
                                PERSONAD__V1__REPLY__RESULT_INFO, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__InfoReply *from = reply->info;
    struct personad_info *info = message_alloc(client->current, 1, sizeof *info);
    struct personad_limit *limits = message_alloc(client->current, from->n_limits, sizeof *limits);
    if (info == NULL || limits == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_limits; i++) {
        limits[i].name = text_of(from->limits[i]->has_name, from->limits[i]->name);
        limits[i].value = from->limits[i]->value;
    }
    *info = (struct personad_info){
        .daemon_version = text_of(from->has_daemon_version, from->daemon_version),
        .model_name = text_of(from->has_model_name, from->model_name),
        .model_path = text_of(from->has_model_path, from->model_path),
        .architecture = text_of(from->has_architecture, from->architecture),
        .numerics_id = text_of(from->has_numerics_id, from->numerics_id),
        .backend = text_of(from->has_backend, from->backend),
        .chat_format = text_of(from->has_chat_format, from->chat_format),
        .socket_path = text_of(from->has_socket_path, from->socket_path),
        .speculation = text_of(from->has_speculation, from->speculation),
        .model_hash = text_of(from->has_model_hash, from->model_hash),
        .vocabulary_count = from->vocabulary_count,
        .context_tokens_max = from->context_tokens_max,
        .context_tokens_trained = from->context_tokens_trained,
        .pid = from->pid,
        .kv_page_count = from->kv_page_count,
        .kv_bytes = from->kv_bytes,
        .weight_bytes = from->weight_bytes,
        .started_us = from->started_us,
        .limits = limits,
        .limit_count = from->n_limits,
    };
    *out = info;
    return PERSONAD_OK;
}

int personad_stats(personad_client *client, struct personad_stats *out)
{
    Personad__V1__StatsRequest body = PERSONAD__V1__STATS_REQUEST__INIT;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_STATS, &body,
                                PERSONAD__V1__REPLY__RESULT_STATS, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__StatsReply *from = reply->stats;
    *out = (struct personad_stats){
        .uptime_us = from->uptime_us,
        .connection_count = from->connection_count,
        .session_count = from->session_count,
        .node_count = from->node_count,
        .persona_count = from->persona_count,
        .branch_waiting_count = from->branch_waiting_count,
        .branch_running_count = from->branch_running_count,
        .step_count = from->step_count,
        .row_count = from->row_count,
        .decode_row_count = from->decode_row_count,
        .prefill_row_count = from->prefill_row_count,
        .sample_count = from->sample_count,
        .step_ns = from->step_ns,
        .context_token_count = from->context_token_count,
        .context_cached_count = from->context_cached_count,
        .context_computed_count = from->context_computed_count,
        .preemption_count = from->preemption_count,
        .cancelled_count = from->cancelled_count,
        .finished_count = from->finished_count,
        .failed_count = from->failed_count,
        .kv_page_count = from->kv_page_count,
        .kv_page_free_count = from->kv_page_free_count,
        .kv_page_cached_count = from->kv_page_cached_count,
        .memory_bytes = from->memory_bytes,
        .drafted_count = from->drafted_count,
        .accepted_count = from->accepted_count,
    };
    return PERSONAD_OK;
}

/* ---------------------------------------------------------------- personas */

static int persona_take(struct personad_client *client, const Personad__V1__PersonaInfo *from,
                        const struct personad_persona **out)
{
    if (from == NULL) {
        return client_fail(client, PERSONAD_PROTOCOL, "the daemon answered without a persona");
    }
    struct personad_persona *persona = message_alloc(client->current, 1, sizeof *persona);
    if (persona == NULL) {
        return client_no_memory(client);
    }
    *persona = persona_of(from);
    *out = persona;
    return PERSONAD_OK;
}

int personad_persona_put(personad_client *client, struct personad_text card, bool is_public,
                         const struct personad_persona **out)
{
    Personad__V1__PersonaPutRequest body = PERSONAD__V1__PERSONA_PUT_REQUEST__INIT;
    body.has_card = true;
    body.card = data_of(card);
    body.has_visibility = true;
    body.visibility =
        is_public ? PERSONAD__V1__VISIBILITY__PUBLIC : PERSONAD__V1__VISIBILITY__PRIVATE;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_PERSONA_PUT, &body,
                                PERSONAD__V1__REPLY__RESULT_PERSONA_PUT, &reply);
    return code != PERSONAD_OK ? code : persona_take(client, reply->persona_put->persona, out);
}

int personad_persona_get(personad_client *client, uint64_t id, const char *name,
                         const struct personad_persona **out, struct personad_text *card)
{
    Personad__V1__PersonaGetRequest body = PERSONAD__V1__PERSONA_GET_REQUEST__INIT;
    body.has_id = id != 0;
    body.id = id;
    if (name != NULL) {
        body.has_name = true;
        body.name = data_of_string(name);
    }
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_PERSONA_GET, &body,
                                PERSONAD__V1__REPLY__RESULT_PERSONA_GET, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    if (card != NULL) {
        *card = text_of(reply->persona_get->has_card, reply->persona_get->card);
    }
    return persona_take(client, reply->persona_get->persona, out);
}

int personad_persona_list(personad_client *client, uint64_t after,
                          const struct personad_persona **out, size_t *count, bool *end)
{
    Personad__V1__PersonaListRequest body = PERSONAD__V1__PERSONA_LIST_REQUEST__INIT;
    body.has_after = true;
    body.after = after;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_PERSONA_LIST, &body,
                                PERSONAD__V1__REPLY__RESULT_PERSONA_LIST, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__PersonaListReply *from = reply->persona_list;
    struct personad_persona *made = message_alloc(client->current, from->n_personas, sizeof *made);
    if (made == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_personas; i++) {
        made[i] = persona_of(from->personas[i]);
    }
    *out = made;
    *count = from->n_personas;
    *end = from->end || from->n_personas == 0;
    return PERSONAD_OK;
}

/* ---------------------------------------------------------------- sessions */

int personad_session_open(personad_client *client, const struct personad_open_options *options,
                          const struct personad_session **out,
                          const struct personad_node **greetings, size_t *greeting_count)
{
    Personad__V1__SessionOpenRequest body = PERSONAD__V1__SESSION_OPEN_REQUEST__INIT;
    body.has_persona = options->persona != 0;
    body.persona = options->persona;
    body.has_persona_name = options->persona_name != NULL;
    body.has_user_name = options->user_name != NULL;
    body.has_label = options->label != NULL;
    if (options->persona_name != NULL) {
        body.persona_name = data_of_string(options->persona_name);
    }
    if (options->user_name != NULL) {
        body.user_name = data_of_string(options->user_name);
    }
    if (options->label != NULL) {
        body.label = data_of_string(options->label);
    }
    body.has_seed = options->has_seed;
    body.seed = options->seed;
    body.has_context_tokens = options->context_tokens != 0;
    body.context_tokens = options->context_tokens;
    body.has_no_greeting = options->no_greeting;
    body.no_greeting = options->no_greeting;
    struct client_cast cast;
    const int cast_code = client_cast(client, options->cast, options->cast_count, &cast);
    if (cast_code != PERSONAD_OK) {
        return cast_code;
    }
    body.has_group_mode = options->group_mode != PERSONAD_SEPARATE;
    body.group_mode = (Personad__V1__GroupMode)options->group_mode;
    body.n_cast = options->cast_count;
    body.cast = cast.list;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_SESSION_OPEN, &body,
                                PERSONAD__V1__REPLY__RESULT_SESSION_OPEN, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__SessionOpenReply *from = reply->session_open;
    if (from->session == NULL) {
        return client_fail(client, PERSONAD_PROTOCOL, "the daemon answered without a session");
    }
    struct personad_session *session = message_alloc(client->current, 1, sizeof *session);
    const struct personad_node *nodes =
        nodes_of(client->current, from->greetings, from->n_greetings);
    if (session == NULL || nodes == NULL || !session_of(client->current, from->session, session)) {
        return client_no_memory(client);
    }
    *out = session;
    if (greetings != NULL) {
        *greetings = nodes;
        *greeting_count = from->n_greetings;
    }
    return PERSONAD_OK;
}

int personad_session_list(personad_client *client, uint64_t after,
                          const struct personad_session **out, size_t *count, bool *end)
{
    Personad__V1__SessionListRequest body = PERSONAD__V1__SESSION_LIST_REQUEST__INIT;
    body.has_after = true;
    body.after = after;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_SESSION_LIST, &body,
                                PERSONAD__V1__REPLY__RESULT_SESSION_LIST, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__SessionListReply *from = reply->session_list;
    struct personad_session *made = message_alloc(client->current, from->n_sessions, sizeof *made);
    if (made == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_sessions; i++) {
        if (!session_of(client->current, from->sessions[i], &made[i])) {
            return client_no_memory(client);
        }
    }
    *out = made;
    *count = from->n_sessions;
    *end = from->end || from->n_sessions == 0;
    return PERSONAD_OK;
}

/* ---------------------------------------------------------------- the tree */

int personad_walk(personad_client *client, const struct personad_walk_options *options,
                  const struct personad_node **out, size_t *count, bool *end)
{
    Personad__V1__WalkRequest body = PERSONAD__V1__WALK_REQUEST__INIT;
    Personad__V1__Position position;
    body.has_session = true;
    body.session = options->session;
    body.position = client_position(options->position, &position);
    body.has_what = true;
    body.what = (Personad__V1__WalkWhat)options->what;
    body.has_skip = true;
    body.skip = options->skip;
    body.has_count = options->count != 0;
    body.count = options->count;
    body.has_text = body.has_content = body.has_numbers = true;
    body.text = options->text;
    body.content = options->content;
    body.numbers = options->numbers;
    body.has_deleted = options->deleted;
    body.deleted = options->deleted;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_WALK, &body,
                                PERSONAD__V1__REPLY__RESULT_WALK, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const struct personad_node *nodes =
        nodes_of(client->current, reply->walk->nodes, reply->walk->n_nodes);
    if (nodes == NULL) {
        return client_no_memory(client);
    }
    *out = nodes;
    *count = reply->walk->n_nodes;
    *end = reply->walk->end || reply->walk->n_nodes == 0;
    return PERSONAD_OK;
}

int personad_head(personad_client *client, uint64_t session,
                  const struct personad_position *position, struct personad_position *out)
{
    Personad__V1__HeadRequest body = PERSONAD__V1__HEAD_REQUEST__INIT;
    Personad__V1__Position place;
    body.has_session = true;
    body.session = session;
    body.position = client_position(position, &place);
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_HEAD, &body,
                                PERSONAD__V1__REPLY__RESULT_HEAD, &reply);
    if (code == PERSONAD_OK && out != NULL) {
        *out = position_of(reply->head->position);
    }
    return code;
}

int client_one_node(struct personad_client *client, const Personad__V1__Reply *reply,
                    const struct personad_node **out)
{
    if (reply->created->n_nodes == 0) {
        return client_fail(client, PERSONAD_PROTOCOL, "the daemon answered without a node");
    }
    const struct personad_node *nodes = nodes_of(client->current, reply->created->nodes, 1);
    if (nodes == NULL) {
        return client_no_memory(client);
    }
    *out = nodes;
    return PERSONAD_OK;
}

int personad_append(personad_client *client, const struct personad_append_options *options,
                    const struct personad_node **out)
{
    Personad__V1__AppendRequest body = PERSONAD__V1__APPEND_REQUEST__INIT;
    Personad__V1__Position position;
    body.has_session = true;
    body.session = options->session;
    body.position = client_position(options->position, &position);
    body.has_speaker = true;
    body.speaker = options->speaker;
    body.has_text = true;
    body.text = data_of(options->text);
    body.has_special = body.has_continuing = true;
    body.special = options->special;
    body.continuing = options->continuing;
    body.has_at_byte = options->has_at_byte;
    body.at_byte = options->at_byte;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_APPEND, &body,
                                PERSONAD__V1__REPLY__RESULT_CREATED, &reply);
    return code == PERSONAD_OK ? client_one_node(client, reply, out) : code;
}

int personad_cancel(personad_client *client, const uint64_t *nodes, size_t node_count,
                    uint64_t session)
{
    Personad__V1__CancelRequest body = PERSONAD__V1__CANCEL_REQUEST__INIT;
    body.n_nodes = node_count;
    body.nodes = (uint64_t *)nodes;
    body.has_session = node_count == 0;
    body.session = session;
    const Personad__V1__Reply *reply = NULL;
    return client_ask(client, PERSONAD__V1__REQUEST__OP_CANCEL, &body,
                      PERSONAD__V1__REPLY__RESULT_DONE, &reply);
}

/* ---------------------------------------------------------------- text */

int personad_tokenize(personad_client *client, struct personad_text text, bool special,
                      const uint32_t **tokens, size_t *count, const struct personad_text **pieces)
{
    Personad__V1__TokenizeRequest body = PERSONAD__V1__TOKENIZE_REQUEST__INIT;
    body.has_text = true;
    body.text = data_of(text);
    body.has_special = body.has_pieces = true;
    body.special = special;
    body.pieces = pieces != NULL;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_TOKENIZE, &body,
                                PERSONAD__V1__REPLY__RESULT_TOKENIZE, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__TokenizeReply *from = reply->tokenize;
    if (pieces != NULL) {
        if (from->n_pieces != from->n_tokens) {
            return client_fail(client, PERSONAD_PROTOCOL, "as many pieces as tokens were due");
        }
        struct personad_text *made = message_alloc(client->current, from->n_pieces, sizeof *made);
        if (made == NULL) {
            return client_no_memory(client);
        }
        for (size_t i = 0; i < from->n_pieces; i++) {
            made[i] = text_of(true, from->pieces[i]);
        }
        *pieces = made;
    }
    *tokens = from->tokens;
    *count = from->n_tokens;
    return PERSONAD_OK;
}

int personad_detokenize(personad_client *client, const uint32_t *tokens, size_t count, bool names,
                        struct personad_text *text)
{
    Personad__V1__DetokenizeRequest body = PERSONAD__V1__DETOKENIZE_REQUEST__INIT;
    body.n_tokens = count;
    body.tokens = (uint32_t *)tokens;
    body.has_names = names;
    body.names = names;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_DETOKENIZE, &body,
                                PERSONAD__V1__REPLY__RESULT_DETOKENIZE, &reply);
    if (code == PERSONAD_OK) {
        *text = text_of(reply->detokenize->has_text, reply->detokenize->text);
    }
    return code;
}
