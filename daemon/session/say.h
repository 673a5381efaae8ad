/* Requests that make a tree grow: Say, Generate, Append.
 *
 * Thread: loop. A prefix is a given node of its own, which opens the turn (or goes on in it); the
 * sampled nodes continue it. So it is stored once for n siblings, and it can be forked from.
 */
#ifndef PERSONAD_SESSION_SAY_H
#define PERSONAD_SESSION_SAY_H

#include "session/state.h"

void say_execute(struct store *store, const struct request *request, struct reply_to to);
void say_generate(struct store *store, const struct request *request, struct reply_to to);
void say_append(struct store *store, const struct request *request, struct reply_to to);

#endif
