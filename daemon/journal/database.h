/* The one SQLite connection: opened, checked, brought to this version, closed.
 *
 * Thread: the journal's, or the one that builds the daemon before the journal thread lives. SQLite
 * stays inside daemon/journal/.
 *
 * WAL with synchronous=FULL: a commit that has returned is on disk. One connection does all writes
 * and checkpoints, and holds the file exclusively, so that no second one can.
 */
#ifndef PERSONAD_JOURNAL_DATABASE_H
#define PERSONAD_JOURNAL_DATABASE_H

#include <sqlite3.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"

struct schema;

struct database {
    sqlite3 *handle; /* owned */
    const char *path;
};

/* As journal_open(). */
MUST_USE enum status database_open(const char *path, struct error *error, struct database **out);

/* With tables and migrations of the caller's, for tests of migrations. */
MUST_USE enum status database_open_as(const char *path, const struct schema *schema,
                                      struct error *error, struct database **out);
void database_close(struct database *database); /* NULL is fine */

/* The status of a SQLite result code, and a sentence that names the file and what to do. */
enum status database_fail(const struct database *database, int code, struct error *error);

/* Statements are owned by the caller: sqlite3_finalize. */
MUST_USE enum status database_prepare(struct database *database, const char *sql,
                                      struct error *error, sqlite3_stmt **out);
MUST_USE enum status database_run(struct database *database, const char *sql, struct error *error);

/* The number in the first column of the first row. */
MUST_USE enum status database_read_number(struct database *database, const char *sql,
                                          struct error *error, int64_t *out);

/* A column's bytes: borrowed until the statement moves. */
struct bytes database_column(sqlite3_stmt *statement, int column);

#endif
