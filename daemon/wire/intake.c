#include "wire/intake.h"

#include <inttypes.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "limits.h"
#include "wire/exchange.h"
#include "wire/frame.h"

enum {
    PUMP_REQUEST_COUNT_MAX = 16, /* of one connection before the others have their turn */
    /* Beside the credits, so that a client with all its requests open can still cancel them. */
    CANCEL_EXTRA_COUNT_MAX = 64,
};

static const struct error no_error = {STATUS_OK, "", NULL, 0};

/* For log lines. */
static const char *const request_names[] = {
    [REQUEST_INFO] = "Info",
    [REQUEST_STATS] = "Stats",
    [REQUEST_PERSONA_PUT] = "PersonaPut",
    [REQUEST_PERSONA_GET] = "PersonaGet",
    [REQUEST_PERSONA_LIST] = "PersonaList",
    [REQUEST_SESSION_OPEN] = "SessionOpen",
    [REQUEST_SESSION_LIST] = "SessionList",
    [REQUEST_SAY] = "Say",
    [REQUEST_GENERATE] = "Generate",
    [REQUEST_APPEND] = "Append",
    [REQUEST_WALK] = "Walk",
    [REQUEST_FOLLOW] = "Follow",
    [REQUEST_CANCEL] = "Cancel",
    [REQUEST_HEAD] = "Head",
    [REQUEST_TOKENIZE] = "Tokenize",
    [REQUEST_DETOKENIZE] = "Detokenize",
    [REQUEST_PERSONA_DELETE] = "PersonaDelete",
    [REQUEST_SESSION_DELETE] = "SessionDelete",
    [REQUEST_SESSION_SET] = "SessionSet",
    [REQUEST_BOOKMARK] = "Bookmark",
    [REQUEST_BOOKMARK_LIST] = "BookmarkList",
    [REQUEST_DELETE] = "Delete",
    [REQUEST_UNDELETE] = "Undelete",
    [REQUEST_PURGE] = "Purge",
    [REQUEST_LABEL] = "Label",
    [REQUEST_CONTEXT] = "Context",
    [REQUEST_BACKUP] = "Backup",
    [REQUEST_DISTRIBUTION] = "Distribution",
    [REQUEST_SCORE] = "Score",
    [REQUEST_COMPARE] = "Compare",
    [REQUEST_GROUP] = "Group",
    [REQUEST_VERIFY] = "Verify",
    [REQUEST_EDIT] = "Edit",
    [REQUEST_EXPAND] = "Expand",
    [REQUEST_KEEP] = "Keep",
    [REQUEST_NOTE] = "Note",
    [REQUEST_SESSION_EXPORT] = "SessionExport",
    [REQUEST_SESSION_IMPORT] = "SessionImport",
};
static_assert(sizeof request_names / sizeof *request_names == REQUEST_COUNT, "every request");

/* Streams that the request will open. */
static uint32_t cursor_count_of(const struct request *request)
{
    switch (request->type) {
    case REQUEST_SAY:
        return request->u.say.generation.delivery == DELIVERY_NO_FOLLOW
                   ? 0
                   : request->u.say.generation.n;
    case REQUEST_GENERATE:
        return request->u.generate.generation.delivery == DELIVERY_NO_FOLLOW
                   ? 0
                   : request->u.generate.generation.n;
    case REQUEST_FOLLOW:
        return 1;
    default:
        return 0;
    }
}

static enum status credits_check(const struct connection *connection, const struct request *request,
                                 struct error *error)
{
    uint32_t count_max = REQUEST_PER_CONNECTION_COUNT_MAX;
    if (request->type == REQUEST_CANCEL) {
        count_max += CANCEL_EXTRA_COUNT_MAX;
    }
    if (connection->exchanges.count >= count_max) {
        return error_set_limit(error, "REQUEST_PER_CONNECTION_COUNT_MAX",
                               REQUEST_PER_CONNECTION_COUNT_MAX,
                               "%" PRIu32 " requests are open on this connection; wait for one to "
                               "end",
                               connection->exchanges.count);
    }
    if (connection->cursor_reserved_count + cursor_count_of(request) >
        CURSOR_PER_CONNECTION_COUNT_MAX) {
        return error_set_limit(error, "CURSOR_PER_CONNECTION_COUNT_MAX",
                               CURSOR_PER_CONNECTION_COUNT_MAX,
                               "%" PRIu32 " streams are open on this connection; wait for some to "
                               "end or ask with NO_FOLLOW",
                               connection->cursor_reserved_count);
    }
    return STATUS_OK;
}

static enum status exchange_open(struct connection *connection, uint64_t id,
                                 const struct request *request, struct error *error,
                                 struct exchange **out)
{
    struct exchange *exchange = NULL;
    TRY(credits_check(connection, request, error));
    if (exchange_create(connection, id, cursor_count_of(request), &exchange) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    if (table_insert(&connection->exchanges, id, exchange) != STATUS_OK) {
        exchange_destroy(exchange, &connection->hub->cursors, connection->hub->store);
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    connection->cursor_reserved_count += exchange->cursor_count_max;
    *out = exchange;
    return STATUS_OK;
}

/* ---------------------------------------------------------------- cancel by request */

static enum status cursors_note(struct exchange *cancel, const struct exchange *target)
{
    for (const struct link *at = target->cursors.next; at != &target->cursors; at = at->next) {
        TRY(exchange_nodes_reserve(cancel, 1));
        const struct cursor *cursor = LINK_OWNER(at, const struct cursor, of_exchange);
        cancel->nodes[cancel->node_count++] = cursor->node->id;
    }
    return STATUS_OK;
}

/* Its nodes are those of an open request. Before the store has named them, the cancel waits; where
 * the request has ended there is nothing left to cancel. */
static void cancel_by_request(struct exchange *cancel, uint64_t target_id)
{
    struct connection *connection = cancel->connection;
    struct exchange *target = table_find(&connection->exchanges, target_id);
    struct error error = no_error;
    if (target != NULL && target != cancel && !target->is_following) {
        if (target->cancelled_by == 0) {
            target->cancelled_by = cancel->id;
            store_cancel_request(connection->hub->store,
                                 (struct reply_to){connection->id, target_id});
            return;
        }
        (void)error_set(&error, STATUS_CONFLICT, "request %" PRIu64 " is being cancelled already",
                        target_id);
    } else if (target != NULL && target != cancel && cursors_note(cancel, target) != STATUS_OK) {
        (void)error_set(&error, STATUS_MEMORY, "out of memory");
    }
    if (error.status != STATUS_OK) {
        connection_error(connection, cancel->id, &error);
        if (connection->state != CONNECTION_CLOSED) {
            connection_end(cancel);
        }
        return;
    }
    link_push_back(&connection->ready, &cancel->of_ready);
}

void intake_cancels(struct connection *connection)
{
    while (connection->state == CONNECTION_READY && !link_is_alone(&connection->ready)) {
        struct exchange *cancel = LINK_OWNER(connection->ready.next, struct exchange, of_ready);
        link_remove(&cancel->of_ready);
        if (cancel->node_count == 0) {
            connection_done(connection, cancel->id);
            if (connection->state != CONNECTION_CLOSED) {
                connection_end(cancel);
            }
            continue;
        }
        uint64_t *nodes = cancel->nodes;
        const struct request request = {
            .type = REQUEST_CANCEL,
            .uid = connection->uid,
            .u.cancel = {.nodes = nodes, .node_count = cancel->node_count},
        };
        const struct reply_to to = {connection->id, cancel->id};
        cancel->nodes = NULL; /* the answer may end the exchange before the store is done */
        cancel->node_count = 0;
        store_execute(connection->hub->store, &request, to);
        memory_free(nodes);
    }
}

/* ---------------------------------------------------------------- requests */

static enum status hello_take(struct connection *connection, const struct codec_message *message,
                              struct error *error)
{
    struct codec_hello hello;
    TRY(codec_decode_hello(message, error, &hello));
    log_line(LOG_DEBUG, "wire", "connection %" PRIu64 " is %.*s", connection->id,
             (int)hello.client.size, hello.client.size > 0 ? (const char *)hello.client.data : "");
    if (codec_encode_hello(message->id, &connection->hub->daemon, &connection->pending) !=
        STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    connection_move(connection, CONNECTION_READY);
    return STATUS_OK;
}

/* What breaks the protocol itself ends the connection: no reply could be told from another's. */
static enum status order_check(const struct connection *connection,
                               const struct codec_message *message, struct error *error)
{
    if (message->id == 0) {
        return error_set(error, STATUS_BAD_INPUT, "a request has no id; ids begin at 1");
    }
    if (connection->state == CONNECTION_OPENING && message->kind != CODEC_HELLO) {
        return error_set(error, STATUS_CONFLICT, "the first request of a connection is Hello");
    }
    if (table_find(&connection->exchanges, message->id) != NULL) {
        return error_set(error, STATUS_CONFLICT,
                         "request id %" PRIu64 " is in use on this connection", message->id);
    }
    return STATUS_OK;
}

static enum status request_execute(struct connection *connection,
                                   const struct codec_message *message, struct arena *arena,
                                   struct error *error)
{
    struct request request;
    struct exchange *exchange = NULL;
    uint64_t cancel_request = 0;
    if (message->kind == CODEC_HELLO) {
        return error_set(error, STATUS_CONFLICT, "hello was said already");
    }
    if (message->kind == CODEC_UNKNOWN) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "this daemon does not know that request; see Hello for its version");
    }
    TRY(codec_decode(message, connection->uid, arena, error, &request, &cancel_request));
    TRY(store_prepare(connection->hub->store, &request, error));
    TRY(exchange_open(connection, message->id, &request, error, &exchange));
    log_line(LOG_DEBUG, "wire", "%" PRIu64 ".%" PRIu64 " %s", connection->id, message->id,
             request_names[request.type]);
    if (request.type == REQUEST_CANCEL && request.u.cancel.has_request) {
        cancel_by_request(exchange, cancel_request);
        connection_mark(connection);
        return STATUS_OK;
    }
    const struct reply_to to = {connection->id, message->id};
    store_execute(connection->hub->store, &request, to);
    return STATUS_OK;
}

/* False: it waits for what the store loads, and so does what is behind it. */
static bool frame_execute(struct connection *connection, struct bytes body)
{
    struct codec_message message;
    struct error error = no_error;
    struct arena arena;
    arena_init(&arena, MESSAGE_UNPACK_BYTES_MAX);
    enum status status = codec_unpack(body, &arena, &error, &message);
    if (status == STATUS_OK) {
        status = order_check(connection, &message, &error);
    }
    if (status == STATUS_OK && connection->state == CONNECTION_OPENING) {
        status = hello_take(connection, &message, &error);
    } else if (status == STATUS_OK) {
        const enum status executed = request_execute(connection, &message, &arena, &error);

        connection->is_loading = executed == STATUS_AGAIN;
        if (executed != STATUS_OK && executed != STATUS_AGAIN) {
            connection_error(connection, message.id, &error);
        }
    }
    if (status != STATUS_OK) {
        connection_fail(connection, &error);
    }
    arena_finish(&arena);
    return !connection->is_loading;
}

/* The next whole frame after `at`; a frame that is too long ends the connection. */
static bool frame_next(struct connection *connection, size_t at, struct frame *out)
{
    const struct bytes rest = bytes_of(connection->input.data + at, connection->input.size - at);
    const enum status status = frame_parse(rest, out);
    if (status == STATUS_LIMIT) {
        struct error error = no_error;
        (void)error_set_limit(&error, "FRAME_BODY_BYTES_MAX", FRAME_BODY_BYTES_MAX,
                              "a frame of %" PRIu32 " bytes; the most is %d",
                              bytes_load_u32(rest.data), FRAME_BODY_BYTES_MAX);
        connection_fail(connection, &error);
    }
    return status == STATUS_OK;
}

static bool is_taking(const struct connection *connection)
{
    return (connection->state == CONNECTION_OPENING || connection->state == CONNECTION_READY) &&
           connection->input.size > 0;
}

bool intake_requests(struct connection *connection)
{
    struct frame frame;
    size_t at = 0;
    bool is_waiting = is_taking(connection) && frame_next(connection, 0, &frame);
    for (int i = 0; is_waiting && i < PUMP_REQUEST_COUNT_MAX; i++) {
        if (connection_is_congested(connection)) {
            break;
        }
        if (!frame_execute(connection, frame.body)) {
            is_waiting = false;
            break;
        }
        at += frame.size_bytes;
        is_waiting = is_taking(connection) && frame_next(connection, at, &frame);
    }
    /* Closing has emptied the input and given its bytes back. */
    if (connection->state != CONNECTION_CLOSED && at > 0) {
        buffer_consume(&connection->input, at);
        connection->hub->input_bytes -= at;
    }
    return is_waiting;
}
