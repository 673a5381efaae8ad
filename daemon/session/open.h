/* Sessions: opened, listed, freed.
 *
 * Thread: loop. A session opens with its persona's greetings as the first nodes, siblings of each
 * other; its head is behind the first of them. It can be listed and used once they are committed.
 */
#ifndef PERSONAD_SESSION_OPEN_H
#define PERSONAD_SESSION_OPEN_H

#include "session/state.h"

/* A session's seed, where nobody names one. IO. */
MUST_USE enum status open_draw_seed(struct error *error, uint64_t *out);

void open_session(struct store *store, const struct request *request, struct reply_to to);
void open_answer_list(struct store *store, const struct request *request, struct reply_to to);

/* Frees a session with its tree. NULL is fine. */
void open_session_destroy(struct store *store, struct session *session);

#endif
