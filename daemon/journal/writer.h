/* Batches into rows: one transaction a group.
 *
 * Thread: the journal's. Owns its prepared statements.
 */
#ifndef PERSONAD_JOURNAL_WRITER_H
#define PERSONAD_JOURNAL_WRITER_H

#include "base/error.h"
#include "base/status.h"
#include "journal/batch.h"

struct database;
struct writer;

MUST_USE enum status writer_create(struct database *database, struct error *error,
                                   struct writer **out);
void writer_destroy(struct writer *writer); /* NULL is fine */

/* At the start: erases what an import that did not end has left. */
MUST_USE enum status writer_clean(struct writer *writer, struct error *error);

/* All of the batches or none. */
MUST_USE enum status writer_commit(struct writer *writer, struct journal_batch *const *batches,
                                   uint32_t count, struct error *error);

#endif
