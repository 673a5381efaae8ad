/* Goal: files come in and go out within their bounds, belong to the connection that began them and
 * go with it, and what is wrong is said; a large one is made in slices, between which others are
 * served and nobody sees what is not there yet; no failing allocation leaves anything behind.
 * Method: a store over a fake engine. Files are written here, from a few records or from many;
 * between slices other requests are made. Twins: a small file is made in one slice a step, and what
 * is not closed stays.
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

enum { CONNECTION = 1, NODE_COUNT = 4000, SURVIVORS_MAX = 3000, FILE_BYTES_MAX = 1024 * 1024 };

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

/* ---- pages ---- */

static const uint8_t *page_starts[8];
static uint32_t page_count;

static void note_page(struct rig *of)
{
    if (page_count < 8) {
        page_starts[page_count++] = of->file_at;
    }
}

/* What was written is not moved for each page that is cut from it. */
static void test_pages_lie_behind_one_another(void **state)
{
    enum { CARD_COUNT = 5, NOTE_BYTES = 900 * 1024 };
    static char card[NOTE_BYTES + 128];
    struct request_member cast[CARD_COUNT];
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    uint64_t transfer;

    (void)state;
    for (int i = 0; i < CARD_COUNT; i++) {
        const int at = snprintf(card, sizeof(card), "{\"name\":\"P%d\",\"creator_notes\":\"", i);

        memset(card + at, 'x', NOTE_BYTES);
        (void)snprintf(card + at + NOTE_BYTES, sizeof(card) - (size_t)at - NOTE_BYTES, "\"}");
        cast[i] = (struct request_member){.persona = rig_put(&rig, card)};
    }
    open.u.session_open = (struct request_session_open){
        .persona = cast[0].persona, .members = cast + 1, .member_count = CARD_COUNT - 1};
    rig_execute(&rig, open);
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    page_count = 0;
    transfer = rig.store->last_transfer_id + 1;
    rig.watch = note_page;
    rig_execute(&rig, export_of(rig.reply.id, 0));
    assert_int_equal(rig.reply.type, REPLY_EXPORT);
    for (int i = 0; i < 2; i++) {
        rig_execute(&rig, export_of(0, transfer));
        assert_false(rig.reply.end);
    }
    assert_int_equal(page_count, 3);
    assert_ptr_equal(page_starts[1], page_starts[0] + IMPORT_PIECE_BYTES_MAX);
    assert_ptr_equal(page_starts[2], page_starts[1] + IMPORT_PIECE_BYTES_MAX);
    store_connection_closed(rig.store, CONNECTION);
}

/* ---- slices ---- */

static bool is_known(uint64_t node)
{
    struct node_view view;
    struct error error = {0};

    return store_node_view(rig.store, RIG_UID, node, &error, &view) == STATUS_OK;
}

/* A token of another session comes in each pump, while the file is made. */
static void test_others_are_served_while_a_large_file_is_made(void **state)
{
    const uint64_t first = rig.store->last_node_id + 1;
    uint32_t replies;
    uint32_t slices = 0;
    uint32_t branch;

    (void)state;
    rig_execute(&rig, rig_append(session, "Once"));
    rig_execute(&rig, rig_generate(session, 1));
    branch = rig.engine->branch_count - 1;
    write_large(NODE_COUNT, "");
    replies = rig.reply_count;
    execute_at(import_of(0, true), CONNECTION);
    for (; store_has_work(rig.store); slices++) {
        const uint32_t progress = rig.progress_count;

        assert_false(store_is_idle(rig.store));
        if (slices < 100) {
            fake_engine_emit_text(rig.engine, branch, "a");
        }
        store_pump(rig.store);
        assert_true(slices >= 100 || rig.progress_count > progress);
        assert_int_equal(rig.reply_count, replies);
        assert_false(is_known(first + 2 + NODE_COUNT / 2));
    }
    /* Each node at least once when it is settled, made, checked and taken down. */
    assert_true(slices > 20);
    rig_settle(&rig);
    for (int i = 0; i < 100 && rig.reply_count == replies; i++) {
        rig_settle(&rig);
    }
    assert_int_equal(rig.reply.type, REPLY_IMPORT);
    fake_engine_end(rig.engine, branch, FINISH_LENGTH, STATUS_OK);
    rig_settle(&rig);
}

/* Two of them take turns. */
static void test_a_small_file_does_not_wait_for_a_large_one(void **state)
{
    (void)state;
    write_large(NODE_COUNT, "");
    execute_at(import_of(0, true), CONNECTION);
    write_file(HEAD PLAIN NODE END("1"));
    execute_at(import_of(0, true), CONNECTION + 1);
    for (int i = 0; i < 20; i++) {
        journal_step(rig.journal);
        store_pump(rig.store);
    }
    assert_true(store_has_work(rig.store));
    assert_int_equal(rig.reply.type, REPLY_IMPORT);
    assert_int_equal(transfer_count(), 1);
    rig_settle(&rig);
}

static void test_what_is_made_goes_with_its_connection(void **state)
{
    const int64_t live = (int64_t)memory_live_count();
    const uint32_t sessions = rig.store->sessions.count;

    (void)state;
    write_large(NODE_COUNT, "");
    for (int slices = 0; slices < 4 * NODE_COUNT / IMPORT_SLICE_WORK; slices += 3) {
        execute_at(import_of(0, true), CONNECTION);
        for (int i = 0; i < slices; i++) {
            assert_true(store_has_work(rig.store));
            store_pump(rig.store);
        }
        store_connection_closed(rig.store, CONNECTION);
        for (int i = 0; store_has_work(rig.store); i++) {
            assert_true(i < 200);
            store_pump(rig.store);
        }
        assert_int_equal(transfer_count(), 0);
        assert_int_equal(memory_live_count(), live);
        assert_int_equal(rig.store->sessions.count, sessions);
    }
}

static void test_stopping_ends_what_is_made(void **state)
{
    (void)state;
    write_large(NODE_COUNT, "");
    execute_at(import_of(0, true), CONNECTION);
    store_pump(rig.store);
    store_stop(rig.store);
    rig_settle(&rig);
    assert_refused(STATUS_STOPPING, "the daemon is stopping: nothing was imported");
    assert_true(store_is_idle(rig.store));
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

/* ---- ordinals ---- */

/* The end of a node is a place, whether it is said by its number or not at all. */
static void test_ordinals_are_counted_by_the_place(void **state)
{
    static const char *const orders[] = {"", ",\"offset\":%u"};
    struct request walk = rig_request(REQUEST_WALK);
    uint32_t end = 0;
    uint32_t found = 0;

    (void)state;
    rig_execute(&rig, rig_append(session, "a word"));
    end = rig_view(&rig, rig.reply.nodes[0].id).content_count;
    for (int order = 0; order < 2; order++) {
        char more[2][32];

        for (int i = 0; i < 2; i++) {
            (void)snprintf(more[i], sizeof(more[i]), i == order ? orders[1] : orders[0], end);
        }
        file_size = (size_t)snprintf(
            file, sizeof(file),
            HEAD PLAIN NODE "{\"record\":\"node\",\"parent\":1%s,\"text\":\"b\"}\n"
                            "{\"record\":\"node\",\"parent\":1%s,\"text\":\"c\"}\n"
                            "{\"record\":\"node\",\"parent\":1,\"ordinal\":7,\"text\":\"d\"}\n"
                            "{\"record\":\"node\",\"parent\":1%s,\"text\":\"e\"}\n" END("5"),
            more[0], more[1], more[0]);
        rig_execute(&rig, import_of(0, true));
        for (int i = 0; i < 10; i++) {
            rig_settle(&rig);
        }
        if (rig.reply.type != REPLY_IMPORT) {
            fail_msg("%s", rig.reply.error.text);
        }
        walk.u.walk = (struct request_walk){.session = rig.store->last_session_id,
                                            .has_position = true,
                                            .what = WALK_SUBTREE,
                                            .count = 10};
        assert_int_equal(store_prepare(rig.store, &walk, &rig.reply.error), STATUS_AGAIN);
        rig_settle(&rig);
        rig_execute(&rig, walk);
        assert_int_equal(rig.reply.node_count, 5);
        found = 0;
        for (uint32_t i = 1; i < 5; i++) {
            found |= 1u << rig.reply.nodes[i].ordinal;
            assert_int_equal(rig.reply.nodes[i].parent.offset, end);
        }
        assert_int_equal(found, 1u << 0 | 1u << 1 | 1u << 7 | 1u << 8);
    }
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

/* ---- faults ---- */

/* Of the slices, the storing and the answer; what fails leaves nothing, or a whole session. */
static void test_every_allocation_behind_an_import_may_fail(void **state)
{
    static const char news[] =
        HEAD "{\"record\":\"member\",\"name\":\"New\",\"persona\":\"New\",\"card\":\"{\\\"name\\\":"
             "\\\"New\\\",\\\"first_mes\\\":\\\"Hi.\\\"}\"}\n" NODE NODE
             "{\"record\":\"bookmark\",\"name\":\"b\",\"node\":1}\n"
             "{\"record\":\"note\",\"node\":1,\"text\":\"t\"}\n" END("2");
    uint32_t failures = 0;

    (void)state;
    write_file(news);
    for (int64_t survivors = 0;; survivors++) {
        const uint32_t sessions = rig.store->sessions.count;
        const uint32_t replies = rig.reply_count;

        assert_true(survivors < SURVIVORS_MAX);
        execute_at(import_of(0, true), CONNECTION);
        memory_fault_set(survivors);
        rig_settle(&rig);
        memory_fault_set(-1);
        rig_settle(&rig);
        rig_settle(&rig);
        assert_int_equal(rig.reply_count, replies + 1);
        assert_int_equal(transfer_count(), 0);
        assert_true(store_is_idle(rig.store));
        if (rig.reply.type == REPLY_IMPORT) {
            assert_int_equal(rig.store->sessions.count, sessions + 1);
            assert_true(failures > 30);
            return;
        }
        failures++;
        assert_true(rig.reply.error.status == STATUS_MEMORY ||
                    rig.reply.error.status == STATUS_STORAGE);
        assert_int_equal(rig.store->sessions.count, sessions);
    }
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
        TEST(test_pages_lie_behind_one_another),
        TEST(test_others_are_served_while_a_large_file_is_made),
        TEST(test_a_small_file_does_not_wait_for_a_large_one),
        TEST(test_what_is_made_goes_with_its_connection),
        TEST(test_stopping_ends_what_is_made),
        TEST(test_a_file_has_one_last_piece),
        TEST(test_ordinals_are_counted_by_the_place),
        TEST(test_what_makes_no_session_is_named),
        TEST(test_bookmarks_have_a_bound),
        TEST(test_every_allocation_behind_an_import_may_fail),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
