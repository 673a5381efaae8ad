/* Expand: the likeliest tokens at a place, those behind each of them, and so on, a level at a time.
 *
 * Thread: loop. A level's nodes are looks (look.h) that the engine computes in one batch: they
 * share the KV of the context and of their parents, so each costs one row. What they find goes into
 * an expansion (expansion.h), and out to the reader when the level is complete.
 */
#ifndef PERSONAD_SESSION_EXPAND_H
#define PERSONAD_SESSION_EXPAND_H

#include "session/state.h"

void expand_execute(struct store *store, const struct request *request, struct reply_to to);

#endif
