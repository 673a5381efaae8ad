#include "journal/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "journal/database.h"

enum { SLICE_PAGE_COUNT = 64, PATH_BYTES_MAX = 4096 };

struct backup {
    struct database to; /* handle owned */
    char *path;         /* owned */
    char part[PATH_BYTES_MAX + 8];
    sqlite3_backup *copy; /* owned */
    bool has_name;        /* an empty file holds it */
    bool is_whole;
};

static enum status fail(const struct backup *backup, struct error *error)
{
    return error_set(error, errno == EEXIST ? STATUS_CONFLICT : STATUS_IO,
                     "%s: the backup cannot be written there: %s", backup->path, strerror(errno));
}

/* An empty file that only its owner reads, whatever the umask. */
static bool make_file(const char *path)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    const int file = open(path, flags, 0600);

    return file >= 0 && close(file) == 0;
}

static enum status open_part(struct backup *backup, struct database *from, struct error *error)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
                      SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW;
    int code;

    (void)snprintf(backup->part, sizeof(backup->part), "%s.part", backup->path);
    (void)unlink(backup->part); /* of a backup that was killed */
    if (!make_file(backup->part)) {
        return fail(backup, error);
    }
    backup->to.path = backup->part;
    code = sqlite3_open_v2(backup->part, &backup->to.handle, flags, NULL);
    if (code != SQLITE_OK) {
        return database_fail(&backup->to, code, error);
    }
    backup->copy = sqlite3_backup_init(backup->to.handle, "main", from->handle, "main");
    return backup->copy != NULL
               ? STATUS_OK
               : database_fail(&backup->to, sqlite3_errcode(backup->to.handle), error);
}

enum status backup_start(struct database *database, char *path, struct error *error,
                         struct backup **out)
{
    struct backup *backup = memory_alloc(1, sizeof(*backup));
    enum status status;

    if (backup == NULL) {
        memory_free(path);
        return error_set(error, STATUS_MEMORY, "out of memory for a backup");
    }
    backup->path = path;
    /* The name is taken first, so that no file of another is ever replaced. */
    if (strlen(path) >= PATH_BYTES_MAX) {
        status = error_set(error, STATUS_BAD_INPUT, "the path of the backup is too long");
    } else {
        backup->has_name = make_file(path);
        status = backup->has_name ? STATUS_OK : fail(backup, error);
    }
    if (status == STATUS_OK) {
        status = open_part(backup, database, error);
    }
    if (status != STATUS_OK) {
        backup_finish(backup);
        return status;
    }
    *out = backup;
    return STATUS_OK;
}

/* SQLite has synced the copy; now it gets its name. */
static enum status end(struct backup *backup, struct error *error)
{
    const int code = sqlite3_backup_finish(backup->copy);

    backup->copy = NULL;
    if (code != SQLITE_OK) {
        return database_fail(&backup->to, code, error);
    }
    if (sqlite3_close(backup->to.handle) != SQLITE_OK) {
        return error_set(error, STATUS_IO, "%s: it could not be closed", backup->part);
    }
    backup->to.handle = NULL;
    if (rename(backup->part, backup->path) != 0) {
        return fail(backup, error);
    }
    backup->is_whole = true;
    return STATUS_OK;
}

enum status backup_step(struct backup *backup, struct error *error)
{
    const int code = sqlite3_backup_step(backup->copy, SLICE_PAGE_COUNT);

    if (code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED) {
        return STATUS_AGAIN;
    }
    return code == SQLITE_DONE ? end(backup, error) : database_fail(&backup->to, code, error);
}

uint32_t backup_percent(const struct backup *backup)
{
    const int64_t page_count = sqlite3_backup_pagecount(backup->copy);
    const int64_t left_count = sqlite3_backup_remaining(backup->copy);

    return page_count > 0 ? (uint32_t)((page_count - left_count) * 100 / page_count) : 0;
}

void backup_finish(struct backup *backup)
{
    if (backup == NULL) {
        return;
    }
    if (backup->copy != NULL) {
        (void)sqlite3_backup_finish(backup->copy);
    }
    (void)sqlite3_close(backup->to.handle);
    if (!backup->is_whole) {
        (void)unlink(backup->part);
    }
    if (!backup->is_whole && backup->has_name) {
        (void)unlink(backup->path);
    }
    memory_free(backup->path);
    memory_free(backup);
}
