/* Score: exact log probabilities of given continuations.
 *
 * Thread: loop. For each item one look measures the first tokens of all its options at the end of
 * the context; each option with more tokens has a look of its own along them. All are lent at once,
 * so that they share the context's KV and the steps.
 */
#ifndef PERSONAD_SESSION_SCORE_H
#define PERSONAD_SESSION_SCORE_H

#include "session/request.h"

struct store;

void score_execute(struct store *store, const struct request *request, struct reply_to to);

#endif
