/* Goal: inverse frequencies are base^(-i/n) over their factors, to 47 bits, from our own
 * arithmetic.
 *
 * Method: against powl in long double, for the bases of known families and all sizes of heads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/rope.h"

enum { PAIR_COUNT_MAX = 128 };

static double error_of(double base, double linear, const float *factors, uint32_t count)
{
    double out[PAIR_COUNT_MAX];
    double largest = 0;

    rope_inverse_frequencies(base, linear, factors, count, out);
    for (uint32_t i = 0; i < count; i++) {
        const long double factor = factors == NULL ? 1.0L : (long double)factors[i];
        const long double wanted =
            powl((long double)base, -(long double)i / count) / ((long double)linear * factor);
        largest = fmax(largest, (double)fabsl((long double)out[i] / wanted - 1));
    }
    return largest;
}

static void frequencies_are_powers_of_the_base(void **state)
{
    static const double bases[] = {1.5, 10000, 100000, 500000, 1e6, 1e7, 1e11};

    (void)state;
    for (size_t i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
        for (uint32_t count = 1; count <= PAIR_COUNT_MAX; count++) {
            assert_true(error_of(bases[i], 1, NULL, count) < 0x1p-47);
        }
    }
}

static void factors_slow_each_pair_down(void **state)
{
    float factors[PAIR_COUNT_MAX];

    (void)state;
    for (uint32_t i = 0; i < PAIR_COUNT_MAX; i++) {
        factors[i] = 1.0f + 0.25f * (float)i;
    }
    assert_true(error_of(500000, 1, factors, 64) < 0x1p-47);
    assert_true(error_of(10000, 4, NULL, 64) < 0x1p-47);
    assert_true(error_of(10000, 2.5, factors, 64) < 0x1p-47);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frequencies_are_powers_of_the_base),
        cmocka_unit_test(factors_slow_each_pair_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
