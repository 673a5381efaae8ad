/* Goal: siblings draw their first tokens without replacement, as kernels/steps/steps.h says: with
 * the same bits from every instruction set, alone and in a batch; once all tokens are drawn it
 * starts over; later tokens are drawn as ever.
 * Method: random rows, lists of steps and histories with that step behind them, against the plain
 * second sampler, all numbers by memcmp. Twins (the next sibling's number, another group's seed)
 * must come out different.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/sample_batch.h"

enum { ALONE_TOKENS = 12, ALONE_DRAWS = 3 * ALONE_TOKENS };

static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512bf16"};

static uint32_t group_seeds[SAMPLE_BATCH_ITEMS][2];

/* The step is the last one: a batch's lists have room for it. */
static void add_distinct(struct step_list *list, uint32_t *group_seed, uint32_t index)
{
    list->steps[list->count] =
        (struct step){.type = STEP_DISTINCT, .count = index, .list_count = 2, .ids = group_seed};
    list->count++;
}

static struct sample_batch *make_batch(uint32_t vocabulary_count, uint64_t seed)
{
    struct sample_batch *batch = sample_batch_create(vocabulary_count, seed);

    for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
        struct plan_sample *sample = &batch->samples[i];

        if (batch->cases[i].list.count < STEP_COUNT_MAX) {
            group_seeds[i][0] = (uint32_t)sample_batch_random(&seed);
            group_seeds[i][1] = (uint32_t)sample_batch_random(&seed);
            add_distinct(&batch->cases[i].list, group_seeds[i],
                         (uint32_t)(sample_batch_random(&seed) % (i % 3 == 0 ? 200 : 6)));
            sample->index = i % 5 == 0 ? sample->index : 0;
        }
        sample_setup_plain(batch->logits + (size_t)sample->logits_row * vocabulary_count,
                           vocabulary_count, sample, &batch->histories[sample->slot],
                           &batch->want[i]);
    }
    return batch;
}

static void test_draws_equal_the_plain_sampler_bit_for_bit(void **state)
{
    static const uint32_t vocabularies[] = {1, 2, 3, 16, 17, 129, 300, 777, 2048};
    struct sample_result got[SAMPLE_BATCH_ITEMS];

    (void)state;
    for (uint32_t round = 0; round < 18; round++) {
        const uint32_t vocabulary_count = vocabularies[round % 9];
        struct sample_batch *batch = make_batch(vocabulary_count, round + 1);

        for (uint32_t isa = 0; isa < 3; isa++) {
            struct sample_setup setup;

            if (!sample_setup_has(isas[isa])) {
                print_message("skipped: this machine has no %s\n", isas[isa]);
                continue;
            }
            sample_setup_init(&setup, vocabulary_count, isas[isa], 1 + round % 3);
            sample_setup_run(&setup, batch->logits, SAMPLE_BATCH_ITEMS, batch->samples,
                             SAMPLE_BATCH_ITEMS, batch->histories, got);
            assert_memory_equal(got, batch->want, sizeof got);
            /* One by one: what else is drawn changes nothing. */
            for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i += 7) {
                sample_setup_run(&setup, batch->logits, SAMPLE_BATCH_ITEMS, &batch->samples[i], 1,
                                 batch->histories, got);
                assert_memory_equal(got, &batch->want[i], sizeof got[0]);
            }
            sample_setup_finish(&setup);
        }
        sample_batch_destroy(batch);
    }
}

/* Sibling number `index` of one row; where is said which tokens have any mass. */
static struct sample_result draw(struct sample_setup *setup, const float *logits, uint32_t index,
                                 uint32_t *group_seed)
{
    struct step_list list = {.count = 0};
    const struct sample_history history = {0};
    struct sample_result result;

    add_distinct(&list, group_seed, index);
    const struct plan_sample sample = {.steps = &list, .seed = 99};
    sample_setup_run(setup, logits, 1, &sample, 1, &history, &result);
    return result;
}

static void test_each_token_comes_once_before_any_comes_again(void **state)
{
    float logits[2 * ALONE_TOKENS];
    struct sample_setup setup;

    (void)state;
    for (uint32_t i = 0; i < 2 * ALONE_TOKENS; i++) {
        logits[i] = i % 2 == 0 ? -(float)i / 8 : -INFINITY; /* the odd ones have no mass */
    }
    sample_setup_init(&setup, 2 * ALONE_TOKENS, NULL, 1);
    for (uint32_t group = 0; group < 20; group++) {
        uint32_t group_seed[2] = {group, 7};
        uint32_t counts[2 * ALONE_TOKENS] = {0};

        for (uint32_t i = 0; i < ALONE_DRAWS; i++) {
            const uint32_t token = draw(&setup, logits, i, group_seed).token;

            assert_int_equal(token % 2, 0);
            assert_int_equal(counts[token], i / ALONE_TOKENS);
            counts[token]++;
        }
    }
    sample_setup_finish(&setup);
}

/* The last of a round is all that is left: it was drawn for certain, but for the mass's rounding.
 */
static void test_what_is_left_alone_is_certain(void **state)
{
    const float logits[] = {0.0f, -1.0f, -2.0f};
    uint32_t group_seed[2] = {5, 6};
    struct sample_setup setup;

    (void)state;
    sample_setup_init(&setup, 3, NULL, 1);
    assert_true(draw(&setup, logits, 0, group_seed).logprob_sampler < 0);
    assert_true(fabsf(draw(&setup, logits, 2, group_seed).logprob_sampler) < 1e-6f);
    assert_true(draw(&setup, logits, 3, group_seed).logprob_sampler < 0);
    sample_setup_finish(&setup);
}

static void test_twin_another_number_or_group_draws_otherwise(void **state)
{
    struct sample_batch *batch = make_batch(777, 3);
    struct sample_result got[SAMPLE_BATCH_ITEMS];
    struct sample_setup setup;

    (void)state;
    sample_setup_init(&setup, 777, NULL, 1);
    for (uint32_t twin = 0; twin < 2; twin++) {
        for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
            struct step_list *list = &batch->cases[i].list;

            group_seeds[i][0] ^= 1;
            list->steps[list->count - 1].count += twin;
        }
        sample_setup_run(&setup, batch->logits, SAMPLE_BATCH_ITEMS, batch->samples,
                         SAMPLE_BATCH_ITEMS, batch->histories, got);
        assert_true(memcmp(got, batch->want, sizeof got) != 0);
    }
    sample_setup_finish(&setup);
    sample_batch_destroy(batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws_equal_the_plain_sampler_bit_for_bit),
        cmocka_unit_test(test_each_token_comes_once_before_any_comes_again),
        cmocka_unit_test(test_what_is_left_alone_is_certain),
        cmocka_unit_test(test_twin_another_number_or_group_draws_otherwise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
