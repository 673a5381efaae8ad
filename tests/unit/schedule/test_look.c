/* Goal: a look answers for every mark what generation stored for the same token at the same place,
 * bit for bit, whatever shares the steps; it samples nothing, and its rows are shared and bounded
 * like any others.
 * Method: the fake backend, whose numbers are hashes of all that a row and a sample see. Branches
 * generate, then looks along their contexts and tokens are compared by memcmp: alone, in chunks, in
 * crowds, preempted, many marks at one place. Twins: another token, seed or history must show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "support/engine_rig.h"

enum { STEPS = 20000, CONTEXT = 90, REPLY = 40, LENGTH = CONTEXT + REPLY - 1, TOPS = 3 };

/* A reply that was generated, and the look that goes over it again. */
struct trial {
    uint32_t ids[CONTEXT + REPLY];
    struct branch_mark marks[REPLY];
    struct engine_rig_request request; /* of the reply */
};

static void trial_make(struct trial *trial, uint32_t salt)
{
    *trial = (struct trial){.request = {.count = CONTEXT,
                                        .prompt_count = 40,
                                        .frame_first = 30,
                                        .frame_count = 20,
                                        .prompt_scope = 1 + salt,
                                        .session_scope = 1000 + salt,
                                        .session = 1000 + salt,
                                        .seed = 77 + salt,
                                        .ignore_end = true,
                                        .max_tokens = REPLY,
                                        .top_count = TOPS}};
    trial->request.ids = trial->ids;
    engine_rig_fill(trial->ids, CONTEXT, salt + 3);
}

static struct engine_rig_request trial_look(struct trial *trial,
                                            const struct engine_rig_branch *reply)
{
    struct engine_rig_request look = trial->request;

    memcpy(trial->ids + CONTEXT, reply->output.tokens, REPLY * sizeof(uint32_t));
    for (uint32_t i = 0; i < REPLY; i++) {
        trial->marks[i] = (struct branch_mark){CONTEXT - 1 + i, reply->output.tokens[i]};
    }
    look.count = LENGTH;
    look.marks = trial->marks;
    look.mark_count = REPLY;
    look.marks_draw = true;
    return look;
}

/* Entries of a look that differ in a bit from those of the reply. */
static uint32_t count_differences(const struct engine_rig_branch *look,
                                  const struct engine_rig_branch *reply)
{
    const struct branch_output *a = &look->output, *b = &reply->output;
    uint32_t count = 0;

    for (uint32_t i = 0; i < REPLY; i++) {
        const size_t top = (size_t)i * TOPS;
        count += memcmp(&a->tokens[i], &b->tokens[i], sizeof(uint32_t)) != 0 ||
                 memcmp(&a->logprobs[i], &b->logprobs[i], sizeof(float)) != 0 ||
                 memcmp(&a->logprobs_sampler[i], &b->logprobs_sampler[i], sizeof(float)) != 0 ||
                 memcmp(&a->entropies[i], &b->entropies[i], sizeof(float)) != 0 ||
                 memcmp(&a->tops[top], &b->tops[top], TOPS * sizeof(struct sample_top)) != 0;
    }
    return count;
}

static void test_a_look_answers_what_generation_stored(void **state)
{
    (void)state;
    for (uint32_t step_slots = 1; step_slots <= 2; step_slots++) {
        for (uint32_t row_ns = 100000; row_ns <= 12800000; row_ns *= 4) {
            struct engine_rig_settings settings = engine_rig_defaults();
            struct engine_rig rig;
            struct trial trial;

            settings.step_slot_count = step_slots;
            engine_rig_open(&rig, &settings, 3);
            fake_behaviour(rig.fake)->row_ns = row_ns;
            trial_make(&trial, 1);
            const uint32_t reply = engine_rig_lend(&rig, &trial.request);
            assert_true(engine_rig_run(&rig, STEPS));
            struct engine_rig_request request = trial_look(&trial, &rig.branches[reply]);
            const uint32_t look = engine_rig_lend(&rig, &request);
            assert_true(engine_rig_run(&rig, STEPS));
            assert_int_equal(rig.branches[look].event.finish, FINISH_LENGTH);
            assert_int_equal(rig.branches[look].event.sampled_count, REPLY);
            assert_int_equal(rig.branches[look].event.context_cached_count, LENGTH);
            assert_int_equal(count_differences(&rig.branches[look], &rig.branches[reply]), 0);
            /* Shared with nobody: all of it is computed again, to the same bits. */
            request.prompt_scope = 0;
            request.session_scope = 0;
            const uint32_t secret = engine_rig_lend(&rig, &request);
            assert_true(engine_rig_run(&rig, STEPS));
            assert_int_equal(rig.branches[secret].event.context_computed_count, LENGTH);
            assert_int_equal(count_differences(&rig.branches[secret], &rig.branches[reply]), 0);
            engine_rig_close(&rig);
        }
    }
}

static void test_another_token_seed_or_history_is_noticed(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct trial trial;

    (void)state;
    engine_rig_open(&rig, &settings, 4);
    trial_make(&trial, 2);
    const uint32_t reply = engine_rig_lend(&rig, &trial.request);
    assert_true(engine_rig_run(&rig, STEPS));
    const struct engine_rig_request sound = trial_look(&trial, &rig.branches[reply]);
    for (uint32_t kind = 0; kind < 3; kind++) {
        struct engine_rig_request broken = sound;
        if (kind == 0) {
            trial.marks[7].token = RIG_TOKEN_A + (trial.marks[7].token + 1) % 26;
        } else if (kind == 1) {
            trial.marks[7].token = rig.branches[reply].output.tokens[7];
            broken.seed++;
        } else {
            broken.frame_count--;
        }
        const uint32_t look = engine_rig_lend(&rig, &broken);
        assert_true(engine_rig_run(&rig, STEPS));
        const uint32_t different = count_differences(&rig.branches[look], &rig.branches[reply]);
        assert_int_equal(different, kind == 0 ? 1 : REPLY);
    }
    engine_rig_close(&rig);
}

/* A small pool and few slots: looks and replies chase each other's pages away. */
static void test_looks_in_a_crowd_under_pressure_answer_the_same(void **state)
{
    enum { CROWD = 12 };
    struct engine_rig_settings settings = engine_rig_defaults();
    static struct trial trials[CROWD];
    struct engine_rig rig;
    struct engine_stats stats;
    uint32_t looks[CROWD];

    (void)state;
    settings.page_count = 40;
    settings.running_count_max = 6;
    settings.step_slot_count = 2;
    engine_rig_open(&rig, &settings, 3 * CROWD);
    for (uint32_t i = 0; i < CROWD; i++) {
        trial_make(&trials[i], i);
        trials[i].request.user = i % 3;
        engine_rig_lend(&rig, &trials[i].request);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    for (uint32_t i = 0; i < CROWD; i++) {
        struct engine_rig_request request = trial_look(&trials[i], &rig.branches[i]);
        request.priority = i % 2 == 0 ? BRANCH_BACKGROUND : BRANCH_INTERACTIVE;
        looks[i] = engine_rig_lend(&rig, &request);
        (void)engine_rig_step(&rig);
        request.marks = NULL;
        request.count = CONTEXT + i;
        request.seed = i;
        engine_rig_lend(&rig, &request);
        (void)engine_rig_step(&rig);
    }
    assert_true(engine_rig_run(&rig, STEPS));
    for (uint32_t i = 0; i < CROWD; i++) {
        assert_int_equal(rig.branches[looks[i]].event.finish, FINISH_LENGTH);
        assert_int_equal(count_differences(&rig.branches[looks[i]], &rig.branches[i]), 0);
    }
    engine_stats(rig.engine, &stats);
    assert_true(stats.preemption_count > 0);
    engine_rig_close(&rig);
}

/* More marks than a step has samples, all at one place, and none that draws. */
static void test_many_tokens_are_measured_at_one_place(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct branch_mark marks[RIG_TOKEN_COUNT + 1];
    struct engine_rig rig;
    struct trial trial;

    (void)state;
    settings.running_count_max = 4;
    engine_rig_open(&rig, &settings, 2);
    trial_make(&trial, 5);
    const uint32_t reply = engine_rig_lend(&rig, &trial.request);
    assert_true(engine_rig_run(&rig, STEPS));
    for (uint32_t i = 0; i <= RIG_TOKEN_COUNT; i++) {
        marks[i] = (struct branch_mark){CONTEXT - 1, i < RIG_TOKEN_COUNT ? i : PLAN_GIVEN_NONE};
    }
    struct engine_rig_request request = trial.request;
    request.marks = marks;
    request.mark_count = RIG_TOKEN_COUNT + 1;
    const uint32_t look = engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    const struct branch_output *answer = &rig.branches[look].output;
    const struct branch_output *stored = &rig.branches[reply].output;
    assert_memory_equal(&answer->logprobs[stored->tokens[0]], &stored->logprobs[0], sizeof(float));
    for (uint32_t i = 0; i <= RIG_TOKEN_COUNT; i++) {
        assert_int_equal(answer->tokens[i], marks[i].token);
        assert_memory_equal(&answer->entropies[i], &stored->entropies[0], sizeof(float));
        assert_memory_equal(&answer->tops[(size_t)i * TOPS], stored->tops,
                            TOPS * sizeof(struct sample_top));
    }
    assert_true(answer->logprobs[RIG_TOKEN_COUNT] == 0);
    engine_rig_close(&rig);
}

/* The frontier of an expansion: what is known in front of it is cached, and each look adds one
 * token. Lent together they are one step of one row each. The twin lends them one by one. */
static void test_looks_that_are_lent_together_are_one_step(void **state)
{
    enum { LOOKS = 6 };
    struct engine_rig rig;
    struct trial trial;

    (void)state;
    for (uint32_t together = 0; together < 2; together++) {
        struct engine_rig_settings settings = engine_rig_defaults();
        const struct branch_mark first = {CONTEXT - 1, PLAN_GIVEN_NONE};
        const struct branch_mark behind = {CONTEXT, PLAN_GIVEN_NONE};
        uint32_t ids[CONTEXT + 1];
        struct engine_stats before, after;

        settings.running_count_max = LOOKS + 1;
        engine_rig_open(&rig, &settings, LOOKS + 1);
        trial_make(&trial, 5);
        struct engine_rig_request request = trial.request;
        request.marks = &first;
        request.mark_count = 1;
        engine_rig_lend(&rig, &request);
        assert_true(engine_rig_run(&rig, STEPS));
        engine_stats(rig.engine, &before);
        memcpy(ids, request.ids, CONTEXT * sizeof(uint32_t));
        request.ids = ids;
        request.count = CONTEXT + 1;
        request.marks = &behind;
        engine_hold(rig.engine, together != 0);
        for (uint32_t i = 0; i < LOOKS; i++) {
            ids[CONTEXT] = RIG_TOKEN_A + i;
            engine_rig_lend(&rig, &request);
            assert_int_equal(engine_rig_step(&rig), together != 0 ? STATUS_AGAIN : STATUS_OK);
        }
        engine_hold(rig.engine, false);
        assert_true(engine_rig_run(&rig, STEPS));
        engine_stats(rig.engine, &after);
        assert_int_equal(after.row_count - before.row_count, LOOKS);
        assert_int_equal(after.step_count - before.step_count, together != 0 ? 1 : LOOKS);
        engine_rig_close(&rig);
    }
}

static void test_a_look_is_cancelled_and_fails_as_a_branch_does(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig rig;
    struct trial trial;

    (void)state;
    engine_rig_open(&rig, &settings, 3);
    trial_make(&trial, 6);
    const uint32_t reply = engine_rig_lend(&rig, &trial.request);
    assert_true(engine_rig_run(&rig, STEPS));
    struct engine_rig_request request = trial_look(&trial, &rig.branches[reply]);
    const uint32_t cut = engine_rig_lend(&rig, &request);
    assert_int_equal(engine_cancel(rig.engine, rig.branches[cut].slot), STATUS_OK);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[cut].event.finish, FINISH_CANCELLED);
    fake_behaviour(rig.fake)->nan_token = trial.ids[CONTEXT + 3];
    request.session_scope = 7;
    const uint32_t failed = engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    assert_int_equal(rig.branches[failed].event.finish, FINISH_FAILED);
    assert_int_equal(rig.branches[failed].event.status, STATUS_NUMERIC);
    engine_rig_close(&rig);
}

static void test_a_look_too_long_for_the_pool_is_refused(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct branch_mark mark = {127, 3};
    struct engine_rig rig;
    struct error error = {0};
    uint32_t ids[128];

    (void)state;
    settings.page_count = 8;
    engine_rig_open(&rig, &settings, 2);
    engine_rig_fill(ids, 128, 1);
    struct engine_rig_request request = {.ids = ids, .count = 128, .marks = &mark, .mark_count = 1};
    assert_int_equal(engine_rig_submit(&rig, &request, &error), UINT32_MAX);
    assert_int_equal(error.status, STATUS_LIMIT);
    request.count = 127;
    mark.position = 126;
    engine_rig_lend(&rig, &request);
    assert_true(engine_rig_run(&rig, STEPS));
    engine_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_look_answers_what_generation_stored),
        cmocka_unit_test(test_another_token_seed_or_history_is_noticed),
        cmocka_unit_test(test_looks_in_a_crowd_under_pressure_answer_the_same),
        cmocka_unit_test(test_many_tokens_are_measured_at_one_place),
        cmocka_unit_test(test_looks_that_are_lent_together_are_one_step),
        cmocka_unit_test(test_a_look_is_cancelled_and_fails_as_a_branch_does),
        cmocka_unit_test(test_a_look_too_long_for_the_pool_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
