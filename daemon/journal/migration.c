#include "journal/migration.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "journal/backup.h"
#include "journal/database.h"
#include "journal/schema.h"

enum {
    COPY_COUNT_MAX = 9, /* of one version: so many migrations that did not end */
    PATH_BYTES_MAX = 4096,
    TELL_OPERATION_COUNT = 100000, /* of SQLite's machine, between two looks at the clock */
};

static const uint64_t tell_ns = UINT64_C(2000000000);

static int64_t newest_version(const struct schema *schema)
{
    return (int64_t)schema->migration_count + 1;
}

static enum status read_version(struct database *database, struct error *error, int64_t *out)
{
    return database_read_number(database, "PRAGMA user_version", error, out);
}

enum status migration_check(struct database *database, const struct schema *schema,
                            struct error *error)
{
    int64_t version = 0;
    int64_t table_count = 0;

    TRY(read_version(database, error, &version));
    TRY(database_read_number(database, "SELECT count(*) FROM sqlite_schema", error, &table_count));
    if (version > newest_version(schema)) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: a newer personad wrote it (version %lld, this one knows %lld); start "
                         "that one, or choose another folder with --data",
                         database->path, (long long)version, (long long)newest_version(schema));
    }
    if (version < 0 || (version == 0 && table_count > 0)) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: it is a database, but not a journal of personad; choose another "
                         "folder with --data",
                         database->path);
    }
    return STATUS_OK;
}

/* ---- the copy ---- */

/* A name that is free: only an empty file, which a killed copy left to hold it, is taken away. */
static enum status choose_name(const struct database *database, int64_t version,
                               struct error *error, char **out)
{
    char *name = memory_alloc(PATH_BYTES_MAX, 1);

    if (name == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a copy of the journal");
    }
    for (uint32_t i = 1; i <= COPY_COUNT_MAX; i++) {
        char number[16] = "";
        struct stat info;

        if (i > 1) {
            (void)snprintf(number, sizeof(number), ".%u", i);
        }
        (void)snprintf(name, PATH_BYTES_MAX, "%s.v%lld%s", database->path, (long long)version,
                       number);
        if (lstat(name, &info) != 0 ||
            (S_ISREG(info.st_mode) && info.st_size == 0 && unlink(name) == 0)) {
            *out = name;
            return STATUS_OK;
        }
    }
    error_set(error, STATUS_CONFLICT,
              "%s: it is one of %u copies of migrations that did not end; move them away, so that "
              "%s can be copied before it is migrated",
              name, COPY_COUNT_MAX, database->path);
    memory_free(name);
    return STATUS_CONFLICT;
}

static enum status copy(struct database *database, int64_t version, struct error *error)
{
    uint64_t told_ns = clock_monotonic_ns();
    struct backup *backup = NULL;
    char *path = NULL;
    enum status status;

    TRY(choose_name(database, version, error, &path));
    log_line(LOG_INFO, "journal", "version %lld is copied to %s before it is migrated",
             (long long)version, path);
    TRY(backup_start(database, path, error, &backup)); /* owns the path now */
    status = backup_step(backup, error);
    while (status == STATUS_AGAIN) {
        if (clock_monotonic_ns() - told_ns > tell_ns) {
            told_ns = clock_monotonic_ns();
            log_line(LOG_INFO, "journal", "%u %% of it are copied", backup_percent(backup));
        }
        status = backup_step(backup, error);
    }
    backup_finish(backup);
    return status;
}

/* ---- one version ---- */

struct teller {
    int64_t version; /* that is being made */
    uint64_t started_ns, told_ns;
};

static int on_progress(void *context)
{
    struct teller *teller = context;
    const uint64_t now_ns = clock_monotonic_ns();

    if (now_ns - teller->told_ns > tell_ns) {
        teller->told_ns = now_ns;
        log_line(LOG_INFO, "journal", "the migration to version %lld goes on (%llu s)",
                 (long long)teller->version,
                 (unsigned long long)((now_ns - teller->started_ns) / 1000000000));
    }
    return 0;
}

/* No row may point at one that is gone. */
static enum status check_foreign_keys(struct database *database, struct error *error)
{
    sqlite3_stmt *statement = NULL;
    enum status status = STATUS_OK;
    int code;

    TRY(database_prepare(database, "PRAGMA foreign_key_check", error, &statement));
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
        status = error_set(error, STATUS_STORAGE, "a row of table %s points at none of table %s",
                           sqlite3_column_text(statement, 0), sqlite3_column_text(statement, 2));
    } else if (code != SQLITE_DONE) {
        status = database_fail(database, code, error);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum status set_version(struct database *database, int64_t version, struct error *error)
{
    char sql[64];

    (void)snprintf(sql, sizeof(sql), "PRAGMA user_version = %lld", (long long)version);
    return database_run(database, sql, error);
}

static enum status make_version(struct database *database, const char *sql, int64_t version,
                                struct error *error)
{
    enum status status = database_run(database, "BEGIN IMMEDIATE", error);

    if (status == STATUS_OK) {
        status = database_run(database, sql, error);
    }
    if (status == STATUS_OK) {
        status = check_foreign_keys(database, error);
    }
    if (status == STATUS_OK) {
        status = set_version(database, version, error);
    }
    if (status == STATUS_OK) {
        status = database_run(database, "COMMIT", error);
    }
    if (status != STATUS_OK) {
        (void)sqlite3_exec(database->handle, "ROLLBACK", NULL, NULL, NULL);
        error_prefix(error, "bringing the journal to version %lld failed, it stays as it was",
                     (long long)version);
    }
    return status;
}

static enum status make_versions(struct database *database, const struct schema *schema,
                                 int64_t version, struct error *error)
{
    if (version == 0) {
        return make_version(database, schema->sql, newest_version(schema), error);
    }
    for (; version < newest_version(schema); version++) {
        struct teller teller = {.version = version + 1, .started_ns = clock_monotonic_ns()};
        enum status status;

        teller.told_ns = teller.started_ns;
        sqlite3_progress_handler(database->handle, TELL_OPERATION_COUNT, on_progress, &teller);
        status = make_version(database, schema->migrations[version - 1], version + 1, error);
        sqlite3_progress_handler(database->handle, 0, NULL, NULL);
        TRY(status);
        log_line(LOG_INFO, "journal", "it has version %lld now (%llu ms)", (long long)version + 1,
                 (unsigned long long)((clock_monotonic_ns() - teller.started_ns) / 1000000));
    }
    return STATUS_OK;
}

enum status migration_apply(struct database *database, const struct schema *schema,
                            struct error *error)
{
    enum status status;
    int64_t version = 0;

    TRY(read_version(database, error, &version));
    TRY(database_run(database, "PRAGMA foreign_keys = OFF", error));
    status = make_versions(database, schema, version, error);
    /* Without them nothing is written any more, so a failure here counts too. */
    if (status == STATUS_OK) {
        status = database_run(database, "PRAGMA foreign_keys = ON", error);
    }
    return status;
}

enum status migration_run(struct database *database, const struct schema *schema,
                          struct error *error)
{
    int64_t version = 0;

    TRY(read_version(database, error, &version));
    if (version == newest_version(schema)) {
        return STATUS_OK;
    }
    if (version > 0 && database->path != NULL) {
        TRY(copy(database, version, error));
    }
    return migration_apply(database, schema, error);
}
