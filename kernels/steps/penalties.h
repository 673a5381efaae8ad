/* STEP_PENALTIES: tokens of the history become less likely.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure. The history is a branch's token ids, frames
 * excluded, the persona prompt's first. For a token that occurs n > 0 times in the window:
 *   z = z / repetition if z > 0, else z * repetition;   z = z - (n * frequency + presence)
 * Ids of the step's list (end ids) are exempt.
 */
#ifndef PERSONAD_KERNELS_STEPS_PENALTIES_H
#define PERSONAD_KERNELS_STEPS_PENALTIES_H

#include "kernels/steps/bias.h"

/* The window is history[first, count): its last `range` ids (0: all), the prompt's only on request.
 */
STEPS_FUNCTION uint32_t steps_penalties_first(uint32_t count, uint32_t prompt_count, uint32_t range,
                                              int with_prompt)
{
    const uint32_t start = with_prompt || prompt_count > count ? 0 : prompt_count;
    return range == 0 || count - start <= range ? start : count - range;
}

STEPS_FUNCTION float steps_penalties(float z, uint32_t n, float repetition, float frequency,
                                     float presence)
{
    const float repeated = z > 0.0f ? z / repetition : z * repetition;
    const float subtracted = (float)n * frequency + presence;
    if (z == -INFINITY) {
        return z;
    }
    return steps_bias(repeated > STEPS_LOGIT_MAX ? STEPS_LOGIT_MAX : repeated, -subtracted);
}

#endif
