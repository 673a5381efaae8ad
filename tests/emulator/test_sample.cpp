/* Goal: given equal logits, sampling on the card answers what the CPU backend answers, bit for bit,
 * under every schedule, and leaves the same histories behind.
 * Method: random rows and lists of steps go through both backends, several steps one after another
 * on the same slots so that penalties see what was drawn; results by memcmp. Rows that nothing can
 * be drawn from, ties, tiny vocabularies and masks by hand. Twins (a logit moved by a millionth, a
 * draw keyed by its place, a history that was not appended, a group that draws with replacement, a
 * sum without its barrier) must be caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "base/memory.h"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/sample.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/emulator_rig.h"

extern "C" const struct backend_ops backend_cuda_ops;

enum { ITEM_COUNT = 7, HISTORY_MAX = 48, LIST_MAX = 6, VOCABULARY_MAX = 1100 };

struct side {
    const struct backend_ops *ops;
    struct backend *backend;
    struct backend_buffer *logits;
    struct backend_program *program;
};

/* One drawn plan with all that it borrows. */
struct draw {
    float logits[ITEM_COUNT * VOCABULARY_MAX];
    struct step_list lists[ITEM_COUNT];
    uint32_t ids[ITEM_COUNT][STEP_COUNT_MAX][LIST_MAX];
    struct step_bias biases[ITEM_COUNT][LIST_MAX];
    uint32_t masks[ITEM_COUNT][(VOCABULARY_MAX + 31) / 32];
    uint32_t history_ids[ITEM_COUNT][HISTORY_MAX];
    struct plan_history histories[ITEM_COUNT];
    struct plan_sample samples[ITEM_COUNT];
    uint32_t logits_rows[ITEM_COUNT];
};

static struct draw drawn; /* too large for a stack */

static void side_open(struct side *side, const struct backend_ops *ops, uint32_t vocabulary_count)
{
    struct backend_settings settings = {};
    struct sample_args args = {};

    settings.thread_count = 1;
    settings.row_count_max = 4;
    settings.sample_count_max = ITEM_COUNT;
    settings.slot_count = ITEM_COUNT;
    settings.history_tokens_max = HISTORY_MAX;
    settings.vocabulary_count = vocabulary_count;
    settings.partial_count_max = 4;
    side->ops = ops;
    assert_int_equal(ops->create(&settings, NULL, &side->backend), STATUS_OK);
    assert_int_equal(ops->buffer_create(side->backend, (uint64_t)ITEM_COUNT * vocabulary_count,
                                        NULL, &side->logits),
                     STATUS_OK);
    assert_int_equal(ops->program_create(side->backend, 4, NULL, &side->program), STATUS_OK);
    args.logits = side->logits;
    assert_int_equal(ops->op.sample(side->program, &args, NULL), STATUS_OK);
    assert_int_equal(ops->program_finish(side->program, NULL), STATUS_OK);
}

static void side_close(struct side *side)
{
    side->ops->destroy(side->backend);
}

static void side_run(struct side *side, uint32_t vocabulary_count, const struct plan *plan,
                     struct sample_result *results)
{
    struct step_result answer;
    uint32_t ticket;

    assert_int_equal(side->ops->buffer_write(side->logits, drawn.logits,
                                             (uint64_t)plan->logits_row_count * vocabulary_count),
                     STATUS_OK);
    assert_int_equal(side->ops->step_submit(side->program, plan, &ticket), STATUS_OK);
    assert_int_equal(side->ops->step_wait(side->backend, ticket, &answer), STATUS_OK);
    memcpy(results, answer.samples, plan->sample_count * sizeof results[0]);
}

static uint32_t random_below(uint32_t count)
{
    return (random_bits() << 16 | random_bits()) % count;
}

/* Wide, narrow, with ties, with removed tokens, all equal, signed zeros. */
static void fill_row(float *z, uint32_t count)
{
    const uint32_t kind = random_below(6);

    for (uint32_t i = 0; i < count; i++) {
        const float value = random_value() + random_value() + random_value();
        const float of_kind[6] = {3 * value,
                                  12 * value,
                                  rintf(4 * value),
                                  random_below(3) == 0 ? -INFINITY : 5 * value,
                                  0.25f,
                                  random_below(2) == 0 ? -0.0f : 0.0f};
        z[i] = of_kind[kind];
    }
    if (count > 0 && z[0] == -INFINITY) {
        z[0] = 1;
    }
}

static void fill_step(uint32_t item, uint32_t at, uint32_t vocabulary_count)
{
    static const float shares[] = {0.0f, 0.3f, 0.8f, 0.95f, 1.0f};
    static const float heats[] = {0.0f, 0.5f, 0.7f, 1.0f, 1.6f};
    struct step *step = &drawn.lists[item].steps[at];
    uint32_t *ids = drawn.ids[item][at];

    memset(step, 0, sizeof *step);
    step->type = 1 + random_below(8);
    step->ids = ids;
    for (uint32_t i = 0; i < LIST_MAX; i++) {
        ids[i] = random_below(vocabulary_count + 1);
        drawn.biases[item][i].token = i * vocabulary_count / LIST_MAX + i;
        drawn.biases[item][i].value = i == 2 ? -INFINITY : 4 * random_value();
    }
    if (step->type == STEP_MIN_TOKENS || step->type == STEP_PENALTIES) {
        step->list_count = random_below(3);
        step->count = random_below(20);
        step->flags = random_below(2);
        step->values[0] = 1.3f;
        step->values[1] = 0.4f;
        step->values[2] = 0.2f;
    } else if (step->type == STEP_BIAS) {
        step->ids = NULL;
        step->biases = drawn.biases[item];
        step->list_count = vocabulary_count > 2 * LIST_MAX ? LIST_MAX : 1;
    } else if (step->type == STEP_TOP_K) {
        step->count = 1 + random_below(random_below(2) == 0 ? 5 : 200);
    } else if (step->type == STEP_TEMPERATURE) {
        step->values[0] = heats[random_below(5)];
    } else {
        step->values[0] = shares[random_below(5)];
    }
}

/* The first token of sibling number `index` of a group. */
static void add_distinct(uint32_t item, uint32_t index)
{
    struct step_list *list = &drawn.lists[item];
    uint32_t *group_seed = drawn.ids[item][list->count];
    struct step *step = &list->steps[list->count++];

    memset(step, 0, sizeof *step);
    step->type = STEP_DISTINCT;
    step->count = index;
    step->list_count = 2;
    step->ids = group_seed;
    group_seed[0] = random_bits() << 16 | random_bits();
    group_seed[1] = random_bits() << 16 | random_bits();
}

static void fill_item(uint32_t i, uint32_t vocabulary_count)
{
    struct plan_sample *sample = &drawn.samples[i];
    struct plan_history *history = &drawn.histories[i];

    drawn.logits_rows[i] = 0;
    drawn.lists[i].count = random_below(6);
    for (uint32_t at = 0; at < drawn.lists[i].count; at++) {
        fill_step(i, at, vocabulary_count);
    }
    const bool is_distinct = random_below(2) == 0;
    if (is_distinct) {
        add_distinct(i, random_below(random_below(2) == 0 ? 9 : 70));
    }
    for (uint32_t word = 0; word < (VOCABULARY_MAX + 31) / 32; word++) {
        drawn.masks[i][word] = random_bits() << 16 | random_bits() | 1;
    }
    for (uint32_t id = 0; id < HISTORY_MAX; id++) {
        drawn.history_ids[i][id] = random_below(vocabulary_count);
    }
    memset(sample, 0, sizeof *sample);
    sample->logits_row = random_below(ITEM_COUNT);
    sample->slot = ITEM_COUNT - 1 - i;
    sample->steps = &drawn.lists[i];
    sample->mask = drawn.masks[i];
    sample->seed = (uint64_t)random_bits() << 40 | random_bits();
    sample->index = is_distinct && random_below(4) != 0 ? 0 : random_below(30);
    sample->top_count = random_below(2) == 0 ? 0 : random_below(40);
    if (random_below(3) == 0) {
        sample->flags = PLAN_SAMPLE_GIVEN;
        sample->given = random_below(4) == 0 ? PLAN_GIVEN_NONE : random_below(vocabulary_count);
        sample->history_count = random_below(HISTORY_MAX / 4);
        sample->steps = random_below(3) == 0 ? NULL : sample->steps;
    }
    memset(history, 0, sizeof *history);
    history->slot = i;
    history->reset = random_below(4) != 0;
    history->count = random_below(HISTORY_MAX / 4);
    history->prompt_count = random_below(history->count + 1);
    history->ids = drawn.history_ids[i];
}

/* Histories without a reset only where both sides have room: every other step, 12 ids at most. */
static struct plan fill_plan(uint32_t vocabulary_count, bool first)
{
    struct plan plan = {};

    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        fill_row(drawn.logits + (size_t)i * vocabulary_count, vocabulary_count);
        fill_item(i, vocabulary_count);
        drawn.histories[i].reset |= first;
    }
    plan.logits_row_count = ITEM_COUNT;
    plan.logits_rows = drawn.logits_rows;
    plan.sample_count = ITEM_COUNT;
    plan.samples = drawn.samples;
    plan.history_count = first ? ITEM_COUNT : 2;
    plan.histories = drawn.histories;
    return plan;
}

static void sampling_gives_the_bits_of_the_cpu(void **state)
{
    static const uint32_t vocabularies[] = {1, 7, 32, 513, VOCABULARY_MAX};
    uint32_t drawn_count = 0;

    (void)state;
    for (uint32_t i = 0; i < 3 * sizeof vocabularies / sizeof vocabularies[0]; i++) {
        const uint32_t vocabulary_count = vocabularies[i / 3];
        struct sample_result expected[ITEM_COUNT], results[ITEM_COUNT];
        struct side cpu, cuda;

        configure(i);
        side_open(&cpu, &backend_cpu_ops, vocabulary_count);
        side_open(&cuda, &backend_cuda_ops, vocabulary_count);
        for (uint32_t step = 0; step < 3; step++) {
            const struct plan plan = fill_plan(vocabulary_count, step == 0);
            side_run(&cpu, vocabulary_count, &plan, expected);
            side_run(&cuda, vocabulary_count, &plan, results);
            for (uint32_t item = 0; item < ITEM_COUNT; item++) {
                drawn_count += expected[item].flags == 0;
                assert_memory_equal(&results[item], &expected[item], sizeof results[item]);
            }
        }
        side_close(&cpu);
        side_close(&cuda);
    }
    assert_true(drawn_count > 200); /* most rows had something to draw */
}

static void rows_without_an_answer_are_flagged_and_append_nothing(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    struct sample_result expected[ITEM_COUNT], results[ITEM_COUNT];
    struct side cpu, cuda;

    (void)state;
    configure(1);
    side_open(&cpu, &backend_cpu_ops, 70);
    side_open(&cuda, &backend_cuda_ops, 70);
    for (uint32_t kind = 0; kind < 3; kind++) {
        struct plan plan = fill_plan(70, true);
        for (uint32_t i = 0; i < ITEM_COUNT * 70; i++) {
            drawn.logits[i] = kind == 2 || i % 70 == 69 ? bad[kind] : 1.0f;
        }
        side_run(&cpu, 70, &plan, expected);
        side_run(&cuda, 70, &plan, results);
        for (uint32_t i = 0; i < ITEM_COUNT; i++) {
            assert_int_equal(results[i].flags, SAMPLE_FLAG_NAN);
        }
        assert_memory_equal(results, expected, sizeof results);

        plan = fill_plan(70, false);
        plan.history_count = 0;
        side_run(&cpu, 70, &plan, expected);
        side_run(&cuda, 70, &plan, results);
        assert_memory_equal(results, expected, sizeof results);
    }
    side_close(&cpu);
    side_close(&cuda);
}

/* ---- twins ---- */

/* One plan that draws from wide rows with penalties over what it drew before, twice. */
static struct plan plain_plan(uint32_t vocabulary_count, bool first)
{
    struct plan plan = fill_plan(vocabulary_count, first);

    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        struct step *step = &drawn.lists[i].steps[0];
        drawn.lists[i].count = 1;
        memset(step, 0, sizeof *step);
        step->type = STEP_PENALTIES;
        step->values[0] = 1.0f;
        step->values[2] = 2.5f;
        drawn.samples[i].logits_row = i;
        drawn.samples[i].top_count = vocabulary_count;
    }
    for (uint32_t i = 0; i < ITEM_COUNT * vocabulary_count; i++) {
        drawn.logits[i] = random_value();
    }
    plan.history_count = first ? ITEM_COUNT : 0;
    return plan;
}

/* Items are siblings of one group over one row, the drawing starting over after as many as it has
 * ids. */
static struct plan group_plan(uint32_t vocabulary_count, bool first)
{
    struct plan plan = plain_plan(vocabulary_count, first);

    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        drawn.lists[i].count = 0;
        add_distinct(i, vocabulary_count + i);
        memcpy(drawn.ids[i][0], drawn.ids[0][0], 2 * sizeof drawn.ids[0][0][0]);
        drawn.samples[i].logits_row = 0;
        drawn.samples[i].index = 0;
        drawn.samples[i].flags = 0;
        drawn.samples[i].steps = &drawn.lists[i];
    }
    return plan;
}

static void siblings_of_a_group_draw_distinct_tokens(void **state)
{
    const uint32_t vocabulary_count = ITEM_COUNT;
    struct sample_result expected[ITEM_COUNT], results[ITEM_COUNT];
    struct side cpu, cuda;
    uint32_t seen = 0;

    (void)state;
    configure(4);
    side_open(&cpu, &backend_cpu_ops, vocabulary_count);
    side_open(&cuda, &backend_cuda_ops, vocabulary_count);
    const struct plan plan = group_plan(vocabulary_count, true);
    side_run(&cpu, vocabulary_count, &plan, expected);
    side_run(&cuda, vocabulary_count, &plan, results);
    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        assert_memory_equal(&results[i], &expected[i], sizeof results[i]);
        seen |= 1u << results[i].token;
    }
    assert_int_equal(seen, (1u << ITEM_COUNT) - 1);
    side_close(&cpu);
    side_close(&cuda);
}

/* How many of the items differ when `spoil` has been at the card's copy of the second plan. */
static uint32_t count_differences(struct plan (*make)(uint32_t vocabulary_count, bool first),
                                  void (*spoil)(struct plan *plan))
{
    const uint32_t vocabulary_count = 9;
    struct sample_result expected[ITEM_COUNT], results[ITEM_COUNT];
    struct side cpu, cuda;
    uint32_t count = 0;

    configure(2);
    side_open(&cpu, &backend_cpu_ops, vocabulary_count);
    side_open(&cuda, &backend_cuda_ops, vocabulary_count);
    struct plan plan = make(vocabulary_count, true);
    side_run(&cpu, vocabulary_count, &plan, expected);
    side_run(&cuda, vocabulary_count, &plan, results);
    plan = make(vocabulary_count, false);
    side_run(&cpu, vocabulary_count, &plan, expected);
    spoil(&plan);
    side_run(&cuda, vocabulary_count, &plan, results);
    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        count += memcmp(&results[i], &expected[i], sizeof results[i]) != 0;
    }
    side_close(&cpu);
    side_close(&cuda);
    return count;
}

static void spoil_nothing(struct plan *plan)
{
    (void)plan;
}

static void spoil_logit(struct plan *plan)
{
    (void)plan;
    drawn.logits[4 * 9 + 3] += 1e-6f;
}

static void spoil_seed(struct plan *plan)
{
    (void)plan;
    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        drawn.samples[i].seed += i;
    }
}

static void spoil_group_seed(struct plan *plan)
{
    (void)plan;
    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        drawn.ids[i][0][1] ^= 1;
    }
}

/* Each sibling draws alone. */
static void spoil_replacement(struct plan *plan)
{
    (void)plan;
    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        drawn.lists[i].count = 0;
        drawn.samples[i].seed = drawn.samples[0].seed;
    }
}

static void spoil_history(struct plan *plan)
{
    for (uint32_t i = 0; i < ITEM_COUNT; i++) {
        drawn.histories[i].reset = 1;
        drawn.histories[i].count = 0;
        drawn.histories[i].prompt_count = 0;
    }
    plan->history_count = ITEM_COUNT;
}

static void twins_are_caught(void **state)
{
    (void)state;
    assert_int_equal(count_differences(plain_plan, spoil_nothing), 0);
    assert_int_equal(count_differences(plain_plan, spoil_logit), 1);
    assert_true(count_differences(plain_plan, spoil_seed) > 0);
    assert_true(count_differences(plain_plan, spoil_history) > 0);
    assert_int_equal(count_differences(group_plan, spoil_nothing), 0);
    assert_true(count_differences(group_plan, spoil_group_seed) > 0);
    assert_true(count_differences(group_plan, spoil_replacement) > 0);
}

/* The masses of a row; `barrier` false leaves out the one before the warps' sums are read. */
static KERNEL void row_sum_kernel(float *z, uint32_t count, bool barrier, uint64_t *out)
{
    SHARED(struct sample_shared, shared);
    const struct sample_row row = sample_row_of(z, count, shared);
    uint64_t sum = 0, all = 0;

    for (uint32_t i = row.begin + PRIM_THREAD % 32; i < row.end; i += 32) {
        sum += steps_mass(row.z[i], 0.0f);
    }
    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        sum += prim_shuffle_xor(sum, lanes);
    }
    if (PRIM_THREAD % 32 == 0) {
        shared->warp_sums[PRIM_THREAD / 32] = sum;
    }
    if (barrier) {
        prim_sync();
    }
    for (uint32_t warp = 0; warp < SAMPLE_WARPS; warp++) {
        all += shared->warp_sums[warp];
    }
    out[PRIM_THREAD] = all;
}

static bool sums_are_right(struct device *device, bool barrier)
{
    static float z[600];
    static uint64_t out[SAMPLE_THREADS];
    struct card card;
    uint64_t expected = 0;

    for (uint32_t i = 0; i < 600; i++) {
        z[i] = -4 + random_value();
        expected += steps_mass(z[i], 0.0f);
    }
    card_borrow(&card, device);
    assert_int_equal(device_launch<row_sum_kernel>(device, 1, 1, SAMPLE_THREADS,
                                                   (uint32_t)sizeof(struct sample_shared),
                                                   card_give(&card, z, 600), 600u, barrier,
                                                   card_give(&card, out, SAMPLE_THREADS)),
                     STATUS_OK);
    card_take(&card);
    card_finish(&card);
    for (uint32_t i = 0; i < SAMPLE_THREADS; i++) {
        if (out[i] != expected) {
            return false;
        }
    }
    return true;
}

static void a_missing_barrier_is_caught(void **state)
{
    const bool is_emulated = card_is_emulated("a sum without its barrier");
    struct device *device;

    (void)state;
    assert_int_equal(device_open(0, NULL, &device), STATUS_OK);
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        assert_true(sums_are_right(device, true));
        assert_true(!is_emulated || !sums_are_right(device, false));
    }
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampling_gives_the_bits_of_the_cpu),
        cmocka_unit_test(rows_without_an_answer_are_flagged_and_append_nothing),
        cmocka_unit_test(siblings_of_a_group_draw_distinct_tokens),
        cmocka_unit_test(twins_are_caught),
        cmocka_unit_test(a_missing_barrier_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
