/* After a failure of the device: make it anew, and compute what was in flight again.
 *
 * Nothing that was on its way comes back, and no page holds what it held. So every branch that has
 * no end yet waits again as if it had been preempted, with the tokens that it has, and the KV tree
 * is empty; the same ids then give the same bits. Two restarts without a good step between them are
 * enough: after that the branches end as DEVICE, and the next one that comes tries anew.
 *
 * Thread: engine.
 */
#ifndef PERSONAD_SCHEDULE_RECOVER_H
#define PERSONAD_SCHEDULE_RECOVER_H

#include "schedule/engine_state.h"

/* Gives up all steps on their way, and `flight` too, which was refused (NULL: none was). */
void recover_begin(struct engine *engine, struct engine_flight *flight);

/* Restarts the device if it is lost and a branch waits for it. DEVICE: it is lost for good, all
 * branches have ended. */
MUST_USE enum status recover_run(struct engine *engine);

#endif
