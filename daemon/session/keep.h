/* Keep: a path of an expansion becomes a node of its session, with exactly those tokens.
 *
 * Thread: loop. The answer comes when the node is committed.
 */
#ifndef PERSONAD_SESSION_KEEP_H
#define PERSONAD_SESSION_KEEP_H

#include "session/state.h"

void keep_execute(struct store *store, const struct request *request, struct reply_to to);

#endif
