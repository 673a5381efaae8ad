/* Which waiting branches get a running slot and pages, and which wait for what others compute.
 *
 * Thread: engine. Allocates nothing. A branch that needs positions which a running one computes
 * waits for them and lends that one its priority; should the owner give up, the next in line finds
 * nothing announced and takes over. Siblings of a group wait for the one that computes their
 * context. A branch that does not fit does not block others, but the oldest is passed over at most
 * ADMISSION_PASS_COUNT_MAX times, after which nobody is admitted before it.
 */
#ifndef PERSONAD_SCHEDULE_ADMISSION_H
#define PERSONAD_SCHEDULE_ADMISSION_H

#include "schedule/engine_state.h"

/* Admits what fits, WAITING to PREFILL. */
void admission_run(struct engine *engine);

/* `leader`'s last context row is in the plan being built: may this sibling of its group start from
 * it? Then it is in DECODE with the leader's pages. AGAIN: it stays waiting. */
MUST_USE enum status admission_join(struct engine *engine, struct branch *branch,
                                    const struct branch *leader);

#endif
