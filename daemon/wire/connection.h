/* One client: bytes to requests to the store, replies and streams to bytes.
 *
 * Thread: loop. The hub is what all connections of a server share; the server owns it and owns the
 * list of connections. A connection frees itself once its handle is closed, after on_closed.
 *
 *   OPENING   connected; Hello must come within CONNECTION_HELLO_MS_MAX
 *   READY     requests are executed
 *   DRAINING  it broke the protocol, or the daemon has no room for it: the error leaves, then it is
 *             closed
 *   CLOSED    the handle is closing
 *
 * Callbacks of the loop and of the store only note what there is to do; connection_pump() does it,
 * before the loop sleeps. While more than CONNECTION_WRITE_BYTES_MAX wait for a socket, its cursors
 * and its requests wait too; the branches do not.
 */
#ifndef PERSONAD_WIRE_CONNECTION_H
#define PERSONAD_WIRE_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "base/table.h"
#include "session/store.h"
#include "wire/codec.h"
#include "wire/cursor.h"
#include "wire/link.h"

enum { HUB_READ_BYTES = 64 * 1024 };

struct connection;

struct hub {
    uv_loop_t *loop;     /* borrowed */
    struct store *store; /* borrowed; NULL until the server is started */
    struct codec_daemon daemon;
    struct cursor_index cursors;
    struct link dirty;  /* connections that must be pumped */
    size_t input_bytes; /* unread input of all connections */
    uint8_t read_bytes[HUB_READ_BYTES];

    /* The connection is about to be freed. */
    void (*on_closed)(void *context, struct connection *connection);
    void *context;
};

enum connection_state {
    CONNECTION_OPENING,
    CONNECTION_READY,
    CONNECTION_DRAINING,
    CONNECTION_CLOSED,
    CONNECTION_STATE_COUNT,
};

struct connection {
    uv_pipe_t pipe;
    uv_write_t write;
    struct hub *hub; /* borrowed */
    uint64_t id;
    uint32_t uid;
    enum connection_state state; /* written by connection_move() only */
    uint64_t since_ns;           /* in this state */

    struct table exchanges;         /* request id -> struct exchange; owned */
    uint32_t cursor_reserved_count; /* by the exchanges */
    struct link news;               /* cursors with something to send */
    struct link ready;              /* cancels whose nodes are known */
    struct link of_dirty;           /* in hub.dirty */

    struct buffer input;            /* what is not a whole frame yet */
    struct buffer pending, sending; /* frames that wait, and those the loop writes */
    bool is_reading, is_writing;
    bool is_loading; /* its next request waits for what the store loads */
};

/* Not yet connected: the caller accepts into connection->pipe, sets uid, then starts, fails or
 * closes it. MEMORY. */
MUST_USE enum status connection_create(struct hub *hub, uint64_t id, struct connection **out);

void connection_start(struct connection *connection);

/* Drops its requests and cursors at once; harmless when it is closing. */
void connection_close(struct connection *connection);

/* Says why, then closes. */
void connection_fail(struct connection *connection, const struct error *error);

/* Whether a request of that id is open, so that a reply would reach it. */
bool connection_awaits(const struct connection *connection, uint64_t request);

/* The store's answers. A request that is no longer open drops them. */
void connection_reply(struct connection *connection, uint64_t request, const struct reply *reply,
                      bool more);
void connection_follow(struct connection *connection, uint64_t request,
                       const struct follow *follow);

/* A node that this cursor reads has more. */
void connection_news(struct connection *connection, struct cursor *cursor);

/* Does what there is to do, a bounded part of it. */
void connection_pump(struct connection *connection);

/* What its next request waits for may be there. */
void connection_loaded(struct connection *connection);

/* Ends what takes too long. True while the connection has a time limit. */
bool connection_tick(struct connection *connection, uint64_t now_ns);

/* True when nothing waits to be written. */
bool connection_is_flushed(const struct connection *connection);

/* For intake.c. Error and Done are last replies to a request; they may close the connection. End
 * takes the exchange away once its last reply was sent. */
void connection_move(struct connection *connection, enum connection_state to);
void connection_mark(struct connection *connection);
bool connection_is_congested(const struct connection *connection);
void connection_error(struct connection *connection, uint64_t request, const struct error *error);
void connection_done(struct connection *connection, uint64_t request);
void connection_end(struct exchange *exchange);

#endif
