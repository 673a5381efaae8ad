/* Blocking calls that look into the distribution. */
#include <math.h>
#include <string.h>

#include "client.h"

/* ---------------------------------------------------------------- distribution, score */

int personad_distribution(personad_client *client, const struct personad_place *place,
                          uint32_t top_count, const uint32_t *tokens, size_t token_count,
                          struct personad_distribution *out)
{
    Personad__V1__DistributionRequest body = PERSONAD__V1__DISTRIBUTION_REQUEST__INIT;
    Personad__V1__Position position;
    body.has_session = body.has_continuing = body.has_top_count = true;
    body.session = place->session;
    body.has_speaker = place->has_speaker;
    body.speaker = place->speaker;
    body.continuing = place->continuing;
    body.top_count = top_count;
    body.n_tokens = token_count;
    body.tokens = (uint32_t *)tokens;
    body.position = client_position(place->position, &position);
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_DISTRIBUTION, &body,
                                PERSONAD__V1__REPLY__RESULT_DISTRIBUTION, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__DistributionReply *from = reply->distribution;
    if (from->n_top_tokens != from->n_top_logprobs || from->n_top_tokens != from->n_top_pieces) {
        return client_fail(client, PERSONAD_PROTOCOL, "as many pieces as tokens were due");
    }
    struct personad_text *pieces =
        message_alloc(client->current, from->n_top_pieces, sizeof *pieces);
    if (pieces == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_top_pieces; i++) {
        pieces[i] = text_of(true, from->top_pieces[i]);
    }
    *out = (struct personad_distribution){
        .entropy = from->entropy,
        .context_tokens = from->context_tokens,
        .top_count = from->n_top_tokens,
        .top_tokens = from->top_tokens,
        .top_logprobs = from->top_logprobs,
        .top_pieces = pieces,
        .logprobs = from->logprobs,
        .logprob_count = from->n_logprobs,
    };
    return PERSONAD_OK;
}

static int scored_take(struct personad_client *client, const Personad__V1__ScoredItem *item,
                       const struct personad_scored **out)
{
    struct personad_scored *made = message_alloc(client->current, item->n_options, sizeof *made);
    if (made == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < item->n_options; i++) {
        const Personad__V1__ScoredOption *from = item->options[i];
        if (from->n_tokens != from->n_logprobs || from->n_tokens != from->n_entropies) {
            return client_fail(client, PERSONAD_PROTOCOL, "as many numbers as tokens were due");
        }
        made[i] = (struct personad_scored){
            .logprob = from->logprob,
            .token_logprob = from->token_logprob,
            .share = from->share,
            .token_count = from->n_tokens,
            .tokens = from->tokens,
            .logprobs = from->logprobs,
            .entropies = from->entropies,
        };
    }
    *out = made;
    return PERSONAD_OK;
}

int personad_score(personad_client *client, const struct personad_place *place,
                   const struct personad_text *options, size_t option_count,
                   const struct personad_scored **out)
{
    enum { OPTION_COUNT_MAX = 1024 };
    Personad__V1__ScoreOption texts[OPTION_COUNT_MAX];
    Personad__V1__ScoreOption *list[OPTION_COUNT_MAX];
    Personad__V1__ScoreItem item = PERSONAD__V1__SCORE_ITEM__INIT;
    Personad__V1__ScoreItem *items[] = {&item};
    Personad__V1__ScoreRequest body = PERSONAD__V1__SCORE_REQUEST__INIT;
    Personad__V1__Position position;
    if (option_count > OPTION_COUNT_MAX) {
        return client_fail(client, PERSONAD_USAGE, "%zu options are more than %d", option_count,
                           OPTION_COUNT_MAX);
    }
    for (size_t i = 0; i < option_count; i++) {
        personad__v1__score_option__init(&texts[i]);
        texts[i].has_text = true;
        texts[i].text = data_of(options[i]);
        list[i] = &texts[i];
    }
    item.has_session = item.has_continuing = true;
    item.session = place->session;
    item.has_speaker = place->has_speaker;
    item.speaker = place->speaker;
    item.continuing = place->continuing;
    item.n_options = option_count;
    item.options = list;
    item.position = client_position(place->position, &position);
    body.n_items = 1;
    body.items = items;
    body.has_numbers = true;
    body.numbers = true;
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_SCORE, &body,
                                PERSONAD__V1__REPLY__RESULT_SCORE, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    if (reply->score->n_items != 1 || reply->score->items[0]->n_options != option_count) {
        return client_fail(client, PERSONAD_PROTOCOL, "as many answers as options were due");
    }
    return scored_take(client, reply->score->items[0], out);
}

/* ---------------------------------------------------------------- compare */

static int spans_take(struct personad_client *client, const Personad__V1__CompareReply *from,
                      struct personad_comparison *out)
{
    struct personad_span *spans = message_alloc(client->current, from->n_spans, sizeof *spans);
    if (spans == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_spans; i++) {
        spans[i] = (struct personad_span){
            .node = from->spans[i]->node,
            .first = from->spans[i]->first,
            .speaker = from->spans[i]->speaker,
            .tokens = from->spans[i]->tokens,
            .token_count = from->spans[i]->n_tokens,
        };
        out->token_count += spans[i].token_count;
    }
    out->spans = spans;
    out->span_count = from->n_spans;
    return PERSONAD_OK;
}

static int compared_take(struct personad_client *client, const Personad__V1__CompareReply *from,
                         struct personad_comparison *out)
{
    struct personad_compared *made = message_alloc(client->current, from->n_personas, sizeof *made);
    if (made == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_personas; i++) {
        const Personad__V1__ComparedPersona *one = from->personas[i];
        if (one->n_logprobs != out->token_count || one->n_entropies != out->token_count) {
            return client_fail(client, PERSONAD_PROTOCOL, "as many numbers as tokens were due");
        }
        made[i] = (struct personad_compared){
            .persona = one->persona,
            .logprob = one->logprob,
            .ratio = one->ratio,
            .logprobs = one->logprobs,
            .entropies = one->entropies,
            .divergences = one->n_divergences == out->token_count ? one->divergences : NULL,
        };
    }
    out->personas = made;
    out->persona_count = from->n_personas;
    return PERSONAD_OK;
}

int personad_compare(personad_client *client, const struct personad_compare_options *options,
                     struct personad_comparison *out)
{
    Personad__V1__CompareRequest body = PERSONAD__V1__COMPARE_REQUEST__INIT;
    Personad__V1__Position position;
    body.has_session = true;
    body.session = options->session;
    body.n_personas = options->persona_count;
    body.personas = (uint64_t *)options->personas;
    body.has_speaker = options->has_speaker;
    body.speaker = options->speaker;
    body.has_divergence = options->divergence;
    body.divergence = options->divergence;
    body.position = client_position(options->position, &position);
    const Personad__V1__Reply *reply = NULL;
    int code = client_ask(client, PERSONAD__V1__REQUEST__OP_COMPARE, &body,
                          PERSONAD__V1__REPLY__RESULT_COMPARE, &reply);
    struct personad_comparison made = {0};
    if (code == PERSONAD_OK) {
        code = spans_take(client, reply->compare, &made);
    }
    if (code == PERSONAD_OK) {
        code = compared_take(client, reply->compare, &made);
    }
    if (code == PERSONAD_OK) {
        *out = made;
    }
    return code;
}

/* ---------------------------------------------------------------- group */

int personad_group(personad_client *client, uint64_t session,
                   const struct personad_position *position, const struct personad_answers **out,
                   size_t *count, double *entropy)
{
    Personad__V1__GroupRequest body = PERSONAD__V1__GROUP_REQUEST__INIT;
    Personad__V1__Position place;
    body.has_session = true;
    body.session = session;
    body.position = client_position(position, &place);
    const Personad__V1__Reply *reply = NULL;
    const int code = client_ask(client, PERSONAD__V1__REQUEST__OP_GROUP, &body,
                                PERSONAD__V1__REPLY__RESULT_GROUP, &reply);
    if (code != PERSONAD_OK) {
        return code;
    }
    const Personad__V1__GroupReply *from = reply->group;
    struct personad_answers *made = message_alloc(client->current, from->n_groups, sizeof *made);
    if (made == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_groups; i++) {
        const Personad__V1__AnswerGroup *group = from->groups[i];
        made[i] = (struct personad_answers){
            .text = text_of(group->has_text, group->text),
            .nodes = group->nodes,
            .node_count = group->n_nodes,
            .share = group->share,
            .mass = group->has_mass ? group->mass : (double)NAN,
        };
    }
    *out = made;
    *count = from->n_groups;
    if (entropy != NULL) {
        *entropy = from->entropy;
    }
    return PERSONAD_OK;
}

/* ---------------------------------------------------------------- verify */

static const char *const number_names[] = {"nothing",         "token",   "logprob",
                                           "sampler_logprob", "entropy", "alternatives"};

const char *personad_verified_name(int number)
{
    const bool known = number >= 0 && (size_t)number < sizeof number_names / sizeof number_names[0];
    return known ? number_names[number] : "unknown";
}

static int verify_take(struct personad_client *client, const Personad__V1__VerifyReply *from,
                       struct personad_verification *out)
{
    struct personad_verified *nodes = message_alloc(client->current, from->n_nodes, sizeof *nodes);
    if (nodes == NULL) {
        return client_no_memory(client);
    }
    for (size_t i = 0; i < from->n_nodes; i++) {
        const Personad__V1__VerifiedNode *node = from->nodes[i];
        nodes[i] = (struct personad_verified){
            .node = node->node,
            .session = node->session,
            .number = (int)node->number,
            .index = node->index,
            .stored_bits = node->stored_bits,
            .computed_bits = node->computed_bits,
            .is_foreign = node->foreign,
            .difference_max = node->difference_max,
            .other_tokens = node->other_tokens,
            .other_token_count = node->n_other_tokens,
        };
        if (node->error != NULL) {
            nodes[i].error_text = text_of(node->error->has_text, node->error->text);
        }
    }
    *out = (struct personad_verification){
        .node_count = from->node_count,
        .equal_count = from->equal_count,
        .different_count = from->different_count,
        .foreign_count = from->foreign_count,
        .failed_count = from->failed_count,
        .token_count = from->token_count,
        .nodes = nodes,
        .new_count = from->n_nodes,
    };
    return PERSONAD_OK;
}

int personad_verify(personad_client *client, const struct personad_verify_options *options,
                    void (*on_progress)(void *context, const struct personad_verification *seen),
                    void *context, struct personad_verification *out)
{
    Personad__V1__VerifyRequest body = PERSONAD__V1__VERIFY_REQUEST__INIT;
    body.has_node = options->node != 0;
    body.node = options->node;
    body.has_path = options->path;
    body.path = options->path;
    body.has_session = options->session != 0;
    body.session = options->session;
    body.has_all = options->node == 0 && options->session == 0;
    body.all = body.has_all;
    const Personad__V1__Reply *reply = NULL;
    int code = client_ask(client, PERSONAD__V1__REQUEST__OP_VERIFY, &body,
                          PERSONAD__V1__REPLY__RESULT_VERIFY, &reply);
    while (code == PERSONAD_OK) {
        const bool more = reply->has_more && reply->more;
        code = verify_take(client, reply->verify, out);
        if (code == PERSONAD_OK && on_progress != NULL) {
            on_progress(context, out);
        }
        if (code != PERSONAD_OK || !more) {
            break;
        }
        code = client_more(client, reply->id, PERSONAD__V1__REPLY__RESULT_VERIFY, &reply);
    }
    return code;
}
