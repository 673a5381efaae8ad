/* SessionImport: a file (docs/EXPORT.md) that comes in pieces becomes a session, or nothing.
 *
 * Thread: loop. The file is read as it comes (portable_read.h). With its last piece it is checked
 * as a whole: the tree is made as if the journal had it. Then it is stored in slices
 * (import_save.h), and is there from the commit of the last one on.
 */
#ifndef PERSONAD_SESSION_IMPORT_H
#define PERSONAD_SESSION_IMPORT_H

#include "session/pending.h"
#include "session/state.h"

void import_execute(struct store *store, const struct request *request, struct reply_to to);

/* The answer to a whole file. */
void import_answer(struct store *store, struct reply_to to, struct session *session);

#endif
