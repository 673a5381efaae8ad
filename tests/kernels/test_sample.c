/* Goal: the backend draws what kernels/steps/steps.h says, with the same bits from every
 * instruction set, batch, row and thread count, and answers rows that nothing can be drawn from.
 * Method: thousands of random rows and lists of steps against a plain second sampler, all numbers
 * by memcmp; edges by hand; frequencies of many seeds against the probabilities. Twins (a draw
 * keyed by its place in the batch, top-k that drops ties, one logit moved by one unit) must be
 * caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/sample.h"
#include "kernels/steps/masses.h"
#include "kernels/steps/philox.h"
#include "tests/support/isa_names.h"
#include "tests/support/sample_batch.h"

static void test_draws_equal_the_plain_sampler_bit_for_bit(void **state)
{
    (void)state;
    static const uint32_t vocabularies[] = {1,   2,   3,   15,  16,  17,   33,
                                            127, 128, 129, 300, 777, 1536, 2048};
    struct sample_result got[SAMPLE_BATCH_ITEMS];

    for (uint32_t round = 0; round < 28; round++) {
        const uint32_t vocabulary_count = vocabularies[round % 14];
        struct sample_batch *batch = sample_batch_create(vocabulary_count, round + 1);
        for (uint32_t isa = 0; isa < ISA_NAME_COUNT; isa++) {
            struct sample_setup setup;
            if (!sample_setup_has(isa_names[isa])) {
                print_message("skipped: this machine has no %s\n", isa_names[isa]);
                continue;
            }
            sample_setup_init(&setup, vocabulary_count, isa_names[isa], 1 + round % 3);
            for (int repeat = 0; repeat < 2; repeat++) {
                sample_setup_run(&setup, batch->logits, SAMPLE_BATCH_ITEMS, batch->samples,
                                 SAMPLE_BATCH_ITEMS, batch->histories, got);
                assert_memory_equal(got, batch->want, sizeof got);
            }
            sample_setup_finish(&setup);
        }
        sample_batch_destroy(batch);
    }
}

static void test_all_builds_give_the_same_bits(void **state)
{
    (void)state;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    struct sample_batch *batch = sample_batch_create(777, 5);
    for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
        const struct sample_result *result = &batch->want[i];
        const uint32_t words[] = {
            result->token, result->flags, steps_bits_from_float(result->logprob),
            steps_bits_from_float(result->logprob_sampler), steps_bits_from_float(result->entropy)};
        for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
            hash = (hash ^ words[w]) * UINT64_C(0x100000001b3);
        }
    }
    sample_batch_destroy(batch);
    print_message("sample: hash %016llx\n", (unsigned long long)hash);
    /* Another value is another arithmetic: it raises the generation in the numerics id. */
    assert_true(hash == UINT64_C(0xc0b8e2571a7efbfe));
}

/* The tables' passes expose the vector exp: weights are exp(z - 0). */
static void test_vector_exp_equals_the_scalar_one(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    static float z[COUNT], weights[COUNT + SAMPLE_SLACK];
    static uint64_t block_sum[COUNT / SAMPLE_BLOCK + 1];
    uint64_t seed = 21, sum, scalar_sum = 0;
    const struct sample_kernels *tables[] = {
#if defined(__x86_64__)
        sample_setup_has("avx2") ? &sample_kernels_avx2 : NULL,
        sample_setup_has("avx512") ? &sample_kernels_avx512 : NULL,
#elif defined(__aarch64__)
        sample_setup_has("neon") ? &sample_kernels_neon : NULL,
#endif
        &sample_kernels_scalar,
    };

    for (uint32_t i = 0; i < COUNT; i++) {
        z[i] = sample_batch_between(&seed, -50, 0);
        z[i] = i % 1000 == 0 ? -INFINITY : z[i];
    }
    z[1] = STEPS_EXP_LOW;
    z[2] = nextafterf(STEPS_EXP_LOW, -100.0f);
    for (uint32_t i = 0; i < COUNT; i++) {
        scalar_sum += steps_mass(z[i], 0.0f);
    }
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        if (tables[t] == NULL) {
            continue;
        }
        tables[t]->masses(z, COUNT, 0.0f, block_sum, &sum, NULL, weights);
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(steps_bits_from_float(weights[i]),
                             steps_bits_from_float(steps_exp(z[i])));
        }
        assert_true(sum == scalar_sum);
    }
}

static void test_an_item_has_the_same_bits_alone_and_in_any_row(void **state)
{
    (void)state;
    struct sample_batch *batch = sample_batch_create(1000, 99);
    struct sample_setup setup;

    sample_setup_init(&setup, batch->vocabulary_count, NULL, 2);
    for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
        struct plan_sample sample = batch->samples[i];
        struct sample_result got;
        sample.logits_row = 0;
        sample_setup_run(&setup, batch->logits + (size_t)i * 1000, 1, &sample, 1, batch->histories,
                         &got);
        assert_memory_equal(&got, &batch->want[i], sizeof got);
    }
    sample_setup_finish(&setup);
    sample_batch_destroy(batch);
}

/* One row, one list of at most two steps, seed and index 0. */
static struct sample_result draw_once(const float *logits, uint32_t count, const struct step *steps,
                                      uint32_t step_count, uint32_t top_count)
{
    static const struct sample_history nothing;
    struct step_list list = {.count = step_count};
    struct sample_setup setup;
    struct sample_result result;

    memcpy(list.steps, steps, step_count * sizeof *steps);
    const struct plan_sample sample = {.steps = &list, .top_count = top_count};
    sample_setup_init(&setup, count, NULL, 1);
    sample_setup_run(&setup, logits, 1, &sample, 1, &nothing, &result);
    sample_setup_finish(&setup);
    return result;
}

static void test_a_row_that_holds_a_nan_or_infinity_is_flagged(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY};
    const struct step none = {0};

    for (uint32_t b = 0; b < 2; b++) {
        for (uint32_t at = 0; at < 37; at++) {
            float z[37] = {0};
            z[at] = bad[b];
            const struct sample_result result = draw_once(z, 37, &none, 0, 4);
            assert_int_equal(result.flags, SAMPLE_FLAG_NAN);
            assert_int_equal(result.top_count, 0);
        }
    }
}

static void test_a_row_with_nothing_left_is_flagged_and_appends_nothing(void **state)
{
    (void)state;
    const float z[2] = {1, 2};
    const float removed[2] = {-INFINITY, -INFINITY};
    const struct step_bias biases[] = {{0, -INFINITY}, {1, -INFINITY}};
    const struct step steps[] = {{.type = STEP_BIAS, .list_count = 2, .biases = biases},
                                 {.type = STEP_TOP_P, .values = {0.5f}}};
    static const struct sample_history nothing;
    struct step_list list = {.count = 2, .steps = {steps[0], steps[1]}};
    const struct plan_sample sample = {.steps = &list};
    struct sample_setup setup;
    struct sample_result result;

    assert_int_equal(draw_once(removed, 2, steps, 0, 0).flags, SAMPLE_FLAG_NAN);
    sample_setup_init(&setup, 2, NULL, 1);
    sample_setup_run(&setup, z, 1, &sample, 1, &nothing, &result);
    assert_int_equal(result.flags, SAMPLE_FLAG_NAN);
    assert_int_equal(setup.backend->histories[0].count, 0);
    list.count = 0;
    sample_setup_run(&setup, z, 1, &sample, 1, &nothing, &result);
    assert_int_equal(result.flags, 0);
    assert_int_equal(setup.backend->histories[0].count, 1);
    assert_int_equal(setup.backend->histories[0].ids[0], result.token);
    assert_int_equal(setup.backend->histories[0].last, result.token);
    sample_setup_finish(&setup);
}

static void test_temperature_zero_takes_the_smallest_id_of_the_largest(void **state)
{
    (void)state;
    const float z[5] = {1, 3, 2, 3, -1};
    const float zeros[4] = {-1, -0.0f, 0.0f, -2};
    const struct step greedy = {.type = STEP_TEMPERATURE};
    const struct step tiny = {.type = STEP_TEMPERATURE, .values = {1e-44f}};

    struct sample_result result = draw_once(z, 5, &greedy, 1, 5);
    assert_int_equal(result.token, 1);
    assert_int_equal(steps_bits_from_float(result.logprob_sampler), 0);
    assert_int_equal(result.top_count, 5);
    assert_int_equal(result.top[0].token, 1);
    assert_int_equal(result.top[1].token, 3);
    assert_int_equal(result.top[2].token, 2);
    assert_int_equal(result.top[4].token, 4);
    assert_true(result.top[0].logprob == result.logprob);
    assert_int_equal(draw_once(zeros, 4, &greedy, 1, 0).token, 1);
    assert_int_equal(draw_once(z, 5, &tiny, 1, 0).token, 1);
}

static void test_numbers_agree_with_double_precision(void **state)
{
    (void)state;
    enum { COUNT = 1000 };
    static float z[COUNT];
    uint64_t seed = 17;
    const struct step none = {0};

    for (int round = 0; round < 20; round++) {
        double sum = 0, entropy = 0;
        for (uint32_t i = 0; i < COUNT; i++) {
            z[i] = sample_batch_between(&seed, -10, 10);
            sum += exp((double)z[i]);
        }
        for (uint32_t i = 0; i < COUNT; i++) {
            const double p = exp((double)z[i]) / sum;
            entropy -= p * log(p);
        }
        const struct sample_result result = draw_once(z, COUNT, &none, 0, 32);
        assert_true(fabs((double)result.entropy - entropy) < 1e-5);
        assert_true(fabs((double)result.logprob - ((double)z[result.token] - log(sum))) < 2e-6);
        for (uint32_t i = 1; i < 32; i++) {
            assert_true(result.top[i].logprob <= result.top[i - 1].logprob);
        }
    }
}

static void test_frequencies_over_seeds_are_the_probabilities(void **state)
{
    (void)state;
    enum { COUNT = 6, DRAWS = 64 * 300 };
    const float z[COUNT] = {0, 1, 2, -1, 0.5f, -3};
    static const struct sample_history nothing[SETUP_ITEM_COUNT_MAX];
    const struct step_list none = {0};
    struct sample_setup setup;
    double sum = 0, chi = 0;
    uint32_t hits[COUNT] = {0};

    sample_setup_init(&setup, COUNT, NULL, 2);
    for (uint32_t round = 0; round < DRAWS / 64; round++) {
        struct plan_sample samples[64];
        struct sample_result results[64];
        for (uint32_t i = 0; i < 64; i++) {
            samples[i] = (struct plan_sample){
                .slot = i, .steps = &none, .seed = round * 64 + i, .index = round};
        }
        sample_setup_run(&setup, z, 1, samples, 64, nothing, results);
        for (uint32_t i = 0; i < 64; i++) {
            hits[results[i].token]++;
        }
    }
    sample_setup_finish(&setup);
    for (uint32_t i = 0; i < COUNT; i++) {
        sum += exp((double)z[i]);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        const double want = DRAWS * exp((double)z[i]) / sum;
        chi += (hits[i] - want) * (hits[i] - want) / want;
    }
    print_message("chi square over 5 degrees: %.2f\n", chi);
    assert_true(chi < 20.5); /* 1 in 1,000 */
}

static void test_a_full_history_takes_no_more_ids(void **state)
{
    (void)state;
    const float z[2] = {1, 2};
    static struct sample_history full = {.count = SETUP_HISTORY_MAX};
    const struct step_list none = {0};
    const struct plan_sample sample = {.steps = &none};
    struct sample_setup setup;
    struct sample_result result;

    sample_setup_init(&setup, 2, NULL, 1);
    sample_setup_run(&setup, z, 1, &sample, 1, &full, &result);
    assert_int_equal(setup.backend->histories[0].count, SETUP_HISTORY_MAX);
    assert_int_equal(setup.backend->histories[0].last, result.token);
    sample_setup_finish(&setup);
}

/* ---- twins ---- */

static void test_twin_a_draw_keyed_by_its_row_is_caught(void **state)
{
    (void)state;
    struct sample_batch *batch = sample_batch_create(1000, 7);
    uint32_t different = 0;

    for (uint32_t i = 1; i < SAMPLE_BATCH_ITEMS; i++) {
        struct plan_sample sample = batch->samples[i];
        struct sample_result keyed;
        sample.seed += i;
        sample_setup_plain(batch->logits + (size_t)i * 1000, 1000, &sample, &batch->histories[i],
                           &keyed);
        different += memcmp(&keyed, &batch->want[i], sizeof keyed) != 0;
    }
    assert_true(different > SAMPLE_BATCH_ITEMS / 4);
    sample_batch_destroy(batch);
}

static void test_twin_one_logit_moved_by_one_unit_is_caught(void **state)
{
    (void)state;
    float z[100];
    const struct step none = {0};

    for (uint32_t i = 0; i < 100; i++) {
        z[i] = (float)(i % 10);
    }
    const struct sample_result before = draw_once(z, 100, &none, 0, 3);
    z[99] = nextafterf(z[99], 100);
    const struct sample_result after = draw_once(z, 100, &none, 0, 3);
    assert_memory_not_equal(&before, &after, sizeof before);
}

static void test_twin_top_k_without_ties_is_caught(void **state)
{
    (void)state;
    const float tied[4] = {2, 2, 2, 2};
    const float untied[4] = {2, 2, -INFINITY, -INFINITY};
    const struct step top_k = {.type = STEP_TOP_K, .count = 2};

    const struct sample_result all = draw_once(tied, 4, &top_k, 1, 0);
    const struct sample_result two = draw_once(untied, 4, &top_k, 1, 0);
    assert_true(fabs((double)all.logprob_sampler + log(4)) < 1e-6);
    assert_true(all.logprob_sampler != two.logprob_sampler);
}

static void test_every_failed_allocation_of_the_recorder_is_an_error(void **state)
{
    (void)state;

    for (int64_t survivors = 0;; survivors++) {
        struct sample_setup setup;
        struct backend_program *program = NULL;
        sample_setup_init(&setup, 100, NULL, 1);
        const struct sample_args args = {.logits = setup.logits};
        cpu_sample_destroy(setup.backend->sample);
        setup.backend->sample = NULL;
        assert_int_equal(backend_cpu_ops.program_create(setup.backend, 1, NULL, &program),
                         STATUS_OK);
        memory_fault_set(survivors);
        const enum status status = backend_cpu_ops.op.sample(program, &args, NULL);
        memory_fault_set(-1);
        sample_setup_finish(&setup);
        if (status == STATUS_OK) {
            assert_true(survivors >= 10);
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws_equal_the_plain_sampler_bit_for_bit),
        cmocka_unit_test(test_all_builds_give_the_same_bits),
        cmocka_unit_test(test_vector_exp_equals_the_scalar_one),
        cmocka_unit_test(test_an_item_has_the_same_bits_alone_and_in_any_row),
        cmocka_unit_test(test_a_row_that_holds_a_nan_or_infinity_is_flagged),
        cmocka_unit_test(test_a_row_with_nothing_left_is_flagged_and_appends_nothing),
        cmocka_unit_test(test_temperature_zero_takes_the_smallest_id_of_the_largest),
        cmocka_unit_test(test_numbers_agree_with_double_precision),
        cmocka_unit_test(test_frequencies_over_seeds_are_the_probabilities),
        cmocka_unit_test(test_a_full_history_takes_no_more_ids),
        cmocka_unit_test(test_twin_a_draw_keyed_by_its_row_is_caught),
        cmocka_unit_test(test_twin_one_logit_moved_by_one_unit_is_caught),
        cmocka_unit_test(test_twin_top_k_without_ties_is_caught),
        cmocka_unit_test(test_every_failed_allocation_of_the_recorder_is_an_error),
    };
    return cmocka_run_group_tests_name("kernels/sample", tests, NULL, NULL);
}
