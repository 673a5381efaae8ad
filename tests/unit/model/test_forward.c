/* Goal: whole models of every weight type and shape give the right logits, and the same bits
 * whatever shares a step, however the past was cut into chunks, on whatever pages it lies, with any
 * number of threads and any instruction set.
 *
 * Method: tiny random models. Right: against a forward pass in double (support/reference_forward.h)
 * that rounds activations, K and V where the backend says it does; what is left is the rounding of
 * fp32 sums and the few integers that it tips over. Same bits: memcmp of the last row's logits.
 * Each property has a twin that breaks it on purpose and must be caught. */
#include <assert.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "support/isa_names.h"
#include "support/model_rig.h"
#include "support/reference_forward.h"
#include "support/tiny_model.h"

enum {
    VOCABULARY_MAX = 1024,
    TEXT_COUNT = 140, /* more than two chunks of attention */
    ERROR_TEXT_COUNT = 8,
    CLOSE_COUNT_MIN = 3,
    STRANGER_COUNT = 63,
    PAGES_EACH = 10,
    PAGE_COUNT = (STRANGER_COUNT + 2) * PAGES_EACH,
};

static const uint32_t dtypes[] = {
#define X(name, number, elements, bytes) DTYPE_##name,
    DTYPE_MAP(X)
#undef X
};

enum { DTYPE_COUNT = sizeof(dtypes) / sizeof(dtypes[0]) };

static void text_make(uint32_t seed, uint32_t count, uint32_t vocabulary_count, uint32_t *ids)
{
    uint32_t state = seed * 2654435761u + 1;

    for (uint32_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (state >> 8) % vocabulary_count;
    }
}

static void pages_make(uint32_t first, uint32_t *pages)
{
    for (uint32_t i = 0; i < PAGES_EACH; i++) {
        pages[i] = first + i;
    }
}

/* One model and how it is run. */
struct trial {
    struct bytes file; /* owned */
    struct rig rig;
};

static void trial_open(struct trial *trial, const struct tiny_spec *spec, uint32_t thread_count,
                       const char *isa, const struct backend_ops *ops)
{
    const struct rig_settings settings = {
        .thread_count = thread_count,
        .row_count_max = 256,
        .sample_count_max = 4,
        .position_max = PAGES_EACH * KV_PAGE_TOKEN_COUNT - 1,
        .page_count = PAGE_COUNT,
        .isa = isa,
        .ops = ops,
    };

    trial->file = tiny_model_create(spec);
    rig_open(&trial->rig, rig_model_of(trial->file), &settings);
}

static void trial_close(struct trial *trial)
{
    rig_close(&trial->rig);
    memory_free((void *)(uintptr_t)trial->file.data);
}

/* ---- right ---- */

/* The largest error of a logit, as a share of the logits' standard deviation. */
static double text_error(struct rig *rig, struct reference *reference, uint32_t seed)
{
    const uint32_t vocabulary = model_config(rig->model)->vocabulary_count;
    const uint32_t count = 1 + 2 * seed;
    uint32_t ids[TEXT_COUNT];
    uint32_t pages[PAGES_EACH];
    float got[VOCABULARY_MAX];
    double wanted[VOCABULARY_MAX];
    double largest = 0;
    double squares = 0;

    text_make(seed, count, vocabulary, ids);
    pages_make(3, pages);
    rig_feed(rig, pages, 0, ids, count, count, got);
    reference_logits(reference, ids, count, wanted);
    for (uint32_t i = 0; i < vocabulary; i++) {
        largest = fmax(largest, fabs((double)got[i] - wanted[i]));
        squares += wanted[i] * wanted[i];
    }
    return largest / sqrt(squares / vocabulary);
}

/* Where no integer is tipped over, what is left is the rounding of fp32: below a thousandth. One
 * that is tipped shifts everything behind it by up to what rounding to int8 costs as a whole. */
static bool spec_is_right(const struct tiny_spec *spec, const struct backend_ops *ops)
{
    struct trial trial;
    uint32_t close_count = 0;
    uint32_t far_count = 0;

    trial_open(&trial, spec, 1, NULL, ops);
    struct reference *reference = reference_create(trial.rig.model, true);
    for (uint32_t seed = 0; seed < ERROR_TEXT_COUNT; seed++) {
        const double error = text_error(&trial.rig, reference, seed);
        close_count += error < 1e-3 ? 1 : 0;
        far_count += error < 0.2 ? 0 : 1;
    }
    reference_destroy(reference);
    trial_close(&trial);
    print_message("%-5s %u of %d texts closely right\n", dtype_name(spec->dtype), close_count,
                  ERROR_TEXT_COUNT);
    return far_count == 0 && close_count >= CLOSE_COUNT_MIN;
}

static void every_weight_type_gives_the_right_logits(void **state)
{
    (void)state;
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        const struct tiny_spec spec = tiny_spec_of(dtypes[i], VOCABULARY_BPE, 11);
        assert_true(spec_is_right(&spec, NULL));
    }
}

static void odd_shapes_ties_biases_and_factors_are_right(void **state)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_SPM, 5);

    (void)state;
    spec.width = 96;
    spec.hidden = 160;
    spec.head_count = 6;
    spec.kv_head_count = 2;
    spec.head_size = 32;
    spec.vocabulary_count = 509;
    spec.layer_count = 3;
    assert_true(spec_is_right(&spec, NULL));
    spec.tied = true;
    assert_true(spec_is_right(&spec, NULL));
    spec.biases = true;
    assert_true(spec_is_right(&spec, NULL));
    spec.rope_factors = true;
    assert_true(spec_is_right(&spec, NULL));
}

/* Twin: rotations that are one in a hundred too fast. */
static enum status hasty_attn_in(struct backend_program *program, const struct attn_in_args *args,
                                 struct error *error)
{
    static double frequencies[BACKEND_HEAD_SIZE_MAX / 2];
    struct attn_in_args hasty = *args;

    for (uint32_t i = 0; i < args->rope_pair_count; i++) {
        frequencies[i] = args->inverse_frequency[i] * 1.01;
    }
    hasty.inverse_frequency = frequencies;
    return backend_cpu_ops.op.attn_in(program, &hasty, error);
}

static void a_rotation_one_percent_too_fast_is_caught(void **state)
{
    const struct tiny_spec spec = tiny_spec_of(DTYPE_Q8_0, VOCABULARY_BPE, 11);
    struct backend_ops hasty = backend_cpu_ops;

    (void)state;
    hasty.op.attn_in = hasty_attn_in;
    assert_false(spec_is_right(&spec, &hasty));
}

/* ---- same bits ---- */

struct bits {
    float logits[VOCABULARY_MAX];
    uint32_t size_bytes;
};

static bool bits_equal(const struct bits *a, const struct bits *b)
{
    return a->size_bytes == b->size_bytes && memcmp(a->logits, b->logits, a->size_bytes) == 0;
}

/* The text alone, in chunks, on pages that are in no order. */
static struct bits bits_alone(struct rig *rig, uint32_t page_first, uint32_t chunk)
{
    const uint32_t vocabulary = model_config(rig->model)->vocabulary_count;
    struct bits bits = {.size_bytes = vocabulary * (uint32_t)sizeof(float)};
    uint32_t ids[TEXT_COUNT];
    uint32_t pages[PAGES_EACH];

    text_make(1, TEXT_COUNT, vocabulary, ids);
    pages_make(page_first, pages);
    pages[1] = page_first + 4;
    pages[4] = page_first + 1;
    rig_feed(rig, pages, 0, ids, TEXT_COUNT, chunk, bits.logits);
    return bits;
}

/* The same among strangers: each step holds a row of every one of them too. */
static struct bits bits_among_strangers(struct rig *rig)
{
    const uint32_t vocabulary = model_config(rig->model)->vocabulary_count;
    const struct plan_sample greedy = rig_greedy();
    struct bits bits = {.size_bytes = vocabulary * (uint32_t)sizeof(float)};
    uint32_t ids[TEXT_COUNT];
    uint32_t strange[TEXT_COUNT];
    uint32_t pages[PAGES_EACH];

    text_make(1, TEXT_COUNT, vocabulary, ids);
    for (uint32_t at = 0; at < TEXT_COUNT; at += 7) {
        const uint32_t last = at + 7 == TEXT_COUNT;
        simple_plan_begin(rig->plan);
        for (uint32_t i = 0; i < STRANGER_COUNT; i++) {
            text_make(100 + i, TEXT_COUNT, vocabulary, strange);
            pages_make((i + 1) * PAGES_EACH, pages);
            (void)simple_plan_add(rig->plan, pages, at / 7, strange + at / 7, 1);
            if (i == STRANGER_COUNT / 2) {
                pages_make(0, pages);
                const uint32_t row = simple_plan_add(rig->plan, pages, at, ids + at, 7);
                if (last) {
                    (void)simple_plan_sample(rig->plan, row + 6, &greedy);
                }
            }
        }
        (void)rig_run(rig);
    }
    assert_int_equal(forward_logits_read(rig->forward, 0, bits.logits), STATUS_OK);
    return bits;
}

static void bits_do_not_depend_on_chunks_pages_or_strangers(void **state)
{
    static const uint32_t chunks[] = {7, 64, TEXT_COUNT};
    static_assert(TEXT_COUNT % 7 == 0, "strangers come in steps of 7");

    (void)state;
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        const struct tiny_spec spec = tiny_spec_of(dtypes[i], VOCABULARY_BPE, 21);
        struct trial trial;
        trial_open(&trial, &spec, 2, NULL, NULL);
        const struct bits decoded = bits_alone(&trial.rig, 20, 1);
        for (size_t j = 0; j < sizeof(chunks) / sizeof(chunks[0]); j++) {
            const struct bits prefilled = bits_alone(&trial.rig, 50 + 10 * (uint32_t)j, chunks[j]);
            assert_true(bits_equal(&decoded, &prefilled));
        }
        const struct bits among = bits_among_strangers(&trial.rig);
        assert_true(bits_equal(&decoded, &among));
        trial_close(&trial);
    }
}

static void bits_do_not_depend_on_threads_or_instructions(void **state)
{
    (void)state;
    for (size_t i = 0; i < DTYPE_COUNT; i++) {
        const struct tiny_spec spec = tiny_spec_of(dtypes[i], VOCABULARY_SPM, 31);
        struct bits first = {0};
        struct trial trial;
        for (uint32_t j = 0; j < ISA_NAME_COUNT; j++) {
            struct error error = {0};
            struct backend *probe = NULL;
            const struct backend_settings settings = {.row_count_max = 1,
                                                      .sample_count_max = 1,
                                                      .slot_count = 1,
                                                      .history_tokens_max = 1,
                                                      .vocabulary_count = 1,
                                                      .partial_count_max = 1,
                                                      .thread_count = 1,
                                                      .isa = isa_names[j]};
            if (backend_cpu_ops.create(&settings, &error, &probe) != STATUS_OK) {
                print_message("%s: %s\n", isa_names[j], error.text);
                continue;
            }
            backend_cpu_ops.destroy(probe);
            trial_open(&trial, &spec, j + 1, isa_names[j], NULL);
            const struct bits bits = bits_alone(&trial.rig, 0, 33);
            if (first.size_bytes == 0) {
                first = bits;
            }
            assert_true(bits_equal(&first, &bits));
            trial_close(&trial);
        }
    }
}

/* ---- twins that must be caught ---- */

/* A page table in which two stretches of the text share a page. */
static void a_page_used_twice_is_caught(void **state)
{
    const struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 21);
    uint32_t ids[TEXT_COUNT];
    uint32_t pages[PAGES_EACH];
    struct trial trial;
    struct bits wrong;

    (void)state;
    trial_open(&trial, &spec, 2, NULL, NULL);
    const struct bits right = bits_alone(&trial.rig, 20, 7);
    wrong = right;
    text_make(1, TEXT_COUNT, spec.vocabulary_count, ids);
    pages_make(40, pages);
    pages[5] = pages[2];
    rig_feed(&trial.rig, pages, 0, ids, TEXT_COUNT, 7, wrong.logits);
    assert_false(bits_equal(&right, &wrong));
    trial_close(&trial);
}

/* A stranger that works on its own pages changes nothing; one whose step writes into a page of
 * ours, as a scheduler that reuses pages too early would have it, is noticed. */
static void a_stranger_on_our_page_is_caught(void **state)
{
    const struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 21);
    const struct plan_sample greedy = rig_greedy();
    uint32_t ids[TEXT_COUNT];
    uint32_t pages[PAGES_EACH];
    struct trial trial;

    (void)state;
    trial_open(&trial, &spec, 2, NULL, NULL);
    struct bits right = bits_alone(&trial.rig, 20, TEXT_COUNT);
    struct bits wrong = right;
    text_make(1, TEXT_COUNT, spec.vocabulary_count, ids);
    pages_make(40, pages);
    rig_feed(&trial.rig, pages, 0, ids, TEXT_COUNT - 1, TEXT_COUNT, wrong.logits);
    simple_plan_begin(trial.rig.plan);
    const uint32_t row =
        simple_plan_add(trial.rig.plan, pages, TEXT_COUNT - 1, ids + TEXT_COUNT - 1, 1);
    pages[0] = 60;
    (void)simple_plan_add(trial.rig.plan, pages, 0, ids + 1, 1);
    (void)simple_plan_sample(trial.rig.plan, row, &greedy);
    (void)rig_run(&trial.rig);
    assert_int_equal(forward_logits_read(trial.rig.forward, 0, wrong.logits), STATUS_OK);
    assert_true(bits_equal(&right, &wrong));

    simple_plan_begin(trial.rig.plan);
    pages[0] = 40;
    const uint32_t again =
        simple_plan_add(trial.rig.plan, pages, TEXT_COUNT - 1, ids + TEXT_COUNT - 1, 1);
    (void)simple_plan_add(trial.rig.plan, pages, 3, ids + 1, 1); /* writes into our page */
    (void)simple_plan_sample(trial.rig.plan, again, &greedy);
    (void)rig_run(&trial.rig);
    assert_int_equal(forward_logits_read(trial.rig.forward, 0, wrong.logits), STATUS_OK);
    assert_false(bits_equal(&right, &wrong));
    trial_close(&trial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_weight_type_gives_the_right_logits),
        cmocka_unit_test(odd_shapes_ties_biases_and_factors_are_right),
        cmocka_unit_test(a_rotation_one_percent_too_fast_is_caught),
        cmocka_unit_test(bits_do_not_depend_on_chunks_pages_or_strangers),
        cmocka_unit_test(bits_do_not_depend_on_threads_or_instructions),
        cmocka_unit_test(a_page_used_twice_is_caught),
        cmocka_unit_test(a_stranger_on_our_page_is_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
