/* Goal: looks lend, answer and end as their requests say; a stored bit that is not what computing
 * it again gives is found, with its place; answers fold into groups. Method: the rig of
 * test_store.c: its engine answers looks with what the test dictates. Stored numbers are then
 * changed by one bit each, which must be told; failures, refusals, memory, and readers that leave.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "limits.h"
#include "session/group.h"
#include "session/node.h"
#include "session/verify.h"
#include "unit/session/store_rig.h"

static struct rig rig;

static const char plain_card[] =
    "{\"name\":\"plain\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}";

static int restart(void **state)
{
    (void)state;
    rig_restart(&rig, "chatml");
    rig.is_deserted = false;
    return 0;
}

/* A session with `count` sampled siblings of some tokens behind a given node. */
static uint64_t talk(uint32_t count, uint64_t *nodes)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct request generate;

    rig_execute(&rig, rig_append(session, "Hello"));
    generate = rig_generate(session, count);
    generate.u.generate.generation.sampler.has_top_count = true;
    generate.u.generate.generation.sampler.top_count = 2;
    rig_execute(&rig, generate);
    for (uint32_t i = 0; i < count; i++) {
        nodes[i] = rig.reply.nodes[i].id;
        fake_engine_emit_text(rig.engine, i, "one two three four");
        fake_engine_end(rig.engine, i, FINISH_END, STATUS_OK);
    }
    rig_settle(&rig);
    return session;
}

static struct request verify_of(uint64_t node)
{
    struct request request = rig_request(REQUEST_VERIFY);

    request.u.verify.node = node;
    return request;
}

/* What the node held before anything was changed. */
struct copy {
    uint32_t count;
    uint32_t tokens[16];
    float logprobs[16], logprobs_sampler[16], entropies[16];
    struct sample_top tops[32];
    struct branch_output output;
};

static void copy_of(uint64_t id, struct copy *copy)
{
    const struct node_view view = rig_view(&rig, id);

    copy->count = view.sampled_count;
    assert_true(copy->count <= 16 && view.top_count == 2);
    memcpy(copy->tokens, view.sampled, copy->count * sizeof(uint32_t));
    memcpy(copy->logprobs, view.logprobs, copy->count * sizeof(float));
    memcpy(copy->logprobs_sampler, view.logprobs_sampler, copy->count * sizeof(float));
    memcpy(copy->entropies, view.entropies, copy->count * sizeof(float));
    memcpy(copy->tops, view.tops, 2 * copy->count * sizeof(struct sample_top));
    copy->output = (struct branch_output){
        .token_count_max = 16,
        .top_count = 2,
        .tokens = copy->tokens,
        .logprobs = copy->logprobs,
        .logprobs_sampler = copy->logprobs_sampler,
        .entropies = copy->entropies,
        .tops = copy->tops,
    };
}

static void test_verify_asks_for_the_node_again_in_pages_of_its_own(void **state)
{
    uint64_t node;
    struct copy copy;

    (void)state;
    talk(1, &node);
    copy_of(node, &copy);
    rig_execute(&rig, verify_of(node));
    assert_true(rig.reply.more && rig.reply.verify.node_count == 1);
    const struct branch_spec *look = rig.engine->branches[1].spec;
    const struct fake_branch *reply = &rig.engine->branches[0];
    assert_int_equal(look->priority, BRANCH_BACKGROUND);
    assert_true(look->scope.prompt == 0 && look->scope.session == 0);
    assert_true(look->marks_draw && look->seed == reply->seed);
    assert_int_equal(look->context_token_count, reply->context_count + copy.count - 1);
    assert_memory_equal(rig.engine->branches[1].context, reply->context,
                        reply->context_count * sizeof(uint32_t));
    fake_engine_answer(rig.engine, 1, &copy.output, 2);
    rig_settle(&rig);
    assert_true(rig.reply.more);
    fake_engine_answer(rig.engine, 1, &copy.output, copy.count - 2);
    rig_settle(&rig);
    assert_int_equal(rig.reply.type, REPLY_VERIFY);
    assert_false(rig.reply.more);
    assert_int_equal(rig.reply.verify.equal_count, 1);
    assert_int_equal(rig.reply.verify.token_count, copy.count);
    assert_true(store_is_idle(rig.store));
}

/* One bit of one stored number or token after the other. */
static void test_twin_one_stored_bit_is_found_with_its_place(void **state)
{
    (void)state;
    for (uint32_t kind = VERIFIED_TOKEN; kind <= VERIFIED_ALTERNATIVES; kind++) {
        const uint32_t at = kind % 3 + 1;
        struct copy copy;
        uint64_t node;
        uint32_t *bits;

        restart(NULL);
        talk(1, &node);
        copy_of(node, &copy);
        assert_true(at < copy.count);
        const struct node_view view = rig_view(&rig, node);
        const void *const places[] = {view.sampled + at, view.logprobs + at,
                                      view.logprobs_sampler + at, view.entropies + at,
                                      &view.tops[(size_t)2 * at + 1].logprob};
        bits = (uint32_t *)(uintptr_t)places[kind - VERIFIED_TOKEN];
        *bits ^= 1;
        rig_execute(&rig, verify_of(node));
        fake_engine_answer(rig.engine, 1, &copy.output, copy.count);
        const uint32_t before = rig.reply_count;
        rig_settle(&rig);
        assert_int_equal(rig.reply_count, before + 2); /* the difference, then the end */
        assert_false(rig.reply.more);
        assert_int_equal(rig.reply.verify.different_count, 1);
        assert_int_equal(rig.reply.verify.equal_count, 0);
        struct verified_node_view seen = {0};
        uint32_t others[VERIFY_OTHER_TOKEN_COUNT_MAX];
        const struct branch_output stored = {
            .top_count = 2,
            .tokens = (uint32_t *)(uintptr_t)view.sampled,
            .logprobs = (float *)(uintptr_t)view.logprobs,
            .logprobs_sampler = (float *)(uintptr_t)view.logprobs_sampler,
            .entropies = (float *)(uintptr_t)view.entropies,
            .tops = (struct sample_top *)(uintptr_t)view.tops,
        };
        assert_false(verify_compare(&stored, copy.count, &copy.output, others, &seen));
        assert_int_equal(seen.number, kind);
        assert_int_equal(seen.index, at);
        assert_true(kind == VERIFIED_ALTERNATIVES || (seen.stored_bits ^ seen.computed_bits) == 1);
        assert_int_equal(seen.other_token_count, kind == VERIFIED_TOKEN);
        assert_true((seen.difference_max > 0) == (kind == VERIFIED_LOGPROB));
        *bits ^= 1;
        assert_true(verify_compare(&stored, copy.count, &copy.output, others, &seen));
    }
}

static void test_a_node_that_cannot_be_computed_is_told_and_the_others_go_on(void **state)
{
    uint64_t nodes[8];
    struct copy copy;

    (void)state;
    const uint64_t session = talk(8, nodes);
    struct request request = rig_request(REQUEST_VERIFY);
    request.u.verify.session = session;
    copy_of(nodes[0], &copy);
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.verify.node_count, 8);
    assert_int_equal(rig.engine->branch_count, 8 + VERIFY_LOOK_COUNT_MAX);
    fake_engine_end(rig.engine, 8, FINISH_FAILED, STATUS_NUMERIC);
    rig_settle(&rig);
    assert_true(rig.reply.more);
    assert_int_equal(rig.reply.verified.error.status, STATUS_NUMERIC);
    for (uint32_t i = 9; i < 16; i++) {
        fake_engine_answer(rig.engine, i, &copy.output, copy.count);
        rig_settle(&rig);
    }
    assert_false(rig.reply.more);
    assert_int_equal(rig.reply.verify.failed_count, 1);
    assert_int_equal(rig.reply.verify.equal_count, 7);
    assert_true(store_is_idle(rig.store));
}

static void test_verify_ends_when_nobody_waits_or_the_daemon_stops(void **state)
{
    (void)state;
    for (uint32_t stopping = 0; stopping < 2; stopping++) {
        uint64_t nodes[8];
        struct copy copy;

        restart(NULL);
        struct request request = rig_request(REQUEST_VERIFY);
        request.u.verify.session = talk(8, nodes);
        copy_of(nodes[0], &copy);
        rig_execute(&rig, request);
        if (stopping != 0) {
            fake_engine_end(rig.engine, 8, FINISH_FAILED, STATUS_STOPPING);
        } else {
            rig.is_deserted = true;
            fake_engine_answer(rig.engine, 8, &copy.output, copy.count);
        }
        rig_settle(&rig);
        assert_int_equal(rig.engine->branch_count, 8 + VERIFY_LOOK_COUNT_MAX);
        assert_true(store_is_idle(rig.store)); /* the others were asked to end */
        assert_int_equal(rig.reply.type, REPLY_ERROR);
    }
}

static struct score_option options[3];
static struct score_item item;

static struct request score_of(uint64_t session)
{
    static const uint32_t ids[] = {5, 6, 7};
    struct request request = rig_request(REQUEST_SCORE);

    for (uint32_t i = 0; i < 3; i++) {
        options[i] = (struct score_option){.tokens = ids, .token_count = i + 1};
    }
    item =
        (struct score_item){.place = {.session = session}, .options = options, .option_count = 3};
    request.u.score = (struct request_score){.items = &item, .item_count = 1, .option_count = 3};
    return request;
}

static void test_scores_sum_their_own_tokens(void **state)
{
    uint64_t node;

    (void)state;
    const uint64_t session = talk(1, &node);
    rig_execute(&rig, score_of(session));
    assert_int_equal(rig.engine->branch_count,
                     4); /* the first tokens; two and three along theirs */
    for (uint32_t i = 1; i < 4; i++) {
        fake_engine_answer(rig.engine, i, NULL, rig.engine->branches[i].spec->mark_count);
    }
    rig_settle(&rig);
    assert_int_equal(rig.reply.type, REPLY_SCORE);
    /* -(token + 1) / 8 each */
    assert_true(rig.reply.scored[0].logprob == -6.0 / 8);
    assert_true(rig.reply.scored[1].logprob == -13.0 / 8);
    assert_true(rig.reply.scored[2].logprob == -21.0 / 8);
    assert_true(store_is_idle(rig.store));
}

/* Refused at each of its looks: the others end, and one error comes. */
static void test_a_refused_or_failed_score_leaves_nothing_behind(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < 4; at++) {
        uint64_t node;

        restart(NULL);
        const uint64_t session = talk(1, &node);
        rig.engine->refused_after = at < 3 ? 1 + at : rig.engine->refused_after;
        rig_execute(&rig, score_of(session));
        if (at == 3) {
            fake_engine_end(rig.engine, 2, FINISH_FAILED, STATUS_DEVICE);
        }
        rig_settle(&rig);
        assert_int_equal(rig.reply.type, REPLY_ERROR);
        assert_int_equal(rig.reply.error.status, at < 3 ? STATUS_LIMIT : STATUS_DEVICE);
        assert_true(store_is_idle(rig.store));
    }
}

static void test_looks_that_are_lent_go_with_the_store(void **state)
{
    uint64_t node;

    (void)state;
    const uint64_t session = talk(1, &node);
    rig_execute(&rig, score_of(session));
    rig_execute(&rig, verify_of(node));
    restart(NULL); /* the leak checker looks */
}

static void test_every_failed_allocation_is_an_error(void **state)
{
    struct request requests[3];
    uint64_t node;

    (void)state;
    const uint64_t session = talk(1, &node);
    requests[0] = score_of(session);
    requests[1] = rig_request(REQUEST_DISTRIBUTION);
    requests[1].u.distribution.place.session = session;
    requests[2] = rig_request(REQUEST_COMPARE);
    requests[2].u.compare.session = session;
    for (uint32_t kind = 0; kind < 3; kind++) {
        uint32_t failed = 0;

        for (int64_t n = 0;; n++) {
            const uint32_t before = rig.engine->branch_count;

            memory_fault_set(n);
            store_execute(rig.store, &requests[kind], (struct reply_to){1, 1});
            memory_fault_set(-1);
            if (rig.engine->branch_count > before && rig.reply.type != REPLY_ERROR) {
                break;
            }
            rig_settle(&rig);
            assert_int_equal(rig.reply.error.status, STATUS_MEMORY);
            rig.reply.type = REPLY_DONE;
            failed++;
        }
        assert_true(failed > 5);
        for (uint32_t i = 0; i < rig.engine->branch_count; i++) {
            if (!rig.engine->branches[i].is_ended) {
                fake_engine_answer(rig.engine, i, NULL, rig.engine->branches[i].spec->mark_count);
            }
        }
        rig_settle(&rig);
        assert_true(store_is_idle(rig.store));
        rig.reply.type = REPLY_DONE;
    }
}

static enum status change_node(enum request_type type, uint64_t node)
{
    struct request request = rig_request(type);

    request.u.nodes.nodes = &node;
    request.u.nodes.count = 1;
    rig_execute(&rig, request);
    return rig.reply.type == REPLY_ERROR ? rig.reply.error.status : STATUS_OK;
}

/* Compare makes further looks along contexts that borrow from nodes; the rule is one for all. */
static void test_nothing_is_purged_while_a_look_along_it_is_lent(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 4; kind++) {
        struct request requests[4];
        struct copy copy;
        uint64_t node;

        restart(NULL);
        const uint64_t session = talk(1, &node);
        copy_of(node, &copy);
        requests[0] = score_of(session);
        requests[1] = rig_request(REQUEST_DISTRIBUTION);
        requests[1].u.distribution.place.session = session;
        requests[2] = rig_request(REQUEST_COMPARE);
        requests[2].u.compare.session = session;
        requests[3] = verify_of(node);
        rig_execute(&rig, requests[kind]);
        assert_int_equal(change_node(REQUEST_DELETE, node), STATUS_OK);
        assert_int_equal(change_node(REQUEST_PURGE, node), STATUS_CONFLICT);
        for (uint32_t i = 1; i < rig.engine->branch_count; i++) {
            fake_engine_answer(rig.engine, i, kind == 3 ? &copy.output : NULL,
                               rig.engine->branches[i].spec->mark_count);
        }
        rig_settle(&rig);
        assert_int_not_equal(rig.reply.type, REPLY_ERROR);
        assert_int_equal(change_node(REQUEST_PURGE, node), STATUS_OK);
        assert_true(store_is_idle(rig.store));
    }
}

static void test_texts_fold(void **state)
{
    static const char *const pairs[][2] = {
        {"Red", "red"},
        {"  a\n\t Red. ", "a red"},
        {"\"Yes!\"", "yes"},
        {"...", ""},
        {"", ""},
        {"No. 5?", "no. 5"},
        {"\xc3\x89t\xc3\xa9", "\xc3\x89t\xc3\xa9"},
        {"don't", "don't"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct buffer out;

        buffer_init(&out, 64);
        assert_int_equal(group_fold(bytes_of_text(pairs[i][0]), &out), STATUS_OK);
        assert_true(bytes_equal(buffer_bytes(&out), bytes_of_text(pairs[i][1])));
        buffer_finish(&out);
    }
}

static int open_rig(void **state)
{
    (void)state;
    rig_init(&rig, "smollm", "chatml");
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_verify_asks_for_the_node_again_in_pages_of_its_own, restart),
        cmocka_unit_test_setup(test_twin_one_stored_bit_is_found_with_its_place, restart),
        cmocka_unit_test_setup(test_a_node_that_cannot_be_computed_is_told_and_the_others_go_on,
                               restart),
        cmocka_unit_test_setup(test_verify_ends_when_nobody_waits_or_the_daemon_stops, restart),
        cmocka_unit_test_setup(test_scores_sum_their_own_tokens, restart),
        cmocka_unit_test_setup(test_a_refused_or_failed_score_leaves_nothing_behind, restart),
        cmocka_unit_test_setup(test_looks_that_are_lent_go_with_the_store, restart),
        cmocka_unit_test_setup(test_every_failed_allocation_is_an_error, restart),
        cmocka_unit_test_setup(test_nothing_is_purged_while_a_look_along_it_is_lent, restart),
        cmocka_unit_test(test_texts_fold),
    };

    return cmocka_run_group_tests(tests, open_rig, close_rig);
}
