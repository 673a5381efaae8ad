/* Goal: each kind of token appears, shows and is named as the header says, and a vocabulary that
 * cannot be used is refused by name.
 * Method: a vocabulary of fifteen tokens, small enough to work out every id by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "limits.h"
#include "text/tokenizer.h"

/* A vocabulary small enough to read: letters, two merges, one token of each kind. */
struct tiny {
    struct bytes tokens[16];
    uint8_t types[16];
    float scores[16];
    struct bytes merges[4];
    struct vocabulary vocabulary;
};

static struct vocabulary *make_tiny(struct tiny *tiny)
{
    static const char *const names[] = {"a",  "b",   "ab",         "<", "s",  ">",   "<s",  "<s>",
                                        "==", "<t>", "<|im_end|>", "=", "[x", "aab", "</s>"};
    static const uint8_t types[] = {1, 1, 1, 1, 1, 1, 1, 3, 4, 4, 3, 1, 4, 5, 1};
    static const char *const merges[] = {"a b", "< s", "<s >"};

    memset(tiny, 0, sizeof *tiny);
    for (size_t i = 0; i < sizeof types; i++) {
        tiny->tokens[i] = bytes_of_text(names[i]);
        tiny->types[i] = types[i];
    }
    for (size_t i = 0; i < 3; i++) {
        tiny->merges[i] = bytes_of_text(merges[i]);
    }
    tiny->vocabulary = (struct vocabulary){
        .kind = VOCABULARY_BPE,
        .token_count = sizeof types,
        .tokens = tiny->tokens,
        .types = tiny->types,
        .merge_count = 3,
        .merges = tiny->merges,
        .pre = bytes_of_text("llama-bpe"),
        .bos = 7,
        .eos = 7,
        .eot = TOKEN_NONE,
        .eom = 4000, /* a file may say so */
        .unknown = TOKEN_NONE,
        .pad = TOKEN_NONE,
    };
    return &tiny->vocabulary;
}

static void expect_ids(struct tokenizer *tokenizer, const char *text, bool special,
                       const uint32_t *expected, uint32_t expected_count)
{
    struct tokenizer_scratch *scratch = NULL;
    uint32_t ids[32];
    uint32_t count = 0;

    assert_int_equal(tokenizer_scratch_create(tokenizer, &scratch), STATUS_OK);
    assert_int_equal((special ? tokenizer_encode_special : tokenizer_encode)(
                         tokenizer, scratch, bytes_of_text(text), true, ids, 32, &count),
                     STATUS_OK);
    assert_int_equal(count, expected_count);
    assert_memory_equal(ids, expected, expected_count * sizeof *ids);
    tokenizer_scratch_destroy(scratch);
}

static void test_each_kind_of_token_appears_where_it_may(void **state)
{
    struct tokenizer_scratch *scratch = NULL;
    struct tokenizer *tokenizer = NULL;
    struct tiny tiny;
    uint32_t ids[3];
    uint32_t count = 0;

    (void)state;
    assert_int_equal(tokenizer_create(make_tiny(&tiny), NULL, &tokenizer), STATUS_OK);
    expect_ids(tokenizer, "<s>", false, (const uint32_t[]){6, 5}, 2);
    expect_ids(tokenizer, "<s>ab", true, (const uint32_t[]){7, 2}, 2);
    /* A user-defined token is found in any text, unless it looks like markup. */
    expect_ids(tokenizer, "ab==ab=", false, (const uint32_t[]){2, 8, 2, 11}, 4);
    expect_ids(tokenizer, "<t>[x", true, (const uint32_t[]){9, 12}, 2);
    expect_ids(tokenizer, "<>", false, (const uint32_t[]){3, 5}, 2);
    /* Raw bytes are not cut, but the merge that would make the control token was left out. */
    assert_int_equal(tokenizer_scratch_create(tokenizer, &scratch), STATUS_OK);
    assert_int_equal(
        tokenizer_encode_bytes(tokenizer, scratch, bytes_of_text("<s>"), ids, 3, &count),
        STATUS_OK);
    assert_int_equal(count, 2);
    tokenizer_scratch_destroy(scratch);
    tokenizer_destroy(tokenizer);
}

static void test_names_and_shown_bytes_follow_the_kind(void **state)
{
    struct tokenizer *tokenizer = NULL;
    struct tiny tiny;
    uint32_t count = 0;
    const uint32_t *ends;

    (void)state;
    assert_int_equal(tokenizer_create(make_tiny(&tiny), NULL, &tokenizer), STATUS_OK);
    assert_int_equal(tokenizer_token_bytes(tokenizer, 2).size, 2);
    assert_int_equal(tokenizer_token_bytes(tokenizer, 7).size, 0);  /* control */
    assert_int_equal(tokenizer_token_bytes(tokenizer, 9).size, 3);  /* user-defined */
    assert_int_equal(tokenizer_token_bytes(tokenizer, 13).size, 0); /* unused */
    assert_int_equal(tokenizer_token_bytes(tokenizer, 99).size, 0);
    assert_int_equal(tokenizer_token_name(tokenizer, 10).size, 10);
    assert_int_equal(tokenizer_token_name(tokenizer, 99).size, 0);
    assert_int_equal(tokenizer_find(tokenizer, bytes_of_text("<|im_end|>")), 10);
    assert_int_equal(tokenizer_find(tokenizer, bytes_of_text("no")), TOKEN_NONE);
    ends = tokenizer_end_ids(tokenizer, &count);
    assert_int_equal(count, 2); /* eos and <|im_end|>; "</s>" is an ordinary token here */
    assert_int_equal(ends[0], 7);
    assert_int_equal(ends[1], 10);
    assert_true(tokenizer_is_end(tokenizer, 10));
    assert_false(tokenizer_is_end(tokenizer, 14));
    assert_ptr_equal(tokenizer_vocabulary(tokenizer), &tiny.vocabulary);
    tokenizer_destroy(tokenizer);
}

static void test_a_bad_vocabulary_is_refused_with_its_key(void **state)
{
    struct tokenizer *tokenizer = NULL;
    struct error error = {0};
    struct tiny tiny;
    char *long_name = calloc(TOKEN_BYTES_MAX + 2, 1);

    (void)state;
    memset(long_name, 'a', TOKEN_BYTES_MAX + 1);
    make_tiny(&tiny)->pre = bytes_of_text("klingon");
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "klingon"));
    make_tiny(&tiny);
    tiny.merges[1] = bytes_of_text("ab");
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "merge 1 "));
    tiny.merges[1] = bytes_of_text("b a");
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_BAD_INPUT);
    make_tiny(&tiny)->token_count = 0;
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_BAD_INPUT);
    make_tiny(&tiny)->kind = VOCABULARY_SPM;
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "scores"));
    make_tiny(&tiny);
    tiny.tokens[3] = bytes_of_text(long_name);
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "TOKEN_BYTES_MAX");
    assert_null(tokenizer);
    free(long_name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_token_appears_where_it_may),
        cmocka_unit_test(test_names_and_shown_bytes_follow_the_kind),
        cmocka_unit_test(test_a_bad_vocabulary_is_refused_with_its_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
