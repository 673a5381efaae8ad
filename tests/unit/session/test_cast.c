/* Goal: a cast of several humans and persona versions: each persona sees its own turns on its side,
 * all others named; names end turns; who joins later is seen; names that would mislead are refused.
 * Method: conversations through a whole store, contexts as text against texts written out by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "session/context.h"
#include "session/state.h"
#include "unit/session/store_rig.h"

static const char ada_card[] = "{\"name\":\"Ada\",\"description\":\"You are {{char}}.\"}";
static const char ada_card_2[] = "{\"name\":\"Ada\",\"description\":\"You are {{char}}, tired.\"}";
static const char bob_card[] = "{\"name\":\"Bob\",\"description\":\"You are {{char}}.\"}";

static struct rig rig;
static enum group_mode mode;

static void start(const char *format)
{
    rig_init(&rig, "smollm", format);
}

static void stop(void)
{
    mode = GROUP_SEPARATE;
    rig_finish(&rig);
    assert_int_equal(memory_live_count(), 0);
}

static struct request_member persona_of(const char *card)
{
    return (struct request_member){.persona = rig_put(&rig, card)};
}

static struct request_member human_of(const char *name)
{
    return (struct request_member){.name = bytes_of_text(name)};
}

/* User, the persona of the card, and these. The reply tells whether it went well. */
static uint64_t open_with(const char *card, const struct request_member *members, uint32_t count)
{
    struct request open = rig_request(REQUEST_SESSION_OPEN);

    open.u.session_open.group_mode = mode;
    open.u.session_open.persona = rig_put(&rig, card);
    open.u.session_open.members = members;
    open.u.session_open.member_count = count;
    rig_execute(&rig, open);
    return rig.reply.id;
}

static void append(uint64_t session, uint32_t speaker, const char *text)
{
    struct request request = rig_append(session, text);

    request.u.append.speaker = speaker;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
}

/* The model writes a turn of that speaker; its context. */
static const char *generate(uint64_t session, uint32_t speaker, const char *text)
{
    struct request request = rig_generate(session, 1);
    const uint32_t branch = rig.engine->branch_count;

    request.u.generate.has_speaker = true;
    request.u.generate.speaker = speaker;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    fake_engine_emit_text(rig.engine, branch, text);
    fake_engine_end(rig.engine, branch, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    return rig_context(&rig, branch);
}

static struct request set_request(uint64_t session)
{
    struct request request = rig_request(REQUEST_SESSION_SET);

    request.u.session_set.session = session;
    return request;
}

static void expect_refusal(enum status status, const char *word)
{
    assert_int_equal(rig.reply.type, REPLY_ERROR);
    assert_int_equal(rig.reply.error.status, status);
    assert_non_null(strstr(rig.reply.error.text, word));
}

static void test_each_persona_sees_the_others_named(void **state)
{
    (void)state;
    start("chatml");
    const struct request_member members[] = {persona_of(bob_card), human_of("Eve")};
    const uint64_t session = open_with(ada_card, members, 2);

    assert_int_equal(rig.reply.session.cast_count, 4);
    append(session, 0, "Hello");
    generate(session, 1, "Good day");
    append(session, 3, "And me?");
    assert_string_equal(generate(session, 2, "You too"),
                        "<|im_start|>system\nYou are Bob.<|im_end|>\n"
                        "<|im_start|>user\nUser:\nHello<|im_end|>\n"
                        "<|im_start|>user\nAda:\nGood day<|im_end|>\n"
                        "<|im_start|>user\nEve:\nAnd me?<|im_end|>\n<|im_start|>assistant\n");
    assert_string_equal(generate(session, 1, "Well"),
                        "<|im_start|>system\nYou are Ada.<|im_end|>\n"
                        "<|im_start|>user\nUser:\nHello<|im_end|>\n"
                        "<|im_start|>assistant\nGood day<|im_end|>\n"
                        "<|im_start|>user\nEve:\nAnd me?<|im_end|>\n"
                        "<|im_start|>user\nBob:\nYou too<|im_end|>\n<|im_start|>assistant\n");
    stop();
}

static void test_transcripts_name_all(void **state)
{
    (void)state;
    start("none");
    const struct request_member members[] = {persona_of(bob_card), human_of("Eve")};
    const uint64_t session = open_with(ada_card, members, 2);

    append(session, 0, "Hello");
    generate(session, 1, " Good day");
    append(session, 3, "And me?");
    assert_string_equal(generate(session, 2, " You too"),
                        "You are Bob.\n\nUser: Hello\nAda: Good day\nEve: And me?\nBob:");
    stop();
}

static void test_the_model_writes_a_humans_turn(void **state)
{
    (void)state;
    start("chatml");
    const struct request_member members[] = {human_of("Eve")};
    const uint64_t session = open_with(ada_card, members, 1);

    append(session, 0, "Hello");
    assert_string_equal(generate(session, 2, "Hm"),
                        "<|im_start|>system\nYou are Ada.<|im_end|>\n"
                        "<|im_start|>user\nUser:\nHello<|im_end|>\n<|im_start|>user\nEve:\n");
    assert_int_equal(rig_view(&rig, rig.reply.nodes[0].id).speaker, 2);
    stop();
}

/* A version that replaces another goes on with its turns, in a conversation of two. */
static void test_another_version_of_a_persona_goes_on(void **state)
{
    (void)state;
    start("chatml");
    const struct request_member members[] = {persona_of(ada_card_2)};
    const uint64_t session = open_with(ada_card, members, 1);

    append(session, 0, "Hello");
    generate(session, 1, "Good day");
    append(session, 0, "Late, is it?");
    assert_string_equal(generate(session, 2, "Yes"),
                        "<|im_start|>system\nYou are Ada, tired.<|im_end|>\n"
                        "<|im_start|>user\nHello<|im_end|>\n"
                        "<|im_start|>assistant\nGood day<|im_end|>\n"
                        "<|im_start|>user\nLate, is it?<|im_end|>\n<|im_start|>assistant\n");
    stop();
}

static bool has_cue(const struct fake_branch *branch, const char *text)
{
    struct cue_reader reader;

    cue_reader_init(&reader, branch->spec->cues, bytes_of(NULL, 0));
    cue_reader_feed(&reader, bytes_of_text("Well\n"));
    cue_reader_feed(&reader, bytes_of_text(text));
    return reader.stopped;
}

static void test_every_name_is_a_cue(void **state)
{
    (void)state;
    start("chatml");
    const struct request_member members[] = {persona_of(bob_card), human_of("Eve")};
    const uint64_t session = open_with(ada_card, members, 2);
    struct request request = rig_generate(session, 1);

    rig_execute(&rig, request);
    assert_true(has_cue(&rig.engine->branches[0], "User:"));
    assert_true(has_cue(&rig.engine->branches[0], "Ada:"));
    assert_true(has_cue(&rig.engine->branches[0], "Bob:"));
    assert_true(has_cue(&rig.engine->branches[0], "Eve:"));
    assert_false(has_cue(&rig.engine->branches[0], "Dan:"));
    stop();
}

static void test_who_joins_is_named_from_then_on(void **state)
{
    (void)state;
    start("chatml");
    const uint64_t session = open_with(ada_card, NULL, 0);
    const struct request_member members[] = {persona_of(bob_card), human_of("Eve")};
    struct request set = set_request(session);

    append(session, 0, "Hello");
    assert_string_equal(generate(session, 1, "Good day"),
                        "<|im_start|>system\nYou are Ada.<|im_end|>\n"
                        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
    set.u.session_set.members = members;
    set.u.session_set.member_count = 2;
    rig_execute(&rig, set);
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    assert_int_equal(rig.reply.session.cast_count, 4);
    rig_execute(&rig, set); /* a repeat changes nothing */
    assert_int_equal(rig.reply.session.cast_count, 4);
    append(session, 3, "Me");
    assert_string_equal(generate(session, 1, "You"),
                        "<|im_start|>system\nYou are Ada.<|im_end|>\n"
                        "<|im_start|>user\nUser:\nHello<|im_end|>\n"
                        "<|im_start|>assistant\nGood day<|im_end|>\n"
                        "<|im_start|>user\nEve:\nMe<|im_end|>\n<|im_start|>assistant\n");
    stop();
}

static void test_names_that_mislead_are_refused(void **state)
{
    (void)state;
    start("chatml");
    const struct request_member same[] = {human_of("User")};
    const struct request_member persona[] = {human_of("Ada")};
    const struct request_member twice[] = {human_of("Eve"), human_of("Eve")};
    const struct request_member lines[] = {human_of("E\nve")};
    const struct request_member nobody[] = {{.persona = 999}};

    open_with(ada_card, same, 1);
    expect_refusal(STATUS_CONFLICT, "User");
    open_with(ada_card, persona, 1);
    expect_refusal(STATUS_CONFLICT, "Ada");
    open_with(ada_card, twice, 2);
    expect_refusal(STATUS_CONFLICT, "Eve");
    open_with(ada_card, lines, 1);
    expect_refusal(STATUS_BAD_INPUT, "line break");
    open_with(ada_card, nobody, 1);
    expect_refusal(STATUS_NOT_FOUND, "999");
    stop();
}

/* A failure leaves the cast as it was. */
static void test_a_cast_has_a_bound(void **state)
{
    static struct request_member members[SESSION_CAST_COUNT_MAX];
    static char names[SESSION_CAST_COUNT_MAX][8];

    (void)state;
    start("chatml");
    for (uint32_t i = 0; i < SESSION_CAST_COUNT_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "N%u", i);
        members[i] = human_of(names[i]);
    }
    const uint64_t session = open_with(ada_card, members, SESSION_CAST_COUNT_MAX - 3);
    struct request set = set_request(session);

    assert_int_equal(rig.reply.session.cast_count, SESSION_CAST_COUNT_MAX - 1);
    set.u.session_set.members = members + SESSION_CAST_COUNT_MAX - 2;
    set.u.session_set.member_count = 2;
    rig_execute(&rig, set);
    expect_refusal(STATUS_LIMIT, "speakers");
    assert_string_equal(rig.reply.error.limit_name, "SESSION_CAST_COUNT_MAX");
    set.u.session_set.member_count = 1;
    rig_execute(&rig, set);
    assert_int_equal(rig.reply.session.cast_count, SESSION_CAST_COUNT_MAX);
    /* All names and as many stop strings as may be. */
    static struct bytes stops[CUE_COUNT_MAX];
    struct request request = rig_generate(session, 1);

    for (uint32_t i = 0; i < CUE_COUNT_MAX; i++) {
        stops[i] = bytes_of_text(names[i % 8]);
    }
    request.u.generate.generation.sampler.stops = stops;
    request.u.generate.generation.sampler.stop_count = CUE_COUNT_MAX;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    stop();
}

static void rename_to(uint64_t session, uint32_t speaker, const char *name)
{
    struct request set = set_request(session);

    set.u.session_set.has_name = true;
    set.u.session_set.speaker = speaker;
    set.u.session_set.name = bytes_of_text(name);
    rig_execute(&rig, set);
}

static void test_who_has_spoken_keeps_the_name(void **state)
{
    (void)state;
    start("chatml");
    const struct request_member members[] = {human_of("Eve"), human_of("Dan")};
    const uint64_t session = open_with(ada_card, members, 2);

    rename_to(session, 2, "Eva");
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    append(session, 2, "Hello");
    assert_string_equal(generate(session, 1, "Good day"),
                        "<|im_start|>system\nYou are Ada.<|im_end|>\n"
                        "<|im_start|>user\nEva:\nHello<|im_end|>\n<|im_start|>assistant\n");
    rename_to(session, 2, "Evi");
    expect_refusal(STATUS_CONFLICT, "has spoken");
    rename_to(session, 2, "Eva"); /* the one it has */
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    rename_to(session, 0, "Me");
    expect_refusal(STATUS_CONFLICT, "prompts");
    rename_to(session, 1, "Ida");
    expect_refusal(STATUS_CONFLICT, "card");
    rename_to(session, 3, "Ada");
    expect_refusal(STATUS_CONFLICT, "Ada");
    rename_to(session, 9, "Who");
    expect_refusal(STATUS_BAD_INPUT, "speaker 9");
    stop();
}

static void test_a_joint_group_shares_one_view(void **state)
{
    static const char common[] = "<|im_start|>system\nYou are Ada.\n\nYou are Bob.<|im_end|>\n"
                                 "<|im_start|>user\nUser:\nHello<|im_end|>\n"
                                 "<|im_start|>assistant\nAda:\nGood day<|im_end|>\n";
    char expected[1024];

    (void)state;
    start("chatml");
    mode = GROUP_JOINT;
    const struct request_member members[] = {persona_of(bob_card), human_of("Eve")};
    const uint64_t session = open_with(ada_card, members, 2);

    assert_int_equal(rig.reply.session.group_mode, GROUP_JOINT);
    append(session, 0, "Hello");
    generate(session, 1, "Good day");
    snprintf(expected, sizeof(expected), "%s<|im_start|>assistant\nBob:\n", common);
    assert_string_equal(generate(session, 2, "You too"), expected);
    snprintf(expected, sizeof(expected),
             "%s<|im_start|>assistant\nBob:\nYou too<|im_end|>\n<|im_start|>user\nEve:\n", common);
    assert_string_equal(generate(session, 3, "Me"), expected);
    snprintf(expected, sizeof(expected),
             "%s<|im_start|>assistant\nBob:\nYou too<|im_end|>\n<|im_start|>user\nEve:\nMe"
             "<|im_end|>\n<|im_start|>assistant\nAda:\n",
             common);
    assert_string_equal(generate(session, 1, "Well"), expected);
    /* One scope for all, and each context is the one before and a little more. */
    for (uint32_t i = 1; i < 4; i++) {
        assert_int_equal(rig.engine->branches[i].scope.prompt,
                         rig.engine->branches[0].scope.prompt);
        assert_int_equal(rig.engine->branches[i].scope.prompt_token_count,
                         rig.engine->branches[0].scope.prompt_token_count);
    }
    assert_true(((const struct node *)table_find(&rig.store->nodes, rig.reply.nodes[0].id))
                    ->sampled->context->own_count <= 4);
    stop();
}

static void test_a_joint_transcript(void **state)
{
    (void)state;
    start("none");
    mode = GROUP_JOINT;
    const struct request_member members[] = {persona_of(bob_card)};
    const uint64_t session = open_with(ada_card, members, 1);

    append(session, 0, "Hello");
    generate(session, 1, " Good day");
    assert_string_equal(generate(session, 2, " You too"),
                        "You are Ada.\n\nYou are Bob.\n\nUser: Hello\nAda: Good day\nBob:");
    stop();
}

/* Its preamble stands in front from then on; what was sampled before keeps the context it had. */
static void test_who_joins_a_joint_group_changes_the_prompt(void **state)
{
    const struct context *before;
    uint32_t count;
    struct request set;
    uint64_t session, node;

    (void)state;
    start("chatml");
    mode = GROUP_JOINT;
    session = open_with(ada_card, NULL, 0);
    append(session, 0, "Hello");
    generate(session, 1, "Good day");
    node = rig.reply.nodes[0].id;
    before = ((const struct node *)table_find(&rig.store->nodes, node))->sampled->context;
    count = before->token_count;
    const struct request_member members[] = {persona_of(bob_card)};
    set = set_request(session);
    set.u.session_set.members = members;
    set.u.session_set.member_count = 1;
    rig_execute(&rig, set);
    assert_int_equal(rig.reply.type, REPLY_SESSION);
    assert_string_equal(generate(session, 2, "Hm"),
                        "<|im_start|>system\nYou are Ada.\n\nYou are Bob.<|im_end|>\n"
                        "<|im_start|>user\nUser:\nHello<|im_end|>\n"
                        "<|im_start|>assistant\nAda:\nGood day<|im_end|>\n"
                        "<|im_start|>assistant\nBob:\n");
    assert_int_equal(before->token_count, count);
    assert_int_equal(before->prompt->ids.count < count, true);
    stop();
}

static void test_a_joint_group_plays_alike(void **state)
{
    static const char plain[] =
        "{\"name\":\"P\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}";

    (void)state;
    start("chatml");
    mode = GROUP_JOINT;
    const struct request_member members[] = {persona_of(plain)};
    open_with(ada_card, members, 1);
    expect_refusal(STATUS_CONFLICT, "alike");
    open_with(plain, NULL, 0);
    expect_refusal(STATUS_CONFLICT, "plain");
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_persona_sees_the_others_named),
        cmocka_unit_test(test_transcripts_name_all),
        cmocka_unit_test(test_the_model_writes_a_humans_turn),
        cmocka_unit_test(test_another_version_of_a_persona_goes_on),
        cmocka_unit_test(test_every_name_is_a_cue),
        cmocka_unit_test(test_who_joins_is_named_from_then_on),
        cmocka_unit_test(test_names_that_mislead_are_refused),
        cmocka_unit_test(test_a_cast_has_a_bound),
        cmocka_unit_test(test_who_has_spoken_keeps_the_name),
        cmocka_unit_test(test_a_joint_group_shares_one_view),
        cmocka_unit_test(test_a_joint_transcript),
        cmocka_unit_test(test_who_joins_a_joint_group_changes_the_prompt),
        cmocka_unit_test(test_a_joint_group_plays_alike),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
