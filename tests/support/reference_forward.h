/* A forward pass in double over dequantised weights, one sequence, written to be read: what whole
 * tiny models are checked against. It follows the maths above the args structs of backend.h and
 * shares no code with the backend but the dequantisation.
 *
 * Thread: one at a time. The reference owns its weights; the model is borrowed.
 */
#ifndef PERSONAD_TESTS_SUPPORT_REFERENCE_FORWARD_H
#define PERSONAD_TESTS_SUPPORT_REFERENCE_FORWARD_H

#include <stdbool.h>
#include <stdint.h>

#include "model/model.h"

struct reference;

/* rounded: activations of quantised matrices go through int8 in blocks of 32, those of BF16 ones
 * through BF16, and K and V through half precision, as the CPU backend's arithmetic says; else
 * everything is double. */
struct reference *reference_create(const struct model *model, bool rounded);
void reference_destroy(struct reference *reference);

/* Logits after the last of the ids, which start at position 0: [vocabulary_count]. */
void reference_logits(struct reference *reference, const uint32_t *ids, uint32_t count,
                      double *logits);

#endif
