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

/* ---- shared with looks, which stand where Generate would begin ---- */

/* The ids that a text would have as (the beginning of) a turn of the speaker there. Appends. */
MUST_USE enum status say_encode(struct store *store, const struct session *session,
                                struct place place, uint32_t speaker, struct bytes text,
                                bool opens_turn, struct error *error, struct id_list *ids);

/* BAD_INPUT where the cast has no such speaker. */
MUST_USE enum status say_check_speaker(const struct session *session, uint32_t speaker,
                                       struct error *error);

/* Going on in a turn: whose it is, and that there is one. */
MUST_USE enum status say_check_continuing(struct place place, bool has_speaker, uint32_t *speaker,
                                          struct error *error);

#endif
