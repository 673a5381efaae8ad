/* Goal: a chain, one block of threads that walks the blocks of its rows in turn, gives the bits of
 * an item a block and a fold afterwards; so do the tall tiles of heads of 256.
 * Method: compare bits over head sizes, kinds of keys and values, one to eight query heads a KV
 * head, shared and private pages, rows that end anywhere in a chain, go on behind it or leave it,
 * three schedules, copies early and late. Twins leave out a barrier or a wait, fold a block and
 * those before it the other way round, go on with a block's total where the next begins, or take
 * another's partial, and must be caught.
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

/* The same kernels with one thing wrong, chosen by `planted_bug`; on a card as they are. */
#ifndef __CUDACC__

enum planted_bug {
    PLANTED_NONE,
    PLANTED_NO_BARRIER,
    PLANTED_LAX_WAIT,
    PLANTED_ORDER,
    PLANTED_NO_RESET
};
static enum planted_bug planted_bug;
/* Which of a thread's barriers, counted from 0, in the launch of chains. The others' have several
 * tiles: without the first barrier of one its queries' addresses are poison, and the process ends.
 */
static uint32_t planted_barrier;
static bool planted_launch;
static uint32_t planted_count[EMULATOR_BLOCK_THREADS_MAX];

static void planted_sync(void)
{
    const uint32_t at = planted_count[PRIM_THREAD]++;
    if (planted_bug != PLANTED_NO_BARRIER || !planted_launch || at != planted_barrier) {
        prim_sync();
    }
}

template <int pending> static void planted_copy_wait(void)
{
    emulator_copy_wait(planted_bug == PLANTED_LAX_WAIT ? pending + 1 : pending);
}

#define prim_sync planted_sync
#define prim_copy_wait planted_copy_wait

#endif

namespace chain_planted
{
#include "kernels/cuda/attention_chunk.cuh"

#ifndef __CUDACC__

/* b, then a. */
template <uint32_t STEPS>
void fold(const bool takes[2], const struct attention_total<STEPS> *more,
          struct attention_total<STEPS> *total)
{
    float a[2], b[2];

    for (uint32_t c = 0; c < 2; c++) {
        if (takes[c]) {
            attention_factors(&total->max[c], &total->sum[c], more->max[c], more->sum[c], &a[c],
                              &b[c]);
        }
    }
    for (uint32_t i = 0; i < STEPS * 8; i++) {
        const uint32_t c = i % 4 / 2;
        float *acc = &total->acc[i / 4][i % 4];
        *acc = takes[c] ? fmaf(*acc, a[c], more->acc[i / 4][i % 4] * b[c]) : *acc;
    }
}

/* The first chunk of a block folded into the block before. */
template <uint32_t D, enum kv_type T, uint32_t STEPS>
void planted_take_chunk(const struct attention_shared *shared, const struct attention_part *part,
                        uint32_t chunk, float scale_log2, float scores[ATTENTION_SCORE_TILES][4],
                        struct attention_total<STEPS> *total)
{
    struct attention_total<STEPS> apart = {
    };
    bool takes[2];

    if (planted_bug != PLANTED_NO_RESET || chunk % ATTENTION_BLOCK_CHUNKS != 0 || chunk == 0) {
        attention_take_chunk<D, T>(shared, part, chunk, scale_log2, scores, total);
        return;
    }
    attention_take_chunk<D, T>(shared, part, chunk, scale_log2, scores, &apart);
    for (uint32_t c = 0; c < 2; c++) {
        takes[c] = attention_seen<D>(shared, part, c) > chunk * ATTENTION_CHUNK_TOKENS;
    }
    fold(takes, &apart, total);
}

/* The blocks before folded into the block. */
template <uint32_t D, uint32_t STEPS>
void planted_fold_block(const struct attention_shared *shared, const struct attention_part *part,
                        uint32_t chunk, const struct attention_total<STEPS> *block,
                        struct attention_total<STEPS> *total)
{
    const uint32_t begin = chunk / ATTENTION_BLOCK_CHUNKS * ATTENTION_BLOCK_TOKENS;

    if (planted_bug != PLANTED_ORDER || begin == 0) {
        attention_fold_block<D>(shared, part, chunk, block, total);
        return;
    }
    bool takes[2];
    struct attention_total<STEPS> result = *block;
    if (ATTENTION_TOTAL_IS_SHARED(D)) {
        attention_fetch_total<D>(shared, total);
    }
    for (uint32_t c = 0; c < 2; c++) {
        takes[c] = attention_seen<D>(shared, part, c) > begin;
    }
    fold(takes, total, &result);
    for (uint32_t i = 0; i < STEPS * 8; i++) {
        const uint32_t c = i % 4 / 2;
        float *acc = ATTENTION_TOTAL_IS_SHARED(D)
                         ? shared->total + i * ATTENTION_CHAIN_THREADS(D) + PRIM_THREAD
                         : &total->acc[i / 4][i % 4];
        *acc = takes[c] ? result.acc[i / 4][i % 4] : *acc;
    }
    for (uint32_t c = 0; c < 2; c++) {
        total->max[c] = takes[c] ? result.max[c] : total->max[c];
        total->sum[c] = takes[c] ? result.sum[c] : total->sum[c];
    }
}

#define attention_take_chunk planted_take_chunk
#define attention_fold_block planted_fold_block

#endif

#include "kernels/cuda/attention.cuh"
#undef attention_take_chunk
#undef attention_fold_block
#undef prim_sync
#undef prim_copy_wait
} // namespace chain_planted

using chain_planted::ATTENTION_TILE_COLUMNS;
using chain_planted::ATTENTION_WARP_COLUMNS;

enum { WIDTH_MAX = 16 * 256, SHARED_SM_80 = 163 * 1024, SHARED_SM_89 = 99 * 1024 };

static const struct rig_variation chained[] = {
    {true, ROWS_MAX, false, 1, {EMULATOR_ASCENDING, 1, true, 90}, true},
    {true, ROWS_MAX, true, 2, {EMULATOR_DESCENDING, 1, false, 90}, true},
    {true, ROWS_MAX, false, 3, {EMULATOR_SHUFFLED, 11, true, 90}, true},
};

static struct rig_variation in_blocks(const struct rig_variation *variation)
{
    struct rig_variation result = *variation;

    result.chains = false;
    return result;
}

/* Rows enough for a chain of `blocks` blocks: some end in the first, some at the last position of a
 * block and at the first of the next, and two are there for the third of which there are too few
 * for a chain where it is to have two blocks. With `forks` some leave behind the first block. */
static uint32_t make_queries(const struct rig_story *story, uint32_t group, uint32_t blocks,
                             bool forks, struct rig_query *queries)
{
    const uint32_t many = 64 / group + 2;
    uint32_t count = 0;

    for (uint32_t i = 0; i < many; i++) {
        const uint32_t last = blocks == 3 ? 1024 + i % 16 : 512 + i % 3 * 200;
        queries[count++] = {&story->a, i % 5 == 0 ? blocks * 512 - 512 : last};
    }
    queries[count++] = {&story->a, 511};
    queries[count++] = {&story->a, 64};
    if (blocks == 2) {
        queries[count++] = {&story->a, 1023};
        queries[count++] = {&story->a, 1024};
        queries[count++] = {&story->a, 1039};
    }
    if (forks) {
        queries[count++] = {&story->b, 529};
        queries[count++] = {&story->b, 512};
        queries[count++] = {&story->c, 3};
    }
    assert_true(count <= ROWS_MAX);
    return count;
}

static void test_chains_give_the_bits_of_blocks(void **state)
{
    (void)state;
    static float want[ROWS_MAX * WIDTH_MAX], got[ROWS_MAX * WIDTH_MAX];
    const uint32_t sizes[] = {64, 80, 96, 128, 256};
    uint32_t final_count = 0, partial_count = 0;

    for (uint32_t s = 0; s < 15; s++) {
        const uint32_t group = 1 + (s + s / 8) % 8, kv_heads = s % 7 == 0 ? 2 : 1;
        const struct rig_shape shape = {group * kv_heads, kv_heads, sizes[s / 3],
                                        (enum kv_type)(s % 3)};
        const struct rig_variation *variation = &chained[s % 3];
        const struct rig_variation blocks = in_blocks(&chained[(s + 1) % 3]);
        struct attention_rig rig;
        struct rig_story story;
        struct rig_query queries[ROWS_MAX];
        attention_rig_init(&rig, &shape, s);
        attention_rig_story_init(&story, &rig);
        const uint32_t count = make_queries(&story, group, group > 3 ? 3 : 2, s % 2 == 0, queries);
        const size_t bytes = (size_t)count * shape.head_count * shape.head_size * sizeof(float);
        rig.shared_bytes_max = SHARED_SM_89;
        if (chain_planted::attention_shared_bytes(shape.head_size, shape.type, 64) > SHARED_SM_89) {
            rig.shared_bytes_max = SHARED_SM_80; /* without tall tiles and chains */
            assert_false(chain_planted::attention_has_tall(256, shape.type, SHARED_SM_80));
        }
        attention_rig_run(&rig, queries, count, &blocks, want);
        assert_int_equal(rig.chain_count, 0);
        rig.shared_bytes_max = 227 * 1024;
        attention_rig_run(&rig, queries, count, variation, got);
        assert_true(rig.chain_count > 0);
        assert_true(rig.items[0].end - rig.items[0].begin > ATTENTION_BLOCK_TOKENS);
        assert_memory_equal(got, want, bytes);
        for (uint32_t r = 0; r < count; r++) {
            final_count += rig.rows[r].partial_count == 0;
            partial_count += rig.rows[r].partial_count > 0;
        }
        attention_rig_finish(&rig);
    }
    assert_true(final_count > 300 && partial_count > 20);
}

static void test_which_cards_have_which_tiles_of_heads_of_256(void **state)
{
    (void)state;
    const uint32_t limits[] = {SHARED_SM_80, SHARED_SM_89, 227 * 1024};
    const bool tall[3][3] = {{true, true, false}, {false, false, false}, {true, true, true}};

    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t t = 0; t < 3; t++) {
            const enum kv_type type = (enum kv_type)t;
            assert_int_equal(chain_planted::attention_has_tall(256, type, limits[i]), tall[i][t]);
            assert_int_equal(chain_planted::attention_has_chains(256, type, limits[i]), tall[i][t]);
            for (uint32_t size = 64; size <= 128; size += 16) {
                assert_true(chain_planted::attention_has_chains(size, type, limits[i]));
            }
        }
    }
}

/* ---- twins ---- */

#ifndef __CUDACC__

static const struct rig_variation plain = {false, 1, false, 0, {EMULATOR_ASCENDING, 1, false, 90}};

/* Whether kernels with the bug give `want`, under one schedule. */
template <uint32_t D>
static bool planted_equals(struct attention_rig *rig, const struct rig_query *queries,
                           const struct emulator_settings *settings, const float *want)
{
    struct rig_memory memory, held;
    struct card card;
    struct backend_kv kv;
    chain_planted::attention_view view = {};
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
    view.max = view.acc + heads * D;
    view.sum = view.max + heads;
    view.scale_log2 = 0.125f * 1.44269504f;
    view.head_count = rig->shape.head_count;
    view.kv_head_count = rig->shape.kv_head_count;
    view.has_tall = view.has_chains = true;
    const struct cuda_plan_view *plan = attention_rig_give_plan(rig, &card);
    memset(planted_count, 0, sizeof planted_count);
    enum status status = device_launch<chain_planted::attention_kernel<D, KV_TYPE_F16>>(
        card.device, 1, 1, ATTENTION_THREADS(D, chain_planted::ATTENTION_TILE_COLUMNS),
        chain_planted::attention_shared_bytes(D, KV_TYPE_F16, 64), plan, view);
    memset(planted_count, 0, sizeof planted_count);
    planted_launch = true;
    if (status == STATUS_OK && D <= 128) {
        status = device_launch<chain_planted::attention_tall_kernel<D, KV_TYPE_F16>>(
            card.device, 1, 1, 256, chain_planted::attention_shared_bytes(D, KV_TYPE_F16, 128),
            plan, view);
    } else if (status == STATUS_OK) {
        status = device_launch<chain_planted::attention_chain_kernel<D, KV_TYPE_F16>>(
            card.device, 1, 1, 256, chain_planted::attention_chain_shared_bytes(D, KV_TYPE_F16),
            plan, view);
    }
    planted_launch = false;
    if (status == STATUS_OK) {
        status = device_launch<chain_planted::attention_fold_kernel<D>>(
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

template <uint32_t D>
static bool planted_is_caught(struct attention_rig *rig, const struct rig_query *queries,
                              const float *want)
{
    for (uint32_t i = 0; i < 6; i++) {
        const struct emulator_settings settings = {(enum emulator_schedule)(i % 3), 3, i >= 3, 90};
        if (!planted_equals<D>(rig, queries, &settings, want)) {
            return true;
        }
    }
    return false;
}

/* A chain of two blocks, rows that go on behind it and rows that end in it. */
template <uint32_t D> static void plant_all(void)
{
    enum { GROUP = 8 };
    static float want[ROWS_MAX * GROUP * D];
    const struct rig_shape shape = {GROUP, 1, D};
    struct attention_rig rig;
    struct rig_story story;
    struct rig_query queries[ROWS_MAX];

    attention_rig_init(&rig, &shape, 0);
    attention_rig_story_init(&story, &rig);
    const uint32_t count = make_queries(&story, GROUP, 2, false, queries);
    const struct rig_variation blocks = in_blocks(&chained[0]);
    attention_rig_run(&rig, queries, count, &blocks, want);
    attention_rig_plan(&rig, queries, count, &chained[0]);
    assert_int_equal(rig.chain_count, 1);
    assert_int_equal(rig.items[0].end, 1024);
    planted_bug = PLANTED_NONE;
    assert_true(planted_equals<D>(&rig, queries, &plain.emulator, want));
    planted_bug = PLANTED_ORDER;
    assert_false(planted_equals<D>(&rig, queries, &plain.emulator, want));
    planted_bug = PLANTED_NO_RESET;
    assert_false(planted_equals<D>(&rig, queries, &plain.emulator, want));
    planted_bug = PLANTED_LAX_WAIT;
    assert_true(planted_is_caught<D>(&rig, queries, want));
    planted_bug = PLANTED_NO_BARRIER;
    /* Not the first, as above. One behind each block's end; those in between are test_attention's.
     */
    for (planted_barrier = 1; D <= 64 && planted_barrier < 4 * 16; planted_barrier += 7) {
        assert_true(planted_is_caught<D>(&rig, queries, want));
    }
    planted_bug = PLANTED_NONE;
    /* A row's chain and the block behind it are another's; a final row is folded once more. */
    uint32_t goes_on = 0, is_final = 0;
    for (uint32_t r = 0; r < count; r++) {
        goes_on = rig.rows[r].partial_count == 2 ? r : goes_on;
        is_final = rig.rows[r].partial_count == 0 ? r : is_final;
    }
    assert_int_equal(rig.rows[goes_on].partial_count, 2);
    assert_int_equal(rig.rows[is_final].partial_count, 0);
    rig.row_partials[rig.rows[goes_on].partial_first] ^= 1;
    assert_false(planted_equals<D>(&rig, queries, &plain.emulator, want));
    rig.row_partials[rig.rows[goes_on].partial_first] ^= 1;
    rig.rows[is_final].partial_count = 1;
    rig.rows[is_final].partial_first = 0;
    assert_false(planted_equals<D>(&rig, queries, &plain.emulator, want));
    attention_rig_finish(&rig);
}

#else

template <uint32_t D> static void plant_all(void)
{
    (void)card_is_emulated("kernels with a barrier, a wait or an order changed");
    skip();
}

#endif

static void test_another_order_or_a_barrier_or_a_wait_too_little_is_caught(void **state)
{
    (void)state;
    plant_all<64>();
}

static void test_another_order_is_caught_in_chains_of_heads_of_256(void **state)
{
    (void)state;
    plant_all<256>();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_cards_have_which_tiles_of_heads_of_256),
        cmocka_unit_test(test_chains_give_the_bits_of_blocks),
        cmocka_unit_test(test_another_order_or_a_barrier_or_a_wait_too_little_is_caught),
        cmocka_unit_test(test_another_order_is_caught_in_chains_of_heads_of_256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
