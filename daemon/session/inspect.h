/* Context: what the model saw before a node's first token, exactly as it is stored.
 *
 * Thread: loop. Whoever may not see the persona's card sees where its parts stand and how long they
 * are, and not what they say.
 */
#ifndef PERSONAD_SESSION_INSPECT_H
#define PERSONAD_SESSION_INSPECT_H

#include "session/context.h"
#include "session/state.h"

void inspect_context(struct store *store, const struct request *request, struct reply_to to);

/* Only who owns a persona sees its prompt; others are given no context, as they are given no card.
 */
bool inspect_may_see(const struct session *session, const struct prompt *prompt);

#endif
