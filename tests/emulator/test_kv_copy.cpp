/* Goal: a page copy brings the first positions of a page over, in all layers and heads, and touches
 * nothing else.
 * Method: run the backend's launcher over poisoned pages and compare all of the pool with memcpy in
 * the order of the plan, copies that read what one before them wrote included. A twin expects one
 * position more and must be refuted.
 */
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
#include "tests/emulator/card.h"

enum { PAGE_COUNT = 7, LAYERS = 3, HEADS = 2, HEAD_SIZE_MAX = 128, COPIES = 5 };
enum { POOL_MAX = LAYERS * HEADS * PAGE_COUNT * KV_PAGE_TOKEN_COUNT * HEAD_SIZE_MAX };

static const struct plan_kv_copy copies[COPIES] = {
    {0, 3, 16}, {1, 2, 1}, {3, 4, 7}, {5, 6, 0}, {2, 5, 15},
};

struct plain_pool {
    uint16_t *k, *v; /* owned, of exactly the size */
    uint64_t count;
};

static void pool_init(struct plain_pool *pool, uint32_t head_size)
{
    pool->count = (uint64_t)LAYERS * HEADS * PAGE_COUNT * KV_PAGE_TOKEN_COUNT * head_size;
    pool->k = (uint16_t *)aligned_alloc(16, pool->count * sizeof(uint16_t));
    pool->v = (uint16_t *)aligned_alloc(16, pool->count * sizeof(uint16_t));
    for (uint64_t i = 0; i < pool->count; i++) {
        pool->k[i] = (uint16_t)(i * 40503u);
        pool->v[i] = (uint16_t)(i * 30011u + 7);
    }
}

static void pool_finish(struct plain_pool *pool)
{
    free(pool->k);
    free(pool->v);
}

static void copy_plainly(uint16_t *pages, uint32_t head_size, uint32_t extra)
{
    const uint64_t page_halves = (uint64_t)KV_PAGE_TOKEN_COUNT * head_size;

    for (uint32_t i = 0; i < COPIES; i++) {
        for (uint32_t plane = 0; plane < LAYERS * HEADS; plane++) {
            uint16_t *first = pages + plane * PAGE_COUNT * page_halves;
            memcpy(first + copies[i].to * page_halves, first + copies[i].from * page_halves,
                   (copies[i].slot_count + extra) * head_size * sizeof(uint16_t));
        }
    }
}

static void run(struct plain_pool *pool, uint32_t head_size, uint32_t copy_count)
{
    struct backend backend = {};
    struct backend_kv kv = {};
    struct cuda_plan_view view = {};
    struct cuda_step step = {};
    struct cuda_op op = {};
    struct card card;

    card_open(&card);
    kv.shape = {LAYERS, HEADS, head_size, PAGE_COUNT};
    kv.k = (uint8_t *)card_give(&card, pool->k, pool->count);
    kv.v = (uint8_t *)card_give(&card, pool->v, pool->count);
    backend.device = card.device;
    step.backend = &backend;
    view.kv_copies = card_give<const struct plan_kv_copy>(&card, copies, copy_count);
    view.kv_copy_count = copy_count;
    step.view = card_give<const struct cuda_plan_view>(&card, &view, 1);
    op.args.kv_copy.kv = &kv;
    assert_int_equal(cuda_kv_copy_run(&step, &op), STATUS_OK);
    card_take(&card);
    card_finish(&card);
}

static void test_copies_bring_the_first_positions_and_nothing_else(void **state)
{
    (void)state;
    static const uint32_t head_sizes[] = {64, 80, 96, 128};

    for (uint32_t i = 0; i < 12; i++) {
        const uint32_t head_size = head_sizes[i % 4];
        const struct emulator_settings settings = {(enum emulator_schedule)(i / 4), i, false, 90};
        struct plain_pool got, want;
        emulator_configure(&settings);
        pool_init(&got, head_size);
        pool_init(&want, head_size);
        copy_plainly(want.k, head_size, 0);
        copy_plainly(want.v, head_size, 0);
        run(&got, head_size, COPIES);
        assert_memory_equal(got.k, want.k, want.count * sizeof(uint16_t));
        assert_memory_equal(got.v, want.v, want.count * sizeof(uint16_t));
        pool_finish(&got);
        pool_finish(&want);
    }
}

static void test_no_copies_are_no_work(void **state)
{
    (void)state;
    struct plain_pool got, want;

    pool_init(&got, 64);
    pool_init(&want, 64);
    run(&got, 64, 0);
    assert_memory_equal(got.k, want.k, want.count * sizeof(uint16_t));
    pool_finish(&got);
    pool_finish(&want);
}

static void test_a_position_too_many_is_caught(void **state)
{
    (void)state;
    static uint16_t guard[POOL_MAX];
    struct plain_pool got;

    pool_init(&got, 64);
    memcpy(guard, got.k, got.count * sizeof(uint16_t));
    run(&got, 64, COPIES);
    for (uint32_t plane = 0; plane < LAYERS * HEADS; plane++) {
        /* The second copy has one position: what a wrong one would bring as its second. */
        const uint64_t page = (uint64_t)plane * PAGE_COUNT + 2;
        uint16_t *second = guard + (page * KV_PAGE_TOKEN_COUNT + 1) * 64;
        assert_memory_equal(got.k + (second - guard), second, 64 * sizeof(uint16_t));
        assert_memory_not_equal(got.k + (second - guard),
                                second - (uint64_t)KV_PAGE_TOKEN_COUNT * 64, 64 * sizeof(uint16_t));
    }
    pool_finish(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies_bring_the_first_positions_and_nothing_else),
        cmocka_unit_test(test_no_copies_are_no_work),
        cmocka_unit_test(test_a_position_too_many_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
