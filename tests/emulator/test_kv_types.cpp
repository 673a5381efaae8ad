/* Goal: keys and values are kept as their type says, whatever they are, and copied with all that
 * belongs to them; a backend says by its numerics id which type it has.
 * Method: attn_in's last kernel without bias, norm and rotation, so that what it stores is known
 * exactly; by memcmp with kernels/steps. Copies of pages of every type against a plain loop, with a
 * twin that forgets the scales.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "base/error.h"
#include "kernels/cuda/attn_in.cuh"
#include "kernels/cuda/kv_copy.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/emulator_rig.h"

extern "C" {
extern const struct backend_ops backend_cuda_ops;
}

enum {
    HEAD = 80,
    KV_HEADS = 2,
    PAGES = 3,
    ROWS = 5,
    POOL_ROWS = KV_HEADS * PAGES * KV_PAGE_TOKEN_COUNT,
    VALUES = (1 + 2 * KV_HEADS) * HEAD, /* of a row: one query head, keys, values */
};

static const enum kv_type types[] = {KV_TYPE_F16, KV_TYPE_BF16, KV_TYPE_FP8};

struct typed_pool {
    alignas(16) uint8_t k[POOL_ROWS * 2 * HEAD];
    alignas(16) uint8_t v[POOL_ROWS * 2 * HEAD];
    float k_scales[POOL_ROWS], v_scales[POOL_ROWS];
};

static struct cuda_kv_view view_of(struct typed_pool *pool, enum kv_type type)
{
    return {pool->k, pool->v, pool->k_scales, pool->v_scales, PAGES, HEAD, type};
}

/* Row 0 plain, 1 zeros, 2 a NaN, 3 the largest and infinite, 4 the smallest: of so few bits that no
 * two of them look like an address, which an upload may not hold. */
static void fill_values(float *values)
{
    for (uint32_t i = 0; i < ROWS * VALUES; i++) {
        values[i] = 3 * random_value();
    }
    for (uint32_t i = 0; i < VALUES; i++) {
        values[1 * VALUES + i] = 0;
        values[3 * VALUES + i] *= 1e38f;
        values[4 * VALUES + i] *= 5e-42f;
    }
    values[2 * VALUES + HEAD + 7] = NAN;
    values[3 * VALUES + HEAD + 1] = INFINITY;
    values[3 * VALUES + HEAD + 2] = -INFINITY;
    values[3 * VALUES + HEAD + 3] = 3.4028235e38f;
}

static float held(float value)
{
    const float most = 3.3895314e38f;

    return value != value ? 0 : fmaxf(-most, fminf(most, value));
}

/* One key or value as it must be stored. */
static void store(enum kv_type type, const float *values, uint8_t *row, float *scale)
{
    float largest = 0;

    for (uint32_t d = 0; d < HEAD; d++) {
        const uint16_t bits = type == KV_TYPE_F16 ? steps_half_from_float(held(values[d]))
                                                  : steps_bf16_from_float(held(values[d]));
        if (type != KV_TYPE_FP8) {
            memcpy(row + 2 * d, &bits, sizeof bits);
        }
        largest = fmaxf(largest, fabsf(held(values[d])));
    }
    if (type != KV_TYPE_FP8) {
        return;
    }
    *scale = largest / 448 >= 0x1p-126f ? largest / 448 : 0;
    for (uint32_t d = 0; d < HEAD; d++) {
        row[d] = *scale > 0 ? steps_fp8_from_float(held(values[d]) / *scale) : 0;
    }
}

static void run_append(enum kv_type type, const float *values, struct typed_pool *pool,
                       uint8_t *faults)
{
    static float q[ROWS * HEAD];
    struct plan_row rows[ROWS] = {};
    static const uint32_t pages[] = {2, 0};
    struct cuda_plan_view plan = {};
    struct attn_in_view view = {};
    struct card card;

    card_open(&card);
    for (uint32_t i = 0; i < ROWS; i++) {
        rows[i].position = 13 + i; /* into the second page */
        rows[i].writes_kv = 1;
    }
    plan.row_count = ROWS;
    plan.rows = card_give<const struct plan_row>(&card, rows, ROWS);
    plan.pages = card_give(&card, pages, 2);
    plan.row_faults = card_give(&card, faults, ROWS);
    view.qkv = card_give(&card, values, (uint64_t)ROWS * VALUES);
    view.q = card_give(&card, q, ROWS * HEAD);
    view.kv = view_of(card_give(&card, pool, 1), type);
    view.head_count = 1;
    view.kv_head_count = KV_HEADS;
    view.head_size = HEAD;
    assert_int_equal(device_launch<attn_in_finish_kernel>(
                         card.device, 2, 1, ATTN_IN_THREADS, 0,
                         card_give<const struct cuda_plan_view>(&card, &plan, 1), view),
                     STATUS_OK);
    card_take(&card);
    card_finish(&card);
}

static void appended_numbers_are_those_of_the_type(void **state)
{
    static struct typed_pool got, want;
    static float values[ROWS * VALUES];

    (void)state;
    fill_values(values);
    for (uint32_t i = 0; i < 3 * CONFIG_COUNT; i++) {
        const enum kv_type type = types[i % 3];
        uint8_t faults[ROWS] = {};

        configure(i / 3);
        memset(&got, 0xee, sizeof got);
        memset(&want, 0xee, sizeof want);
        const struct cuda_kv_view view = view_of(&want, type);
        for (uint32_t r = 0; r < ROWS; r++) {
            const uint32_t position = 13 + r;
            for (uint32_t h = 0; h < 2 * KV_HEADS; h++) {
                const uint64_t at =
                    cuda_kv_row(&view, h % KV_HEADS, position < 16 ? 2 : 0, position);
                store(type, values + r * VALUES + (1 + h) * HEAD,
                      (h < KV_HEADS ? want.k : want.v) + at * cuda_kv_row_bytes(type, HEAD),
                      (h < KV_HEADS ? want.k_scales : want.v_scales) + at);
            }
        }
        run_append(type, values, &got, faults);
        assert_memory_equal(&got, &want, sizeof got);
        for (uint32_t r = 0; r < ROWS; r++) {
            assert_int_equal(faults[r], r == 2);
        }
    }
    /* Finite, whatever came: the largest code times its scale. */
    const struct cuda_kv_view view = view_of(&got, KV_TYPE_FP8);
    assert_true(isfinite(448 * got.k_scales[cuda_kv_row(&view, 0, 0, 16)]));
}

static void pages_are_copied_with_their_scales(void **state)
{
    static struct typed_pool before, got;
    static const struct plan_kv_copy copy = {1, 2, 5};

    (void)state;
    for (uint32_t i = 0; i < sizeof before.k; i++) {
        before.k[i] = (uint8_t)(i * 7);
        before.v[i] = (uint8_t)(i * 11);
        before.k_scales[i % POOL_ROWS] = (float)(i % POOL_ROWS);
        before.v_scales[i % POOL_ROWS] = -(float)(i % POOL_ROWS);
    }
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t bytes = cuda_kv_row_bytes(types[i], HEAD);
        const bool scaled = types[i] == KV_TYPE_FP8;
        struct cuda_plan_view plan = {};
        struct kv_copy_view view = {};
        struct card card;

        configure(i);
        card_open(&card);
        got = before;
        struct typed_pool *there = card_give(&card, &got, 1);
        plan.kv_copy_count = 1;
        plan.kv_copies = card_give(&card, &copy, 1);
        view.k = there->k;
        view.v = there->v;
        view.k_scales = scaled ? there->k_scales : NULL;
        view.v_scales = scaled ? there->v_scales : NULL;
        view.plane_count = KV_HEADS;
        view.page_count = PAGES;
        view.row_bytes = bytes;
        assert_int_equal(device_launch<kv_copy_kernel>(
                             card.device, 2, 1, KV_COPY_THREADS, 0,
                             card_give<const struct cuda_plan_view>(&card, &plan, 1), view),
                         STATUS_OK);
        card_take(&card);
        card_finish(&card);
        for (uint32_t row = 0; row < POOL_ROWS; row++) {
            const bool copied = row / 16 % PAGES == 2 && row % 16 < 5;
            const uint32_t from = copied ? row - 16 : row, scale_from = scaled ? from : row;
            assert_memory_equal(got.k + row * bytes, before.k + from * bytes, bytes);
            assert_memory_equal(got.v + row * bytes, before.v + from * bytes, bytes);
            assert_true(got.k_scales[row] == before.k_scales[scale_from]);
            assert_true(got.v_scales[row] == before.v_scales[scale_from]);
        }
    }
}

static void the_numerics_id_and_the_bytes_of_a_page_name_the_type(void **state)
{
    static const char *const ids[] = {"kv-f16", "kv-bf16", "kv-fp8"};
    const struct kv_shape shape = {4, 2, 64, 10};
    const uint64_t rows = 2 * 4 * 2 * 16; /* K and V, layers, heads, positions */
    const uint64_t bytes[] = {rows * 128, rows * 128, rows * (64 + 4)};

    (void)state;
    configure(0);
    for (uint32_t i = 0; i < 3; i++) {
        struct backend_settings settings = {};
        struct backend *backend = NULL;
        struct backend_kv *kv = NULL;
        struct error error = {};

        settings.row_count_max = settings.sample_count_max = settings.slot_count = 2;
        settings.history_tokens_max = 16;
        settings.vocabulary_count = 8;
        settings.partial_count_max = 2;
        settings.kv_type = types[i];
        assert_int_equal(backend_cuda_ops.create(&settings, &error, &backend), STATUS_OK);
        assert_non_null(strstr(backend_cuda_ops.numerics_id(backend), ids[i]));
        assert_int_equal(backend_cuda_ops.kv_page_bytes(backend, &shape), bytes[i]);
        assert_int_equal(backend_cuda_ops.kv_create(backend, &shape, &error, &kv), STATUS_OK);
        backend_cuda_ops.destroy(backend);
        if (types[i] == KV_TYPE_FP8) {
            assert_int_equal(backend_cpu_ops.create(&settings, &error, &backend),
                             STATUS_UNSUPPORTED);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appended_numbers_are_those_of_the_type),
        cmocka_unit_test(pages_are_copied_with_their_scales),
        cmocka_unit_test(the_numerics_id_and_the_bytes_of_a_page_name_the_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
