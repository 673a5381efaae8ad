/* Records that are committed together: all of them or none.
 *
 * Thread: one at a time. A batch is made on the loop thread and goes to the journal thread with
 * journal_submit(); it owns copies of all that its records point at.
 */
#ifndef PERSONAD_JOURNAL_BATCH_H
#define PERSONAD_JOURNAL_BATCH_H

#include <stdbool.h>

#include "base/status.h"
#include "journal/record.h"

struct journal_batch_record {
    struct journal_batch_record *next;
    struct journal_record record; /* its bytes lie behind it in the same block */
};

struct journal_batch {
    struct journal_batch_record *first, **last; /* owned, in the order of adding */
    uint32_t told_count;                        /* completions of nodes that it will give */
    uint32_t intent_count, finish_count;
    uint64_t bytes;
    uint64_t ticket; /* the caller's, in the batch's own completion */
    bool is_silent;  /* set before anything is added: no completions of nodes, no reservations */
};

MUST_USE enum status journal_batch_create(struct journal_batch **out);
void journal_batch_destroy(struct journal_batch *batch); /* NULL is fine */

/* Copies the record. MEMORY: the batch is as it was. */
MUST_USE enum status journal_batch_add(struct journal_batch *batch,
                                       const struct journal_record *record);

#endif
