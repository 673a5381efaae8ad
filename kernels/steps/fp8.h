/* Eight-bit floats: e4m3 without infinities (a sign, 4 bits of exponent with bias 7, 3 of mantissa;
 * the largest is 448, the smallest step 2^-9, 0x7f is a NaN).
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure functions.
 */
#ifndef PERSONAD_KERNELS_STEPS_FP8_H
#define PERSONAD_KERNELS_STEPS_FP8_H

#include "kernels/steps/math.h"

#define STEPS_FP8_MAX 448.0f

/* Rounded to nearest, ties to even; finite values and infinities saturate, a NaN stays one. */
STEPS_FUNCTION uint8_t steps_fp8_from_float(float value)
{
    const uint32_t bits = steps_bits_from_float(value);
    const uint32_t sign = bits >> 24 & 0x80u;
    uint32_t magnitude = bits & 0x7fffffffu;

    if (magnitude > 0x7f800000u) {
        return (uint8_t)(sign | 0x7fu);
    }
    if (magnitude >= 0x43e00000u) { /* 448 */
        return (uint8_t)(sign | 0x7eu);
    }
    if (magnitude < 0x3c800000u) { /* 2^-6: steps of 2^-9 from here down; the sum rounds */
        const float shifted = steps_float_from_bits(magnitude) + 16384.0f; /* 2^14: ulp 2^-9 */
        return (uint8_t)(sign | (steps_bits_from_float(shifted) & 0xffu));
    }
    magnitude += 0x7ffffu + (magnitude >> 20 & 1u); /* may carry into the exponent */
    return (uint8_t)(sign | ((magnitude >> 20) - (120u << 3)));
}

STEPS_FUNCTION float steps_float_from_fp8(uint8_t code)
{
    const uint32_t sign = (code & 0x80u) << 24;
    const uint32_t magnitude = code & 0x7fu;

    if (magnitude == 0x7fu) {
        return steps_float_from_bits(sign | 0x7fc00000u);
    }
    if (magnitude < 8u) {
        return steps_float_from_bits(sign | steps_bits_from_float((float)magnitude * 0x1p-9f));
    }
    return steps_float_from_bits(sign | ((magnitude << 20) + (120u << 23)));
}

#endif
