#include "wire/connection.h"

#include <inttypes.h>
#include <stddef.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "limits.h"
#include "wire/exchange.h"
#include "wire/frame.h"
#include "wire/intake.h"

enum {
    PUMP_REPLY_COUNT_MAX = 64, /* of one connection before the others have their turn */
    KEPT_BUFFER_BYTES = 256 * 1024,
    NS_PER_MS = 1000000,
};

#define TO(state) (1u << (state))

/* Row: from. Bits: where it may go. */
static const uint32_t connection_edges[CONNECTION_STATE_COUNT] = {
    [CONNECTION_OPENING] = TO(CONNECTION_READY) | TO(CONNECTION_DRAINING) | TO(CONNECTION_CLOSED),
    [CONNECTION_READY] = TO(CONNECTION_DRAINING) | TO(CONNECTION_CLOSED),
    [CONNECTION_DRAINING] = TO(CONNECTION_CLOSED),
    [CONNECTION_CLOSED] = 0,
};

void connection_move(struct connection *connection, enum connection_state to)
{
    CHECK((connection_edges[connection->state] & TO(to)) != 0);
    connection->state = to;
    connection->since_ns = clock_monotonic_ns();
}

void connection_mark(struct connection *connection)
{
    if (connection->state != CONNECTION_CLOSED && link_is_alone(&connection->of_dirty)) {
        link_push_back(&connection->hub->dirty, &connection->of_dirty);
    }
}

static size_t queued_bytes(const struct connection *connection)
{
    return connection->pending.size + connection->sending.size;
}

bool connection_is_congested(const struct connection *connection)
{
    return queued_bytes(connection) >= CONNECTION_WRITE_BYTES_MAX;
}

bool connection_is_flushed(const struct connection *connection)
{
    return connection->state == CONNECTION_CLOSED ||
           (queued_bytes(connection) == 0 && link_is_alone(&connection->of_dirty));
}

/* A burst must not keep its memory. */
static void buffer_empty(struct buffer *buffer)
{
    if (buffer->capacity > KEPT_BUFFER_BYTES) {
        const size_t bytes_max = buffer->bytes_max;
        buffer_finish(buffer);
        buffer_init(buffer, bytes_max);
    }
    buffer->size = 0;
}

/* ---------------------------------------------------------------- opening and closing */

enum status connection_create(struct hub *hub, uint64_t id, struct connection **out)
{
    struct connection *connection = memory_alloc(1, sizeof *connection);
    if (connection == NULL) {
        return STATUS_MEMORY;
    }
    connection->hub = hub;
    connection->id = id;
    connection->state = CONNECTION_OPENING;
    connection->since_ns = clock_monotonic_ns();
    connection->pipe.data = connection;
    connection->write.data = connection;
    table_init(&connection->exchanges);
    link_init(&connection->news);
    link_init(&connection->ready);
    link_init(&connection->of_dirty);
    buffer_init(&connection->input, FRAME_HEADER_BYTES + FRAME_BODY_BYTES_MAX + HUB_READ_BYTES);
    buffer_init(&connection->pending, CONNECTION_QUEUE_BYTES_MAX);
    buffer_init(&connection->sending, CONNECTION_QUEUE_BYTES_MAX);
    const int failed = uv_pipe_init(hub->loop, &connection->pipe, 0);
    CHECK(failed == 0);
    *out = connection;
    return STATUS_OK;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct connection *connection = handle->data;
    connection->hub->on_closed(connection->hub->context, connection);
    table_finish(&connection->exchanges);
    buffer_finish(&connection->input);
    buffer_finish(&connection->pending);
    buffer_finish(&connection->sending);
    memory_free(connection);
}

static void exchange_close(struct exchange *exchange)
{
    struct connection *connection = exchange->connection;
    (void)table_remove(&connection->exchanges, exchange->id);
    connection->cursor_reserved_count -= exchange->cursor_count_max;
    exchange_destroy(exchange, &connection->hub->cursors, connection->hub->store);
}

void connection_close(struct connection *connection)
{
    if (connection->state == CONNECTION_CLOSED) {
        return;
    }
    connection_move(connection, CONNECTION_CLOSED);
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *exchange = NULL;
    while (table_next(&connection->exchanges, &cursor, &id, &exchange)) {
        exchange_close(exchange);
    }
    if (connection->hub->store != NULL) {
        store_connection_closed(connection->hub->store, connection->id);
    }
    link_remove(&connection->of_dirty);
    connection->hub->input_bytes -= connection->input.size;
    connection->input.size = 0;
    log_line(LOG_INFO, "wire", "connection %" PRIu64 " closed", connection->id);
    uv_close((uv_handle_t *)&connection->pipe, on_handle_closed);
}

void connection_fail(struct connection *connection, const struct error *error)
{
    if (connection->state == CONNECTION_CLOSED || connection->state == CONNECTION_DRAINING) {
        return;
    }
    log_line(LOG_WARN, "wire", "connection %" PRIu64 " refused: %s", connection->id, error->text);
    connection_move(connection, CONNECTION_DRAINING);
    if (codec_encode_error(0, error, &connection->pending) != STATUS_OK) {
        connection_close(connection);
        return;
    }
    connection_mark(connection);
}

bool connection_tick(struct connection *connection, uint64_t now_ns)
{
    const uint64_t waited_ms = (now_ns - connection->since_ns) / NS_PER_MS;
    switch (connection->state) {
    case CONNECTION_OPENING:
        if (waited_ms >= CONNECTION_HELLO_MS_MAX) {
            struct error error = {STATUS_OK, "", NULL, 0};
            (void)error_set_limit(&error, "CONNECTION_HELLO_MS_MAX", CONNECTION_HELLO_MS_MAX,
                                  "no Hello came within %d ms", CONNECTION_HELLO_MS_MAX);
            connection_fail(connection, &error);
        }
        return true;
    case CONNECTION_DRAINING:
        if (waited_ms >= CONNECTION_DRAIN_MS_MAX) {
            connection_close(connection);
        }
        return true;
    default:
        return false;
    }
}

/* ---------------------------------------------------------------- replies */

/* A frame that has no room: the reader is far behind, or memory is short. Either way what follows
 * would be a stream with a hole. */
static void output_failed(struct connection *connection, enum status status)
{
    log_line(LOG_WARN, "wire", "connection %" PRIu64 " is closed: a reply found no room (%s)",
             connection->id, status_text(status));
    connection_close(connection);
}

/* False when the connection is gone. */
static bool output_is_sound(struct connection *connection, enum status status)
{
    if (status != STATUS_OK) {
        output_failed(connection, status);
        return false;
    }
    connection_mark(connection);
    return true;
}

void connection_error(struct connection *connection, uint64_t request, const struct error *error)
{
    log_line(LOG_DEBUG, "wire", "%" PRIu64 ".%" PRIu64 " error %s: %s", connection->id, request,
             status_name(error->status), error->text);
    (void)output_is_sound(connection, codec_encode_error(request, error, &connection->pending));
}

void connection_done(struct connection *connection, uint64_t request)
{
    (void)output_is_sound(connection, codec_encode_done(request, &connection->pending));
}

/* The cancel that waited for this request's nodes: it has them, or there are none to come. */
static void cancel_settle(struct exchange *target)
{
    struct connection *connection = target->connection;
    if (target->cancelled_by == 0) {
        return;
    }
    struct exchange *cancel = table_find(&connection->exchanges, target->cancelled_by);
    target->cancelled_by = 0;
    if (cancel != NULL) {
        link_push_back(&connection->ready, &cancel->of_ready);
        connection_mark(connection);
    }
}

/* Ends after its last reply was encoded. */
void connection_end(struct exchange *exchange)
{
    cancel_settle(exchange);
    exchange_close(exchange);
}

/* Nodes of a reply that nobody follows: a waiting cancel wants those that are being generated. */
static enum status created_note(const struct exchange *target, const struct reply *reply)
{
    struct exchange *cancel = table_find(&target->connection->exchanges, target->cancelled_by);
    if (cancel == NULL || reply->type != REPLY_CREATED) {
        return STATUS_OK;
    }
    TRY(exchange_nodes_reserve(cancel, reply->u.created.count));
    for (uint32_t i = 0; i < reply->u.created.count; i++) {
        if (reply->u.created.nodes[i].finish == NODE_GOING) {
            cancel->nodes[cancel->node_count++] = reply->u.created.nodes[i].id;
        }
    }
    return STATUS_OK;
}

void connection_reply(struct connection *connection, uint64_t request, const struct reply *reply,
                      bool more)
{
    struct exchange *exchange = table_find(&connection->exchanges, request);
    if (exchange == NULL) {
        return;
    }
    if (reply->type == REPLY_ERROR) {
        log_line(LOG_DEBUG, "wire", "%" PRIu64 ".%" PRIu64 " error %s: %s", connection->id, request,
                 status_name(reply->error.status), reply->error.text);
    }
    enum status status =
        codec_encode_reply(request, reply, more, &connection->hub->daemon, &connection->pending);
    if (status == STATUS_OK && exchange->cancelled_by != 0) {
        status = created_note(exchange, reply);
    }
    if (!output_is_sound(connection, status)) {
        return;
    }
    if (exchange->cancelled_by != 0 && reply->type == REPLY_CREATED) {
        cancel_settle(exchange);
    }
    if (!more) {
        connection_end(exchange);
    }
}

bool connection_awaits(const struct connection *connection, uint64_t request)
{
    return table_find(&connection->exchanges, request) != NULL;
}

void connection_news(struct connection *connection, struct cursor *cursor)
{
    if (link_is_alone(&cursor->of_news)) {
        link_push_back(&connection->news, &cursor->of_news);
    }
    connection_mark(connection);
}

/* A repeat of a client key follows the nodes of the first request, which may be more than this one
 * asked for. False when they are too many, which ends the exchange. */
static bool cursors_reserve(struct exchange *exchange, uint32_t node_count)
{
    struct connection *connection = exchange->connection;
    struct error error = {STATUS_OK, "", NULL, 0};
    if (node_count <= exchange->cursor_count_max) {
        return true;
    }
    const uint32_t extra_count = node_count - exchange->cursor_count_max;
    if (connection->cursor_reserved_count + extra_count <= CURSOR_PER_CONNECTION_COUNT_MAX) {
        connection->cursor_reserved_count += extra_count;
        exchange->cursor_count_max = node_count;
        return true;
    }
    (void)error_set_limit(&error, "CURSOR_PER_CONNECTION_COUNT_MAX",
                          CURSOR_PER_CONNECTION_COUNT_MAX,
                          "%" PRIu32 " streams are open on this connection; follow the nodes later",
                          connection->cursor_reserved_count);
    connection_error(connection, exchange->id, &error);
    if (connection->state != CONNECTION_CLOSED) {
        connection_end(exchange);
    }
    return false;
}

void connection_follow(struct connection *connection, uint64_t request, const struct follow *follow)
{
    struct exchange *exchange = table_find(&connection->exchanges, request);
    if (exchange == NULL) {
        return;
    }
    struct hub *hub = connection->hub;
    if (!cursors_reserve(exchange, follow->node_count)) {
        return;
    }
    if (exchange_follow(exchange, &hub->cursors, hub->store, follow) != STATUS_OK) {
        output_failed(connection, STATUS_MEMORY);
        return;
    }
    for (struct link *at = exchange->cursors.next; at != &exchange->cursors; at = at->next) {
        connection_news(connection, LINK_OWNER(at, struct cursor, of_exchange));
    }
    if (follow->node_count == 0) {
        connection_done(connection, request);
        connection_end(exchange);
    }
}

/* ---------------------------------------------------------------- streams */

/* After its last cursor a stream is done. */
static void cursor_end(struct connection *connection, struct cursor *cursor)
{
    struct exchange *exchange = cursor->exchange;
    exchange_drop(cursor, &connection->hub->cursors, connection->hub->store);
    if (link_is_alone(&exchange->cursors)) {
        connection_done(connection, exchange->id);
        if (connection->state != CONNECTION_CLOSED) {
            connection_end(exchange);
        }
    }
}

/* One reply of one cursor. It goes to the end of the list, so that streams share the socket. */
static void cursor_pump(struct connection *connection, struct cursor *cursor)
{
    struct exchange *exchange = cursor->exchange;
    struct error error = {STATUS_OK, "", NULL, 0};
    struct node_view view;
    bool ended = false;
    enum status status =
        store_node_view(connection->hub->store, connection->uid, cursor->node->id, &error, &view);
    if (status != STATUS_OK) {
        error.status = status;
        connection_error(connection, exchange->id, &error);
        if (connection->state != CONNECTION_CLOSED) {
            connection_end(exchange);
        }
        return;
    }
    link_remove(&cursor->of_news);
    status = cursor_write(cursor, &view, exchange->id, &connection->pending, &ended);
    if (status == STATUS_AGAIN) {
        return;
    }
    if (!output_is_sound(connection, status)) {
        return;
    }
    if (ended) {
        cursor_end(connection, cursor);
    } else {
        link_push_back(&connection->news, &cursor->of_news);
    }
}

static void streams_pump(struct connection *connection)
{
    for (int i = 0; i < PUMP_REPLY_COUNT_MAX; i++) {
        if (connection->state != CONNECTION_READY || connection_is_congested(connection) ||
            link_is_alone(&connection->news)) {
            return;
        }
        cursor_pump(connection, LINK_OWNER(connection->news.next, struct cursor, of_news));
    }
}

/* ---------------------------------------------------------------- the socket */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct connection *connection = handle->data;
    (void)suggested;
    *out = uv_buf_init((char *)connection->hub->read_bytes, HUB_READ_BYTES);
}

static void input_take(struct connection *connection, const char *base, size_t size)
{
    struct hub *hub = connection->hub;
    if (hub->input_bytes + size > INPUT_BYTES_MAX) {
        struct error error = {STATUS_OK, "", NULL, 0};
        (void)error_set_limit(&error, "INPUT_BYTES_MAX", INPUT_BYTES_MAX,
                              "the unfinished requests of all clients take %d bytes",
                              INPUT_BYTES_MAX);
        connection_fail(connection, &error);
        return;
    }
    if (buffer_append(&connection->input, bytes_of(base, size)) != STATUS_OK) {
        output_failed(connection, STATUS_MEMORY);
        return;
    }
    hub->input_bytes += size;
    connection_mark(connection);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *bytes)
{
    struct connection *connection = stream->data;
    if (size < 0) {
        connection_close(connection);
    } else if (size > 0 && connection->state != CONNECTION_DRAINING) {
        input_take(connection, bytes->base, (size_t)size);
    }
}

static void reading_set(struct connection *connection, bool wanted)
{
    if (wanted == connection->is_reading) {
        return;
    }
    connection->is_reading = wanted;
    if (!wanted) {
        (void)uv_read_stop((uv_stream_t *)&connection->pipe);
    } else if (uv_read_start((uv_stream_t *)&connection->pipe, on_alloc, on_read) != 0) {
        connection_close(connection);
    }
}

void connection_start(struct connection *connection)
{
    log_line(LOG_INFO, "wire", "connection %" PRIu64 " opened uid=%" PRIu32, connection->id,
             connection->uid);
    reading_set(connection, true);
}

static void on_written(uv_write_t *write, int status)
{
    struct connection *connection = write->data;
    connection->is_writing = false;
    buffer_empty(&connection->sending);
    if (status < 0) {
        connection_close(connection);
    }
    connection_mark(connection);
}

static void output_flush(struct connection *connection)
{
    if (connection->is_writing || connection->pending.size == 0) {
        return;
    }
    const struct buffer empty = connection->sending;
    connection->sending = connection->pending;
    connection->pending = empty;
    const uv_buf_t bytes =
        uv_buf_init((char *)connection->sending.data, (unsigned)connection->sending.size);
    connection->is_writing = true;
    if (uv_write(&connection->write, (uv_stream_t *)&connection->pipe, &bytes, 1, on_written) !=
        0) {
        connection->is_writing = false;
        connection_close(connection);
    }
}

/* A peer that still writes would learn of a plain close before it reads why. So the daemon's side
 * ends first, and what comes is read into nothing until the peer ends too or its time is over. */
static void drain(struct connection *connection)
{
    uv_os_fd_t descriptor = -1;
    reading_set(connection, true);
    if (queued_bytes(connection) > 0 || connection->state == CONNECTION_CLOSED) {
        return;
    }
    if (uv_fileno((uv_handle_t *)&connection->pipe, &descriptor) != 0 ||
        shutdown(descriptor, SHUT_WR) != 0) {
        connection_close(connection);
    }
}

void connection_loaded(struct connection *connection)
{
    if (connection->is_loading) {
        connection->is_loading = false;
        connection_mark(connection);
    }
}

void connection_pump(struct connection *connection)
{
    link_remove(&connection->of_dirty);
    if (connection->state != CONNECTION_CLOSED) {
        intake_cancels(connection);
    }
    const bool more_input = intake_requests(connection);
    streams_pump(connection);
    if (connection->state == CONNECTION_CLOSED) {
        return;
    }
    const bool is_congested = connection_is_congested(connection);
    output_flush(connection);
    if (connection->state == CONNECTION_CLOSED) {
        return;
    }
    if (connection->state == CONNECTION_DRAINING) {
        drain(connection);
        return;
    }
    reading_set(connection, !is_congested && !more_input && !connection->is_loading);
    if (!is_congested && (more_input || !link_is_alone(&connection->news))) {
        connection_mark(connection);
    }
}
