/* Answers: from the store's structs to the plain structs of request.h.
 *
 * Thread: loop. Each sends exactly one reply through the store's events. What a reply points at is
 * borrowed for the callback. If memory for a reply is short, the reply is a MEMORY error.
 */
#ifndef PERSONAD_SESSION_ANSWER_H
#define PERSONAD_SESSION_ANSWER_H

#include "session/pending.h"
#include "session/state.h"

void answer_error(struct store *store, struct reply_to to, enum request_type type,
                  const struct error *error);
void answer_done(struct store *store, struct reply_to to, enum request_type type);
void answer_head(struct store *store, struct reply_to to, struct position head);

/* With its card, if it is the caller's. */
void answer_persona(struct store *store, struct reply_to to, enum request_type type, uint32_t uid,
                    const struct persona *persona);
/* SESSION_OPEN: with its greetings. */
void answer_session(struct store *store, struct reply_to to, enum request_type type,
                    struct session *session);

/* Created, and then the follow of its sampled nodes. */
void answer_created(struct store *store, const struct pending *pending);

/* Fills a view; `cast` has room for SESSION_CAST_COUNT_MAX entries. */
void answer_fill_session(const struct session *session, struct cast_view *cast,
                         struct session_view *out);

void answer_walk(struct store *store, struct reply_to to, const struct session *session,
                 struct place place, const struct request_walk *walk);

#endif
