#include "journal/database.h"

#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "journal/migration.h"
#include "journal/schema.h"

enum {
    CHECK_PAGE_COUNT_MAX = 65536, /* 256 MiB: under a second */
};

enum status database_fail(const struct database *database, int code, struct error *error)
{
    const char *path = database->path != NULL ? database->path : "the journal";
    const char *text =
        database->handle != NULL ? sqlite3_errmsg(database->handle) : "out of memory";

    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return error_set(error, STATUS_MEMORY, "%s: out of memory", path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return error_set(error, STATUS_CONFLICT,
                         "%s: another program has it open; stop that program first", path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return error_set(error, STATUS_STORAGE,
                         "%s: it is damaged (%s); nothing was changed: put a backup in its place, "
                         "or move it away to start empty",
                         path, text);
    case SQLITE_FULL:
        return error_set(error, STATUS_STORAGE, "%s: the disk is full; make room, then restart",
                         path);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return error_set(error, STATUS_IO,
                         "%s: it cannot be written (%s); give its folder to the daemon's user",
                         path, text);
    default:
        return error_set(error, STATUS_STORAGE, "%s: %s", path, text);
    }
}

enum status database_prepare(struct database *database, const char *sql, struct error *error,
                             sqlite3_stmt **out)
{
    const int code =
        sqlite3_prepare_v3(database->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);

    return code == SQLITE_OK ? STATUS_OK : database_fail(database, code, error);
}

enum status database_run(struct database *database, const char *sql, struct error *error)
{
    const int code = sqlite3_exec(database->handle, sql, NULL, NULL, NULL);

    return code == SQLITE_OK ? STATUS_OK : database_fail(database, code, error);
}

struct bytes database_column(sqlite3_stmt *statement, int column)
{
    const void *data = sqlite3_column_blob(statement, column);

    return bytes_of(data, (size_t)sqlite3_column_bytes(statement, column));
}

enum status database_read_number(struct database *database, const char *sql, struct error *error,
                                 int64_t *out)
{
    sqlite3_stmt *statement = NULL;
    int code;

    TRY(database_prepare(database, sql, error, &statement));
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        *out = sqlite3_column_int64(statement, 0);
    }
    sqlite3_finalize(statement);
    return code == SQLITE_ROW ? STATUS_OK : database_fail(database, code, error);
}

/* quick_check reads every page, so a large file is looked at only as far as the bound goes: pages
 * that are read later are checked when they are. */
static enum status check_pages(struct database *database, struct error *error)
{
    int64_t page_count = 0;
    sqlite3_stmt *statement = NULL;
    enum status status = STATUS_OK;
    int code;

    TRY(database_read_number(database, "PRAGMA page_count", error, &page_count));
    if (page_count > CHECK_PAGE_COUNT_MAX) {
        return STATUS_OK;
    }
    TRY(database_prepare(database, "PRAGMA quick_check(1)", error, &statement));
    code = sqlite3_step(statement);
    if (code != SQLITE_ROW) {
        status = database_fail(database, code, error);
    } else if (strcmp((const char *)sqlite3_column_text(statement, 0), "ok") != 0) {
        status = error_set(error, STATUS_STORAGE,
                           "%s: it is damaged (%s); nothing was changed: put a backup in its "
                           "place, or move it away to start empty",
                           database->path, (const char *)sqlite3_column_text(statement, 0));
    }
    sqlite3_finalize(statement);
    return status;
}

/* ---- opening ---- */

/* SQLite opens for reading what it may not write, and says so only at the first write. */
static enum status check_writable(const struct database *database, struct error *error)
{
    if (database->path == NULL || sqlite3_db_readonly(database->handle, "main") == 0) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_IO,
                     "%s: the daemon may read it and not write it; give it the right to write "
                     "(chmod u+w), or name another folder with --data",
                     database->path);
}

/* A daemon that was killed between a write and its sync, or whose sync failed, leaves commits in
 * the log that the disk may not have. They are read as all others: so they have to be on the disk
 * before anybody sees them. */
static enum status make_durable(struct database *database, struct error *error)
{
    int64_t is_busy = 0;

    TRY(database_read_number(database, "PRAGMA wal_checkpoint(TRUNCATE)", error, &is_busy));
    return is_busy == 0 ? STATUS_OK : database_fail(database, SQLITE_BUSY, error);
}

static enum status set_up(struct database *database, const struct schema *schema,
                          struct error *error)
{
    /* Foreign keys hold the order of commits: no child before its parent. */
    static const char settings[] = "PRAGMA journal_mode = WAL;"
                                   "PRAGMA synchronous = FULL;"
                                   "PRAGMA foreign_keys = ON;"
                                   "PRAGMA temp_store = MEMORY;"
                                   "PRAGMA journal_size_limit = 67108864;";

    /* First of all: without it the file would be shared with others from the first read on. */
    TRY(database_run(database, "PRAGMA locking_mode = EXCLUSIVE", error));
    TRY(check_writable(database, error));
    /* Before anything is set, so that a file which is not ours stays as it is. */
    TRY(migration_check(database, schema, error));
    TRY(database_run(database, settings, error));
    TRY(check_pages(database, error)); /* what is damaged is not migrated */
    TRY(migration_run(database, schema, error));
    return make_durable(database, error);
}

enum status database_open(const char *path, struct error *error, struct database **out)
{
    return database_open_as(path, &schema_current, error, out);
}

enum status database_open_as(const char *path, const struct schema *schema, struct error *error,
                             struct database **out)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                      SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_EXRESCODE;
    struct database *database = memory_alloc(1, sizeof(*database));
    enum status status;
    int code;

    if (database == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for the journal");
    }
    database->path = path;
    code = sqlite3_open_v2(path != NULL ? path : ":memory:", &database->handle, flags, NULL);
    status =
        code == SQLITE_OK ? set_up(database, schema, error) : database_fail(database, code, error);
    if (status != STATUS_OK) {
        database_close(database);
        return status;
    }
    *out = database;
    return STATUS_OK;
}

void database_close(struct database *database)
{
    if (database == NULL) {
        return;
    }
    if (sqlite3_close(database->handle) != SQLITE_OK) {
        log_line(LOG_ERROR, "journal", "the database could not be closed");
    }
    memory_free(database);
}
