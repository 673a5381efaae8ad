/* Seeded random numbers and weights of every storage type, for the tests of the kernels.
 *
 * Thread: any; the caller owns the memory. Values are ordinary: scales lie near 1/64, so that sums
 * neither overflow nor vanish.
 */
#ifndef PERSONAD_TESTS_SUPPORT_RANDOM_WEIGHT_H
#define PERSONAD_TESTS_SUPPORT_RANDOM_WEIGHT_H

#include <stdint.h>

#include "kernels/backend.h"

/* Advances the state; 32 bits. */
uint32_t random_bits(uint64_t *state);

/* In [-1, 1). */
float random_float(uint64_t *state);
void random_floats(uint64_t *state, float *out, uint64_t count);

/* A weight in memory of memory_alloc; the caller frees source.data. */
struct weight_source random_weight(uint64_t *state, uint32_t dtype, uint32_t rows, uint32_t cols);

#endif
