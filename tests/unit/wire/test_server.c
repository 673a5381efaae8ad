/* Goal: answers find their requests and streams their readers, whatever the store answers and when;
 * cancels find the nodes they mean; nobody who left is remembered.
 * Method: server_rig.h: the store is a double, the client's side runs between turns of the loop. */
#include "unit/wire/server_rig.h"

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
    assert_int_equal(store.ended.request, 2); /* what looks ends at once */
    assert_int_equal(store.ended.connection, store.to[0].connection);
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
    assert_int_equal(store.closed, 0);
    client_close(&client);
    assert_int_equal(store.closed, store.to[0].connection);
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

/* What stands behind it on its connection waits too; other connections do not. */
static void a_request_waits_for_what_the_store_loads(void **state)
{
    (void)state;
    struct client client = client_open();
    struct client other = client_open();
    client_ask(&client, 1, PERSONAD__V1__REQUEST__OP_HELLO);
    client_ask(&other, 1, PERSONAD__V1__REQUEST__OP_HELLO);
    store.is_loading = true;
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_GENERATE);
    client_ask(&client, 3, PERSONAD__V1__REQUEST__OP_INFO);
    assert_int_equal(store.count, 0);
    client_ask(&other, 2, PERSONAD__V1__REQUEST__OP_INFO);
    assert_int_equal(store.count, 1);
    /* Asked again too early it goes on waiting. */
    store.events.on_loaded(store.events.context);
    turn();
    assert_int_equal(store.count, 1);
    store.is_loading = false;
    store.events.on_loaded(store.events.context);
    turn();
    assert_int_equal(store.count, 3);
    assert_int_equal(store.types[1], REQUEST_GENERATE);
    assert_int_equal(store.types[2], REQUEST_INFO);
    /* One that leaves while it waits is forgotten. */
    store.is_loading = true;
    client_ask(&other, 3, PERSONAD__V1__REQUEST__OP_GENERATE);
    client_close(&other);
    store.is_loading = false;
    store.events.on_loaded(store.events.context);
    turn();
    assert_true(store.count <= 4);
    client_close(&client);
}

/* A slice a turn of the loop, and the connections have theirs between them. */
static void the_store_works_between_what_connections_ask(void **state)
{
    (void)state;
    struct client client = client_greeted();
    store.work_count = 40;
    client_ask(&client, 2, PERSONAD__V1__REQUEST__OP_INFO); /* turns the loop some times */
    assert_int_equal(store.count, 1);
    assert_true(store.pump_count > 1 && store.pump_count < 40);
    for (int i = 0; i < 40; i++) {
        turn();
    }
    assert_int_equal(store.pump_count, 40);
    client_close(&client);
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
        TEST(a_stream_ends_with_done_after_its_last_node),
        TEST(progress_that_says_nothing_new_sends_nothing),
        TEST(a_repeat_may_follow_more_nodes_than_it_asked_for),
        TEST(answers_to_who_is_gone_are_dropped),
        TEST(who_leaves_in_mid_stream_unfollows),
        TEST(a_node_that_cannot_be_read_ends_its_request),
        TEST(a_cancel_waits_for_the_nodes_of_its_request),
        TEST(a_cancel_of_a_request_that_fails_is_done),
        TEST(a_request_waits_for_what_the_store_loads),
        TEST(the_store_works_between_what_connections_ask),
        TEST(a_server_that_stops_takes_its_socket_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
