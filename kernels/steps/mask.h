/* STEP_MASK: keep the ids whose bit is set.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure. Bit i of the set is bit i % 32 of word i / 32.
 */
#ifndef PERSONAD_KERNELS_STEPS_MASK_H
#define PERSONAD_KERNELS_STEPS_MASK_H

#include "kernels/steps/math.h"

STEPS_FUNCTION int steps_mask_keeps(const uint32_t *mask, uint32_t id)
{
    return (mask[id / 32] >> (id % 32) & 1u) != 0;
}

#endif
