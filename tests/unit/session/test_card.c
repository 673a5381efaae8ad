/* Goal: cards of V1, V2 and V3 are read, kept whole, and refused with the name of the wrong field.
 * Method: cards in JSON, written out here; every allocation of a large one fails once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "limits.h"
#include "session/card.h"

static const char whole[] =
    "{\"spec\":\"chara_card_v3\",\"spec_version\":\"3.0\",\"data\":{\"name\":\"Ada L\","
    "\"nickname\":\"Ada\",\"description\":\"D\",\"personality\":\"P\",\"scenario\":\"S\","
    "\"first_mes\":\"Hi\",\"alternate_greetings\":[\"Yo\",\"\",\"Hey\"],\"mes_example\":\"E\","
    "\"system_prompt\":\"Y\",\"post_history_instructions\":\"H\",\"creator_notes\":\"N\","
    "\"tags\":[\"x\"],\"character_book\":{\"entries\":[]},\"extensions\":{\"fav\":true,"
    "\"personad\":{\"play\":\"transcript\",\"user\":\"Bob\",\"public\":true,"
    "\"variables\":{\"from\":\"Vienna\",\"to\":\"\"},\"cues\":[\"\\n--\"],\"sampler\":{"
    "\"temperature\":0.5,\"top_k\":7,\"ignore_end\":true,\"stop\":[\"\\n\",\"END\"],"
    "\"bias\":{\"7\":-2.5,\"3\":1}}}}}}";

static struct card *parse(const char *json)
{
    struct card *card = NULL;
    struct error error = {0};

    if (card_parse(bytes_of_text(json), &error, &card) != STATUS_OK) {
        print_message("%s\n", error.text);
        fail();
    }
    return card;
}

static bool is_text(struct bytes bytes, const char *text)
{
    return bytes_equal(bytes, bytes_of_text(text));
}

static void test_a_whole_card_is_read(void **state)
{
    struct card *card = parse(whole);

    (void)state;
    assert_true(is_text(card->json, whole));
    assert_true(is_text(card->name, "Ada L"));
    assert_true(is_text(card->character, "Ada"));
    assert_true(is_text(card->description, "D"));
    assert_true(is_text(card->personality, "P"));
    assert_true(is_text(card->scenario, "S"));
    assert_true(is_text(card->examples, "E"));
    assert_true(is_text(card->system_prompt, "Y"));
    assert_true(is_text(card->post_history, "H"));
    assert_true(is_text(card->creator_notes, "N"));
    assert_int_equal(card->greeting_count, 3);
    assert_true(is_text(card->greetings[0], "Hi"));
    assert_true(is_text(card->greetings[2], "Hey"));
    assert_int_equal(card->play, CARD_PLAY_TRANSCRIPT);
    assert_true(is_text(card->user, "Bob"));
    assert_true(card->has_public && card->is_public);
    assert_int_equal(card->variable_count, 2);
    assert_int_equal(card->cue_count, 1);
    assert_true(card->sampler.has_temperature && card->sampler.temperature == 0.5f);
    assert_true(card->sampler.has_top_k && card->sampler.top_k == 7);
    assert_true(card->sampler.has_ignore_end && card->sampler.ignore_end);
    assert_false(card->sampler.has_top_p);
    assert_int_equal(card->sampler.stop_count, 2);
    assert_int_equal(card->sampler.bias_count, 2);
    assert_int_equal(card->sampler.biases[0].token, 3); /* ascending */
    card_destroy(card);
}

static void test_fields_at_the_top_are_a_card_of_the_first_version(void **state)
{
    struct card *card = parse("{\"name\":\"Ada\",\"description\":\"D\",\"personality\":null}");

    (void)state;
    assert_true(is_text(card->name, "Ada"));
    assert_true(is_text(card->character, "Ada"));
    assert_true(is_text(card->personality, ""));
    assert_int_equal(card->greeting_count, 0);
    assert_int_equal(card->play, CARD_PLAY_CHAT);
    card_destroy(card);
}

static void test_equal_content_has_an_equal_hash(void **state)
{
    struct card *a = parse("{\"name\":\"A\",\"description\":\"x\"}");
    struct card *b = parse(" { \"description\" : \"x\",\n \"name\":\"\\u0041\" } ");
    struct card *c = parse("{\"name\":\"A\",\"description\":\"y\"}");

    (void)state;
    assert_memory_equal(a->hash, b->hash, SHA256_BYTES);
    assert_memory_not_equal(a->hash, c->hash, SHA256_BYTES);
    card_destroy(a);
    card_destroy(b);
    card_destroy(c);
}

static void test_what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *json, *word;
        enum status status;
    } cases[] = {
        {"", "JSON", STATUS_BAD_INPUT},
        {"[]", "object", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"name\":\"B\"}", "duplicate", STATUS_BAD_INPUT},
        {"{\"name\":\"A\"} x", "line 1", STATUS_BAD_INPUT},
        {"{}", "\"name\"", STATUS_BAD_INPUT},
        {"{\"name\":\"\"}", "\"name\"", STATUS_BAD_INPUT},
        {"{\"name\":7}", "\"name\"", STATUS_BAD_INPUT},
        {"{\"name\":\"a\\nb\"}", "\"name\"", STATUS_BAD_INPUT},
        {"{\"name\":\" a\"}", "\"name\"", STATUS_BAD_INPUT},
        {"{\"spec\":\"lorebook_v3\",\"data\":{}}", "\"spec\"", STATUS_UNSUPPORTED},
        {"{\"spec\":\"chara_card_v2\"}", "\"data\"", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"scenario\":[]}", "\"scenario\"", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"alternate_greetings\":{}}", "alternate_greetings", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"alternate_greetings\":[1]}", "alternate_greetings", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":[]}", "\"extensions\"", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":1}}", "personad", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"plya\":\"chat\"}}}", "plya",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"play\":\"chta\"}}}", "play",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"public\":1}}}", "public",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"cues\":[\"\"]}}}", "cues",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"variables\":{\"a\":1}}}}", "variables",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"sampler\":{\"temp\":1}}}}", "temp",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"sampler\":{\"top_k\":-1}}}}", "top_k",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"sampler\":{\"top_k\":1.5}}}}", "top_k",
         STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"sampler\":{\"bias\":{\"x\":1}}}}}",
         "bias", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"extensions\":{\"personad\":{\"sampler\":{\"bias\":{\"1\":1,"
         "\"01\":2}}}}}",
         "bias", STATUS_BAD_INPUT},
        {"{\"name\":\"A\",\"description\":\"\\u0000\"}", "JSON", STATUS_BAD_INPUT},
        {"{\"name\":\"\xff\"}", "JSON", STATUS_BAD_INPUT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct card *card = NULL;
        struct error error = {0};

        assert_int_equal(card_parse(bytes_of_text(cases[i].json), &error, &card), cases[i].status);
        assert_null(card);
        assert_int_equal(error.status, cases[i].status);
        if (strstr(error.text, cases[i].word) == NULL) {
            print_message("%s: %s\n", cases[i].json, error.text);
            fail();
        }
    }
}

static void test_bounds_are_named(void **state)
{
    const size_t size = PERSONA_CARD_BYTES_MAX + 1;
    char *large = malloc(size);
    struct card *card = NULL;
    struct error error = {0};

    (void)state;
    assert_non_null(large);
    memset(large, ' ', size);
    assert_int_equal(card_parse(bytes_of(large, size), &error, &card), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "PERSONA_CARD_BYTES_MAX");
    memset(large, '[', size);
    assert_int_equal(card_parse(bytes_of(large, size - 1), &error, &card), STATUS_BAD_INPUT);
    free(large);
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        const int64_t live = memory_live_count();
        struct card *card = NULL;
        struct error error = {0};
        enum status status;

        memory_fault_set(survivors);
        status = card_parse(bytes_of_text(whole), &error, &card);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            assert_true(survivors > 10);
            card_destroy(card);
            assert_int_equal(memory_live_count(), live);
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_null(card);
        assert_int_equal(memory_live_count(), live);
    }
}

static void test_a_byte_order_mark_is_no_part_of_the_card(void **state)
{
    struct card *card = parse("\xef\xbb\xbf{\"name\":\"Ada\"}");
    struct error error = {0};
    struct card *none = NULL;

    (void)state;
    assert_true(is_text(card->name, "Ada"));
    card_destroy(card);
    assert_int_equal(card_parse(bytes_of_text("\xef\xbb{\"name\":\"Ada\"}"), &error, &none),
                     STATUS_BAD_INPUT);
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_card_is_read),
        cmocka_unit_test(test_fields_at_the_top_are_a_card_of_the_first_version),
        cmocka_unit_test(test_equal_content_has_an_equal_hash),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_a_byte_order_mark_is_no_part_of_the_card),
        cmocka_unit_test(test_bounds_are_named),
        cmocka_unit_test(test_every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
