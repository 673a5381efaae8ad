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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
