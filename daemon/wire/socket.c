#include "wire/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "limits.h"

enum { LOCK_PATH_BYTES_MAX = SOCKET_PATH_BYTES_MAX + 8 };

static_assert(sizeof((struct sockaddr_un *)0)->sun_path > SOCKET_PATH_BYTES_MAX,
              "a path of the longest length and its NUL fit");

static void lock_name(const char *path, char name[LOCK_PATH_BYTES_MAX])
{
    (void)snprintf(name, LOCK_PATH_BYTES_MAX, "%s.lock", path);
}

static enum status lock_take(const char *path, struct error *error, int *out)
{
    char name[LOCK_PATH_BYTES_MAX];
    lock_name(path, name);
    const int lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0) {
        return error_set(error, STATUS_IO, "%s: the lock file could not be made: %s", name,
                         strerror(errno));
    }
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        (void)close(lock);
        return error_set(error, STATUS_CONFLICT,
                         "%s: another daemon serves there; stop it or choose another --socket",
                         path);
    }
    *out = lock;
    return STATUS_OK;
}

/* A socket that nobody accepts on is left over from a crash. Anything else stays. */
static enum status stale_remove(const char *path, const struct sockaddr_un *address,
                                struct error *error)
{
    struct stat info;
    if (lstat(path, &info) != 0) {
        return STATUS_OK;
    }
    if (!S_ISSOCK(info.st_mode)) {
        return error_set(error, STATUS_CONFLICT, "%s: there is a file that is no socket; remove it",
                         path);
    }
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) {
        return error_set(error, STATUS_IO, "%s: %s", path, strerror(errno));
    }
    const int connected = connect(probe, (const struct sockaddr *)address, sizeof *address);
    const int reason = errno;
    (void)close(probe);
    if (connected == 0 || reason == EAGAIN) {
        return error_set(error, STATUS_CONFLICT, "%s: another program serves there", path);
    }
    if (unlink(path) != 0) {
        return error_set(error, STATUS_IO, "%s: the stale socket could not be removed: %s", path,
                         strerror(errno));
    }
    return STATUS_OK;
}

/* Mode 0600 from before bind on; a group gets its bits only once the file has that group. */
static enum status address_bind(int descriptor, const char *path, const struct sockaddr_un *address,
                                const struct group *group, struct error *error)
{
    if (fchmod(descriptor, 0600) != 0 ||
        bind(descriptor, (const struct sockaddr *)address, sizeof *address) != 0) {
        return error_set(error, STATUS_IO, "%s: the socket could not be made: %s", path,
                         strerror(errno));
    }
    if (group == NULL) {
        return STATUS_OK;
    }
    if (lchown(path, (uid_t)-1, group->gr_gid) != 0 || chmod(path, 0660) != 0) {
        (void)unlink(path);
        return error_set(error, STATUS_IO, "%s: the group '%s' could not be set: %s", path,
                         group->gr_name, strerror(errno));
    }
    return STATUS_OK;
}

enum status socket_bind(const char *path, const char *group_name, struct error *error,
                        struct socket_listening *out)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t size = strlen(path);
    if (size == 0 || size > SOCKET_PATH_BYTES_MAX) {
        return error_set(error, STATUS_BAD_INPUT,
                         "--socket: the path has %zu bytes; a Unix socket's may have 1 to %d", size,
                         SOCKET_PATH_BYTES_MAX);
    }
    memcpy(address.sun_path, path, size);
    const struct group *group = NULL;
    if (group_name != NULL) {
        group = getgrnam(group_name);
        if (group == NULL) {
            return error_set(error, STATUS_BAD_INPUT, "--socket-group: there is no group '%s'",
                             group_name);
        }
    }
    struct socket_listening made = {-1, -1};
    enum status status = lock_take(path, error, &made.lock);
    if (status == STATUS_OK) {
        status = stale_remove(path, &address, error);
    }
    if (status == STATUS_OK) {
        made.descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        status = made.descriptor < 0 ? error_set(error, STATUS_IO, "%s: %s", path, strerror(errno))
                                     : address_bind(made.descriptor, path, &address, group, error);
    }
    if (status == STATUS_OK) {
        *out = made;
        return STATUS_OK;
    }
    if (made.descriptor >= 0) {
        (void)close(made.descriptor);
    }
    if (made.lock >= 0) {
        (void)close(made.lock);
    }
    return status;
}

void socket_release(const char *path, struct socket_listening *socket)
{
    if (socket->lock < 0) {
        return;
    }
    (void)unlink(path);
    char name[LOCK_PATH_BYTES_MAX];
    lock_name(path, name);
    (void)unlink(name);
    (void)close(socket->lock);
    socket->lock = -1;
}

static uint32_t overflow_uid(void)
{
    uint32_t uid = 65534;
    FILE *file = fopen("/proc/sys/kernel/overflowuid", "re");
    if (file != NULL) {
        char text[32] = "";
        if (fgets(text, sizeof text, file) != NULL) {
            uid = (uint32_t)strtoul(text, NULL, 10);
        }
        (void)fclose(file);
    }
    return uid;
}

enum status socket_peer_uid(int descriptor, uint32_t *uid)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
        return STATUS_IO;
    }
    if (peer.uid == overflow_uid()) {
        return STATUS_DENIED;
    }
    *uid = peer.uid;
    return STATUS_OK;
}
