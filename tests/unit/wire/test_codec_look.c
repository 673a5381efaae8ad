/* Goal: what looks, expands and keeps says after decoding what was set, with the documented
 * defaults where nothing was; what is out of range is refused by name; replies carry every value
 * and bit. Method: as in test_codec.c.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "limits.h"
#include "unit/wire/codec_rig.h"

static Personad__V1__Request message;

static int begin(void **state)
{
    personad__v1__request__init(&message);
    message.has_id = 1;
    message.id = 3;
    return setup(state);
}

/* ---- distribution, score ---- */

static void a_distribution_has_its_defaults_and_limits(void **state)
{
    Personad__V1__DistributionRequest body = PERSONAD__V1__DISTRIBUTION_REQUEST__INIT;
    uint32_t tokens[DISTRIBUTION_TOKEN_COUNT_MAX + 1] = {5, 6};
    struct request request;
    struct error error = {0};

    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_DISTRIBUTION;
    message.distribution = &body;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    assert_int_equal(request.type, REQUEST_DISTRIBUTION);
    assert_int_equal(request.u.distribution.top_count, 10);
    assert_int_equal(request.u.distribution.token_count, 0);
    assert_false(request.u.distribution.place.has_position);
    body.has_top_count = 1;
    body.top_count = 0;
    body.tokens = tokens;
    body.n_tokens = 2;
    body.has_priority = 1;
    body.priority = PERSONAD__V1__PRIORITY__BATCH;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    assert_int_equal(request.u.distribution.top_count, 0);
    assert_int_equal(request.u.distribution.tokens[1], 6);
    assert_int_equal(request.u.distribution.priority, BRANCH_BATCH);
    body.n_tokens = DISTRIBUTION_TOKEN_COUNT_MAX + 1;
    assert_int_equal(decode(&message, &error, &request), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "DISTRIBUTION_TOKEN_COUNT_MAX");
    body.n_tokens = 0;
    body.top_count = TOP_COUNT_MAX + 1;
    assert_int_equal(decode(&message, &error, &request), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "TOP_COUNT_MAX");
}

static void a_score_has_items_with_options(void **state)
{
    Personad__V1__ScoreRequest body = PERSONAD__V1__SCORE_REQUEST__INIT;
    Personad__V1__ScoreItem item = PERSONAD__V1__SCORE_ITEM__INIT;
    Personad__V1__ScoreItem *items[] = {&item, &item};
    Personad__V1__ScoreOption option = PERSONAD__V1__SCORE_OPTION__INIT;
    Personad__V1__ScoreOption *options[SCORE_OPTION_COUNT_MAX / 2 + 1];
    uint32_t token = 77;
    struct request request;
    struct error error = {0};

    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_SCORE;
    message.score = &body;
    assert_int_equal(decode(&message, &error, &request), STATUS_BAD_INPUT); /* no item */
    body.items = items;
    body.n_items = 2;
    body.has_session = 1;
    body.session = 9;
    assert_int_equal(decode(&message, &error, &request), STATUS_BAD_INPUT); /* no option */
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        options[i] = &option;
    }
    item.options = options;
    item.n_options = 3;
    assert_int_equal(decode(&message, &error, &request), STATUS_BAD_INPUT); /* an empty one */
    option.tokens = &token;
    option.n_tokens = 1;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    assert_true(request.u.score.item_count == 2 && request.u.score.option_count == 6);
    assert_int_equal(request.u.score.items[1].place.session, 9);
    assert_int_equal(request.u.score.items[1].options[2].tokens[0], 77);
    option.has_text = 1;
    option.text = data_of("x");
    assert_int_equal(decode(&message, &error, &request), STATUS_BAD_INPUT); /* both */
    option.has_text = 0;
    item.n_options = sizeof options / sizeof *options;
    assert_int_equal(decode(&message, &error, &request), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "SCORE_OPTION_COUNT_MAX");
}

static void a_distribution_arrives_bit_for_bit(void **state)
{
    const struct sample_top tops[] = {{7, -0.1f}, {8, -INFINITY}};
    const struct bytes pieces[] = {bytes_of("\xff", 1), bytes_of(NULL, 0)};
    const float logprobs[] = {-0.0f, -1e-40f};
    const struct reply reply = {
        .type = REPLY_DISTRIBUTION,
        .u.distribution = {.entropy = 0.3f,
                           .tops = tops,
                           .top_pieces = pieces,
                           .top_count = 2,
                           .logprobs = logprobs,
                           .logprob_count = 2,
                           .context_token_count = 12},
    };

    (void)state;
    Personad__V1__Reply *got = encode(&reply, false);
    const Personad__V1__DistributionReply *body = got->distribution;
    assert_int_equal(got->result_case, PERSONAD__V1__REPLY__RESULT_DISTRIBUTION);
    assert_true(body->n_top_tokens == 2 && body->n_top_pieces == 2 && body->n_logprobs == 2);
    assert_true(body->top_tokens[1] == 8 && body->top_pieces[1].len == 0);
    assert_memory_equal(body->top_pieces[0].data, "\xff", 1);
    assert_memory_equal(body->logprobs, logprobs, sizeof logprobs);
    assert_memory_equal(&body->top_logprobs[1], &tops[1].logprob, sizeof(float));
    assert_memory_equal(&body->entropy, &reply.u.distribution.entropy, sizeof(float));
    assert_int_equal(body->context_tokens, 12);
    personad__v1__reply__free_unpacked(got, NULL);
}

static void verify_wants_one_thing(void **state)
{
    Personad__V1__VerifyRequest body = PERSONAD__V1__VERIFY_REQUEST__INIT;
    struct request request;

    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_VERIFY;
    message.verify = &body;
    for (uint32_t bits = 0; bits < 8; bits++) {
        body.has_node = body.has_session = body.has_all = 1;
        body.node = (bits & 1) != 0 ? 5 : 0;
        body.session = (bits & 2) != 0 ? 6 : 0;
        body.all = (bits & 4) != 0;
        const bool is_one = bits == 1 || bits == 2 || bits == 4;
        struct error error = {0};

        assert_int_equal(decode(&message, &error, &request), is_one ? STATUS_OK : STATUS_BAD_INPUT);
    }
}

/* ---- expand, keep ---- */

static void an_expand_has_its_defaults(void **state)
{
    Personad__V1__ExpandRequest body = PERSONAD__V1__EXPAND_REQUEST__INIT;
    struct request request;

    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_EXPAND;
    message.expand = &body;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    const struct request_expand *asked = &request.u.expand;
    assert_int_equal(request.type, REQUEST_EXPAND);
    assert_true(asked->depth == 4 && asked->width == 4 && asked->node_count_max == 256);
    assert_true(asked->probability_min == 0.01);
    assert_true(!asked->place.has_position && !asked->place.has_speaker);
    assert_true(!asked->place.continuing && asked->priority == BRANCH_INTERACTIVE);
}

static void what_an_expand_cannot_have_is_refused_by_name(void **state)
{
    static const struct {
        uint32_t depth, width, nodes;
        double probability_min;
        enum status status;
        const char *word;
    } cases[] = {
        {1, 1, 1, 0, STATUS_OK, ""},
        {EXPAND_DEPTH_MAX, TOP_COUNT_MAX, EXPAND_NODE_COUNT_MAX, 1, STATUS_OK, ""},
        {0, 1, 1, 0, STATUS_BAD_INPUT, "expand.depth"},
        {1, 0, 1, 0, STATUS_BAD_INPUT, "expand.width"},
        {1, 1, 0, 0, STATUS_BAD_INPUT, "expand.nodes"},
        {EXPAND_DEPTH_MAX + 1, 1, 1, 0, STATUS_LIMIT, "expand.depth"},
        {1, TOP_COUNT_MAX + 1, 1, 0, STATUS_LIMIT, "expand.width"},
        {1, 1, EXPAND_NODE_COUNT_MAX + 1, 0, STATUS_LIMIT, "expand.nodes"},
        {1, 1, UINT32_MAX, 0, STATUS_LIMIT, "expand.nodes"},
        {1, 1, 1, -0.5, STATUS_BAD_INPUT, "expand.probability_min"},
        {1, 1, 1, 1.5, STATUS_BAD_INPUT, "expand.probability_min"},
        {1, 1, 1, (double)NAN, STATUS_BAD_INPUT, "expand.probability_min"},
    };
    Personad__V1__ExpandRequest body = PERSONAD__V1__EXPAND_REQUEST__INIT;
    struct request request;

    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_EXPAND;
    message.expand = &body;
    body.has_depth = body.has_width = body.has_nodes = body.has_probability_min = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error = {0};

        body.depth = cases[i].depth;
        body.width = cases[i].width;
        body.nodes = cases[i].nodes;
        body.probability_min = cases[i].probability_min;
        assert_int_equal(decode(&message, &error, &request), cases[i].status);
        assert_non_null(strstr(error.text, cases[i].word));
        if (cases[i].status == STATUS_OK) {
            assert_int_equal(request.u.expand.depth, cases[i].depth);
            assert_int_equal(request.u.expand.node_count_max, cases[i].nodes);
        }
    }
}

static void a_keep_names_a_node(void **state)
{
    Personad__V1__KeepRequest body = PERSONAD__V1__KEEP_REQUEST__INIT;
    struct request request;

    (void)state;
    message.op_case = PERSONAD__V1__REQUEST__OP_KEEP;
    message.keep = &body;
    message.has_client_key = 1;
    message.client_key = data_of("k");
    body.has_expansion = body.has_node = 1;
    body.expansion = UINT64_MAX;
    body.node = 17;
    assert_int_equal(decode(&message, NULL, &request), STATUS_OK);
    assert_int_equal(request.type, REQUEST_KEEP);
    assert_true(request.u.keep.expansion == UINT64_MAX && request.u.keep.node == 17);
    assert_int_equal(request.client_key.size, 1);
}

static void a_level_arrives_bit_for_bit(void **state)
{
    const struct expanded_node_view nodes[] = {
        {1, 40, bytes_of("\xf0\x9f", 2), -0.1f, 2.5f, -0.30000000000000004, false},
        {1, 2, bytes_of(NULL, 0), -INFINITY, -0.0f, (double)-INFINITY, true},
    };
    struct reply reply = {
        .type = REPLY_EXPAND,
        .u.expand = {.expansion = 6,
                     .level = 2,
                     .first = 4,
                     .nodes = nodes,
                     .new_count = 2,
                     .node_count = 5,
                     .growing_count = 1,
                     .context_token_count = 12},
    };

    (void)state;
    Personad__V1__Reply *got = encode(&reply, true);
    const Personad__V1__ExpandReply *body = got->expand;
    assert_int_equal(got->result_case, PERSONAD__V1__REPLY__RESULT_EXPAND);
    assert_true(body->expansion == 6 && body->level == 2 && body->first == 4 && !body->has_end);
    assert_true(body->node_count == 5 && body->growing_count == 1 && body->context_tokens == 12);
    assert_true(body->n_parents == 2 && body->n_tokens == 2 && body->n_pieces == 2 &&
                body->n_logprobs == 2 && body->n_entropies == 2 && body->n_joint_logprobs == 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(body->parents[i] == 1 && body->tokens[i] == nodes[i].token);
        assert_int_equal(body->pieces[i].len, nodes[i].piece.size);
        assert_memory_equal(&body->logprobs[i], &nodes[i].logprob, sizeof(float));
        assert_memory_equal(&body->entropies[i], &nodes[i].entropy, sizeof(float));
        assert_memory_equal(&body->joint_logprobs[i], &nodes[i].joint_logprob, sizeof(double));
    }
    assert_true(body->n_end_nodes == 1 && body->end_nodes[0] == 5);
    personad__v1__reply__free_unpacked(got, NULL);
    reply.u.expand.new_count = 0;
    reply.u.expand.has_end = true;
    reply.u.expand.end = EXPAND_END_CANCELLED;
    got = encode(&reply, false);
    assert_true(got->expand->has_end && got->expand->n_parents == 0);
    assert_int_equal(got->expand->end, PERSONAD__V1__EXPAND_END__EXPAND_CANCELLED);
    personad__v1__reply__free_unpacked(got, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_distribution_has_its_defaults_and_limits),
        TEST(a_score_has_items_with_options),
        TEST(a_distribution_arrives_bit_for_bit),
        TEST(verify_wants_one_thing),
        TEST(an_expand_has_its_defaults),
        TEST(what_an_expand_cannot_have_is_refused_by_name),
        TEST(a_keep_names_a_node),
        TEST(a_level_arrives_bit_for_bit),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);

    return failed != 0 || memory_live_count() != 0;
}
