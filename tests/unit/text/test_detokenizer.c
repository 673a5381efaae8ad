/* Goal: text leaves in whole UTF-8 sequences as soon as they are whole, and no byte is lost.
 * Method: random ids of a real byte-level vocabulary (most of them broken UTF-8 side by side):
 * after every token, what left is all but an unfinished character; at the end it is the bytes of
 * the ids.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/vocabulary_fixture.h"
#include "text/detokenizer.h"
#include "text/utf8_hold.h"

static struct vocabulary_fixture fixture;
static struct tokenizer *tokenizer;
static uint64_t random_state = 9;

static uint32_t draw(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

/* Whether some bytes would complete [text] to one character: tried with all that matter. */
static bool is_unfinished(struct bytes text)
{
    static const uint8_t ends[] = {0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf};

    for (uint32_t i = 0; text.size > 0 && text.size < 4 && i < 6 * 6 * 6; i++) {
        uint8_t whole[8];
        memcpy(whole, text.data, text.size);
        whole[text.size] = ends[i % 6];
        whole[text.size + 1] = ends[i / 6 % 6];
        whole[text.size + 2] = ends[i / 36];
        for (size_t size = text.size + 1; size <= 4; size++) {
            uint32_t code_point;
            if (utf8_decode(bytes_of(whole, size), &code_point) == size) {
                return true;
            }
        }
    }
    return false;
}

static void test_what_left_is_all_but_an_unfinished_character(void **state)
{
    (void)state;
    for (int round = 0; round < 1000; round++) {
        struct detokenizer detokenizer;
        struct buffer out, all;

        buffer_init(&out, 1 << 16);
        buffer_init(&all, 1 << 16);
        detokenizer_init(&detokenizer, tokenizer);
        for (int i = 0; i < 40; i++) {
            size_t held = 0;
            /* Mostly single bytes and short pieces: the first ids of the vocabulary. */
            const uint32_t id = draw(draw(4) == 0 ? fixture.vocabulary.token_count : 300);
            assert_int_equal(buffer_append(&all, tokenizer_token_bytes(tokenizer, id)), 0);
            assert_int_equal(detokenizer_push(&detokenizer, id, &out), STATUS_OK);
            for (size_t size = 1; size <= 3 && size <= all.size; size++) {
                if (is_unfinished(bytes_of(all.data + all.size - size, size))) {
                    held = size;
                }
            }
            assert_int_equal(out.size, all.size - held);
            assert_memory_equal(out.data, all.data, out.size);
        }
        assert_int_equal(detokenizer_end(&detokenizer, &out), STATUS_OK);
        assert_int_equal(out.size, all.size);
        assert_memory_equal(out.data, all.data, all.size);
        buffer_finish(&out);
        buffer_finish(&all);
    }
}

static void test_a_full_buffer_changes_nothing(void **state)
{
    const uint32_t id = tokenizer_find(tokenizer, bytes_of_text("the"));
    struct detokenizer detokenizer;
    struct buffer out;

    (void)state;
    assert_int_not_equal(id, TOKEN_NONE);
    buffer_init(&out, 2);
    detokenizer_init(&detokenizer, tokenizer);
    assert_int_equal(detokenizer_push(&detokenizer, id, &out), STATUS_LIMIT);
    assert_int_equal(out.size, 0);
    assert_int_equal(detokenizer.held_size, 0);
    buffer_finish(&out);
}

/* The twin: a hold that never gives up would keep bytes for ever. */
static void test_broken_sequences_are_given_up_at_once(void **state)
{
    uint8_t held[4];

    (void)state;
    assert_int_equal(utf8_hold_push(held, 0, 0xe2), 1);
    assert_int_equal(utf8_hold_push(held, 1, 0x96), 2);
    assert_int_equal(utf8_hold_push(held, 2, 'a'), 0);
    assert_int_equal(utf8_hold_push(held, 0, 0xe0), 1);
    assert_int_equal(utf8_hold_push(held, 1, 0x80), 0); /* overlong */
    assert_int_equal(utf8_hold_push(held, 0, 0xed), 1);
    assert_int_equal(utf8_hold_push(held, 1, 0xa0), 0); /* surrogate */
    assert_int_equal(utf8_hold_push(held, 0, 0xf4), 1);
    assert_int_equal(utf8_hold_push(held, 1, 0x90), 0); /* past U+10FFFF */
    assert_int_equal(utf8_hold_push(held, 0, 0xc1), 0);
    assert_int_equal(utf8_hold_push(held, 0, 0xf5), 0);
    assert_int_equal(utf8_hold_push(held, 0, 0xe2), 1);
    assert_int_equal(utf8_hold_push(held, 1, 0xf0), 1); /* a new beginning */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_left_is_all_but_an_unfinished_character),
        cmocka_unit_test(test_a_full_buffer_changes_nothing),
        cmocka_unit_test(test_broken_sequences_are_given_up_at_once),
    };

    vocabulary_fixture_load("gpt2", 0, &fixture);
    if (tokenizer_create(&fixture.vocabulary, NULL, &tokenizer) != STATUS_OK) {
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tokenizer_destroy(tokenizer);
    vocabulary_fixture_free(&fixture);
    return failed;
}
