#include "wire/server.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "limits.h"
#include "wire/connection.h"
#include "wire/exchange.h"
#include "wire/socket.h"

enum {
    BACKLOG_COUNT = 511,
    REFUSED_COUNT_MAX = 64, /* that are told why at the same time; others are just closed */
    TICK_MS = 500,          /* how often time limits are looked at, while a connection has one */
};

struct server {
    struct hub hub;
    struct table connections; /* id -> struct connection; they free themselves */
    uint64_t next_id;
    uint32_t connection_count_max;
    const char *socket_path; /* borrowed */
    struct socket_listening socket;

    uv_pipe_t listener;
    uv_prepare_t before_sleep;
    uv_check_t after_sleep;
    uv_idle_t sleepless; /* runs while connections or the store have work left for the next turn */
    uv_timer_t tick;
    bool is_started, is_accepting, is_closing;
    bool is_peer_waiting; /* accepted by nobody yet, for want of memory */
};

static void on_tick(uv_timer_t *timer);

/* ---------------------------------------------------------------- what the store calls */

static uint64_t resident_bytes(void)
{
    unsigned long long size = 0;
    unsigned long long resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL) {
        return 0;
    }
    if (fscanf(file, "%llu %llu", &size, &resident) != 2) {
        resident = 0;
    }
    (void)fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void on_reply(void *context, struct reply_to to, const struct reply *reply, bool more)
{
    struct server *server = context;
    struct connection *connection = table_find(&server->connections, to.connection);
    if (connection == NULL) {
        return;
    }
    if (reply->type == REPLY_STATS) {
        server->hub.daemon.connection_count = server->connections.count;
        server->hub.daemon.memory_bytes = resident_bytes();
    }
    connection_reply(connection, to.request, reply, more);
}

static void on_follow(void *context, struct reply_to to, const struct follow *follow)
{
    struct server *server = context;
    struct connection *connection = table_find(&server->connections, to.connection);
    if (connection != NULL) {
        connection_follow(connection, to.request, follow);
    }
}

static void on_progress(void *context, uint64_t node)
{
    const struct server *server = context;
    struct cursor_node *found = cursor_index_find(&server->hub.cursors, node);
    if (found == NULL) {
        return;
    }
    for (struct link *at = found->cursors.next; at != &found->cursors; at = at->next) {
        struct cursor *cursor = LINK_OWNER(at, struct cursor, of_node);
        connection_news(cursor->exchange->connection, cursor);
    }
}

static bool is_awaited(void *context, struct reply_to to)
{
    const struct server *server = context;
    const struct connection *connection = table_find(&server->connections, to.connection);

    return connection != NULL && (to.request == 0 || connection_awaits(connection, to.request));
}

static void on_loaded(void *context)
{
    struct server *server = context;
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *connection = NULL;

    while (table_next(&server->connections, &cursor, &id, &connection)) {
        connection_loaded(connection);
    }
}

struct session_events server_events(struct server *server)
{
    const struct session_events events = {
        .context = server,
        .on_reply = on_reply,
        .on_follow = on_follow,
        .on_progress = on_progress,
        .is_awaited = is_awaited,
        .on_loaded = on_loaded,
    };
    return events;
}

/* ---------------------------------------------------------------- turns of the loop */

static void on_sleepless(uv_idle_t *idle)
{
    (void)idle;
}

/* Each dirty connection has one turn; those that have more to do come again in the next turn of the
 * loop, after it has looked at all sockets. */
static void work(struct server *server)
{
    struct hub *hub = &server->hub;
    struct link turn;
    link_init(&turn);
    while (!link_is_alone(&hub->dirty)) {
        struct link *at = hub->dirty.next;
        link_remove(at);
        link_push_back(&turn, at);
    }
    while (!link_is_alone(&turn)) {
        connection_pump(LINK_OWNER(turn.next, struct connection, of_dirty));
    }
    if (link_is_alone(&hub->dirty) && !store_has_work(hub->store)) {
        (void)uv_idle_stop(&server->sleepless);
    } else {
        (void)uv_idle_start(&server->sleepless, on_sleepless);
    }
}

static void on_before_sleep(uv_prepare_t *handle)
{
    work(handle->data);
}

/* What the store has to do takes its turns between those of the connections. */
static void on_after_sleep(uv_check_t *handle)
{
    struct server *server = handle->data;
    if (store_has_work(server->hub.store)) {
        store_pump(server->hub.store);
    }
    work(server);
}

/* ---------------------------------------------------------------- accepting */

static void on_closed(void *context, struct connection *connection)
{
    struct server *server = context;
    (void)table_remove(&server->connections, connection->id);
}

/* Those that are served, all and of one user: who was refused takes nobody's place. */
static uint32_t served_count(const struct server *server, uint32_t uid, uint32_t *of_user)
{
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *value = NULL;
    uint32_t count = 0;
    uint32_t user_count = 0;
    while (table_next(&server->connections, &cursor, &id, &value)) {
        const struct connection *connection = value;
        const bool is_served =
            connection->state == CONNECTION_OPENING || connection->state == CONNECTION_READY;
        count += is_served;
        user_count += is_served && connection->uid == uid;
    }
    *of_user = user_count;
    return count;
}

/* Who it is, and whether there is room for one more of them. */
static enum status peer_check(const struct server *server, struct connection *connection,
                              struct error *error)
{
    uv_os_fd_t descriptor = -1;
    if (uv_fileno((uv_handle_t *)&connection->pipe, &descriptor) != 0 ||
        socket_peer_uid(descriptor, &connection->uid) != STATUS_OK) {
        return error_set(error, STATUS_DENIED,
                         "the daemon cannot tell which user you are; connect from its own user "
                         "namespace");
    }
    uint32_t of_user = 0;
    if (served_count(server, connection->uid, &of_user) > server->connection_count_max) {
        return error_set_limit(error, "CONNECTION_COUNT_MAX", server->connection_count_max,
                               "%" PRIu32 " connections are open; wait for one to close",
                               server->connection_count_max);
    }
    if (of_user > CONNECTION_PER_USER_COUNT_MAX) {
        return error_set_limit(error, "CONNECTION_PER_USER_COUNT_MAX",
                               CONNECTION_PER_USER_COUNT_MAX,
                               "user %" PRIu32 " has %d connections open; wait for one to close",
                               connection->uid, CONNECTION_PER_USER_COUNT_MAX);
    }
    return STATUS_OK;
}

/* MEMORY: the peer waits in the kernel, and the tick tries again. */
static enum status peer_accept(struct server *server)
{
    struct connection *connection = NULL;
    struct error error = {STATUS_OK, "", NULL, 0};
    TRY(connection_create(&server->hub, server->next_id, &connection));
    const enum status status = table_insert(&server->connections, server->next_id++, connection);
    if (status != STATUS_OK) {
        connection_close(connection);
        return status;
    }
    if (uv_accept((uv_stream_t *)&server->listener, (uv_stream_t *)&connection->pipe) != 0) {
        connection_close(connection);
    } else if (peer_check(server, connection, &error) == STATUS_OK) {
        connection_start(connection);
    } else if (server->connections.count > server->connection_count_max + REFUSED_COUNT_MAX) {
        connection_close(connection);
    } else {
        connection_fail(connection, &error);
    }
    return STATUS_OK;
}

static void on_connection(uv_stream_t *listener, int failed)
{
    struct server *server = listener->data;
    if (failed < 0) {
        log_line(LOG_WARN, "wire", "a connection could not be accepted: %s", uv_strerror(failed));
        return;
    }
    server->is_peer_waiting = peer_accept(server) != STATUS_OK;
    if (server->is_peer_waiting) {
        log_line(LOG_WARN, "wire", "a connection has to wait: out of memory");
    }
    (void)uv_timer_start(&server->tick, on_tick, TICK_MS, TICK_MS);
}

static void on_tick(uv_timer_t *timer)
{
    struct server *server = timer->data;
    const uint64_t now_ns = clock_monotonic_ns();
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *connection = NULL;
    if (server->is_peer_waiting && server->is_accepting) {
        server->is_peer_waiting = peer_accept(server) != STATUS_OK;
    }
    bool is_needed = server->is_peer_waiting;
    while (table_next(&server->connections, &cursor, &id, &connection)) {
        is_needed |= connection_tick(connection, now_ns);
    }
    if (!is_needed) {
        (void)uv_timer_stop(timer);
    }
}

/* ---------------------------------------------------------------- start and stop */

enum status server_open(const struct server_settings *settings, struct error *error,
                        struct server **out)
{
    struct server *server = memory_alloc(1, sizeof *server);
    if (server == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory at start");
    }
    server->hub.loop = settings->loop;
    server->hub.daemon.version = settings->daemon_version;
    server->hub.daemon.socket_path = settings->socket_path;
    server->hub.daemon.connection_count_max = settings->connection_count_max;
    server->hub.on_closed = on_closed;
    server->hub.context = server;
    server->connection_count_max = settings->connection_count_max;
    server->socket_path = settings->socket_path;
    server->next_id = 1;
    cursor_index_init(&server->hub.cursors);
    link_init(&server->hub.dirty);
    table_init(&server->connections);
    const enum status status =
        socket_bind(settings->socket_path, settings->socket_group, error, &server->socket);
    if (status != STATUS_OK) {
        memory_free(server);
        return status;
    }
    *out = server;
    return STATUS_OK;
}

/* libuv fails here only where it is used wrongly. */
static void handles_init(struct server *server)
{
    uv_loop_t *loop = server->hub.loop;
    int failed = uv_pipe_init(loop, &server->listener, 0);
    failed |= uv_prepare_init(loop, &server->before_sleep);
    failed |= uv_check_init(loop, &server->after_sleep);
    failed |= uv_idle_init(loop, &server->sleepless);
    failed |= uv_timer_init(loop, &server->tick);
    server->listener.data = server;
    server->before_sleep.data = server;
    server->after_sleep.data = server;
    server->tick.data = server;
    failed |= uv_prepare_start(&server->before_sleep, on_before_sleep);
    failed |= uv_check_start(&server->after_sleep, on_after_sleep);
    CHECK(failed == 0);
}

enum status server_start(struct server *server, struct store *store, struct error *error)
{
    CHECK(!server->is_started);
    server->hub.store = store;
    server->is_started = true;
    handles_init(server);
    int failed = uv_pipe_open(&server->listener, server->socket.descriptor);
    if (failed == 0) {
        server->socket.descriptor = -1; /* handed over */
        failed = uv_listen((uv_stream_t *)&server->listener, BACKLOG_COUNT, on_connection);
    }
    if (failed != 0) {
        return error_set(error, STATUS_IO, "%s: the socket does not listen: %s",
                         server->socket_path, uv_strerror(failed));
    }
    server->is_accepting = true;
    return STATUS_OK;
}

void server_stop_accepting(struct server *server)
{
    if (server->is_accepting) {
        server->is_accepting = false;
        uv_close((uv_handle_t *)&server->listener, NULL);
    }
    socket_release(server->socket_path, &server->socket);
}

bool server_is_flushed(const struct server *server)
{
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *connection = NULL;
    while (table_next(&server->connections, &cursor, &id, &connection)) {
        if (!connection_is_flushed(connection)) {
            return false;
        }
    }
    return true;
}

void server_close(struct server *server)
{
    if (server->is_closing) {
        return;
    }
    server->is_closing = true;
    server_stop_accepting(server);
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *connection = NULL;
    while (table_next(&server->connections, &cursor, &id, &connection)) {
        connection_close(connection);
    }
    if (server->is_started) {
        uv_handle_t *handles[] = {(uv_handle_t *)&server->listener,
                                  (uv_handle_t *)&server->before_sleep,
                                  (uv_handle_t *)&server->after_sleep,
                                  (uv_handle_t *)&server->sleepless, (uv_handle_t *)&server->tick};
        for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++) {
            if (!uv_is_closing(handles[i])) {
                uv_close(handles[i], NULL);
            }
        }
    }
}

void server_destroy(struct server *server)
{
    if (server == NULL) {
        return;
    }
    CHECK(server->connections.count == 0);
    socket_release(server->socket_path, &server->socket);
    if (server->socket.descriptor >= 0) {
        (void)close(server->socket.descriptor);
    }
    cursor_index_finish(&server->hub.cursors);
    table_finish(&server->connections);
    memory_free(server);
}

uint32_t server_connection_count(const struct server *server)
{
    return server->connections.count;
}
