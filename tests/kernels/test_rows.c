/* Goal: norm, quantising, activation, rotation and rounding to half give the scalar definition's
 * bits on every instruction set and length, and the definition is right at its edges. Method:
 * scalar against the others by memcmp over lengths 1 to 70 and values of every size; blocks with
 * zeros, tiny values, ties, infinities and NaNs against what rows.h says, in 8 bits and in 16; silu
 * against double; rounding at and beside every tie between two halves.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows_scalar.h"
#include "kernels/steps/math.h"
#include "support/isa_names.h"
#include "support/random_weight.h"

enum { LENGTH_MAX = 70, PAIR_COUNT_MAX = 35 };

static const struct cpu_kernels *kernels_of(size_t index)
{
    enum cpu_isa isa;

    return cpu_isa_choose(isa_names[index], NULL, &isa) == STATUS_OK ? cpu_isa_kernels(isa) : NULL;
}

static void test_norms_are_equal_at_every_length(void **state)
{
    float x[LENGTH_MAX], weight[LENGTH_MAX], expected[LENGTH_MAX], got[LENGTH_MAX];
    uint64_t seed = 1;

    (void)state;
    for (uint32_t length = 1; length <= LENGTH_MAX; length++) {
        random_floats(&seed, x, length);
        random_floats(&seed, weight, length);
        cpu_rms_norm_scalar(x, weight, 1e-6f, length, expected);
        for (size_t i = 1; i < ISA_NAME_COUNT && kernels_of(i) != NULL; i++) {
            kernels_of(i)->rms_norm(x, weight, 1e-6f, length, got);
            assert_memory_equal(got, expected, length * sizeof(float));
        }
    }
}

static void test_activations_are_equal_and_close_to_double(void **state)
{
    float gate[LENGTH_MAX], up[LENGTH_MAX], expected[LENGTH_MAX], got[LENGTH_MAX];
    uint64_t seed = 2;

    (void)state;
    for (uint32_t round = 0; round < 2000; round++) {
        const uint32_t length = 1 + round % LENGTH_MAX;
        const float scale = ldexpf(1.0f, (int)(round % 16) - 6);

        random_floats(&seed, gate, length);
        random_floats(&seed, up, length);
        for (uint32_t i = 0; i < length; i++) {
            gate[i] *= scale;
            expected[i] = gate[i];
        }
        cpu_silu_multiply_scalar(expected, up, length);
        for (uint32_t i = 0; i < length; i++) {
            const double z = (double)gate[i];
            const double exact = z / (1.0 + exp(-z)) * (double)up[i];

            /* exp within an ulp, a sum, a quotient, two products; below z = -41 the result is 0. */
            assert_true(fabs(expected[i] - exact) <= 4 * 0x1p-23 * fabs(exact) + 1e-16);
            assert_int_not_equal(fpclassify(expected[i]), FP_SUBNORMAL);
        }
        for (size_t k = 1; k < ISA_NAME_COUNT && kernels_of(k) != NULL; k++) {
            memcpy(got, gate, sizeof(got));
            kernels_of(k)->silu_multiply(got, up, length);
            assert_memory_equal(got, expected, length * sizeof(float));
        }
    }
}

static void test_rotations_are_equal_in_both_styles(void **state)
{
    float head[2 * PAIR_COUNT_MAX], cosines[PAIR_COUNT_MAX], sines[PAIR_COUNT_MAX];
    float expected[2 * PAIR_COUNT_MAX], got[2 * PAIR_COUNT_MAX];
    uint64_t seed = 3;

    (void)state;
    random_floats(&seed, head, 2 * PAIR_COUNT_MAX);
    random_floats(&seed, cosines, PAIR_COUNT_MAX);
    random_floats(&seed, sines, PAIR_COUNT_MAX);
    for (uint32_t pairs = 0; pairs <= PAIR_COUNT_MAX; pairs++) {
        for (uint32_t style = ROPE_ADJACENT; style <= ROPE_HALVES; style++) {
            memcpy(expected, head, sizeof(head));
            cpu_rotate_scalar(expected, cosines, sines, pairs, (enum rope_style)style);
            for (size_t k = 1; k < ISA_NAME_COUNT && kernels_of(k) != NULL; k++) {
                memcpy(got, head, sizeof(head));
                kernels_of(k)->rotate(got, cosines, sines, pairs, (enum rope_style)style);
                assert_memory_equal(got, expected, sizeof(head));
            }
        }
    }
}

enum { TIES_COUNT = 0x7c00, NEIGHBOURS = 3, LONGEST = 19 };

/* What lies in the middle between the half `index` and the next, and one float to each side. */
static float beside_tie(uint32_t index, uint32_t neighbour, bool is_negative)
{
    const float low = steps_float_from_half((uint16_t)index);
    const float high = index == 0x7bff ? 65536.0f : steps_float_from_half((uint16_t)(index + 1));
    const uint32_t bits = steps_bits_from_float(low + (high - low) / 2) + neighbour - 1;

    return steps_float_from_bits(is_negative ? bits | 0x80000000u : bits);
}

/* Every value once of each sign, in runs of all lengths from 1 to LONGEST; `shift` moves them by as
 * many floats. Answers how many halves differ from those of the values as they are. */
static uint32_t differing_halves(const struct cpu_kernels *kernels, uint32_t shift)
{
    uint32_t differing = 0, at = 0;

    while (at < 2 * NEIGHBOURS * TIES_COUNT) {
        const uint32_t length = 1 + at % LONGEST;
        float x[LONGEST];
        uint16_t expected[LONGEST], got[LONGEST + 1];

        for (uint32_t i = 0; i < length; i++) {
            const uint32_t value = (at + i) / 2 % (NEIGHBOURS * TIES_COUNT);
            const float exact =
                beside_tie(value / NEIGHBOURS, value % NEIGHBOURS, (at + i) % 2 == 1);

            expected[i] = steps_half_from_float(exact);
            x[i] = steps_float_from_bits(steps_bits_from_float(exact) + shift);
        }
        got[length] = 0x5a5a;
        assert_false(kernels->round_to_half(x, length, got));
        assert_int_equal(got[length], 0x5a5a);
        for (uint32_t i = 0; i < length; i++) {
            differing += got[i] != expected[i] ? 1 : 0;
        }
        at += length;
    }
    return differing;
}

static void test_halves_are_equal_at_and_beside_every_tie(void **state)
{
    (void)state;
    for (size_t k = 0; k < ISA_NAME_COUNT && kernels_of(k) != NULL; k++) {
        assert_int_equal(differing_halves(kernels_of(k), 0), 0);
        /* One float more decides differently at a tie to the lower half, and just below any. */
        assert_true(differing_halves(kernels_of(k), 1) > TIES_COUNT);
    }
}

static void test_halves_saturate_and_a_nan_is_told_in_every_lane(void **state)
{
    const float large[] = {65519.0f, 65520.0f, 1e30f, INFINITY};
    float x[LONGEST];
    uint16_t got[LONGEST];

    (void)state;
    for (size_t k = 0; k < ISA_NAME_COUNT && kernels_of(k) != NULL; k++) {
        for (uint32_t lane = 0; lane < LONGEST; lane++) {
            for (uint32_t i = 0; i < LONGEST; i++) {
                x[i] = (i % 2 == 0 ? 1.0f : -1.0f) * large[i % 4];
            }
            assert_false(kernels_of(k)->round_to_half(x, LONGEST, got));
            x[lane] = lane % 2 == 0 ? NAN : -NAN;
            assert_true(kernels_of(k)->round_to_half(x, LONGEST, got));
            for (uint32_t i = 0; i < LONGEST; i++) {
                assert_int_equal(got[i], i == lane ? 0 : i % 2 == 0 ? 0x7bff : 0xfbff);
            }
        }
    }
}

/* Every upper half of a float's bits, with lower halves around a tie; the definition spelt out. */
static void test_bf16_is_rounded_clipped_and_told_in_every_lane(void **state)
{
    static const uint32_t lower[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};

    (void)state;
    for (size_t k = 0; k < ISA_NAME_COUNT && kernels_of(k) != NULL; k++) {
        for (uint32_t at = 0; at < 6u << 16; at += LONGEST) {
            float x[LONGEST];
            uint16_t want[LONGEST], got[LONGEST];
            bool has_nan = false;

            for (uint32_t i = 0; i < LONGEST; i++) {
                const uint32_t bits = ((at + i) / 6 % 0x10000) << 16 | lower[(at + i) % 6];
                uint16_t nearest;

                x[i] = steps_float_from_bits(bits);
                nearest = steps_bf16_from_float(x[i]);
                want[i] = fabsf(steps_float_from_bf16(nearest)) < 0x1p-56f ? 0 : nearest;
                want[i] =
                    isinf(steps_float_from_bf16(nearest)) ? (nearest & 0x8000) | 0x7f7f : want[i];
                want[i] = isnan(x[i]) ? 0 : want[i];
                has_nan = has_nan || isnan(x[i]);
            }
            assert_int_equal(kernels_of(k)->round_to_bf16(x, LONGEST, got), has_nan);
            assert_memory_equal(got, want, sizeof want);
        }
    }
}

/* All that packing one row of one block writes. */
struct packed {
    int8_t codes[CPU_BLOCK], low_codes[CPU_BLOCK];
    float scale, sum;
    int32_t code_sum, half_sums[2];
};

static void pack(void (*kernel)(struct cpu_rows *rows, const struct cpu_tile_part *part),
                 bool precise, const float *x, struct packed *out)
{
    struct cpu_rows *rows;

    assert_int_equal(cpu_rows_create(1, 1, precise, false, &rows), STATUS_OK);
    assert_int_equal(cpu_rows_reserve(rows, CPU_BLOCK), STATUS_OK);
    cpu_rows_begin(rows, 1, CPU_BLOCK, (struct cpu_row_forms){true, false, true, true});
    kernel(rows, &(struct cpu_tile_part){0, 0, CPU_BLOCK, x, CPU_BLOCK});
    assert_memory_equal(rows->values, x, CPU_BLOCK * sizeof(float));
    memset(out, 0, sizeof(*out));
    memcpy(out->codes, rows->codes, CPU_BLOCK);
    if (precise) {
        memcpy(out->low_codes, rows->low_codes, CPU_BLOCK);
    }
    out->scale = rows->scales[0];
    out->sum = rows->sums[0];
    out->code_sum = rows->code_sums[0];
    memcpy(out->half_sums, rows->half_sums, sizeof(out->half_sums));
    cpu_rows_destroy(rows);
}

/* The scalar result, after the others have been found equal to it. */
static void pack_on_all(bool precise, const float *x, struct packed *out)
{
    struct packed other;

    pack(cpu_pack_scalar, precise, x, out);
    for (size_t k = 1; k < ISA_NAME_COUNT && kernels_of(k) != NULL; k++) {
        pack(kernels_of(k)->pack, precise, x, &other);
        assert_memory_equal(&other, out, sizeof(other));
    }
}

static int32_t code_of(const struct packed *packed, bool precise, uint32_t i)
{
    return precise ? CPU_CODE_RADIX * packed->codes[i] + packed->low_codes[i] : packed->codes[i];
}

static void check_nearest(bool precise)
{
    const int32_t code_max = precise ? CPU_PRECISE_CODE_MAX : CPU_CODE_MAX;
    float x[CPU_BLOCK];
    uint64_t seed = 4;
    struct packed packed;

    for (int32_t round = 0; round < 3000; round++) {
        float amax = 0.0f;
        int32_t sum = 0;

        random_floats(&seed, x, CPU_BLOCK);
        for (uint32_t i = 0; i < CPU_BLOCK; i++) {
            x[i] = ldexpf(x[i], round % 150 - 75);
            amax = fmaxf(amax, fabsf(x[i]));
        }
        pack_on_all(precise, x, &packed);
        assert_true(packed.scale == (amax < 0x1p-80f ? 0.0f : amax / (float)code_max));
        for (uint32_t i = 0; i < CPU_BLOCK; i++) {
            const int32_t code = code_of(&packed, precise, i);
            const double value = (double)packed.scale * code;

            sum += code;
            assert_in_range(code + code_max, 0, 2 * code_max);
            assert_in_range(packed.codes[i] + CPU_CODE_MAX, 0, 2 * CPU_CODE_MAX);
            assert_in_range(packed.low_codes[i] + CPU_CODE_MAX, 0, 2 * CPU_CODE_MAX);
            /* Half a step, and the roundings of the scale, the factor and the product. */
            assert_true(fabs(value - (double)x[i]) <=
                        0.5 * (double)amax / code_max + 4 * 0x1p-24 * (double)amax + 0x1p-80);
        }
        assert_int_equal(packed.code_sum, -sum);
        assert_int_equal(packed.half_sums[0] + packed.half_sums[1], -sum);
        assert_true(packed.sum == packed.scale * (float)sum);
    }
}

static void test_blocks_quantise_to_the_nearest_code(void **state)
{
    (void)state;
    check_nearest(false);
    check_nearest(true);
}

/* Every code of 16 bits, as a block whose scale is 1. */
static void test_every_precise_code_has_one_pair(void **state)
{
    float x[CPU_BLOCK] = {(float)CPU_PRECISE_CODE_MAX};
    struct packed packed;

    (void)state;
    for (int32_t first = -CPU_PRECISE_CODE_MAX; first <= CPU_PRECISE_CODE_MAX; first += 31) {
        for (uint32_t i = 1; i < CPU_BLOCK; i++) {
            const int32_t code = first + (int32_t)i - 1;

            x[i] = (float)(code < CPU_PRECISE_CODE_MAX ? code : CPU_PRECISE_CODE_MAX);
        }
        pack_on_all(true, x, &packed);
        assert_true(packed.scale == 1.0f);
        for (uint32_t i = 0; i < CPU_BLOCK; i++) {
            assert_true((float)code_of(&packed, true, i) == x[i]);
        }
    }
}

static void test_ties_go_to_even(void **state)
{
    float x[CPU_BLOCK] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127.0f};
    struct packed packed;

    (void)state;
    pack_on_all(false, x, &packed);
    assert_int_equal(packed.codes[0], 127);
    assert_int_equal(packed.codes[1], 0);
    assert_int_equal(packed.codes[2], 2);
    assert_int_equal(packed.codes[3], 2);
    assert_int_equal(packed.codes[4], 0);
    assert_int_equal(packed.codes[5], -2);
    assert_int_equal(packed.codes[6], -2);
    assert_int_equal(packed.codes[7], -127);
}

static void test_nothing_and_less_than_nothing_quantise_to_zero(void **state)
{
    const struct packed zero = {0};
    float x[CPU_BLOCK] = {0};
    struct packed packed;

    (void)state;
    for (uint32_t precise = 0; precise < 2; precise++) {
        memset(x, 0, sizeof(x));
        pack_on_all(precise != 0, x, &packed);
        assert_memory_equal(&packed, &zero, sizeof(zero));
        x[3] = -0.0f;
        x[9] = 0x1.fp-81f;
        x[20] = 0x1p-149f;
        pack_on_all(precise != 0, x, &packed);
        assert_memory_equal(&packed, &zero, sizeof(zero));
    }
}

static void test_a_nan_or_an_infinity_makes_the_scale_a_nan(void **state)
{
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    uint64_t seed = 5;

    (void)state;
    for (size_t b = 0; b < sizeof(bad) / sizeof(bad[0]); b++) {
        for (uint32_t at = 0; at < CPU_BLOCK; at++) {
            float x[CPU_BLOCK];
            struct packed packed;

            random_floats(&seed, x, CPU_BLOCK);
            x[at] = bad[b];
            pack_on_all(at % 2 == 0, x, &packed);
            assert_true(isnan(packed.scale) && isnan(packed.sum));
            assert_int_equal(packed.code_sum, 0);
        }
    }
}

/* Two tiles, the second lower. */
enum { WIDE_BLOCKS = 19, WIDE_ROWS = 13, WIDE_COLS = WIDE_BLOCKS * CPU_BLOCK };

typedef void pack_kernel(struct cpu_rows *rows, const struct cpu_tile_part *part);

/* Some blocks are zero, too small, or not finite. */
static void fill_wide(float x[WIDE_ROWS][WIDE_COLS])
{
    uint64_t seed = 21;

    random_floats(&seed, x[0], (size_t)WIDE_ROWS * WIDE_COLS);
    memset(x[0] + (size_t)2 * CPU_BLOCK, 0, CPU_BLOCK * sizeof(float));
    x[1][7 * CPU_BLOCK + 31] = NAN;
    x[1][8 * CPU_BLOCK] = -INFINITY;
    x[12][18 * CPU_BLOCK + 5] = INFINITY;
    for (uint32_t i = 0; i < CPU_BLOCK; i++) {
        x[2][16 * CPU_BLOCK + i] *= 0x1p-90f;
    }
}

/* Rows of many blocks, packed in parts of so many blocks. */
static struct cpu_rows *pack_wide(pack_kernel *kernel, bool precise, uint32_t block_count)
{
    static float x[WIDE_ROWS][WIDE_COLS];
    struct cpu_rows *rows;

    fill_wide(x);
    assert_int_equal(cpu_rows_create(WIDE_ROWS, 1, precise, false, &rows), STATUS_OK);
    assert_int_equal(cpu_rows_reserve(rows, WIDE_COLS), STATUS_OK);
    cpu_rows_begin(rows, WIDE_ROWS, WIDE_COLS, (struct cpu_row_forms){true, true, true, true});
    for (uint32_t t = 0; t < rows->tile_count; t++) {
        for (uint32_t b = 0; b < WIDE_BLOCKS; b += block_count) {
            const uint32_t left = WIDE_BLOCKS - b;
            const struct cpu_tile_part part = {
                .tile = t,
                .col_first = b * CPU_BLOCK,
                .col_count = (block_count < left ? block_count : left) * CPU_BLOCK,
                .x = x[t * rows->tile_rows] + (size_t)b * CPU_BLOCK,
                .stride = WIDE_COLS,
            };

            kernel(rows, &part);
        }
    }
    return rows;
}

/* Whether all that is packed equals what the scalar kernel packs of whole rows. */
static bool packs_as_scalar(pack_kernel *kernel, bool precise, uint32_t block_count)
{
    const size_t count = (size_t)WIDE_ROWS * WIDE_BLOCKS;
    struct cpu_rows *expected = pack_wide(cpu_pack_scalar, precise, WIDE_BLOCKS);
    struct cpu_rows *got = pack_wide(kernel, precise, block_count);
    const bool same =
        memcmp(expected->values, got->values, count * CPU_BLOCK * sizeof(float)) == 0 &&
        memcmp(expected->paired, got->paired, count * CPU_BLOCK * sizeof(float)) == 0 &&
        memcmp(expected->codes, got->codes, count * CPU_BLOCK) == 0 &&
        memcmp(expected->scales, got->scales, count * sizeof(float)) == 0 &&
        memcmp(expected->sums, got->sums, count * sizeof(float)) == 0 &&
        memcmp(expected->code_sums, got->code_sums, count * sizeof(int32_t)) == 0 &&
        memcmp(expected->half_sums, got->half_sums, 2 * count * sizeof(int32_t)) == 0 &&
        (!precise || memcmp(expected->low_codes, got->low_codes, count * CPU_BLOCK) == 0);

    cpu_rows_destroy(expected);
    cpu_rows_destroy(got);
    return same;
}

static void test_parts_of_rows_pack_as_the_scalar_kernel_packs_whole_rows(void **state)
{
    static const uint32_t block_counts[] = {1, 2, 5, 8, WIDE_BLOCKS};

    (void)state;
    for (size_t i = 0; i < 2 * ISA_NAME_COUNT; i++) {
        const struct cpu_kernels *kernels = kernels_of(i / 2);

        for (size_t b = 0; kernels != NULL && b < 5; b++) {
            assert_true(packs_as_scalar(kernels->pack, i % 2 == 0, block_counts[b]));
        }
    }
}

/* Wrong on purpose: the half sums of one block are exchanged. */
static void pack_halves_exchanged(struct cpu_rows *rows, const struct cpu_tile_part *part)
{
    const uint32_t height = rows->tile_rows;
    int32_t *half_sums = rows->half_sums + (size_t)2 * 9 * height + 2;
    int32_t first;

    cpu_pack_scalar(rows, part);
    if (part->tile == 0 && part->col_first == 9 * CPU_BLOCK) {
        first = half_sums[0];
        half_sums[0] = half_sums[height];
        half_sums[height] = first;
    }
}

static void test_sums_of_the_wrong_half_are_caught(void **state)
{
    (void)state;
    assert_true(packs_as_scalar(cpu_pack_scalar, false, 1));
    assert_false(packs_as_scalar(pack_halves_exchanged, false, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms_are_equal_at_every_length),
        cmocka_unit_test(test_activations_are_equal_and_close_to_double),
        cmocka_unit_test(test_rotations_are_equal_in_both_styles),
        cmocka_unit_test(test_halves_are_equal_at_and_beside_every_tie),
        cmocka_unit_test(test_halves_saturate_and_a_nan_is_told_in_every_lane),
        cmocka_unit_test(test_bf16_is_rounded_clipped_and_told_in_every_lane),
        cmocka_unit_test(test_blocks_quantise_to_the_nearest_code),
        cmocka_unit_test(test_every_precise_code_has_one_pair),
        cmocka_unit_test(test_ties_go_to_even),
        cmocka_unit_test(test_nothing_and_less_than_nothing_quantise_to_zero),
        cmocka_unit_test(test_a_nan_or_an_infinity_makes_the_scale_a_nan),
        cmocka_unit_test(test_parts_of_rows_pack_as_the_scalar_kernel_packs_whole_rows),
        cmocka_unit_test(test_sums_of_the_wrong_half_are_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
