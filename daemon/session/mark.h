/* Marks on nodes: deleted and back, purged, labels.
 *
 * Thread: loop. Deleting a node only marks it; it and all below it are hidden until Undelete. Purge
 * frees what marked nodes hold, and all below them; what stays of them is an entry with its id and
 * ordinal, so that neither is given out again. Each request does all of it or nothing.
 */
#ifndef PERSONAD_SESSION_MARK_H
#define PERSONAD_SESSION_MARK_H

#include "session/state.h"

void mark_delete(struct store *store, const struct request *request, struct reply_to to);
void mark_undelete(struct store *store, const struct request *request, struct reply_to to);
void mark_purge(struct store *store, const struct request *request, struct reply_to to);
void mark_label(struct store *store, const struct request *request, struct reply_to to);

/* Cancels what is being generated below `top`, and in it. */
void mark_cancel_below(struct store *store, struct node *top);

/* Whether anything below `top`, or it, is being generated, stored, or borrowed from: CONFLICT. */
MUST_USE enum status mark_check_idle(struct node *top, struct error *error);

#endif
