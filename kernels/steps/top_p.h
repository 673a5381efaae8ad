/* STEP_TOP_P: keep z >= v, v the largest value whose masses from above reach p * S.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure. The value is the threshold of order.h with a
 * token's mass as weight and the target below, all in integers.
 */
#ifndef PERSONAD_KERNELS_STEPS_TOP_P_H
#define PERSONAD_KERNELS_STEPS_TOP_P_H

#include "kernels/steps/masses.h"
#include "kernels/steps/order.h"

/* The smallest integer >= p * sum, exactly; at least 1 so that something stays. 0 when p is 1 or
 * more (or not a number): the step removes nothing. */
STEPS_FUNCTION uint64_t steps_top_p_target(float p, uint64_t sum)
{
    const uint32_t bits = steps_bits_from_float(p);
    const uint32_t exponent = bits >> 23;
    const uint64_t mantissa = (bits & 0x7fffffu) | (exponent > 0 ? 0x800000u : 0u);

    if (!(p < 1.0f)) {
        return 0;
    }
    if (p <= 0.0f) {
        return 1;
    }
    /* p = mantissa / 2^shift with 24 <= shift <= 149; the product has less than 88 bits. */
    const uint32_t shift = 150 - (exponent > 0 ? exponent : 1);
    uint64_t low;
    const uint64_t high = steps_multiply(mantissa, sum, &low);
    if (shift >= 88) {
        return 1;
    }
    if (shift >= 64) {
        const uint64_t rest = (high & ((UINT64_C(1) << (shift - 64)) - 1)) | low;
        return (high >> (shift - 64)) + (rest != 0);
    }
    const uint64_t whole = high << (64 - shift) | low >> shift;
    return whole + ((low & ((UINT64_C(1) << shift) - 1)) != 0);
}

#endif
