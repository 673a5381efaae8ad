/* Goal: what the command line client prints is valid JSON that keeps every bit of a float, and
 * harmless text for a terminal, whatever a model wrote.
 * Method: printed into memory; floats of every exponent and random bits are read back by strtof;
 * all byte pairs and random bytes go through the sanitiser, whose output is read by a decoder of
 * the test's own. A twin with one digit fewer loses bits, and the test sees it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli.h"
#include "json.h"
#include "utf8.h"

enum { RANDOM_FLOAT_COUNT = 20000, RANDOM_TEXT_COUNT = 2000, RANDOM_TEXT_BYTES = 24 };

static char printed[1 << 12];
static uint64_t state_of_random = 12345;

static uint32_t random_u32(void)
{
    state_of_random = state_of_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state_of_random >> 32);
}

static FILE *page_open(void)
{
    memset(printed, 0, sizeof printed);
    FILE *file = fmemopen(printed, sizeof printed, "w");
    assert_non_null(file);
    return file;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* ---------------------------------------------------------------- floats */

static bool comes_back(float value, const char *text)
{
    const float back = strtof(text, NULL);
    return memcmp(&back, &value, sizeof value) == 0;
}

static void assert_float_comes_back(uint32_t bits)
{
    const float value = float_of(bits);
    if (!isfinite(value)) {
        return;
    }
    struct json json;
    FILE *file = page_open();
    json_start(&json, file);
    json_float(&json, "x", value);
    json_end(&json);
    assert_int_equal(fclose(file), 0);
    assert_memory_equal(printed, "{\"x\":", 5);
    assert_true(comes_back(value, printed + 5));
}

static void every_bit_of_a_float_can_be_read_back(void **state)
{
    (void)state;
    for (uint32_t exponent = 0; exponent < 255; exponent++) {
        static const uint32_t fractions[] = {0, 1, 0x2aaaaa, 0x555555, 0x7fffff};
        for (size_t i = 0; i < sizeof fractions / sizeof fractions[0]; i++) {
            assert_float_comes_back(exponent << 23 | fractions[i]);
            assert_float_comes_back(1u << 31 | exponent << 23 | fractions[i]);
        }
    }
    for (int i = 0; i < RANDOM_FLOAT_COUNT; i++) {
        assert_float_comes_back(random_u32());
    }
}

static void one_digit_fewer_loses_bits_and_is_noticed(void **state)
{
    (void)state;
    int lost = 0;
    for (int i = 0; i < RANDOM_FLOAT_COUNT; i++) {
        const float value = float_of(random_u32());
        char text[64];
        (void)snprintf(text, sizeof text, "%.8g", (double)value);
        lost += isfinite(value) && !comes_back(value, text);
    }
    assert_true(lost > 0);
}

static void what_json_has_no_number_for_is_null(void **state)
{
    (void)state;
    const float values[] = {INFINITY, -INFINITY, NAN};
    struct json json;
    FILE *file = page_open();
    json_start(&json, file);
    json_floats(&json, "x", values, 3);
    json_u64(&json, "y", UINT64_MAX);
    json_end(&json);
    assert_int_equal(fclose(file), 0);
    assert_string_equal(printed, "{\"x\":[null,null,null],\"y\":18446744073709551615}\n");
}

/* ---------------------------------------------------------------- text */

static void lists_and_objects_nest(void **state)
{
    (void)state;
    const uint32_t ids[] = {1, 2};
    struct json json;
    FILE *file = page_open();
    json_start(&json, file);
    json_list(&json, "a");
    json_list(&json, NULL);
    json_list_end(&json);
    json_object_start(&json, NULL);
    json_bool(&json, "b", true);
    json_ids(&json, "c", ids, 2);
    json_object_end(&json);
    json_list_end(&json);
    json_text_of(&json, "d", "e");
    json_end(&json);
    assert_int_equal(fclose(file), 0);
    assert_string_equal(printed, "{\"a\":[[],{\"b\":true,\"c\":[1,2]}],\"d\":\"e\"}\n");
}

static void hostile_text_is_escaped(void **state)
{
    (void)state;
    static const char text[] = "a\"\\\n\x1b\0\x7f\xff\xc3\xa4\xed\xa0\x80z";
    struct json json;
    FILE *file = page_open();
    json_start(&json, file);
    json_text(&json, "t", (struct personad_text){text, sizeof text - 1});
    json_end(&json);
    assert_int_equal(fclose(file), 0);
    assert_string_equal(printed, "{\"t\":\"a\\\"\\\\\\u000a\\u001b\\u0000\\u007f\\ufffd\xc3\xa4"
                                 "\\ufffd\\ufffd\\ufffdz\"}\n");
}

static void sequences_are_told_from_what_only_looks_like_them(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t size, expected;
    } rows[] = {
        {"a", 1, 1},
        {"", 0, 0},
        {"\xc3\xa4", 2, 2},
        {"\xc3", 1, 0},             /* cut */
        {"\xc3(", 2, 0},            /* not continued */
        {"\xc0\x80", 2, 0},         /* a longer form of NUL */
        {"\xe0\x80\x80", 3, 0},     /* the same in three */
        {"\xed\x9f\xbf", 3, 3},     /* the last before the surrogates */
        {"\xed\xa0\x80", 3, 0},     /* a surrogate */
        {"\xf0\x9f\x98\x80", 4, 4}, /* past the basic plane */
        {"\xf0\x8f\xbf\xbf", 4, 0}, /* too long for what it says */
        {"\xf4\x8f\xbf\xbf", 4, 4}, /* the last of all */
        {"\xf4\x90\x80\x80", 4, 0}, /* past it */
        {"\x80", 1, 0},
        {"\xff", 1, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(utf8_sequence_bytes(rows[i].text, rows[i].size), rows[i].expected);
    }
    assert_int_equal(utf8_code_point("\xf0\x9f\x98\x80", 4), 0x1f600);
}

/* Whole sequences, and no control but those that a terminal may have. */
static void assert_harmless(const char *text, bool one_line)
{
    const size_t size = strlen(text);
    for (size_t at = 0; at < size;) {
        const size_t bytes = utf8_sequence_bytes(text + at, size - at);
        assert_true(bytes > 0);
        const uint32_t point = utf8_code_point(text + at, bytes);
        const bool allowed = !one_line && (point == '\n' || point == '\t');
        assert_true(point >= 0x20 || allowed);
        assert_false(point >= 0x7f && point < 0xa0);
        assert_false(point >= 0x202a && point <= 0x202e);
        assert_false(point >= 0x2066 && point <= 0x2069);
        at += bytes;
    }
}

static void assert_printed_harmless(const char *text, size_t size)
{
    FILE *file = page_open();
    cli_print_text(file, (struct personad_text){text, size});
    assert_int_equal(fclose(file), 0);
    assert_harmless(printed, false);
    file = page_open();
    cli_print_line(file, (struct personad_text){text, size}, 12);
    assert_int_equal(fclose(file), 0);
    assert_harmless(printed, true);
}

static void no_text_can_steer_a_terminal(void **state)
{
    (void)state;
    for (int pair = 0; pair < 65536; pair++) {
        const char text[] = {(char)(pair >> 8), (char)pair, 'x'};
        assert_printed_harmless(text, sizeof text);
    }
    static const char *const rows[] = {"\x1b]0;title\x07",
                                       "\xc2\x9b"
                                       "31m",
                                       "\xe2\x80\xae"
                                       "abc",
                                       "\xe2\x81\xa6",
                                       "\r\x08\x0c",
                                       "\x9b"
                                       "2J"};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_printed_harmless(rows[i], strlen(rows[i]));
    }
    for (int i = 0; i < RANDOM_TEXT_COUNT; i++) {
        char text[RANDOM_TEXT_BYTES];
        for (size_t k = 0; k < sizeof text; k++) {
            text[k] = (char)random_u32();
        }
        assert_printed_harmless(text, sizeof text);
    }
}

static void harmless_text_is_printed_as_it_is(void **state)
{
    (void)state;
    static const char text[] = "Gr\xc3\xbc\xc3\x9f"
                               "e,\t\xe9\x9b\xa8\n\xf0\x9f\x98\x80";
    FILE *file = page_open();
    cli_print_text(file, (struct personad_text){text, sizeof text - 1});
    assert_int_equal(fclose(file), 0);
    assert_string_equal(printed, text);
}

static void a_long_line_is_cut_with_a_sign(void **state)
{
    (void)state;
    FILE *file = page_open();
    cli_print_line(file, (struct personad_text){"a\nbcdefgh", 9}, 6);
    assert_int_equal(fclose(file), 0);
    assert_string_equal(printed, "a\xe2\x8f\x8e"
                                 "bcd\xe2\x80\xa6");
}

static void numbers_are_whole_and_in_range_or_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"", " 1", "-1", "+1", "1x", "0x1", "18446744073709551616"};
    uint64_t number = 7;
    float value = 7;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(cli_parse_u64(bad[i], UINT64_MAX, &number));
    }
    assert_false(cli_parse_u64("101", 100, &number));
    assert_int_equal(number, 7);
    assert_true(cli_parse_u64("18446744073709551615", UINT64_MAX, &number));
    assert_true(number == UINT64_MAX);
    assert_false(cli_parse_float("nan", &value));
    assert_false(cli_parse_float("1e99", &value));
    assert_false(cli_parse_float("", &value));
    assert_true(cli_parse_float("0.5", &value));
    assert_true(value == 0.5f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bit_of_a_float_can_be_read_back),
        cmocka_unit_test(one_digit_fewer_loses_bits_and_is_noticed),
        cmocka_unit_test(what_json_has_no_number_for_is_null),
        cmocka_unit_test(lists_and_objects_nest),
        cmocka_unit_test(hostile_text_is_escaped),
        cmocka_unit_test(sequences_are_told_from_what_only_looks_like_them),
        cmocka_unit_test(no_text_can_steer_a_terminal),
        cmocka_unit_test(harmless_text_is_printed_as_it_is),
        cmocka_unit_test(a_long_line_is_cut_with_a_sign),
        cmocka_unit_test(numbers_are_whole_and_in_range_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
