/* Goal: the generator is Philox4x32-10 and its draws depend on all of seed, index, purpose, draw.
 * Method: the known answers published with the Random123 library; a change of each input changes
 * the draw; a generator with nine rounds is caught by the same answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kernels/steps/philox.h"

struct known_answer {
    uint32_t counter[4];
    uint32_t key[2];
    uint32_t words[4];
};

static const struct known_answer known_answers[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void test_known_answers_are_given(void **state)
{
    (void)state;

    for (size_t i = 0; i < sizeof known_answers / sizeof *known_answers; i++) {
        const struct known_answer *known = &known_answers[i];
        const struct philox_words words =
            philox_block((uint64_t)known->key[1] << 32 | known->key[0], known->counter[0],
                         known->counter[1], known->counter[2], known->counter[3]);
        assert_memory_equal(words.word, known->words, sizeof known->words);
    }
}

/* The generator with a chosen number of rounds, written from the paper's description. */
static void rounds(const struct known_answer *known, int count, uint32_t *out)
{
    uint32_t key[2] = {known->key[0], known->key[1]};

    for (int i = 0; i < 4; i++) {
        out[i] = known->counter[i];
    }
    for (int i = 0; i < count; i++) {
        const uint64_t left = (uint64_t)0xd2511f53u * out[0];
        const uint64_t right = (uint64_t)0xcd9e8d57u * out[2];
        const uint32_t next[4] = {(uint32_t)(right >> 32) ^ out[1] ^ key[0], (uint32_t)right,
                                  (uint32_t)(left >> 32) ^ out[3] ^ key[1], (uint32_t)left};
        for (int w = 0; w < 4; w++) {
            out[w] = next[w];
        }
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
}

static void test_twin_nine_rounds_are_caught(void **state)
{
    (void)state;
    uint32_t words[4];

    rounds(&known_answers[0], 10, words);
    assert_memory_equal(words, known_answers[0].words, sizeof words);
    rounds(&known_answers[0], 9, words);
    assert_memory_not_equal(words, known_answers[0].words, sizeof words);
}

static void test_a_draw_depends_on_seed_index_purpose_and_number(void **state)
{
    (void)state;
    const uint64_t draw = philox_draw(7, 3, PHILOX_TOKEN, 0);

    assert_true(philox_draw(7, 3, PHILOX_TOKEN, 0) == draw);
    assert_true(philox_draw(8, 3, PHILOX_TOKEN, 0) != draw);
    assert_true(philox_draw(7 + (UINT64_C(1) << 32), 3, PHILOX_TOKEN, 0) != draw);
    assert_true(philox_draw(7, 4, PHILOX_TOKEN, 0) != draw);
    assert_true(philox_draw(7, 3, PHILOX_TOKEN + 1, 0) != draw);
    assert_true(philox_draw(7, 3, PHILOX_TOKEN, 1) != draw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers_are_given),
        cmocka_unit_test(test_twin_nine_rounds_are_caught),
        cmocka_unit_test(test_a_draw_depends_on_seed_index_purpose_and_number),
    };
    return cmocka_run_group_tests_name("kernels/philox", tests, NULL, NULL);
}
