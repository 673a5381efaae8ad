/* Goal: fragments, ldmatrix and the two sums of tensor cores are what prim.cuh and emulator.h say.
 * Method: against the published rule written a second time, in long doubles; a whole product
 * through shared memory against plain loops, by memcmp; sums picked so that each way of cutting
 * gives another value, which an exact sum, or the other card's, would not.
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

#include "kernels/steps/math.h"
#include "tests/emulator/emulator_rig.h"

enum { ROWS = 16, COLUMNS = 8, STEP = 16 };

static double number_value(uint16_t bits, bool bf16)
{
    return bf16 ? steps_float_from_bf16(bits) : steps_float_from_half(bits);
}

static uint16_t number_from(float value, bool bf16)
{
    return bf16 ? steps_bf16_from_float(value) : steps_half_from_float(value);
}

/* The exponent a number is stored with: a denormal has that of the least normal one. */
static int exponent_of(double value, int least)
{
    int exponent;

    if (value == 0.0) {
        return -126;
    }
    (void)frexp(value, &exponent);
    return exponent - 1 < least ? least : exponent - 1;
}

/* The published rule in long doubles, whose 64 bits hold every sum of 17 cut terms. */
static float plain_terms(float c, const double *a, const double *b, uint32_t count, int least,
                         int bits)
{
    int largest = exponent_of(c, -126);

    for (uint32_t i = 0; i < count; i++) {
        const int exponent = exponent_of(a[i], least) + exponent_of(b[i], least);
        largest = exponent > largest ? exponent : largest;
    }
    long double sum = truncl(ldexpl(c, bits - largest));
    for (uint32_t i = 0; i < count; i++) {
        sum += truncl(ldexpl((long double)a[i] * b[i], bits - largest));
    }
    const long double value = ldexpl(sum, largest - bits);
    int exponent;
    (void)frexpl(value, &exponent);
    exponent = exponent < -125 ? -125 : exponent;
    const long double cut = ldexpl(truncl(ldexpl(value, 24 - exponent)), exponent - 24);
    return value == 0 ? 0.0f : (float)cut;
}

static float plain_sum(float c, const uint16_t *a, const uint16_t *b, bool bf16,
                       uint32_t architecture)
{
    const int least = bf16 ? -126 : -14;
    double x[STEP];
    double y[STEP];

    for (uint32_t i = 0; i < STEP; i++) {
        x[i] = number_value(a[i], bf16);
        y[i] = number_value(b[i], bf16);
    }
    if (architecture >= 90) {
        return plain_terms(c, x, y, STEP, least, 25);
    }
    return plain_terms(plain_terms(c, x, y, 8, least, 24), x + 8, y + 8, 8, least, 24);
}

static void tensor_cores_sum_by_the_published_rule(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4000; i++) {
        const bool bf16 = i % 2 != 0;
        const uint32_t architecture = i % 4 < 2 ? 80 : 90;
        const float scale = ldexpf(1.0f, (int)(random_bits() % 40) - 20);
        uint16_t a[STEP];
        uint16_t b[STEP];
        const float c = random_value() * scale;
        for (uint32_t j = 0; j < STEP; j++) {
            const int spread = (int)(random_bits() % 16) - 8;
            a[j] = number_from(ldexpf(random_value(), i % 3 == 0 ? spread : 0), bf16);
            /* Small halves are denormal; every eighth term is zero. */
            b[j] =
                number_from(j % 8 == 7 ? 0.0f : ldexpf(random_value(), i % 5 == 0 ? -16 : 0), bf16);
        }
        const float got =
            emulator_tensor_sum(c, a, b, bf16 ? EMULATOR_BF16 : EMULATOR_F16, architecture);
        const float wanted = plain_sum(c, a, b, bf16, architecture);
        assert_memory_equal(&got, &wanted, sizeof got);
    }
}

static void tensor_cores_cut_where_exact_sums_would_not(void **state)
{
    uint16_t a[STEP] = {0};
    uint16_t b[STEP] = {0};

    (void)state;
    /* Terms of 2^-24 beside 1 live on both; of 2^-25 only where 25 bits are kept. */
    a[0] = a[1] = steps_bf16_from_float(0x1p-12f);
    b[0] = b[1] = a[0];
    assert_true(emulator_tensor_sum(1.0f, a, b, EMULATOR_BF16, 80) == 1.0f + 0x1p-23f);
    b[0] = b[1] = steps_bf16_from_float(0x1p-13f);
    a[2] = a[3] = a[0];
    b[2] = b[3] = b[0];
    assert_true(emulator_tensor_sum(1.0f, a, b, EMULATOR_BF16, 80) == 1.0f);
    assert_true(emulator_tensor_sum(1.0f, a, b, EMULATOR_BF16, 90) == 1.0f + 0x1p-23f);
    a[15] = 0x7f80; /* infinity */
    b[15] = steps_bf16_from_float(-1.0f);
    assert_true(emulator_tensor_sum(1.0f, a, b, EMULATOR_BF16, 90) == -INFINITY);
    b[15] = 0;
    const float nan = emulator_tensor_sum(1.0f, a, b, EMULATOR_BF16, 80);
    assert_int_equal(steps_bits_from_float(nan), 0x7fffffff);
    a[15] = b[15] = steps_bf16_from_float(0x1p100f);
    assert_true(emulator_tensor_sum(1.0f, a, b, EMULATOR_BF16, 80) == INFINITY);
}

struct product {
    alignas(16) uint16_t a[ROWS][STEP];
    alignas(16) uint16_t b[STEP][COLUMNS]; /* k by column */
    alignas(16) uint16_t b_columns[COLUMNS][STEP];
    float c[ROWS][COLUMNS];
    float wanted[ROWS][COLUMNS];
};

static void product_init(struct product *product, bool bf16, uint32_t architecture)
{
    for (uint32_t k = 0; k < STEP; k++) {
        for (uint32_t i = 0; i < ROWS; i++) {
            product->a[i][k] = number_from(random_value(), bf16);
        }
        for (uint32_t j = 0; j < COLUMNS; j++) {
            product->b[k][j] = number_from(random_value(), bf16);
            product->b_columns[j][k] = product->b[k][j];
        }
    }
    for (uint32_t i = 0; i < ROWS; i++) {
        for (uint32_t j = 0; j < COLUMNS; j++) {
            product->c[i][j] = random_value();
            product->wanted[i][j] = plain_sum(product->c[i][j], product->a[i],
                                              product->b_columns[j], bf16, architecture);
        }
    }
}

/* c += a * b through shared memory: a by ldmatrix, b by the transposed one. */
static void kernel_product(struct product *product, bool bf16)
{
    SHARED(uint16_t, held);
    const uint32_t lane = PRIM_THREAD;
    const uint32_t g = lane / 4;
    const uint32_t t = lane % 4;
    uint32_t a[4];
    uint32_t b[4];

    prim_copy16(held + 8 * lane, &product->a[0][0] + 8 * lane, true);
    prim_copy16(held + 256 + 8 * lane, &product->b[0][0] + 8 * (lane % 16), lane < 16);
    prim_copy_commit();
    prim_copy_wait<0>();
    prim_sync_warp();
    /* Tiles 0, 1: rows 0..7, 8..15 with the first 8 k; 2, 3 with the rest. */
    prim_ldmatrix_x4(a, held + (lane % 16) * STEP + lane / 16 * 8);
    prim_ldmatrix_x4_trans(b, held + 256 + lane * COLUMNS);
    float c[4] = {product->c[g][2 * t], product->c[g][2 * t + 1], product->c[g + 8][2 * t],
                  product->c[g + 8][2 * t + 1]};
    if (bf16) {
        prim_mma_bf16(c, a, b);
    } else {
        prim_mma_f16(c, a, b);
    }
    product->c[g][2 * t] = c[0];
    product->c[g][2 * t + 1] = c[1];
    product->c[g + 8][2 * t] = c[2];
    product->c[g + 8][2 * t + 1] = c[3];
}

static void a_product_through_ldmatrix_and_mma_is_the_matrix_product(void **state)
{
    struct product product;

    (void)state;
    for (uint32_t i = 0; i < 2 * CONFIG_COUNT; i++) {
        const bool bf16 = i / CONFIG_COUNT != 0;
        configure(i % CONFIG_COUNT);
        product_init(&product, bf16, i % 2 != 0 ? 80 : 90);
        assert_int_equal(launch(1, 1, 32, 1024, [&] { kernel_product(&product, bf16); }),
                         STATUS_OK);
        assert_memory_equal(product.c, product.wanted, sizeof product.c);
    }
}

static void exp2_is_within_two_ulp_and_flushes(void **state)
{
    (void)state;
    for (float x = -140.0f; x < 120.0f; x += 0.37f) {
        const double wanted = exp2((double)x);
        const double bound = wanted * 0x1p-22;
        assert_true(x < -126.0f ? prim_exp2(x) == 0.0f : fabs(prim_exp2(x) - wanted) <= bound);
    }
    assert_true(prim_exp2(-INFINITY) == 0.0f && prim_exp2(0.0f) == 1.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensor_cores_sum_by_the_published_rule),
        cmocka_unit_test(tensor_cores_cut_where_exact_sums_would_not),
        cmocka_unit_test(a_product_through_ldmatrix_and_mma_is_the_matrix_product),
        cmocka_unit_test(exp2_is_within_two_ulp_and_flushes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
