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

#include "base/memory.h"
#include "limits.h"
#include "support/engine_rig.h"

enum { STEPS = 20000 };

static void fill(uint32_t *ids, uint32_t count, uint32_t salt)
{
    for (uint32_t i = 0; i < count; i++) {
        ids[i] = RIG_TOKEN_A + (i * 7 + salt * 13 + i * i * salt) % 26;
    }
}

static uint32_t submit(struct engine_rig *rig, const struct engine_rig_request *request)
{
    const uint32_t index = engine_rig_submit(rig, request, NULL);

    assert_int_not_equal(index, UINT32_MAX);
    return index;
}

/* The same request in an engine of its own; the branch is borrowed from *rig. */
static const struct engine_rig_branch *run_alone(struct engine_rig *rig,
                                                 const struct engine_rig_request *request)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig_request alone = *request;

    settings.page_count = 1024;
    alone.group = 0;
    engine_rig_open(rig, &settings, 1);
    submit(rig, &alone);
    assert_true(engine_rig_run(rig, STEPS));
    return &rig->branches[0];
}

static void assert_as_alone(const struct engine_rig_branch *branch,
                            const struct engine_rig_request *request)
{
    struct engine_rig rig;

    assert_true(engine_rig_equal(branch, run_alone(&rig, request)));
    engine_rig_close(&rig);
}

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
    fill(ids, 90, 3);
    const struct engine_rig_request request = {.ids = ids,
                                               .count = 90,
                                               .prompt_count = 40,
                                               .frame_first = 30,
                                               .frame_count = 20,
                                               .seed = 77,
                                               .ignore_end = true,
                                               .max_tokens = 40,
                                               .top_count = 3};
    const struct engine_rig_branch *branch = &rig.branches[submit(&rig, &request)];
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
        assert_memory_equal(&branch->output.tops[3 * i], expected.top,
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
            fill(ids[i], 120, i);
            requests[i] = request;
            submit(&rig, &requests[i]);
            (void)engine_rig_step(&rig);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        for (uint32_t i = 0; i < 24; i++) {
            assert_as_alone(&rig.branches[i], &requests[i]);
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
    fill(ids, 60, 1);
    engine_rig_open(&rig, &settings, 4);
    fake_behaviour(rig.fake)->depends_on_batch = true;
    struct engine_rig_request request = {.ids = ids, .count = 60, .ignore_end = true};
    for (uint32_t i = 0; i < 4; i++) {
        request.seed = i;
        submit(&rig, &request);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    for (uint32_t i = 0; i < 4; i++) {
        request.seed = i;
        is_equal = is_equal && engine_rig_equal(&rig.branches[i], run_alone(&alone, &request));
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
            fill(ids[i], 230, 5);
            fill(&ids[i][prompt_count], 22, i);
            requests[i] = request;
            submit(&rig, &requests[i]);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        for (uint32_t i = 0; i < 64; i++) {
            const struct branch_event *event = &rig.branches[i].event;
            computed += event->context_computed_count;
            assert_int_equal(event->context_cached_count, i == 0 ? 0 : prompt_count);
            assert_as_alone(&rig.branches[i], &requests[i]);
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
            fill(ids, 97, 2);
            settings.step_slot_count = 1 + count % 2;
            engine_rig_open(&rig, &settings, 8);
            struct engine_rig_request request = {
                .ids = ids, .count = count, .group = 5, .session_scope = scope, .max_tokens = 30};
            for (uint32_t i = 0; i < 8; i++) {
                request.seed = 100 + i;
                submit(&rig, &request);
            }
            assert_true(engine_rig_run(&rig, STEPS));
            for (uint32_t i = 0; i < 8; i++) {
                request.seed = 100 + i;
                computed += rig.branches[i].event.context_computed_count;
                assert_as_alone(&rig.branches[i], &request);
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
        fill(ids, 82, 4);
        engine_rig_open(&rig, &settings, 2);
        struct engine_rig_request request = {.ids = ids, .count = count, .session_scope = 9};
        submit(&rig, &request);
        assert_true(engine_rig_run(&rig, STEPS));
        request.seed = 1;
        submit(&rig, &request);
        assert_true(engine_rig_run(&rig, STEPS));
        assert_int_equal(rig.branches[1].event.context_cached_count, count);
        assert_int_equal(rig.branches[1].event.context_computed_count, 1);
        assert_as_alone(&rig.branches[1], &request);
        engine_rig_close(&rig);
    }
}

static void test_a_fork_of_a_growing_node_shares_its_released_pages(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[128];

    (void)state;
    fill(ids, 40, 6);
    engine_rig_open(&rig, &settings, 2);
    const struct engine_rig_request request = {
        .ids = ids, .count = 40, .session_scope = 3, .ignore_end = true, .max_tokens = 60};
    submit(&rig, &request);
    while (rig.branches[0].event.released_count < 40) {
        (void)engine_rig_step(&rig);
    }
    memcpy(&ids[40], rig.branches[0].output.tokens, 39 * sizeof(uint32_t));
    const struct engine_rig_request fork = {.ids = ids, .count = 79, .session_scope = 3, .seed = 4};
    submit(&rig, &fork);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_in_range(rig.branches[1].event.context_cached_count, 64, 79);
    assert_as_alone(&rig.branches[0], &request);
    assert_as_alone(&rig.branches[1], &fork);
    engine_rig_close(&rig);
}

static void test_sessions_share_a_prompt_and_nothing_else(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[100];

    (void)state;
    fill(ids, 100, 8);
    engine_rig_open(&rig, &settings, 4);
    struct engine_rig_request request = {
        .ids = ids, .count = 100, .prompt_count = 37, .prompt_scope = 1, .session_scope = 2};
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    request.session_scope = 3; /* another session, the same ids throughout */
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[1].event.context_cached_count, 37);
    request.prompt_scope = 4; /* another persona with the same prompt */
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[2].event.context_cached_count, 0);
    request.prompt_scope = 0;
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[3].event.context_cached_count, 0);
    engine_rig_close(&rig);
}

static void test_a_released_scope_is_forgotten(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[100];

    (void)state;
    fill(ids, 100, 8);
    engine_rig_open(&rig, &settings, 4);
    struct engine_rig_request request = {.ids = ids,
                                         .count = 100,
                                         .prompt_count = 48,
                                         .prompt_scope = 1,
                                         .session_scope = 2,
                                         .ignore_end = true,
                                         .max_tokens = 64};
    submit(&rig, &request);
    for (int i = 0; i < 30; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_false(rig.branches[0].has_ended);
    assert_int_equal(engine_release_scope(rig.engine, 2), STATUS_OK);
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[1].event.context_cached_count, 48);
    assert_true(engine_rig_equal(&rig.branches[0], &rig.branches[1]));
    assert_int_equal(engine_release_scope(rig.engine, 1), STATUS_OK);
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[2].event.context_cached_count, 0);
    assert_as_alone(&rig.branches[2], &request);
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
            fill(ids[i], 60, i);
            requests[i] = request;
            submit(&rig, &requests[i]);
        }
        assert_true(engine_rig_run(&rig, STEPS));
        engine_stats(rig.engine, &stats);
        assert_true(stats.preemption_count > 0);
        for (uint32_t i = 0; i < 8; i++) {
            assert_as_alone(&rig.branches[i], &requests[i]);
        }
        engine_rig_close(&rig);
    }
}

static void test_a_cancelled_branch_keeps_what_was_released(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct engine_rig alone;
    uint32_t ids[50];

    (void)state;
    fill(ids, 50, 8);
    settings.step_slot_count = 2;
    engine_rig_open(&rig, &settings, 2);
    const struct engine_rig_request request = {.ids = ids,
                                               .count = 50,
                                               .cue = "zzzz",
                                               .session_scope = 1,
                                               .ignore_end = true,
                                               .max_tokens = 60};
    submit(&rig, &request);
    while (rig.branches[0].event.sampled_count < 20) {
        (void)engine_rig_step(&rig);
    }
    assert_int_equal(engine_cancel(rig.engine, rig.branches[0].slot), STATUS_OK);
    assert_true(engine_rig_run(&rig, 10));
    assert_int_equal(rig.branches[0].event.finish, FINISH_CANCELLED);
    assert_int_equal(rig.branches[0].event.kept, rig.branches[0].event.released_count);
    assert_true(engine_rig_leads(&rig.branches[0], run_alone(&alone, &request)));
    engine_rig_close(&alone);
    /* The slot is free again, and a late cancel harms nobody. */
    assert_int_equal(engine_cancel(rig.engine, rig.branches[0].slot), STATUS_OK);
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_as_alone(&rig.branches[1], &request);
    engine_rig_close(&rig);
}

static void test_when_the_owner_of_a_prompt_is_cancelled_the_next_takes_over(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[200];

    (void)state;
    fill(ids, 200, 8);
    engine_rig_open(&rig, &settings, 3);
    fake_behaviour(rig.fake)->row_ns = 5000000; /* ten rows a step */
    struct engine_rig_request request = {
        .ids = ids, .count = 200, .prompt_count = 190, .prompt_scope = 1, .session_scope = 2};
    submit(&rig, &request);
    request.session_scope = 3;
    submit(&rig, &request);
    request.session_scope = 4;
    submit(&rig, &request);
    for (int i = 0; i < 8; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_int_equal(rig.branches[1].event.context_computed_count, 0);
    assert_int_equal(engine_cancel(rig.engine, rig.branches[0].slot), STATUS_OK);
    assert_true(engine_rig_run(&rig, STEPS));
    const uint32_t before = rig.branches[0].event.context_computed_count;
    assert_in_range(before, 1, 189);
    /* What the first had computed in whole pages is not lost. */
    assert_in_range(rig.branches[1].event.context_computed_count, 200 - before, 200 - before + 16);
    assert_int_equal(rig.branches[2].event.context_computed_count, 10);
    assert_as_alone(&rig.branches[2], &request);
    engine_rig_close(&rig);
}

static void test_a_number_that_is_none_ends_its_branch_only(void **state)
{
    (void)state;
    for (int in_kv = 0; in_kv < 2; in_kv++) {
        struct engine_rig_settings settings = engine_rig_defaults();
        struct engine_rig rig;
        uint32_t ids[3][60];
        engine_rig_open(&rig, &settings, 6);
        for (uint32_t i = 0; i < 3; i++) {
            const struct engine_rig_request request = {.ids = ids[i],
                                                       .count = 60,
                                                       .session_scope = 1,
                                                       .group = 10 + i,
                                                       .ignore_end = true,
                                                       .seed = i};
            fill(ids[i], 60, i);
            ids[i][30] = 38 + (i == 1);
            submit(&rig, &request);
            submit(&rig, &request);
        }
        /* Sampled tokens never are 39: only the second context holds it. */
        fake_behaviour(rig.fake)->token_count = 38;
        if (in_kv != 0) {
            fake_behaviour(rig.fake)->fault_token = 39;
        } else {
            fake_behaviour(rig.fake)->nan_token = 39;
        }
        assert_true(engine_rig_run(&rig, STEPS));
        for (uint32_t i = 0; i < 6; i++) {
            const struct branch_event *event = &rig.branches[i].event;
            assert_int_equal(event->finish, i / 2 == 1 ? FINISH_FAILED : FINISH_LENGTH);
            assert_int_equal(event->status, i / 2 == 1 ? STATUS_NUMERIC : STATUS_OK);
        }
        engine_rig_close(&rig);
    }
}

static void test_a_device_failure_ends_the_branches_of_its_step_and_no_others(void **state)
{
    (void)state;
    for (uint32_t step = 1; step < 20; step++) {
        for (uint32_t kind = 0; kind < 4; kind++) {
            struct engine_rig_settings settings = engine_rig_defaults();
            struct engine_rig rig;
            uint32_t ids[60];
            uint32_t failed = 0;
            settings.step_slot_count = 1 + kind % 2;
            engine_rig_open(&rig, &settings, 3);
            fill(ids, 60, 3);
            fake_behaviour(rig.fake)->row_ns = 5000000;
            if (kind < 2) {
                fake_behaviour(rig.fake)->fail_submit = step;
            } else {
                fake_behaviour(rig.fake)->fail_wait = step;
            }
            struct engine_rig_request request = {
                .ids = ids, .count = 60, .session_scope = 1, .ignore_end = true, .max_tokens = 20};
            submit(&rig, &request);
            request.group = 4;
            submit(&rig, &request);
            assert_true(engine_rig_run(&rig, STEPS));
            for (uint32_t i = 0; i < 2; i++) {
                const struct branch_event *event = &rig.branches[i].event;
                if (event->finish == FINISH_FAILED) {
                    failed++;
                    assert_int_equal(event->status, STATUS_DEVICE);
                } else {
                    assert_int_equal(event->finish, FINISH_LENGTH);
                    assert_as_alone(&rig.branches[i], &request);
                }
            }
            assert_true(failed > 0);
            submit(&rig, &request);
            assert_true(engine_rig_run(&rig, STEPS));
            assert_as_alone(&rig.branches[2], &request);
            engine_rig_close(&rig);
        }
    }
}

static void test_a_context_that_can_never_fit_is_refused_with_the_numbers(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct error error = {0};
    uint32_t ids[200];

    (void)state;
    settings.page_count = 10;
    engine_rig_open(&rig, &settings, 3);
    fill(ids, 200, 3);
    struct engine_rig_request request = {.ids = ids, .count = 150};
    assert_int_equal(engine_rig_submit(&rig, &request, &error), UINT32_MAX);
    assert_int_equal(error.status, STATUS_LIMIT);
    assert_non_null(strstr(error.text, "11 KV pages"));
    assert_non_null(strstr(error.text, "has 10"));
    request.count = 144;
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_as_alone(&rig.branches[1], &request);
    engine_rig_close(&rig);
}

static void test_a_resumed_branch_ends_as_if_it_had_never_stopped(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct engine_rig alone;
    uint32_t ids[40];

    (void)state;
    fill(ids, 40, 12);
    struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 50, .session_scope = 1};
    const struct engine_rig_branch *whole = run_alone(&alone, &request);
    engine_rig_open(&rig, &settings, 1);
    request.resume = whole->output.tokens;
    request.resume_count = 23;
    submit(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    const struct engine_rig_branch *branch = &rig.branches[0];
    assert_int_equal(branch->event.sampled_count, whole->event.sampled_count);
    assert_memory_equal(branch->output.tokens, whole->output.tokens, 50 * sizeof(uint32_t));
    assert_memory_equal(branch->output.text, whole->output.text, whole->event.content_bytes);
    assert_memory_equal(&branch->output.logprobs[23], &whole->output.logprobs[23],
                        27 * sizeof(float));
    engine_rig_close(&alone);
    engine_rig_close(&rig);
}

static void test_a_parked_branch_goes_on_with_the_same_bytes(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[40];

    (void)state;
    fill(ids, 40, 12);
    settings.step_slot_count = 2;
    engine_rig_open(&rig, &settings, 1);
    const struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 50, .session_scope = 1};
    submit(&rig, &request);
    for (int i = 0; i < 15; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_int_equal(engine_park(rig.engine, rig.branches[0].slot, true), STATUS_OK);
    assert_false(engine_rig_run(&rig, 20));
    assert_int_equal(engine_step(rig.engine), STATUS_AGAIN);
    assert_int_equal(engine_park(rig.engine, rig.branches[0].slot, false), STATUS_OK);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_as_alone(&rig.branches[0], &request);
    engine_rig_close(&rig);
}

static void test_stopping_ends_every_branch(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[40];

    (void)state;
    fill(ids, 40, 12);
    settings.step_slot_count = 2;
    settings.running_count_max = 4;
    engine_rig_open(&rig, &settings, 8);
    const struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 50};
    for (int i = 0; i < 7; i++) {
        submit(&rig, &request);
    }
    for (int i = 0; i < 5; i++) {
        (void)engine_rig_step(&rig);
    }
    submit(&rig, &request);
    engine_stop(rig.engine);
    engine_rig_take(&rig);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(rig.branches[i].event.finish, FINISH_FAILED);
        assert_int_equal(rig.branches[i].event.status, STATUS_STOPPING);
    }
    engine_rig_close(&rig);
}

static void test_an_interactive_branch_gets_the_slot_of_a_batch_one(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[40];

    (void)state;
    fill(ids, 40, 12);
    settings.running_count_max = 2;
    engine_rig_open(&rig, &settings, 4);
    struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 100, .priority = BRANCH_BATCH};
    submit(&rig, &request);
    submit(&rig, &request);
    for (int i = 0; i < 5; i++) {
        (void)engine_rig_step(&rig);
    }
    request.priority = BRANCH_INTERACTIVE;
    request.max_tokens = 10;
    submit(&rig, &request);
    for (int i = 0; i < 14; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_true(rig.branches[2].has_ended);
    assert_false(rig.branches[0].has_ended);
    assert_false(rig.branches[1].has_ended);
    assert_true(engine_rig_run(&rig, STEPS));
    engine_rig_close(&rig);
}

static void test_one_user_with_many_branches_does_not_keep_another_out(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[40];

    (void)state;
    fill(ids, 40, 12);
    settings.running_count_max = 4;
    engine_rig_open(&rig, &settings, 42);
    struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 200, .user = 1};
    for (int i = 0; i < 40; i++) {
        submit(&rig, &request);
    }
    for (int i = 0; i < 5; i++) {
        (void)engine_rig_step(&rig);
    }
    request.user = 2;
    request.max_tokens = 10;
    submit(&rig, &request);
    submit(&rig, &request);
    for (int i = 0; i < 20; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_true(rig.branches[40].has_ended);
    assert_true(rig.branches[41].has_ended);
    engine_rig_close(&rig);
}

static void test_1000_steps_allocate_nothing(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[64][60];
    uint64_t before;
    uint32_t steps = 0;

    (void)state;
    settings.page_count = 40;
    settings.step_slot_count = 2;
    engine_rig_open(&rig, &settings, 400);
    for (uint32_t i = 0; i < 400; i++) {
        const struct engine_rig_request request = {.ids = ids[i % 64],
                                                   .count = 10 + i / 4 % 50,
                                                   .prompt_count = 8,
                                                   .prompt_scope = i % 3,
                                                   .session_scope = i % 7,
                                                   .user = i % 5,
                                                   .session = i % 7,
                                                   .group = i / 4,
                                                   .cue = i % 2 != 0 ? "ab" : NULL,
                                                   .ignore_end = i % 4 != 0,
                                                   .seed = i,
                                                   .max_tokens = 60};
        fill(ids[i % 64], 60, i % 64 / 4);
        submit(&rig, &request);
    }
    while (rig.alive_count > 0 && steps < 5000) {
        before = memory_thread_allocation_count();
        const enum status status = engine_step(rig.engine);
        assert_true(status == STATUS_OK || status == STATUS_AGAIN);
        assert_int_equal(memory_thread_allocation_count(), before);
        engine_rig_take(&rig);
        steps++;
    }
    assert_int_equal(rig.alive_count, 0);
    assert_true(steps >= 1000);
    engine_rig_close(&rig);
}

static void test_creation_survives_the_failure_of_every_allocation(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    const int64_t live = memory_live_count();

    (void)state;
    engine_rig_open(&rig, &settings, 1);
    const struct engine_settings engine_settings = {
        .forward = rig.forward,
        .tokenizer = rig.tokenizer,
        .page_count = 64,
        .row_count_max = 64,
        .running_count_max = 8,
        .partial_count_max = 64,
        .step_budget_ms = 50,
        .context_token_count_max = 512,
    };
    for (int64_t survivors = 0;; survivors++) {
        const int64_t live_before = memory_live_count();
        struct engine *engine = NULL;
        memory_fault_set(survivors);
        const enum status status = engine_create(&engine_settings, NULL, &engine);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            engine_destroy(engine);
            break;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_null(engine);
        assert_int_equal(memory_live_count(), live_before);
    }
    engine_rig_close(&rig);
    assert_int_equal(memory_live_count(), live);
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
        cmocka_unit_test(test_a_released_scope_is_forgotten),
        cmocka_unit_test(test_preempted_branches_end_with_the_same_bits),
        cmocka_unit_test(test_a_cancelled_branch_keeps_what_was_released),
        cmocka_unit_test(test_when_the_owner_of_a_prompt_is_cancelled_the_next_takes_over),
        cmocka_unit_test(test_a_number_that_is_none_ends_its_branch_only),
        cmocka_unit_test(test_a_device_failure_ends_the_branches_of_its_step_and_no_others),
        cmocka_unit_test(test_a_context_that_can_never_fit_is_refused_with_the_numbers),
        cmocka_unit_test(test_a_resumed_branch_ends_as_if_it_had_never_stopped),
        cmocka_unit_test(test_a_parked_branch_goes_on_with_the_same_bytes),
        cmocka_unit_test(test_stopping_ends_every_branch),
        cmocka_unit_test(test_an_interactive_branch_gets_the_slot_of_a_batch_one),
        cmocka_unit_test(test_one_user_with_many_branches_does_not_keep_another_out),
        cmocka_unit_test(test_1000_steps_allocate_nothing),
        cmocka_unit_test(test_creation_survives_the_failure_of_every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
