/* How tensor cores sum: fixed point below the largest exponent, cut and never rounded.
 *
 * The rules are those that others have measured on the cards and published as a bit model; only
 * integers are used here, so that the numbers do not depend on the host's own rounding.
 */
#include "tests/emulator/emulator.h"

#include <math.h>

#include "kernels/steps/math.h"

/* value = significand * 2^(exponent - fraction bits of its format); zero has the least exponent. */
struct part {
    int32_t significand;
    int32_t exponent;
};

enum {
    PART_EXPONENT_ZERO = -126,
    PART_FLOAT_BITS = 23, /* of the fraction */
    PART_BF16_BITS = 7,
    PART_F16_BITS = 10,
};

/* A number of `fraction_bits` below its point, its exponent as stored and biased. */
static struct part part_make(uint32_t negative, int32_t stored, int32_t fraction,
                             int32_t fraction_bits, int32_t bias)
{
    struct part part = {fraction, 1 - bias};

    if (stored != 0) {
        part.significand = fraction | 1 << fraction_bits;
        part.exponent = stored - bias;
    }
    if (part.significand == 0) {
        part.exponent = PART_EXPONENT_ZERO;
    }
    if (negative != 0) {
        part.significand = -part.significand;
    }
    return part;
}

static struct part part_from_float(float value)
{
    const uint32_t bits = steps_bits_from_float(value);

    return part_make(bits >> 31, (int32_t)(bits >> 23 & 0xff), (int32_t)(bits & 0x7fffff),
                     PART_FLOAT_BITS, 127);
}

static struct part part_from_number(uint16_t bits, enum emulator_number number)
{
    const uint32_t negative = bits >> 15;

    if (number == EMULATOR_BF16) {
        return part_make(negative, bits >> 7 & 0xff, bits & 0x7f, PART_BF16_BITS, 127);
    }
    return part_make(negative, bits >> 10 & 0x1f, bits & 0x3ff, PART_F16_BITS, 15);
}

/* The significand with `bits` below the point of 2^exponent_max, cut toward zero. */
static int64_t part_align(struct part part, int32_t fraction_bits, int32_t exponent_max,
                          int32_t bits)
{
    const int32_t shift = exponent_max - part.exponent;
    const int64_t magnitude = part.significand < 0 ? -part.significand : part.significand;
    const int64_t aligned = shift > 62 ? 0 : (magnitude << (bits - fraction_bits)) >> shift;

    return part.significand < 0 ? -aligned : aligned;
}

/* sum * 2^(exponent - bits) as fp32, cut toward zero; beyond the largest: infinity. */
static float float_from_sum(int64_t sum, int32_t exponent, int32_t bits)
{
    const uint32_t sign = sum < 0 ? 0x80000000u : 0u;
    uint64_t magnitude = (uint64_t)(sum < 0 ? -sum : sum);

    if (magnitude == 0) {
        return 0.0f;
    }
    const int32_t top = 63 - __builtin_clzll(magnitude);
    int32_t stored = exponent - bits + top + 127;
    if (stored >= 255) {
        return steps_float_from_bits(sign | 0x7f800000u);
    }
    /* A denormal keeps the place value of the least normal, with fewer bits. */
    const int32_t lost = top - PART_FLOAT_BITS + (stored < 1 ? 1 - stored : 0);
    stored = stored < 1 ? 0 : stored;
    if (lost > 63) {
        return steps_float_from_bits(sign);
    }
    magnitude = lost >= 0 ? magnitude >> lost : magnitude << -lost;
    return steps_float_from_bits(sign | (uint32_t)stored << PART_FLOAT_BITS |
                                 ((uint32_t)magnitude & 0x7fffffu));
}

static float sum_terms(float c, const struct part *products, uint32_t count,
                       int32_t product_fraction_bits, int32_t bits)
{
    const struct part start = part_from_float(c);
    int32_t exponent_max = start.exponent;

    for (uint32_t i = 0; i < count; i++) {
        if (products[i].exponent > exponent_max) {
            exponent_max = products[i].exponent;
        }
    }
    int64_t sum = part_align(start, PART_FLOAT_BITS, exponent_max, bits);
    for (uint32_t i = 0; i < count; i++) {
        sum += part_align(products[i], product_fraction_bits, exponent_max, bits);
    }
    return float_from_sum(sum, exponent_max, bits);
}

static double number_value(uint16_t bits, enum emulator_number number)
{
    return number == EMULATOR_BF16 ? steps_float_from_bf16(bits) : steps_float_from_half(bits);
}

static bool number_is_finite(uint16_t bits, enum emulator_number number)
{
    const uint16_t exponent = number == EMULATOR_BF16 ? 0x7f80 : 0x7c00;

    return (bits & exponent) != exponent;
}

/* Doubles hold what infinities and NaNs make; the order is of no account to them. */
static float sum_special(float c, const uint16_t *a, const uint16_t *b, enum emulator_number number)
{
    double sum = c;

    for (uint32_t i = 0; i < 16; i++) {
        sum += number_value(a[i], number) * number_value(b[i], number);
    }
    return isnan(sum) ? steps_float_from_bits(0x7fffffffu) : (float)sum;
}

float emulator_tensor_sum(float c, const uint16_t a[16], const uint16_t b[16],
                          enum emulator_number number, uint32_t architecture)
{
    const int32_t fraction_bits = 2 * (number == EMULATOR_BF16 ? PART_BF16_BITS : PART_F16_BITS);
    struct part products[16];
    bool finite = isfinite(c);

    for (uint32_t i = 0; i < 16; i++) {
        const struct part x = part_from_number(a[i], number);
        const struct part y = part_from_number(b[i], number);
        products[i].significand = x.significand * y.significand;
        products[i].exponent = x.exponent + y.exponent;
        finite = finite && number_is_finite(a[i], number) && number_is_finite(b[i], number);
    }
    if (!finite) {
        return sum_special(c, a, b, number);
    }
    if (architecture >= 90) {
        return sum_terms(c, products, 16, fraction_bits, 25);
    }
    const float half = sum_terms(c, products, 8, fraction_bits, 24);
    if (!isfinite(half)) {
        return half;
    }
    return sum_terms(half, products + 8, 8, fraction_bits, 24);
}
