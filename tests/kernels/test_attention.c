/* Goal: attention is right, and a row's bits depend on its own past only: not on the rows around
 * it, shared or private pages, lists, threads, instruction set, or what a page held before.
 * Method: compare with double precision within a bound that is worked out below; then compare bits
 * with a row computed alone by scalar C over poisoned pages, for every instruction set, 1 to 3
 * threads and several ways of making items. Twins break the property (another fold order, one bit
 * of one key, a NaN that is seen) and must be caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"
#include "tests/support/attention_setup.h"
#include "tests/support/isa_names.h"

#define LOG2_E 1.4426950408889634

enum { WIDTH_MAX = 16 * 256, ROWS = 14 };

enum { SHAPES = 7 };

/* The same for each type. */
static const struct attention_shape shapes[2 * SHAPES] = {
    {9, 3, 64, KV_TYPE_F16},  {4, 4, 80, KV_TYPE_F16},   {6, 2, 96, KV_TYPE_F16},
    {2, 1, 128, KV_TYPE_F16}, {1, 1, 256, KV_TYPE_F16},  {16, 1, 8, KV_TYPE_F16},
    {10, 2, 40, KV_TYPE_F16}, {9, 3, 64, KV_TYPE_BF16},  {4, 4, 80, KV_TYPE_BF16},
    {6, 2, 96, KV_TYPE_BF16}, {2, 1, 128, KV_TYPE_BF16}, {1, 1, 256, KV_TYPE_BF16},
    {16, 1, 8, KV_TYPE_BF16}, {10, 2, 40, KV_TYPE_BF16},
};

static const struct attention_grouping alone = {.shared = false, .list_max = 1};

static const struct attention_grouping groupings[] = {
    {.shared = false, .list_max = 1},
    {.shared = true, .list_max = SETUP_ROW_COUNT_MAX},
    {.shared = true, .list_max = 3, .order_seed = 5},
    {.shared = true, .list_max = SETUP_ROW_COUNT_MAX, .order_seed = 9},
};

static struct attention_sequence sequence_of(uint32_t content, uint32_t length, uint32_t page_first,
                                             uint32_t page_step)
{
    struct attention_sequence sequence = {.content = content, .length = length};
    for (uint32_t i = 0; i <= (length - 1) / KV_PAGE_TOKEN_COUNT; i++) {
        sequence.pages[i] = (page_first + i * page_step) % SETUP_PAGE_COUNT;
    }
    return sequence;
}

/* Three sequences; a and b have the same first 544 positions, in shared pages. */
struct scene {
    struct attention_sequence a, b, c;
    struct attention_query queries[ROWS];
};

static void scene_init(struct scene *scene, struct attention_setup *setup)
{
    scene->a = sequence_of(1, 1100, 3, 2);
    scene->b = sequence_of(1, 700, 211, 2);
    memcpy(scene->b.pages, scene->a.pages, 34 * sizeof(uint32_t));
    scene->c = sequence_of(3, 90, 400, 1);
    const struct attention_query queries[ROWS] = {
        {&scene->a, 1099}, {&scene->b, 699}, {&scene->c, 0},   {&scene->a, 0},    {&scene->a, 15},
        {&scene->a, 16},   {&scene->a, 63},  {&scene->a, 64},  {&scene->c, 89},   {&scene->a, 511},
        {&scene->b, 512},  {&scene->a, 513}, {&scene->b, 600}, {&scene->a, 1023},
    };
    memcpy(scene->queries, queries, sizeof queries);
    attention_setup_write(setup, &scene->a, 0, scene->a.length);
    attention_setup_write(setup, &scene->b, 544, scene->b.length);
    attention_setup_write(setup, &scene->c, 0, scene->c.length);
}

/* Each row alone, by scalar C, on one thread. */
static void reference_rows(struct attention_shape shape, float *out)
{
    struct attention_setup setup;
    struct scene scene;

    attention_setup_init(&setup, shape, "scalar", 1, 0);
    scene_init(&scene, &setup);
    for (uint32_t i = 0; i < ROWS; i++) {
        attention_setup_run(&setup, &scene.queries[i], 1, alone,
                            out + (size_t)i * shape.head_count * shape.head_size);
    }
    attention_setup_finish(&setup);
}

/* ---- against double ---- */

struct double_head {
    double out[BACKEND_HEAD_SIZE_MAX];
    double bound[BACKEND_HEAD_SIZE_MAX];
};

static double kept(const struct attention_shape *shape, float value)
{
    return shape->kv_type == KV_TYPE_BF16 ? attention_bf16(value)
                                          : steps_float_from_half(steps_half_from_float(value));
}

/* A query's number as it is multiplied, times the scale; BF16: for powers of 2. */
static double asked(const struct attention_shape *shape, float value)
{
    return shape->kv_type == KV_TYPE_BF16 ? attention_bf16(value * (float)(0.125 * LOG2_E))
                                          : (double)value * 0.125;
}

/* With e = 2^-24: a score of D products is off by (D + 1) e sum|q k| scale at most, exp and exp2 by
 * 2 e to 4 e, a chunk's chain by 64 e, each of n folds by 6 e; numerator and denominator both carry
 * it. BF16 rounds the numerator's weights by another 2^-9 at most. */
static void double_head(const struct attention_shape *shape, const struct attention_query *query,
                        uint32_t head, struct double_head *result)
{
    static double weights[2048];
    float q[WIDTH_MAX], k[BACKEND_HEAD_SIZE_MAX], v[BACKEND_HEAD_SIZE_MAX];
    const uint32_t kv_head = head / (shape->head_count / shape->kv_head_count);
    const bool is_bf16 = shape->kv_type == KV_TYPE_BF16;
    double max = -INFINITY, sum = 0, score_error = 0;

    attention_setup_query(shape, query->sequence->content, query->position, q);
    for (uint32_t j = 0; j <= query->position; j++) {
        double dot = 0, magnitude = 0;
        attention_setup_values(shape, query->sequence->content, j, kv_head, k, v);
        for (uint32_t d = 0; d < shape->head_size; d++) {
            const double product = asked(shape, q[head * shape->head_size + d]) * kept(shape, k[d]);
            dot += product;
            magnitude += fabs(product);
        }
        weights[j] = dot;
        max = fmax(max, weights[j]);
        score_error = fmax(score_error, (shape->head_size + 1) * 0x1p-24 * magnitude);
    }
    memset(result, 0, sizeof *result);
    for (uint32_t j = 0; j <= query->position; j++) {
        weights[j] = is_bf16 ? exp2(weights[j] - max) : exp(weights[j] - max);
        sum += weights[j];
    }
    const uint32_t folds = query->position / ATTENTION_CHUNK_TOKENS + 2;
    const double relative =
        2 * (2 * score_error + (66 + (is_bf16 ? 6 : 4) * folds) * 0x1p-24) + (is_bf16 ? 0x1p-9 : 0);
    for (uint32_t j = 0; j <= query->position; j++) {
        attention_setup_values(shape, query->sequence->content, j, kv_head, k, v);
        for (uint32_t d = 0; d < shape->head_size; d++) {
            const double value = kept(shape, v[d]);
            result->out[d] += weights[j] / sum * value;
            result->bound[d] += weights[j] / sum * fabs(value) * relative;
        }
    }
}

static void test_output_is_within_the_derived_bound_of_double(void **state)
{
    (void)state;
    double worst = 0;

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const struct attention_shape *shape = &shapes[s];
        static float out[ROWS * WIDTH_MAX];
        struct attention_setup setup;
        struct scene scene;
        struct double_head want;

        attention_setup_init(&setup, *shape, NULL, 2, 1);
        scene_init(&scene, &setup);
        attention_setup_run(&setup, scene.queries, ROWS, groupings[1], out);
        for (uint32_t i = 0; i < ROWS; i++) {
            for (uint32_t head = 0; head < shape->head_count; head += 3) {
                const float *got = out + ((size_t)i * shape->head_count + head) * shape->head_size;
                double_head(shape, &scene.queries[i], head, &want);
                for (uint32_t d = 0; d < shape->head_size; d++) {
                    const double error = fabs(got[d] - want.out[d]);
                    assert_true(error <= want.bound[d]);
                    worst = fmax(worst, error / want.bound[d]);
                }
            }
        }
        attention_setup_finish(&setup);
    }
    print_message("largest error is %.3f of the bound\n", worst);
}

/* ---- bits ---- */

static void test_a_row_has_the_same_bits_alone_and_in_every_batch(void **state)
{
    (void)state;
    static float want[ROWS * WIDTH_MAX], got[ROWS * WIDTH_MAX];

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const uint32_t width = shapes[s].head_count * shapes[s].head_size;
        reference_rows(shapes[s], want);
        for (size_t isa = 0; isa < ISA_NAME_COUNT; isa++) {
            if (!attention_setup_has(isa_names[isa])) {
                print_message("skipped: this machine has no %s\n", isa_names[isa]);
                continue;
            }
            struct attention_setup setup;
            struct scene scene;
            attention_setup_init(&setup, shapes[s], isa_names[isa], 1 + (uint32_t)s % 3,
                                 (uint32_t)isa + 2);
            scene_init(&scene, &setup);
            for (size_t g = 0; g < sizeof groupings / sizeof *groupings; g++) {
                attention_setup_run(&setup, scene.queries, ROWS, groupings[g], got);
                assert_memory_equal(got, want, (size_t)ROWS * width * sizeof(float));
            }
            attention_setup_finish(&setup);
        }
    }
}

static uint64_t hash_of_shapes(const struct attention_shape *of, uint64_t hash)
{
    static float out[ROWS * WIDTH_MAX];

    for (size_t s = 0; s < SHAPES; s++) {
        const size_t count = (size_t)ROWS * of[s].head_count * of[s].head_size;
        reference_rows(of[s], out);
        for (size_t i = 0; i < count; i++) {
            hash = (hash ^ steps_bits_from_float(out[i])) * UINT64_C(0x100000001b3);
        }
    }
    return hash;
}

static void test_all_builds_give_the_same_bits(void **state)
{
    (void)state;
    const uint64_t halves = hash_of_shapes(shapes, UINT64_C(0xcbf29ce484222325));
    const uint64_t pairs = hash_of_shapes(shapes + SHAPES, UINT64_C(0xcbf29ce484222325));

    print_message("attention: hashes %016llx %016llx\n", (unsigned long long)halves,
                  (unsigned long long)pairs);
    /* Another value is another arithmetic: it raises the generation in the numerics id. */
    assert_true(halves == UINT64_C(0xe099e61718725861));
    assert_true(pairs == UINT64_C(0x6d48e2aae627ba2d));
}

static void test_threads_change_no_bit(void **state)
{
    (void)state;
    static float want[ROWS * WIDTH_MAX], got[ROWS * WIDTH_MAX];
    const uint32_t width = shapes[0].head_count * shapes[0].head_size;

    reference_rows(shapes[0], want);
    for (uint32_t thread_count = 1; thread_count <= 3; thread_count++) {
        struct attention_setup setup;
        struct scene scene;
        attention_setup_init(&setup, shapes[0], NULL, thread_count, 0);
        scene_init(&scene, &setup);
        for (int repeat = 0; repeat < 5; repeat++) {
            attention_setup_run(&setup, scene.queries, ROWS, groupings[repeat % 4], got);
            assert_memory_equal(got, want, (size_t)ROWS * width * sizeof(float));
        }
        attention_setup_finish(&setup);
    }
}

static void test_a_tall_prefill_equals_its_rows_alone(void **state)
{
    (void)state;
    enum { COUNT = 96 };
    static float got[COUNT * 9 * 64];

    for (size_t i = 0; i < 2 * ISA_NAME_COUNT; i++) {
        const char *isa = isa_names[i / 2];
        struct attention_setup setup;
        struct attention_query queries[COUNT];
        if (!attention_setup_has(isa)) {
            continue;
        }
        attention_setup_init(&setup, shapes[i % 2 * SHAPES], isa, 2, 0);
        const struct attention_sequence sequence = sequence_of(8, 560, 1, 1);
        attention_setup_write(&setup, &sequence, 0, sequence.length);
        for (uint32_t q = 0; q < COUNT; q++) {
            queries[q] = (struct attention_query){&sequence, 560 - COUNT + q};
        }
        attention_setup_run(&setup, queries, COUNT, groupings[1], got);
        for (uint32_t q = 0; q < COUNT; q += 5) {
            float want[9 * 64];
            attention_setup_run(&setup, &queries[q], 1, alone, want);
            assert_memory_equal(got + (size_t)q * 576, want, sizeof want);
        }
        attention_setup_finish(&setup);
    }
}

/* ---- twins ---- */

/* Attention of a test's own, over one block: chunks fold left, or right when the batch is large,
 * as a kernel would that picks its order by load. */
static void twin_attend(struct attention_setup *setup, const struct attention_query *query,
                        uint32_t batch_rows, float *out)
{
    static float k[64 * 64], v[64 * 64], scores[64 * ATTENTION_TILE_MAX];
    static float products[64 * ATTENTION_TILE_MAX];
    const bool is_paired = setup->shape.kv_type == KV_TYPE_BF16;
    const struct attention_kernels *kernels =
        is_paired ? &attention_pairs_scalar : &attention_kernels_scalar;
    struct attention_chunk chunk = {.k = k,
                                    .v = v,
                                    .scores = scores,
                                    .products = products,
                                    .head_size = 64,
                                    .stride = 64,
                                    .scale = 0.125f,
                                    .first = true,
                                    .is_paired = is_paired};
    const uint32_t chunk_count = query->position / ATTENTION_CHUNK_TOKENS + 1;
    float q[9 * 64], acc[64], max, sum;

    attention_setup_query(&setup->shape, query->sequence->content, query->position, q);
    if (is_paired) {
        kernels->query(q, (float)(0.125 * LOG2_E), 64, q);
    }
    for (uint32_t i = 0; i < chunk_count; i++) {
        const uint32_t index = batch_rows > 1 ? chunk_count - 1 - i : i;
        const uint32_t begin = index * ATTENTION_CHUNK_TOKENS;
        const uint32_t left = query->position + 1 - begin;
        const struct attention_column column = {
            .q = q, .acc = acc, .max = &max, .sum = &sum, .visible = left < 64 ? left : 64};
        for (uint32_t slot = 0; slot < column.visible; slot += KV_PAGE_TOKEN_COUNT) {
            const uint32_t page = query->sequence->pages[(begin + slot) / KV_PAGE_TOKEN_COUNT];
            const uint32_t some = column.visible - slot;
            kernels->load(&chunk, slot / KV_PAGE_TOKEN_COUNT, some < 16 ? some : 16,
                          cpu_kv_k(setup->kv, SETUP_LAYER, 0, page),
                          cpu_kv_v(setup->kv, SETUP_LAYER, 0, page));
        }
        kernels->tile(&chunk, &column, 1);
        chunk.first = false;
    }
    kernels->divide(acc, sum, out, 64);
}

static void test_twin_an_order_that_depends_on_the_batch_is_caught(void **state)
{
    (void)state;
    struct attention_setup setup;
    struct scene scene;
    float want[9 * 64], same[64], other[64];

    for (int type = 0; type < 2; type++) {
        attention_setup_init(&setup, shapes[type * SHAPES], NULL, 1, 0);
        scene_init(&scene, &setup);
        const struct attention_query *query = &scene.queries[9];
        attention_setup_run(&setup, query, 1, alone, want);
        twin_attend(&setup, query, 1, same);
        assert_memory_equal(same, want, sizeof same);
        twin_attend(&setup, query, ROWS, other);
        assert_memory_not_equal(other, want, sizeof other);
        attention_setup_finish(&setup);
    }
}

static void test_twin_one_bit_of_one_key_is_caught(void **state)
{
    (void)state;
    struct attention_setup setup;
    struct scene scene;
    float want[9 * 64], got[9 * 64];

    for (int type = 0; type < 2; type++) {
        attention_setup_init(&setup, shapes[type * SHAPES], NULL, 1, 0);
        scene_init(&scene, &setup);
        attention_setup_run(&setup, &scene.queries[8], 1, alone, want);
        cpu_kv_k(setup.kv, SETUP_LAYER, 0, scene.c.pages[2])[6 * KV_PAGE_TOKEN_COUNT + 3] ^= 1;
        attention_setup_run(&setup, &scene.queries[8], 1, alone, got);
        assert_memory_not_equal(got, want, sizeof want);
        attention_setup_finish(&setup);
    }
}

static void test_twin_a_nan_in_front_of_the_length_is_seen(void **state)
{
    (void)state;
    struct attention_setup setup;
    struct scene scene;
    float got[9 * 64];

    for (int type = 0; type < 2; type++) {
        attention_setup_init(&setup, shapes[type * SHAPES], NULL, 1, 0);
        scene_init(&scene, &setup);
        cpu_kv_v(setup.kv, SETUP_LAYER, 0, scene.a.pages[0])[0] = type == 0 ? 0x7e00 : 0x7fc0;
        attention_setup_run(&setup, &scene.queries[0], 1, alone, got);
        assert_true(isnan(got[0]));
        attention_setup_finish(&setup);
    }
}

/* The same sums with the even one of each pair first: what a kernel of pairs must not do. Products
 * of two BF16 are exact, so that only some sums tell. */
static void test_twin_the_other_order_of_a_pair_is_caught(void **state)
{
    (void)state;
    enum { POSITIONS = 64 };
    static float want[POSITIONS][9 * 64], got[9 * 64];
    struct attention_setup setup;
    struct scene scene;
    uint32_t differing = 0;

    attention_setup_init(&setup, shapes[SHAPES], NULL, 1, 0);
    scene_init(&scene, &setup);
    for (uint32_t i = 0; i < POSITIONS; i++) {
        const struct attention_query query = {&scene.c, i};

        attention_setup_run(&setup, &query, 1, alone, want[i]);
    }
    for (uint32_t page = 0; page <= (scene.c.length - 1) / KV_PAGE_TOKEN_COUNT; page++) {
        uint16_t *k = cpu_kv_k(setup.kv, SETUP_LAYER, 0, scene.c.pages[page]);

        for (uint32_t i = 0; i < 64 * KV_PAGE_TOKEN_COUNT; i += 2) {
            const uint16_t even = k[i];

            k[i] = k[i + 1];
            k[i + 1] = even;
        }
    }
    setup.swaps_pairs = true;
    for (uint32_t i = 0; i < POSITIONS; i++) {
        const struct attention_query query = {&scene.c, i};

        attention_setup_run(&setup, &query, 1, alone, got);
        for (uint32_t d = 0; d < 64; d++) {
            assert_true(fabsf(got[d] - want[i][d]) < 0.01f);
        }
        differing += memcmp(got, want[i], 64 * sizeof got[0]) != 0;
    }
    print_message("the other order gives other bits for %u of %d rows\n", differing, POSITIONS);
    assert_true(differing > 0);
    attention_setup_finish(&setup);
}

/* ---- refusals and memory ---- */

static void test_unsupported_shapes_are_refused_with_a_reason(void **state)
{
    (void)state;
    struct attention_setup setup;
    struct error error = {0};

    attention_setup_init(&setup, shapes[0], NULL, 1, 0);
    const struct attention_args good = {.q = setup.q,
                                        .out = setup.out,
                                        .kv = setup.kv,
                                        .head_count = 9,
                                        .kv_head_count = 3,
                                        .head_size = 64,
                                        .scale = 1};
    struct attention_args args = good;
    args.window = 512;
    assert_int_equal(backend_cpu_ops.op.attention(setup.program, &args, &error),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "sliding window"));
    args = good;
    args.head_size = 60;
    assert_int_equal(backend_cpu_ops.op.attention(setup.program, &args, &error),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "60"));
    args = good;
    args.head_count = 8;
    assert_int_equal(backend_cpu_ops.op.attention(setup.program, &args, &error),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "8 query heads"));
    attention_setup_finish(&setup);
}

static void test_every_failed_allocation_of_the_recorder_is_an_error(void **state)
{
    (void)state;

    for (int64_t survivors = 0;; survivors++) {
        struct attention_setup setup;
        struct backend_program *program = NULL;
        attention_setup_init(&setup, shapes[0], NULL, 1, 0);
        const struct attention_args args = {.q = setup.q,
                                            .out = setup.out,
                                            .kv = setup.kv,
                                            .head_count = 9,
                                            .kv_head_count = 3,
                                            .head_size = 64,
                                            .scale = 1};
        cpu_attention_destroy(setup.backend->attention);
        setup.backend->attention = NULL;
        assert_int_equal(backend_cpu_ops.program_create(setup.backend, 1, NULL, &program),
                         STATUS_OK);
        memory_fault_set(survivors);
        const enum status status = backend_cpu_ops.op.attention(program, &args, NULL);
        memory_fault_set(-1);
        attention_setup_finish(&setup);
        if (status == STATUS_OK) {
            assert_true(survivors >= 6);
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_is_within_the_derived_bound_of_double),
        cmocka_unit_test(test_a_row_has_the_same_bits_alone_and_in_every_batch),
        cmocka_unit_test(test_all_builds_give_the_same_bits),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_a_tall_prefill_equals_its_rows_alone),
        cmocka_unit_test(test_twin_an_order_that_depends_on_the_batch_is_caught),
        cmocka_unit_test(test_twin_one_bit_of_one_key_is_caught),
        cmocka_unit_test(test_twin_a_nan_in_front_of_the_length_is_seen),
        cmocka_unit_test(test_twin_the_other_order_of_a_pair_is_caught),
        cmocka_unit_test(test_unsupported_shapes_are_refused_with_a_reason),
        cmocka_unit_test(test_every_failed_allocation_of_the_recorder_is_an_error),
    };
    return cmocka_run_group_tests_name("kernels/attention", tests, NULL, NULL);
}
