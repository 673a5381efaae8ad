/* Goal: a copy takes the first n positions of a page in every layer and head, K and V, and leaves
 * the rest of both pages and all other pages alone; copies run in the plan's order.
 * Method: a pool of distinct halves, every one compared with what a position-wise copy gives, for
 * every n. A twin copies one position more and must be caught.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/cpu.h"

enum { LAYERS = 3, HEADS = 2, HEAD_SIZE = 24, PAGES = 5 };
enum { POOL = LAYERS * HEADS * PAGES * HEAD_SIZE * KV_PAGE_TOKEN_COUNT };

struct setup {
    struct backend *backend;
    struct backend_kv *kv;
    struct backend_program *program;
    uint16_t want_k[POOL], want_v[POOL];
};

static void setup_init(struct setup *setup, enum kv_type kv_type)
{
    const struct backend_settings settings = {
        .thread_count = 1,
        .row_count_max = 1,
        .sample_count_max = 1,
        .slot_count = 1,
        .history_tokens_max = 1,
        .vocabulary_count = 1,
        .partial_count_max = 1,
        .kv_type = kv_type,
    };
    const struct kv_shape shape = {
        .layer_count = LAYERS, .kv_head_count = HEADS, .head_size = HEAD_SIZE, .page_count = PAGES};
    const struct backend_ops *ops = &backend_cpu_ops;

    assert_int_equal(ops->create(&settings, NULL, &setup->backend), STATUS_OK);
    assert_int_equal(ops->kv_create(setup->backend, &shape, NULL, &setup->kv), STATUS_OK);
    assert_int_equal(ops->program_create(setup->backend, 1, NULL, &setup->program), STATUS_OK);
    const struct kv_copy_args args = {.kv = setup->kv};
    assert_int_equal(ops->op.kv_copy(setup->program, &args, NULL), STATUS_OK);
    for (uint32_t i = 0; i < POOL; i++) {
        setup->kv->k[i] = (uint16_t)i;
        setup->kv->v[i] = (uint16_t)(i + 0x8000);
    }
    memcpy(setup->want_k, setup->kv->k, sizeof setup->want_k);
    memcpy(setup->want_v, setup->kv->v, sizeof setup->want_v);
}

/* What the pool must hold afterwards, one half at a time. */
static void expect_copy(struct setup *setup, const struct plan_kv_copy *copy)
{
    for (uint32_t i = 0; i < LAYERS * HEADS * HEAD_SIZE * copy->slot_count; i++) {
        const uint32_t slot = i % copy->slot_count;
        const uint32_t d = i / copy->slot_count % HEAD_SIZE;
        const uint32_t head = i / copy->slot_count / HEAD_SIZE;
        const uint32_t to = (copy->to * LAYERS * HEADS + head) * HEAD_SIZE * KV_PAGE_TOKEN_COUNT;
        const uint32_t from =
            (copy->from * LAYERS * HEADS + head) * HEAD_SIZE * KV_PAGE_TOKEN_COUNT;
        const uint32_t k = setup->kv->is_paired ? (d / 2 * KV_PAGE_TOKEN_COUNT + slot) * 2 + d % 2
                                                : d * KV_PAGE_TOKEN_COUNT + slot;
        const uint32_t v =
            setup->kv->is_paired ? (slot / 2 * HEAD_SIZE + d) * 2 + slot % 2 : slot * HEAD_SIZE + d;
        setup->want_k[to + k] = setup->want_k[from + k];
        setup->want_v[to + v] = setup->want_v[from + v];
    }
}

static void run(struct setup *setup, const struct plan_kv_copy *copies, uint32_t count)
{
    const struct plan plan = {.kv_copy_count = count, .kv_copies = copies};
    struct step_result result;
    uint32_t ticket;

    assert_int_equal(backend_cpu_ops.step_submit(setup->program, &plan, &ticket), STATUS_OK);
    assert_int_equal(backend_cpu_ops.step_wait(setup->backend, ticket, &result), STATUS_OK);
}

static void test_the_first_positions_are_copied_in_all_layers_and_nothing_else(void **state)
{
    (void)state;
    static struct setup setup;

    for (uint32_t i = 0; i < 2 * (KV_PAGE_TOKEN_COUNT + 1); i++) {
        const uint32_t count = i / 2;

        setup_init(&setup, i % 2 == 0 ? KV_TYPE_F16 : KV_TYPE_BF16);
        const struct plan_kv_copy copies[] = {{1, 3, count}, {3, 4, count / 2}};
        expect_copy(&setup, &copies[0]);
        expect_copy(&setup, &copies[1]);
        run(&setup, copies, 2);
        assert_memory_equal(setup.kv->k, setup.want_k, sizeof setup.want_k);
        assert_memory_equal(setup.kv->v, setup.want_v, sizeof setup.want_v);
        backend_cpu_ops.destroy(setup.backend);
    }
}

static void test_twin_one_position_too_many_is_caught(void **state)
{
    (void)state;
    static struct setup setup;
    const struct plan_kv_copy right = {0, 2, 7}, wrong = {0, 2, 8};

    for (int type = KV_TYPE_F16; type <= KV_TYPE_BF16; type++) {
        setup_init(&setup, (enum kv_type)type);
        expect_copy(&setup, &right);
        run(&setup, &wrong, 1);
        assert_memory_not_equal(setup.kv->k, setup.want_k, sizeof setup.want_k);
        assert_memory_not_equal(setup.kv->v, setup.want_v, sizeof setup.want_v);
        backend_cpu_ops.destroy(setup.backend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_positions_are_copied_in_all_layers_and_nothing_else),
        cmocka_unit_test(test_twin_one_position_too_many_is_caught),
    };
    return cmocka_run_group_tests_name("kernels/kv_copy", tests, NULL, NULL);
}
