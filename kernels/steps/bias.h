/* STEP_BIAS: z += value for listed ids; -infinity removes.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure. A removed token stays removed, and no logit
 * becomes +infinity: the largest float takes its place.
 */
#ifndef PERSONAD_KERNELS_STEPS_BIAS_H
#define PERSONAD_KERNELS_STEPS_BIAS_H

#include "kernels/steps/math.h"

#define STEPS_LOGIT_MAX 3.402823466e+38f

STEPS_FUNCTION float steps_bias(float z, float value)
{
    const float biased = z + value;
    if (z == -INFINITY) {
        return z;
    }
    return biased > STEPS_LOGIT_MAX ? STEPS_LOGIT_MAX : biased;
}

#endif
