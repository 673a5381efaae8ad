/* No pow, exp or log of the C library: their last bits depend on its version and on the CPU, and
 * every bit of a model's numbers follows from these. */
#include "model/rope.h"

#include <string.h>

#include "base/check.h"

/* log 2 in two parts, the first so short that its product with an exponent is exact. */
static const double ln_2_high = 0x1.62e42fefa38p-1;
static const double ln_2_low = 0x1.ef35793c7673p-45;

/* log(x) for normal x > 0: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), log m = 2 atanh(t). */
static double rope_log(double x)
{
    uint64_t bits = 0;
    double mantissa = 0;

    memcpy(&bits, &x, sizeof(bits));
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    memcpy(&mantissa, &bits, sizeof(mantissa));
    if (mantissa > 1.4142135623730951) {
        mantissa *= 0.5;
        exponent++;
    }
    const double t = (mantissa - 1.0) / (mantissa + 1.0); /* at most 0.1716 */
    const double t2 = t * t;
    double sum = 0;
    for (int power = 27; power >= 1; power -= 2) {
        sum = sum * t2 + 1.0 / power;
    }
    return exponent * ln_2_high + (exponent * ln_2_low + 2.0 * t * sum);
}

/* exp(x) for x in [-700, 0]. */
static double rope_exp(double x)
{
    const int exponent = (int)(x / ln_2_high - 0.5);
    const double rest = (x - exponent * ln_2_high) - exponent * ln_2_low; /* at most 0.35 */
    double sum = 1.0;
    double scale = 0;

    for (int term = 18; term >= 1; term--) {
        sum = 1.0 + sum * rest / term;
    }
    const uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    memcpy(&scale, &bits, sizeof(scale));
    return sum * scale;
}

void rope_inverse_frequencies(double base, double linear_factor, const float *factors,
                              uint32_t pair_count, double *out)
{
    CHECK(base > 1.0 && base < 1e300);
    CHECK(linear_factor > 0);

    const double log_base = rope_log(base);
    for (uint32_t i = 0; i < pair_count; i++) {
        const double factor = factors == NULL ? 1.0 : (double)factors[i];
        out[i] = rope_exp(-log_base * i / pair_count) / (linear_factor * factor);
    }
}
