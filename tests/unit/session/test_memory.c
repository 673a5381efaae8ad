/* Goal: whatever allocation of a request fails, the answer is MEMORY and all that can be read is as
 * it was; and the same request works afterwards. A failure later, while the answer is on its way,
 * loses nothing that was there and answers all the same.
 * Method: for each request, the allocations are made to fail from the first, the second, ... on
 * until none is left. What walks, lists, heads and bookmarks show is compared as text. Twins: the
 * text tells one changed label from another, and a request that works changes it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "limits.h"
#include "unit/session/store_rig.h"

enum { SHOWN_BYTES_MAX = 32768, SURVIVORS_MAX = 4000, FILE_SURVIVORS = 300 };

static struct rig rig;
static uint64_t session, said, reply, deleted; /* what make() has made */

static const char plain_card[] =
    "{\"name\":\"plain\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}";

static void execute(struct request request)
{
    rig_execute(&rig, request);
    assert_int_not_equal(rig.reply.type, REPLY_ERROR);
}

static void end_branches(void)
{
    for (uint32_t i = 0; i < rig.engine->branch_count; i++) {
        struct fake_branch *branch = &rig.engine->branches[i];

        if (branch->is_ended) {
            continue;
        }
        if (branch->spec->marks != NULL) {
            fake_engine_answer(rig.engine, i, NULL, branch->spec->mark_count);
        } else {
            fake_engine_emit_text(rig.engine, i, "so it went");
            if (!branch->is_ended) {
                fake_engine_end(rig.engine, i, FINISH_LENGTH, STATUS_OK);
            }
        }
    }
    rig_settle(&rig);
}

static struct request nodes_request(enum request_type type, const uint64_t *node)
{
    struct request request = rig_request(type);

    request.u.nodes.nodes = node;
    request.u.nodes.count = 1;
    return request;
}

static struct request bookmark_request(const char *name, bool remove)
{
    struct request request = rig_request(REQUEST_BOOKMARK);

    request.u.bookmark = (struct request_bookmark){
        .session = session, .name = bytes_of_text(name), .remove = remove};
    return request;
}

/* A text, a reply to it, a deleted node, a bookmark. */
static int make(void **state)
{
    (void)state;
    rig_restart(&rig, "chatml");
    session = rig_open_session(&rig, rig_put(&rig, plain_card));
    execute(rig_append(session, "Once upon a time"));
    said = rig.reply.nodes[0].id;
    execute(rig_generate(session, 1));
    reply = rig.reply.nodes[0].id;
    end_branches();
    execute(rig_append(session, "and then"));
    deleted = rig.reply.nodes[0].id;
    execute(nodes_request(REQUEST_DELETE, &deleted));
    execute(bookmark_request("here", false));
    return 0;
}

/* ---- what can be read ---- */

struct shown {
    char text[SHOWN_BYTES_MAX];
    size_t size;
};

static void show(struct shown *shown, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void show(struct shown *shown, const char *format, ...)
{
    va_list arguments;
    int size;

    va_start(arguments, format);
    size = vsnprintf(shown->text + shown->size, SHOWN_BYTES_MAX - shown->size, format, arguments);
    va_end(arguments);
    assert_true(size >= 0 && (size_t)size < SHOWN_BYTES_MAX - shown->size);
    shown->size += (size_t)size;
}

static void show_nodes(struct shown *shown)
{
    struct request walk = rig_request(REQUEST_WALK);

    walk.u.walk = (struct request_walk){.session = session,
                                        .has_position = true,
                                        .what = WALK_SUBTREE,
                                        .count = 1000,
                                        .content = true,
                                        .text = true,
                                        .deleted = true};
    execute(walk);
    for (uint32_t i = 0; i < rig.reply.node_count; i++) {
        const struct node_view view = rig_view(&rig, rig.reply.nodes[i].id);

        show(shown, "node %llu at %llu:%u.%u, %d, deleted %d, finish %d, label '%.*s', ",
             (unsigned long long)view.id, (unsigned long long)view.parent.node, view.parent.offset,
             view.ordinal, (int)view.origin, view.is_deleted, (int)view.finish,
             (int)view.label.size, (const char *)view.label.data);
        show(shown, "text '%.*s'\n", (int)view.text_bytes, (const char *)view.text);
    }
}

static void show_all(struct shown *shown)
{
    struct request request = rig_request(REQUEST_HEAD);

    shown->size = 0;
    shown->text[0] = '\0';
    show_nodes(shown);
    request.u.head.session = session;
    execute(request);
    show(shown, "head %llu:%u\n", (unsigned long long)rig.reply.head.node, rig.reply.head.offset);
    request = rig_request(REQUEST_BOOKMARK_LIST);
    request.u.bookmark_list.session = session;
    request.u.bookmark_list.count = 100;
    execute(request);
    show(shown, "%u bookmarks\n", rig.reply.item_count);
    request = rig_request(REQUEST_SESSION_LIST);
    request.u.page.count = 100;
    request.u.page.deleted = true;
    execute(request);
    show(shown, "%u sessions, the first has %llu nodes, is %sdeleted and is called '%s'\n",
         rig.reply.item_count, (unsigned long long)rig.reply.session.node_count,
         rig.reply.session.is_deleted ? "" : "not ", rig.reply.text);
    request = rig_request(REQUEST_PERSONA_LIST);
    request.u.page.count = 100;
    execute(request);
    show(shown, "%u personas\n", rig.reply.item_count);
}

/* ---- failing ---- */

static struct shown before, after;

/* The request with each of its allocations failing; then it works. How many could fail. */
static uint32_t fail_each(struct request request)
{
    const struct reply_to to = {1, 1};
    uint32_t failed = 0;

    show_all(&before);
    for (int64_t survivors = 0;; survivors++) {
        const uint32_t replies = rig.reply_count;

        assert_true(survivors < SURVIVORS_MAX);
        rig.reply.type = REPLY_DONE;
        memory_fault_set(survivors);
        store_execute(rig.store, &request, to);
        memory_fault_set(-1);
        rig_settle(&rig);
        if (rig.reply.type != REPLY_ERROR) {
            end_branches();
            assert_true(rig.reply_count > replies || request.type == REQUEST_FOLLOW);
            assert_true(store_is_idle(rig.store));
            return failed;
        }
        assert_int_equal(rig.reply_count, replies + 1);
        assert_int_equal(rig.reply.error.status, STATUS_MEMORY);
        assert_true(store_is_idle(rig.store));
        show_all(&after);
        assert_string_equal(before.text, after.text);
        failed++;
    }
}

/* A request that changes what is shown, and one that does not. */
static void check_change(struct request request)
{
    assert_true(fail_each(request) > 0);
    show_all(&after);
    assert_string_not_equal(before.text, after.text);
}

static void check_look(struct request request)
{
    (void)fail_each(request);
    show_all(&after);
    assert_string_equal(before.text, after.text);
}

static void test_what_makes_nodes(void **state)
{
    const struct bytes choices[] = {bytes_of_text("yes"), bytes_of_text("no, never")};
    struct request generate = rig_generate(session, 3);
    struct request edit = rig_request(REQUEST_EDIT);

    (void)state;
    generate.client_key = bytes_of_text("choices");
    generate.u.generate.generation.sampler.rule.choices = choices;
    generate.u.generate.generation.sampler.rule.choice_count = 2;
    check_change(generate);
    edit.client_key = bytes_of_text("edit");
    edit.u.edit = (struct request_edit){.node = said,
                                        .from_byte = 5,
                                        .to_byte = 9,
                                        .text = bytes_of_text("beneath"),
                                        .carry = true,
                                        .has_until = true,
                                        .until = {reply, OFFSET_END}};
    check_change(edit);
    check_change(rig_append(session, "the end"));
    generate = rig_generate(session, 1);
    generate.u.generate.has_position = true;
    generate.u.generate.position = (struct position){said, OFFSET_END};
    generate.u.generate.continuing = true;
    generate.u.generate.has_at_byte = true;
    generate.u.generate.at_byte = 7;
    check_change(generate);
}

static void test_what_marks_and_names(void **state)
{
    struct request label = rig_request(REQUEST_LABEL);
    struct request set = rig_request(REQUEST_SESSION_SET);
    struct request head = rig_request(REQUEST_HEAD);

    (void)state;
    check_change(nodes_request(REQUEST_DELETE, &reply));
    check_change(nodes_request(REQUEST_UNDELETE, &reply));
    check_change(nodes_request(REQUEST_PURGE, &deleted));
    label.u.label.node = said;
    label.u.label.label = bytes_of_text("a name");
    check_change(label);
    label.u.label.label = bytes_of_text("another");
    check_change(label);
    check_change(bookmark_request("there", false));
    check_change(bookmark_request("there", true));
    set.u.session_set.session = session;
    set.u.session_set.has_label = true;
    set.u.session_set.label = bytes_of_text("a tree");
    check_change(set);
    head.u.head.session = session;
    head.u.head.has_position = true;
    head.u.head.position = (struct position){said, 1};
    check_change(head);
}

static void test_what_is_taken_away(void **state)
{
    struct request drop = rig_request(REQUEST_SESSION_DELETE);
    struct request persona = rig_request(REQUEST_PERSONA_DELETE);
    const uint64_t kept = session;
    uint64_t other;

    (void)state;
    other = rig_open_session(&rig, rig_put(&rig, "{\"name\":\"Ada\"}"));
    persona.u.persona_delete = 2;
    check_change(persona);
    (void)rig_open_session(&rig, 1);
    drop.u.session_delete.session = other;
    assert_true(fail_each(drop) > 0);
    drop.u.session_delete.undo = true;
    assert_true(fail_each(drop) > 0);
    drop.u.session_delete.undo = false;
    execute(drop);
    drop.u.session_delete.purge = true;
    check_change(drop);
    assert_int_equal(session, kept);
}

static void test_what_looks(void **state)
{
    const uint64_t nodes[] = {reply};
    struct request request = rig_request(REQUEST_CONTEXT);

    (void)state;
    request.u.context =
        (struct request_context){.node = reply, .tokens = true, .text = true, .count = 100};
    check_look(request);
    request = rig_request(REQUEST_GROUP);
    request.u.group.session = session;
    request.u.group.nodes = nodes;
    request.u.group.node_count = 1;
    check_look(request);
    request = rig_request(REQUEST_BOOKMARK_LIST);
    request.u.bookmark_list.session = session;
    request.u.bookmark_list.count = 10;
    check_look(request);
    request = rig_request(REQUEST_WALK);
    request.u.walk = (struct request_walk){.session = session, .count = 10};
    check_look(request);
    request = rig_request(REQUEST_TOKENIZE);
    request.u.tokenize.text = bytes_of_text("Once upon a time");
    request.u.tokenize.pieces = true;
    check_look(request);
    request = rig_request(REQUEST_CANCEL);
    request.u.cancel.nodes = nodes;
    request.u.cancel.node_count = 1;
    check_look(request);
    request = rig_request(REQUEST_SESSION_LIST);
    request.u.page.count = 10;
    check_look(request);
}

static void test_a_file_that_comes_in(void **state)
{
    static uint8_t file[RIG_FILE_BYTES_MAX];
    struct request request = rig_request(REQUEST_SESSION_EXPORT);

    (void)state;
    request.u.session_export.session = session;
    execute(request);
    assert_true(rig.reply.end);
    memcpy(file, rig.reply.file, rig.reply.file_bytes);
    request = rig_request(REQUEST_SESSION_IMPORT);
    request.client_key = bytes_of_text("import");
    request.u.session_import =
        (struct request_import){.data = bytes_of(file, rig.reply.file_bytes), .end = true};
    check_change(request);
    assert_int_not_equal(rig.reply.type, REPLY_ERROR);
}

/* ---- on the way to the answer ---- */

/* Allocations fail from the first, the second, ... of all that happens until the answer. */
static void fail_behind(struct request request, uint32_t count)
{
    for (uint32_t survivors = 0; survivors < count; survivors++) {
        const struct reply_to to = {1, 1};
        const uint32_t replies = rig.reply_count;

        rig.reply.type = REPLY_DONE;
        store_execute(rig.store, &request, to);
        memory_fault_set(survivors);
        rig_settle(&rig);
        memory_fault_set(-1);
        end_branches();
        assert_true(rig.reply_count > replies);
        assert_true(rig.reply.type != REPLY_ERROR || rig.reply.error.status == STATUS_MEMORY ||
                    rig.reply.error.status == STATUS_STORAGE);
        assert_true(store_is_idle(rig.store));
    }
}

static void test_what_fails_behind_a_request_is_answered_all_the_same(void **state)
{
    struct request label = rig_request(REQUEST_LABEL);

    (void)state;
    fail_behind(rig_generate(session, 2), 40);
    fail_behind(rig_append(session, "more"), 20);
    label.u.label.node = said;
    label.u.label.label = bytes_of_text("a name");
    fail_behind(label, 10);
    show_all(&after);
    assert_non_null(strstr(after.text, "'Once upon a time'"));
}

/* The journal reads, and the file is written, behind the request. */
static void test_a_file_that_goes_out(void **state)
{
    static const char greeting_card[] = "{\"name\":\"keeper\",\"first_mes\":\"Come in.\"}";
    struct request request = rig_request(REQUEST_SESSION_EXPORT);
    const uint64_t sessions[] = {session, rig_open_session(&rig, rig_put(&rig, greeting_card))};

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        request.u.session_export.session = sessions[i];
        check_look(request);
        fail_behind(request, FILE_SURVIVORS);
        assert_int_equal(rig.reply.type, REPLY_EXPORT);
        show_all(&after);
        assert_string_equal(before.text, after.text);
    }
}

/* The end of a reply needs memory, too. */
static void test_a_reply_whose_end_finds_no_memory_still_ends(void **state)
{
    (void)state;
    for (int64_t survivors = 0; survivors < 30; survivors++) {
        uint64_t node;

        execute(rig_generate(session, 1));
        node = rig.reply.nodes[0].id;
        fake_engine_emit_text(rig.engine, rig.engine->branch_count - 1, "so it went");
        fake_engine_end(rig.engine, rig.engine->branch_count - 1, FINISH_LENGTH, STATUS_OK);
        memory_fault_set(survivors);
        rig_settle(&rig);
        memory_fault_set(-1);
        rig_settle(&rig);
        assert_int_not_equal(rig_view(&rig, node).finish, NODE_GOING);
        assert_true(store_is_idle(rig.store));
    }
}

/* ---- the twin ---- */

static void test_a_label_that_differs_is_noticed(void **state)
{
    struct request label = rig_request(REQUEST_LABEL);

    (void)state;
    show_all(&before);
    label.u.label.node = said;
    label.u.label.label = bytes_of_text("x");
    execute(label);
    show_all(&after);
    assert_string_not_equal(before.text, after.text);
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
        TEST(test_what_makes_nodes),
        TEST(test_what_marks_and_names),
        TEST(test_what_is_taken_away),
        TEST(test_what_looks),
        TEST(test_a_file_that_comes_in),
        TEST(test_a_file_that_goes_out),
        TEST(test_what_fails_behind_a_request_is_answered_all_the_same),
        TEST(test_a_reply_whose_end_finds_no_memory_still_ends),
        TEST(test_a_label_that_differs_is_noticed),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
