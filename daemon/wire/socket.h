/* The listening Unix socket, made so that nobody else can connect to it or take its place.
 *
 * Thread: loop, at start and stop. The caller owns the two descriptors.
 *
 * A lock file beside the socket (PATH.lock, flocked while the daemon lives) decides whose the path
 * is: whoever holds the lock may remove a stale socket. The mode is set on the descriptor before
 * bind, so that there is no moment in which the socket is open to others.
 */
#ifndef PERSONAD_WIRE_SOCKET_H
#define PERSONAD_WIRE_SOCKET_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"

struct socket_listening {
    int descriptor; /* bound, not listening yet, non-blocking */
    int lock;
};

/* group NULL: mode 0600; else 0660 with that group. BAD_INPUT: the path is too long
 * (SOCKET_PATH_BYTES_MAX) or the group unknown; CONFLICT: another daemon serves there; IO names
 * path and reason. */
MUST_USE enum status socket_bind(const char *path, const char *group, struct error *error,
                                 struct socket_listening *out);

/* Removes the socket file and gives the path back. Does not close the descriptor, which the loop
 * owns by then. */
void socket_release(const char *path, struct socket_listening *socket);

/* The peer's user as of its connect. DENIED for the kernel's overflow uid, which stands for anybody
 * from another user namespace. */
MUST_USE enum status socket_peer_uid(int descriptor, uint32_t *uid);

#endif
