/* A tree that is made only to see whether its rows make one, a bit at a time.
 *
 * Thread: loop. Between two bits others are served: its nodes are in a table of its own, where no
 * request finds them. When all of it was made, the session knows where its head is and how many
 * nodes it has; then the tree is taken down, in bits, too, and the session has none as before.
 */
#ifndef PERSONAD_SESSION_LOAD_TRIAL_H
#define PERSONAD_SESSION_LOAD_TRIAL_H

#include "journal/rows.h"
#include "session/state.h"

struct load_trial;

/* The session is in no list and has no tree; it and the rows are borrowed. MEMORY. */
MUST_USE enum status load_trial_create(struct store *store, struct session *session,
                                       const struct rows_tree *rows, struct load_trial **out);

/* AGAIN: not all of it yet. OK, or what load_tree() (load_tree.h) says: it is to be taken down. */
MUST_USE enum status load_trial_go_on(struct load_trial *trial, uint32_t work, struct error *error);

/* Takes so many nodes down. True: it is gone, and so is the trial. */
bool load_trial_drop(struct load_trial *trial, uint32_t count);

void load_trial_destroy(struct load_trial *trial); /* all at once; NULL is fine */

#endif
