/* Goal: appending rounds to half or BF16, saturates to finite values, faults on a NaN, and touches
 * nothing but its own slot.
 * Method: a page full of a pattern, one slot written, every half of the pool compared.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/rows.h"
#include "kernels/steps/math.h"

enum { LAYERS = 2, HEADS = 3, HEAD_SIZE = 40, PAGES = 4 };
enum { POOL = LAYERS * HEADS * PAGES * HEAD_SIZE * KV_PAGE_TOKEN_COUNT };

struct pool_memory {
    uint16_t k[POOL], v[POOL];
    struct backend_kv kv;
};

static void pool_init(struct pool_memory *memory)
{
    memset(memory->k, 0x5a, sizeof memory->k);
    memset(memory->v, 0x5a, sizeof memory->v);
    memory->kv = (struct backend_kv){
        .shape = {.layer_count = LAYERS,
                  .kv_head_count = HEADS,
                  .head_size = HEAD_SIZE,
                  .page_count = PAGES},
        .k = memory->k,
        .v = memory->v,
    };
}

static void check_slot(struct pool_memory *memory, bool is_paired, uint32_t slot)
{
    uint16_t (*const round)(float) = is_paired ? steps_bf16_from_float : steps_half_from_float;
    float k[HEAD_SIZE], v[HEAD_SIZE];
    uint8_t fault = 0;
    uint32_t touched = 0;

    pool_init(memory);
    memory->kv.is_paired = is_paired;
    for (uint32_t d = 0; d < HEAD_SIZE; d++) {
        k[d] = 1.0f + (float)d / 3;
        v[d] = -1.0f - (float)d / 7;
    }
    cpu_kv_append(&cpu_kernels_scalar, &memory->kv, 1, 2, 3, slot, k, v, &fault);
    assert_int_equal(fault, 0);
    for (uint32_t d = 0; d < HEAD_SIZE; d++) {
        const uint32_t k_at = is_paired ? (d / 2 * KV_PAGE_TOKEN_COUNT + slot) * 2 + d % 2
                                        : d * KV_PAGE_TOKEN_COUNT + slot;
        const uint32_t v_at =
            is_paired ? (slot / 2 * HEAD_SIZE + d) * 2 + slot % 2 : slot * HEAD_SIZE + d;

        assert_int_equal(cpu_kv_k(&memory->kv, 1, 2, 3)[k_at], round(k[d]));
        assert_int_equal(cpu_kv_v(&memory->kv, 1, 2, 3)[v_at], round(v[d]));
    }
    for (uint32_t i = 0; i < POOL; i++) {
        touched += (memory->k[i] != 0x5a5a) + (uint32_t)(memory->v[i] != 0x5a5a);
    }
    assert_int_equal(touched, 2 * HEAD_SIZE);
}

static void test_one_slot_is_written_and_nothing_else(void **state)
{
    static struct pool_memory memory;

    (void)state;
    for (uint32_t slot = 0; slot < KV_PAGE_TOKEN_COUNT; slot++) {
        check_slot(&memory, false, slot);
        check_slot(&memory, true, slot);
    }
}

static void test_large_values_saturate_and_a_nan_faults_without_being_stored(void **state)
{
    (void)state;
    static struct pool_memory memory;
    float k[HEAD_SIZE] = {1e6f, -1e6f, INFINITY, -INFINITY, 65519.0f, 65520.0f};
    float v[HEAD_SIZE] = {0};
    uint8_t fault = 0;

    pool_init(&memory);
    cpu_kv_append(&cpu_kernels_scalar, &memory.kv, 0, 0, 0, 0, k, v, &fault);
    assert_int_equal(fault, 0);
    for (uint32_t d = 0; d < 6; d++) {
        assert_int_equal(memory.k[(size_t)d * KV_PAGE_TOKEN_COUNT] & 0x7fff, 0x7bff);
    }
    v[7] = NAN;
    cpu_kv_append(&cpu_kernels_scalar, &memory.kv, 0, 0, 0, 0, k, v, &fault);
    assert_int_equal(fault, 1);
    assert_int_equal(memory.v[7], 0);
    v[7] = 0;
    k[9] = -NAN;
    fault = 0;
    cpu_kv_append(&cpu_kernels_scalar, &memory.kv, 0, 0, 0, 0, k, v, &fault);
    assert_int_equal(fault, 1);
    assert_int_equal(memory.k[(size_t)9 * KV_PAGE_TOKEN_COUNT], 0);
}

static void test_pairs_saturate_drop_what_is_tiny_and_fault_on_a_nan(void **state)
{
    (void)state;
    static struct pool_memory memory;
    const float k[HEAD_SIZE] = {INFINITY, -INFINITY, 3.4e38f,     -3.4e38f,
                                0x1p-57f, -0x1p-57f, 0x1.fcp-57f, 0x1.ffp-57f};
    float v[HEAD_SIZE] = {0};
    const uint16_t want[] = {0x7f7f, 0xff7f, 0x7f7f, 0xff7f, 0, 0, 0, CPU_BF16_MIN_BITS};
    uint8_t fault = 0;

    pool_init(&memory);
    memory.kv.is_paired = true;
    v[7] = NAN;
    cpu_kv_append(&cpu_kernels_scalar, &memory.kv, 0, 0, 0, 0, k, v, &fault);
    assert_int_equal(fault, 1);
    assert_int_equal(memory.v[7 * 2], 0);
    for (uint32_t d = 0; d < 8; d++) {
        assert_int_equal(memory.k[(size_t)(d / 2) * 2 * KV_PAGE_TOKEN_COUNT + d % 2], want[d]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_slot_is_written_and_nothing_else),
        cmocka_unit_test(test_large_values_saturate_and_a_nan_faults_without_being_stored),
        cmocka_unit_test(test_pairs_saturate_drop_what_is_tiny_and_fault_on_a_nan),
    };
    return cmocka_run_group_tests_name("kernels/kv_append", tests, NULL, NULL);
}
