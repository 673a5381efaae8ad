/* The socket and its connections: bytes in, requests to the store, replies and streams out.
 *
 * Thread: loop. Owns the listening socket, connections and cursors. Borrows the loop and, once
 * started, the store.
 *
 *   server_open (socket bound, nothing accepted) -> store_create with server_events() ->
 * server_start
 *   ... -> server_stop_accepting -> server_flush -> server_close -> loop runs out -> server_destroy
 */
#ifndef PERSONAD_WIRE_SERVER_H
#define PERSONAD_WIRE_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/error.h"
#include "base/status.h"
#include "session/store.h"

struct server;

struct server_settings {
    uv_loop_t *loop;          /* borrowed */
    const char *socket_path;  /* at most SOCKET_PATH_BYTES_MAX; borrowed */
    const char *socket_group; /* NULL: mode 0600; else 0660 and this group */
    uint32_t connection_count_max;
    const char *daemon_version; /* borrowed */
};

/* Binds: lock file beside the socket, stale socket removed, mode set before bind. CONFLICT when
 * another daemon answers on it; BAD_INPUT for a path that is too long; IO names the path and the
 * reason. */
MUST_USE enum status server_open(const struct server_settings *settings, struct error *error,
                                 struct server **out);

/* What the store calls. context is the server. */
struct session_events server_events(struct server *server);

/* Accepts from now on. */
MUST_USE enum status server_start(struct server *server, struct store *store, struct error *error);

/* No new connections; open ones may still get replies. The socket file is removed. */
void server_stop_accepting(struct server *server);

/* True when no connection has bytes that wait to be written. */
bool server_is_flushed(const struct server *server);

/* Closes everything; the handles end when the loop runs. */
void server_close(struct server *server);

/* After the loop ran out. NULL is fine. */
void server_destroy(struct server *server);

uint32_t server_connection_count(const struct server *server);

#endif
