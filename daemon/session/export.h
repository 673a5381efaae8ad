/* SessionExport: a session as a file (docs/EXPORT.md), a page a request.
 *
 * Thread: loop. The first request has the journal read the rows, so that the file is of one moment
 * and the tree need not be in memory: such a request is not in naming_of() (residence.c).
 */
#ifndef PERSONAD_SESSION_EXPORT_H
#define PERSONAD_SESSION_EXPORT_H

#include "journal/journal.h"
#include "session/state.h"

void export_execute(struct store *store, const struct request *request, struct reply_to to);

/* What the journal has read for an export; takes the tree out of it, or leaves it. */
void export_take(struct store *store, struct journal_tree *read);

#endif
