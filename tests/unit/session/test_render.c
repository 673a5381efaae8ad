/* Goal: placeholders of cards become what is documented, whatever their case, and nothing else
 * does. Method: pairs of text and result; draws are compared with themselves and counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "session/render.h"

static const struct render_variable variables[] = {
    {{(const uint8_t *)"place", 5}, {(const uint8_t *)"{{user}}'s town", 15}},
};

static const char *render(const char *text, uint64_t seed)
{
    static char out[512];
    struct render values = {
        .character = bytes_of_text("Ada"),
        .user = bytes_of_text("Bob"),
        .variables = variables,
        .variable_count = 1,
        .seed = seed,
        .now_us = UINT64_C(1700000000000000),
    };
    struct buffer buffer;

    buffer_init(&buffer, sizeof(out) - 1);
    assert_int_equal(render_text(&values, bytes_of_text(text), &buffer), STATUS_OK);
    snprintf(out, sizeof(out), "%.*s", (int)buffer.size, (const char *)buffer.data);
    buffer_finish(&buffer);
    return out;
}

static void test_placeholders_are_replaced(void **state)
{
    static const char *const pairs[][2] = {
        {"", ""},
        {"plain text", "plain text"},
        {"{{char}} and {{user}}", "Ada and Bob"},
        {"{{CHAR}} <BOT> <bot> <USER>s", "Ada Ada Ada Bobs"},
        {"{{ user }}{{user}}", "BobBob"},
        {"{{place}}", "{{user}}'s town"}, /* a value is only text */
        {"a{{// not this}}b{{comment: nor this}}c{{hidden_key:x}}d", "abcd"},
        {"a{{newline}}b{{original}}c", "a\nbc"},
        {"{{unknown}} {{char", "{{unknown}} {{char"},
        {"{{{char}}}", "{Ada}"},
        {"{{ {{char}} }}", "{{ Ada }}"},
        {"{char} < > {{}} }}", "{char} < > {{}} }}"},
        {"{{date}} {{time}}", "2023-11-14 22:13"},
        {"{{random:}}{{roll:}}{{roll:x}}{{roll:0}}{{roll:99999999999999999999}}", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        assert_string_equal(render(pairs[i][0], 1), pairs[i][1]);
    }
}

static void test_draws_are_fixed_by_the_seed_and_reach_every_choice(void **state)
{
    uint32_t seen[3] = {0};
    uint32_t rolls[6] = {0};

    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        char first[8];
        const char *text = render("{{random: a, b ,c}}", seed);

        snprintf(first, sizeof(first), "%s", text);
        assert_string_equal(render("{{pick::a::b::c}}", seed), first);
        assert_int_equal(strlen(first), 1);
        assert_true(first[0] >= 'a' && first[0] <= 'c');
        seen[first[0] - 'a']++;
        text = render("{{roll:d6}}", seed);
        assert_true(text[0] >= '1' && text[0] <= '6' && text[1] == '\0');
        rolls[text[0] - '1']++;
    }
    for (int i = 0; i < 3; i++) {
        assert_true(seen[i] > 60);
    }
    for (int i = 0; i < 6; i++) {
        assert_true(rolls[i] > 20);
    }
}

static void test_two_draws_of_one_text_are_two(void **state)
{
    uint32_t different = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        const char *text = render("{{roll:1000}} {{roll:1000}}", seed);
        const char *blank = strchr(text, ' ');

        different += strncmp(text, blank + 1, (size_t)(blank - text)) != 0;
    }
    assert_true(different > 40);
}

static void test_the_bound_of_the_result_is_kept(void **state)
{
    struct render values = {.character = bytes_of_text("0123456789")};
    struct buffer buffer;

    (void)state;
    buffer_init(&buffer, 64);
    assert_int_equal(render_text(&values,
                                 bytes_of_text("{{char}}{{char}}{{char}}{{char}}{{char}}{{char}}"),
                                 &buffer),
                     STATUS_OK);
    assert_int_equal(render_text(&values, bytes_of_text("{{char}}"), &buffer), STATUS_LIMIT);
    buffer_finish(&buffer);
}

static void test_use_of_a_name_is_found(void **state)
{
    (void)state;
    assert_true(render_uses(bytes_of_text("to {{User}}"), bytes_of_text("user")));
    assert_true(render_uses(bytes_of_text("<USER>"), bytes_of_text("user")));
    assert_false(render_uses(bytes_of_text("{{users}} user"), bytes_of_text("user")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_placeholders_are_replaced),
        cmocka_unit_test(test_draws_are_fixed_by_the_seed_and_reach_every_choice),
        cmocka_unit_test(test_two_draws_of_one_text_are_two),
        cmocka_unit_test(test_the_bound_of_the_result_is_kept),
        cmocka_unit_test(test_use_of_a_name_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
