/* Goal: connections keep their time limits, credits and bounds, and lack of memory hurts one of
 * them at most. Method: server_rig.h with a clock that the test moves; readers that stall; every
 * allocation fails once. */
#include "unit/wire/server_rig.h"

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

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_does_not_greet_in_time_is_told_and_closed),
        TEST(who_is_refused_and_stays_is_closed_in_time),
        cmocka_unit_test_setup_teardown(one_too_many_is_told_and_takes_no_place, setup_few,
                                        teardown),
        TEST(credits_bound_what_is_open),
        TEST(a_reader_that_stalls_holds_its_cursor_only),
        TEST(memory_that_fails_closes_one_connection_at_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
