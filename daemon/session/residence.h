/* Which trees are in memory: all that are in use, and as many more as RESIDENT_MIB_MAX allows.
 *
 * Thread: loop. A session is always there with its cast; its tree may be left to the journal. A
 * request is prepared in front of its execution: the trees that it names are asked for, and it
 * waits (AGAIN) until they are read. A tree that rests goes only when nothing names its nodes: no
 * branch, no follower, and no batch that the journal has not told.
 */
#ifndef PERSONAD_SESSION_RESIDENCE_H
#define PERSONAD_SESSION_RESIDENCE_H

#include "session/state.h"

/* As store_prepare(). */
MUST_USE enum status residence_prepare(struct store *store, const struct request *request,
                                       struct error *error);

/* The request was executed: what it used is marked. */
void residence_note(struct store *store, const struct request *request);
void residence_used(struct store *store, struct session *session);

/* Takes the trees that the journal has read. */
void residence_take(struct store *store);

/* Lets trees go that rest, while there are too many bytes; a bounded look. */
void residence_trim(struct store *store);

/* Leaves the tree of a session to the journal. Nothing may borrow from it. */
void residence_let_go(struct store *store, struct session *session);

/* At the start, before the journal thread lives. False when it cannot be read, which is logged. */
bool residence_load_now(struct store *store, struct session *session);

#endif
