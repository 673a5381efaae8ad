/* Goal: a token that was drawn has the same numbers, bit for bit, when it is given and measured
 * later, among whatever history came after; measuring changes nothing.
 * Method: random batches drawn by the plain sampler, given again to the backend, all results by
 * memcmp. Twins: a later history that shows, another token.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/sample_batch.h"

/* The batch's draws again as given tokens, behind `extra_count` later ids in every history of which
 * the steps must see nothing. Answers how many results differ in a bit. */
static uint32_t count_given_differences(const struct sample_batch *batch, uint32_t extra_count,
                                        bool is_cut, uint32_t token_shift)
{
    static struct sample_history histories[SAMPLE_BATCH_ITEMS];
    struct plan_sample samples[SAMPLE_BATCH_ITEMS];
    struct sample_result got[SAMPLE_BATCH_ITEMS];
    struct sample_setup setup;
    uint32_t different = 0;

    for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
        const uint32_t count = batch->histories[i].count;
        const uint32_t room = SETUP_HISTORY_MAX - count;
        histories[i] = batch->histories[i];
        histories[i].count += extra_count < room ? extra_count : room;
        for (uint32_t j = count; j < histories[i].count; j++) {
            histories[i].ids[j] = (i + 7 * j) % batch->vocabulary_count;
        }
        samples[i] = batch->samples[i];
        samples[i].flags = PLAN_SAMPLE_GIVEN;
        samples[i].given = (batch->want[i].token + token_shift) % batch->vocabulary_count;
        samples[i].history_count = is_cut ? count : UINT32_MAX;
    }
    sample_setup_init(&setup, batch->vocabulary_count, NULL, 2);
    sample_setup_run(&setup, batch->logits, SAMPLE_BATCH_ITEMS, samples, SAMPLE_BATCH_ITEMS,
                     histories, got);
    for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
        different += memcmp(&got[i], &batch->want[i], sizeof got[i]) != 0;
    }
    sample_setup_finish(&setup);
    return different;
}

static void test_a_given_token_has_the_bits_that_it_was_drawn_with(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 8; seed++) {
        struct sample_batch *batch = sample_batch_create(300, seed);

        assert_int_equal(count_given_differences(batch, 0, true, 0), 0);
        assert_int_equal(count_given_differences(batch, 12, true, 0), 0);
        sample_batch_destroy(batch);
    }
}

static void test_a_later_history_or_another_token_is_caught(void **state)
{
    (void)state;
    uint32_t by_history = 0, by_token = 0;

    for (uint64_t seed = 1; seed < 8; seed++) {
        struct sample_batch *batch = sample_batch_create(300, seed);

        by_history += count_given_differences(batch, 12, false, 0);
        by_token += count_given_differences(batch, 0, true, 1);
        sample_batch_destroy(batch);
    }
    assert_true(by_history > 0);
    assert_true(by_token > SAMPLE_BATCH_ITEMS);
}

static void test_a_token_is_measured_without_steps_and_changes_no_history(void **state)
{
    (void)state;
    struct sample_batch *batch = sample_batch_create(300, 3);
    struct sample_setup setup;

    sample_setup_init(&setup, batch->vocabulary_count, NULL, 1);
    for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
        const float *z = batch->logits + (size_t)i * 300;
        struct plan_sample three[3];
        struct sample_result got[3];

        for (uint32_t k = 0; k < 3; k++) {
            three[k] = batch->samples[i];
            three[k].logits_row = 0;
        }
        three[0].flags = PLAN_SAMPLE_GIVEN;
        three[0].given = batch->want[i].flags == 0 ? batch->want[i].token : 0;
        three[0].steps = NULL;
        three[1] = three[0];
        three[1].given = PLAN_GIVEN_NONE;
        sample_setup_run(&setup, z, 1, three, 3, batch->histories, got);
        if (batch->want[i].flags == 0) {
            assert_memory_equal(&got[0].logprob, &batch->want[i].logprob, sizeof(float));
            assert_memory_equal(&got[1].entropy, &batch->want[i].entropy, sizeof(float));
            assert_memory_equal(got[1].top, batch->want[i].top, sizeof got[1].top);
        }
        assert_int_equal(got[0].token, three[0].given);
        assert_int_equal(got[1].token, PLAN_GIVEN_NONE);
        assert_true(got[1].logprob == 0 && got[0].logprob_sampler == 0);
        assert_memory_equal(&got[2], &batch->want[i], sizeof got[2]);
    }
    sample_setup_finish(&setup);
    sample_batch_destroy(batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_given_token_has_the_bits_that_it_was_drawn_with),
        cmocka_unit_test(test_a_later_history_or_another_token_is_caught),
        cmocka_unit_test(test_a_token_is_measured_without_steps_and_changes_no_history),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
