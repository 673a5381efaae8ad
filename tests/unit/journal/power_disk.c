#include "unit/journal/power_disk.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/memory.h"

enum { FILE_COUNT_MAX = 8, NAME_BYTES_MAX = 600, SECTOR_BYTES = 512 };

/* One write since the last sync; size_only: a truncation to `at`. */
struct pending_write {
    struct pending_write *next;
    uint64_t at;
    size_t size;
    bool size_only;
    uint8_t data[];
};

struct disk_file {
    char name[NAME_BYTES_MAX];
    bool exists;
    uint8_t *now, *synced; /* owned */
    uint64_t now_size, synced_size;
    struct pending_write *writes, **last;
};

struct open_file {
    sqlite3_file base;
    struct disk_file *file;
    bool is_temporary;
};

static struct disk_file files[FILE_COUNT_MAX];
static uint64_t operation_count, fail_at;
static bool fail_one, fail_full;

/* ---- contents ---- */

static void put(uint8_t **content, uint64_t *size, uint64_t at, const void *data, size_t count)
{
    if (at + count > *size) {
        uint8_t *grown = memory_resize(*content, at + count, 1);

        CHECK(grown != NULL);
        memset(grown + *size, 0, at + count - *size);
        *content = grown;
        *size = at + count;
    }
    memcpy(*content + at, data, count);
}

static void forget_writes(struct disk_file *file)
{
    while (file->writes != NULL) {
        struct pending_write *next = file->writes->next;

        memory_free(file->writes);
        file->writes = next;
    }
    file->last = &file->writes;
}

static void remember(struct disk_file *file, uint64_t at, const void *data, size_t size,
                     bool size_only)
{
    struct pending_write *write = memory_alloc(1, sizeof(*write) + size);

    CHECK(write != NULL);
    write->at = at;
    write->size = size;
    write->size_only = size_only;
    if (size > 0) {
        memcpy(write->data, data, size);
    }
    *file->last = write;
    file->last = &write->next;
}

static void sync_file(struct disk_file *file)
{
    uint8_t *copy = memory_resize(file->synced, file->now_size > 0 ? file->now_size : 1, 1);

    CHECK(copy != NULL);
    if (file->now_size > 0) {
        memcpy(copy, file->now, file->now_size);
    }
    file->synced = copy;
    file->synced_size = file->now_size;
    forget_writes(file);
}

static void clear(struct disk_file *file)
{
    forget_writes(file);
    memory_free(file->now);
    memory_free(file->synced);
    memset(file, 0, sizeof(*file));
    file->last = &file->writes;
}

void power_disk_reset(void)
{
    for (int i = 0; i < FILE_COUNT_MAX; i++) {
        clear(&files[i]);
    }
    operation_count = 0;
    fail_at = 0;
}

uint64_t power_disk_operation_count(void)
{
    return operation_count;
}

void power_disk_fail_at(uint64_t operation, bool only_one, bool full)
{
    fail_at = operation;
    fail_one = only_one;
    fail_full = full;
}

static uint64_t draw(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Some of what was on its way arrives: no sector in half, and in any order. */
void power_disk_cut(uint64_t seed)
{
    for (int i = 0; i < FILE_COUNT_MAX; i++) {
        struct disk_file *file = &files[i];
        const uint64_t likely = draw(&seed) % 5; /* of four: none, some, all */

        for (const struct pending_write *at = file->writes; at != NULL; at = at->next) {
            if (at->size_only) {
                if (draw(&seed) % 4 < likely && at->at < file->synced_size) {
                    file->synced_size = at->at;
                }
                continue;
            }
            for (size_t from = 0; from < at->size;) {
                const size_t to_edge = SECTOR_BYTES - (at->at + from) % SECTOR_BYTES;
                const size_t part = at->size - from < to_edge ? at->size - from : to_edge;

                if (draw(&seed) % 4 < likely) {
                    put(&file->synced, &file->synced_size, at->at + from, at->data + from, part);
                }
                from += part;
            }
        }
        forget_writes(file);
        file->now_size = 0;
        if (file->synced_size > 0) {
            put(&file->now, &file->now_size, 0, file->synced, file->synced_size);
        }
    }
    fail_at = 0;
}

/* ---- what SQLite calls ---- */

static bool has_failed(void)
{
    operation_count++;
    return fail_at != 0 && (fail_one ? operation_count == fail_at : operation_count >= fail_at);
}

static struct disk_file *file_of(sqlite3_file *opened)
{
    return ((struct open_file *)(void *)opened)->file;
}

static int disk_close(sqlite3_file *opened)
{
    if (((struct open_file *)(void *)opened)->is_temporary) {
        clear(file_of(opened));
    }
    return SQLITE_OK;
}

static int disk_read(sqlite3_file *opened, void *out, int count, sqlite3_int64 at)
{
    const struct disk_file *file = file_of(opened);
    const uint64_t there = (uint64_t)at < file->now_size ? file->now_size - (uint64_t)at : 0;
    const size_t part = there < (uint64_t)count ? (size_t)there : (size_t)count;

    if (part > 0) {
        memcpy(out, file->now + at, part);
    }
    if (part < (size_t)count) {
        memset((uint8_t *)out + part, 0, (size_t)count - part);
        return SQLITE_IOERR_SHORT_READ;
    }
    return SQLITE_OK;
}

static int disk_write(sqlite3_file *opened, const void *data, int count, sqlite3_int64 at)
{
    struct disk_file *file = file_of(opened);

    if (has_failed()) {
        return fail_full ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    }
    put(&file->now, &file->now_size, (uint64_t)at, data, (size_t)count);
    remember(file, (uint64_t)at, data, (size_t)count, false);
    return SQLITE_OK;
}

static int disk_truncate(sqlite3_file *opened, sqlite3_int64 size)
{
    struct disk_file *file = file_of(opened);

    if (has_failed()) {
        return SQLITE_IOERR_TRUNCATE;
    }
    if ((uint64_t)size < file->now_size) {
        file->now_size = (uint64_t)size;
        remember(file, (uint64_t)size, NULL, 0, true);
    }
    return SQLITE_OK;
}

static int disk_sync(sqlite3_file *opened, int flags)
{
    (void)flags;
    if (has_failed()) {
        return SQLITE_IOERR_FSYNC;
    }
    sync_file(file_of(opened));
    return SQLITE_OK;
}

static int disk_size(sqlite3_file *opened, sqlite3_int64 *out)
{
    *out = (sqlite3_int64)file_of(opened)->now_size;
    return SQLITE_OK;
}

static int disk_lock(sqlite3_file *opened, int kind)
{
    (void)opened;
    (void)kind;
    return SQLITE_OK;
}

static int disk_is_reserved(sqlite3_file *opened, int *out)
{
    (void)opened;
    *out = 0;
    return SQLITE_OK;
}

static int disk_control(sqlite3_file *opened, int operation, void *argument)
{
    (void)opened;
    (void)operation;
    (void)argument;
    return SQLITE_NOTFOUND;
}

static int disk_sector_size(sqlite3_file *opened)
{
    (void)opened;
    return SECTOR_BYTES;
}

static int disk_characteristics(sqlite3_file *opened)
{
    (void)opened;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static struct disk_file *find(const char *name)
{
    for (int i = 0; i < FILE_COUNT_MAX; i++) {
        if (files[i].exists && strcmp(files[i].name, name) == 0) {
            return &files[i];
        }
    }
    return NULL;
}

static int disk_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *out, int flags,
                     int *out_flags)
{
    static const sqlite3_io_methods methods = {
        .iVersion = 1,
        .xClose = disk_close,
        .xRead = disk_read,
        .xWrite = disk_write,
        .xTruncate = disk_truncate,
        .xSync = disk_sync,
        .xFileSize = disk_size,
        .xLock = disk_lock,
        .xUnlock = disk_lock,
        .xCheckReservedLock = disk_is_reserved,
        .xFileControl = disk_control,
        .xSectorSize = disk_sector_size,
        .xDeviceCharacteristics = disk_characteristics,
    };
    struct open_file *opened = (struct open_file *)(void *)out;
    struct disk_file *file = name != NULL ? find(name) : NULL;

    (void)vfs;
    for (int i = 0; i < FILE_COUNT_MAX && file == NULL; i++) {
        if (!files[i].exists) {
            file = &files[i];
            file->exists = true;
            file->last = &file->writes;
            (void)snprintf(file->name, sizeof(file->name), "%s", name != NULL ? name : "");
        }
    }
    CHECK(file != NULL);
    opened->base.pMethods = &methods;
    opened->file = file;
    opened->is_temporary = name == NULL;
    if (out_flags != NULL) {
        *out_flags = flags;
    }
    return SQLITE_OK;
}

static int disk_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    struct disk_file *file = find(name);

    (void)vfs;
    (void)sync;
    if (has_failed()) {
        return SQLITE_IOERR_DELETE;
    }
    if (file == NULL) {
        return SQLITE_IOERR_DELETE_NOENT;
    }
    clear(file);
    return SQLITE_OK;
}

static int disk_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs;
    (void)flags;
    *out = find(name) != NULL;
    return SQLITE_OK;
}

static int disk_path(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
    (void)vfs;
    (void)snprintf(out, (size_t)size, "%s", name);
    return SQLITE_OK;
}

static int disk_randomness(sqlite3_vfs *vfs, int count, char *out)
{
    (void)vfs;
    memset(out, 42, (size_t)count);
    return count;
}

static int disk_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int disk_time(sqlite3_vfs *vfs, double *out)
{
    (void)vfs;
    *out = 2460000.5;
    return SQLITE_OK;
}

static sqlite3_vfs disk = {
    .iVersion = 1,
    .szOsFile = sizeof(struct open_file),
    .mxPathname = NAME_BYTES_MAX - 1,
    .zName = "power-disk",
    .xOpen = disk_open,
    .xDelete = disk_delete,
    .xAccess = disk_access,
    .xFullPathname = disk_path,
    .xRandomness = disk_randomness,
    .xSleep = disk_sleep,
    .xCurrentTime = disk_time,
};

void power_disk_install(void)
{
    CHECK(sqlite3_vfs_register(&disk, 1) == SQLITE_OK);
    power_disk_reset();
}

void power_disk_remove(void)
{
    CHECK(sqlite3_vfs_unregister(&disk) == SQLITE_OK);
    power_disk_reset();
}
