/* Goal: a branch's life ends as the contract says, whatever cuts it short: cancelling, parking,
 * faults of numbers or device, stopping, other users, lack of room; and the engine allocates only
 * when it is made.
 * Method: the fake backend fails on purpose; what survives is compared by memcmp with the same
 * branch run alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/engine_rig.h"

enum { STEPS = 20000 };

static void test_a_cancelled_branch_keeps_what_was_released(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct engine_rig alone;
    uint32_t ids[50];

    (void)state;
    engine_rig_fill(ids, 50, 8);
    settings.step_slot_count = 2;
    engine_rig_open(&rig, &settings, 2);
    const struct engine_rig_request request = {.ids = ids,
                                               .count = 50,
                                               .cue = "zzzz",
                                               .session_scope = 1,
                                               .ignore_end = true,
                                               .max_tokens = 60};
    engine_rig_lend(&rig, &request);
    while (rig.branches[0].event.sampled_count < 20) {
        (void)engine_rig_step(&rig);
    }
    assert_int_equal(engine_cancel(rig.engine, rig.branches[0].slot), STATUS_OK);
    assert_true(engine_rig_run(&rig, 10));
    assert_int_equal(rig.branches[0].event.finish, FINISH_CANCELLED);
    assert_int_equal(rig.branches[0].event.kept, rig.branches[0].event.released_count);
    assert_true(engine_rig_leads(&rig.branches[0], engine_rig_alone(&alone, &request)));
    engine_rig_close(&alone);
    /* The slot is free again, and a late cancel harms nobody. */
    assert_int_equal(engine_cancel(rig.engine, rig.branches[0].slot), STATUS_OK);
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    engine_rig_assert_as_alone(&rig.branches[1], &request);
    engine_rig_close(&rig);
}

static void test_when_the_owner_of_a_prompt_is_cancelled_the_next_takes_over(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[200];

    (void)state;
    engine_rig_fill(ids, 200, 8);
    engine_rig_open(&rig, &settings, 3);
    fake_behaviour(rig.fake)->row_ns = 15000000; /* ten rows a step of prefill alone */
    struct engine_rig_request request = {
        .ids = ids, .count = 200, .prompt_count = 190, .prompt_scope = 1, .session_scope = 2};
    engine_rig_lend(&rig, &request);
    request.session_scope = 3;
    engine_rig_lend(&rig, &request);
    request.session_scope = 4;
    engine_rig_lend(&rig, &request);
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
    engine_rig_assert_as_alone(&rig.branches[2], &request);
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
            engine_rig_fill(ids[i], 60, i);
            ids[i][30] = 38 + (i == 1);
            engine_rig_lend(&rig, &request);
            engine_rig_lend(&rig, &request);
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
            engine_rig_fill(ids, 60, 3);
            fake_behaviour(rig.fake)->row_ns = 5000000;
            if (kind < 2) {
                fake_behaviour(rig.fake)->fail_submit = step;
            } else {
                fake_behaviour(rig.fake)->fail_wait = step;
            }
            struct engine_rig_request request = {
                .ids = ids, .count = 60, .session_scope = 1, .ignore_end = true, .max_tokens = 20};
            engine_rig_lend(&rig, &request);
            request.group = 4;
            engine_rig_lend(&rig, &request);
            assert_true(engine_rig_run(&rig, STEPS));
            for (uint32_t i = 0; i < 2; i++) {
                const struct branch_event *event = &rig.branches[i].event;
                if (event->finish == FINISH_FAILED) {
                    failed++;
                    assert_int_equal(event->status, STATUS_DEVICE);
                } else {
                    assert_int_equal(event->finish, FINISH_LENGTH);
                    engine_rig_assert_as_alone(&rig.branches[i], &request);
                }
            }
            assert_true(failed > 0);
            engine_rig_lend(&rig, &request);
            assert_true(engine_rig_run(&rig, STEPS));
            engine_rig_assert_as_alone(&rig.branches[2], &request);
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
    engine_rig_fill(ids, 200, 3);
    struct engine_rig_request request = {.ids = ids, .count = 150};
    assert_int_equal(engine_rig_submit(&rig, &request, &error), UINT32_MAX);
    assert_int_equal(error.status, STATUS_LIMIT);
    assert_non_null(strstr(error.text, "11 KV pages"));
    assert_non_null(strstr(error.text, "has 10"));
    request.count = 144;
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    engine_rig_assert_as_alone(&rig.branches[1], &request);
    engine_rig_close(&rig);
}

static void test_a_resumed_branch_ends_as_if_it_had_never_stopped(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct engine_rig alone;
    uint32_t ids[40];

    (void)state;
    engine_rig_fill(ids, 40, 12);
    struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 50, .session_scope = 1};
    const struct engine_rig_branch *whole = engine_rig_alone(&alone, &request);
    engine_rig_open(&rig, &settings, 1);
    request.resume = whole->output.tokens;
    request.resume_count = 23;
    engine_rig_lend(&rig, &request);
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
    engine_rig_fill(ids, 40, 12);
    settings.step_slot_count = 2;
    engine_rig_open(&rig, &settings, 1);
    const struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 50, .session_scope = 1};
    engine_rig_lend(&rig, &request);
    for (int i = 0; i < 15; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_int_equal(engine_park(rig.engine, rig.branches[0].slot, true), STATUS_OK);
    assert_false(engine_rig_run(&rig, 20));
    assert_int_equal(engine_step(rig.engine), STATUS_AGAIN);
    assert_int_equal(engine_park(rig.engine, rig.branches[0].slot, false), STATUS_OK);
    assert_true(engine_rig_run(&rig, STEPS));
    engine_rig_assert_as_alone(&rig.branches[0], &request);
    engine_rig_close(&rig);
}

static void test_stopping_ends_every_branch(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[40];

    (void)state;
    engine_rig_fill(ids, 40, 12);
    settings.step_slot_count = 2;
    settings.running_count_max = 4;
    engine_rig_open(&rig, &settings, 8);
    const struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 50};
    for (int i = 0; i < 7; i++) {
        engine_rig_lend(&rig, &request);
    }
    for (int i = 0; i < 5; i++) {
        (void)engine_rig_step(&rig);
    }
    engine_rig_lend(&rig, &request);
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
    engine_rig_fill(ids, 40, 12);
    settings.running_count_max = 2;
    engine_rig_open(&rig, &settings, 4);
    struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 100, .priority = BRANCH_BATCH};
    engine_rig_lend(&rig, &request);
    engine_rig_lend(&rig, &request);
    for (int i = 0; i < 5; i++) {
        (void)engine_rig_step(&rig);
    }
    request.priority = BRANCH_INTERACTIVE;
    request.max_tokens = 10;
    engine_rig_lend(&rig, &request);
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
    engine_rig_fill(ids, 40, 12);
    settings.running_count_max = 4;
    engine_rig_open(&rig, &settings, 42);
    struct engine_rig_request request = {
        .ids = ids, .count = 40, .ignore_end = true, .max_tokens = 200, .user = 1};
    for (int i = 0; i < 40; i++) {
        engine_rig_lend(&rig, &request);
    }
    for (int i = 0; i < 5; i++) {
        (void)engine_rig_step(&rig);
    }
    request.user = 2;
    request.max_tokens = 10;
    engine_rig_lend(&rig, &request);
    engine_rig_lend(&rig, &request);
    for (int i = 0; i < 20; i++) {
        (void)engine_rig_step(&rig);
    }
    assert_true(rig.branches[40].has_ended);
    assert_true(rig.branches[41].has_ended);
    engine_rig_close(&rig);
}

static void test_a_long_context_is_not_passed_over_for_ever(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    uint32_t ids[250];

    (void)state;
    settings.page_count = 20;
    settings.running_count_max = 4;
    engine_rig_open(&rig, &settings, 2000);
    engine_rig_fill(ids, 250, 1);
    struct engine_rig_request small = {
        .ids = ids, .count = 60, .ignore_end = true, .max_tokens = 30, .user = 1};
    struct engine_rig_request big = {.ids = ids, .count = 250, .max_tokens = 10, .user = 2};
    for (int i = 0; i < 3; i++) {
        engine_rig_lend(&rig, &small);
    }
    (void)engine_rig_step(&rig);
    const uint32_t index = engine_rig_lend(&rig, &big);
    for (int i = 0; i < 4000 && !rig.branches[index].has_ended; i++) {
        (void)engine_rig_step(&rig);
        while (rig.alive_count < 6 && rig.branch_count < 2000) {
            small.seed++;
            small.session++;
            engine_rig_lend(&rig, &small);
        }
    }
    assert_true(rig.branches[index].has_ended);
    engine_rig_assert_as_alone(&rig.branches[index], &big);
    assert_true(engine_rig_run(&rig, STEPS));
    engine_rig_close(&rig);
}

static uint32_t rest_count;

static void count_rest(struct backend *backend)
{
    (void)backend;
    rest_count++;
}

static void test_an_engine_without_work_rests_once(void **state)
{
    const struct timespec pause = {.tv_nsec = 5000000};
    struct engine_rig_settings settings = engine_rig_defaults();
    struct backend_ops ops = *fake_ops();
    struct engine_rig rig;
    uint32_t ids[10];

    (void)state;
    ops.rest = count_rest;
    settings.rest_ms = 1;
    engine_rig_fill(ids, 10, 3);
    engine_rig_open_changed(&rig, &settings, &ops, 2);
    const struct engine_rig_request request = {.ids = ids, .count = 10, .ignore_end = true};
    rest_count = 0;
    for (uint32_t round = 0; round < 3; round++) {
        /* Nothing was touched since the last rest. */
        (void)nanosleep(&pause, NULL);
        assert_int_equal(engine_rig_step(&rig), STATUS_AGAIN);
        assert_int_equal(rest_count, round);
        if (round == 2) {
            break;
        }
        engine_rig_lend(&rig, &request);
        while (rig.alive_count > 0) {
            assert_int_equal(engine_rig_step(&rig), STATUS_OK);
            (void)nanosleep(&pause, NULL);
            assert_int_equal(rest_count, round);
        }
        (void)nanosleep(&pause, NULL);
        assert_int_equal(engine_rig_step(&rig), STATUS_AGAIN);
        assert_int_equal(rest_count, round + 1);
    }
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
        engine_rig_fill(ids[i % 64], 60, i % 64 / 4);
        engine_rig_lend(&rig, &request);
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
        cmocka_unit_test(test_a_long_context_is_not_passed_over_for_ever),
        cmocka_unit_test(test_an_engine_without_work_rests_once),
        cmocka_unit_test(test_1000_steps_allocate_nothing),
        cmocka_unit_test(test_creation_survives_the_failure_of_every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
