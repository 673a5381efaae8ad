/* Goal: our exp, log, sine, cosine and number formats are as exact as their header says and give
 * the same bits from every compiler.
 * Method: compare with libm in double or long double over millions of points, measure the largest
 * error in units of the last place; walk all 65,536 halves; hash the bits of a fixed series of
 * results and compare with the hash that all builds must give; a series with one bit off must not
 * pass that comparison.
 */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "kernels/steps/math.h"

/* splitmix64: test points, the same everywhere. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double random_unit(uint64_t *state)
{
    return (double)(next_random(state) >> 11) * 0x1p-53;
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t byte_count)
{
    const uint8_t *cursor = bytes;
    for (size_t i = 0; i < byte_count; i++) {
        hash = (hash ^ cursor[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static double ulp_of_float(double value)
{
    int exponent;
    frexp(value, &exponent);
    return ldexp(1.0, exponent - FLT_MANT_DIG);
}

static double ulp_of_double(long double value)
{
    int exponent;
    frexpl(value, &exponent);
    return ldexp(1.0, exponent - DBL_MANT_DIG);
}

static void test_exp_is_within_one_unit_of_the_last_place(void **state)
{
    (void)state;
    double worst = 0;

    for (uint32_t bits = 0; bits <= 0x42b17217u; bits += 601) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            const float x = steps_float_from_bits(bits | sign << 31);
            const float got = steps_exp(x);
            const double want = exp((double)x);
            if (x < STEPS_EXP_LOW) {
                assert_true(got == 0.0f);
                continue;
            }
            if (x > STEPS_EXP_HIGH) {
                assert_true(isinf(got));
                continue;
            }
            const double error = fabs(got - want) / ulp_of_float(want);
            worst = error > worst ? error : worst;
        }
    }
    print_message("exp: largest error %.3f ulp\n", worst);
    assert_true(worst <= 1.0);
}

static void test_exp_has_defined_edges_and_no_denormals(void **state)
{
    (void)state;

    assert_true(steps_exp(0.0f) == 1.0f);
    assert_true(steps_exp(-0.0f) == 1.0f);
    assert_true(steps_exp(STEPS_EXP_LOW) >= 0x1p-60f);
    assert_true(exp((double)nextafterf(STEPS_EXP_LOW, -100.0f)) < 0x1p-60);
    assert_true(steps_exp(nextafterf(STEPS_EXP_LOW, -100.0f)) == 0.0f);
    assert_true(steps_exp(-INFINITY) == 0.0f);
    assert_true(steps_exp(NAN) == 0.0f);
    assert_true(steps_exp(INFINITY) == INFINITY);
    assert_true(steps_exp(STEPS_EXP_HIGH) <= FLT_MAX);
    assert_true(steps_exp(nextafterf(STEPS_EXP_HIGH, 100.0f)) == INFINITY);
}

static void test_exp2_is_within_three_units_and_has_defined_edges(void **state)
{
    (void)state;
    uint64_t seed = 21;
    double worst = 0;

    for (uint32_t i = 0; i < 2000000; i++) {
        const float x = (float)(-56.0 * random_unit(&seed)) * (i % 3 == 0 ? 0x1p-6f : 1.0f);
        const double want = exp2((double)x);

        worst = fmax(worst, fabs((double)steps_exp2(x) - want) / ulp_of_float(want));
    }
    print_message("exp2: largest error %.3f ulp\n", worst);
    assert_true(worst <= 3);
    assert_true(steps_exp2(0.0f) == 1.0f);
    assert_true(steps_exp2(-0.0f) == 1.0f);
    assert_true(steps_exp2(STEPS_EXP2_LOW) == 0x1p-56f);
    assert_true(steps_exp2(nextafterf(STEPS_EXP2_LOW, -100.0f)) == 0.0f);
    assert_true(steps_exp2(-INFINITY) == 0.0f);
    assert_true(steps_exp2(NAN) == 0.0f);
    for (int n = 0; n <= 56; n++) {
        assert_true(steps_exp2((float)-n) == ldexpf(1.0f, -n));
    }
}

static void test_exp_never_falls_as_its_argument_grows(void **state)
{
    (void)state;
    float before = 0;

    for (double x = -42; x < 1; x += 0x1p-16) {
        const float now = steps_exp((float)x);
        assert_true(now >= before);
        before = now;
    }
}

static void test_log_is_within_two_units_of_the_last_place(void **state)
{
    (void)state;
    uint64_t seed = 1;
    double worst = 0, worst_near_one = 0;

    for (int i = 0; i < 1000000; i++) {
        const double x = i % 2 == 0 ? 0x1p-10 + 4 * random_unit(&seed)
                                    : ldexp(1 + random_unit(&seed), i % 2000 - 1000);
        const long double want = logl((long double)x);
        const double error = (double)fabsl((long double)steps_log(x) - want);
        if (fabsl(want) < 0.05L) {
            worst_near_one = error > worst_near_one ? error : worst_near_one;
        } else {
            const double relative = error / ulp_of_double(want);
            worst = relative > worst ? relative : worst;
        }
    }
    print_message("log: largest error %.3f ulp, near one %.3g\n", worst, worst_near_one);
    assert_true(worst <= 2.0);
    assert_true(worst_near_one <= 0x1p-52);
    assert_true(steps_log(1.0) == 0.0);
}

static void test_sine_and_cosine_are_right_to_one_unit_up_to_a_million_radians(void **state)
{
    (void)state;
    uint64_t seed = 2;
    double worst = 0;

    for (int i = 0; i < 1000000; i++) {
        double angle = (2 * random_unit(&seed) - 1) * (i % 2 == 0 ? 0x1p20 : 16);
        if (i % 5 == 0) {
            /* As rope makes them: position * base^(-2i/n). */
            angle = (double)(next_random(&seed) % 131072) * pow(10000, -random_unit(&seed));
        }
        float sine, cosine;
        steps_sincos(angle, &sine, &cosine);
        const long double want_sine = sinl((long double)angle);
        const long double want_cosine = cosl((long double)angle);
        const double a =
            (double)fabsl((long double)sine - want_sine) / ulp_of_float((double)want_sine);
        const double b =
            (double)fabsl((long double)cosine - want_cosine) / ulp_of_float((double)want_cosine);
        worst = a > worst ? a : worst;
        worst = b > worst ? b : worst;
    }
    print_message("sine, cosine: largest error %.3f ulp\n", worst);
    assert_true(worst <= 1.0);

    float sine, cosine;
    steps_sincos(0.0, &sine, &cosine);
    assert_true(sine == 0.0f);
    assert_true(cosine == 1.0f);
}

static double half_value(uint16_t half)
{
    const int exponent = (half >> 10) & 31;
    const double fraction = half & 1023;
    const double magnitude =
        exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

static void test_every_half_survives_the_way_to_float_and_back(void **state)
{
    (void)state;

    for (uint32_t bits = 0; bits < 65536; bits++) {
        const uint16_t half = (uint16_t)bits;
        const float value = steps_float_from_half(half);
        if ((half & 0x7fff) > 0x7c00) {
            assert_true(isnan(value));
            assert_true((steps_half_from_float(value) & 0x7fff) > 0x7c00);
        } else if ((half & 0x7fff) == 0x7c00) {
            assert_true(isinf(value));
            assert_int_equal(steps_half_from_float(value), (half & 0x8000) | 0x7bff);
        } else {
            assert_true((double)value == half_value(half));
            assert_int_equal(steps_half_from_float(value), half);
        }
    }
}

static void test_floats_round_to_the_nearest_half_with_ties_to_even(void **state)
{
    (void)state;
    uint64_t seed = 3;

    for (int i = 0; i < 1000000; i++) {
        uint32_t bits = (uint32_t)next_random(&seed);
        if (i % 3 != 0) {
            /* Between 2^-26 and 2^16, half of them exact ties. */
            bits =
                (101 + bits % 43) << 23 | (bits & 0x7fe000u) | (i % 2 == 0 ? 0x1000u : bits >> 20);
        }
        const float value = steps_float_from_bits(bits);
        if (isnan(value)) {
            continue;
        }
        const uint16_t half = steps_half_from_float(value);
        assert_true((half & 0x7fff) <= 0x7bff);
        const double got = half_value(half);
        const double error = fabs(got - (double)value);
        if (fabs((double)value) >= 65504) {
            assert_int_equal(half & 0x7fff, 0x7bff);
            continue;
        }
        const double up = fabs(half_value((uint16_t)(half + 1)) - (double)value);
        assert_true(error <= up);
        assert_true(error < up || (half & 1) == 0);
        if ((half & 0x7fff) != 0) {
            const double down = fabs(half_value((uint16_t)(half - 1)) - (double)value);
            assert_true(error <= down);
            assert_true(error < down || (half & 1) == 0);
        }
    }
}

static void test_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;

    assert_int_equal(steps_bf16_from_float(1.0f), 0x3f80);
    assert_int_equal(steps_bf16_from_float(steps_float_from_bits(0x3f808000u)), 0x3f80);
    assert_int_equal(steps_bf16_from_float(steps_float_from_bits(0x3f818000u)), 0x3f82);
    assert_int_equal(steps_bf16_from_float(steps_float_from_bits(0x3f808001u)), 0x3f81);
    assert_true(isnan(steps_float_from_bf16(steps_bf16_from_float(NAN))));
    assert_true(
        isnan(steps_float_from_bf16(steps_bf16_from_float(steps_float_from_bits(0x7f800001u)))));
    for (uint32_t bits = 0; bits < 65536; bits++) {
        const float value = steps_float_from_bf16((uint16_t)bits);
        if (!isnan(value)) {
            assert_int_equal(steps_bf16_from_float(value), bits);
        }
    }
}

/* The bits of a series of results; `nudge` is added to the last exp of each round. */
static uint64_t series_hash(uint32_t nudge)
{
    uint64_t seed = 4, hash = UINT64_C(0xcbf29ce484222325);

    for (int i = 0; i < 100000; i++) {
        const float x = (float)(random_unit(&seed) * 180 - 90);
        uint32_t exp_bits = steps_bits_from_float(steps_exp(x));
        exp_bits += i == 99999 ? nudge : 0;
        const double logarithm = steps_log(ldexp(1 + random_unit(&seed), i % 120 - 60));
        float pair[2];
        steps_sincos(random_unit(&seed) * 0x1p17, &pair[0], &pair[1]);
        const uint16_t half = steps_half_from_float((float)(random_unit(&seed) * 8 - 4));
        const uint16_t bf16 = steps_bf16_from_float(x);
        hash = hash_bytes(hash, &exp_bits, sizeof exp_bits);
        hash = hash_bytes(hash, &logarithm, sizeof logarithm);
        hash = hash_bytes(hash, pair, sizeof pair);
        hash = hash_bytes(hash, &half, sizeof half);
        hash = hash_bytes(hash, &bf16, sizeof bf16);
    }
    return hash;
}

static void test_all_builds_give_the_same_bits(void **state)
{
    (void)state;
    const uint64_t hash = series_hash(0);

    print_message("math: hash %016llx\n", (unsigned long long)hash);
    assert_true(hash == UINT64_C(0x5a6391bab70f9c5a));
}

static void test_one_wrong_bit_in_the_series_changes_the_hash(void **state)
{
    (void)state;
    assert_true(series_hash(1) != series_hash(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp_is_within_one_unit_of_the_last_place),
        cmocka_unit_test(test_exp_has_defined_edges_and_no_denormals),
        cmocka_unit_test(test_exp2_is_within_three_units_and_has_defined_edges),
        cmocka_unit_test(test_exp_never_falls_as_its_argument_grows),
        cmocka_unit_test(test_log_is_within_two_units_of_the_last_place),
        cmocka_unit_test(test_sine_and_cosine_are_right_to_one_unit_up_to_a_million_radians),
        cmocka_unit_test(test_every_half_survives_the_way_to_float_and_back),
        cmocka_unit_test(test_floats_round_to_the_nearest_half_with_ties_to_even),
        cmocka_unit_test(test_bf16_rounds_to_nearest_even),
        cmocka_unit_test(test_all_builds_give_the_same_bits),
        cmocka_unit_test(test_one_wrong_bit_in_the_series_changes_the_hash),
    };
    return cmocka_run_group_tests_name("kernels/math", tests, NULL, NULL);
}
