/* STEP_MIN_TOKENS: listed ids (end ids) are removed while fewer than `count` tokens were sampled.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure.
 */
#ifndef PERSONAD_KERNELS_STEPS_MIN_TOKENS_H
#define PERSONAD_KERNELS_STEPS_MIN_TOKENS_H

#include "kernels/steps/math.h"

/* index: how many tokens the node has; count 0xffffffff: always. */
STEPS_FUNCTION int steps_min_tokens_apply(uint32_t index, uint32_t count)
{
    return count == 0xffffffffu || index < count;
}

#endif
