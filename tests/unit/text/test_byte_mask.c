/* Goal: the set of tokens that may come next is exactly those that keep to the prescribed bytes, at
 * every point of every way to write them; it says when a rule is spent and when a choice is whole.
 * Method: whole vocabularies of three kinds; each set is compared word by word with one that tries
 * every token on the text as a plain string. Texts are written token by token from those sets, by a
 * seeded draw. A twin compares with the set one byte further on, which must differ.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "support/vocabulary_fixture.h"
#include "text/byte_mask.h"

enum { WORD_COUNT_MAX = 8192, TEXT_BYTES_MAX_HERE = 256 };

static struct vocabulary_fixture vocabulary;
static struct tokenizer *tokenizer;
static struct byte_mask *mask;
static uint32_t words[WORD_COUNT_MAX], wanted[WORD_COUNT_MAX];

static const char *const vocabularies[] = {"smollm", "llama3", "spm"};

static void open_vocabulary(const char *name)
{
    struct error error = {0};

    vocabulary_fixture_load(name, 0, &vocabulary);
    assert_int_equal(tokenizer_create(&vocabulary.vocabulary, &error, &tokenizer), STATUS_OK);
    assert_int_equal(byte_mask_create(tokenizer, &mask), STATUS_OK);
    assert_true(byte_mask_word_count(mask) <= WORD_COUNT_MAX);
    assert_int_equal(byte_mask_word_count(mask), (vocabulary.vocabulary.token_count + 31) / 32);
}

static void close_vocabulary(void)
{
    byte_mask_destroy(mask);
    tokenizer_destroy(tokenizer);
    vocabulary_fixture_free(&vocabulary);
}

/* ---- the plain meaning of a rule ---- */

static bool begins(struct bytes text, struct bytes with)
{
    return with.size <= text.size &&
           (with.size == 0 || memcmp(text.data, with.data, with.size) == 0);
}

/* forced + choice, in `room`. */
static struct bytes whole_of(const struct byte_rule *rule, uint32_t choice, uint8_t *room)
{
    const struct bytes bytes = rule->choices[choice];

    if (rule->forced.size > 0) {
        memcpy(room, rule->forced.data, rule->forced.size);
    }
    memcpy(room + rule->forced.size, bytes.data, bytes.size);
    return bytes_of(room, rule->forced.size + bytes.size);
}

static bool may_stand(const struct byte_rule *rule, struct bytes text, struct bytes after)
{
    uint8_t room[2 * TEXT_BYTES_MAX_HERE];

    if (rule->choice_count == 0) {
        return begins(after, rule->forced) || begins(rule->forced, after);
    }
    if (text.size < rule->forced.size) {
        return begins(rule->forced, after); /* what is forced is written before a choice begins */
    }
    for (uint32_t i = 0; i < rule->choice_count; i++) {
        if (begins(whole_of(rule, i, room), after)) {
            return true;
        }
    }
    return false;
}

static bool is_whole(const struct byte_rule *rule, struct bytes text)
{
    uint8_t room[2 * TEXT_BYTES_MAX_HERE];
    bool found = false;

    for (uint32_t i = 0; i < rule->choice_count; i++) {
        found |= bytes_equal(whole_of(rule, i, room), text);
    }
    return found;
}

static bool goes_on(const struct byte_rule *rule, struct bytes text)
{
    uint8_t room[2 * TEXT_BYTES_MAX_HERE];
    bool found = false;

    for (uint32_t i = 0; i < rule->choice_count; i++) {
        const struct bytes whole = whole_of(rule, i, room);

        found |= begins(whole, text) && whole.size > text.size;
    }
    return found;
}

static void fill_plainly(const struct byte_rule *rule, struct bytes text)
{
    uint8_t room[TEXT_BYTES_MAX_HERE + 4096];

    memset(wanted, 0, sizeof wanted);
    if (text.size > 0) {
        memcpy(room, text.data, text.size);
    }
    for (uint32_t id = 0; id < vocabulary.vocabulary.token_count; id++) {
        const struct bytes bytes = tokenizer_token_bytes(tokenizer, id);
        bool is_allowed = false;

        if (tokenizer_is_end(tokenizer, id)) {
            is_allowed = rule->choice_count > 0 && is_whole(rule, text);
        } else if (bytes.size > 0) {
            memcpy(room + text.size, bytes.data, bytes.size);
            is_allowed = may_stand(rule, text, bytes_of(room, text.size + bytes.size));
        }
        wanted[id / 32] |= (uint32_t)is_allowed << id % 32;
    }
}

/* ---- tests ---- */

static uint64_t noise;

static uint32_t draw(uint32_t count)
{
    noise = noise * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(noise >> 33) % count;
}

/* One of the tokens of `words`, or TOKEN_NONE. */
static uint32_t pick(void)
{
    const uint32_t count = vocabulary.vocabulary.token_count;
    const uint32_t start = draw(count);

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t id = (start + i) % count;

        if ((words[id / 32] >> id % 32 & 1) != 0) {
            return id;
        }
    }
    return TOKEN_NONE;
}

/* Writes the rule out once, checking every set on the way. */
static void write_out(const struct byte_rule *rule)
{
    const size_t size = byte_mask_word_count(mask) * sizeof(uint32_t);
    uint8_t written[TEXT_BYTES_MAX_HERE];
    struct bytes text = {written, 0};

    for (;;) {
        const bool is_spent = byte_rule_is_spent(rule, text.size);

        memset(words, 0x55, sizeof words);
        assert_int_equal(byte_rule_is_done(rule, text),
                         is_whole(rule, text) && !goes_on(rule, text));
        assert_int_equal(byte_rule_fill(rule, mask, text, words), is_spent);
        if (is_spent) {
            assert_true(rule->choice_count == 0 && text.size >= rule->forced.size);
            assert_int_equal(words[0], 0x55555555); /* untouched */
            return;
        }
        fill_plainly(rule, text);
        assert_memory_equal(words, wanted, size);
        assert_int_equal(words[size / sizeof(uint32_t)], 0x55555555);
        const uint32_t id = pick();
        assert_true(id != TOKEN_NONE || byte_rule_is_done(rule, text));
        if (id == TOKEN_NONE || tokenizer_is_end(tokenizer, id)) {
            assert_true(is_whole(rule, text));
            return;
        }
        const struct bytes bytes = tokenizer_token_bytes(tokenizer, id);
        assert_true(text.size + bytes.size <= sizeof written);
        memcpy(written + text.size, bytes.data, bytes.size);
        text.size += bytes.size;
    }
}

static const struct bytes none = {NULL, 0};

static void test_every_way_to_write_a_rule_has_exactly_its_tokens(void **state)
{
    const struct bytes nested[] = {bytes_of_text("yes"), bytes_of_text("yes, but no"),
                                   bytes_of_text("ye"), bytes_of_text("no")};
    const struct bytes twice[] = {bytes_of_text("a"), bytes_of_text("a")};
    const struct bytes cut[] = {bytes_of_text("\xc3\xa4"), bytes_of_text("\xc3\xb6l"),
                                bytes_of_text("\xf0\x9f\x90\x88\xf0\x9f\x90\x88")};
    const struct byte_rule rules[] = {
        {bytes_of_text("The quick brown fox"), NULL, 0},
        {bytes_of("\xb6\xc3", 2), NULL, 0}, /* the rest of a character, and half of one */
        {none, nested, 4},
        {bytes_of_text(" Well, "), nested, 4},
        {none, twice, 2},
        {bytes_of_text(" "), cut, 3},
    };

    (void)state;
    for (size_t v = 0; v < sizeof vocabularies / sizeof *vocabularies; v++) {
        open_vocabulary(vocabularies[v]);
        for (size_t r = 0; r < sizeof rules / sizeof *rules; r++) {
            for (noise = 1; noise < 8; noise++) {
                const uint64_t seed = noise;

                write_out(&rules[r]);
                noise = seed;
            }
        }
        close_vocabulary();
    }
}

static void test_twin_the_set_one_byte_further_on_is_another(void **state)
{
    const struct bytes choices[] = {bytes_of_text("lighthouse"), bytes_of_text("light rain")};
    const struct byte_rule rule = {none, choices, 2};

    (void)state;
    open_vocabulary("smollm");
    for (size_t size = 0; size < 9; size++) {
        assert_false(byte_rule_fill(&rule, mask, bytes_of("lighthouse", size), words));
        fill_plainly(&rule, bytes_of("lighthouse", size + 1));
        assert_true(memcmp(words, wanted, byte_mask_word_count(mask) * sizeof(uint32_t)) != 0);
    }
    close_vocabulary();
}

/* A text that has left all choices has nothing to go on with. */
static void test_a_text_beside_the_choices_allows_nothing(void **state)
{
    const struct bytes choice = bytes_of_text("yes");
    const struct byte_rule rule = {none, &choice, 1};
    uint32_t sum = 0;

    (void)state;
    open_vocabulary("smollm");
    assert_false(byte_rule_fill(&rule, mask, bytes_of_text("yet"), words));
    for (uint32_t i = 0; i < byte_mask_word_count(mask); i++) {
        sum |= words[i];
    }
    assert_int_equal(sum, 0);
    assert_false(byte_rule_is_done(&rule, bytes_of_text("yet")));
    assert_true(byte_rule_is_done(&rule, bytes_of_text("yes")));
    close_vocabulary();
}

static void test_every_failed_allocation_is_told(void **state)
{
    struct byte_mask *made = NULL;

    (void)state;
    open_vocabulary("smollm");
    for (int64_t n = 0; n < 2; n++) {
        memory_fault_set(n);
        assert_int_equal(byte_mask_create(tokenizer, &made), STATUS_MEMORY);
        memory_fault_set(-1);
        assert_null(made);
    }
    byte_mask_destroy(NULL);
    close_vocabulary();
    assert_int_equal(memory_live_count(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_way_to_write_a_rule_has_exactly_its_tokens),
        cmocka_unit_test(test_twin_the_set_one_byte_further_on_is_another),
        cmocka_unit_test(test_a_text_beside_the_choices_allows_nothing),
        cmocka_unit_test(test_every_failed_allocation_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
