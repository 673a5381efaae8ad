/* STEP_MIN_P: keep z >= max + log(p).
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure.
 */
#ifndef PERSONAD_KERNELS_STEPS_MIN_P_H
#define PERSONAD_KERNELS_STEPS_MIN_P_H

#include "kernels/steps/order.h"

/* The smallest float that is kept: max + log(p) in double, rounded up, at most max. -infinity when
 * p is 0 or less (or not a number): the step removes nothing. */
STEPS_FUNCTION float steps_min_p_bound(float max, float p)
{
    if (!(p > 0.0f)) {
        return -INFINITY;
    }
    if (p >= 1.0f) {
        return max;
    }
    const double bound = (double)max + steps_log((double)p);
    const float nearest = (float)bound;
    return (double)nearest < bound ? steps_float_from_key(steps_key_from_float(nearest) + 1)
                                   : nearest;
}

#endif
