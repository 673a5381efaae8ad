/* When pages or running slots run out: cached leaves first, then the youngest branch waits again.
 *
 * Thread: engine. Allocates nothing. Batch priority gives way before interactive; among equals the
 * youngest does, so the oldest always finishes. What a preempted branch has computed and released
 * stays cached for as long as nobody needs the room; the rest it computes again, to the same bits.
 */
#ifndef PERSONAD_SCHEDULE_PRESSURE_H
#define PERSONAD_SCHEDULE_PRESSURE_H

#include "schedule/engine_state.h"

/* A page more for a running branch. AGAIN: not in this step; the branch itself may have been the
 * youngest and be on its way out. */
MUST_USE enum status pressure_grow(struct engine *engine, struct branch *branch);

/* A waiting branch found no running slot (needs_pages false) or too few pages. Takes a slot from a
 * branch of lower priority, or, slots only, from a user who has at least two more than its own. */
void pressure_make_room(struct engine *engine, const struct branch *branch, bool needs_pages);

#endif
