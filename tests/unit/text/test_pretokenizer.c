/* Goal: pieces are those of the models' expressions, together they are the text, and neither a
 * megabyte of one thing nor a refused just-in-time compiler stops them.
 * Method: pieces written out by hand; all names; long texts in a child process that may not make
 * code, where PCRE2 has to interpret. That the expressions equal the reference's over thousands of
 * texts is test_tokenizer.c's business. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/memory.h"
#include "limits.h"
#include "text/pretokenizer.h"

enum {
    SET_MDWE = 65, /* prctl: PR_SET_MDWE, newer than Debian 12's headers */
    MDWE_REFUSE_EXEC_GAIN = 1,
    NO_MDWE = 77,
};

static const char *const names[] = {"gpt-2",     "gpt2",   "phi-2",    "default",
                                    "",          "smollm", "refact",   "starcoder",
                                    "llama-bpe", "llama3", "llama-v3", "qwen2"};

struct pieces {
    char joined[256]; /* pieces with '|' between them */
    size_t size;      /* of joined, or of all pieces where only they are counted */
    uint32_t piece_count_max;
    uint32_t piece_count;
};

static enum status on_piece(void *context, struct bytes piece)
{
    struct pieces *pieces = context;

    if (pieces->piece_count == pieces->piece_count_max) {
        return STATUS_LIMIT;
    }
    pieces->size += (size_t)snprintf(
        pieces->joined + pieces->size, sizeof pieces->joined - pieces->size, "%s%.*s",
        pieces->piece_count++ > 0 ? "|" : "", (int)piece.size, (const char *)piece.data);
    return STATUS_OK;
}

static enum status count_bytes(void *context, struct bytes piece)
{
    *(size_t *)context += piece.size;
    return piece.size > 0 ? STATUS_OK : STATUS_CONFLICT;
}

static enum status split(const char *name, struct bytes text,
                         enum status (*each)(void *context, struct bytes piece), void *context)
{
    struct pretokenizer *pretokenizer = NULL;
    struct pretokenizer_match *match = NULL;
    enum status status = pretokenizer_create(bytes_of_text(name), NULL, &pretokenizer);

    if (status == STATUS_OK) {
        status = pretokenizer_match_create(pretokenizer, &match);
    }
    if (status == STATUS_OK) {
        status = pretokenizer_split(pretokenizer, match, text, each, context);
    }
    pretokenizer_match_destroy(match);
    pretokenizer_destroy(pretokenizer);
    return status;
}

static void expect_pieces(const char *name, const char *text, const char *expected)
{
    struct pieces pieces = {.piece_count_max = UINT32_MAX};

    assert_int_equal(split(name, bytes_of_text(text), on_piece, &pieces), STATUS_OK);
    assert_string_equal(pieces.joined, expected);
}

static void test_pieces_are_those_of_the_expressions(void **state)
{
    static const char *const text = "She'LL  take 1234 x's\n\n ok!!\n";

    (void)state;
    expect_pieces("gpt-2", text, "She|'|LL| | take| 1234| x|'s|\n\n| ok|!!|\n");
    expect_pieces("smollm", text, "She|'|LL| | take| |1|2|3|4| x|'s|\n\n| ok|!!|\n");
    expect_pieces("llama-bpe", text, "She|'LL| | take| |123|4| x|'s|\n\n| ok|!!\n");
    expect_pieces("qwen2", text, "She|'LL| | take| |1|2|3|4| x|'s|\n\n| ok|!!\n");
}

static void test_characters_newer_than_the_library_count_for_what_they_are(void **state)
{
    (void)state;
    /* U+105C0 and U+1C89 are letters since Unicode 16, U+11BF0 a digit; U+11DE0 one since 17. */
    expect_pieces("gpt-2",
                  "a\xf0\x90\x97\x80\xe1\xb2\x89 !\xf0\x91\xaf\xb0"
                  "7",
                  "a\xf0\x90\x97\x80\xe1\xb2\x89| !|\xf0\x91\xaf\xb0"
                  "7");
    expect_pieces("smollm", "!\xf0\x91\xb7\xa0?", "!|\xf0\x91\xb7\xa0|?");
    expect_pieces("gpt-2", "!\xf0\x91\xb7\xa0?", "!\xf0\x91\xb7\xa0?");
    /* U+180E is no space, whatever the library says. */
    expect_pieces("gpt-2", "a \xe1\xa0\x8e", "a| \xe1\xa0\x8e");
}

static void test_an_unknown_name_is_refused_with_those_that_are_known(void **state)
{
    struct pretokenizer *pretokenizer = NULL;
    struct error error = {0};

    (void)state;
    assert_int_equal(pretokenizer_create(bytes_of_text("gpt-22"), &error, &pretokenizer),
                     STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "gpt-22"));
    assert_non_null(strstr(error.text, "qwen2"));
    assert_null(pretokenizer);
}

static void test_the_first_failure_of_the_receiver_ends_the_split(void **state)
{
    struct pieces pieces = {.piece_count_max = 2};

    (void)state;
    assert_int_equal(split("smollm", bytes_of_text("a1 b c"), on_piece, &pieces), STATUS_LIMIT);
    assert_string_equal(pieces.joined, "a|1");
}

/* 0, or what went wrong. */
static int split_long_texts(void)
{
    static const char *const units[] = {"a", " ", "\n", "'", " \n", "7", "é", "\t ", "漢", "\r"};
    uint8_t *text = malloc(TEXT_BYTES_MAX);

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (size_t unit = 0; unit < sizeof units / sizeof units[0]; unit++) {
            const size_t size = strlen(units[unit]);
            const size_t whole = TEXT_BYTES_MAX - TEXT_BYTES_MAX % size;
            size_t seen = 0;
            for (size_t at = 0; at < whole; at++) {
                text[at] = (uint8_t)units[unit][at % size];
            }
            if (split(names[i], bytes_of(text, whole), count_bytes, &seen) != STATUS_OK ||
                seen != whole) {
                printf("%s fails on a megabyte of '%s'\n", names[i], units[unit]);
                free(text);
                return 1;
            }
        }
    }
    free(text);
    return 0;
}

static void test_long_runs_are_split_by_the_compiled_expression(void **state)
{
    (void)state;
    assert_int_equal(split_long_texts(), 0);
}

static void test_long_runs_are_split_where_code_may_not_be_made(void **state)
{
    int result = 0;
    pid_t child;

    (void)state;
    fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const bool refused = prctl(SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0;
        const int failed = refused ? NO_MDWE : split_long_texts();
        fflush(NULL);
        _exit(failed);
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    if (WEXITSTATUS(result) == NO_MDWE) {
        skip(); /* a kernel before 6.3 */
    }
    assert_int_equal(WEXITSTATUS(result), 0);
}

static void test_every_allocation_may_fail(void **state)
{
    enum status status = STATUS_MEMORY;

    (void)state;
    for (int64_t survivors = 0; status != STATUS_OK; survivors++) {
        struct pieces pieces = {.piece_count_max = UINT32_MAX};
        memory_fault_set(survivors);
        status = split("smollm", bytes_of_text("a 1"), on_piece, &pieces);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        assert_int_equal(memory_live_count(), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_those_of_the_expressions),
        cmocka_unit_test(test_characters_newer_than_the_library_count_for_what_they_are),
        cmocka_unit_test(test_an_unknown_name_is_refused_with_those_that_are_known),
        cmocka_unit_test(test_the_first_failure_of_the_receiver_ends_the_split),
        cmocka_unit_test(test_long_runs_are_split_by_the_compiled_expression),
        cmocka_unit_test(test_long_runs_are_split_where_code_may_not_be_made),
        cmocka_unit_test(test_every_allocation_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
