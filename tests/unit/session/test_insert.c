/* Goal: notes and lore stand where they are said to, only there, and in force where they are said
 * to be; a window counts them. Method: conversations through a whole store, contexts as text
 * against texts written out by hand. test_context.c has the formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "session/author_note.h"
#include "session/context.h"
#include "session/state.h"
#include "unit/session/store_rig.h"

static const char card[] = "{\"name\":\"Ada\",\"description\":\"Be kind.\"}";
static const char note_card[] =
    "{\"name\":\"Ada\",\"description\":\"Be kind.\",\"post_history_instructions\":\"Stay short.\","
    "\"first_mes\":\"Welcome.\",\"extensions\":{\"depth_prompt\":{\"prompt\":\"{{char}} is "
    "tired.\",\"depth\":1,\"role\":\"user\"}}}";

static struct rig rig;

static void start(const char *format)
{
    rig_init(&rig, "smollm", format);
}

static void stop(void)
{
    rig_finish(&rig);
    assert_int_equal(memory_live_count(), 0);
}

static uint64_t last_node(void)
{
    return rig.reply.nodes[rig.reply.node_count - 1].id;
}

static void finish_reply(const char *text)
{
    const uint32_t branch = rig.engine->branch_count - 1;

    fake_engine_emit_text(rig.engine, branch, text);
    fake_engine_end(rig.engine, branch, FINISH_END, STATUS_OK);
    rig_settle(&rig);
}

/* A turn of the user and a reply; the reply's context. */
static const char *say(uint64_t session, const char *text, const char *reply)
{
    rig_execute(&rig, rig_say(session, text));
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    finish_reply(reply);
    return rig_context(&rig, rig.engine->branch_count - 1);
}

static struct request note_request(uint64_t session, const char *text, uint32_t depth)
{
    struct request request = rig_request(REQUEST_NOTE);

    request.u.note.session = session;
    request.u.note.has_text = text != NULL;
    request.u.note.text = bytes_of_text(text != NULL ? text : "");
    request.u.note.depth = depth;
    return request;
}

static void note(uint64_t session, const char *text, uint32_t depth)
{
    rig_execute(&rig, note_request(session, text, depth));
    assert_int_equal(rig.reply.type, REPLY_DONE);
}

static void test_a_note_stands_so_many_turns_from_the_end(void **state)
{
    static const struct {
        uint32_t depth;
        const char *context;
    } cases[] = {
        {0, "One<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>\n<|im_start|>user\nThree"
            "<|im_end|>\n<|im_start|>system\nIt rains.<|im_end|>\n<|im_start|>assistant\n"},
        {1, "One<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>\n<|im_start|>system\nIt rains."
            "<|im_end|>\n<|im_start|>user\nThree<|im_end|>\n<|im_start|>assistant\n"},
        {2, "One<|im_end|>\n<|im_start|>system\nIt rains.<|im_end|>\n<|im_start|>assistant\nTwo"
            "<|im_end|>\n<|im_start|>user\nThree<|im_end|>\n<|im_start|>assistant\n"},
    };
    char expected[512];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        start("chatml");
        const uint64_t session = rig_open_session(&rig, rig_put(&rig, card));

        say(session, "One", "Two");
        note(session, "It rains.", cases[i].depth);
        snprintf(expected, sizeof(expected),
                 "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n%s", cases[i].context);
        assert_string_equal(say(session, "Three", "Four"), expected);
        stop();
    }
    /* Deeper than the conversation: right behind the prompt. */
    for (uint32_t depth = 3; depth < 6; depth++) {
        start("chatml");
        const uint64_t session = rig_open_session(&rig, rig_put(&rig, card));

        say(session, "One", "Two");
        note(session, "It rains.", depth);
        assert_string_equal(
            say(session, "Three", "Four"),
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>system\nIt rains.<|im_end|>\n"
            "<|im_start|>user\nOne<|im_end|>\n<|im_start|>assistant\nTwo<|im_end|>\n"
            "<|im_start|>user\nThree<|im_end|>\n<|im_start|>assistant\n");
        stop();
    }
}

static void test_a_transcript_has_notes_in_brackets(void **state)
{
    (void)state;
    start("none");
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, card));

    note(session, "It rains.", 1);
    assert_string_equal(say(session, "One", " Two"), "Be kind.\n\n(It rains.)\nUser: One\nAda:");
    assert_string_equal(say(session, "Three", " Four"),
                        "Be kind.\n\nUser: One\nAda: Two\n(It rains.)\nUser: Three\nAda:");
    stop();
}

/* In the order: the card's note, the author's, the instruction; and in the greeting's way. */
static void test_what_the_card_inserts(void **state)
{
    (void)state;
    start("chatml");
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, note_card));

    note(session, "It rains.", 0);
    assert_string_equal(
        say(session, "One", "Two"),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>assistant\nWelcome.<|im_end|>\n"
        "<|im_start|>user\nAda is tired.<|im_end|>\n<|im_start|>user\nOne<|im_end|>\n"
        "<|im_start|>system\nIt rains.<|im_end|>\n<|im_start|>system\nStay short.<|im_end|>\n"
        "<|im_start|>assistant\n");
    /* What an insert in front of the greeting makes private is not shared. */
    const uint32_t shared = rig.engine->branches[0].scope.prompt_token_count;

    note(session, "It rains.", 9);
    say(session, "Three", "Four");
    assert_true(rig.engine->branches[1].scope.prompt_token_count < shared);
    stop();
}

static void test_a_note_is_in_force_below_its_place(void **state)
{
    struct request request;
    uint64_t session, first, second;

    (void)state;
    start("chatml");
    session = rig_open_session(&rig, rig_put(&rig, card));
    say(session, "One", "Two");
    first = last_node();
    note(session, "It rains.", 0);
    assert_non_null(strstr(say(session, "Three", "Four"), "It rains."));
    second = last_node();
    note(session, "It snows.", 0);
    assert_non_null(strstr(say(session, "Five", "Six"), "It snows."));
    assert_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "It rains."));
    /* A branch from before the second sees the first; one from before both sees none. */
    request = rig_say(session, "Five");
    request.u.say.has_position = true;
    request.u.say.position = (struct position){first, OFFSET_END};
    rig_execute(&rig, request);
    assert_non_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "It rains."));
    finish_reply("x");
    request.u.say.position = (struct position){0, 0};
    rig_execute(&rig, request);
    assert_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "rains."));
    finish_reply("x");
    /* An offset in front of the note's. */
    request.u.say.position = (struct position){first, 0};
    rig_execute(&rig, request);
    assert_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "rains."));
    finish_reply("x");
    /* Off from the second place on, and on again where what was set there is taken away. */
    request = note_request(session, "", 0);
    request.u.note.has_position = true;
    request.u.note.position = (struct position){second, OFFSET_END};
    rig_execute(&rig, request);
    request = rig_say(session, "Seven");
    request.u.say.has_position = true;
    request.u.say.position = (struct position){second, OFFSET_END};
    rig_execute(&rig, request);
    assert_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "It "));
    finish_reply("x");
    request = note_request(session, NULL, 0);
    request.u.note.clear = true;
    request.u.note.has_position = true;
    request.u.note.position = (struct position){second, OFFSET_END};
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.type, REPLY_DONE);
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.error.status, STATUS_NOT_FOUND);
    request = rig_say(session, "Nine");
    request.u.say.has_position = true;
    request.u.say.position = (struct position){second, OFFSET_END};
    rig_execute(&rig, request);
    assert_non_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "It rains."));
    stop();
}

/* Going on changes nothing of what the reply saw. */
static void test_a_continued_reply_has_its_parents_inserts(void **state)
{
    char before[4096];
    struct request request;

    (void)state;
    start("chatml");
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, note_card));

    note(session, "It rains.", 0);
    rig_execute(&rig, rig_say(session, "One"));
    snprintf(before, sizeof(before), "%s", rig_context(&rig, 0));
    fake_engine_emit_text(rig.engine, 0, "Two and");
    fake_engine_end(rig.engine, 0, FINISH_LENGTH, STATUS_OK);
    rig_settle(&rig);
    request = rig_generate(session, 1);
    request.u.generate.continuing = true;
    rig_execute(&rig, request);
    snprintf(before + strlen(before), sizeof(before) - strlen(before), "Two and");
    assert_string_equal(rig_context(&rig, 1), before);
    stop();
}

static void test_an_edited_way_keeps_its_notes(void **state)
{
    struct request edit = rig_request(REQUEST_EDIT);

    (void)state;
    start("chatml");
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, card));

    say(session, "One", "Two");
    edit.u.edit.node = rig.reply.nodes[0].id;
    note(session, "It rains.", 0);
    say(session, "Three", "Four");
    edit.u.edit.to_byte = OFFSET_END;
    edit.u.edit.text = bytes_of_text("Uno");
    edit.u.edit.carry = true;
    rig_execute(&rig, edit);
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    assert_non_null(strstr(say(session, "Five", "Six"), "It rains."));
    assert_non_null(strstr(rig_context(&rig, rig.engine->branch_count - 1), "Uno"));
    stop();
}

/* Whatever stands in the way: the context and a token fit, and the note is there. */
static void test_a_window_counts_what_is_inserted(void **state)
{
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    uint32_t left_out = 0;

    (void)state;
    start("chatml");
    open.u.session_open.persona = rig_put(&rig, note_card);
    open.u.session_open.context_tokens = 256;
    rig_execute(&rig, open);
    const uint64_t session = rig.reply.id;

    note(session, "one two three four five six seven eight nine ten one two three four five", 30);
    for (uint32_t i = 0; i < 30; i++) {
        struct request request = rig_say(session, "one two three four five six seven eight nine");
        const char *context;

        request.u.say.generation.sampler.has_max_tokens = true;
        request.u.say.generation.sampler.max_tokens = 30;
        rig_execute(&rig, request);
        assert_int_equal(rig.reply.type, REPLY_CREATED);
        assert_true(rig.reply.nodes[1].context_token_count + 1 <= 256);
        left_out = rig.reply.nodes[1].turns_left_out;
        context = rig_context(&rig, i);
        assert_non_null(strstr(context, "<|im_start|>system\none two three"));
        assert_non_null(strstr(context, "Ada is tired."));
        finish_reply("a b c d e f g h i j k l m n o p q r s t");
    }
    assert_true(left_out > 20);
    /* One that leaves no room at all. */
    char text[4096];

    memset(text, 'x', sizeof(text) - 1);
    for (size_t i = 1; i < sizeof(text); i += 2) {
        text[i] = ' ';
    }
    text[sizeof(text) - 1] = '\0';
    note(session, text, 0);
    rig_execute(&rig, rig_say(session, "Hello"));
    assert_int_equal(rig.reply.error.status, STATUS_LIMIT);
    assert_string_equal(rig.reply.error.limit_name, "context_tokens");
    stop();
}

static void test_what_a_note_refuses(void **state)
{
    static const char plain[] =
        "{\"name\":\"P\",\"extensions\":{\"personad\":{\"play\":\"plain\"}}}";
    struct request request;

    (void)state;
    start("chatml");
    rig_execute(&rig, note_request(rig_open_session(&rig, rig_put(&rig, plain)), "x", 0));
    assert_int_equal(rig.reply.error.status, STATUS_CONFLICT);
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, card));

    request = note_request(session, "x", 0);
    request.uid = RIG_UID + 1;
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.error.status, STATUS_DENIED);
    request = note_request(session, "x", 0);
    request.u.note.has_position = true;
    request.u.note.position = (struct position){999, 0};
    rig_execute(&rig, request);
    assert_int_equal(rig.reply.error.status, STATUS_NOT_FOUND);
    stop();
}

/* ---- lore ---- */

#define BOOK(more, entries)                                                                \
    "{\"spec\":\"chara_card_v2\",\"data\":{\"name\":\"Ada\",\"description\":\"Be kind.\"," \
    "\"character_book\":{" more "\"entries\":[" entries "]}}}"

static const char lore_card[] = BOOK(
    "\"scan_depth\":2,",
    "{\"keys\":[\"lamp\",\"Lantern\"],\"content\":\"The lamp is "
    "{{char}}'s.\",\"insertion_order\":2},"
    "{\"keys\":[\"SEA\"],\"content\":\"The sea is cold.\",\"insertion_order\":1,"
    "\"position\":\"after_char\"},"
    "{\"keys\":[\"Fog\"],\"case_sensitive\":true,\"content\":\"Fog hides.\"},"
    "{\"keys\":[\"dog\"],\"selective\":true,\"secondary_keys\":[\"black\"],"
    "\"content\":\"The dog is Rex.\"},"
    "{\"keys\":[\"rain\"],\"enabled\":false,\"content\":\"Never.\"},"
    "{\"keys\":[],\"constant\":true,\"content\":\"Always before.\",\"insertion_order\":5},"
    "{\"keys\":[],\"constant\":true,\"content\":\"Always first.\",\"insertion_order\":4},"
    "{\"keys\":[],\"constant\":true,\"content\":\"Always after.\",\"position\":\"after_char\"},"
    "{\"keys\":[\"bell\"],\"content\":\"@@depth 0\\n@@role user\\nThe bell rings.\"},"
    "{\"keys\":[\"gull\"],\"content\":\"A gull cries.\",\"extensions\":{\"position\":4,"
    "\"depth\":1,\"role\":2,\"scan_depth\":4}}");

static const char lore_front[] = "<|im_start|>system\nAlways first.\nAlways before.\nBe kind.\n"
                                 "Always after.<|im_end|>\n";

static void expect_lore(const char *text, const char *context)
{
    char expected[1024];
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, lore_card));

    snprintf(expected, sizeof(expected), "%s%s", lore_front, context);
    assert_string_equal(say(session, text, "Hm"), expected);
}

static void test_lore_is_called_up_by_its_keys(void **state)
{
    (void)state;
    start("chatml");
    expect_lore("Nothing", "<|im_start|>user\nNothing<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("A LAMP", "<|im_start|>system\nThe lamp is Ada's.<|im_end|>\n"
                          "<|im_start|>user\nA LAMP<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("lanterns at sea",
                "<|im_start|>system\nThe sea is cold.<|im_end|>\n"
                "<|im_start|>system\nThe lamp is Ada's.<|im_end|>\n"
                "<|im_start|>user\nlanterns at sea<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("fog", "<|im_start|>user\nfog<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("Fog", "<|im_start|>system\nFog hides.<|im_end|>\n"
                       "<|im_start|>user\nFog<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("a dog", "<|im_start|>user\na dog<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("a black dog", "<|im_start|>system\nThe dog is Rex.<|im_end|>\n"
                               "<|im_start|>user\na black dog<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("rain", "<|im_start|>user\nrain<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("a bell", "<|im_start|>user\na bell<|im_end|>\n<|im_start|>user\nThe bell rings."
                          "<|im_end|>\n<|im_start|>assistant\n");
    expect_lore("a gull", "<|im_start|>assistant\nA gull cries.<|im_end|>\n"
                          "<|im_start|>user\na gull<|im_end|>\n<|im_start|>assistant\n");
    stop();
}

/* Two turns back by default, four for the gull. */
static void test_lore_looks_only_so_far_back(void **state)
{
    (void)state;
    start("chatml");
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, lore_card));

    say(session, "lamp and gull", "Hm");
    assert_non_null(strstr(say(session, "Two", "Hm"), "cries"));
    assert_null(strstr(rig_context(&rig, 1), "Ada's"));
    assert_null(strstr(say(session, "Three", "The lamp"), "cries"));
    assert_non_null(strstr(say(session, "Four", "Hm"), "Ada's"));
    stop();
}

/* "ten words" costs some tokens; the budget holds two of three, and the least important goes. */
static void test_a_budget_leaves_out_the_least_important(void **state)
{
    static const char budget_card[] = BOOK(
        "\"token_budget\":24,", "{\"keys\":[\"x\"],\"priority\":1,\"insertion_order\":1,"
                                "\"content\":\"one one one one one one one one one one\"},"
                                "{\"keys\":[\"x\"],\"priority\":3,\"insertion_order\":3,"
                                "\"content\":\"two two two two two two two two two two\"},"
                                "{\"keys\":[\"x\"],\"priority\":2,\"insertion_order\":2,"
                                "\"content\":\"three three three three three three three three\"}");

    (void)state;
    start("chatml");
    const char *context = say(rig_open_session(&rig, rig_put(&rig, budget_card)), "x", "Hm");

    assert_null(strstr(context, "one"));
    assert_non_null(strstr(context, "three three"));
    assert_non_null(strstr(context, "two two"));
    assert_true(strstr(context, "three") < strstr(context, "two"));
    stop();
}

/* A damaged book is refused, but not where it was stored before books were read. */
static void test_a_damaged_book(void **state)
{
    static const struct {
        const char *card, *word;
    } cases[] = {
        {BOOK("", "3"), "entries[0]"},
        {BOOK("", "{\"keys\":3,\"content\":\"\"}"), "entries[0].keys"},
        {BOOK("", "{\"keys\":[]},{\"keys\":[4]}"), "keys"},
        {BOOK("", "{\"keys\":[],\"enabled\":\"no\"}"), "enabled"},
        {BOOK("", "{\"keys\":[],\"priority\":\"high\"}"), "priority"},
        {BOOK("\"scan_depth\":\"2\",", ""), "scan_depth"},
        {"{\"name\":\"A\",\"character_book\":7}", "character_book"},
        {"{\"name\":\"A\",\"extensions\":{\"depth_prompt\":\"x\"}}", "depth_prompt"},
    };
    struct error error = {0};
    struct card *parsed = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(card_parse(bytes_of_text(cases[i].card), &error, &parsed),
                         STATUS_BAD_INPUT);
        assert_non_null(strstr(error.text, cases[i].word));
        assert_int_equal(card_parse_stored(bytes_of_text(cases[i].card), &error, &parsed),
                         STATUS_OK);
        assert_int_equal(parsed->lore_count, 0);
        card_destroy(parsed);
    }
    /* Careless, but meant. */
    assert_int_equal(
        card_parse(bytes_of_text(BOOK("\"scan_depth\":null,\"token_budget\":1e99,",
                                      "{\"keys\":null,\"content\":null,\"position\":\"\","
                                      "\"insertion_order\":-5.5,\"id\":\"x\",\"extensions\":{"
                                      "\"position\":4,\"depth\":-3,\"role\":9}}")),
                   &error, &parsed),
        STATUS_OK);
    assert_int_equal(parsed->lore[0].depth, 0);
    assert_int_equal(parsed->lore[0].role, INSERT_PERSONA);
    card_destroy(parsed);
    assert_int_equal(memory_live_count(), 0);
}

/* What the journal or a file of another daemon holds is read as hostile input. */
static void test_damaged_inserts_are_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        enum status status;
    } cases[] = {
        {"", 0, STATUS_OK},
        {"\0\0\0\0\0\0\0\0\2\0\0\0ab", 14, STATUS_OK},
        {"\1\0\0\0\7\0\0\0\1\0\0\0x", 13, STATUS_OK}, /* of another card: left out */
        {"\0\0\0\0\0\0\0\0\2\0\0\0a", 13, STATUS_BAD_INPUT},
        {"\0\0\0\0\0\0\0\0\0\0\0\0", 12, STATUS_BAD_INPUT},
        {"\2\0\0\0\0\0\0\0\1\0\0\0x", 13, STATUS_BAD_INPUT},
        {"\0\0\0\0\0\0\0\0\1\0\0\0\xff", 13, STATUS_BAD_INPUT},
        {"\0\0\0\0\0\0\0\0\xff\xff\xff\xffx", 13, STATUS_BAD_INPUT},
        {"\0\0\0", 3, STATUS_BAD_INPUT},
    };
    struct error error = {0};
    struct card *parsed = NULL;

    (void)state;
    assert_int_equal(card_parse(bytes_of_text(card), &error, &parsed), STATUS_OK);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct prompt_inserts inserts = {0};

        assert_int_equal(
            prompt_insert_restore(bytes_of(cases[i].bytes, cases[i].size), parsed, &inserts),
            cases[i].status);
        prompt_insert_finish(&inserts);
    }
    card_destroy(parsed);
    assert_int_equal(memory_live_count(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_note_stands_so_many_turns_from_the_end),
        cmocka_unit_test(test_a_transcript_has_notes_in_brackets),
        cmocka_unit_test(test_what_the_card_inserts),
        cmocka_unit_test(test_a_note_is_in_force_below_its_place),
        cmocka_unit_test(test_a_continued_reply_has_its_parents_inserts),
        cmocka_unit_test(test_an_edited_way_keeps_its_notes),
        cmocka_unit_test(test_a_window_counts_what_is_inserted),
        cmocka_unit_test(test_what_a_note_refuses),
        cmocka_unit_test(test_lore_is_called_up_by_its_keys),
        cmocka_unit_test(test_lore_looks_only_so_far_back),
        cmocka_unit_test(test_a_budget_leaves_out_the_least_important),
        cmocka_unit_test(test_a_damaged_book),
        cmocka_unit_test(test_damaged_inserts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
