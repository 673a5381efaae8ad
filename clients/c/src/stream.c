/* Streaming calls: requests whose answers come as events. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "resume.h"

const char *personad_finish_name(int finish)
{
    static const char *const names[] = {"none", "end",    "cue",         "length", "context",
                                        "cut",  "failed", "interrupted", "whole"};
    return finish >= 0 && (size_t)finish < sizeof names / sizeof names[0] ? names[finish]
                                                                          : "unknown";
}

void personad_sampler_init(struct personad_sampler *sampler)
{
    *sampler = (struct personad_sampler){
        .temperature = NAN,
        .top_p = NAN,
        .min_p = NAN,
        .repetition_penalty = NAN,
        .presence_penalty = NAN,
        .frequency_penalty = NAN,
        .top_k = -1,
        .penalty_range = -1,
        .max_tokens = -1,
        .min_tokens = -1,
        .top_count = -1,
        .penalize_prompt = -1,
        .ignore_end = -1,
    };
}

/* Sends a request whose answers are events. */
static uint64_t stream_send(struct personad_client *client, Personad__V1__Request__OpCase op,
                            void *body)
{
    Personad__V1__Request request = client_request(op, body);
    const uint64_t id = client_send(client, &request);
    return resume_stream_open(client, id) == PERSONAD_OK ? id : 0;
}

/* The messages of one generation, which point at each other while they are packed. */
struct generation_message {
    Personad__V1__Sampler sampler;
    Personad__V1__Position position;
    ProtobufCBinaryData *stops;          /* owned */
    ProtobufCBinaryData *choices;        /* owned */
    Personad__V1__LogitBias *biases;     /* owned */
    Personad__V1__LogitBias **bias_list; /* owned */
};

static void generation_finish(struct generation_message *message)
{
    free(message->stops);
    free(message->choices);
    free(message->biases);
    free(message->bias_list);
}

static void floats_set(Personad__V1__Sampler *to, const struct personad_sampler *from)
{
    to->has_temperature = !isnan(from->temperature);
    to->temperature = from->temperature;
    to->has_top_p = !isnan(from->top_p);
    to->top_p = from->top_p;
    to->has_min_p = !isnan(from->min_p);
    to->min_p = from->min_p;
    to->has_repetition_penalty = !isnan(from->repetition_penalty);
    to->repetition_penalty = from->repetition_penalty;
    to->has_presence_penalty = !isnan(from->presence_penalty);
    to->presence_penalty = from->presence_penalty;
    to->has_frequency_penalty = !isnan(from->frequency_penalty);
    to->frequency_penalty = from->frequency_penalty;
}

static uint32_t clamp_u32(int64_t value)
{
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static void counts_set(Personad__V1__Sampler *to, const struct personad_sampler *from)
{
    to->has_top_k = from->top_k >= 0;
    to->top_k = clamp_u32(from->top_k);
    to->has_penalty_range = from->penalty_range >= 0;
    to->penalty_range = clamp_u32(from->penalty_range);
    to->has_max_tokens = from->max_tokens >= 0;
    to->max_tokens = clamp_u32(from->max_tokens);
    to->has_min_tokens = from->min_tokens >= 0;
    to->min_tokens = clamp_u32(from->min_tokens);
    to->has_top_count = from->top_count >= 0;
    to->top_count = clamp_u32(from->top_count);
    to->has_penalize_prompt = from->penalize_prompt >= 0;
    to->penalize_prompt = from->penalize_prompt > 0;
    to->has_ignore_end = from->ignore_end >= 0;
    to->ignore_end = from->ignore_end > 0;
}

static bool lists_set(struct generation_message *message, const struct personad_sampler *from)
{
    Personad__V1__Sampler *to = &message->sampler;
    message->stops = calloc(from->stop_count + 1, sizeof *message->stops);
    message->biases = calloc(from->bias_count + 1, sizeof *message->biases);
    message->bias_list = calloc(from->bias_count + 1, sizeof(Personad__V1__LogitBias *));
    if (message->stops == NULL || message->biases == NULL || message->bias_list == NULL) {
        return false;
    }
    for (size_t i = 0; i < from->stop_count; i++) {
        message->stops[i] = data_of_string(from->stops[i]);
    }
    for (size_t i = 0; i < from->bias_count; i++) {
        personad__v1__logit_bias__init(&message->biases[i]);
        message->biases[i].has_token = message->biases[i].has_value = true;
        message->biases[i].token = from->bias_tokens[i];
        message->biases[i].value = from->bias_values[i];
        message->bias_list[i] = &message->biases[i];
    }
    to->n_stop = from->stop_count;
    to->stop = message->stops;
    to->n_bias = from->bias_count;
    to->bias = message->bias_list;
    return true;
}

static bool choices_set(struct generation_message *message, const struct personad_generation *from)
{
    message->choices = calloc(from->choice_count + 1, sizeof *message->choices);
    if (message->choices == NULL) {
        return false;
    }
    for (size_t i = 0; i < from->choice_count; i++) {
        message->choices[i] = data_of(from->choices[i]);
    }
    return true;
}

static bool generation_init(struct generation_message *message,
                            const struct personad_generation *generation)
{
    *message = (struct generation_message){0};
    personad__v1__sampler__init(&message->sampler);
    if (!choices_set(message, generation)) {
        return false;
    }
    if (generation->sampler == NULL) {
        return true;
    }
    floats_set(&message->sampler, generation->sampler);
    counts_set(&message->sampler, generation->sampler);
    return lists_set(message, generation->sampler);
}

/* Say and Generate carry the same fields under the same names. */
#define GENERATION_FILL(body, from, message)                                                     \
    do {                                                                                         \
        (body)->has_session = true;                                                              \
        (body)->session = (from)->session;                                                       \
        (body)->position = client_position((from)->position, &(message)->position);              \
        (body)->has_n = (from)->n != 0;                                                          \
        (body)->n = (from)->n;                                                                   \
        (body)->sampler = (from)->sampler != NULL ? &(message)->sampler : NULL;                  \
        (body)->has_seed = (from)->has_seed;                                                     \
        (body)->seed = (from)->seed;                                                             \
        (body)->has_raw_seed = (from)->has_raw_seed;                                             \
        (body)->raw_seed = (from)->raw_seed;                                                     \
        (body)->has_prefix = (from)->prefix.size > 0;                                            \
        (body)->prefix = data_of((from)->prefix);                                                \
        (body)->has_delivery = true;                                                             \
        (body)->delivery = (Personad__V1__Delivery)(from)->delivery;                             \
        (body)->has_priority = true;                                                             \
        (body)->priority =                                                                       \
            (from)->batch ? PERSONAD__V1__PRIORITY__BATCH : PERSONAD__V1__PRIORITY__INTERACTIVE; \
        (body)->has_numbers = (from)->numbers;                                                   \
        (body)->numbers = (from)->numbers;                                                       \
        (body)->has_context = (from)->context;                                                   \
        (body)->context = (from)->context;                                                       \
        (body)->n_choices = (from)->choice_count;                                                \
        (body)->choices = (message)->choices;                                                    \
        (body)->has_distinct_first = (from)->distinct_first;                                     \
        (body)->distinct_first = (from)->distinct_first;                                         \
    } while (0)

uint64_t personad_say(personad_client *client, struct personad_text text, uint32_t speaker,
                      const struct personad_generation *generation)
{
    struct generation_message message;
    uint64_t id = 0;
    if (generation_init(&message, generation)) {
        Personad__V1__SayRequest body = PERSONAD__V1__SAY_REQUEST__INIT;
        GENERATION_FILL(&body, generation, &message);
        body.has_speaker = true;
        body.speaker = speaker;
        body.has_text = true;
        body.text = data_of(text);
        body.has_reply_speaker = generation->has_speaker;
        body.reply_speaker = generation->speaker;
        id = stream_send(client, PERSONAD__V1__REQUEST__OP_SAY, &body);
    } else {
        client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
    }
    generation_finish(&message);
    return id;
}

uint64_t personad_generate(personad_client *client, bool continuing,
                           const struct personad_generation *generation)
{
    struct generation_message message;
    uint64_t id = 0;
    if (generation_init(&message, generation)) {
        Personad__V1__GenerateRequest body = PERSONAD__V1__GENERATE_REQUEST__INIT;
        GENERATION_FILL(&body, generation, &message);
        body.has_speaker = generation->has_speaker;
        body.speaker = generation->speaker;
        body.has_continuing = true;
        body.continuing = continuing;
        body.has_at_byte = generation->has_at_byte;
        body.at_byte = generation->at_byte;
        id = stream_send(client, PERSONAD__V1__REQUEST__OP_GENERATE, &body);
    } else {
        client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
    }
    generation_finish(&message);
    return id;
}

uint64_t personad_follow(personad_client *client, uint64_t node, uint32_t from_token,
                         uint32_t from_byte, int delivery, bool numbers)
{
    Personad__V1__FollowRequest body = PERSONAD__V1__FOLLOW_REQUEST__INIT;
    body.has_node = body.has_from_token = body.has_from_byte = true;
    body.has_delivery = body.has_numbers = true;
    body.node = node;
    body.from_token = from_token;
    body.from_byte = from_byte;
    body.delivery = (Personad__V1__Delivery)delivery;
    body.numbers = numbers;
    return stream_send(client, PERSONAD__V1__REQUEST__OP_FOLLOW, &body);
}

uint64_t personad_cancel_send(personad_client *client, const uint64_t *nodes, size_t node_count)
{
    Personad__V1__CancelRequest body = PERSONAD__V1__CANCEL_REQUEST__INIT;
    body.n_nodes = node_count;
    body.nodes = (uint64_t *)nodes;
    return stream_send(client, PERSONAD__V1__REQUEST__OP_CANCEL, &body);
}

/* ---------------------------------------------------------------- events */

static int tokens_take(struct personad_event *event, const Personad__V1__TokensReply *tokens)
{
    event->type = PERSONAD_EVENT_TOKENS;
    event->node_id = tokens->node;
    event->first_token = tokens->first_token;
    event->token_count = tokens->token_count;
    event->first_byte = tokens->first_byte;
    event->text = text_of(tokens->has_text, tokens->text);
    event->numbers = numbers_of(tokens->numbers);
    return PERSONAD_OK;
}

static int finished_take(struct personad_client *client, struct personad_event *event,
                         const Personad__V1__FinishedReply *finished)
{
    event->type = PERSONAD_EVENT_FINISHED;
    if (finished->node == NULL) {
        return client_fail(client, PERSONAD_PROTOCOL, "the daemon finished no node");
    }
    event->nodes = nodes_of(client->current, &finished->node, 1);
    event->node_count = 1;
    event->node_id = finished->node->id;
    event->queued_us = finished->queued_us;
    event->first_token_us = finished->first_token_us;
    event->total_us = finished->total_us;
    event->context_cached = finished->context_cached;
    event->context_computed = finished->context_computed;
    return event->nodes != NULL ? PERSONAD_OK
                                : client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
}

static int created_take(struct personad_client *client, struct personad_event *event,
                        const Personad__V1__CreatedReply *created)
{
    event->type = PERSONAD_EVENT_CREATED;
    event->nodes = nodes_of(client->current, created->nodes, created->n_nodes);
    event->node_count = created->n_nodes;
    event->context = created->context;
    event->context_count = created->n_context;
    return event->nodes != NULL ? PERSONAD_OK
                                : client_fail(client, PERSONAD_OUT_OF_MEMORY, "out of memory");
}

/* AGAIN: a reply that is no event (an unknown kind, or the late answer to an abandoned call). */
static int event_take(struct personad_client *client, struct personad_event *event)
{
    const Personad__V1__Reply *reply = client->current->reply;
    *event = (struct personad_event){.request = reply->id, .last = !reply->more};
    switch (reply->result_case) {
    case PERSONAD__V1__REPLY__RESULT_CREATED:
        return created_take(client, event, reply->created);
    case PERSONAD__V1__REPLY__RESULT_TOKENS:
        return tokens_take(event, reply->tokens);
    case PERSONAD__V1__REPLY__RESULT_FINISHED:
        return finished_take(client, event, reply->finished);
    case PERSONAD__V1__REPLY__RESULT_DONE:
        event->type = PERSONAD_EVENT_DONE;
        return PERSONAD_OK;
    case PERSONAD__V1__REPLY__RESULT_ERROR: {
        if (reply->id == 0) {
            return client_error(client, reply->error); /* of the connection, before it closes */
        }
        const struct personad_text text = text_of(reply->error->has_text, reply->error->text);
        event->type = PERSONAD_EVENT_ERROR;
        event->error.code = (int)reply->error->code;
        const size_t size =
            text.size < sizeof event->error.text - 1 ? text.size : sizeof event->error.text - 1;
        if (size > 0) {
            memcpy(event->error.text, text.data, size);
        }
        return PERSONAD_OK;
    }
    default:
        return PERSONAD_AGAIN;
    }
}

/* Waits for a message, through the loss of the connection where resuming is on. */
static int message_wait(struct personad_client *client, int timeout_ms, struct message **out)
{
    const int64_t end_ms = client_now_ms() + timeout_ms;
    int left_ms = timeout_ms;
    for (;;) {
        int code = PERSONAD_CLOSED;
        if (client->lost_ms == 0) {
            code = client_receive(client, left_ms, out);
        }
        if (code == PERSONAD_CLOSED) {
            code = resume_connect(client, left_ms);
        } else {
            return code;
        }
        if (code != PERSONAD_OK) {
            return code;
        }
        if (timeout_ms >= 0) {
            const int64_t left = end_ms - client_now_ms();
            left_ms = left > 0 ? (int)left : 0;
        }
    }
}

int personad_next(personad_client *client, int timeout_ms, const struct personad_event **out)
{
    client_release_current(client);
    for (;;) {
        struct message *message = NULL;
        int code = message_wait(client, timeout_ms, &message);
        if (code != PERSONAD_OK) {
            return code;
        }
        client_release_current(client);
        client->current = message;
        code = event_take(client, &client->event);
        const bool is_stopping = code == PERSONAD_STOPPING && client->resume_ms != 0;
        if (code == PERSONAD_AGAIN || is_stopping) {
            continue;
        }
        if (code == PERSONAD_OK && !resume_event_take(client, &client->event)) {
            continue;
        }
        if (code == PERSONAD_OK) {
            *out = &client->event;
        }
        return code;
    }
}
