/* From a step's results to its branches: KV that is now there, tokens, faults, leaving.
 *
 * Thread: engine. Allocates nothing.
 */
#ifndef PERSONAD_SCHEDULE_SETTLE_H
#define PERSONAD_SCHEDULE_SETTLE_H

#include "schedule/engine_state.h"

/* The flight's step ended with these results. */
void settle_step(struct engine *engine, struct engine_flight *flight,
                 const struct step_result *result);

/* The device failed: every branch of the flight ends as FAILED/DEVICE. */
void settle_failure(struct engine *engine, struct engine_flight *flight);

#endif
