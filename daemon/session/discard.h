/* Whole sessions and personas that are deleted, and what is set of a session afterwards.
 *
 * Thread: loop. A deleted session is marked, and found by no request until the mark is taken away;
 * purging a marked one frees it. A deleted persona stays for the sessions that play it.
 */
#ifndef PERSONAD_SESSION_DISCARD_H
#define PERSONAD_SESSION_DISCARD_H

#include "session/state.h"

void discard_session(struct store *store, const struct request *request, struct reply_to to);
void discard_set_session(struct store *store, const struct request *request, struct reply_to to);
void discard_persona(struct store *store, const struct request *request, struct reply_to to);

#endif
