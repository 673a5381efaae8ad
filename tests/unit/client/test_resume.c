/* Goal: a daemon that goes away and comes back costs the program nothing: streams go on where they
 * were, calls are answered, nothing is asked for twice under two keys, nothing is shown twice.
 * Method: a scripted daemon that closes the connection in the middle and then tells the whole
 * stream again, as the real one answers a repeated client key. What goes to the program is put
 * together and compared by memcmp; with what is seen forgotten (the twin) it must differ.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "clients/c/src/resume.h"
#include "support/fake_daemon.h"

enum { FRAME_BYTES_MAX = 1 << 20, STREAM_ID = 2, NODE = 9, RESUME_MS = 10000, WAIT_MS = 10000 };

static const char whole[] = "One two three four.";
static struct fake_daemon fake;
static int lost_count, back_count;

static void on_change(void *context, bool is_back)
{
    (void)context;
    lost_count += is_back ? 0 : 1;
    back_count += is_back ? 1 : 0;
}

static void add_reply(uint64_t id, bool more, Personad__V1__Reply *reply)
{
    uint8_t body[8192];
    reply->has_id = reply->has_more = true;
    reply->id = id;
    reply->more = more;
    fake_daemon_add_frame(&fake, FAKE_DAEMON_SEND, body, personad__v1__reply__pack(reply, body));
}

static void add_hello(uint64_t id)
{
    Personad__V1__HelloReply hello = PERSONAD__V1__HELLO_REPLY__INIT;
    hello.has_frame_bytes_max = true;
    hello.frame_bytes_max = FRAME_BYTES_MAX;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_HELLO;
    reply.hello = &hello;
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
    add_reply(id, false, &reply);
}

static void add_created(void)
{
    Personad__V1__NodeInfo node = PERSONAD__V1__NODE_INFO__INIT;
    node.has_id = true;
    node.id = NODE;
    Personad__V1__NodeInfo *nodes[] = {&node};
    Personad__V1__CreatedReply created = PERSONAD__V1__CREATED_REPLY__INIT;
    created.n_nodes = 1;
    created.nodes = nodes;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_CREATED;
    reply.created = &created;
    add_reply(STREAM_ID, true, &reply);
}

/* A token a byte, each with its numbers. */
static void add_tokens(uint32_t from, uint32_t to)
{
    uint32_t ids[sizeof whole];
    float values[sizeof whole];
    for (uint32_t i = from; i < to; i++) {
        ids[i - from] = i;
        values[i - from] = -(float)i;
    }
    Personad__V1__Numbers numbers = PERSONAD__V1__NUMBERS__INIT;
    numbers.has_first = true;
    numbers.first = from;
    numbers.n_tokens = numbers.n_logprobs = to - from;
    numbers.n_sampler_logprobs = numbers.n_entropies = to - from;
    numbers.tokens = ids;
    numbers.logprobs = numbers.sampler_logprobs = numbers.entropies = values;
    Personad__V1__TokensReply tokens = PERSONAD__V1__TOKENS_REPLY__INIT;
    tokens.has_node = tokens.has_first_token = tokens.has_token_count = true;
    tokens.has_first_byte = tokens.has_text = true;
    tokens.node = NODE;
    tokens.first_token = tokens.first_byte = from;
    tokens.token_count = to - from;
    tokens.text = (ProtobufCBinaryData){to - from, (uint8_t *)whole + from};
    tokens.numbers = &numbers;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_TOKENS;
    reply.tokens = &tokens;
    add_reply(STREAM_ID, true, &reply);
}

static void add_end(void)
{
    Personad__V1__NodeInfo node = PERSONAD__V1__NODE_INFO__INIT;
    node.has_id = true;
    node.id = NODE;
    Personad__V1__FinishedReply finished = PERSONAD__V1__FINISHED_REPLY__INIT;
    finished.node = &node;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_FINISHED;
    reply.finished = &finished;
    add_reply(STREAM_ID, true, &reply);
    Personad__V1__DoneReply done = PERSONAD__V1__DONE_REPLY__INIT;
    Personad__V1__Reply last = PERSONAD__V1__REPLY__INIT;
    last.result_case = PERSONAD__V1__REPLY__RESULT_DONE;
    last.done = &done;
    add_reply(STREAM_ID, false, &last);
}

static void add_error(uint64_t id, Personad__V1__ErrorCode code)
{
    Personad__V1__Error error = PERSONAD__V1__ERROR__INIT;
    error.has_code = true;
    error.code = code;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_ERROR;
    reply.error = &error;
    add_reply(id, false, &reply);
}

static void add_info(uint64_t id)
{
    Personad__V1__InfoReply info = PERSONAD__V1__INFO_REPLY__INIT;
    info.has_vocabulary_count = true;
    info.vocabulary_count = 4711;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_INFO;
    reply.info = &info;
    add_reply(id, false, &reply);
}

static void add_hear(void)
{
    fake_daemon_add(&fake, FAKE_DAEMON_HEAR, 0);
}

/* It goes away, comes back, and hears the next request. */
static void add_return(uint64_t hello_id)
{
    fake_daemon_add(&fake, FAKE_DAEMON_RESTART, 0);
    add_hello(hello_id);
    add_hear();
}

/* A stream as far as its first four tokens. */
static void add_beginning(void)
{
    add_hear();
    add_created();
    add_tokens(0, 4);
}

static void add_whole_stream(void)
{
    add_created();
    add_tokens(0, sizeof whole - 1);
    add_end();
}

static int script_begin(void **state)
{
    (void)state;
    fake_daemon_init(&fake);
    lost_count = back_count = 0;
    add_hello(1);
    return 0;
}

static personad_client *connected(int resume_ms)
{
    struct personad_error error;
    fake_daemon_start(&fake);
    personad_client *client = personad_connect(fake.path, &error);
    assert_non_null(client);
    personad_resume(client, resume_ms, on_change, NULL);
    return client;
}

/* What a program gets of one stream. */
struct got {
    char text[4 * sizeof whole];
    size_t text_size;
    uint32_t ids[4 * sizeof whole];
    size_t id_count;
    int created_count, finished_count, done_count;
};

static void got_add(struct got *got, const struct personad_event *event)
{
    got->created_count += event->type == PERSONAD_EVENT_CREATED ? 1 : 0;
    got->finished_count += event->type == PERSONAD_EVENT_FINISHED ? 1 : 0;
    got->done_count += event->type == PERSONAD_EVENT_DONE ? 1 : 0;
    if (event->type != PERSONAD_EVENT_TOKENS) {
        return;
    }
    assert_int_equal(event->first_byte, got->text_size);
    assert_int_equal(event->first_token, got->id_count);
    assert_int_equal(event->token_count, event->numbers.count);
    memcpy(got->text + got->text_size, event->text.data, event->text.size);
    got->text_size += event->text.size;
    for (size_t i = 0; i < event->numbers.count; i++) {
        assert_true(event->numbers.logprobs[i] == -(float)event->numbers.tokens[i]);
        got->ids[got->id_count++] = event->numbers.tokens[i];
    }
}

static void stream_read(personad_client *client, struct got *got)
{
    bool last = false;
    memset(got, 0, sizeof *got);
    while (!last) {
        const struct personad_event *event = NULL;
        assert_int_equal(personad_next(client, WAIT_MS, &event), PERSONAD_OK);
        assert_int_equal(event->request, STREAM_ID);
        got_add(got, event);
        last = event->last;
    }
}

static void assert_whole(const struct got *got)
{
    const size_t size = sizeof whole - 1;
    assert_int_equal(got->text_size, size);
    assert_memory_equal(got->text, whole, size);
    assert_int_equal(got->id_count, size);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(got->ids[i], i);
    }
    assert_int_equal(got->created_count, 1);
    assert_int_equal(got->finished_count, 1);
    assert_int_equal(got->done_count, 1);
}

static uint64_t ask(personad_client *client)
{
    const struct personad_text text = {"Hello", 5};
    const struct personad_generation generation = {.session = 1, .numbers = true};
    return personad_say(client, text, 0, &generation);
}

/* The program asks once, and gets the whole stream once. */
static void assert_stream_is_whole(void)
{
    struct got got;
    personad_client *client = connected(RESUME_MS);
    assert_int_equal(ask(client), STREAM_ID);
    stream_read(client, &got);
    assert_whole(&got);
    assert_null(client->streams);
    personad_close(client);
    fake_daemon_finish(&fake);
}

/* The k-th request that the daemon heard. */
static Personad__V1__Request *heard(size_t k)
{
    Personad__V1__Request *request =
        personad__v1__request__unpack(NULL, fake.heard_sizes[k], fake.heard[k]);
    assert_non_null(request);
    return request;
}

/* ---------------------------------------------------------------- streams */

static void script_of_a_cut_stream(void)
{
    add_beginning();
    add_tokens(4, 9);
    add_return(STREAM_ID + 1);
    add_created();
    add_tokens(0, 7);
    add_tokens(7, 12);
    add_tokens(12, sizeof whole - 1);
    add_end();
}

static void a_stream_goes_on_where_it_was(void **state)
{
    (void)state;
    script_of_a_cut_stream();
    assert_stream_is_whole();
    assert_int_equal(lost_count, 1);
    assert_int_equal(back_count, 1);
    assert_int_equal(fake.heard_count, 4);
    Personad__V1__Request *first = heard(1), *again = heard(3);
    assert_int_equal(fake.heard_sizes[1], fake.heard_sizes[3]);
    assert_memory_equal(fake.heard[1], fake.heard[3], fake.heard_sizes[1]);
    assert_true(first->client_key.len > 16 && first->client_key.len <= 64);
    personad__v1__request__free_unpacked(first, NULL);
    personad__v1__request__free_unpacked(again, NULL);
}

/* The twin: without what it has seen, the program would read the beginning twice. */
static void what_was_seen_must_be_remembered(void **state)
{
    (void)state;
    script_of_a_cut_stream();
    personad_client *client = connected(RESUME_MS);
    assert_int_equal(ask(client), STREAM_ID);
    size_t size = 0;
    bool last = false;
    while (!last) {
        const struct personad_event *event = NULL;
        assert_int_equal(personad_next(client, WAIT_MS, &event), PERSONAD_OK);
        size += event->type == PERSONAD_EVENT_TOKENS ? event->text.size : 0;
        last = event->last;
        if (client->streams != NULL) {
            client->streams->node_count = 0;
        }
    }
    assert_true(size > sizeof whole - 1);
    personad_close(client);
    fake_daemon_finish(&fake);
}

static void a_stream_that_was_not_answered_is_asked_for_again(void **state)
{
    (void)state;
    add_hear();
    fake_daemon_add(&fake, FAKE_DAEMON_RESTART, 0);
    add_hear(); /* a Hello, and down again */
    add_return(STREAM_ID + 2);
    add_whole_stream();
    assert_stream_is_whole();
}

static void a_daemon_that_stops_is_no_end(void **state)
{
    (void)state;
    add_beginning();
    add_error(STREAM_ID, PERSONAD__V1__ERROR_CODE__STOPPING);
    add_error(0, PERSONAD__V1__ERROR_CODE__STOPPING);
    add_return(STREAM_ID + 1);
    add_whole_stream();
    assert_stream_is_whole();
}

/* What a daemon says of a reply that goes on after its next start. */
static void add_interrupted(void)
{
    Personad__V1__Error error = PERSONAD__V1__ERROR__INIT;
    error.has_code = true;
    error.code = PERSONAD__V1__ERROR_CODE__STOPPING;
    Personad__V1__NodeInfo node = PERSONAD__V1__NODE_INFO__INIT;
    node.has_id = node.has_finish = true;
    node.id = NODE;
    node.finish = PERSONAD__V1__FINISH__INTERRUPTED;
    node.error = &error;
    Personad__V1__FinishedReply finished = PERSONAD__V1__FINISHED_REPLY__INIT;
    finished.node = &node;
    Personad__V1__Reply reply = PERSONAD__V1__REPLY__INIT;
    reply.result_case = PERSONAD__V1__REPLY__RESULT_FINISHED;
    reply.finished = &finished;
    add_reply(STREAM_ID, true, &reply);
    Personad__V1__DoneReply done = PERSONAD__V1__DONE_REPLY__INIT;
    Personad__V1__Reply last = PERSONAD__V1__REPLY__INIT;
    last.result_case = PERSONAD__V1__REPLY__RESULT_DONE;
    last.done = &done;
    add_reply(STREAM_ID, false, &last);
}

static void an_interrupted_reply_goes_on(void **state)
{
    (void)state;
    add_beginning();
    add_interrupted();
    add_return(STREAM_ID + 1);
    add_whole_stream();
    assert_stream_is_whole();
}

static void an_error_ends_a_stream(void **state)
{
    (void)state;
    add_hear();
    add_error(STREAM_ID, PERSONAD__V1__ERROR_CODE__NOT_FOUND);
    personad_client *client = connected(RESUME_MS);
    assert_int_equal(ask(client), STREAM_ID);
    const struct personad_event *event = NULL;
    assert_int_equal(personad_next(client, WAIT_MS, &event), PERSONAD_OK);
    assert_int_equal(event->error.code, PERSONAD_NOT_FOUND);
    assert_null(client->streams);
    personad_close(client);
    fake_daemon_finish(&fake);
}

/* ---------------------------------------------------------------- calls */

static void a_call_is_answered_by_the_next_daemon(void **state)
{
    (void)state;
    add_hear();
    add_return(3);
    add_error(2, PERSONAD__V1__ERROR_CODE__STOPPING);
    add_return(4);
    add_info(2);
    personad_client *client = connected(RESUME_MS);
    const struct personad_info *info = NULL;
    assert_int_equal(personad_info(client, &info), PERSONAD_OK);
    assert_int_equal(info->vocabulary_count, 4711);
    personad_close(client);
    fake_daemon_finish(&fake);
    assert_int_equal(fake.heard_sizes[1], fake.heard_sizes[5]);
    assert_memory_equal(fake.heard[1], fake.heard[5], fake.heard_sizes[1]);
}

static void nobody_is_waited_for_unless_asked(void **state)
{
    (void)state;
    add_hear();
    personad_client *client = connected(0);
    const struct personad_info *info = NULL;
    assert_int_equal(personad_info(client, &info), PERSONAD_CLOSED);
    assert_int_equal(lost_count, 0);
    personad_close(client);
    fake_daemon_finish(&fake);
    Personad__V1__Request *request = heard(1);
    assert_false(request->has_client_key);
    personad__v1__request__free_unpacked(request, NULL);
}

static void who_does_not_come_back_is_given_up(void **state)
{
    (void)state;
    add_hear();
    personad_client *client = connected(300);
    assert_int_equal(ask(client), STREAM_ID);
    fake_daemon_finish(&fake);
    const struct personad_event *event = NULL;
    assert_int_equal(personad_next(client, 50, &event), PERSONAD_AGAIN);
    int code = PERSONAD_AGAIN;
    while (code == PERSONAD_AGAIN) {
        code = personad_next(client, 50, &event);
    }
    assert_int_equal(code, PERSONAD_CLOSED);
    assert_non_null(strstr(personad_last_error(client)->text, "did not come back"));
    assert_int_equal(lost_count, 1);
    assert_int_equal(back_count, 0);
    personad_close(client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_stream_goes_on_where_it_was, script_begin),
        cmocka_unit_test_setup(what_was_seen_must_be_remembered, script_begin),
        cmocka_unit_test_setup(a_stream_that_was_not_answered_is_asked_for_again, script_begin),
        cmocka_unit_test_setup(a_daemon_that_stops_is_no_end, script_begin),
        cmocka_unit_test_setup(an_interrupted_reply_goes_on, script_begin),
        cmocka_unit_test_setup(an_error_ends_a_stream, script_begin),
        cmocka_unit_test_setup(a_call_is_answered_by_the_next_daemon, script_begin),
        cmocka_unit_test_setup(nobody_is_waited_for_unless_asked, script_begin),
        cmocka_unit_test_setup(who_does_not_come_back_is_given_up, script_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
