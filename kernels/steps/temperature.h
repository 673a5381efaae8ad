/* STEP_TEMPERATURE: z = z / t; 0 leaves only the largest logit with the smallest id.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure.
 */
#ifndef PERSONAD_KERNELS_STEPS_TEMPERATURE_H
#define PERSONAD_KERNELS_STEPS_TEMPERATURE_H

#include "kernels/steps/math.h"

/* Also where t is so small that the largest logit would leave the range of a float. */
STEPS_FUNCTION int steps_temperature_greedy(float max, float t)
{
    const float scaled = max / t;
    return !(t > 0.0f) || !(scaled < INFINITY) || !(scaled > -INFINITY);
}

STEPS_FUNCTION float steps_temperature(float z, float t)
{
    return z / t;
}

#endif
