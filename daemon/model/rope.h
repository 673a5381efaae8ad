/* Inverse frequencies of rotary positions, in double, the same bits on every CPU and C library.
 *
 * Thread: any, pure.
 */
#ifndef PERSONAD_MODEL_ROPE_H
#define PERSONAD_MODEL_ROPE_H

#include <stdint.h>

/* out[i] = base ^ (-i / pair_count) / (linear_factor * factors[i]); factors NULL: all 1.
 * base > 1, factors > 0. Relative error below 2^-47. */
void rope_inverse_frequencies(double base, double linear_factor, const float *factors,
                              uint32_t pair_count, double *out);

#endif
