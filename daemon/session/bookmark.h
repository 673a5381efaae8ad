/* Bookmarks: names of positions in a session.
 *
 * Thread: loop. A session owns its bookmarks, sorted by the bytes of their names; a name stands
 * once. A bookmark keeps no node alive: purging a node takes its bookmarks away, deleting hides
 * them.
 */
#ifndef PERSONAD_SESSION_BOOKMARK_H
#define PERSONAD_SESSION_BOOKMARK_H

#include "session/state.h"

struct bookmark {
    struct bytes name; /* owned */
    struct node *node; /* the root included */
    uint32_t offset;
    uint64_t created_us;
};

void bookmark_execute(struct store *store, const struct request *request, struct reply_to to);
void bookmark_answer_list(struct store *store, const struct request *request, struct reply_to to);

/* MEMORY. */
MUST_USE enum status bookmark_load(const struct table *nodes, struct session *session,
                                   const struct journal_note *note);

/* Takes away those whose node is purged. */
void bookmark_drop_purged(struct session *session);
void bookmark_finish(struct session *session);

#endif
