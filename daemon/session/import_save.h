/* An imported session on its way into the journal, slice by slice.
 *
 * Thread: loop. The first slice makes the session and marks it as purged, so that a crash leaves
 * nothing that anybody sees; what it leaves is erased at the next start (writer.h). The last slice
 * takes the mark away, and the session is there.
 */
#ifndef PERSONAD_SESSION_IMPORT_SAVE_H
#define PERSONAD_SESSION_IMPORT_SAVE_H

#include "session/transfer.h"

struct key;

/* Takes the session and the key (NULL: none) over, also when it fails. */
MUST_USE enum status import_save(struct store *store, struct transfer *transfer,
                                 struct session *session, struct key *key, struct error *error);

/* A slice of that transfer is committed, or never will be. */
void import_saved(struct store *store, uint64_t id, enum status status);

void import_save_destroy(struct store *store, struct import_saving *saving); /* NULL is fine */

#endif
