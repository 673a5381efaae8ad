/* Goal: what follows the QKV product is right: bias, head norm, rotation, q in float, k and v in
 * half on the row's own page; a NaN faults its own row only; a row's bits are its own.
 * Method: compare with double precision within a derived bound; compare the whole of the poisoned
 * pool, so that a write anywhere else shows; rows alone against rows among others by memcmp, under
 * three schedules. A twin at the neighbouring position must differ.
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

#include "kernels/cuda/attn_in.cuh"
#include "tests/emulator/card.h"

enum { PAGE_COUNT = 6, ROWS = 5, HEADS_MAX = 8, KV_HEADS_MAX = 3, PAIRS_MAX = 128 };
enum { POISON = 0x7e11, PAGES_A_ROW = 3 };

struct heads_shape {
    uint32_t head_count, kv_head_count, head_size, pair_count;
    enum rope_style style;
    bool biased, normed;
};

static const struct heads_shape shapes[] = {
    {3, 1, 64, 32, ROPE_ADJACENT, false, false}, {4, 2, 80, 20, ROPE_HALVES, true, false},
    {2, 1, 96, 48, ROPE_HALVES, false, true},    {6, 3, 128, 64, ROPE_ADJACENT, true, true},
    {1, 1, 256, 128, ROPE_HALVES, true, true},   {1, 1, 64, 0, ROPE_ADJACENT, false, false},
};

static const float epsilon = 1e-5f;

struct heads_rig {
    struct heads_shape shape;
    uint32_t row_count;
    uint64_t pool_count;
    float *qkv, *q; /* all owned and of exactly the size */
    uint16_t *k, *v;
    float *bias; /* of q, k, v */
    float *norm; /* of q, k */
    double *frequencies;
    struct plan_row rows[ROWS];
    uint32_t pages[ROWS * PAGES_A_ROW];
    uint8_t faults[ROWS];
};

static float value_of(uint32_t stream, uint32_t index)
{
    uint64_t z = ((uint64_t)stream << 32 | index) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 31)) * UINT64_C(0x94d049bb133111eb);
    return (float)(int32_t)(z >> 32) * 0x1p-30f;
}

static uint32_t head_total(const struct heads_shape *shape)
{
    return shape->head_count + 2 * shape->kv_head_count;
}

/* Rows `first` to first + row_count of the same five rows. */
static void rig_init(struct heads_rig *rig, const struct heads_shape *shape, uint32_t first,
                     uint32_t row_count)
{
    static const uint32_t positions[ROWS] = {5, 17, 31, 32, 47};
    const uint32_t width = head_total(shape) * shape->head_size;

    memset(rig, 0, sizeof *rig);
    rig->shape = *shape;
    rig->row_count = row_count;
    rig->pool_count =
        (uint64_t)shape->kv_head_count * PAGE_COUNT * KV_PAGE_TOKEN_COUNT * shape->head_size;
    rig->qkv = (float *)malloc((uint64_t)row_count * width * sizeof(float));
    rig->q =
        (float *)malloc((uint64_t)row_count * shape->head_count * shape->head_size * sizeof(float));
    rig->k = (uint16_t *)malloc(rig->pool_count * sizeof(uint16_t));
    rig->v = (uint16_t *)malloc(rig->pool_count * sizeof(uint16_t));
    rig->bias = (float *)malloc(width * sizeof(float));
    rig->norm = (float *)malloc(2 * (uint64_t)shape->head_size * sizeof(float));
    rig->frequencies = (double *)malloc((shape->pair_count + 1) * sizeof(double));
    for (uint64_t i = 0; i < rig->pool_count; i++) {
        rig->k[i] = POISON;
        rig->v[i] = POISON;
    }
    memset(rig->q, 0xff,
           (uint64_t)row_count * shape->head_count * shape->head_size * sizeof(float));
    for (uint32_t i = 0; i < width; i++) {
        rig->bias[i] = value_of(100, i);
    }
    for (uint32_t i = 0; i < 2 * shape->head_size; i++) {
        rig->norm[i] = 1.0f + 0.25f * value_of(101, i);
    }
    for (uint32_t i = 0; i < shape->pair_count; i++) {
        rig->frequencies[i] = pow(10000.0, -(double)i / shape->pair_count);
    }
    for (uint32_t r = 0; r < row_count; r++) {
        const uint32_t row = first + r;
        rig->rows[r].position = positions[row];
        rig->rows[r].page_first = r * PAGES_A_ROW;
        rig->rows[r].writes_kv = row != 2;
        for (uint32_t i = 0; i < PAGES_A_ROW; i++) {
            /* Rows 1 and 2, and 3 and 4, share a sequence. */
            rig->pages[r * PAGES_A_ROW + i] = (i * 2 + (row + 1) / 2) % PAGE_COUNT;
        }
        for (uint32_t i = 0; i < width; i++) {
            rig->qkv[(uint64_t)r * width + i] = value_of(row, i);
        }
    }
}

static void rig_finish(struct heads_rig *rig)
{
    free(rig->qkv);
    free(rig->q);
    free(rig->k);
    free(rig->v);
    free(rig->bias);
    free(rig->norm);
    free(rig->frequencies);
}

static void rig_run(struct heads_rig *rig, enum emulator_schedule schedule, uint32_t blocks)
{
    const struct heads_shape *shape = &rig->shape;
    const struct emulator_settings settings = {schedule, 4, false, 90};
    const uint32_t width = head_total(shape) * shape->head_size;
    const float *norm;
    struct cuda_plan_view plan = {};
    struct attn_in_view view = {};
    struct card card;

    emulator_configure(&settings);
    card_open(&card);
    plan.row_count = rig->row_count;
    plan.rows = card_give<const struct plan_row>(&card, rig->rows, rig->row_count);
    plan.pages = card_give<const uint32_t>(&card, rig->pages, rig->row_count * PAGES_A_ROW);
    plan.row_faults = card_give(&card, rig->faults, rig->row_count);
    view.qkv = card_give<const float>(&card, rig->qkv, (uint64_t)rig->row_count * width);
    view.q =
        card_give(&card, rig->q, (uint64_t)rig->row_count * shape->head_count * shape->head_size);
    view.kv.k = (uint8_t *)card_give(&card, rig->k, rig->pool_count);
    view.kv.v = (uint8_t *)card_give(&card, rig->v, rig->pool_count);
    view.kv.page_count = PAGE_COUNT;
    view.kv.head_size = shape->head_size;
    if (shape->biased) {
        view.bq = card_give<const float>(&card, rig->bias, width);
        view.bk = view.bq + shape->head_count * shape->head_size;
        view.bv = view.bk + shape->kv_head_count * shape->head_size;
    }
    if (shape->normed) {
        norm = card_give<const float>(&card, rig->norm, 2 * (uint64_t)shape->head_size);
        view.q_norm = norm;
        view.k_norm = norm + shape->head_size;
    }
    view.inverse_frequency = card_give<const double>(&card, rig->frequencies, shape->pair_count);
    view.epsilon = epsilon;
    view.head_count = shape->head_count;
    view.kv_head_count = shape->kv_head_count;
    view.head_size = shape->head_size;
    view.pair_count = shape->pair_count;
    view.rope_style = shape->style;
    assert_int_equal(device_launch<attn_in_finish_kernel>(
                         card.device, blocks, 1, ATTN_IN_THREADS,
                         attn_in_shared_bytes(shape->pair_count),
                         card_give<const struct cuda_plan_view>(&card, &plan, 1), view),
                     STATUS_OK);
    card_take(&card);
    card_finish(&card);
}

/* ---- against double ---- */

/* One head in double, and how far fp32 may be off: with u = 2^-24, the bias adds u, the norm's sum
 * head_size u at most, its factors 8 u, sine and cosine 2 u, the rotation 2 u; all of a magnitude
 * of |a| + |b|. */
static void exact_head(const struct heads_rig *rig, uint32_t row, uint32_t index, double *out,
                       double *bound)
{
    const struct heads_shape *shape = &rig->shape;
    const uint64_t at = (uint64_t)index * shape->head_size;
    const float *values = rig->qkv + (uint64_t)row * head_total(shape) * shape->head_size + at;
    const bool is_v = index >= shape->head_count + shape->kv_head_count;
    const float *norm = rig->norm + (index < shape->head_count ? 0 : shape->head_size);
    const double slack = (shape->head_size + 16.0) * 0x1p-24;
    double squares = 0;

    for (uint32_t d = 0; d < shape->head_size; d++) {
        out[d] = values[d] + (shape->biased ? (double)rig->bias[at + d] : 0.0);
        squares += out[d] * out[d];
    }
    for (uint32_t d = 0; d < shape->head_size; d++) {
        if (shape->normed && !is_v) {
            out[d] = out[d] / sqrt(squares / shape->head_size + epsilon) * norm[d];
        }
        bound[d] = fabs(out[d]) * slack + (shape->biased ? 4.0 * 0x1p-24 * norm[d] * 4 : 0);
    }
    for (uint32_t i = 0; !is_v && i < shape->pair_count; i++) {
        const uint32_t first = shape->style == ROPE_ADJACENT ? 2 * i : i;
        const uint32_t second = shape->style == ROPE_ADJACENT ? first + 1 : i + shape->pair_count;
        const double angle = rig->rows[row].position * rig->frequencies[i];
        const double a = out[first], b = out[second];
        out[first] = a * cos(angle) - b * sin(angle);
        out[second] = a * sin(angle) + b * cos(angle);
        bound[first] = bound[second] =
            bound[first] + bound[second] + 4 * 0x1p-24 * (fabs(a) + fabs(b));
    }
}

/* Where a key or value of a row lies. */
static uint64_t slot_of(const struct heads_rig *rig, uint32_t row, uint32_t kv_head)
{
    const uint32_t position = rig->rows[row].position;
    const uint32_t page = rig->pages[rig->rows[row].page_first + position / KV_PAGE_TOKEN_COUNT];
    return (((uint64_t)kv_head * PAGE_COUNT + page) * KV_PAGE_TOKEN_COUNT +
            position % KV_PAGE_TOKEN_COUNT) *
           rig->shape.head_size;
}

/* Checks a stored head and puts the poison back. */
static void check_stored(uint16_t *stored, uint32_t head_size, const double *want,
                         const double *bound)
{
    for (uint32_t d = 0; d < head_size; d++) {
        const double error = fabs((double)steps_float_from_half(stored[d]) - want[d]);
        assert_true(error <= bound[d] * 2 + fabs(want[d]) * 0x1p-11 + 0x1p-25);
        stored[d] = POISON;
    }
}

static void check_row(struct heads_rig *rig, uint32_t row)
{
    const struct heads_shape *shape = &rig->shape;
    double want[BACKEND_HEAD_SIZE_MAX], bound[BACKEND_HEAD_SIZE_MAX];

    for (uint32_t h = 0; h < head_total(shape); h++) {
        exact_head(rig, row, h, want, bound);
        if (h < shape->head_count) {
            const float *q = rig->q + ((uint64_t)row * shape->head_count + h) * shape->head_size;
            for (uint32_t d = 0; d < shape->head_size; d++) {
                assert_true(fabs(q[d] - want[d]) <= bound[d]);
            }
        } else if (rig->rows[row].writes_kv != 0) {
            const uint32_t kv = h - shape->head_count;
            uint16_t *pool = kv < shape->kv_head_count ? rig->k : rig->v;
            check_stored(pool + slot_of(rig, row, kv % shape->kv_head_count), shape->head_size,
                         want, bound);
        }
    }
}

static void test_heads_are_right_and_nothing_else_is_written(void **state)
{
    (void)state;

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct heads_rig rig;
        rig_init(&rig, &shapes[s], 0, ROWS);
        rig_run(&rig, (enum emulator_schedule)(s % 3), 2);
        for (uint32_t row = 0; row < ROWS; row++) {
            check_row(&rig, row);
            assert_int_equal(rig.faults[row], 0);
        }
        for (uint64_t i = 0; i < rig.pool_count; i++) {
            assert_int_equal(rig.k[i], POISON);
            assert_int_equal(rig.v[i], POISON);
        }
        rig_finish(&rig);
    }
}

/* ---- bits ---- */

static void test_a_row_has_the_same_bits_alone_and_among_others(void **state)
{
    (void)state;

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const uint32_t size = shapes[s].head_size;
        struct heads_rig all;
        rig_init(&all, &shapes[s], 0, ROWS);
        rig_run(&all, EMULATOR_SHUFFLED, 3);
        for (uint32_t row = 0; row < ROWS; row++) {
            const uint64_t q_floats = (uint64_t)shapes[s].head_count * size;
            struct heads_rig one;
            rig_init(&one, &shapes[s], row, 1);
            rig_run(&one, EMULATOR_DESCENDING, 1);
            assert_memory_equal(one.q, all.q + row * q_floats, q_floats * sizeof(float));
            for (uint32_t kv = 0; kv < shapes[s].kv_head_count; kv++) {
                assert_memory_equal(one.k + slot_of(&one, 0, kv), all.k + slot_of(&all, row, kv),
                                    size * sizeof(uint16_t));
                assert_memory_equal(one.v + slot_of(&one, 0, kv), all.v + slot_of(&all, row, kv),
                                    size * sizeof(uint16_t));
            }
            rig_finish(&one);
        }
        rig_finish(&all);
    }
}

static void test_another_position_gives_other_bits(void **state)
{
    (void)state;
    struct heads_rig one, other;

    rig_init(&one, &shapes[0], 1, 1);
    rig_init(&other, &shapes[0], 1, 1);
    other.rows[0].position++;
    rig_run(&one, EMULATOR_ASCENDING, 1);
    rig_run(&other, EMULATOR_ASCENDING, 1);
    assert_memory_not_equal(one.q, other.q, 3 * 64 * sizeof(float));
    rig_finish(&one);
    rig_finish(&other);
}

static void test_a_nan_faults_its_own_row_and_infinity_saturates(void **state)
{
    (void)state;
    struct heads_rig rig;
    const uint32_t width = head_total(&shapes[0]) * 64;

    rig_init(&rig, &shapes[0], 0, ROWS);
    rig.qkv[1 * width + 4 * 64 + 9] = NAN; /* in v of row 1 */
    rig.qkv[2 * width + 4 * 64 + 9] = NAN; /* row 2 writes nothing */
    rig.qkv[3 * width + 0 * 64 + 9] = NAN; /* a query is no fault of the pages */
    rig.qkv[4 * width + 4 * 64 + 9] = -INFINITY;
    rig_run(&rig, EMULATOR_ASCENDING, ROWS);
    for (uint32_t row = 0; row < ROWS; row++) {
        assert_int_equal(rig.faults[row], row == 1);
    }
    assert_int_equal(rig.v[slot_of(&rig, 1, 0) + 9], 0);
    assert_int_equal(rig.v[slot_of(&rig, 4, 0) + 9], 0xfbff);
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads_are_right_and_nothing_else_is_written),
        cmocka_unit_test(test_a_row_has_the_same_bits_alone_and_among_others),
        cmocka_unit_test(test_another_position_gives_other_bits),
        cmocka_unit_test(test_a_nan_faults_its_own_row_and_infinity_saturates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
