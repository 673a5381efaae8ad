/* Goal: connections keep their time limits, credits and bounds, answers find their requests, and
 * nothing is left behind, whatever the store answers and when.
 * Method: a real loop and a real socket under a fake clock; the store is a double in this file that
 * notes requests and answers when the test says so. The client's side is plain blocking calls
 * between turns of the loop. */
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
    struct node_view view; /* of every node */
    bool answers_info;
};

static struct store store;

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
static uint32_t connection_count_max;

static int setup_with(uint32_t count_max)
{
    struct error error = {STATUS_OK, "", NULL, 0};
    live_before = memory_live_count();
    connection_count_max = count_max;
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

static int setup(void **state)
{
    (void)state;
    return setup_with(100);
}

static int teardown(void **state)
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

static void turn(void)
{
    for (int i = 0; i < 8; i++) {
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    }
}

/* The tick's timer runs on the loop's own clock: so wait for it. */
static void tick_after(uint64_t seconds)
{
    now_ns += seconds * 1000000000;
    for (int i = 0; i < 80; i++) {
        (void)usleep(10 * 1000);
        turn();
    }
}

static struct client client_open(void)
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

static void client_close(struct client *client)
{
    (void)close(client->descriptor);
    test_free(client->bytes);
    turn();
}

static void client_send(struct client *client, const Personad__V1__Request *request)
{
    uint8_t bytes[512];
    const size_t size = personad__v1__request__get_packed_size(request);
    assert_true(size + FRAME_HEADER_BYTES <= sizeof bytes);
    frame_format_header(size, bytes);
    (void)personad__v1__request__pack(request, bytes + FRAME_HEADER_BYTES);
    assert_int_equal(send(client->descriptor, bytes, size + FRAME_HEADER_BYTES, MSG_NOSIGNAL),
                     size + FRAME_HEADER_BYTES);
}

static void client_ask(struct client *client, uint64_t id, Personad__V1__Request__OpCase op)
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

static void client_cancel(struct client *client, uint64_t id, uint64_t target)
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

static void client_receive(struct client *client)
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
static Personad__V1__Reply *client_next(struct client *client)
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

static void expect(struct client *client, uint64_t id, Personad__V1__Reply__ResultCase result,
                   bool more)
{
    Personad__V1__Reply *reply = client_next(client);
    assert_non_null(reply);
    assert_int_equal(reply->id, id);
    assert_int_equal(reply->result_case, result);
    assert_int_equal(reply->has_more && reply->more, more);
    personad__v1__reply__free_unpacked(reply, NULL);
}

/* Then the connection ends, as far as the client sees. */
static void expect_refusal(struct client *client, const char *limit)
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

static struct client client_greeted(void)
{
    struct client client = client_open();
    client_ask(&client, 1, PERSONAD__V1__REQUEST__OP_HELLO);
    expect(&client, 1, PERSONAD__V1__REPLY__RESULT_HELLO, false);
    return client;
}

/* What the store does for a generation of two nodes. */
static void store_creates(uint32_t note)
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

static void store_progresses(void)
{
    store.events.on_progress(store.events.context, NODE);
    store.events.on_progress(store.events.context, NODE + 1);
    turn();
}

/* ---------------------------------------------------------------- tests */

static void who_does_not_greet_in_time_is_told_and_closed(void **state)
{
    (void)state;
    struct client late = client_open();
    tick_after(CONNECTION_HELLO_MS_MAX / 1000 - 1);
    assert_null(client_next(&late));
    assert_false(late.ended);
    tick_after(2);
    expect_refusal(&late, "CONNECTION_HELLO_MS_MAX");
    client_close(&late);
    struct client idle = client_greeted();
    tick_after(3600);
    client_ask(&idle, 2, PERSONAD__V1__REQUEST__OP_INFO);
    expect(&idle, 2, PERSONAD__V1__REPLY__RESULT_INFO, false);
    client_close(&idle);
}

static void who_is_refused_and_stays_is_closed_in_time(void **state)
{
    (void)state;
    struct client rogue = client_open();
    client_ask(&rogue, 1, PERSONAD__V1__REQUEST__OP_INFO);
    expect_refusal(&rogue, NULL);
    assert_int_equal(server_connection_count(server), 1);
    tick_after(CONNECTION_DRAIN_MS_MAX / 1000);
    assert_int_equal(server_connection_count(server), 0);
    client_close(&rogue);
}

static void one_too_many_is_told_and_takes_no_place(void **state)
{
    struct client clients[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        clients[i] = client_greeted();
    }
    struct client extra = client_open();
    expect_refusal(&extra, "CONNECTION_COUNT_MAX");
    client_close(&clients[0]);
    struct client next = client_greeted();
    client_close(&next);
    client_close(&extra);
    client_close(&clients[1]);
    client_close(&clients[2]);
    assert_int_equal(server_connection_count(server), 0);
}

static int setup_few(void **state)
{
    (void)state;
    return setup_with(3);
}

static void a_stream_ends_with_done_after_its_last_node(void **state)
{
    (void)state;
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    assert_int_equal(store.types[0], REQUEST_GENERATE);
    store_creates(0);
    assert_int_equal(store.follower_count, 2);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_CREATED, true);
    assert_null(client_next(&client));
    store.view.text = (const uint8_t *)"abc";
    store.view.text_bytes = 3;
    store_progresses();
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_TOKENS, true);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_TOKENS, true);
    store.view.finish = NODE_END;
    store_progresses();
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_FINISHED, true);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_FINISHED, true);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_DONE, false);
    assert_int_equal(store.follower_count, 0);
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_INFO);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_INFO, false);
    client_close(&client);
}

static void progress_that_says_nothing_new_sends_nothing(void **state)
{
    (void)state;
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    store_creates(0);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_CREATED, true);
    for (int i = 0; i < 5; i++) {
        store_progresses();
    }
    assert_null(client_next(&client));
    assert_true(server_is_flushed(server));
    client_close(&client);
}

static void a_repeat_may_follow_more_nodes_than_it_asked_for(void **state)
{
    (void)state;
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_FOLLOW);
    store_creates(0);
    assert_int_equal(store.follower_count, 2);
    store.view.finish = NODE_END;
    store_progresses();
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_CREATED, true);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_FINISHED, true);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_FINISHED, true);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_DONE, false);
    client_close(&client);
}

static void answers_to_who_is_gone_are_dropped(void **state)
{
    (void)state;
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    client_close(&client);
    assert_int_equal(server_connection_count(server), 0);
    store_creates(0);
    store_progresses();
    assert_int_equal(store.follower_count, 0);
}

static void who_leaves_in_mid_stream_unfollows(void **state)
{
    (void)state;
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    store_creates(0);
    assert_int_equal(store.follower_count, 2);
    client_close(&client);
    assert_int_equal(store.follower_count, 0);
    assert_int_equal(store.count, 1);
}

static void a_node_that_cannot_be_read_ends_its_request(void **state)
{
    static const uint64_t node = NODE + 99;
    const struct follow follow = {.nodes = &node, .node_count = 1};
    (void)state;
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_FOLLOW);
    store.events.on_follow(store.events.context, store.to[0], &follow);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_ERROR, false);
    assert_int_equal(store.follower_count, 0);
    client_close(&client);
}

static void a_cancel_waits_for_the_nodes_of_its_request(void **state)
{
    const struct reply done = {.type = REPLY_DONE};
    (void)state;
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    client_cancel(&client, 3, 2);
    assert_int_equal(store.count, 1);
    store_creates(0);
    assert_int_equal(store.count, 2);
    assert_int_equal(store.types[1], REQUEST_CANCEL);
    assert_int_equal(store.cancelled_count, 2);
    assert_int_equal(store.cancelled[1], NODE + 1);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_CREATED, true);
    store.events.on_reply(store.events.context, store.to[1], &done, false);
    expect(&client, 3, PERSONAD__V1__REPLY__RESULT_DONE, false);
    client_cancel(&client, 4, 2);
    assert_int_equal(store.cancelled_count, 2);
    store.events.on_reply(store.events.context, store.to[2], &done, false);
    expect(&client, 4, PERSONAD__V1__REPLY__RESULT_DONE, false);
    client_cancel(&client, 5, 77);
    expect(&client, 5, PERSONAD__V1__REPLY__RESULT_DONE, false);
    assert_int_equal(store.count, 3);
    client_close(&client);
}

static void a_cancel_of_a_request_that_fails_is_done(void **state)
{
    struct reply failed = {.type = REPLY_ERROR};
    (void)state;
    (void)error_set(&failed.error, STATUS_STORAGE, "no");
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    client_cancel(&client, 3, 2);
    store.events.on_reply(store.events.context, store.to[0], &failed, false);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_ERROR, false);
    expect(&client, 3, PERSONAD__V1__REPLY__RESULT_DONE, false);
    client_close(&client);
}

static void credits_bound_what_is_open(void **state)
{
    (void)state;
    store.answers_info = false;
    struct client client = client_greeted();
    for (uint64_t i = 0; i < REQUEST_PER_CONNECTION_COUNT_MAX; i++) {
        client_ask(&client, 10 + i, PERSONAD__V1__REQUEST__OP_INFO);
    }
    assert_int_equal(store.count, REQUEST_PER_CONNECTION_COUNT_MAX);
    assert_null(client_next(&client));
    client_ask(&client, 5, PERSONAD__V1__REQUEST__OP_INFO);
    Personad__V1__Reply *reply = client_next(&client);
    assert_non_null(reply);
    assert_int_equal(reply->id, 5);
    assert_int_equal(reply->error->code, STATUS_LIMIT);
    personad__v1__reply__free_unpacked(reply, NULL);
    assert_int_equal(store.count, REQUEST_PER_CONNECTION_COUNT_MAX);
    client_close(&client);
}

/* A node of which the reader takes nothing: the frames that wait stay few, and the node is read to
 * its end once the reader reads. */
static void a_reader_that_stalls_holds_its_cursor_only(void **state)
{
    enum { NODE_BYTES = 8 * 1024 * 1024 };
    uint8_t *text = test_malloc(NODE_BYTES);
    size_t seen = 0;
    (void)state;
    memset(text, 'a', NODE_BYTES);
    struct client client = client_greeted();
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    store_creates(0);
    store.view.text = text;
    store.view.text_bytes = NODE_BYTES;
    store_progresses();
    for (int i = 0; i < 50; i++) {
        store_progresses();
    }
    assert_false(server_is_flushed(server));
    struct client other = client_greeted();
    client_ask(&other, 2, PERSONAD__V1__REQUEST__OP_INFO);
    expect(&other, 2, PERSONAD__V1__REPLY__RESULT_INFO, false);
    client_close(&other);
    store.view.finish = NODE_END;
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_CREATED, true);
    for (;;) {
        Personad__V1__Reply *reply = client_next(&client);
        if (reply == NULL || !reply->more) {
            assert_non_null(reply);
            personad__v1__reply__free_unpacked(reply, NULL);
            break;
        }
        if (reply->result_case == PERSONAD__V1__REPLY__RESULT_TOKENS) {
            seen += reply->tokens->text.len;
        }
        personad__v1__reply__free_unpacked(reply, NULL);
    }
    assert_int_equal(seen, 2 * (size_t)NODE_BYTES);
    assert_true(server_is_flushed(server));
    client_close(&client);
    test_free(text);
}

static void memory_that_fails_closes_one_connection_at_most(void **state)
{
    (void)state;
    for (int64_t survivors = 0; survivors < 30; survivors++) {
        struct client steady = client_greeted();
        struct client shaken = client_greeted();
        Personad__V1__Request request = PERSONAD__V1__REQUEST__INIT;
        Personad__V1__GenerateRequest generate = PERSONAD__V1__GENERATE_REQUEST__INIT;
        request.has_id = 1;
        request.id = 2;
        request.op_case = PERSONAD__V1__REQUEST__OP_GENERATE;
        request.generate = &generate;
        generate.has_n = 1;
        generate.n = survivors % 2 == 0 ? 2 : 1;
        store.count = 0;
        client_send(&shaken, &request);
        memory_fault_set(survivors);
        turn();
        if (store.count > 0) {
            store_creates(0);
        }
        memory_fault_set(-1);
        client_ask(&steady, 2, PERSONAD__V1__REQUEST__OP_INFO);
        expect(&steady, 2, PERSONAD__V1__REPLY__RESULT_INFO, false);
        client_close(&shaken);
        client_close(&steady);
        assert_int_equal(server_connection_count(server), 0);
    }
}

static void a_server_that_stops_takes_its_socket_away(void **state)
{
    (void)state;
    struct client client = client_greeted();
    server_stop_accepting(server);
    assert_int_not_equal(access(path, F_OK), 0);
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_INFO);
    expect(&client, 2, PERSONAD__V1__REPLY__RESULT_INFO, false);
    assert_true(server_is_flushed(server));
    client_close(&client);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_does_not_greet_in_time_is_told_and_closed),
        TEST(who_is_refused_and_stays_is_closed_in_time),
        cmocka_unit_test_setup_teardown(one_too_many_is_told_and_takes_no_place, setup_few,
                                        teardown),
        TEST(a_stream_ends_with_done_after_its_last_node),
        TEST(progress_that_says_nothing_new_sends_nothing),
        TEST(a_repeat_may_follow_more_nodes_than_it_asked_for),
        TEST(answers_to_who_is_gone_are_dropped),
        TEST(who_leaves_in_mid_stream_unfollows),
        TEST(a_node_that_cannot_be_read_ends_its_request),
        TEST(a_cancel_waits_for_the_nodes_of_its_request),
        TEST(a_cancel_of_a_request_that_fails_is_done),
        TEST(credits_bound_what_is_open),
        TEST(a_reader_that_stalls_holds_its_cursor_only),
        TEST(memory_that_fails_closes_one_connection_at_most),
        TEST(a_server_that_stops_takes_its_socket_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
