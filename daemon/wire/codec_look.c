/* Distribution, Score, Compare, Group, Verify. */
#include "limits.h"
#include "wire/codec_inside.h"

_Static_assert((int)PERSONAD__V1__VERIFIED_NUMBER__ALTERNATIVES == (int)VERIFIED_ALTERNATIVES,
               "verified numbers");

enum { DISTRIBUTION_TOP_COUNT = 10 };

enum branch_priority codec_priority(bool has, Personad__V1__Priority from)
{
    return has && from == PERSONAD__V1__PRIORITY__BATCH ? BRANCH_BATCH : BRANCH_INTERACTIVE;
}

/* ---------------------------------------------------------------- requests */

static enum status distribution_decode(const Personad__V1__DistributionRequest *from,
                                       struct error *error, struct request *out)
{
    struct request_distribution *asked = &out->u.distribution;
    out->type = REQUEST_DISTRIBUTION;
    asked->place.session = from->session;
    CODEC_LOOK_PLACE(from, &asked->place);
    asked->top_count = from->has_top_count ? from->top_count : DISTRIBUTION_TOP_COUNT;
    TRY(codec_check_count(asked->top_count, TOP_COUNT_MAX, "TOP_COUNT_MAX",
                          "distribution.top_count", error));
    TRY(codec_check_count(from->n_tokens, DISTRIBUTION_TOKEN_COUNT_MAX,
                          "DISTRIBUTION_TOKEN_COUNT_MAX", "distribution.tokens", error));
    asked->tokens = from->tokens;
    asked->token_count = (uint32_t)from->n_tokens;
    asked->priority = codec_priority(from->has_priority, from->priority);
    return STATUS_OK;
}

static enum status option_decode(const Personad__V1__ScoreOption *from, struct error *error,
                                 struct score_option *out)
{
    TRY(codec_check_text(from->text, TEXT_BYTES_MAX, "TEXT_BYTES_MAX", "score.options.text", error,
                         &out->text));
    TRY(codec_check_count(from->n_tokens, TEXT_TOKEN_COUNT_MAX, "TEXT_TOKEN_COUNT_MAX",
                          "score.options.tokens", error));
    out->tokens = from->tokens;
    out->token_count = (uint32_t)from->n_tokens;
    if ((out->text.size > 0) == (out->token_count > 0)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "score.options: an option is a text or a list of tokens, and not empty");
    }
    return STATUS_OK;
}

static enum status item_decode(const Personad__V1__ScoreItem *from, uint64_t session,
                               struct arena *arena, struct error *error, struct score_item *out)
{
    struct score_option *options = arena_alloc(arena, from->n_options, sizeof *options);
    if (options == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading score.options");
    }
    if (from->n_options == 0) {
        return error_set(error, STATUS_BAD_INPUT, "score.options: an item has no options");
    }
    for (size_t i = 0; i < from->n_options; i++) {
        TRY(option_decode(from->options[i], error, &options[i]));
    }
    out->place.session = from->has_session ? from->session : session;
    CODEC_LOOK_PLACE(from, &out->place);
    out->options = options;
    out->option_count = (uint32_t)from->n_options;
    return STATUS_OK;
}

static enum status score_decode(const Personad__V1__ScoreRequest *from, struct arena *arena,
                                struct error *error, struct request *out)
{
    struct request_score *asked = &out->u.score;
    size_t option_count = 0;
    TRY(codec_check_count(from->n_items, SCORE_OPTION_COUNT_MAX, "SCORE_OPTION_COUNT_MAX",
                          "score.items", error));
    if (from->n_items == 0) {
        return error_set(error, STATUS_BAD_INPUT, "score.items: there is nothing to score");
    }
    for (size_t i = 0; i < from->n_items; i++) {
        option_count += from->items[i]->n_options;
    }
    TRY(codec_check_count(option_count, SCORE_OPTION_COUNT_MAX, "SCORE_OPTION_COUNT_MAX",
                          "score.options", error));
    struct score_item *items = arena_alloc(arena, from->n_items, sizeof *items);
    if (items == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while reading score.items");
    }
    for (size_t i = 0; i < from->n_items; i++) {
        TRY(item_decode(from->items[i], from->session, arena, error, &items[i]));
    }
    out->type = REQUEST_SCORE;
    asked->items = items;
    asked->item_count = (uint32_t)from->n_items;
    asked->option_count = (uint32_t)option_count;
    asked->numbers = from->has_numbers && from->numbers;
    asked->priority = codec_priority(from->has_priority, from->priority);
    return STATUS_OK;
}

static enum status compare_decode(const Personad__V1__CompareRequest *from, struct error *error,
                                  struct request *out)
{
    struct request_compare *asked = &out->u.compare;
    out->type = REQUEST_COMPARE;
    TRY(codec_check_count(from->n_personas, COMPARE_PERSONA_COUNT_MAX, "COMPARE_PERSONA_COUNT_MAX",
                          "compare.personas", error));
    asked->session = from->session;
    codec_position(from->position, &asked->has_position, &asked->position);
    asked->personas = from->personas;
    asked->persona_count = (uint32_t)from->n_personas;
    asked->has_speaker = from->has_speaker;
    asked->speaker = from->speaker;
    asked->divergence = from->has_divergence && from->divergence;
    asked->priority = codec_priority(from->has_priority, from->priority);
    return STATUS_OK;
}

static enum status group_decode(const Personad__V1__GroupRequest *from, struct error *error,
                                struct request *out)
{
    struct request_group *asked = &out->u.group;
    out->type = REQUEST_GROUP;
    TRY(codec_check_count(from->n_nodes, GROUP_NODE_COUNT_MAX, "GROUP_NODE_COUNT_MAX",
                          "group.nodes", error));
    asked->session = from->session;
    asked->nodes = from->nodes;
    asked->node_count = (uint32_t)from->n_nodes;
    codec_position(from->position, &asked->has_position, &asked->position);
    return STATUS_OK;
}

static enum status verify_decode(const Personad__V1__VerifyRequest *from, struct error *error,
                                 struct request *out)
{
    struct request_verify *asked = &out->u.verify;
    out->type = REQUEST_VERIFY;
    asked->node = from->has_node ? from->node : 0;
    asked->path = from->has_path && from->path;
    asked->session = from->has_session ? from->session : 0;
    asked->all = from->has_all && from->all;
    if ((asked->node != 0) + (asked->session != 0) + asked->all != 1) {
        return error_set(error, STATUS_BAD_INPUT,
                         "verify: say what to verify, a node, a session or all, and one of them "
                         "only");
    }
    return STATUS_OK;
}

enum status codec_decode_look(const Personad__V1__Request *from, struct arena *arena,
                              struct error *error, struct request *out)
{
    switch (from->op_case) {
    case PERSONAD__V1__REQUEST__OP_DISTRIBUTION:
        return distribution_decode(from->distribution, error, out);
    case PERSONAD__V1__REQUEST__OP_SCORE:
        return score_decode(from->score, arena, error, out);
    case PERSONAD__V1__REQUEST__OP_COMPARE:
        return compare_decode(from->compare, error, out);
    case PERSONAD__V1__REQUEST__OP_GROUP:
        return group_decode(from->group, error, out);
    default:
        return verify_decode(from->verify, error, out);
    }
}

/* ---------------------------------------------------------------- replies */

/* protobuf-c reads through pointers that are not const; packing writes nothing. */
static float *floats(const float *from)
{
    return (float *)(uintptr_t)from;
}

static uint32_t *ids(const uint32_t *from)
{
    return (uint32_t *)(uintptr_t)from;
}

static enum status distribution_build(const struct reply *reply, struct arena *arena,
                                      Personad__V1__Reply *out)
{
    const struct distribution_view *view = &reply->u.distribution;
    Personad__V1__DistributionReply *body =
        codec_new(arena, &personad__v1__distribution_reply__descriptor);
    if (body == NULL) {
        return STATUS_MEMORY;
    }
    body->top_tokens = arena_alloc(arena, view->top_count, sizeof *body->top_tokens);
    body->top_logprobs = arena_alloc(arena, view->top_count, sizeof *body->top_logprobs);
    body->top_pieces = arena_alloc(arena, view->top_count, sizeof *body->top_pieces);
    if (body->top_tokens == NULL || body->top_logprobs == NULL || body->top_pieces == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < view->top_count; i++) {
        body->top_tokens[i] = view->tops[i].token;
        body->top_logprobs[i] = view->tops[i].logprob;
        body->top_pieces[i] = codec_data(view->top_pieces[i]);
    }
    body->n_top_tokens = view->top_count;
    body->n_top_logprobs = view->top_count;
    body->n_top_pieces = view->top_count;
    CODEC_SET(body, entropy, view->entropy);
    CODEC_SET(body, context_tokens, view->context_token_count);
    body->n_logprobs = view->logprob_count;
    body->logprobs = floats(view->logprobs);
    out->result_case = PERSONAD__V1__REPLY__RESULT_DISTRIBUTION;
    out->distribution = body;
    return STATUS_OK;
}

static void option_fill(const struct scored_option_view *view, Personad__V1__ScoredOption *out)
{
    CODEC_SET(out, logprob, view->logprob);
    CODEC_SET(out, token_logprob, view->logprob / view->token_count);
    CODEC_SET(out, share, view->share);
    CODEC_SET(out, token_count, view->token_count);
    if (view->tokens != NULL) {
        out->n_tokens = view->token_count;
        out->tokens = ids(view->tokens);
        out->n_logprobs = view->token_count;
        out->logprobs = floats(view->logprobs);
        out->n_entropies = view->token_count;
        out->entropies = floats(view->entropies);
    }
}

static enum status score_build(const struct reply *reply, struct arena *arena,
                               Personad__V1__Reply *out)
{
    const struct score_view *view = &reply->u.score;
    const struct scored_option_view *option = view->options;
    Personad__V1__ScoreReply *body = codec_new(arena, &personad__v1__score_reply__descriptor);
    Personad__V1__ScoredItem **items =
        codec_new_list(arena, &personad__v1__scored_item__descriptor, view->item_count);
    if (body == NULL || items == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < view->item_count; i++) {
        const uint32_t count = view->option_counts[i];
        items[i]->n_options = count;
        items[i]->options = codec_new_list(arena, &personad__v1__scored_option__descriptor, count);
        if (items[i]->options == NULL) {
            return STATUS_MEMORY;
        }
        for (uint32_t k = 0; k < count; k++) {
            option_fill(option++, items[i]->options[k]);
        }
    }
    body->n_items = view->item_count;
    body->items = items;
    out->result_case = PERSONAD__V1__REPLY__RESULT_SCORE;
    out->score = body;
    return STATUS_OK;
}

static void persona_fill(const struct compared_persona_view *view, uint32_t token_count,
                         Personad__V1__ComparedPersona *out)
{
    CODEC_SET(out, persona, view->persona);
    CODEC_SET(out, logprob, view->logprob);
    CODEC_SET(out, ratio, view->ratio);
    out->n_logprobs = token_count;
    out->logprobs = floats(view->logprobs);
    out->n_entropies = token_count;
    out->entropies = floats(view->entropies);
    if (view->divergences != NULL) {
        out->n_divergences = token_count;
        out->divergences = floats(view->divergences);
    }
}

static enum status compare_build(const struct reply *reply, struct arena *arena,
                                 Personad__V1__Reply *out)
{
    const struct compare_view *view = &reply->u.compare;
    Personad__V1__CompareReply *body = codec_new(arena, &personad__v1__compare_reply__descriptor);
    Personad__V1__ComparedSpan **spans =
        codec_new_list(arena, &personad__v1__compared_span__descriptor, view->span_count);
    Personad__V1__ComparedPersona **personas =
        codec_new_list(arena, &personad__v1__compared_persona__descriptor, view->persona_count);
    if (body == NULL || spans == NULL || personas == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < view->span_count; i++) {
        const struct compared_span_view *span = &view->spans[i];
        CODEC_SET(spans[i], node, span->node);
        CODEC_SET(spans[i], first, span->first);
        CODEC_SET(spans[i], speaker, span->speaker);
        spans[i]->n_tokens = span->token_count;
        spans[i]->tokens = ids(span->tokens);
    }
    for (uint32_t i = 0; i < view->persona_count; i++) {
        persona_fill(&view->personas[i], view->token_count, personas[i]);
    }
    body->n_spans = view->span_count;
    body->spans = spans;
    body->n_personas = view->persona_count;
    body->personas = personas;
    out->result_case = PERSONAD__V1__REPLY__RESULT_COMPARE;
    out->compare = body;
    return STATUS_OK;
}

static enum status group_build(const struct reply *reply, struct arena *arena,
                               Personad__V1__Reply *out)
{
    const struct group_view *view = &reply->u.group;
    Personad__V1__GroupReply *body = codec_new(arena, &personad__v1__group_reply__descriptor);
    Personad__V1__AnswerGroup **groups =
        codec_new_list(arena, &personad__v1__answer_group__descriptor, view->count);
    if (body == NULL || groups == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        const struct answer_group_view *group = &view->groups[i];
        CODEC_SET(groups[i], text, codec_data(group->text));
        groups[i]->n_nodes = group->node_count;
        groups[i]->nodes = (uint64_t *)(uintptr_t)group->nodes;
        CODEC_SET(groups[i], share, group->share);
        if (group->has_mass) {
            CODEC_SET(groups[i], mass, group->mass);
        }
    }
    body->n_groups = view->count;
    body->groups = groups;
    CODEC_SET(body, entropy, view->entropy);
    out->result_case = PERSONAD__V1__REPLY__RESULT_GROUP;
    out->group = body;
    return STATUS_OK;
}

static enum status verified_fill(const struct verified_node_view *view, struct arena *arena,
                                 Personad__V1__VerifiedNode *out)
{
    CODEC_SET(out, node, view->node);
    CODEC_SET(out, session, view->session);
    if (view->error.status != STATUS_OK) {
        out->error = codec_build_error(&view->error, arena);
        return out->error != NULL ? STATUS_OK : STATUS_MEMORY;
    }
    CODEC_SET(out, number, (Personad__V1__VerifiedNumber)view->number);
    CODEC_SET(out, foreign, view->is_foreign);
    CODEC_SET(out, difference_max, view->difference_max);
    if (view->number != VERIFIED_NOTHING) {
        CODEC_SET(out, index, view->index);
        CODEC_SET(out, stored_bits, view->stored_bits);
        CODEC_SET(out, computed_bits, view->computed_bits);
    }
    out->n_other_tokens = view->other_token_count;
    out->other_tokens = ids(view->other_tokens);
    return STATUS_OK;
}

static enum status verify_build(const struct reply *reply, struct arena *arena,
                                Personad__V1__Reply *out)
{
    const struct verify_view *view = &reply->u.verify;
    Personad__V1__VerifyReply *body = codec_new(arena, &personad__v1__verify_reply__descriptor);
    Personad__V1__VerifiedNode **nodes =
        codec_new_list(arena, &personad__v1__verified_node__descriptor, view->new_count);
    if (body == NULL || nodes == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < view->new_count; i++) {
        TRY(verified_fill(&view->nodes[i], arena, nodes[i]));
    }
    body->n_nodes = view->new_count;
    body->nodes = nodes;
    CODEC_SET(body, node_count, view->node_count);
    CODEC_SET(body, equal_count, view->equal_count);
    CODEC_SET(body, different_count, view->different_count);
    CODEC_SET(body, foreign_count, view->foreign_count);
    CODEC_SET(body, failed_count, view->failed_count);
    CODEC_SET(body, token_count, view->token_count);
    out->result_case = PERSONAD__V1__REPLY__RESULT_VERIFY;
    out->verify = body;
    return STATUS_OK;
}

enum status codec_build_look(const struct reply *reply, struct arena *arena,
                             Personad__V1__Reply *out)
{
    switch (reply->type) {
    case REPLY_DISTRIBUTION:
        return distribution_build(reply, arena, out);
    case REPLY_SCORE:
        return score_build(reply, arena, out);
    case REPLY_COMPARE:
        return compare_build(reply, arena, out);
    case REPLY_GROUP:
        return group_build(reply, arena, out);
    default:
        return verify_build(reply, arena, out);
    }
}
