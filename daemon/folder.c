#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/memory.h"
#include "limits.h"

enum {
    PATH_BYTES_MAX = 4096,
    DESCRIPTOR_RESERVE = 64, /* files, the loop's own, standard streams */
};

void folder_prepare_process(void)
{
    (void)umask(077);
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGPIPE, &ignore, NULL);
    (void)sigaction(SIGXFSZ, &ignore, NULL);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

uint32_t folder_connection_count_max(uint32_t wanted)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return wanted;
    }
    const uint64_t room =
        limit.rlim_cur > DESCRIPTOR_RESERVE ? limit.rlim_cur - DESCRIPTOR_RESERVE : 1;
    if (room < wanted) {
        log_line(LOG_WARN, "daemon", "the limit of open files allows %llu connections, not %u",
                 (unsigned long long)room, wanted);
        return (uint32_t)room;
    }
    return wanted;
}

/* mkdir -p; parents that exist are left alone. */
static enum status folder_make(const char *path, struct error *error)
{
    char part[PATH_BYTES_MAX];
    const size_t size = strlen(path);
    if (size == 0 || size >= sizeof part) {
        return error_set(error, STATUS_BAD_INPUT, "%.64s...: the path is empty or too long", path);
    }
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            return error_set(error, STATUS_IO, "%s: the folder could not be made: %s", part,
                             strerror(errno));
        }
    }
    return STATUS_OK;
}

enum status folder_prepare_data(const char *path, struct error *error, int *lock)
{
    TRY(folder_make(path, error));
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return error_set(error, STATUS_IO, "%s: not a folder", path);
    }
    if (info.st_uid != geteuid()) {
        return error_set(error, STATUS_DENIED,
                         "%s: the data folder belongs to user %u; give the daemon its own", path,
                         (unsigned)info.st_uid);
    }
    if (chmod(path, 0700) != 0) {
        return error_set(error, STATUS_IO, "%s: %s", path, strerror(errno));
    }
    char name[PATH_BYTES_MAX + 8];
    (void)snprintf(name, sizeof name, "%s/lock", path);
    const int made = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (made < 0) {
        return error_set(error, STATUS_IO, "%s: the folder is not writable: %s", path,
                         strerror(errno));
    }
    if (flock(made, LOCK_EX | LOCK_NB) != 0) {
        (void)close(made);
        return error_set(error, STATUS_CONFLICT,
                         "%s: another daemon uses this data folder; stop it or choose another "
                         "with --data",
                         path);
    }
    *lock = made;
    return STATUS_OK;
}

void folder_release(int lock)
{
    if (lock >= 0) {
        (void)close(lock);
    }
}

enum status folder_prepare_socket(const char *socket_path, struct error *error)
{
    const char *slash = strrchr(socket_path, '/');
    if (slash == NULL || slash == socket_path) {
        return STATUS_OK;
    }
    char folder[PATH_BYTES_MAX];
    const size_t size = (size_t)(slash - socket_path);
    if (size >= sizeof folder) {
        return error_set(error, STATUS_BAD_INPUT, "--socket: the path is too long");
    }
    memcpy(folder, socket_path, size);
    folder[size] = '\0';
    TRY(folder_make(folder, error));
    struct stat info;
    if (stat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return error_set(error, STATUS_IO, "%s: not a folder", folder);
    }
    /* Whoever may rename files there could put another socket in its place. */
    const bool own = info.st_uid == geteuid() || info.st_uid == 0;
    const bool open_to_all = (info.st_mode & S_IWOTH) != 0 && (info.st_mode & S_ISVTX) == 0;
    if (!own || open_to_all) {
        return error_set(error, STATUS_DENIED,
                         "%s: other users could replace the socket there; choose a folder of "
                         "your own with --socket",
                         folder);
    }
    return STATUS_OK;
}

static int is_card(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return dot != NULL && strcmp(dot, ".json") == 0 && entry->d_name[0] != '.';
}

static enum status cards_load(const char *path, struct store *store, struct error *error)
{
    struct dirent **entries = NULL;
    const int count = scandir(path, &entries, is_card, alphasort);
    if (count < 0) {
        return error_set(error, STATUS_IO, "%s: the folder of personas cannot be read: %s", path,
                         strerror(errno));
    }
    enum status status = STATUS_OK;
    for (int i = 0; i < count; i++) {
        char name[PATH_BYTES_MAX + 256];
        (void)snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (status == STATUS_OK) {
            status = store_persona_load(store, name, error);
        }
        free(entries[i]); /* tidy: allow memory: scandir allocates with malloc */
    }
    free(entries); /* tidy: allow memory: scandir allocates with malloc */
    return status;
}

/* Beside an uninstalled program: build/release/bin/personad -> personas/. */
static bool shipped_find(char path[PATH_BYTES_MAX])
{
    if (access(PERSONAD_PERSONAS_FOLDER, R_OK) == 0) {
        (void)snprintf(path, PATH_BYTES_MAX, "%s", PERSONAD_PERSONAS_FOLDER);
        return true;
    }
    char program[PATH_BYTES_MAX];
    const ssize_t size = readlink("/proc/self/exe", program, sizeof program - 1);
    if (size <= 0) {
        return false;
    }
    program[size] = '\0';
    char *slash = strrchr(program, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    static const char *const places[] = {"../share/personad/personas", "../../../personas"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const int made = snprintf(path, PATH_BYTES_MAX, "%s/%s", program, places[i]);
        if (made > 0 && made < PATH_BYTES_MAX && access(path, R_OK) == 0) {
            return true;
        }
    }
    return false;
}

enum status folder_load_personas(const char *path, struct store *store, struct error *error)
{
    if (path != NULL) {
        return cards_load(path, store, error);
    }
    char shipped[PATH_BYTES_MAX];
    if (!shipped_find(shipped)) {
        return error_set(error, STATUS_NOT_FOUND,
                         "the shipped personas were not found in %s; name a folder with --personas",
                         PERSONAD_PERSONAS_FOLDER);
    }
    return cards_load(shipped, store, error);
}
