/* Goal: an error holds one readable sentence whatever bytes it quotes and however long they are.
 * Method: texts of every length around the bound with multi-byte characters across it, quoted
 * malformed bytes, prefixes, and a NULL reader.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/error.h"

static void test_setting_an_error_fills_it_and_returns_the_status(void **state)
{
    struct error error = {.limit_name = "OLD", .limit_value = 3};

    (void)state;
    assert_int_equal(error_set(&error, STATUS_BAD_INPUT, "key \"%s\" is %d", "a.b", 7),
                     STATUS_BAD_INPUT);
    assert_int_equal(error.status, STATUS_BAD_INPUT);
    assert_string_equal(error.text, "key \"a.b\" is 7");
    assert_null(error.limit_name);
    assert_true(error.limit_value == 0);
}

static void test_a_limit_is_named(void **state)
{
    struct error error = {0};

    (void)state;
    assert_int_equal(error_set_limit(&error, "NODE_COUNT_MAX", 4, "too many nodes: %d", 5),
                     STATUS_LIMIT);
    assert_int_equal(error.status, STATUS_LIMIT);
    assert_string_equal(error.text, "too many nodes: 5");
    assert_string_equal(error.limit_name, "NODE_COUNT_MAX");
    assert_true(error.limit_value == 4);
}

static void test_nobody_has_to_read(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, STATUS_IO, "%d", 1), STATUS_IO);
    assert_int_equal(error_set_limit(NULL, "X", 1, "%d", 1), STATUS_LIMIT);
    error_prefix(NULL, "%d", 1);
}

static void test_a_prefix_stands_before_the_text_and_keeps_the_rest(void **state)
{
    struct error error = {0};

    (void)state;
    error_set_limit(&error, "LAYER_COUNT_MAX", 512, "600 layers");
    error_prefix(&error, "model \"%s\"", "m.gguf");
    assert_string_equal(error.text, "model \"m.gguf\": 600 layers");
    assert_int_equal(error.status, STATUS_LIMIT);
    assert_string_equal(error.limit_name, "LAYER_COUNT_MAX");
}

static void test_an_error_may_quote_itself(void **state)
{
    struct error error = {0};

    (void)state;
    error_set(&error, STATUS_IO, "disk");
    error_set(&error, STATUS_STORAGE, "commit (%s)", error.text);
    assert_string_equal(error.text, "commit (disk)");
    error_prefix(&error, "<%s>", error.text);
    assert_string_equal(error.text, "<commit (disk)>: commit (disk)");
}

/* The bound falls on every byte of two-, three- and four-byte characters in turn. */
static void test_a_long_text_is_cut_between_characters(void **state)
{
    const char *characters[] = {"x", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x90\xA6"};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        for (size_t lead = 0; lead < 8; lead++) {
            char text[2000] = "........";
            struct error error = {0};
            size_t size = lead;
            size_t kept;

            while (size + 4 < sizeof(text)) {
                memcpy(text + size, characters[i], i + 1);
                size += i + 1;
            }
            text[size] = '\0';
            error_set(&error, STATUS_IO, "%s", text);
            kept = strlen(error.text);
            assert_true(utf8_is_valid(bytes_of_text(error.text)));
            assert_true(kept < ERROR_TEXT_BYTES_MAX && kept >= ERROR_TEXT_BYTES_MAX - 4);
            assert_memory_equal(error.text, text, kept);

            error_set(&error, STATUS_IO, "%.400s", "end");
            error_prefix(&error, "%s", text);
            assert_true(utf8_is_valid(bytes_of_text(error.text)));
            assert_true(strlen(error.text) >= ERROR_TEXT_BYTES_MAX - 4 - 2);
        }
    }
}

static void test_malformed_bytes_become_question_marks(void **state)
{
    struct error error = {0};

    (void)state;
    error_set(&error, STATUS_BAD_INPUT, "name \"%s\"", "a\xFF\xC3(\xE2\x82");
    assert_string_equal(error.text, "name \"a?\?(?\?\"");
}

static void test_a_text_that_fits_keeps_its_malformed_end_visible(void **state)
{
    struct error error = {0};

    (void)state;
    error_set(&error, STATUS_BAD_INPUT, "%s", "end \xE2\x82");
    assert_string_equal(error.text, "end ??");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_setting_an_error_fills_it_and_returns_the_status),
        cmocka_unit_test(test_a_limit_is_named),
        cmocka_unit_test(test_nobody_has_to_read),
        cmocka_unit_test(test_a_prefix_stands_before_the_text_and_keeps_the_rest),
        cmocka_unit_test(test_an_error_may_quote_itself),
        cmocka_unit_test(test_a_long_text_is_cut_between_characters),
        cmocka_unit_test(test_malformed_bytes_become_question_marks),
        cmocka_unit_test(test_a_text_that_fits_keeps_its_malformed_end_visible),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
