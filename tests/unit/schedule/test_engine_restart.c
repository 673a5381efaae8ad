/* Goal: after a failure of the device the engine makes it anew and computes what was in flight
 * again, with the same bits; two restarts without a good step between them end the branches as
 * DEVICE and nothing else.
 * Method: the fake backend fails at every step in turn, when a step is given and when it is waited
 * for, with one and two steps in flight; a new fake has none of the old one's KV, so that a page
 * which outlived it gives other tokens. What comes of it is compared by memcmp with the same
 * requests alone. The twin: a device that comes back with other arithmetic is seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/engine_rig.h"

enum { STEPS = 2000, IDS = 60, BRANCHES = 4 };

struct crowd {
    uint32_t ids[IDS];
    struct engine_rig_request requests[BRANCHES];
};

/* Two that share a session's context, one that draws beside the first, one of its own. */
static void crowd_lend(struct crowd *crowd, struct engine_rig *rig)
{
    engine_rig_fill(crowd->ids, IDS, 3);
    for (uint32_t i = 0; i < BRANCHES; i++) {
        crowd->requests[i] = (struct engine_rig_request){
            .ids = crowd->ids,
            .count = i == 2 ? IDS - 7 : IDS,
            .session_scope = i == 3 ? 2 : 1,
            .group = i < 2 ? 5 : 10 + i,
            .seed = i,
            .ignore_end = true,
            .max_tokens = 20,
        };
        (void)engine_rig_lend(rig, &crowd->requests[i]);
    }
}

static void open_failing(struct engine_rig *rig, uint32_t kind, uint32_t step)
{
    struct engine_rig_settings settings = engine_rig_defaults();

    settings.step_slot_count = 1 + kind % 2;
    settings.restarts = true;
    engine_rig_open(rig, &settings, BRANCHES + 1);
    fake_behaviour(rig->fake)->row_ns = 5000000; /* ten rows a step */
    *(kind < 2 ? &fake_behaviour(rig->fake)->fail_submit : &fake_behaviour(rig->fake)->fail_wait) =
        step;
}

static void test_a_failure_anywhere_changes_no_bit(void **state)
{
    uint32_t restarts = 0;

    (void)state;
    for (uint32_t step = 1; step < 40; step++) {
        for (uint32_t kind = 0; kind < 4; kind++) {
            struct engine_rig rig;
            struct crowd crowd;

            open_failing(&rig, kind, step);
            crowd_lend(&crowd, &rig);
            assert_true(engine_rig_run(&rig, STEPS));
            for (uint32_t i = 0; i < BRANCHES; i++) {
                assert_int_equal(rig.branches[i].event.finish, FINISH_LENGTH);
                engine_rig_assert_as_alone(&rig.branches[i], &crowd.requests[i]);
            }
            restarts += rig.restart_count;
            engine_rig_close(&rig);
        }
    }
    assert_true(restarts > 60);
}

/* The twin of the above. */
static void test_a_device_that_comes_back_with_other_bits_is_seen(void **state)
{
    struct engine_rig rig, alone;
    struct crowd crowd;

    (void)state;
    open_failing(&rig, 2, 12);
    rig.restart_behaviour.depends_on_batch = true;
    crowd_lend(&crowd, &rig);
    assert_true(engine_rig_run(&rig, STEPS));
    const struct engine_rig_branch *expected = engine_rig_alone(&alone, &crowd.requests[0]);
    assert_false(engine_rig_equal(&rig.branches[0], expected));
    engine_rig_close(&alone);
    engine_rig_close(&rig);
}

static void expect_device(const struct engine_rig *rig, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(rig->branches[i].event.finish, FINISH_FAILED);
        assert_int_equal(rig->branches[i].event.status, STATUS_DEVICE);
    }
}

static void test_two_restarts_that_fail_end_the_branches_and_the_next_one_tries_anew(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 4; kind++) {
        struct engine_rig rig;
        struct engine_stats stats;
        struct crowd crowd;

        open_failing(&rig, kind, 9);
        rig.restart_refuse_count = 2;
        crowd_lend(&crowd, &rig);
        assert_true(engine_rig_run(&rig, STEPS));
        expect_device(&rig, BRANCHES);
        assert_int_equal(rig.restart_count, 2);
        engine_stats(rig.engine, &stats);
        assert_string_equal(stats.device_text, "the test keeps the device down");
        (void)engine_rig_lend(&rig, &crowd.requests[1]);
        assert_true(engine_rig_run(&rig, STEPS));
        assert_int_equal(rig.restart_count, 3);
        engine_rig_assert_as_alone(&rig.branches[BRANCHES], &crowd.requests[1]);
        engine_rig_close(&rig);
    }
}

static void test_restarts_that_help_for_no_step_are_failed_ones(void **state)
{
    struct engine_rig rig;
    struct engine_stats stats;
    struct crowd crowd;

    (void)state;
    open_failing(&rig, 2, 9);
    rig.restart_behaviour.fail_wait = 1;
    crowd_lend(&crowd, &rig);
    assert_true(engine_rig_run(&rig, STEPS));
    expect_device(&rig, BRANCHES);
    assert_int_equal(rig.restart_count, 2);
    engine_stats(rig.engine, &stats);
    assert_non_null(strstr(stats.device_text, "failed on the device"));
    engine_rig_close(&rig);
}

/* A good step in between makes the next failure a first one: it goes on for as long as it moves. */
static void test_a_good_step_forgives(void **state)
{
    struct engine_rig rig;
    struct crowd crowd;

    (void)state;
    open_failing(&rig, 2, 9);
    rig.restart_behaviour.fail_wait = 30;
    crowd_lend(&crowd, &rig);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_true(rig.restart_count >= 1);
    for (uint32_t i = 0; i < BRANCHES; i++) {
        engine_rig_assert_as_alone(&rig.branches[i], &crowd.requests[i]);
    }
    engine_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failure_anywhere_changes_no_bit),
        cmocka_unit_test(test_a_device_that_comes_back_with_other_bits_is_seen),
        cmocka_unit_test(test_two_restarts_that_fail_end_the_branches_and_the_next_one_tries_anew),
        cmocka_unit_test(test_restarts_that_help_for_no_step_are_failed_ones),
        cmocka_unit_test(test_a_good_step_forgives),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
