/* Goal: what the model sees is what its own template would have written, for every format; the
 * stored difference gives it back; the window and other personas change what they should.
 * Method: conversations through a whole store with vocabularies of real models; the contexts of
 * their branches, written with the vocabulary's names, against texts written out by hand from the
 * published templates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "session/context.h"
#include "session/state.h"
#include "session/template.h"
#include "unit/session/store_rig.h"

static const char card[] = "{\"name\":\"Ada\",\"description\":\"Be kind to {{user}}.\"}";
static const char bare_card[] = "{\"name\":\"Ada\"}";
static const char greeting_card[] =
    "{\"spec\":\"chara_card_v2\",\"data\":{\"name\":\"Ada\",\"description\":\"Be kind.\","
    "\"first_mes\":\"Welcome.\",\"mes_example\":\"<START>\\n{{user}}: One?\\n{{char}}: Two.\\n\","
    "\"post_history_instructions\":\"Stay short.\"}}";

static struct rig rig;

static uint32_t find_mark(const char *name)
{
    const struct vocabulary *vocabulary = &rig.vocabulary.vocabulary;
    uint32_t id = 0;

    while (id < vocabulary->token_count &&
           !bytes_equal(vocabulary->tokens[id], bytes_of_text(name))) {
        id++;
    }
    return id;
}

/* A control token, a new one if need be; its id. */
static uint32_t add_mark(const char *name)
{
    struct vocabulary *vocabulary = &rig.vocabulary.vocabulary;
    const uint32_t found = find_mark(name);

    if (found < vocabulary->token_count) {
        rig.vocabulary.types[found] = TOKEN_CONTROL;
        return found;
    }
    const uint32_t id = vocabulary->token_count++;
    const uint32_t count = vocabulary->token_count;

    rig.vocabulary.tokens = realloc(rig.vocabulary.tokens, count * sizeof(struct bytes));
    rig.vocabulary.types = realloc(rig.vocabulary.types, count);
    assert_true(rig.vocabulary.tokens != NULL && rig.vocabulary.types != NULL);
    rig.vocabulary.tokens[id] = bytes_of_text(name);
    rig.vocabulary.types[id] = TOKEN_CONTROL;
    vocabulary->tokens = rig.vocabulary.tokens;
    vocabulary->types = rig.vocabulary.types;
    if (rig.vocabulary.scores != NULL) {
        rig.vocabulary.scores = realloc(rig.vocabulary.scores, count * sizeof(float));
        assert_non_null(rig.vocabulary.scores);
        rig.vocabulary.scores[id] = 0;
        vocabulary->scores = rig.vocabulary.scores;
    }
    return id;
}

/* The vocabulary of a fixture, with the marks of the model families that have it. */
static void start(const char *name, const char *format)
{
    struct vocabulary *vocabulary = &rig.vocabulary.vocabulary;

    memset(&rig, 0, sizeof(rig));
    vocabulary_fixture_load(name, 0, &rig.vocabulary);
    if (strcmp(format, "gemma") == 0) {
        add_mark("<start_of_turn>");
        add_mark("<end_of_turn>");
        vocabulary->add_space_prefix = false;
    }
    if (strcmp(name, "spm") == 0) {
        vocabulary->bos = add_mark("<s>");
        vocabulary->eos = add_mark("</s>");
        vocabulary->add_bos = true;
    }
    if (strcmp(name, "llama3") == 0) {
        vocabulary->bos = add_mark("<|begin_of_text|>");
        vocabulary->eos = add_mark("<|end_of_text|>");
        add_mark("<|start_header_id|>");
        add_mark("<|end_header_id|>");
        add_mark("<|eot_id|>");
    }
    assert_int_equal(tokenizer_create(vocabulary, NULL, &rig.tokenizer), STATUS_OK);
    rig_restart(&rig, format);
}

static void stop(void)
{
    rig_finish(&rig);
    assert_int_equal(memory_live_count(), 0);
}

/* Two turns of a conversation; the context of the second reply. */
static const char *converse(const char *persona)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, persona));

    rig_execute(&rig, rig_say(session, "Hello"));
    assert_int_equal(rig.reply.type, REPLY_CREATED);
    fake_engine_emit_text(rig.engine, rig.engine->branch_count - 1, "Good day");
    fake_engine_end(rig.engine, rig.engine->branch_count - 1, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    rig_execute(&rig, rig_say(session, "And now?"));
    return rig_context(&rig, rig.engine->branch_count - 1);
}

static void test_chatml(void **state)
{
    (void)state;
    start("smollm", "chatml");
    assert_string_equal(converse(card),
                        "<|im_start|>system\nBe kind to User.<|im_end|>\n"
                        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nGood day"
                        "<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n"
                        "<|im_start|>assistant\n");
    assert_string_equal(converse(bare_card),
                        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nGood day"
                        "<|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>\n"
                        "<|im_start|>assistant\n");
    assert_string_equal(
        converse(greeting_card),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n"
        "<|im_start|>assistant\nTwo.<|im_end|>\n<|im_start|>assistant\nWelcome.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nGood day<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>system\nStay short.<|im_end|>\n"
        "<|im_start|>assistant\n");
    stop();
}

static void test_llama3(void **state)
{
    (void)state;
    start("llama3", "llama3");
    assert_string_equal(
        converse(card),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind to User."
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nGood day<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd now?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
    stop();
}

static void test_llama2(void **state)
{
    (void)state;
    start("spm", "llama2");
    /* SentencePiece writes the blank that stands before the first word. */
    assert_string_equal(converse(card),
                        "<s> [INST] <<SYS>>\nBe kind to User.\n<</SYS>>\n\nHello [/INST]Good day"
                        "</s><s> [INST] And now? [/INST]");
    assert_string_equal(converse(bare_card),
                        "<s> [INST] Hello [/INST]Good day</s><s> [INST] And now? [/INST]");
    assert_string_equal(converse(greeting_card),
                        "<s> [INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nOne? [/INST] Two.</s><s>"
                        " Welcome.</s><s> [INST] Hello [/INST]Good day</s><s> [INST] And now?\n\n"
                        "Stay short. [/INST]");
    stop();
}

static void test_mistral(void **state)
{
    (void)state;
    start("spm", "mistral");
    assert_string_equal(converse(card), "<s> [INST] Be kind to User.\n\nHello [/INST]Good day</s>"
                                        " [INST] And now? [/INST]");
    stop();
    start("llama3", "mistral"); /* byte-level BPE: no blanks */
    assert_string_equal(converse(card),
                        "<|begin_of_text|>[INST]Be kind to User.\n\nHello[/INST]Good day"
                        "<|end_of_text|>[INST]And now?[/INST]");
    stop();
}

static void test_gemma(void **state)
{
    (void)state;
    start("spm", "gemma");
    assert_string_equal(converse(card),
                        "<s><start_of_turn>user\nBe kind to User.\n\nHello<end_of_turn>\n"
                        "<start_of_turn>model\nGood day<end_of_turn>\n<start_of_turn>user\n"
                        "And now?<end_of_turn>\n<start_of_turn>model\n");
    stop();
}

/* The second reply of a conversation with a note in front of the user's last turn. */
static const char *converse_with_note(const char *persona)
{
    const uint64_t session = rig_open_session(&rig, rig_put(&rig, persona));
    struct request note = rig_request(REQUEST_NOTE);

    note.u.note.session = session;
    note.u.note.has_text = true;
    note.u.note.text = bytes_of_text("It rains.");
    note.u.note.depth = 1;
    rig_execute(&rig, note);
    assert_int_equal(rig.reply.type, REPLY_DONE);
    rig_execute(&rig, rig_say(session, "Hello"));
    fake_engine_emit_text(rig.engine, rig.engine->branch_count - 1, "Good day");
    fake_engine_end(rig.engine, rig.engine->branch_count - 1, FINISH_END, STATUS_OK);
    rig_settle(&rig);
    rig_execute(&rig, rig_say(session, "And now?"));
    return rig_context(&rig, rig.engine->branch_count - 1);
}

/* Formats that keep the system text in the user's turn keep notes there. */
static void test_notes_stand_where_the_format_has_system_text(void **state)
{
    (void)state;
    start("llama3", "llama3");
    assert_string_equal(
        converse_with_note(bare_card),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nGood day<|eot_id|>"
        "<|start_header_id|>system<|end_header_id|>\n\nIt rains.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd now?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
    stop();
    start("spm", "llama2");
    assert_string_equal(converse_with_note(card),
                        "<s> [INST] <<SYS>>\nBe kind to User.\n<</SYS>>\n\nHello [/INST]Good day"
                        "</s><s> [INST] It rains.\n\n And now? [/INST]");
    stop();
    start("llama3", "mistral");
    assert_string_equal(converse_with_note(card),
                        "<|begin_of_text|>[INST]Be kind to User.\n\nHello[/INST]Good day"
                        "<|end_of_text|>[INST]It rains.\n\nAnd now?[/INST]");
    stop();
    start("spm", "gemma");
    assert_string_equal(converse_with_note(card),
                        "<s><start_of_turn>user\nBe kind to User.\n\nHello<end_of_turn>\n"
                        "<start_of_turn>model\nGood day<end_of_turn>\n<start_of_turn>user\n"
                        "It rains.\n\nAnd now?<end_of_turn>\n<start_of_turn>model\n");
    stop();
}

static void test_transcripts_name_the_speakers(void **state)
{
    (void)state;
    start("smollm", "none");
    assert_string_equal(converse(card),
                        "Be kind to User.\n\nUser: Hello\nAda:Good day\nUser: And now?\nAda:");
    assert_string_equal(converse(greeting_card),
                        "Be kind.\n\nUser: One?\nAda: Two.\nAda: Welcome.\nUser: Hello\n"
                        "Ada:Good day\nUser: And now?\n(Stay short.)\nAda:");
    stop();
}

static void test_a_name_in_a_transcript_is_only_text(void **state)
{
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    uint32_t mark;

    (void)state;
    start("smollm", "none");
    mark = tokenizer_find(rig.tokenizer, bytes_of_text("<|im_end|>"));
    open.u.session_open.persona = rig_put(&rig, bare_card);
    open.u.session_open.user_name = bytes_of_text("<|im_end|>");
    rig_execute(&rig, open);
    rig_execute(&rig, rig_say(rig.reply.id, "Hello"));
    assert_string_equal(rig_context(&rig, 0), "<|im_end|>: Hello\nAda:");
    for (uint32_t i = 0; i < rig.engine->branches[0].context_count; i++) {
        assert_int_not_equal(rig.engine->branches[0].context[i], mark);
    }
    stop();
}

static void test_formats_are_recognised_by_the_models_template(void **state)
{
    static const struct {
        const char *vocabulary, *text, *format;
    } cases[] = {
        {"smollm", "{{'<|im_start|>' + message['role']}}", "chatml"},
        {"llama3", "{{ '<|start_header_id|>' }}", "llama3"},
        {"spm", "{{ '[INST] <<SYS>>' }}", "llama2"},
        {"spm", "{{ '[INST] ' }}", "mistral"},
        {"spm", "{{ '<|im_start|>' }}", "none"}, /* tokens that it does not have */
        {"smollm", "", "none"},
    };
    enum template_format format;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct request info = rig_request(REQUEST_INFO);

        start(cases[i].vocabulary, "none");
        rig.vocabulary.vocabulary.chat_template = bytes_of_text(cases[i].text);
        rig_restart(&rig, NULL);
        rig_execute(&rig, info);
        assert_string_equal(rig.reply.text, cases[i].format);
        stop();
    }
    start("spm", "none");
    {
        struct encoder encoder;
        struct error error = {0};

        assert_int_equal(encoder_init(&encoder, rig.tokenizer), STATUS_OK);
        assert_int_equal(template_detect(&encoder, "chatml", &error, &format), STATUS_UNSUPPORTED);
        assert_non_null(strstr(error.text, "<|im_start|>"));
        assert_int_equal(template_detect(&encoder, "vicuna", &error, &format), STATUS_UNSUPPORTED);
        encoder_finish(&encoder);
    }
    stop();
}

static void test_a_continued_turn_has_its_parents_context_and_content(void **state)
{
    char before[4096];
    uint64_t session;
    struct request request;

    (void)state;
    start("smollm", "chatml");
    session = rig_open_session(&rig, rig_put(&rig, greeting_card));
    rig_execute(&rig, rig_say(session, "Hello"));
    snprintf(before, sizeof(before), "%s", rig_context(&rig, 0));
    fake_engine_emit_text(rig.engine, 0, "Good day to you");
    fake_engine_end(rig.engine, 0, FINISH_LENGTH, STATUS_OK);
    rig_settle(&rig);
    request = rig_generate(session, 1);
    request.u.generate.continuing = true;
    rig_execute(&rig, request);
    snprintf(before + strlen(before), sizeof(before) - strlen(before), "Good day to you");
    assert_string_equal(rig_context(&rig, 1), before);
    assert_int_equal(rig.engine->branches[1].spec->lead_in_bytes, strlen("Good day to you"));
    /* The greeting's frame and the prompt are the scope's; the rest is the session's. */
    assert_int_equal(rig.engine->branches[1].scope.prompt_token_count,
                     rig.engine->branches[0].scope.prompt_token_count);
    stop();
}

static void test_the_model_may_write_the_users_turn(void **state)
{
    struct request request;
    uint64_t session;

    (void)state;
    start("smollm", "chatml");
    session = rig_open_session(&rig, rig_put(&rig, card));
    request = rig_generate(session, 1);
    request.u.generate.has_speaker = true;
    request.u.generate.speaker = 0;
    rig_execute(&rig, request);
    assert_string_equal(rig_context(&rig, 0),
                        "<|im_start|>system\nBe kind to User.<|im_end|>\n<|im_start|>user\n");
    assert_int_equal(rig.reply.nodes[0].speaker, 0);
    stop();
}

/* Turns of 40 tokens until the window has moved twice. */
static void test_a_long_conversation_slides_and_children_inherit_the_cut(void **state)
{
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    struct node_view view;
    uint32_t moves = 0;
    uint32_t left_out = 0;
    uint64_t session;

    (void)state;
    start("smollm", "chatml");
    open.u.session_open.persona = rig_put(&rig, greeting_card);
    open.u.session_open.context_tokens = 512;
    rig_execute(&rig, open);
    session = rig.reply.id;
    for (uint32_t i = 0; i < 40; i++) {
        struct request say = rig_say(session, "one two three four five six seven eight nine ten "
                                              "one two three four five six seven eight nine ten");

        say.u.say.generation.sampler.has_max_tokens = true;
        say.u.say.generation.sampler.max_tokens = 30;
        rig_execute(&rig, say);
        assert_int_equal(rig.reply.type, REPLY_CREATED);
        view = rig.reply.nodes[1];
        assert_true(view.turns_left_out >= left_out);
        moves += view.turns_left_out != left_out;
        left_out = view.turns_left_out;
        assert_true(view.context_token_count + 30 <= 512);
        /* The prompt always stays. */
        assert_memory_equal(rig_context(&rig, i), "<|im_start|>system\nBe kind.", 27);
        fake_engine_emit_text(rig.engine, i, "a b c d e f g h i j k l m n o p q r s t");
        fake_engine_end(rig.engine, i, FINISH_END, STATUS_OK);
        rig_settle(&rig);
    }
    assert_true(left_out > 20);
    assert_true(moves > 3 && moves < 15);
    /* Once it has moved, the greeting is a turn that is gone: only the prompt is shared. */
    assert_true(rig.engine->branches[39].scope.prompt_token_count <
                rig.engine->branches[0].scope.prompt_token_count);
    stop();
}

/* The ids of a stored context, segment by segment, against what was lent. */
static void check_stored(uint64_t id, uint32_t branch)
{
    const struct node *node = table_find(&rig.store->nodes, id);
    const struct context *context = node->sampled->context;
    const uint32_t count = context_segment_count(context);
    struct segment *segments = calloc(count, sizeof(*segments));
    const struct fake_branch *lent = &rig.engine->branches[branch];
    uint32_t at = 0;

    assert_non_null(segments);
    context_segments(context, segments);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(at + segments[i].count <= lent->context_count);
        assert_memory_equal(context_segment_ids(&segments[i]), lent->context + at,
                            segments[i].count * sizeof(uint32_t));
        at += segments[i].count;
    }
    assert_int_equal(at, lent->context_count);
    free(segments);
}

static void test_a_stored_context_is_a_difference_that_gives_it_back(void **state)
{
    uint64_t ids[30];
    uint64_t session;

    (void)state;
    start("smollm", "chatml");
    session = rig_open_session(&rig, rig_put(&rig, greeting_card));
    for (uint32_t i = 0; i < 30; i++) {
        const struct node *node;

        rig_execute(&rig, rig_say(session, "one two three"));
        ids[i] = rig.reply.nodes[1].id;
        fake_engine_emit_text(rig.engine, i, "four five");
        fake_engine_end(rig.engine, i, FINISH_END, STATUS_OK);
        rig_settle(&rig);
        node = table_find(&rig.store->nodes, ids[i]);
        /* Two turns and their frames more than the reply before, however long the path is. */
        assert_true(i == 0 || node->sampled->context->own_count <= 6);
    }
    for (uint32_t i = 0; i < 30; i++) {
        check_stored(ids[i], i);
    }
    stop();
}

static void test_a_turn_that_cannot_fit_is_a_limit(void **state)
{
    struct request open = rig_request(REQUEST_SESSION_OPEN);
    char text[1500];
    uint64_t persona;

    (void)state;
    start("smollm", "chatml");
    persona = rig_put(&rig, card);
    open.u.session_open.persona = persona;
    open.u.session_open.context_tokens = 128;
    rig_execute(&rig, open);
    memset(text, 'x', sizeof(text) - 1);
    for (size_t i = 1; i < sizeof(text); i += 2) {
        text[i] = ' ';
    }
    text[sizeof(text) - 1] = '\0';
    rig_execute(&rig, rig_say(rig.reply.id, text));
    assert_int_equal(rig.reply.error.status, STATUS_LIMIT);
    assert_string_equal(rig.reply.error.limit_name, "context_tokens");
    open.u.session_open.context_tokens = 16;
    rig_execute(&rig, open);
    assert_int_equal(rig.reply.error.status, STATUS_LIMIT);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chatml),
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_llama2),
        cmocka_unit_test(test_mistral),
        cmocka_unit_test(test_gemma),
        cmocka_unit_test(test_notes_stand_where_the_format_has_system_text),
        cmocka_unit_test(test_transcripts_name_the_speakers),
        cmocka_unit_test(test_a_name_in_a_transcript_is_only_text),
        cmocka_unit_test(test_formats_are_recognised_by_the_models_template),
        cmocka_unit_test(test_a_continued_turn_has_its_parents_context_and_content),
        cmocka_unit_test(test_the_model_may_write_the_users_turn),
        cmocka_unit_test(test_a_long_conversation_slides_and_children_inherit_the_cut),
        cmocka_unit_test(test_a_stored_context_is_a_difference_that_gives_it_back),
        cmocka_unit_test(test_a_turn_that_cannot_fit_is_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
