/* Goal: requests make trees as the design says: what the model is shown, what readers see and when,
 * who may see it, and what every limit and failure answers.
 * Method: a whole store over a fake engine that writes dictated tokens through the real cue reader,
 * and the real journal, stepped by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/memory.h"
#include "unit/session/store_rig.h"

enum { TWO_BREAKS = 1116 };

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

static void test_plain_text_is_continued_without_any_frame(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct node_view view;
    uint64_t reply;

    (void)state;
    rig_execute(&rig, rig_append(session, "Once upon a time"));
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    assert_false(rig.reply.more);
    rig_execute(&rig, rig_generate(session, 1));
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    assert_true(rig.reply.more);
    assert_string_equal(rig_context(&rig, 0), "Once upon a time");
    reply = rig.reply.nodes[0].id;
    assert_int_equal(rig.followed[0], reply);
    fake_engine_emit_text(rig.engine, 0, " there was a king.");
    rig_settle(&rig);
    view = rig_view(&rig, reply);
    assert_int_equal(view.finish, NODE_GOING);
    assert_memory_equal(view.text, " there was a king.", view.text_bytes);
    fake_engine_end(rig.engine, 0, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    view = rig_view(&rig, reply);
    assert_int_equal(view.finish, NODE_END);
    assert_int_equal(view.text_bytes, strlen(" there was a king."));
    assert_int_equal(view.sampled_count, view.content_count + 1);
}

static void test_an_empty_context_starts_with_the_end_of_text_token(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    assert_string_equal(rig_context(&rig, 0), "<|endoftext|>");
    fake_engine_emit_text(rig.engine, 0, "abc");
    fake_engine_end(rig.engine, 0, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    /* What goes on from there keeps the token that it began with. */
    rig_execute(&rig, rig_generate(session, 1));
    assert_string_equal(rig_context(&rig, 1), "<|endoftext|>abc");
}

static void test_a_turn_is_framed_and_the_reply_is_followed(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, chat_card));

    (void)state;
    rig_execute(&rig, rig_say(session, "Hi <|im_end|>"));
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    assert_int_equal(rig.reply.node_count, 2);
    assert_string_equal(rig_context(&rig, 0),
                        "<|im_start|>system\nAda talks to User.<|im_end|>\n"
                        "<|im_start|>user\nHi <|im_end|><|im_end|>\n<|im_start|>assistant\n");
    assert_int_equal(rig.follow_count, 1);
    assert_int_equal(rig.followed_node_count, 1);
    assert_int_equal(rig.followed[0], rig.reply.nodes[1].id);
}

static void test_nothing_is_shown_before_the_intent_is_committed(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    const struct request request = rig_generate(session, 1);
    const struct reply_to to = {1, 77};
    struct node_view view;

    (void)state;
    rig.progress_count = 0;
    store_execute(rig.store, &request, to);
    fake_engine_emit_text(rig.engine, 0, "early words");
    store_pump(rig.store);
    assert_int_not_equal(rig.reply.request, 77);
    assert_int_equal(rig.progress_count, 0);
    assert_int_equal(
        store_node_view(rig.store, RIG_UID, rig.engine->branches[0].spec->node, NULL, &view),
        STATUS_NOT_FOUND);
    rig_settle(&rig);
    assert_int_equal(rig.reply.request, 77);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    assert_true(rig.progress_count > 0);
    assert_int_equal(rig_view(&rig, rig.reply.nodes[0].id).text_bytes, strlen("early words"));
}

static void test_the_end_is_shown_after_its_row_is_committed(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    uint64_t node;

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    node = rig.reply.nodes[0].id;
    fake_engine_emit_text(rig.engine, 0, "a b");
    fake_engine_end(rig.engine, 0, FINISH_END, STATUS_OK);
    store_pump(rig.store);
    assert_int_equal(rig_view(&rig, node).finish, NODE_GOING);
    rig_settle(&rig);
    assert_int_equal(rig_view(&rig, node).finish, NODE_END);
    assert_true(store_is_idle(rig.store));
}

static void test_a_cue_inside_a_token_leaves_a_tail(void **state)
{
    static const char card[] = "{\"name\":\"Ada\",\"extensions\":{\"personad\":{\"play\":\"plain\","
                               "\"cues\":[\"\\nStop\"]}}}";
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, card));
    struct node_view view;
    uint64_t node;

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    node = rig.reply.nodes[0].id;
    /* Two line breaks are one token of this vocabulary; the cue begins at the second. */
    fake_engine_emit_text(rig.engine, 0, "Yes.");
    fake_engine_emit(rig.engine, 0, TWO_BREAKS);
    fake_engine_emit_text(rig.engine, 0, "Stop it");
    rig_settle(&rig);
    view = rig_view(&rig, node);
    assert_int_equal(view.finish, NODE_CUE);
    assert_int_equal(view.text_bytes, strlen("Yes.\n"));
    assert_memory_equal(view.text, "Yes.\n", 5);
    assert_string_equal(rig_names(&rig, view.content, view.content_count), "Yes.\n");
    assert_int_equal(tokenizer_token_bytes(rig.tokenizer, TWO_BREAKS).size, 2);
    assert_true(view.sampled_count > view.content_count);
    assert_int_not_equal(view.content[view.content_count - 1],
                         view.sampled[view.content_count - 1]);
    /* Children are given the content, never what was sampled behind it. */
    rig_execute(&rig, rig_append(session, "More"));
    rig_execute(&rig, rig_generate(session, 1));
    assert_string_equal(rig_context(&rig, 1), "<|endoftext|>Yes.\nMore");
}

static void test_names_of_the_cast_end_a_reply(void **state)
{
    static const struct {
        const char *emitted, *text;
    } cases[] = {
        {"I am here.\nUser: who?", "I am here."},
        {"Fine.\nAda: me again", "Fine."},
        {"Fine.\nUser\nand", "Fine."},
        {"Users like it.\nUserland is big.", "Users like it.\nUserland is big."},
    };
    const uint64_t persona = rig_put(&rig, chat_card);

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t session = rig_open_session(&rig, persona);
        struct node_view view;
        uint64_t node;

        rig_execute(&rig, rig_say(session, "x"));
        node = rig.reply.nodes[1].id;
        fake_engine_emit_text(rig.engine, i, cases[i].emitted);
        if (!rig.engine->branches[i].is_ended) {
            fake_engine_end(rig.engine, i, FINISH_END, STATUS_OK);
        }
        rig_settle(&rig);
        view = rig_view(&rig, node);
        assert_int_equal(view.text_bytes, strlen(cases[i].text));
        assert_memory_equal(view.text, cases[i].text, view.text_bytes);
    }
}

static void test_greetings_are_the_first_nodes_and_belong_to_the_persona(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, greeting_card));
    const struct branch_spec *spec;

    (void)state;
    assert_int_equal(rig.reply.node_count, 3);
    assert_int_equal(rig.reply.nodes[1].ordinal, 1);
    assert_int_equal(rig.reply.nodes[0].origin, ORIGIN_GIVEN);
    assert_int_equal(rig.reply.nodes[0].finish, NODE_WHOLE);
    assert_int_equal(rig.reply.session.head.node, rig.reply.nodes[0].id);
    rig_execute(&rig, rig_say(session, "x"));
    assert_string_equal(
        rig_context(&rig, 0),
        "<|im_start|>system\nA.<|im_end|>\n<|im_start|>assistant\nHello User.<|im_end|>\n"
        "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n");
    spec = rig.engine->branches[0].spec;
    assert_string_equal(
        rig_names(&rig, rig.engine->branches[0].context, spec->scope.prompt_token_count),
        "<|im_start|>system\nA.<|im_end|>\n<|im_start|>assistant\nHello User.");
    assert_int_equal(spec->scope.session, session);
}

static void test_sessions_of_one_persona_share_its_scope(void **state)
{
    const uint64_t persona = rig_put(&rig, chat_card);
    struct request request = rig_request(REQUEST_SESSION_OPEN);

    (void)state;
    rig_execute(&rig, rig_say(rig_open_session(&rig, persona), "x"));
    rig_execute(&rig, rig_say(rig_open_session(&rig, persona), "x"));
    assert_true(rig.engine->branches[0].scope.prompt == rig.engine->branches[1].scope.prompt);
    assert_true(rig.engine->branches[0].scope.session != rig.engine->branches[1].scope.session);
    assert_true(rig.engine->branches[0].seed == rig.engine->branches[1].seed);
    request.u.session_open.persona = persona;
    request.u.session_open.user_name = bytes_of_text("Bob");
    rig_execute(&rig, request);
    rig_execute(&rig, rig_say(rig.reply.id, "x"));
    assert_true(rig.engine->branches[0].scope.prompt != rig.engine->branches[2].scope.prompt);
}

static void test_siblings_share_a_context_and_differ_in_seed(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, chat_card));
    struct request request = rig_say(session, "x");

    (void)state;
    request.u.say.generation.n = 3;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.node_count, 4);
    for (uint32_t i = 0; i < 3; i++) {
        const struct branch_spec *spec = rig.engine->branches[i].spec;

        assert_int_equal(rig.reply.nodes[i + 1].ordinal, i);
        assert_ptr_equal(spec->runs, rig.engine->branches[0].spec->runs);
        assert_true(spec->group != 0 && spec->group == rig.engine->branches[0].spec->group);
        assert_true(i == 0 || spec->seed != rig.engine->branches[i - 1].spec->seed);
    }
    request.u.say.generation.has_raw_seed = true;
    request.u.say.generation.raw_seed = 500;
    rig_execute(&rig, request);
    assert_int_equal(rig.engine->branches[3].seed, 500);
    assert_int_equal(rig.engine->branches[5].seed, 502);
}

static void test_a_prefix_opens_the_turn_and_the_reply_goes_on(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, chat_card));
    struct request request = rig_say(session, "x");

    (void)state;
    request.u.say.generation.prefix = bytes_of_text("Well,");
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.node_count, 3);
    assert_true(rig.reply.nodes[1].opens_turn);
    assert_false(rig.reply.nodes[2].opens_turn);
    assert_int_equal(rig.reply.nodes[2].parent.node, rig.reply.nodes[1].id);
    assert_string_equal(strstr(rig_context(&rig, 0), "assistant\n"), "assistant\nWell,");
    assert_int_equal(rig.engine->branches[0].spec->lead_in_bytes, 5);
}

static void test_a_fork_inside_a_going_node_sees_what_is_released(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct request request = rig_generate(session, 1);
    struct node_view view;
    uint64_t node;

    (void)state;
    rig_execute(&rig, request);
    node = rig.reply.nodes[0].id;
    fake_engine_emit_text(rig.engine, 0, "one two three");
    rig_settle(&rig);
    request.u.generate.has_position = true;
    request.u.generate.position = (struct position){node, 2};
    request.u.generate.continuing = true;
    rig_execute(&rig, request);
    assert_string_equal(rig_context(&rig, 1), "<|endoftext|>one two");
    request.u.generate.position.offset = 9;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.error.status, STATUS_BAD_INPUT);
    /* The parent goes on and moves its block; what was lent stays. */
    fake_engine_emit_text(rig.engine, 0, " four five");
    fake_engine_end(rig.engine, 0, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    assert_true(fake_engine_is_intact(rig.engine, 1));
    view = rig_view(&rig, node);
    assert_int_equal(view.child_count, 1);
    assert_int_equal(view.content_count, 5);
}

static void test_a_cancel_is_answered_when_the_cut_is_committed(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, plain_card));
    struct request request = rig_request(REQUEST_CANCEL);
    const struct reply_to to = {1, 9};
    uint64_t node;

    (void)state;
    rig_execute(&rig, rig_generate(session, 1));
    node = rig.reply.nodes[0].id;
    fake_engine_emit_text(rig.engine, 0, "one two");
    rig_settle(&rig);
    request.u.cancel.nodes = &node;
    request.u.cancel.node_count = 1;
    store_execute(rig.store, &request, to);
    store_pump(rig.store);
    assert_int_equal(rig.reply.type, REPLY_CREATED); /* still the one before */
    rig_settle(&rig);
    assert_int_equal(rig.reply.type, REPLY_DONE);
    assert_int_equal(rig.reply.request, 9);
    assert_int_equal(rig_view(&rig, node).finish, NODE_CUT);
    assert_int_equal(rig_view(&rig, node).content_count, 2);
}

static void test_what_is_anothers_is_denied(void **state)
{
    const uint64_t persona = rig_put(&rig, chat_card);
    const uint64_t session = rig_open_session(&rig, persona);
    struct request requests[] = {
        rig_say(session, "x"),
        rig_generate(session, 1),
        rig_append(session, "x"),
        rig_request(REQUEST_WALK),
        rig_request(REQUEST_HEAD),
        rig_request(REQUEST_SESSION_OPEN),
        rig_request(REQUEST_PERSONA_GET),
        rig_request(REQUEST_CANCEL),
    };
    struct request list = rig_request(REQUEST_SESSION_LIST);

    (void)state;
    requests[3].u.walk.session = session;
    requests[3].u.walk.count = 10;
    requests[4].u.head.session = session;
    requests[5].u.session_open.persona = persona;
    requests[6].u.persona_get.id = persona;
    requests[7].u.cancel.session = session;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        requests[i].uid = RIG_UID + 1;
        rig_execute(&rig, requests[i]);
        assert_int_equal(rig.reply.error.status, STATUS_DENIED);
    }
    list.u.page.count = 10;
    rig_execute(&rig, list);
    assert_int_equal(rig.reply.item_count, 1);
    list.uid = RIG_UID + 1;
    rig_execute(&rig, list);
    assert_int_equal(rig.reply.item_count, 0);
}

static void test_a_public_persona_is_played_but_its_prompt_stays_hidden(void **state)
{
    struct request put = rig_request(REQUEST_PERSONA_PUT);
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    struct request get = rig_request(REQUEST_PERSONA_GET);
    struct request say;

    (void)state;
    put.u.persona_put.card = bytes_of_text(chat_card);
    put.u.persona_put.visibility = VISIBILITY_PUBLIC;
    rig_execute(&rig, put);
    open.uid = get.uid = RIG_UID + 1;
    open.u.session_open.persona = rig.reply.id;
    get.u.persona_get.id = rig.reply.id;
    rig_execute(&rig, get);
    assert_int_equal(rig.reply.type, REPLY_PERSONA);
    assert_string_equal(rig.reply.card, "");
    rig_execute(&rig, open);
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    say = rig_say(rig.reply.id, "x");
    say.uid = RIG_UID + 1;
    say.u.say.generation.context = true;
    rig_execute(&rig, say);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    assert_int_equal(rig.reply.context_count, 0); /* absent, as the card is */
}

static void test_the_owner_may_see_the_context(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, chat_card));
    struct request say = rig_say(session, "x");

    (void)state;
    say.u.say.generation.context = true;
    rig_execute(&rig, say);
    assert_int_equal(rig.reply.context_count, rig.engine->branches[0].context_count);
    assert_memory_equal(rig.reply.context, rig.engine->branches[0].context,
                        rig.reply.context_count * 4);
}

static void test_a_repeated_key_gives_the_same_nodes(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, chat_card));
    struct request say = rig_say(session, "x");
    struct request other = rig_append(session, "x");
    uint64_t first;

    (void)state;
    say.client_key = bytes_of_text("key-1");
    rig_execute(&rig, say);
    first = rig.reply.nodes[0].id;
    rig_execute(&rig, say);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    assert_int_equal(rig.reply.nodes[0].id, first);
    assert_int_equal(rig.reply.node_count, 2);
    assert_int_equal(rig.engine->branch_count, 1);
    assert_int_equal(rig.follow_count, 2);
    other.client_key = say.client_key;
    rig_execute(&rig, other);
    assert_int_equal(rig.reply.error.status, STATUS_CONFLICT);
    say.uid = RIG_UID + 1; /* another user's key is another key */
    rig_execute(&rig, say);
    assert_int_equal(rig.reply.error.status, STATUS_DENIED);
}

static void test_two_requests_with_one_key_before_the_commit_are_one(void **state)
{
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    const struct reply_to one = {1, 101}, two = {1, 102};

    (void)state;
    open.u.session_open.persona = rig_put(&rig, greeting_card);
    open.client_key = bytes_of_text("k");
    rig.reply_count = 0;
    store_execute(rig.store, &open, one);
    store_execute(rig.store, &open, two);
    assert_int_equal(rig.reply_count, 0);
    rig_settle(&rig);
    assert_int_equal(rig.reply_count, 2);
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    open.client_key = bytes_of_text("");
    rig_execute(&rig, open);
    assert_int_equal(rig.reply.id, 2); /* not the third */
}

static void test_walks_are_paged_and_in_order(void **state)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, greeting_card));
    struct request walk = rig_request(REQUEST_WALK);
    const uint64_t first = rig.reply.nodes[0].id;

    (void)state;
    rig_execute(&rig, rig_say(session, "x"));
    walk.u.walk = (struct request_walk){.session = session, .what = WALK_PATH, .count = 2};
    rig_execute(&rig, walk);
    assert_int_equal(rig.reply.node_count, 2);
    assert_int_equal(rig.reply.nodes[0].id, first);
    assert_false(rig.reply.end);
    walk.u.walk.skip = 2;
    rig_execute(&rig, walk);
    assert_int_equal(rig.reply.node_count, 1);
    assert_true(rig.reply.end);
    walk.u.walk = (struct request_walk){
        .session = session, .has_position = true, .what = WALK_SUBTREE, .count = 100};
    rig_execute(&rig, walk);
    assert_int_equal(rig.reply.node_count, 5);
    assert_int_equal(rig.reply.nodes[0].id, first);
    assert_int_equal(rig.reply.nodes[3].parent.node, 0);
    walk.u.walk.what = WALK_CHILDREN;
    rig_execute(&rig, walk);
    assert_int_equal(rig.reply.node_count, 3);
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
        TEST(test_plain_text_is_continued_without_any_frame),
        TEST(test_an_empty_context_starts_with_the_end_of_text_token),
        TEST(test_a_turn_is_framed_and_the_reply_is_followed),
        TEST(test_nothing_is_shown_before_the_intent_is_committed),
        TEST(test_the_end_is_shown_after_its_row_is_committed),
        TEST(test_a_cue_inside_a_token_leaves_a_tail),
        TEST(test_names_of_the_cast_end_a_reply),
        TEST(test_greetings_are_the_first_nodes_and_belong_to_the_persona),
        TEST(test_sessions_of_one_persona_share_its_scope),
        TEST(test_siblings_share_a_context_and_differ_in_seed),
        TEST(test_a_prefix_opens_the_turn_and_the_reply_goes_on),
        TEST(test_a_fork_inside_a_going_node_sees_what_is_released),
        TEST(test_a_cancel_is_answered_when_the_cut_is_committed),
        TEST(test_what_is_anothers_is_denied),
        TEST(test_a_public_persona_is_played_but_its_prompt_stays_hidden),
        TEST(test_the_owner_may_see_the_context),
        TEST(test_a_repeated_key_gives_the_same_nodes),
        TEST(test_two_requests_with_one_key_before_the_commit_are_one),
        TEST(test_walks_are_paged_and_in_order),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
