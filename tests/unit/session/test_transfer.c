/* Goal: files come in and go out within their bounds, belong to the connection that began them and
 * go with it, and what is wrong with one is said.
 * Method: a store over a fake engine. Files are written here, from a few records or from many.
 * Twin: what is not closed stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "limits.h"
#include "session/state.h"
#include "unit/session/store_rig.h"

enum { CONNECTION = 1, NODE_COUNT = 4000, FILE_BYTES_MAX = 1024 * 1024 };

static struct rig rig;
static uint64_t session;
static char file[FILE_BYTES_MAX];
static size_t file_size;

#define HEAD                                                           \
    "{\"record\":\"session\",\"format\":\"personad\",\"version\":1}\n" \
    "{\"record\":\"member\",\"name\":\"Ann\"}\n"
#define PLAIN "{\"record\":\"member\",\"name\":\"plain\",\"persona\":\"plain\"}\n"
#define NODE "{\"record\":\"node\",\"opens_turn\":true,\"text\":\"a word\"}\n"
#define END(count) "{\"record\":\"end\",\"nodes\":" count "}\n"

static int make(void **state)
{
    (void)state;
    rig_restart(&rig, "chatml");
    rig.watch = NULL;
    session = rig_open_session(
        &rig,
        rig_put(&rig, "{\"name\":\"plain\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}"));
    return 0;
}

static void write_file(const char *text)
{
    file_size = strlen(text);
    assert_true(file_size < sizeof(file));
    memcpy(file, text, file_size);
}

/* So many nodes; last: a line in front of the end, or none. */
static void write_large(uint32_t count, const char *last)
{
    file_size = (size_t)snprintf(file, sizeof(file), "%s", HEAD PLAIN);
    for (uint32_t i = 0; i < count; i++) {
        file_size += (size_t)snprintf(file + file_size, sizeof(file) - file_size, "%s", NODE);
    }
    file_size += (size_t)snprintf(file + file_size, sizeof(file) - file_size,
                                  "%s{\"record\":\"end\",\"nodes\":%u}\n", last, count);
    assert_true(file_size < sizeof(file));
}

static struct request import_of(uint64_t transfer, bool end)
{
    struct request request = rig_request(REQUEST_SESSION_IMPORT);

    request.u.session_import = (struct request_import){
        .transfer = transfer, .data = bytes_of(file, file_size), .end = end};
    return request;
}

static struct request export_of(uint64_t id, uint64_t transfer)
{
    struct request request = rig_request(REQUEST_SESSION_EXPORT);

    request.u.session_export.session = id;
    request.u.session_export.transfer = transfer;
    return request;
}

static void execute_at(struct request request, uint64_t connection)
{
    const struct reply_to to = {connection, ++rig.next_request};

    store_execute(rig.store, &request, to);
}

/* Begins one with what needs no more than a line. */
static void begin_at(uint64_t connection, uint32_t uid)
{
    struct request request;

    write_file("\n");
    request = import_of(0, false);
    request.uid = uid;
    execute_at(request, connection);
}

static void assert_refused(enum status status, const char *words)
{
    if (rig.reply.type != REPLY_ERROR || rig.reply.error.status != status ||
        strstr(rig.reply.error.text, words) == NULL) {
        fail_msg("wanted '%s', got %d: %d '%s'", words, rig.reply.type, rig.reply.error.status,
                 rig.reply.error.text);
    }
}

static uint32_t transfer_count(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        count += rig.store->transfers[i] != NULL;
    }
    return count;
}

/* ---- whose they are ---- */

static void test_transfers_have_bounds(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        begin_at(CONNECTION, RIG_UID + i / TRANSFER_PER_USER_COUNT_MAX);
        assert_int_equal(rig.reply.type, REPLY_IMPORT);
        if (i + 1 == TRANSFER_PER_USER_COUNT_MAX) {
            begin_at(CONNECTION, RIG_UID);
            assert_refused(STATUS_LIMIT, "8 exports and imports of yours are under way");
            assert_string_equal(rig.reply.error.limit_name, "TRANSFER_PER_USER_COUNT_MAX");
        }
    }
    begin_at(CONNECTION, RIG_UID + 99);
    assert_refused(STATUS_LIMIT, "32 exports and imports are under way; try again");
    assert_string_equal(rig.reply.error.limit_name, "TRANSFER_COUNT_MAX");
}

static void test_transfers_go_with_their_connection(void **state)
{
    const int64_t live = (int64_t)memory_live_count();

    (void)state;
    for (uint32_t i = 0; i < 5; i++) {
        begin_at(CONNECTION + i % 2, RIG_UID);
    }
    assert_int_equal(transfer_count(), 5);
    store_connection_closed(rig.store, CONNECTION + 9); /* the twin: another one's */
    assert_int_equal(transfer_count(), 5);
    store_connection_closed(rig.store, CONNECTION);
    assert_int_equal(transfer_count(), 2);
    store_connection_closed(rig.store, CONNECTION + 1);
    assert_int_equal(transfer_count(), 0);
    assert_int_equal(memory_live_count(), live);
}

static void close_connection(struct rig *of)
{
    store_connection_closed(of->store, CONNECTION);
}

static void test_a_connection_may_close_while_it_is_answered(void **state)
{
    (void)state;
    rig.watch = close_connection;
    begin_at(CONNECTION, RIG_UID);
    assert_int_equal(transfer_count(), 0);
    rig_execute(&rig, export_of(session, 0));
    assert_int_equal(transfer_count(), 0);
    write_file("no json\n");
    rig_execute(&rig, import_of(0, true));
    write_file(HEAD PLAIN NODE END("1"));
    rig_execute(&rig, import_of(0, true)); /* it is closed with the answer, and not before */
    for (int i = 0; i < 10 && transfer_count() > 0; i++) {
        rig_settle(&rig);
    }
    assert_int_equal(transfer_count(), 0);
}

/* Also while the journal reads for it. */
static void test_an_export_goes_with_its_connection(void **state)
{
    const uint32_t replies = rig.reply_count;

    (void)state;
    execute_at(export_of(session, 0), CONNECTION);
    assert_int_equal(transfer_count(), 1);
    store_connection_closed(rig.store, CONNECTION);
    assert_int_equal(transfer_count(), 0);
    rig_settle(&rig);
    assert_int_equal(rig.reply_count, replies);
}

static void test_a_transfer_is_found_by_its_connection_user_and_kind(void **state)
{
    struct request request;
    const uint64_t id = rig.store->last_transfer_id + 1;

    (void)state;
    begin_at(CONNECTION, RIG_UID);
    execute_at(import_of(id, false), CONNECTION + 1);
    assert_refused(STATUS_NOT_FOUND, "there is no import");
    request = import_of(id, false);
    request.uid = RIG_UID + 1;
    execute_at(request, CONNECTION);
    assert_refused(STATUS_NOT_FOUND, "there is no import");
    execute_at(export_of(0, id), CONNECTION);
    assert_refused(STATUS_NOT_FOUND, "there is no export");
    execute_at(import_of(id, false), CONNECTION); /* the twin */
    assert_int_equal(rig.reply.type, REPLY_IMPORT);
    execute_at(export_of(session, 0), CONNECTION);
    execute_at(export_of(0, id + 1), CONNECTION);
    assert_refused(STATUS_CONFLICT, "has not begun yet: await its reply");
    execute_at(export_of(session + 99, 0), CONNECTION);
    assert_refused(STATUS_NOT_FOUND, "");
}

static void test_a_file_has_one_last_piece(void **state)
{
    const uint64_t id = rig.store->last_transfer_id + 1;

    (void)state;
    write_large(NODE_COUNT, "");
    execute_at(import_of(0, true), CONNECTION);
    write_file("\n");
    execute_at(import_of(id, true), CONNECTION);
    assert_refused(STATUS_CONFLICT, "has its last piece already");
    rig_settle(&rig);
    for (int i = 0; i < 100 && transfer_count() > 0; i++) {
        rig_settle(&rig);
    }
    assert_int_equal(rig.reply.type, REPLY_IMPORT); /* it goes on all the same */
}

/* ---- what is wrong ---- */

static void test_what_makes_no_session_is_named(void **state)
{
    static const struct {
        const char *text;
        enum status status;
        const char *words;
    } wrongs[] = {
        {HEAD NODE END("1"), STATUS_BAD_INPUT, "are not a human and then at least one persona"},
        {HEAD END("0"), STATUS_BAD_INPUT, "are not a human and then at least one persona"},
        {HEAD "{\"record\":\"member\",\"name\":\"X\",\"persona\":\"nobody\"}\n" END("0"),
         STATUS_NOT_FOUND, "nobody"},
        {HEAD "{\"record\":\"member\",\"name\":\"X\",\"persona\":\"X\",\"card\":\"{}\"}\n" END("0"),
         STATUS_BAD_INPUT, "name"},
        {HEAD PLAIN PLAIN "{\"record\":\"member\",\"name\":\"Ann\"}\n" END("0"), STATUS_CONFLICT,
         "Ann"},
        {"{\"record\":\"session\",\"format\":\"personad\",\"version\":1,\"context_tokens\":9999}\n"
         "{\"record\":\"member\",\"name\":\"Ann\"}\n" PLAIN END("0"),
         STATUS_LIMIT, "a context of 9999 tokens, at most 2048 are served"},
        {"{\"record\":\"session\",\"format\":\"personad\",\"version\":1,\"joint\":true,"
         "\"numerics\":"
         "\"n\",\"model\":\"00000000000000000000000000000000000000000000000000000000000000ff\"}\n"
         "{\"record\":\"member\",\"name\":\"Ann\"}\n" PLAIN END("0"),
         STATUS_UNSUPPORTED, "the file has a joint cast without its prompts"},
        {"{\"record\":\"session\",\"format\":\"personad\",\"version\":1,\"numerics\":"
         "\"n\",\"model\":\"00000000000000000000000000000000000000000000000000000000000000ff\"}\n"
         "{\"record\":\"member\",\"name\":\"Ann\"}\n" PLAIN END("0"),
         STATUS_UNSUPPORTED, "the file hides the prompt of persona \"plain\""},
        {"{\"record\":\"session\",\"format\":\"personad\",\"version\":1,\"numerics\":"
         "\"n\",\"model\":\"00000000000000000000000000000000000000000000000000000000000000ff\"}\n"
         "{\"record\":\"member\",\"name\":\"Ann\"}\n"
         "{\"record\":\"member\",\"name\":\"plain\",\"persona\":\"plain\",\"prompt\":{\"format\":"
         "\"plain\",\"character\":\"plain\",\"user\":\"Ann\",\"ids\":[],\"greetings\":[]}}\n" NODE
             END("1"),
         STATUS_UNSUPPORTED, "a text comes without its tokens, and the file names another model"},
        {HEAD PLAIN NODE
         "{\"record\":\"bookmark\",\"name\":\"b\",\"node\":1,\"offset\":99}\n" END("1"),
         STATUS_BAD_INPUT, "bookmark \"b\" lies behind the end of its node"},
        {HEAD PLAIN NODE "{\"record\":\"note\",\"node\":1,\"offset\":99,\"text\":\"t\"}\n" END("1"),
         STATUS_BAD_INPUT, "a note at node 1 lies behind its end"},
        {HEAD PLAIN NODE "{\"record\":\"node\",\"offset\":99,\"text\":\"t\"}\n" END("2"),
         STATUS_BAD_INPUT, "the file makes no tree (its node 1 is "},
        {HEAD PLAIN "{\"record\":\"node\",\"content\":[2147483647],\"text\":\"t\"}\n" END("1"),
         STATUS_BAD_INPUT, "a token, a text or a size of node"},
        {HEAD PLAIN "{\"record\":\"node\",\"ordinal\":0,\"text\":\"t\"}\n"
                    "{\"record\":\"node\",\"parent\":0,\"ordinal\":0,\"text\":\"u\"}\n" END("2"),
         STATUS_BAD_INPUT, "the ordinal of node"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
        write_file(wrongs[i].text);
        rig_execute(&rig, import_of(0, true));
        assert_refused(wrongs[i].status, wrongs[i].words);
        assert_int_equal(transfer_count(), 0);
    }
}

static void test_bookmarks_have_a_bound(void **state)
{
    (void)state;
    file_size = (size_t)snprintf(file, sizeof(file), "%s", HEAD PLAIN NODE);
    for (int i = 0; i <= BOOKMARK_COUNT_MAX; i++) {
        file_size +=
            (size_t)snprintf(file + file_size, sizeof(file) - file_size,
                             "{\"record\":\"bookmark\",\"name\":\"%06d\",\"node\":1}\n", i);
    }
    file_size += (size_t)snprintf(file + file_size, sizeof(file) - file_size, "%s", END("1"));
    rig_execute(&rig, import_of(0, true));
    assert_refused(STATUS_LIMIT, "the session has 4097 bookmarks, at most 4096 are kept");
    assert_string_equal(rig.reply.error.limit_name, "BOOKMARK_COUNT_MAX");
}

static int set_up(void **state)
{
    (void)state;
    log_level_set(LOG_ERROR);
    rig_init(&rig, "smollm", "chatml");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup(name, make)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_transfers_have_bounds),
        TEST(test_transfers_go_with_their_connection),
        TEST(test_a_connection_may_close_while_it_is_answered),
        TEST(test_an_export_goes_with_its_connection),
        TEST(test_a_transfer_is_found_by_its_connection_user_and_kind),
        TEST(test_a_file_has_one_last_piece),
        TEST(test_what_makes_no_session_is_named),
        TEST(test_bookmarks_have_a_bound),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
