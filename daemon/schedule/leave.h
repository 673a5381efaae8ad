/* How a branch gives up its running slot: finished, preempted or parked.
 *
 * Thread: engine. Allocates nothing. As long as a submitted step names the branch (its pages, its
 * backend slot, its sampler's steps) nothing is given back and no final event is posted: the loop
 * may free what it lent as soon as it has that event.
 */
#ifndef PERSONAD_SCHEDULE_LEAVE_H
#define PERSONAD_SCHEDULE_LEAVE_H

#include "schedule/engine_state.h"

/* Tells the loop how far the branch has come. */
void leave_post(struct engine *engine, struct branch *branch);

/* The branch's finish is set, or it is to wait again: leaves now, or once its steps have ended. */
void leave_begin(struct engine *engine, struct branch *branch);

/* A step that named the branch has ended. */
void leave_check(struct engine *engine, struct branch *branch);

#endif
