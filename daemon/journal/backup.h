/* A whole copy of the database while it is in use, made in slices.
 *
 * Thread: the journal's. What is written between two slices is in the copy too. The copy appears
 * under its name when it is whole and synced; until then it is "NAME.part".
 */
#ifndef PERSONAD_JOURNAL_BACKUP_H
#define PERSONAD_JOURNAL_BACKUP_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"

struct database;
struct backup;

/* path: taken over, freed with memory_free(). CONFLICT when it exists; IO. */
MUST_USE enum status backup_start(struct database *database, char *path, struct error *error,
                                  struct backup **out);

/* AGAIN: there is more to copy. After anything else the backup is over; call backup_finish(). */
MUST_USE enum status backup_step(struct backup *backup, struct error *error);

/* How much of it is copied, 0 to 100. */
uint32_t backup_percent(const struct backup *backup);

/* Takes away what is not whole; NULL is fine. */
void backup_finish(struct backup *backup);

#endif
