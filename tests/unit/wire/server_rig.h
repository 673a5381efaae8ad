/* A server on a real loop and socket under a fake clock, a double of the store behind it that notes
 * requests and answers when the test says so, and a client's side of plain calls between turns of
 * the loop. Included by one test file each: the double takes the place of the real store there.
 */
#ifndef PERSONAD_TESTS_UNIT_WIRE_SERVER_RIG_H
#define PERSONAD_TESTS_UNIT_WIRE_SERVER_RIG_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "limits.h"
#include "personad.pb-c.h"
#include "wire/frame.h"
#include "wire/server.h"

enum { NODE = 50, NOTE_COUNT_MAX = 8192, CLIENT_BYTES_MAX = 16 * 1024 * 1024 };

/* ---------------------------------------------------------------- the double */

struct store {
    struct session_events events;
    struct reply_to to[NOTE_COUNT_MAX]; /* of the requests that came */
    enum request_type types[NOTE_COUNT_MAX];
    uint32_t count;
    uint64_t cancelled[16]; /* nodes of the last cancel */
    uint32_t cancelled_count;
    int follower_count;
    struct reply_to ended; /* whose computation a cancel by request was to end */
    uint64_t closed;       /* the connection that was closed last */
    struct node_view view; /* of every node */
    bool answers_info;
    bool is_loading;            /* what a Generate names is not in memory yet */
    int pump_count, work_count; /* slices done, and left */
};

static struct store store;

enum status store_prepare(struct store *of, const struct request *request, struct error *error)
{
    (void)error;
    return of->is_loading && request->type == REQUEST_GENERATE ? STATUS_AGAIN : STATUS_OK;
}

void store_execute(struct store *to, const struct request *request, struct reply_to reply_to)
{
    assert_true(to->count < NOTE_COUNT_MAX);
    to->types[to->count] = request->type;
    to->to[to->count++] = reply_to;
    if (request->type == REQUEST_CANCEL) {
        to->cancelled_count = request->u.cancel.node_count;
        memcpy(to->cancelled, request->u.cancel.nodes,
               request->u.cancel.node_count * sizeof(uint64_t));
    }
    if (request->type == REQUEST_INFO && to->answers_info) {
        const struct reply reply = {.type = REPLY_INFO, .request = REQUEST_INFO};
        to->events.on_reply(to->events.context, reply_to, &reply, false);
    }
}

enum status store_node_view(struct store *of, uint32_t uid, uint64_t node, struct error *error,
                            struct node_view *out)
{
    assert_int_equal(uid, getuid());
    if (node == NODE + 99) {
        return error_set(error, STATUS_NOT_FOUND, "no such node");
    }
    *out = of->view;
    out->id = node;
    return STATUS_OK;
}

void store_cancel_request(struct store *of, struct reply_to to)
{
    of->ended = to;
}

void store_connection_closed(struct store *of, uint64_t connection)
{
    of->closed = connection;
}

void store_pump(struct store *of)
{
    of->pump_count++;
    of->work_count--;
}

bool store_has_work(const struct store *of)
{
    return of->work_count > 0;
}

void store_node_follow(struct store *of, uint64_t node)
{
    (void)node;
    of->follower_count++;
}

void store_node_unfollow(struct store *of, uint64_t node)
{
    (void)node;
    of->follower_count--;
}

/* ---------------------------------------------------------------- both sides */

struct client {
    int descriptor;
    uint8_t *bytes; /* received, not taken */
    size_t size;
    bool ended;
};

static uv_loop_t loop;
static struct server *server;
static char folder[64];
static char path[80];
static uint64_t now_ns;
static int64_t live_before;

static inline int setup_with(uint32_t count_max)
{
    struct error error = {STATUS_OK, "", NULL, 0};
    live_before = memory_live_count();
    now_ns = 1000000000;
    clock_fake_set(&now_ns);
    log_level_set(LOG_ERROR);
    memset(&store, 0, sizeof store);
    store.answers_info = true;
    (void)snprintf(folder, sizeof folder, "/tmp/pd-server-XXXXXX");
    if (mkdtemp(folder) == NULL || uv_loop_init(&loop) != 0) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/s", folder);
    const struct server_settings settings = {.loop = &loop,
                                             .socket_path = path,
                                             .connection_count_max = count_max,
                                             .daemon_version = "test"};
    if (server_open(&settings, &error, &server) != STATUS_OK) {
        return -1;
    }
    store.events = server_events(server);
    return server_start(server, &store, &error) == STATUS_OK ? 0 : -1;
}

static inline int setup(void **state)
{
    (void)state;
    return setup_with(100);
}

static inline int teardown(void **state)
{
    (void)state;
    server_close(server);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    server_destroy(server);
    clock_fake_set(NULL);
    assert_int_equal(store.follower_count, 0);
    assert_int_equal(memory_live_count(), live_before);
    return rmdir(folder);
}

static inline void turn(void)
{
    for (int i = 0; i < 8; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    }
}

/* The tick's timer runs on the loop's own clock: so wait for it. */
static inline void tick_after(uint64_t seconds)
{
    now_ns += seconds * 1000000000;
    for (int i = 0; i < 80; i++) {
        (void)usleep(10 * 1000);
        turn();
    }
}

static inline struct client client_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct client client = {socket(AF_UNIX, SOCK_STREAM, 0), NULL, 0, false};
    memcpy(address.sun_path, path, strlen(path));
    assert_int_equal(connect(client.descriptor, (const struct sockaddr *)&address, sizeof address),
                     0);
    client.bytes = test_malloc(CLIENT_BYTES_MAX);
    turn();
    return client;
}

static inline void client_close(struct client *client)
{
    (void)close(client->descriptor);
    test_free(client->bytes);
    turn();
}

static inline void client_send(struct client *client, const Personad__V1__Request *request)
{
    uint8_t bytes[512];
    const size_t size = personad__v1__request__get_packed_size(request);
    assert_true(size + FRAME_HEADER_BYTES <= sizeof bytes);
    frame_format_header(size, bytes);
    (void)personad__v1__request__pack(request, bytes + FRAME_HEADER_BYTES);
    assert_int_equal(send(client->descriptor, bytes, size + FRAME_HEADER_BYTES, MSG_NOSIGNAL),
                     size + FRAME_HEADER_BYTES);
}

static inline void client_ask(struct client *client, uint64_t id, Personad__V1__Request__OpCase op)
{
    Personad__V1__Request request = PERSONAD__V1__REQUEST__INIT;
    Personad__V1__HelloRequest hello = PERSONAD__V1__HELLO_REQUEST__INIT;
    Personad__V1__InfoRequest info = PERSONAD__V1__INFO_REQUEST__INIT;
    Personad__V1__GenerateRequest generate = PERSONAD__V1__GENERATE_REQUEST__INIT;
    Personad__V1__FollowRequest follow = PERSONAD__V1__FOLLOW_REQUEST__INIT;
    request.has_id = 1;
    request.id = id;
    request.op_case = op;
    if (op == PERSONAD__V1__REQUEST__OP_HELLO) {
        request.hello = &hello;
    } else if (op == PERSONAD__V1__REQUEST__OP_INFO) {
        request.info = &info;
    } else if (op == PERSONAD__V1__REQUEST__OP_FOLLOW) {
        request.follow = &follow;
    } else {
        generate.has_n = 1;
        generate.n = 2;
        request.generate = &generate;
    }
    client_send(client, &request);
    turn();
}

static inline void client_cancel(struct client *client, uint64_t id, uint64_t target)
{
    Personad__V1__Request request = PERSONAD__V1__REQUEST__INIT;
    Personad__V1__CancelRequest cancel = PERSONAD__V1__CANCEL_REQUEST__INIT;
    request.has_id = 1;
    request.id = id;
    request.op_case = PERSONAD__V1__REQUEST__OP_CANCEL;
    request.cancel = &cancel;
    cancel.has_request = 1;
    cancel.request = target;
    client_send(client, &request);
    turn();
}

static inline void client_receive(struct client *client)
{
    for (;;) {
        turn();
        const ssize_t size = recv(client->descriptor, client->bytes + client->size,
                                  CLIENT_BYTES_MAX - client->size, MSG_DONTWAIT);
        client->ended |= size == 0;
        if (size <= 0) {
            return;
        }
        client->size += (size_t)size;
    }
}

/* The next reply, or NULL. The caller frees. */
static inline Personad__V1__Reply *client_next(struct client *client)
{
    struct frame frame;
    client_receive(client);
    if (frame_parse(bytes_of(client->bytes, client->size), &frame) != STATUS_OK) {
        return NULL;
    }
    Personad__V1__Reply *reply =
        personad__v1__reply__unpack(NULL, frame.body.size, frame.body.data);
    assert_non_null(reply);
    client->size -= frame.size_bytes;
    memmove(client->bytes, client->bytes + frame.size_bytes, client->size);
    return reply;
}

static inline void expect(struct client *client, uint64_t id,
                          Personad__V1__Reply__ResultCase result, bool more)
{
    Personad__V1__Reply *reply = client_next(client);
    assert_non_null(reply);
    assert_int_equal(reply->id, id);
    assert_int_equal(reply->result_case, result);
    assert_int_equal(reply->has_more && reply->more, more);
    personad__v1__reply__free_unpacked(reply, NULL);
}

/* Then the connection ends, as far as the client sees. */
static inline void expect_refusal(struct client *client, const char *limit)
{
    Personad__V1__Reply *reply = client_next(client);
    assert_non_null(reply);
    assert_int_equal(reply->id, 0);
    assert_int_equal(reply->result_case, PERSONAD__V1__REPLY__RESULT_ERROR);
    if (limit != NULL) {
        assert_int_equal(reply->error->limit_name.len, strlen(limit));
        assert_memory_equal(reply->error->limit_name.data, limit, strlen(limit));
    }
    personad__v1__reply__free_unpacked(reply, NULL);
    client_receive(client);
    assert_true(client->ended);
}

static inline struct client client_greeted(void)
{
    struct client client = client_open();
    client_ask(&client, 1, PERSONAD__V1__REQUEST__OP_HELLO);
    expect(&client, 1, PERSONAD__V1__REPLY__RESULT_HELLO, false);
    return client;
}

/* What the store does for a generation of two nodes. */
static inline void store_creates(uint32_t note)
{
    static const uint64_t nodes[] = {NODE, NODE + 1};
    const struct node_view views[] = {{.id = NODE}, {.id = NODE + 1}};
    const struct follow follow = {.nodes = nodes, .node_count = 2};
    struct reply reply = {.type = REPLY_CREATED, .request = REQUEST_GENERATE};
    reply.u.created.nodes = views;
    reply.u.created.count = 2;
    store.events.on_reply(store.events.context, store.to[note], &reply, true);
    store.events.on_follow(store.events.context, store.to[note], &follow);
    turn();
}

static inline void store_progresses(void)
{
    store.events.on_progress(store.events.context, NODE);
    store.events.on_progress(store.events.context, NODE + 1);
    turn();
}

#endif
