/* Goal: attention on the card is right, and a row's bits depend on its own past only: not on the
 * rows around it, shared or private pages, lists, schedules, when copies land, or what a page held
 * before.
 * Method: compare with double precision within a bound that is worked out below; then compare bits
 * with each row computed alone, for several ways of making items, tiles of every height, three
 * schedules, copies landing early and late, and differently poisoned pages. Twins break it (one bit
 * of one key, blocks folded backwards, a NaN that is seen, a barrier or a wait too little, an order
 * that only tall tiles have) and must be caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"
#include "kernels/steps/math.h"
#include "tests/emulator/attention_rig.h"

/* The same kernels with one thing left out, chosen by `planted_bug`; on a card as they are. */
enum planted_bug { PLANTED_NONE, PLANTED_NO_BARRIER, PLANTED_LAX_WAIT, PLANTED_ORDER };
[[maybe_unused]] static enum planted_bug planted_bug;
static uint64_t copied_count;                     /* pieces of K and V that were read */
[[maybe_unused]] static uint32_t planted_barrier; /* which of a thread's barriers; counted from 0 */
static uint32_t planted_count[EMULATOR_BLOCK_THREADS_MAX];

#ifndef __CUDACC__

static void planted_sync(void)
{
    const uint32_t at = planted_count[PRIM_THREAD]++;
    if (planted_bug != PLANTED_NO_BARRIER || at != planted_barrier) {
        prim_sync();
    }
}

template <int pending> static void planted_copy_wait(void)
{
    emulator_copy_wait(planted_bug == PLANTED_LAX_WAIT ? pending + 1 : pending);
}

static void planted_copy16(void *shared, const void *global, bool valid)
{
    copied_count += valid;
    prim_copy16(shared, global, valid);
}

/* In tall tiles each step's sum on its own, added afterwards. */
static void planted_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    float apart[4] = {};

    if (planted_bug != PLANTED_ORDER || PRIM_THREADS == 128) {
        prim_mma_f16(c, a, b);
        return;
    }
    prim_mma_f16(apart, a, b);
    for (uint32_t i = 0; i < 4; i++) {
        c[i] += apart[i];
    }
}

#define prim_sync planted_sync
#define prim_copy_wait planted_copy_wait
#define prim_copy16 planted_copy16
#define prim_mma_f16 planted_mma_f16

#endif

namespace attention_planted
{
#include "kernels/cuda/attention.cuh"
#undef prim_sync
#undef prim_copy_wait
#undef prim_copy16
#undef prim_mma_f16
} // namespace attention_planted

using attention_planted::ATTENTION_WARP_COLUMNS;

enum { WIDTH_MAX = 16 * 256, LOW = 64, TALL = 128 };

static const struct rig_variation plain = {false, 1, false, 0, {EMULATOR_ASCENDING, 1, false, 90}};

static const struct rig_shape shapes[] = {
    {3, 1, 64},
    {4, 2, 80},
    {6, 2, 96},
    {2, 1, 128},
    {1, 1, 256},
    {16, 1, 64},
    {3, 1, 64, KV_TYPE_BF16},
    {2, 1, 80, KV_TYPE_FP8},
    {5, 1, 128, KV_TYPE_FP8},
    {16, 1, 256},
    {16, 1, 80, KV_TYPE_BF16},
    {16, 1, 256, KV_TYPE_FP8},
};

/* ---- against double ---- */

struct exact {
    double out[BACKEND_HEAD_SIZE_MAX], bound[BACKEND_HEAD_SIZE_MAX];
};

/* With u = 2^-23 and M = sum |q k|: a tensor-core step cuts at most 18 terms and 2 sums, each by
 * less than u M, so a score is off by 20 u M D / 16; the prescaling adds 3 u of it. A weight's
 * relative error is log(2) times twice that, 4 u of exp2, 2^-11 of the rounding to half (2^-25
 * absolute below 2^-14), 2^-8 of that to bf16, twice with fp8; its scale adds 2 u to a score. A
 * product of four steps adds 80 u, each fold 4 u. All of it twice, in numerator and denominator. */
static void exact_head(const struct rig_shape *shape, const struct rig_query *query, uint32_t head,
                       struct exact *exact)
{
    static double weights[SEQUENCE_PAGES_MAX * KV_PAGE_TOKEN_COUNT];
    const uint32_t content = query->sequence->content;
    const uint32_t kv_head = head / (shape->head_count / shape->kv_head_count);
    double max = -INFINITY, sum = 0, score_error = 0;

    for (uint32_t j = 0; j <= query->position; j++) {
        double dot = 0, magnitude = 0;
        for (uint32_t d = 0; d < shape->head_size; d++) {
            const double product =
                (double)attention_rig_asked(shape->type, content, query->position,
                                            head * shape->head_size + d) *
                attention_rig_stored(shape->type, content, j, kv_head, false, d);
            dot += product;
            magnitude += fabs(product);
        }
        weights[j] = dot * 0.125;
        max = fmax(max, weights[j]);
        score_error =
            fmax(score_error, (20.0 * shape->head_size / 16 + 8) * 0x1p-23 * magnitude * 0.125);
    }
    for (uint32_t j = 0; j <= query->position; j++) {
        weights[j] = exp(weights[j] - max);
        sum += weights[j];
    }
    const uint32_t folds = query->position / ATTENTION_CHUNK_TOKENS + 2;
    const double rounding = shape->type == KV_TYPE_F16    ? 0x1p-11
                            : shape->type == KV_TYPE_BF16 ? 0x1p-8
                                                          : 0x1p-7;
    const double relative = 2 * (2 * score_error + (84 + 4 * folds) * 0x1p-23 + rounding);
    memset(exact, 0, sizeof *exact);
    for (uint32_t j = 0; j <= query->position; j++) {
        for (uint32_t d = 0; d < shape->head_size; d++) {
            const double value = attention_rig_stored(shape->type, content, j, kv_head, true, d);
            exact->out[d] += weights[j] / sum * value;
            exact->bound[d] += (weights[j] / sum * relative + 0x1p-24 / sum) * fabs(value);
        }
    }
}

static void test_output_is_within_the_derived_bound_of_double(void **state)
{
    (void)state;
    static float out[4 * WIDTH_MAX];
    double worst = 0;

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct rig_variation variation = {
            true, ROWS_MAX, false, 2, {EMULATOR_SHUFFLED, 5, false, s % 2 == 0 ? 80u : 90u}};
        struct attention_rig rig;
        struct rig_story story;
        struct exact want;
        attention_rig_init(&rig, &shapes[s], 0);
        attention_rig_story_init(&story, &rig);
        const struct rig_query queries[] = {
            {&story.a, 77}, {&story.a, 1030}, {&story.c, 0}, {&story.b, 525}};
        attention_rig_run(&rig, queries, 4, &variation, out);
        for (uint32_t i = 0; i < 4; i++) {
            for (uint32_t head = 0; head < shapes[s].head_count; head += 1 + head) {
                const float *got =
                    out + ((size_t)i * shapes[s].head_count + head) * shapes[s].head_size;
                exact_head(&shapes[s], &queries[i], head, &want);
                for (uint32_t d = 0; d < shapes[s].head_size; d++) {
                    const double error = fabs(got[d] - want.out[d]);
                    assert_true(error <= want.bound[d]);
                    worst = fmax(worst, error / want.bound[d]);
                }
            }
        }
        attention_rig_finish(&rig);
    }
    print_message("largest error is %.3f of the bound\n", worst);
    assert_true(worst > 0);
}

/* ---- bits ---- */

static const struct rig_variation variations[] = {
    {true, ROWS_MAX, false, 1, {EMULATOR_ASCENDING, 1, true, 90}},
    {true, ROWS_MAX, true, 2, {EMULATOR_DESCENDING, 1, false, 90}},
    {true, 3, false, 3, {EMULATOR_SHUFFLED, 11, true, 90}},
    {false, 1, false, 4, {EMULATOR_SHUFFLED, 12, false, 90}},
};

enum { STORY_ROWS = 9 };

static void story_queries(const struct rig_story *story, struct rig_query *queries)
{
    const struct rig_query all[STORY_ROWS] = {
        {&story->a, 1030}, {&story->b, 525}, {&story->c, 0},   {&story->a, 15}, {&story->a, 16},
        {&story->c, 69},   {&story->a, 511}, {&story->b, 512}, {&story->a, 63},
    };
    memcpy(queries, all, sizeof all);
}

/* Each row in a plan of its own. */
static void run_alone(const struct rig_shape *shape, float *out)
{
    struct attention_rig rig;
    struct rig_story story;
    struct rig_query queries[STORY_ROWS];

    attention_rig_init(&rig, shape, 0);
    attention_rig_story_init(&story, &rig);
    story_queries(&story, queries);
    for (uint32_t i = 0; i < STORY_ROWS; i++) {
        attention_rig_run(&rig, &queries[i], 1, &plain,
                          out + (size_t)i * shape->head_count * shape->head_size);
    }
    attention_rig_finish(&rig);
}

static void test_a_row_has_the_same_bits_alone_and_in_every_batch(void **state)
{
    (void)state;
    static float want[STORY_ROWS * WIDTH_MAX], got[STORY_ROWS * WIDTH_MAX];

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t bytes =
            (size_t)STORY_ROWS * shapes[s].head_count * shapes[s].head_size * sizeof(float);
        run_alone(&shapes[s], want);
        /* All of them for one shape, one for each of the rest. */
        const size_t step = s == 0 || emulator_runs_long() ? 1 : 4;
        for (size_t i = step == 1 ? 0 : s % 2; i < sizeof variations / sizeof *variations;
             i += step) {
            struct attention_rig rig;
            struct rig_story story;
            struct rig_query queries[STORY_ROWS];
            attention_rig_init(&rig, &shapes[s], variations[i].poison);
            attention_rig_story_init(&story, &rig);
            story_queries(&story, queries);
            attention_rig_run(&rig, queries, STORY_ROWS, &variations[i], got);
            assert_memory_equal(got, want, bytes);
            attention_rig_finish(&rig);
        }
    }
}

/* ---- tiles of every height ---- */

/* A card with less shared memory has no tall tiles. */
static void set_height(struct attention_rig *rig, uint32_t columns)
{
    const struct rig_shape *shape = &rig->shape;

    rig->shared_bytes_max =
        columns == TALL
            ? 227 * 1024
            : attention_planted::attention_shared_bytes(shape->head_size, shape->type, columns);
    assert_int_equal(
        attention_planted::attention_has_tall(shape->head_size, shape->type, rig->shared_bytes_max),
        columns == TALL);
}

static void test_which_cards_have_tall_tiles(void **state)
{
    (void)state;
    const uint32_t sizes[] = {64, 80, 96, 128};

    for (uint32_t i = 0; i < 12; i++) {
        const enum kv_type type = (enum kv_type)(i % 3);
        assert_true(attention_planted::attention_has_tall(sizes[i / 3], type, 99 * 1024));
        assert_true(attention_planted::attention_shared_bytes(sizes[i / 3], type, TALL) <=
                    99 * 1024);
    }
    assert_false(attention_planted::attention_has_tall(128, KV_TYPE_FP8, 80 * 1024));
    assert_false(attention_planted::attention_has_tall(256, KV_TYPE_F16, 99 * 1024));
    assert_true(attention_planted::attention_has_tall(256, KV_TYPE_FP8, 227 * 1024));
}

/* Lists of 3 to 27 rows, five columns a row, make tiles of 7 to 128 columns and ragged last ones.
 */
static void test_tiles_of_every_height_give_the_same_bits(void **state)
{
    (void)state;
    enum { COUNT = 27 };
    static float want[COUNT * WIDTH_MAX], got[COUNT * WIDTH_MAX];
    const uint32_t sizes[] = {64, 80, 96, 128, 256};
    const uint32_t lists[] = {13, 3};

    for (uint32_t s = 0; s < 15; s++) {
        const struct rig_shape shape = {5, 1, sizes[s / 3], (enum kv_type)(s % 3)};
        const size_t width = (size_t)shape.head_count * shape.head_size;
        struct rig_variation variation = variations[s % 3];
        struct attention_rig rig;
        struct rig_story story;
        struct rig_query queries[COUNT];
        attention_rig_init(&rig, &shape, s);
        attention_rig_story_init(&story, &rig);
        for (uint32_t i = 0; i < COUNT; i++) {
            queries[i] = {&story.a, i % 9 == 8 ? 70 + i : 2 * i};
        }
        variation.list_max = COUNT;
        set_height(&rig, TALL);
        attention_rig_run(&rig, queries, COUNT, &variation, want);
        assert_int_equal(rig.plan.item_count, 1);
        set_height(&rig, LOW);
        attention_rig_run(&rig, queries, COUNT, &variation, got);
        assert_memory_equal(got, want, COUNT * width * sizeof(float));
        variation = variations[(s + 1) % 3];
        variation.list_max = lists[s % 2];
        set_height(&rig, TALL);
        attention_rig_run(&rig, queries, COUNT, &variation, got);
        assert_memory_equal(got, want, COUNT * width * sizeof(float));
        attention_rig_run(&rig, &queries[17], 1, &plain, got);
        assert_memory_equal(got, want + 17 * width, width * sizeof(float));
        attention_rig_finish(&rig);
    }
}

/* ---- twins ---- */

static void test_one_bit_of_one_key_or_a_backward_fold_is_caught(void **state)
{
    (void)state;
    static float want[WIDTH_MAX], got[WIDTH_MAX];
    const struct rig_shape shape = {3, 1, 64};
    struct attention_rig rig;
    struct rig_story story;

    attention_rig_init(&rig, &shape, 0);
    attention_rig_story_init(&story, &rig);
    const struct rig_query query = {&story.a, 1030};
    attention_rig_run(&rig, &query, 1, &plain, want);
    uint16_t *key =
        (uint16_t *)rig.k + attention_rig_row(&shape, 0, story.a.pages[64], 3) * shape.head_size;
    *key ^= 0x200;
    attention_rig_run(&rig, &query, 1, &plain, got);
    assert_memory_not_equal(got, want, sizeof(float) * 192);
    *key ^= 0x200;
    const uint32_t first = rig.row_partials[0];
    rig.row_partials[0] = rig.row_partials[2];
    rig.row_partials[2] = first;
    attention_rig_run_planned(&rig, &query, &plain.emulator, got);
    assert_memory_not_equal(got, want, sizeof(float) * 192);
    attention_rig_finish(&rig);
}

static void test_a_nan_that_is_seen_is_seen(void **state)
{
    (void)state;
    static float out[2 * WIDTH_MAX];
    const struct rig_shape shape = {3, 1, 64};
    struct attention_rig rig;
    struct rig_story story;

    attention_rig_init(&rig, &shape, 0);
    attention_rig_story_init(&story, &rig);
    ((uint16_t *)rig.v)[attention_rig_row(&shape, 0, story.c.pages[1], 4) * 64] = 0x7e00;
    const struct rig_query queries[] = {{&story.c, 19}, {&story.c, 20}};
    attention_rig_run(&rig, &queries[0], 1, &plain, out);
    assert_false(isnan(out[0]));
    attention_rig_run(&rig, &queries[1], 1, &plain, out);
    assert_true(isnan(out[0]));
    attention_rig_finish(&rig);
}

/* Whether the kernel with the bug gives `want`, under one schedule, in tiles of a height. */
static bool planted_equals(struct attention_rig *rig, const struct rig_query *queries,
                           const struct emulator_settings *settings, uint32_t columns,
                           const float *want)
{
    struct rig_memory memory, held;
    struct card card;
    struct backend_kv kv;
    attention_planted::attention_view view = {};
    const uint64_t heads = (uint64_t)PARTIALS_MAX * rig->shape.head_count;

    emulator_configure(settings);
    card_open(&card);
    attention_rig_memory_init(&memory, rig, queries);
    attention_rig_give_memory(&memory, &card, &held);
    attention_rig_give_pools(rig, &card, &kv);
    view.q = held.q;
    view.out = held.out;
    view.kv = cuda_kv_layer(&kv, LAYER);
    view.acc = held.partials;
    view.max = view.acc + heads * rig->shape.head_size;
    view.sum = view.max + heads;
    view.scale_log2 = 0.125f * 1.44269504f;
    view.head_count = rig->shape.head_count;
    view.kv_head_count = rig->shape.kv_head_count;
    view.has_tall = columns == TALL;
    const struct cuda_plan_view *plan = attention_rig_give_plan(rig, &card);
    memset(planted_count, 0, sizeof planted_count);
    copied_count = 0;
    enum status status = device_launch<attention_planted::attention_kernel<64, KV_TYPE_F16>>(
        card.device, 1, 1, 128, attention_planted::attention_shared_bytes(64, KV_TYPE_F16, LOW),
        plan, view);
    if (status == STATUS_OK && columns == TALL) {
        status = device_launch<attention_planted::attention_tall_kernel<64, KV_TYPE_F16>>(
            card.device, 1, 1, 256,
            attention_planted::attention_shared_bytes(64, KV_TYPE_F16, TALL), plan, view);
    }
    if (status == STATUS_OK) {
        status = device_launch<attention_planted::attention_fold_kernel<64>>(
            card.device, rig->plan.row_count, view.head_count, 64, 0, plan, view);
    }
    card_take(&card);
    card_finish(&card);
    const bool equal =
        status == STATUS_OK &&
        memcmp(memory.out, want, rig->plan.row_count * memory.width * sizeof(float)) == 0;
    attention_rig_memory_finish(&memory);
    return equal;
}

static bool planted_is_caught(struct attention_rig *rig, const struct rig_query *queries,
                              uint32_t columns, const float *want)
{
    for (uint32_t i = 0; i < 6; i++) {
        const struct emulator_settings settings = {(enum emulator_schedule)(i % 3), 3, i >= 3, 90};
        if (!planted_equals(rig, queries, &settings, columns, want)) {
            return true;
        }
    }
    return false;
}

static void test_a_barrier_or_a_wait_too_little_is_caught(void **state)
{
    (void)state;
    enum { COUNT = 45, BARRIERS = 10 };
    const bool is_emulated = card_is_emulated("a barrier or a wait of attention left out");
    static float want[COUNT * 5 * 64];
    const struct rig_shape shape = {5, 1, 64};
    struct attention_rig rig;
    struct rig_story story;
    struct rig_query queries[COUNT];

    attention_rig_init(&rig, &shape, 0);
    attention_rig_story_init(&story, &rig);
    for (uint32_t i = 0; i < COUNT; i++) {
        queries[i] = {&story.a, 70 + i};
    }
    for (uint32_t columns = LOW; columns <= TALL; columns += LOW) {
        /* A tile and a part of the next. */
        const uint32_t count = columns == LOW ? 18 : COUNT;
        attention_rig_run(&rig, queries, count, &variations[0], want);
        planted_bug = PLANTED_NONE;
        assert_false(planted_is_caught(&rig, queries, columns, want));
        if (!is_emulated) {
            continue;
        }
        planted_bug = PLANTED_LAX_WAIT;
        assert_true(planted_is_caught(&rig, queries, columns, want));
        planted_bug = PLANTED_NO_BARRIER;
        /* Without the first the queries' addresses are poison, and the process ends. */
        for (planted_barrier = 1; planted_barrier < BARRIERS; planted_barrier++) {
            assert_true(planted_is_caught(&rig, queries, columns, want));
        }
    }
    planted_bug = PLANTED_NONE;
    attention_rig_finish(&rig);
}

/* 264 columns over one block: each 128 read its keys and values once; and an order that only tall
 * tiles have shows in the bits. */
static void test_tall_tiles_read_a_block_once_and_their_own_order_is_caught(void **state)
{
    (void)state;
    const bool is_emulated = card_is_emulated("how often keys are read; an order of tall tiles");
    enum { COUNT = 33, POSITION = 100, PIECES = 2 * (POSITION + 1) * 2 * 64 / 16 };
    static float want[COUNT * 8 * 64];
    const struct rig_shape shape = {8, 1, 64};
    struct attention_rig rig;
    struct rig_story story;
    struct rig_query queries[COUNT];

    attention_rig_init(&rig, &shape, 0);
    attention_rig_story_init(&story, &rig);
    for (uint32_t i = 0; i < COUNT; i++) {
        queries[i] = {&story.a, POSITION};
    }
    set_height(&rig, LOW);
    attention_rig_run(&rig, queries, COUNT, &variations[0], want);
    planted_bug = PLANTED_NONE;
    assert_true(planted_equals(&rig, queries, &plain.emulator, LOW, want));
    assert_true(!is_emulated || copied_count == 5 * PIECES);
    assert_true(planted_equals(&rig, queries, &plain.emulator, TALL, want));
    assert_true(!is_emulated || copied_count == 3 * PIECES);
    planted_bug = PLANTED_ORDER;
    assert_true(!is_emulated || !planted_equals(&rig, queries, &plain.emulator, TALL, want));
    planted_bug = PLANTED_NONE;
    attention_rig_finish(&rig);
}

/* One block walks all items; the search takes 32 at a time. */
static void test_one_block_finds_every_tile_of_many_items(void **state)
{
    (void)state;
    enum { COUNT = 45 };
    static float want[COUNT * 192];
    const struct rig_shape shape = {3, 1, 64};
    struct attention_rig rig;
    struct rig_story story;
    struct rig_query queries[COUNT];

    attention_rig_init(&rig, &shape, 0);
    attention_rig_story_init(&story, &rig);
    for (uint32_t i = 0; i < COUNT; i++) {
        queries[i] = {&story.a, i == 40 ? 600 : 3 * i};
    }
    attention_rig_run(&rig, queries, COUNT, &variations[1], want);
    assert_int_equal(rig.plan.item_count, 2);
    attention_rig_plan(&rig, queries, COUNT, &plain);
    assert_int_equal(rig.plan.item_count, COUNT + 1);
    planted_bug = PLANTED_NONE;
    assert_true(planted_equals(&rig, queries, &plain.emulator, TALL, want));
    attention_rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_is_within_the_derived_bound_of_double),
        cmocka_unit_test(test_a_row_has_the_same_bits_alone_and_in_every_batch),
        cmocka_unit_test(test_which_cards_have_tall_tiles),
        cmocka_unit_test(test_tiles_of_every_height_give_the_same_bits),
        cmocka_unit_test(test_tall_tiles_read_a_block_once_and_their_own_order_is_caught),
        cmocka_unit_test(test_one_bit_of_one_key_or_a_backward_fold_is_caught),
        cmocka_unit_test(test_a_nan_that_is_seen_is_seen),
        cmocka_unit_test(test_one_block_finds_every_tile_of_many_items),
        cmocka_unit_test(test_a_barrier_or_a_wait_too_little_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
