/* Say, Generate, Append, Follow, Cancel. */
#include "limits.h"
#include "wire/codec_inside.h"

/* Unknown numbers stand for what a later version adds: they are as good as absent. */
static enum delivery delivery_of(bool has, Personad__V1__Delivery from)
{
    const bool known = has && (from == PERSONAD__V1__DELIVERY__FINAL_ONLY ||
                               from == PERSONAD__V1__DELIVERY__NO_FOLLOW);
    return known ? (enum delivery)from : DELIVERY_EACH_TOKEN;
}

/* ---------------------------------------------------------------- sampler */

#define SAMPLER_TAKE(field)                        \
    do {                                           \
        out->has_##field = from->has_##field != 0; \
        out->field = from->field;                  \
    } while (0)

static enum status biases_decode(const Personad__V1__Sampler *from, struct arena *arena,
                                 struct error *error, struct sampler_settings *out)
{
    TRY(codec_check_count(from->n_bias, LOGIT_BIAS_COUNT_MAX, "LOGIT_BIAS_COUNT_MAX",
                          "sampler.bias", error));
    struct step_bias *biases = arena_alloc(arena, from->n_bias, sizeof *biases);
    if (biases == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading sampler.bias");
    }
    for (size_t i = 0; i < from->n_bias; i++) {
        biases[i].token = from->bias[i]->token;
        biases[i].value = from->bias[i]->value;
    }
    out->biases = biases;
    out->bias_count = (uint32_t)from->n_bias;
    return STATUS_OK;
}

static enum status stops_decode(const Personad__V1__Sampler *from, struct arena *arena,
                                struct error *error, struct sampler_settings *out)
{
    TRY(codec_check_count(from->n_stop, CUE_COUNT_MAX, "CUE_COUNT_MAX", "sampler.stop", error));
    struct bytes *stops = arena_alloc(arena, from->n_stop, sizeof *stops);
    if (stops == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading sampler.stop");
    }
    for (size_t i = 0; i < from->n_stop; i++) {
        TRY(codec_check_text(from->stop[i], CUE_BYTES_MAX, "CUE_BYTES_MAX", "sampler.stop", error,
                             &stops[i]));
        if (stops[i].size == 0) {
            return error_set(error, STATUS_BAD_INPUT, "sampler.stop: a stop string is empty");
        }
    }
    out->stops = stops;
    out->stop_count = (uint32_t)from->n_stop;
    return STATUS_OK;
}

/* Ranges of single values are checked where the sampler is made, which knows the persona's too. */
static enum status sampler_decode(const Personad__V1__Sampler *from, struct arena *arena,
                                  struct error *error, struct sampler_settings *out)
{
    if (from == NULL) {
        return STATUS_OK;
    }
    SAMPLER_TAKE(temperature);
    SAMPLER_TAKE(top_k);
    SAMPLER_TAKE(top_p);
    SAMPLER_TAKE(min_p);
    SAMPLER_TAKE(repetition_penalty);
    SAMPLER_TAKE(presence_penalty);
    SAMPLER_TAKE(frequency_penalty);
    SAMPLER_TAKE(penalty_range);
    SAMPLER_TAKE(penalize_prompt);
    SAMPLER_TAKE(max_tokens);
    SAMPLER_TAKE(min_tokens);
    SAMPLER_TAKE(top_count);
    SAMPLER_TAKE(ignore_end);
    TRY(biases_decode(from, arena, error, out));
    return stops_decode(from, arena, error, out);
}

/* ---------------------------------------------------------------- requests */

static enum status siblings_decode(bool has, uint32_t n, struct error *error, uint32_t *out)
{
    const uint32_t count = has ? n : 1;
    if (count == 0) {
        return error_set(error, STATUS_BAD_INPUT, "n: at least one reply must be asked for");
    }
    TRY(codec_check_count(count, GENERATE_SIBLING_COUNT_MAX, "GENERATE_SIBLING_COUNT_MAX", "n",
                          error));
    *out = count;
    return STATUS_OK;
}

static enum status choices_decode(const ProtobufCBinaryData *from, size_t count,
                                  struct arena *arena, struct error *error, struct byte_rule *out)
{
    TRY(codec_check_count(count, CHOICE_COUNT_MAX, "CHOICE_COUNT_MAX", "choices", error));
    struct bytes *choices = arena_alloc(arena, count, sizeof *choices);
    if (choices == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading the choices");
    }
    for (size_t i = 0; i < count; i++) {
        TRY(codec_check_text(from[i], CHOICE_BYTES_MAX, "CHOICE_BYTES_MAX", "choices", error,
                             &choices[i]));
        if (choices[i].size == 0) {
            return error_set(error, STATUS_BAD_INPUT, "choices: one of them is empty");
        }
    }
    out->choices = choices;
    out->choice_count = (uint32_t)count;
    return STATUS_OK;
}

/* Say and Generate carry the same fields under the same names. */
#define GENERATION_TAKE(from, out)                                                              \
    do {                                                                                        \
        (out)->has_seed = (from)->has_seed != 0;                                                \
        (out)->seed = (from)->seed;                                                             \
        (out)->has_raw_seed = (from)->has_raw_seed != 0;                                        \
        (out)->raw_seed = (from)->raw_seed;                                                     \
        (out)->delivery = delivery_of((from)->has_delivery, (from)->delivery);                  \
        (out)->priority = codec_priority((from)->has_priority, (from)->priority);               \
        (out)->numbers = (from)->has_numbers && (from)->numbers;                                \
        (out)->context = (from)->has_context && (from)->context;                                \
        TRY(siblings_decode((from)->has_n, (from)->n, error, &(out)->n));                       \
        TRY(sampler_decode((from)->sampler, arena, error, &(out)->sampler));                    \
        (out)->distinct_first = (from)->has_distinct_first && (from)->distinct_first;           \
        TRY(choices_decode((from)->choices, (from)->n_choices, arena, error,                    \
                           &(out)->sampler.rule));                                              \
        TRY(codec_check_text((from)->prefix, TEXT_BYTES_MAX, "TEXT_BYTES_MAX", "prefix", error, \
                             &(out)->prefix));                                                  \
    } while (0)

enum status codec_decode_say(const Personad__V1__SayRequest *from, struct arena *arena,
                             struct error *error, struct request *out)
{
    struct request_say *say = &out->u.say;
    out->type = REQUEST_SAY;
    say->session = from->session;
    codec_position(from->position, &say->has_position, &say->position);
    say->speaker = from->speaker;
    say->has_reply_speaker = from->has_reply_speaker;
    say->reply_speaker = from->reply_speaker;
    TRY(codec_check_text(from->text, TEXT_BYTES_MAX, "TEXT_BYTES_MAX", "say.text", error,
                         &say->text));
    GENERATION_TAKE(from, &say->generation);
    return STATUS_OK;
}

enum status codec_decode_generate(const Personad__V1__GenerateRequest *from, struct arena *arena,
                                  struct error *error, struct request *out)
{
    struct request_generate *generate = &out->u.generate;
    out->type = REQUEST_GENERATE;
    generate->session = from->session;
    codec_position(from->position, &generate->has_position, &generate->position);
    generate->has_speaker = from->has_speaker;
    generate->speaker = from->speaker;
    generate->continuing = from->has_continuing && from->continuing;
    generate->has_at_byte = from->has_at_byte;
    generate->at_byte = from->at_byte;
    GENERATION_TAKE(from, &generate->generation);
    return STATUS_OK;
}

enum status codec_decode_append(const Personad__V1__AppendRequest *from, struct error *error,
                                struct request *out)
{
    struct request_append *append = &out->u.append;
    out->type = REQUEST_APPEND;
    append->session = from->session;
    codec_position(from->position, &append->has_position, &append->position);
    append->speaker = from->speaker;
    append->special = from->has_special && from->special;
    append->continuing = from->has_continuing && from->continuing;
    append->has_at_byte = from->has_at_byte != 0;
    append->at_byte = from->at_byte;
    return codec_check_text(from->text, TEXT_BYTES_MAX, "TEXT_BYTES_MAX", "append.text", error,
                            &append->text);
}

enum status codec_decode_follow(const Personad__V1__FollowRequest *from, struct error *error,
                                struct request *out)
{
    struct request_follow *follow = &out->u.follow;
    out->type = REQUEST_FOLLOW;
    follow->node = from->node;
    follow->from_token = from->from_token;
    follow->from_byte = from->from_byte;
    follow->delivery = delivery_of(from->has_delivery, from->delivery);
    follow->numbers = from->has_numbers && from->numbers;
    if (follow->delivery == DELIVERY_NO_FOLLOW) {
        return error_set(error, STATUS_BAD_INPUT,
                         "follow.delivery: NO_FOLLOW has nothing to deliver; choose EACH_TOKEN or "
                         "FINAL_ONLY");
    }
    return STATUS_OK;
}

enum status codec_decode_cancel(const Personad__V1__CancelRequest *from, struct error *error,
                                struct request *out)
{
    struct request_cancel *cancel = &out->u.cancel;
    out->type = REQUEST_CANCEL;
    TRY(codec_check_count(from->n_nodes, BRANCH_COUNT_MAX, "BRANCH_COUNT_MAX", "cancel.nodes",
                          error));
    cancel->nodes = from->nodes;
    cancel->node_count = (uint32_t)from->n_nodes;
    cancel->session = from->has_session ? from->session : 0;
    cancel->has_request = from->has_request;
    const int ways = (cancel->node_count > 0) + (cancel->session != 0) + cancel->has_request;
    if (ways != 1) {
        return error_set(error, STATUS_BAD_INPUT,
                         "cancel: say what to end, by nodes, by session or by request, and by one "
                         "of them only");
    }
    return STATUS_OK;
}

/* ---------------------------------------------------------------- reply */

enum status codec_build_created(const struct reply *reply, struct arena *arena,
                                Personad__V1__Reply *out)
{
    const uint32_t count = reply->u.created.count;
    Personad__V1__CreatedReply *body = codec_new(arena, &personad__v1__created_reply__descriptor);
    Personad__V1__NodeInfo **list =
        codec_new_list(arena, &personad__v1__node_info__descriptor, count);
    if (body == NULL || list == NULL) {
        return STATUS_MEMORY;
    }
    const struct codec_parts none = {false, false, false};
    for (uint32_t i = 0; i < count; i++) {
        TRY(codec_fill_node(&reply->u.created.nodes[i], none, arena, list[i]));
    }
    body->n_nodes = count;
    body->nodes = list;
    if (reply->u.created.context != NULL) {
        body->n_context = reply->u.created.context_count;
        body->context = (uint32_t *)(uintptr_t)reply->u.created.context;
    }
    out->result_case = PERSONAD__V1__REPLY__RESULT_CREATED;
    out->created = body;
    return STATUS_OK;
}
