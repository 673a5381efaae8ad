/* Goal: each kind of token appears, shows and is named as the header says, and a vocabulary that
 * cannot be used is refused by name.
 * Method: a vocabulary of fifteen tokens, small enough to work out every id by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
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
    make_tiny(&tiny)->token_count = VOCABULARY_COUNT_MAX + 1;
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_LIMIT);
    make_tiny(&tiny)->kind = VOCABULARY_SPM;
    tiny.vocabulary.merge_count = 0; /* with merges it would need no scores */
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "scores"));
    make_tiny(&tiny);
    tiny.tokens[3] = bytes_of_text(long_name);
    assert_int_equal(tokenizer_create(&tiny.vocabulary, &error, &tokenizer), STATUS_LIMIT);
    assert_string_equal(error.limit_name, "TOKEN_BYTES_MAX");
    assert_null(tokenizer);
    free(long_name);
}

/* No piece for a space, byte tokens of which two are misspelt, and a piece that is named like a
 * byte token but is none. */
static struct vocabulary *make_tiny_spm(struct tiny *tiny)
{
    static const char *const names[] = {"<unk>",  "a",      "b",     "ab",     "<0x20>", "<0xE2>",
                                        "<0x96>", "<0x81>", "<0x9>", "<0xG0>", "<0x41>", "</s>"};
    static const uint8_t types[] = {2, 1, 1, 1, 6, 6, 6, 6, 6, 6, 1, 3};
    static const float scores[] = {0, -2, -3, -1, 0, 0, 0, 0, 0, 0, NAN, 0};

    memset(tiny, 0, sizeof *tiny);
    for (size_t i = 0; i < sizeof types; i++) {
        tiny->tokens[i] = bytes_of_text(names[i]);
        tiny->types[i] = types[i];
        tiny->scores[i] = scores[i];
    }
    tiny->vocabulary = (struct vocabulary){
        .kind = VOCABULARY_SPM,
        .token_count = sizeof types,
        .tokens = tiny->tokens,
        .types = tiny->types,
        .scores = tiny->scores,
        .bos = TOKEN_NONE,
        .eos = 11,
        .eot = 3,
        .eom = 3,
        .unknown = 0,
        .pad = TOKEN_NONE,
    };
    return &tiny->vocabulary;
}

static void test_bytes_stand_in_where_there_is_no_piece(void **state)
{
    static const uint32_t space[] = {5, 6, 7}; /* the three bytes of U+2581 */
    struct tokenizer_scratch *scratch = NULL;
    struct tokenizer *tokenizer = NULL;
    struct tiny tiny;
    uint32_t ids[8];
    uint32_t count = 0;
    const uint32_t *ends;

    (void)state;
    assert_int_equal(tokenizer_create(make_tiny_spm(&tiny), NULL, &tokenizer), STATUS_OK);
    expect_ids(tokenizer, " ", false, space, 3);
    expect_ids(tokenizer, "abA\t", false, (const uint32_t[]){3, 0}, 2); /* unknown, once */
    expect_ids(tokenizer, "<0x41>", false, (const uint32_t[]){0}, 1);
    assert_int_equal(tokenizer_token_bytes(tokenizer, 4).size, 1);
    assert_int_equal(tokenizer_token_bytes(tokenizer, 8).size, 0);
    assert_int_equal(tokenizer_token_bytes(tokenizer, 9).size, 0);
    assert_int_equal(tokenizer_token_bytes(tokenizer, 10).size, 6);
    ends = tokenizer_end_ids(tokenizer, &count);
    assert_int_equal(count, 2);
    assert_true(ends[0] == 3 && ends[1] == 11); /* ascending, each once */
    count = 0;
    assert_int_equal(tokenizer_scratch_create(tokenizer, &scratch), STATUS_OK);
    assert_int_equal(
        tokenizer_encode_bytes(tokenizer, scratch, bytes_of_text("a b"), ids, 8, &count),
        STATUS_OK);
    assert_true(count == 3 && ids[1] == 4); /* raw, a space is a space */
    assert_int_equal(
        tokenizer_encode_bytes(tokenizer, scratch, bytes_of_text("a b"), ids, 4, &count),
        STATUS_LIMIT);
    assert_int_equal(tokenizer_encode_bytes(tokenizer, scratch,
                                            bytes_of(NULL, (size_t)TEXT_BYTES_MAX + 1), ids, 8,
                                            &count),
                     STATUS_LIMIT);
    assert_int_equal(count, 3);
    tokenizer_scratch_destroy(scratch);
    tokenizer_destroy(tokenizer);
}

static void test_a_name_outside_the_alphabet_shows_itself(void **state)
{
    struct tokenizer *tokenizer = NULL;
    struct tiny tiny;

    (void)state;
    make_tiny(&tiny);
    tiny.tokens[5] = bytes_of_text("\u0120 \u6f22"); /* a space and a character are no letters */
    tiny.vocabulary.merge_count = 2;
    assert_int_equal(tokenizer_create(&tiny.vocabulary, NULL, &tokenizer), STATUS_OK);
    assert_true(bytes_equal(tokenizer_token_bytes(tokenizer, 5), tiny.tokens[5]));
    tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_token_appears_where_it_may),
        cmocka_unit_test(test_names_and_shown_bytes_follow_the_kind),
        cmocka_unit_test(test_bytes_stand_in_where_there_is_no_piece),
        cmocka_unit_test(test_a_name_outside_the_alphabet_shows_itself),
        cmocka_unit_test(test_a_bad_vocabulary_is_refused_with_its_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
