/* One session's nodes and contexts, from the rows that the journal has read.
 *
 * Thread: loop. The rows are only read; all is copied.
 */
#ifndef PERSONAD_SESSION_LOAD_TREE_H
#define PERSONAD_SESSION_LOAD_TREE_H

#include "journal/rows.h"
#include "session/state.h"

/* Fills the tree of a session that has none yet. On failure it has none still. Nodes without an end
 * are whole but for their branch: resume.h lends them again. STORAGE, MEMORY, LIMIT. */
MUST_USE enum status load_tree(struct store *store, struct session *session,
                               const struct rows_tree *rows, struct error *error);

struct filling;

/* For what makes a tree in bits (load_trial.h): so much more of it. AGAIN: not all of it yet; OK;
 * or a failure as above, after which the nodes so far are there still. */
MUST_USE enum status load_tree_go_on(struct filling *filling, uint32_t work);

/* Lets go of what the filling holds itself; the nodes stay. */
void load_tree_release(struct filling *filling);

/* The reader stands where the session was left, or at the root. */
void load_tree_place_head(const struct filling *filling);

#endif
