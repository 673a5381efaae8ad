/* From the journal back into the store.
 *
 * Thread: loop; load_all() before any other thread lives. What is read is checked as hostile input:
 * a row that cannot be right is STORAGE with a sentence, never a crash.
 */
#ifndef PERSONAD_SESSION_LOAD_H
#define PERSONAD_SESSION_LOAD_H

#include "journal/rows.h"
#include "session/state.h"

/* Personas, sessions, client keys; then nodes without an end go on (resume.h). */
MUST_USE enum status load_all(struct store *store, struct error *error);

#endif
