/* Small changes that are answered once the journal has them: marks, labels, bookmarks.
 *
 * Thread: loop. What a request notes is one batch. It is built first, then submitted, and applied
 * only when that has succeeded; the answer goes out with the commit.
 *
 *   noting_init -> record_add_... to noting.batch -> noting_submit -> (apply) -> noting_answer
 *   at any failure: noting_finish
 */
#ifndef PERSONAD_SESSION_NOTING_H
#define PERSONAD_SESSION_NOTING_H

#include "session/pending.h"
#include "session/record.h"

struct noting {
    struct store *store;
    struct journal_batch *batch; /* owned until submitted */
    struct pending *pending;     /* owned until answered */
    uint64_t ticket;
    struct error *error;
};

MUST_USE enum status noting_init(struct noting *noting, struct store *store,
                                 const struct request *request, struct reply_to to,
                                 struct error *error);

/* Takes the status of the record_add_ calls along: MEMORY is said here. STORAGE, LIMIT. */
MUST_USE enum status noting_submit(struct noting *noting, enum status added);
void noting_answer(struct noting *noting);
void noting_finish(struct noting *noting); /* after noting_answer() there is nothing left to do */

#endif
