/* Goal: the C client takes whatever a daemon, or what pretends to be one, may send: it answers with
 * the right code and sentence, loses no event and never waits for what cannot come.
 * Method: a scripted daemon behind a real socket; each test writes its script, talks and looks at
 * the codes. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "personad.pb-c.h"
#include "personad_client.h"
#include "support/fake_daemon.h"

enum { FRAME_BYTES_MAX = 1 << 20, HELLO_ID = 1, FIRST_ID = 2 };

static struct fake_daemon fake;

/* ---------------------------------------------------------------- scripts */

static void add_reply(enum fake_daemon_act act, uint64_t id, bool more, Personad__V1__Reply *reply)
{
    uint8_t body[8192];
    reply->has_id = reply->has_more = true;
    reply->id = id;
    reply->more = more;
    assert_true(personad__v1__reply__get_packed_size(reply) <= sizeof body);
    fake_daemon_add_frame(&fake, act, body, personad__v1__reply__pack(reply, body));
}

static void add_hello(void)
{
    Personad__V1__HelloReply hello = PERSONAD__V1__HELLO_REPLY__INIT;
    hello.has_frame_bytes_max = true;
    hello.frame_bytes_max = FRAME_BYTES_MAX;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_HELLO;
    reply.hello = &hello;
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_reply(FAKE_DAEMON_SEND, HELLO_ID, false, &reply);
}

static void add_info(enum fake_daemon_act act, uint64_t id)
{
    static char name[] = "a model";
    Personad__V1__InfoReply info = PERSONAD__V1__INFO_REPLY__INIT;
    info.has_model_name = true;
    info.model_name = (ProtobufCBinaryData){sizeof name - 1, (uint8_t *)name};
    info.has_vocabulary_count = true;
    info.vocabulary_count = 4711;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_INFO;
    reply.info = &info;
    add_reply(act, id, false, &reply);
}

static void add_tokens(uint64_t id, uint32_t first_token, bool more)
{
    Personad__V1__TokensReply tokens = PERSONAD__V1__TOKENS_REPLY__INIT;
    tokens.has_node = tokens.has_first_token = true;
    tokens.node = 9;
    tokens.first_token = first_token;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_TOKENS;
    reply.tokens = &tokens;
    add_reply(FAKE_DAEMON_SEND, id, more, &reply);
}

static void add_error(uint64_t id, int code, char *text)
{
    Personad__V1__Error error = PERSONAD__V1__ERROR__INIT;
    error.has_code = error.has_text = true;
    error.code = (Personad__V1__ErrorCode)code;
    error.text = (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_ERROR;
    reply.error = &error;
    add_reply(FAKE_DAEMON_SEND, id, false, &reply);
}

static int script_begin(void **state)
{
    (void)state;
    fake_daemon_init(&fake);
    return 0;
}

static personad_client *connected(void)
{
    struct personad_error error;
    fake_daemon_start(&fake);
    personad_client *client = personad_connect(fake.path, &error);
    assert_non_null(client);
    return client;
}

static void disconnect(personad_client *client)
{
    personad_close(client);
    fake_daemon_finish(&fake);
}

static void assert_info_comes(personad_client *client)
{
    const struct personad_info *info = NULL;
    assert_int_equal(personad_info(client, &info), PERSONAD_OK);
    assert_int_equal(info->vocabulary_count, 4711);
    assert_int_equal(info->model_name.size, 7);
    assert_memory_equal(info->model_name.data, "a model", 7);
}

static void assert_failed(personad_client *client, int code, int expected, const char *words)
{
    assert_int_equal(code, expected);
    assert_int_equal(personad_last_error(client)->code, expected);
    assert_non_null(strstr(personad_last_error(client)->text, words));
}

static void assert_tokens(personad_client *client, uint64_t request, uint32_t first_token)
{
    const struct personad_event *event = NULL;
    assert_int_equal(personad_next(client, 5000, &event), PERSONAD_OK);
    assert_int_equal(event->type, PERSONAD_EVENT_TOKENS);
    assert_int_equal(event->request, request);
    assert_int_equal(event->first_token, first_token);
}

/* ---------------------------------------------------------------- frames */

static void a_frame_may_come_in_crumbs(void **state)
{
    (void)state;
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_info(FAKE_DAEMON_CRUMBS, FIRST_ID);
    personad_client *client = connected();
    assert_info_comes(client);
    disconnect(client);
}

static void a_frame_past_the_bound_is_an_error_that_stays(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {FRAME_BYTES_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < 2; i++) {
        const uint8_t head[] = {(uint8_t)sizes[i], (uint8_t)(sizes[i] >> 8),
                                (uint8_t)(sizes[i] >> 16), (uint8_t)(sizes[i] >> 24)};
        fake_daemon_init(&fake);
        add_hello();
        fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
        fake_daemon_add_bytes(&fake, FAKE_DAEMON_SEND, head, sizeof head);
        add_info(FAKE_DAEMON_SEND, FIRST_ID);
        personad_client *client = connected();
        const struct personad_info *info = NULL;
        assert_failed(client, personad_info(client, &info), PERSONAD_PROTOCOL, "frame of");
        assert_failed(client, personad_info(client, &info), PERSONAD_PROTOCOL, "frame of");
        assert_null(info);
        disconnect(client);
    }
}

static void what_is_no_message_is_an_error(void **state)
{
    (void)state;
    static const uint8_t noise[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add_frame(&fake, FAKE_DAEMON_SEND, noise, sizeof noise);
    personad_client *client = connected();
    const struct personad_info *info = NULL;
    assert_failed(client, personad_info(client, &info), PERSONAD_PROTOCOL, "malformed");
    disconnect(client);
}

static void a_request_of_many_bytes_goes_out_whole(void **state)
{
    (void)state;
    const size_t size = FRAME_BYTES_MAX - 64;
    char *text = calloc(1, size);
    assert_non_null(text);
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_SLEEP, 20); /* the socket's buffer is full by then */
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_error(FIRST_ID, PERSONAD_LIMIT, "too long");
    personad_client *client = connected();
    const uint32_t *tokens = NULL;
    size_t count = 0;
    const struct personad_text given = {text, size};
    assert_failed(client, personad_tokenize(client, given, false, &tokens, &count, NULL),
                  PERSONAD_LIMIT, "too long");
    disconnect(client);
    assert_int_equal(fake.heard_count, 2);
    assert_true(fake.heard_bytes > size);
    free(text);
}

static void a_request_that_no_frame_holds_is_not_sent(void **state)
{
    (void)state;
    char *text = calloc(1, FRAME_BYTES_MAX + 1);
    assert_non_null(text);
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_info(FAKE_DAEMON_SEND, FIRST_ID);
    personad_client *client = connected();
    const uint32_t *tokens = NULL;
    size_t count = 0;
    const struct personad_text given = {text, FRAME_BYTES_MAX + 1};
    assert_failed(client, personad_tokenize(client, given, false, &tokens, &count, NULL),
                  PERSONAD_LIMIT, "a frame holds");
    assert_info_comes(client);
    disconnect(client);
    free(text);
}

/* ---------------------------------------------------------------- replies */

static void an_error_becomes_a_code_and_a_sentence(void **state)
{
    (void)state;
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_error(FIRST_ID, PERSONAD_DENIED, "not yours");
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_error(FIRST_ID + 1, PERSONAD_NOT_FOUND, "no such node");
    personad_client *client = connected();
    const struct personad_info *info = NULL;
    assert_failed(client, personad_info(client, &info), PERSONAD_DENIED, "not yours");
    const uint64_t request = personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, false);
    const struct personad_event *event = NULL;
    assert_int_equal(personad_next(client, 5000, &event), PERSONAD_OK);
    assert_int_equal(event->type, PERSONAD_EVENT_ERROR);
    assert_int_equal(event->request, request);
    assert_true(event->last);
    assert_int_equal(event->error.code, PERSONAD_NOT_FOUND);
    assert_string_equal(event->error.text, "no such node");
    disconnect(client);
}

static void another_kind_of_answer_is_an_error(void **state)
{
    (void)state;
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_info(FAKE_DAEMON_SEND, FIRST_ID);
    personad_client *client = connected();
    struct personad_stats stats;
    assert_failed(client, personad_stats(client, &stats), PERSONAD_PROTOCOL, "something else");
    disconnect(client);
}

static void unknown_fields_and_kinds_are_tolerated(void **state)
{
    (void)state;
    /* id 2, more, field 999 as bytes; then the same with no field that is known */
    static const uint8_t unknown[] = {0x08, FIRST_ID, 0x10, 1, 0xba, 0x3e, 3, 'n', 'e', 'w'};
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add_frame(&fake, FAKE_DAEMON_SEND, unknown, sizeof unknown);
    fake_daemon_add_frame(&fake, FAKE_DAEMON_SEND, unknown + 4, sizeof unknown - 4);
    add_tokens(FIRST_ID, 5, false);
    personad_client *client = connected();
    const uint64_t request = personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, false);
    assert_tokens(client, request, 5);
    disconnect(client);
}

static void events_wait_while_a_call_is_answered(void **state)
{
    (void)state;
    enum { BEFORE = 4, AFTER = 3 };
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    for (uint32_t i = 0; i < BEFORE; i++) {
        add_tokens(FIRST_ID, i, true);
    }
    add_info(FAKE_DAEMON_SEND, FIRST_ID + 1);
    for (uint32_t i = BEFORE; i < BEFORE + AFTER; i++) {
        add_tokens(FIRST_ID, i, i + 1 < BEFORE + AFTER);
    }
    personad_client *client = connected();
    const uint64_t request = personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, false);
    assert_info_comes(client);
    for (uint32_t i = 0; i < BEFORE + AFTER; i++) {
        assert_tokens(client, request, i);
    }
    disconnect(client);
}

static void arrays_of_different_lengths_are_read_as_far_as_all_go(void **state)
{
    (void)state;
    uint32_t tokens[] = {1, 2, 3};
    float logprobs[] = {-1, -2, -3};
    float two[] = {-4, -5};
    Personad__V1__Numbers numbers = PERSONAD__V1__NUMBERS__INIT;
    numbers.n_tokens = 3, numbers.tokens = tokens;
    numbers.n_logprobs = 3, numbers.logprobs = logprobs;
    numbers.n_sampler_logprobs = 3, numbers.sampler_logprobs = logprobs;
    numbers.n_entropies = 2, numbers.entropies = two;
    numbers.has_top_count = true, numbers.top_count = 2;
    numbers.n_top_tokens = 3, numbers.top_tokens = tokens;
    numbers.n_top_logprobs = 3, numbers.top_logprobs = logprobs;
    Personad__V1__TokensReply body = PERSONAD__V1__TOKENS_REPLY__INIT;
    body.numbers = &numbers;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_TOKENS;
    reply.tokens = &body;
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_reply(FAKE_DAEMON_SEND, FIRST_ID, false, &reply);
    personad_client *client = connected();
    (void)personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, true);
    const struct personad_event *event = NULL;
    assert_int_equal(personad_next(client, 5000, &event), PERSONAD_OK);
    assert_int_equal(event->numbers.count, 2);
    assert_int_equal(event->numbers.top_count, 0);
    disconnect(client);
}

/* ---------------------------------------------------------------- ends */

static void a_connection_that_ends_in_a_frame_is_closed(void **state)
{
    (void)state;
    static const uint8_t half[] = {100, 0, 0, 0, 1, 2, 3};
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add_bytes(&fake, FAKE_DAEMON_SEND, half, sizeof half);
    personad_client *client = connected();
    const struct personad_info *info = NULL;
    assert_failed(client, personad_info(client, &info), PERSONAD_CLOSED, "closed");
    const struct personad_event *event = NULL;
    assert_failed(client, personad_next(client, -1, &event), PERSONAD_CLOSED, "closed");
    assert_null(event);
    disconnect(client);
}

static void what_came_before_the_end_is_handed_out_first(void **state)
{
    (void)state;
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_tokens(FIRST_ID, 0, true);
    add_tokens(FIRST_ID, 1, true);
    personad_client *client = connected();
    const uint64_t request = personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, false);
    (void)usleep(20000);
    const struct personad_info *info = NULL;
    assert_failed(client, personad_info(client, &info), PERSONAD_CLOSED, "closed");
    assert_tokens(client, request, 0);
    assert_tokens(client, request, 1);
    const struct personad_event *event = NULL;
    assert_failed(client, personad_next(client, -1, &event), PERSONAD_CLOSED, "closed");
    disconnect(client);
}

static void the_reason_for_a_closed_connection_is_told(void **state)
{
    (void)state;
    for (int streaming = 0; streaming < 2; streaming++) {
        fake_daemon_init(&fake);
        add_hello();
        fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
        add_error(0, PERSONAD_BAD_INPUT, "an id is in use");
        personad_client *client = connected();
        const struct personad_event *event = NULL;
        const struct personad_info *info = NULL;
        if (streaming) {
            (void)personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, false);
            assert_failed(client, personad_next(client, 5000, &event), PERSONAD_BAD_INPUT,
                          "in use");
        } else {
            assert_failed(client, personad_info(client, &info), PERSONAD_BAD_INPUT, "in use");
        }
        assert_failed(client, personad_next(client, 5000, &event), PERSONAD_CLOSED, "closed");
        disconnect(client);
    }
}

static void nobody_and_somebody_else_are_no_daemon(void **state)
{
    (void)state;
    struct personad_error error;
    assert_null(personad_connect("/nonexistent/socket", &error));
    assert_int_equal(error.code, PERSONAD_NO_DAEMON);
    assert_non_null(strstr(error.text, "/nonexistent/socket"));
    char path[256];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    assert_null(personad_connect(path, &error));
    assert_int_equal(error.code, PERSONAD_USAGE);
    assert_null(personad_connect(path, NULL));
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_info(FAKE_DAEMON_SEND, HELLO_ID);
    fake_daemon_start(&fake);
    assert_null(personad_connect(fake.path, &error));
    assert_int_equal(error.code, PERSONAD_PROTOCOL);
    fake_daemon_finish(&fake);
    personad_close(NULL);
}

/* ---------------------------------------------------------------- time and signals */

static void a_wait_ends_when_its_time_has_passed(void **state)
{
    (void)state;
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add(&fake, FAKE_DAEMON_SLEEP, 60);
    add_tokens(FIRST_ID, 3, false);
    personad_client *client = connected();
    const uint64_t request = personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, false);
    const struct personad_event *event = NULL;
    assert_int_equal(personad_next(client, 0, &event), PERSONAD_AGAIN);
    assert_int_equal(personad_next(client, 5, &event), PERSONAD_AGAIN);
    assert_null(event);
    assert_tokens(client, request, 3);
    disconnect(client);
}

static void on_signal(int number)
{
    (void)number;
}

static void a_signal_ends_a_wait_but_no_call(void **state)
{
    (void)state;
    const struct sigaction heard = {.sa_handler = on_signal};
    assert_int_equal(sigaction(SIGUSR1, &heard, NULL), 0);
    add_hello();
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add(&fake, FAKE_DAEMON_SIGNAL, 20);
    add_info(FAKE_DAEMON_SEND, FIRST_ID);
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    fake_daemon_add(&fake, FAKE_DAEMON_SLEEP, 5);
    fake_daemon_add(&fake, FAKE_DAEMON_SIGNAL, 20);
    add_tokens(FIRST_ID + 1, 8, false);
    personad_client *client = connected();
    assert_info_comes(client);
    const uint64_t request = personad_follow(client, 1, 0, 0, PERSONAD_EACH_TOKEN, false);
    const struct personad_event *event = NULL;
    assert_failed(client, personad_next(client, -1, &event), PERSONAD_AGAIN, "signal");
    int code = PERSONAD_AGAIN;
    while (code == PERSONAD_AGAIN) {
        code = personad_next(client, -1, &event);
    }
    assert_int_equal(code, PERSONAD_OK);
    assert_int_equal(event->request, request);
    disconnect(client);
}

static void the_default_socket_follows_the_environment(void **state)
{
    (void)state;
    char path[108];
    assert_int_equal(setenv("PERSONAD_SOCKET", "/a/socket", 1), 0);
    assert_true(personad_default_socket(path, sizeof path));
    assert_string_equal(path, "/a/socket");
    assert_false(personad_default_socket(path, 4));
    assert_int_equal(unsetenv("PERSONAD_SOCKET"), 0);
    assert_int_equal(setenv("XDG_RUNTIME_DIR", "/run/me", 1), 0);
    assert_true(personad_default_socket(path, sizeof path));
    assert_string_equal(path, "/run/me/personad/personad.sock");
    assert_int_equal(unsetenv("XDG_RUNTIME_DIR"), 0);
    assert_true(personad_default_socket(path, sizeof path));
    assert_memory_equal(path, "/tmp/personad-", 14);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_frame_may_come_in_crumbs, script_begin),
        cmocka_unit_test_setup(a_frame_past_the_bound_is_an_error_that_stays, script_begin),
        cmocka_unit_test_setup(what_is_no_message_is_an_error, script_begin),
        cmocka_unit_test_setup(a_request_of_many_bytes_goes_out_whole, script_begin),
        cmocka_unit_test_setup(a_request_that_no_frame_holds_is_not_sent, script_begin),
        cmocka_unit_test_setup(an_error_becomes_a_code_and_a_sentence, script_begin),
        cmocka_unit_test_setup(another_kind_of_answer_is_an_error, script_begin),
        cmocka_unit_test_setup(unknown_fields_and_kinds_are_tolerated, script_begin),
        cmocka_unit_test_setup(events_wait_while_a_call_is_answered, script_begin),
        cmocka_unit_test_setup(arrays_of_different_lengths_are_read_as_far_as_all_go, script_begin),
        cmocka_unit_test_setup(a_connection_that_ends_in_a_frame_is_closed, script_begin),
        cmocka_unit_test_setup(what_came_before_the_end_is_handed_out_first, script_begin),
        cmocka_unit_test_setup(the_reason_for_a_closed_connection_is_told, script_begin),
        cmocka_unit_test_setup(nobody_and_somebody_else_are_no_daemon, script_begin),
        cmocka_unit_test_setup(a_wait_ends_when_its_time_has_passed, script_begin),
        cmocka_unit_test_setup(a_signal_ends_a_wait_but_no_call, script_begin),
        cmocka_unit_test_setup(the_default_socket_follows_the_environment, script_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
