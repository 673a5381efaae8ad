/* From what a file says to a session: personas, prompts, cast, and a tree that was tried.
 *
 * Thread: loop. A large tree takes long: it is settled, made and taken down again in slices of
 * IMPORT_SLICE_WORK, between which the loop serves others.
 */
#ifndef PERSONAD_SESSION_IMPORT_MAKE_H
#define PERSONAD_SESSION_IMPORT_MAKE_H

#include "session/transfer.h"

struct import_making;

/* The file was read. Borrows the transfer until it is destroyed. */
MUST_USE enum status import_make_begin(struct store *store, struct transfer *transfer,
                                       struct error *error, struct import_making **out);

/* A slice. AGAIN: there are more. OK: *out is the caller's, in no list, its tree not in memory; the
 * rows have their ids, and personas that are new are in the catalogue. On failure nothing is left
 * behind, but for STORAGE and MEMORY at the last moment: personas. */
MUST_USE enum status import_make_go_on(struct import_making *making, struct error *error,
                                       struct session **out);

/* After a failure, a slice of taking down. True: all is gone. */
bool import_make_drop(struct import_making *making);

void import_making_destroy(struct import_making *making); /* all at once; NULL is fine */

/* The prompt of a context, as context_prompts[] names it. */
const struct prompt *import_prompt(const struct session *session, uint32_t at);

#endif
