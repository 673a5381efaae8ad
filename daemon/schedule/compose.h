/* From running branches to a step's plan: decode rows first, then chunks of prefill within the time
 * budget (a few rows even when decoding has used it up), whoever is served next first.
 *
 * Thread: engine. Allocates nothing. May preempt when pages run out.
 */
#ifndef PERSONAD_SCHEDULE_COMPOSE_H
#define PERSONAD_SCHEDULE_COMPOSE_H

#include "schedule/engine_state.h"

/* Fills the flight's builder and entries. False: there is nothing to compute now. */
bool compose_step(struct engine *engine, struct engine_flight *flight);

#endif
