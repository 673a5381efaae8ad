/* Goal: eight-bit floats are the nearest ones, ties to even, and come back exactly.
 * Method: all codes both ways; every value between two neighbours against the definition in double;
 * the edges.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/steps/fp8.h"

/* The value of a magnitude code, from the format's definition. */
static double defined(uint32_t code)
{
    const int exponent = (int)(code >> 3);
    const double mantissa = (double)(code & 7) / 8;

    return exponent == 0 ? ldexp(mantissa, -6) : ldexp(1 + mantissa, exponent - 7);
}

static void test_all_codes_have_their_value_and_come_back(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x7f; code++) {
        const float value = steps_float_from_fp8((uint8_t)code);
        const float negative = steps_float_from_fp8((uint8_t)(code | 0x80));
        assert_true((double)value == defined(code));
        assert_true((double)negative == -defined(code));
        assert_int_equal(steps_fp8_from_float(value), code);
        assert_int_equal(steps_fp8_from_float(negative), code | 0x80);
    }
    assert_true(isnan(steps_float_from_fp8(0x7f)));
    assert_true(isnan(steps_float_from_fp8(0xff)));
}

static void test_values_between_two_codes_go_to_the_nearer_and_ties_to_the_even(void **state)
{
    (void)state;
    for (uint32_t code = 0; code + 1 < 0x7f; code++) {
        const double low = defined(code), high = defined(code + 1);
        for (uint32_t i = 1; i < 64; i++) {
            const float value = (float)(low + (high - low) * i / 64);
            const uint32_t want = i < 32 ? code : i > 32 ? code + 1 : code + (code & 1);
            assert_int_equal(steps_fp8_from_float(value), want);
            assert_int_equal(steps_fp8_from_float(-value), want | 0x80);
        }
        const float middle = (float)((low + high) / 2);
        assert_int_equal(steps_fp8_from_float(nextafterf(middle, 0)), code);
        assert_int_equal(steps_fp8_from_float(nextafterf(middle, 500)), code + 1);
    }
}

static void test_what_is_too_large_saturates_and_a_nan_stays(void **state)
{
    (void)state;
    assert_int_equal(steps_fp8_from_float(449), 0x7e);
    assert_int_equal(steps_fp8_from_float(1e30f), 0x7e);
    assert_int_equal(steps_fp8_from_float(-INFINITY), 0xfe);
    assert_int_equal(steps_fp8_from_float(NAN) & 0x7f, 0x7f);
    assert_int_equal(steps_fp8_from_float(1e-30f), 0);
    assert_int_equal(steps_fp8_from_float(-0.0f), 0x80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_codes_have_their_value_and_come_back),
        cmocka_unit_test(test_values_between_two_codes_go_to_the_nearer_and_ties_to_the_even),
        cmocka_unit_test(test_what_is_too_large_saturates_and_a_nan_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
