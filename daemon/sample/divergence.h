/* How far two whole distributions are from each other, from their rows of logits.
 *
 * Thread: any; pure. With masses e, sums S and log probabilities as in kernels/steps/masses.h, the
 * divergence of q from p is the sum over ids, ascending and in double precision, of
 *   e_i / S_p * (log p_i - log q_i)
 * where e_i is p's mass; ids without mass count nothing. In nats.
 */
#ifndef PERSONAD_SAMPLE_DIVERGENCE_H
#define PERSONAD_SAMPLE_DIVERGENCE_H

#include <stdint.h>

/* Infinite where q has removed what p has not; NaN when a row holds nothing. */
double divergence_of(const float *p, const float *q, uint32_t vocabulary_count);

#endif
