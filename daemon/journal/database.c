#include "journal/database.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "journal/schema.h"

enum {
    PATH_BYTES_MAX = 4096,
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

/* ---- versions ---- */

static enum status read_number(struct database *database, const char *sql, struct error *error,
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

static enum status set_version(struct database *database, int64_t version, struct error *error)
{
    char sql[64];

    (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %lld", (long long)version);
    return database_run(database, sql, error);
}

/* A whole copy under "<path>.v<version>", which no later start overwrites. */
static enum status copy_before_migration(struct database *database, int64_t version,
                                         struct error *error)
{
    char name[PATH_BYTES_MAX];
    sqlite3_stmt *statement = NULL;
    int code;

    if (database->path == NULL) {
        return STATUS_OK;
    }
    (void)snprintf(name, sizeof name, "%s.v%lld", database->path, (long long)version);
    if (access(name, F_OK) == 0) {
        return error_set(error, STATUS_CONFLICT,
                         "%s: it is the copy of an earlier migration that did not end; move it "
                         "away, so that %s can be copied before it is migrated",
                         name, database->path);
    }
    TRY(database_prepare(database, "VACUUM INTO ?", error, &statement));
    code = sqlite3_bind_text(statement, 1, name, -1, SQLITE_STATIC);
    if (code == SQLITE_OK) {
        code = sqlite3_step(statement);
    }
    sqlite3_finalize(statement);
    if (code != SQLITE_DONE) {
        (void)unlink(name);
        return database_fail(database, code, error);
    }
    (void)chmod(name, 0600);
    log_line(LOG_INFO, "journal", "version %lld was copied to %s", (long long)version, name);
    return STATUS_OK;
}

static enum status apply_sql(struct database *database, int64_t version, struct error *error)
{
    if (version == 0) {
        return database_run(database, schema_sql, error);
    }
    for (uint64_t i = (uint64_t)version - 1; i < schema_migration_count; i++) {
        TRY(database_run(database, schema_migrations[i], error));
    }
    return STATUS_OK;
}

static enum status run_migrations(struct database *database, int64_t version, struct error *error)
{
    enum status status = database_run(database, "BEGIN IMMEDIATE", error);

    if (status == STATUS_OK) {
        status = apply_sql(database, version, error);
    }
    if (status == STATUS_OK) {
        status = set_version(database, DATABASE_VERSION, error);
    }
    if (status == STATUS_OK) {
        status = database_run(database, "COMMIT", error);
    }
    if (status != STATUS_OK) {
        (void)sqlite3_exec(database->handle, "ROLLBACK", NULL, NULL, NULL);
        error_prefix(error, "bringing the journal from version %lld to %d failed",
                     (long long)version, DATABASE_VERSION);
    }
    return status;
}

/* Before anything is set, so that a file which is not ours stays as it is. */
static enum status check_version(struct database *database, struct error *error)
{
    int64_t version = 0;
    int64_t table_count = 0;

    TRY(read_number(database, "PRAGMA user_version", error, &version));
    TRY(read_number(database, "SELECT count(*) FROM sqlite_schema", error, &table_count));
    if (version > DATABASE_VERSION) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: a newer personad wrote it (version %lld, this one knows %d); start "
                         "that one, or choose another folder with --data",
                         database->path, (long long)version, DATABASE_VERSION);
    }
    if (version < 0 || (version == 0 && table_count > 0)) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: it is a database, but not a journal of personad; choose another "
                         "folder with --data",
                         database->path);
    }
    return STATUS_OK;
}

static enum status migrate(struct database *database, struct error *error)
{
    int64_t version = 0;

    TRY(read_number(database, "PRAGMA user_version", error, &version));
    if (version == DATABASE_VERSION) {
        return STATUS_OK;
    }
    if (version > 0) {
        TRY(copy_before_migration(database, version, error));
    }
    return run_migrations(database, version, error);
}

/* quick_check reads every page, so a large file is looked at only as far as the bound goes: pages
 * that are read later are checked when they are. */
static enum status check_pages(struct database *database, struct error *error)
{
    int64_t page_count = 0;
    sqlite3_stmt *statement = NULL;
    enum status status = STATUS_OK;
    int code;

    TRY(read_number(database, "PRAGMA page_count", error, &page_count));
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

static enum status set_up(struct database *database, struct error *error)
{
    /* Foreign keys hold the order of commits: no child before its parent. */
    static const char settings[] = "PRAGMA journal_mode = WAL;"
                                   "PRAGMA synchronous = FULL;"
                                   "PRAGMA foreign_keys = ON;"
                                   "PRAGMA temp_store = MEMORY;"
                                   "PRAGMA journal_size_limit = 67108864;";

    /* First of all: without it the file would be shared with others from the first read on. */
    TRY(database_run(database, "PRAGMA locking_mode = EXCLUSIVE", error));
    TRY(check_version(database, error));
    TRY(database_run(database, settings, error));
    TRY(migrate(database, error));
    return check_pages(database, error);
}

enum status database_open(const char *path, struct error *error, struct database **out)
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
    status = code == SQLITE_OK ? set_up(database, error) : database_fail(database, code, error);
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
