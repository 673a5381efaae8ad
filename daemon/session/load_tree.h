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

#endif
