/* Goal: appending rounds to half, saturates to finite values, faults on a NaN, and touches nothing
 * but its own slot.
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

static void test_one_slot_is_written_and_nothing_else(void **state)
{
    (void)state;
    static struct pool_memory memory;
    float k[HEAD_SIZE], v[HEAD_SIZE];
    uint8_t fault = 0;
    uint32_t touched = 0;

    pool_init(&memory);
    for (uint32_t d = 0; d < HEAD_SIZE; d++) {
        k[d] = 1.0f + (float)d / 3;
        v[d] = -1.0f - (float)d / 7;
    }
    cpu_kv_append(&cpu_kernels_scalar, &memory.kv, 1, 2, 3, 11, k, v, &fault);
    assert_int_equal(fault, 0);
    for (uint32_t d = 0; d < HEAD_SIZE; d++) {
        assert_int_equal(cpu_kv_k(&memory.kv, 1, 2, 3)[d * KV_PAGE_TOKEN_COUNT + 11],
                         steps_half_from_float(k[d]));
        assert_int_equal(cpu_kv_v(&memory.kv, 1, 2, 3)[11 * HEAD_SIZE + d],
                         steps_half_from_float(v[d]));
    }
    for (uint32_t i = 0; i < POOL; i++) {
        touched += (memory.k[i] != 0x5a5a) + (uint32_t)(memory.v[i] != 0x5a5a);
    }
    assert_int_equal(touched, 2 * HEAD_SIZE);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_slot_is_written_and_nothing_else),
        cmocka_unit_test(test_large_values_saturate_and_a_nan_faults_without_being_stored),
    };
    return cmocka_run_group_tests_name("kernels/kv_append", tests, NULL, NULL);
}
