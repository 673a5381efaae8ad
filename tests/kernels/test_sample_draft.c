/* Goal: drafts that are checked in one plan give the bits that the same tokens have when they are
 * drawn one after another, as far as they were guessed right; what follows a wrong guess is
 * dropped and leaves no trace in the slot's history.
 * Method: chains over random batches (all steps, penalties over a history that grows) drawn one by
 * one by the plain sampler; the same as drafts, right ones up to a place, on every instruction set
 * of this machine and on 1 and 3 threads, all by memcmp; then one more draw in the next plan.
 * Twins: steps that do not see the earlier drafts, and a rule that keeps what followed a wrong one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/sample_batch.h"

enum { CHAIN = 6, VOCABULARY = 300, BATCHES = 6 };

static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512bf16"};

struct chain {
    float logits[CHAIN + 1][VOCABULARY];
    struct plan_sample samples[CHAIN + 1]; /* the last one is drawn in the plan after */
    struct sample_history history;         /* before the first */
    struct sample_result want[CHAIN + 1];
    uint32_t right_count; /* drafts guessed right */
};

/* Draws one after another; a row of nothing ends the chain. grows: the history as it should be. */
static void chain_fill(struct chain *chain, const struct sample_batch *batch, uint32_t item,
                       bool grows)
{
    struct sample_history history = batch->histories[item];

    history.count = history.count < SETUP_HISTORY_MAX - CHAIN ? history.count : 40;
    history.prompt_count =
        history.prompt_count < history.count ? history.prompt_count : history.count;
    chain->history = history;
    for (uint32_t j = 0; j <= CHAIN; j++) {
        chain->samples[j] = batch->samples[item];
        chain->samples[j].slot = 0;
        chain->samples[j].logits_row = j < CHAIN ? j : 0;
        chain->samples[j].index += j;
        memcpy(chain->logits[j],
               batch->logits + (size_t)((item + j) % SAMPLE_BATCH_ITEMS) * VOCABULARY,
               sizeof chain->logits[j]);
    }
    for (uint32_t j = 0; j < CHAIN; j++) {
        sample_setup_plain(chain->logits[j], VOCABULARY, &chain->samples[j], &history,
                           &chain->want[j]);
        if (grows && chain->want[j].flags == 0) {
            history.ids[history.count++] = chain->want[j].token;
        }
    }
}

/* The chain's tokens as drafts, `right` of them; the draw after is the one behind those. */
static void chain_draft(struct chain *chain, uint32_t right)
{
    struct sample_history history = chain->history;
    uint32_t kept = 0;

    chain->right_count = 0;
    for (uint32_t j = 1; j < CHAIN; j++) {
        const uint32_t token = chain->want[j - 1].token;
        chain->samples[j].flags = PLAN_SAMPLE_DRAFT;
        chain->samples[j].given = j <= right ? token : (token + 1) % VOCABULARY;
        if (j <= right && j == chain->right_count + 1 && chain->want[j - 1].flags == 0) {
            chain->right_count++;
        }
    }
    for (; kept <= chain->right_count && chain->want[kept].flags == 0; kept++) {
        history.ids[history.count++] = chain->want[kept].token;
    }
    sample_setup_plain(chain->logits[CHAIN], VOCABULARY, &chain->samples[CHAIN], &history,
                       &chain->want[CHAIN]);
}

static void draw_after(struct sample_setup *setup, const struct chain *chain,
                       struct sample_result *got)
{
    static const uint32_t logits_row = 0;
    const struct plan plan = {.logits_row_count = 1,
                              .logits_rows = &logits_row,
                              .sample_count = 1,
                              .samples = &chain->samples[CHAIN]};
    struct step_result result;
    uint32_t ticket;

    assert_int_equal(backend_cpu_ops.buffer_write(setup->logits, chain->logits[CHAIN], VOCABULARY),
                     STATUS_OK);
    assert_int_equal(backend_cpu_ops.step_submit(setup->program, &plan, &ticket), STATUS_OK);
    assert_int_equal(backend_cpu_ops.step_wait(setup->backend, ticket, &result), STATUS_OK);
    *got = result.samples[0];
}

/* Answers how many results are not as the chain wants them. drops: by the rule. */
static uint32_t count_differences(struct sample_setup *setup, const struct chain *chain, bool drops)
{
    struct sample_result got[CHAIN + 1];
    uint32_t different = 0;

    sample_setup_run(setup, chain->logits[0], CHAIN, chain->samples, CHAIN, &chain->history, got);
    draw_after(setup, chain, &got[CHAIN]);
    for (uint32_t j = 0; j < CHAIN; j++) {
        if (j <= chain->right_count || !drops) {
            different += memcmp(&got[j], &chain->want[j], sizeof got[j]) != 0;
        } else {
            different += got[j].flags != SAMPLE_FLAG_DROPPED;
        }
    }
    return different + (memcmp(&got[CHAIN], &chain->want[CHAIN], sizeof got[CHAIN]) != 0);
}

static uint32_t run_batches(const char *isa, uint32_t thread_count, bool grows, bool drops)
{
    static struct chain chain;
    struct sample_setup setup;
    uint32_t different = 0;

    sample_setup_init(&setup, VOCABULARY, isa, thread_count);
    for (uint64_t seed = 1; seed <= BATCHES; seed++) {
        struct sample_batch *batch = sample_batch_create(VOCABULARY, 100 * seed);
        for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
            chain_fill(&chain, batch, i, grows);
            chain_draft(&chain, (i + (uint32_t)seed) % CHAIN);
            different += count_differences(&setup, &chain, drops);
        }
        sample_batch_destroy(batch);
    }
    sample_setup_finish(&setup);
    return different;
}

static void test_right_drafts_have_the_bits_of_one_after_another(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
        if (sample_setup_has(isas[i])) {
            assert_int_equal(run_batches(isas[i], 1, true, true), 0);
            assert_int_equal(run_batches(isas[i], 3, true, true), 0);
        } else {
            print_message("this machine has no %s\n", isas[i]);
        }
    }
}

static void test_a_history_without_drafts_and_a_rule_that_keeps_all_are_caught(void **state)
{
    (void)state;
    assert_true(run_batches(NULL, 1, false, true) > 0);
    assert_true(run_batches(NULL, 1, true, false) > BATCHES * SAMPLE_BATCH_ITEMS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_drafts_have_the_bits_of_one_after_another),
        cmocka_unit_test(test_a_history_without_drafts_and_a_rule_that_keeps_all_are_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
