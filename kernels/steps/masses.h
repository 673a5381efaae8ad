/* Probabilities as integers: masses, their sums, and what is read off them.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure functions. A mass is floor(exp(z - max) * 2^40);
 * sums of masses and of floor(mass * (max - z)) are uint64, so their order is free: 2^24 tokens
 * fit. Rows hold no NaN and max is finite; a removed token has z = -infinity and mass 0.
 */
#ifndef PERSONAD_KERNELS_STEPS_MASSES_H
#define PERSONAD_KERNELS_STEPS_MASSES_H

#include "kernels/steps/math.h"

#define STEPS_MASS_ONE 1099511627776.0f /* 2^40: the mass of the largest logit */

STEPS_FUNCTION uint64_t steps_mass(float z, float max)
{
    return (uint64_t)(steps_exp(z - max) * STEPS_MASS_ONE);
}

/* A mass has at most 24 significant bits, so the product is exact before it is cut. */
STEPS_FUNCTION uint64_t steps_spread(uint64_t mass, float z, float max)
{
    return mass == 0 ? 0 : (uint64_t)((double)mass * (double)(max - z));
}

/* log(sum / 2^40) */
STEPS_FUNCTION double steps_mass_log(uint64_t sum)
{
    return steps_log((double)sum * 9.094947017729282379150390625e-13);
}

/* From the logit, never from a mass: also unlikely tokens have one. Certainty is +0, never -0. */
STEPS_FUNCTION float steps_logprob(float z, float max, uint64_t sum)
{
    return (float)(((double)z - (double)max) - steps_mass_log(sum) + 0.0);
}

STEPS_FUNCTION float steps_entropy(uint64_t sum, uint64_t spread)
{
    return (float)(steps_mass_log(sum) + (double)spread / (double)sum);
}

/* The upper and the lower half of a 128-bit product. */
STEPS_FUNCTION uint64_t steps_multiply(uint64_t a, uint64_t b, uint64_t *low)
{
    const uint64_t a_low = a & 0xffffffffu, a_high = a >> 32;
    const uint64_t b_low = b & 0xffffffffu, b_high = b >> 32;
    const uint64_t low_low = a_low * b_low;
    const uint64_t middle = a_high * b_low + (low_low >> 32);
    const uint64_t other = a_low * b_high + (middle & 0xffffffffu);

    *low = a * b;
    return a_high * b_high + (middle >> 32) + (other >> 32);
}

/* floor(u / 2^64 * sum): where the draw u falls among the masses in id order. The token is the
 * first whose running sum exceeds it. */
STEPS_FUNCTION uint64_t steps_draw(uint64_t u, uint64_t sum)
{
    uint64_t low;
    return steps_multiply(u, sum, &low);
}

#endif
