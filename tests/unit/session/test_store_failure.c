/* Goal: what fails, fails with an answer and leaves nothing behind: storage, refusals, limits,
 * memory, stopping; and what nobody follows is parked.
 * Method: the rig of test_store.c, with a journal, an engine and an allocator that fail on purpose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "limits.h"
#include "unit/session/store_rig.h"

static struct rig rig;

static const char plain_card[] =
    "{\"name\":\"plain\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}";
static const char chat_card[] =
    "{\"name\":\"Ada\",\"description\":\"{{char}} talks to {{user}}.\"}";
static const char greeting_card[] =
    "{\"spec\":\"chara_card_v2\",\"data\":{\"name\":\"Ada\",\"description\":\"A.\","
    "\"first_mes\":\"Hello {{user}}.\",\"alternate_greetings\":[\"Hi.\",\"Hey.\"]}}";

static int restart(void **state)
{
    (void)state;
    rig_restart(&rig, "chatml");
    return 0;
}

static void test_a_failed_commit_answers_storage_and_ends_what_goes_on(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    uint64_t going;

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    going = rig.reply.nodes[0].id;
    journal_fault_raise(rig.journal);
    rig_execute(&rig, rig_generate(session, 1));
    assert_int_equal(rig.reply.type, REPLY_ERROR);
    assert_int_equal(rig.reply.error.status, STATUS_STORAGE);
    fake_engine_emit_text(rig.engine, 0, "a");
    fake_engine_end(rig.engine, 0, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    assert_int_equal(rig_view(&rig, going).finish, NODE_FAILED);
    assert_int_equal(rig_view(&rig, going).error.status, STATUS_STORAGE);
    assert_true(rig.engine->branches[1].is_ended);
    rig_execute(&rig, rig_append(session, "x"));
    assert_int_equal(rig.reply.error.status, STATUS_STORAGE);
    assert_true(store_is_idle(rig.store));
}

static void test_a_refused_branch_leaves_nothing_behind(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, chat_card));
    struct request say = rig_say(session, "x");
    struct request walk = rig_request(REQUEST_WALK);

    (void)state;
    rig.engine->refused_after = 0;
    rig_execute(&rig, say);
    assert_int_equal(rig.reply.error.status, STATUS_LIMIT);
    walk.u.walk = (struct request_walk){.session = session, .what = WALK_SUBTREE, .count = 10};
    rig_execute(&rig, walk);
    assert_int_equal(rig.reply.node_count, 0);
    assert_true(store_is_idle(rig.store));
    /* A later sibling that is refused fails alone. */
    rig.engine->refused_after = 1;
    say.u.say.generation.n = 2;
    rig_execute(&rig, say);
    assert_int_equal(rig.reply.node_count, 3);
    rig_settle(&rig);
    assert_int_equal(rig_view(&rig, rig.reply.nodes[2].id).finish, NODE_FAILED);
    assert_int_equal(rig_view(&rig, rig.reply.nodes[2].id).error.status, STATUS_LIMIT);
    assert_int_equal(rig_view(&rig, rig.reply.nodes[1].id).finish, NODE_GOING);
}

static void test_a_branch_that_nobody_follows_is_parked(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    uint64_t now_ns = 1000;
    struct request request = rig_generate(session, 1);
    uint64_t node;

    (void)state;
    clock_fake_set(&now_ns);
    rig_execute(&rig, request);
    node = rig.reply.nodes[0].id;
    now_ns += (uint64_t)BRANCH_UNFOLLOWED_MS_MAX * 2000000;
    rig_settle(&rig);
    assert_false(rig.engine->branches[0].is_parked);
    store_node_unfollow(rig.store, node);
    now_ns += (uint64_t)BRANCH_UNFOLLOWED_MS_MAX * 2000000;
    rig_settle(&rig);
    assert_true(rig.engine->branches[0].is_parked);
    store_node_follow(rig.store, node);
    assert_false(rig.engine->branches[0].is_parked);
    /* One that was asked not to be followed goes on alone. */
    request.u.generate.generation.delivery = DELIVERY_NO_FOLLOW;
    rig_execute(&rig, request);
    assert_false(rig.reply.more);
    now_ns += (uint64_t)BRANCH_UNFOLLOWED_MS_MAX * 2000000;
    rig_settle(&rig);
    assert_false(rig.engine->branches[1].is_parked);
    clock_fake_set(NULL);
}

static void test_stopping_refuses_and_leaves_intents(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    uint64_t node;

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    node = rig.reply.nodes[0].id;
    store_stop(rig.store);
    rig_execute(&rig, rig_generate(session, 1));
    assert_int_equal(rig.reply.error.status, STATUS_STOPPING);
    fake_engine_end(rig.engine, 0, FINISH_FAILED, STATUS_STOPPING);
    rig_settle(&rig);
    assert_int_equal(rig_view(&rig, node).finish, NODE_INTERRUPTED);
    assert_true(store_is_idle(rig.store));
}

static void test_limits_are_named(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct request generate = rig_generate(session, GENERATE_SIBLING_COUNT_MAX);
    struct request open = rig_request(REQUEST_SESSION_OPEN);

    (void)state;
    generate.u.generate.generation.sampler.has_max_tokens = true;
    generate.u.generate.generation.sampler.max_tokens = 4;
    rig_execute(&rig, generate);
    assert_int_equal(rig.reply.node_count, GENERATE_SIBLING_COUNT_MAX);
    rig_execute(&rig, generate);
    rig_execute(&rig, generate);
    assert_int_equal(rig.reply.error.status, STATUS_LIMIT);
    assert_string_equal(rig.reply.error.limit_name, "BRANCH_PER_USER_COUNT_MAX");
    open.u.session_open.persona = 1;
    open.u.session_open.context_tokens = 1000000;
    rig_execute(&rig, open);
    assert_string_equal(rig.reply.error.limit_name, "context_tokens_max");
}

/* Everything that one request does fails at each of its allocations once; each time it is an
 * answer, and afterwards the same request works. */
static void check_faults(struct request request, uint64_t session)
{
    for (int64_t survivors = 0;; survivors++) {
        const struct reply_to to = {1, 1};
        struct request walk = rig_request(REQUEST_WALK);
        uint32_t reply_count = rig.reply_count;

        assert_true(survivors < 4000);
        memory_fault_set(survivors);
        store_execute(rig.store, &request, to);
        memory_fault_set(-1);
        rig_settle(&rig);
        assert_int_equal(rig.reply_count, reply_count + 1);
        if (rig.reply.type != REPLY_ERROR) {
            return;
        }
        assert_int_equal(rig.reply.error.status, STATUS_MEMORY);
        assert_true(store_is_idle(rig.store) || rig.engine->branch_count > 0);
        if (session != 0) {
            walk.u.walk =
                (struct request_walk){.session = session, .what = WALK_SUBTREE, .count = 100};
            walk.u.walk.has_position = true;
            rig_execute(&rig, walk);
            assert_int_equal(rig.reply.node_count, 3); /* the greetings */
        }
    }
}

static void test_every_allocation_of_a_request_may_fail(void **state)
{
    struct request put = rig_request(REQUEST_PERSONA_PUT);
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    struct request say;
    uint64_t session;

    (void)state;
    put.u.persona_put.card = bytes_of_text(greeting_card);
    check_faults(put, 0);
    open.u.session_open.persona = rig.reply.id;
    open.client_key = bytes_of_text("open");
    check_faults(open, 0);
    session = rig.reply.id;
    say = rig_say(session, "What is it?");
    say.client_key = bytes_of_text("say");
    say.u.say.generation.n = 2;
    say.u.say.generation.prefix = bytes_of_text("It");
    check_faults(say, session);
    assert_int_equal(rig.reply.node_count, 4);
}

/* The same for a group, its notes, and the lore of its cards. */
static void test_every_allocation_of_a_group_may_fail(void **state)
{
    static const char lore_card[] =
        "{\"spec\":\"chara_card_v2\",\"data\":{\"name\":\"Bob\",\"description\":\"B.\","
        "\"mes_example\":\"{{user}}: One?\\n{{char}}: Two.\","
        "\"post_history_instructions\":\"Be short.\",\"character_book\":{\"entries\":["
        "{\"keys\":[\"what\"],\"content\":\"It is {{char}}.\"},"
        "{\"keys\":[\"x\"],\"constant\":true,\"content\":\"Always.\"}]},"
        "\"extensions\":{\"depth_prompt\":{\"prompt\":\"Hm.\",\"depth\":1}}}}";
    struct request put = rig_request(REQUEST_PERSONA_PUT);
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    struct request set = rig_request(REQUEST_SESSION_SET);
    struct request note = rig_request(REQUEST_NOTE);
    struct request_member members[] = {{.name = bytes_of_text("Eve")}, {0}};
    struct request say;
    uint64_t session;

    (void)state;
    open.u.session_open.persona = rig_put(&rig, greeting_card);
    put.u.persona_put.card = bytes_of_text(lore_card);
    check_faults(put, 0);
    members[1].persona = rig.reply.id;
    open.u.session_open.group_mode = GROUP_JOINT;
    open.u.session_open.members = members;
    open.u.session_open.member_count = 1;
    check_faults(open, 0);
    session = rig.reply.id;
    set.u.session_set = (struct request_session_set){
        .session = session,
        .members = members + 1,
        .member_count = 1,
        .has_name = true,
        .speaker = 2,
        .name = bytes_of_text("Eva"),
    };
    check_faults(set, session);
    assert_int_equal(rig.reply.session.cast_count, 4);
    note.u.note = (struct request_note){
        .session = session, .has_text = true, .text = bytes_of_text("It rains."), .depth = 1};
    check_faults(note, session);
    note.u.note.text = bytes_of_text("It snows.");
    check_faults(note, session);
    say = rig_say(session, "What is it?");
    say.u.say.has_reply_speaker = true;
    say.u.say.reply_speaker = 3;
    check_faults(say, session);
    assert_int_equal(rig.reply.node_count, 2);
    assert_non_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "It is Bob."));
    assert_non_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "It snows."));
}

static int set_up(void **state)
{
    (void)state;
    rig_init(&rig, "smollm", "chatml");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

#define TEST(name) cmocka_unit_test_setup(name, restart)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_failed_commit_answers_storage_and_ends_what_goes_on),
        TEST(test_a_refused_branch_leaves_nothing_behind),
        TEST(test_a_branch_that_nobody_follows_is_parked),
        TEST(test_stopping_refuses_and_leaves_intents),
        TEST(test_limits_are_named),
        TEST(test_every_allocation_of_a_request_may_fail),
        TEST(test_every_allocation_of_a_group_may_fail),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
