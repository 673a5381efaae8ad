/* Brings a database to the newest version of its schema: a new one at once, an older one by
 * migrations, one version after the other.
 *
 * Thread: that of database.h. Each version is a transaction of its own, which sets user_version
 * too: whatever ends the program, the file has the version before or the one behind, whole. Foreign
 * keys are off meanwhile, so that tables can be made anew, and are all checked before each commit.
 * Before the first one an older database is copied to "<path>.v<version>", then ".v<version>.2" and
 * so on; no copy is ever replaced.
 */
#ifndef PERSONAD_JOURNAL_MIGRATION_H
#define PERSONAD_JOURNAL_MIGRATION_H

#include "base/error.h"
#include "base/status.h"

struct database;
struct schema;

/* Changes nothing. UNSUPPORTED: a newer personad or another program wrote it. */
MUST_USE enum status migration_check(struct database *database, const struct schema *schema,
                                     struct error *error);

/* All of it, with the copy. On failure the file has the last version that was reached. */
MUST_USE enum status migration_run(struct database *database, const struct schema *schema,
                                   struct error *error);

/* Without the copy. */
MUST_USE enum status migration_apply(struct database *database, const struct schema *schema,
                                     struct error *error);

#endif
