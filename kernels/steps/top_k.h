/* STEP_TOP_K: keep z >= the count-th largest value, all ties.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure. The value is the threshold of order.h with
 * weight 1 a token and the target below.
 */
#ifndef PERSONAD_KERNELS_STEPS_TOP_K_H
#define PERSONAD_KERNELS_STEPS_TOP_K_H

#include "kernels/steps/order.h"

/* 0: the step removes nothing. */
STEPS_FUNCTION uint64_t steps_top_k_target(uint32_t k, uint32_t token_count)
{
    return k >= token_count ? 0 : k;
}

#endif
