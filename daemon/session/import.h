/* SessionImport: a file (docs/EXPORT.md) that comes in pieces becomes a session, or nothing.
 *
 * Thread: loop. The file is read as it comes (portable_read.h). With its last piece it is checked
 * as a whole, in slices: the tree is made as if the journal had it (import_make.h). Then it is
 * stored in slices (import_save.h), and is there from the commit of the last one on.
 */
#ifndef PERSONAD_SESSION_IMPORT_H
#define PERSONAD_SESSION_IMPORT_H

#include "session/pending.h"
#include "session/state.h"

void import_execute(struct store *store, const struct request *request, struct reply_to to);

/* A slice of one of the imports that are being made, of each in turn; whether there is any. */
void import_go_on(struct store *store);
bool import_is_going(const struct store *store);

/* The answer to a whole file. */
void import_answer(struct store *store, struct reply_to to, struct session *session);

#endif
