/* Masks of samples whose text is prescribed (base/byte_rule.h).
 *
 * Thread: engine. A mask is a function of the sampler and of the tokens before the sample, so it is
 * made where the sample is planned and kept nowhere. A branch whose mask depends on its last token
 * has one step in flight.
 */
#ifndef PERSONAD_SCHEDULE_PRESCRIBE_H
#define PERSONAD_SCHEDULE_PRESCRIBE_H

#include "schedule/engine_state.h"

MUST_USE enum status prescribe_init(struct engine *engine);
void prescribe_finish(struct engine *engine);

/* Its next sample cannot be planned before the last one is known. */
bool prescribe_waits(const struct branch *branch);

/* No mask of the branch depends on a token to come. */
bool prescribe_is_spent(const struct branch *branch);

/* The mask of the flight's next sample, for what comes after `token_count` sampled tokens, all of
 * which stand in the output block or in the marks; NULL when the sampler has no rule. Borrowed
 * until the flight has ended. */
const uint32_t *prescribe_mask(struct engine *engine, struct engine_flight *flight,
                               const struct branch *branch, uint32_t token_count);

#endif
