/* From what a file says to a session: personas, prompts, cast, and a tree that was tried.
 *
 * Thread: loop.
 */
#ifndef PERSONAD_SESSION_IMPORT_MAKE_H
#define PERSONAD_SESSION_IMPORT_MAKE_H

#include "session/transfer.h"

/* The transfer's rows get their ids. The session is the caller's, in no list, its tree not in
 * memory; personas that are new are in the catalogue. On failure nothing is left behind, but for
 * STORAGE and MEMORY at the last moment: personas. */
MUST_USE enum status import_make(struct store *store, struct transfer *transfer,
                                 struct error *error, struct session **out);

/* The prompt of a context, as context_prompts[] names it. */
const struct prompt *import_prompt(const struct session *session, uint32_t at);

#endif
