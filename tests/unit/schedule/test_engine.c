/* Goal: the engine gives every branch the tokens that its own ids define, whatever else is going
 * on, computes what is shared once, and ends as its contract says.
 * Method: the fake backend, whose tokens are hashes of all that a row sees; a branch is compared
 * with the fake's own definition or, by memcmp, with the same branch run alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/engine_rig.h"

enum { STEPS = 20000 };

static void test_tokens_are_those_that_the_ids_define(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[200];
    uint32_t history[200];
    uint32_t history_count = 0;
    struct step_list steps = {0};

    (void)state;
    engine_rig_open(&rig, &settings, 1);
    engine_rig_fill(ids, 90, 3);
    const struct engine_rig_request request = {.ids = ids,
                                               .count = 90,
                                               .prompt_count = 40,
                                               .frame_first = 30,
                                               .frame_count = 20,
                                               .seed = 77,
                                               .ignore_end = true,
                                               .max_tokens = 40,
                                               .top_count = 3};
    const struct engine_rig_branch *branch = &rig.branches[engine_rig_lend(&rig, &request)];
    assert_true(engine_rig_run(&rig, STEPS));
    for (uint32_t i = 0; i < 90; i++) {
        if (i < 30 || i >= 50) {
            history[history_count++] = ids[i];
        }
    }
    for (uint32_t i = 0; i < 40; i++) {
        const struct fake_expectation of = {ids, 90 + i, history, history_count, 30};
        const struct plan_sample sample = {.steps = &steps, .seed = 77, .index = i, .top_count = 3};
        struct sample_result expected;
        fake_expect(rig.fake, &of, &sample, &expected);
        assert_int_equal(branch->output.tokens[i], expected.token);
        assert_memory_equal(&branch->output.logprobs[i], &expected.logprob, sizeof(float));
        assert_memory_equal(&branch->output.entropies[i], &expected.entropy, sizeof(float));
        assert_memory_equal(&branch->output.tops[(size_t)3 * i], expected.top,
                            3 * sizeof(struct sample_top));
        ids[90 + i] = expected.token;
        history[history_count++] = expected.token;
    }
    assert_int_equal(branch->event.finish, FINISH_LENGTH);
    assert_int_equal(branch->event.kept, 40);
    assert_int_equal(branch->event.context_computed_count, 90);
    engine_rig_close(&rig);
}

static void test_a_branch_among_strangers_is_as_alone(void **state)
{
    (void)state;
    for (uint32_t step_slots = 1; step_slots <= 2; step_slots++) {
        struct engine_rig_settings settings = engine_rig_defaults();
        struct engine_rig_request requests[24];
        struct engine_rig rig;
        uint32_t ids[24][120];
        settings.step_slot_count = step_slots;
        engine_rig_open(&rig, &settings, 24);
        fake_behaviour(rig.fake)->row_ns = 3000000; /* about 16 rows a step: chunks and mixtures */
        for (uint32_t i = 0; i < 24; i++) {
            const struct engine_rig_request request = {.ids = ids[i],
                                                       .count = 1 + (i * 37) % 120,
                                                       .seed = i,
                                                       .user = i % 3,
                                                       .session = i,
                                                       .session_scope = 100 + i,
                                                       .max_tokens = 5 + i};
            engine_rig_fill(ids[i], 120, i);
            requests[i] = request;
            engine_rig_lend(&rig, &requests[i]);
            (void)engine_rig_step(&rig);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        for (uint32_t i = 0; i < 24; i++) {
            engine_rig_assert_as_alone(&rig.branches[i], &requests[i]);
        }
        engine_rig_close(&rig);
    }
}

/* The twin: a value that depends on the batch must fail the same comparison. */
static void test_a_batch_dependent_value_is_noticed(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct engine_rig alone;
    uint32_t ids[60];
    bool is_equal = true;

    (void)state;
    engine_rig_fill(ids, 60, 1);
    engine_rig_open(&rig, &settings, 4);
    fake_behaviour(rig.fake)->depends_on_batch = true;
    struct engine_rig_request request = {.ids = ids, .count = 60, .ignore_end = true};
    for (uint32_t i = 0; i < 4; i++) {
        request.seed = i;
        engine_rig_lend(&rig, &request);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    for (uint32_t i = 0; i < 4; i++) {
        request.seed = i;
        is_equal =
            is_equal && engine_rig_equal(&rig.branches[i], engine_rig_alone(&alone, &request));
        engine_rig_close(&alone);
    }
    assert_false(is_equal);
    engine_rig_close(&rig);
}

static void test_64_sessions_of_a_persona_compute_its_prompt_once(void **state)
{
    (void)state;
    for (uint32_t prompt_count = 200; prompt_count <= 208; prompt_count += 8) {
        struct engine_rig_settings settings = engine_rig_defaults();
        struct engine_rig_request requests[64];
        struct engine_rig rig;
        uint32_t ids[64][230];
        uint64_t computed = 0;
        settings.page_count = 1024;
        settings.running_count_max = 64;
        engine_rig_open(&rig, &settings, 64);
        for (uint32_t i = 0; i < 64; i++) {
            const struct engine_rig_request request = {.ids = ids[i],
                                                       .count = prompt_count + 1 + i % 20,
                                                       .prompt_count = prompt_count,
                                                       .prompt_scope = 7,
                                                       .session_scope = 1000 + i,
                                                       .session = i,
                                                       .seed = i};
            engine_rig_fill(ids[i], 230, 5);
            engine_rig_fill(&ids[i][prompt_count], 22, i);
            requests[i] = request;
            engine_rig_lend(&rig, &requests[i]);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        for (uint32_t i = 0; i < 64; i++) {
            const struct branch_event *event = &rig.branches[i].event;
            computed += event->context_computed_count;
            assert_int_equal(event->context_cached_count, i == 0 ? 0 : prompt_count);
            engine_rig_assert_as_alone(&rig.branches[i], &requests[i]);
        }
        computed -= prompt_count;
        for (uint32_t i = 0; i < 64; i++) {
            computed -= 1 + i % 20;
        }
        assert_int_equal(computed, 0);
        engine_rig_close(&rig);
    }
}

static void test_siblings_share_the_context_and_its_last_logits(void **state)
{
    (void)state;
    for (uint32_t count = 95; count <= 97; count++) {
        for (uint64_t scope = 0; scope < 2; scope++) {
            struct engine_rig_settings settings = engine_rig_defaults();
            struct engine_rig rig;
            uint32_t ids[97];
            uint32_t computed = 0;
            engine_rig_fill(ids, 97, 2);
            settings.step_slot_count = 1 + count % 2;
            engine_rig_open(&rig, &settings, 8);
            struct engine_rig_request request = {
                .ids = ids, .count = count, .group = 5, .session_scope = scope, .max_tokens = 30};
            for (uint32_t i = 0; i < 8; i++) {
                request.seed = 100 + i;
                engine_rig_lend(&rig, &request);
            }
            assert_true(engine_rig_run(&rig, STEPS));
            for (uint32_t i = 0; i < 8; i++) {
                request.seed = 100 + i;
                computed += rig.branches[i].event.context_computed_count;
                engine_rig_assert_as_alone(&rig.branches[i], &request);
            }
            assert_int_equal(computed, count);
            engine_rig_close(&rig);
        }
    }
}

static void test_a_regenerated_turn_computes_one_row_of_its_context(void **state)
{
    (void)state;
    for (uint32_t count = 79; count <= 82; count++) {
        struct engine_rig_settings settings = engine_rig_defaults();
        struct engine_rig rig;
        uint32_t ids[82];
        engine_rig_fill(ids, 82, 4);
        engine_rig_open(&rig, &settings, 2);
        struct engine_rig_request request = {.ids = ids, .count = count, .session_scope = 9};
        engine_rig_lend(&rig, &request);
        assert_true(engine_rig_run(&rig, STEPS));
        request.seed = 1;
        engine_rig_lend(&rig, &request);
        assert_true(engine_rig_run(&rig, STEPS));
        assert_int_equal(rig.branches[1].event.context_cached_count, count);
        assert_int_equal(rig.branches[1].event.context_computed_count, 1);
        engine_rig_assert_as_alone(&rig.branches[1], &request);
        engine_rig_close(&rig);
    }
}

static void test_a_fork_of_a_growing_node_shares_its_released_pages(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[128];

    (void)state;
    engine_rig_fill(ids, 40, 6);
    engine_rig_open(&rig, &settings, 2);
    const struct engine_rig_request request = {
        .ids = ids, .count = 40, .session_scope = 3, .ignore_end = true, .max_tokens = 60};
    engine_rig_lend(&rig, &request);
    while (rig.branches[0].event.released_count < 40) {
        (void)engine_rig_step(&rig);
    }
    memcpy(&ids[40], rig.branches[0].output.tokens, 39 * sizeof(uint32_t));
    const struct engine_rig_request fork = {.ids = ids, .count = 79, .session_scope = 3, .seed = 4};
    engine_rig_lend(&rig, &fork);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_in_range(rig.branches[1].event.context_cached_count, 64, 79);
    engine_rig_assert_as_alone(&rig.branches[0], &request);
    engine_rig_assert_as_alone(&rig.branches[1], &fork);
    engine_rig_close(&rig);
}

static void test_sessions_share_a_prompt_and_nothing_else(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[100];

    (void)state;
    engine_rig_fill(ids, 100, 8);
    engine_rig_open(&rig, &settings, 4);
    struct engine_rig_request request = {
        .ids = ids, .count = 100, .prompt_count = 37, .prompt_scope = 1, .session_scope = 2};
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    request.session_scope = 3; /* another session, the same ids throughout */
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[1].event.context_cached_count, 37);
    request.prompt_scope = 4; /* another persona with the same prompt */
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[2].event.context_cached_count, 0);
    request.prompt_scope = 0;
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[3].event.context_cached_count, 0);
    engine_rig_close(&rig);
}

static void test_a_shorter_prompt_shares_no_more_than_itself(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[60];

    (void)state;
    engine_rig_fill(ids, 60, 8);
    engine_rig_open(&rig, &settings, 2);
    struct engine_rig_request request = {
        .ids = ids, .count = 60, .prompt_count = 50, .prompt_scope = 1, .session_scope = 2};
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    /* The same persona without its greeting; what follows is the user's, though it reads the same.
     */
    request.prompt_count = 20;
    request.session_scope = 3;
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[1].event.context_cached_count, 20);
    engine_rig_close(&rig);
}

static void test_tokens_after_a_cut_are_not_cached(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[200];
    uint32_t cut_count = 0;

    (void)state;
    engine_rig_open(&rig, &settings, 200);
    for (uint32_t seed = 0; seed < 100; seed++) {
        struct engine_rig_request request = {.ids = ids,
                                             .count = 40,
                                             .session_scope = 1 + seed,
                                             .seed = seed,
                                             .cue = "ba",
                                             .max_tokens = 60};
        engine_rig_fill(ids, 40, seed);
        const struct engine_rig_branch *branch = &rig.branches[engine_rig_lend(&rig, &request)];
        assert_true(engine_rig_run(&rig, STEPS));
        /* A cue of two tokens: the first of them was fed, so its KV was computed. */
        if (branch->event.finish != FINISH_CUE ||
            branch->event.kept + 2 > branch->event.sampled_count) {
            continue;
        }
        memcpy(&ids[40], branch->output.tokens, branch->event.sampled_count * sizeof(uint32_t));
        request.count = 40 + branch->event.sampled_count;
        request.max_tokens = 1;
        const struct engine_rig_branch *again = &rig.branches[engine_rig_lend(&rig, &request)];
        assert_true(engine_rig_run(&rig, STEPS));
        assert_in_range(again->event.context_cached_count, 40, 40 + branch->event.kept);
        cut_count++;
    }
    assert_true(cut_count > 0);
    engine_rig_close(&rig);
}

static void test_a_released_scope_is_forgotten(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[100];

    (void)state;
    engine_rig_fill(ids, 100, 8);
    engine_rig_open(&rig, &settings, 4);
    struct engine_rig_request request = {.ids = ids,
                                         .count = 100,
                                         .prompt_count = 48,
                                         .prompt_scope = 1,
                                         .session_scope = 2,
                                         .ignore_end = true,
                                         .max_tokens = 64};
    engine_rig_lend(&rig, &request);
    for (int i = 0; i < 30; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_false(rig.branches[0].has_ended);
    assert_int_equal(engine_release_scope(rig.engine, 2), STATUS_OK);
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[1].event.context_cached_count, 48);
    assert_true(engine_rig_equal(&rig.branches[0], &rig.branches[1]));
    assert_int_equal(engine_release_scope(rig.engine, 1), STATUS_OK);
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[2].event.context_cached_count, 0);
    engine_rig_assert_as_alone(&rig.branches[2], &request);
    engine_rig_close(&rig);
}

static void test_preempted_branches_end_with_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t step_slots = 1; step_slots <= 2; step_slots++) {
        struct engine_rig_settings settings = engine_rig_defaults();
        struct engine_rig_request requests[8];
        struct engine_rig rig;
        struct engine_stats stats;
        uint32_t ids[8][60];
        settings.page_count = 20;
        settings.step_slot_count = step_slots;
        engine_rig_open(&rig, &settings, 8);
        for (uint32_t i = 0; i < 8; i++) {
            const struct engine_rig_request request = {.ids = ids[i],
                                                       .count = 20 + i * 5,
                                                       .session_scope = i % 3,
                                                       .ignore_end = true,
                                                       .seed = i,
                                                       .max_tokens = 90};
            engine_rig_fill(ids[i], 60, i);
            requests[i] = request;
            engine_rig_lend(&rig, &requests[i]);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        engine_stats(rig.engine, &stats);
        assert_true(stats.preemption_count > 0);
        for (uint32_t i = 0; i < 8; i++) {
            engine_rig_assert_as_alone(&rig.branches[i], &requests[i]);
        }
        engine_rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens_are_those_that_the_ids_define),
        cmocka_unit_test(test_a_branch_among_strangers_is_as_alone),
        cmocka_unit_test(test_a_batch_dependent_value_is_noticed),
        cmocka_unit_test(test_64_sessions_of_a_persona_compute_its_prompt_once),
        cmocka_unit_test(test_siblings_share_the_context_and_its_last_logits),
        cmocka_unit_test(test_a_regenerated_turn_computes_one_row_of_its_context),
        cmocka_unit_test(test_a_fork_of_a_growing_node_shares_its_released_pages),
        cmocka_unit_test(test_sessions_share_a_prompt_and_nothing_else),
        cmocka_unit_test(test_a_shorter_prompt_shares_no_more_than_itself),
        cmocka_unit_test(test_tokens_after_a_cut_are_not_cached),
        cmocka_unit_test(test_a_released_scope_is_forgotten),
        cmocka_unit_test(test_preempted_branches_end_with_the_same_bits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
