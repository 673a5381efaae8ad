/* Goal: the leftmost and then longest token is found, as a naive search finds it.
 * Method: random names over two letters, random texts over the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/vocabulary.h"
#include "text/special_trie.h"

enum { NAME_COUNT_MAX = 6, NAME_BYTES_MAX = 5, TEXT_BYTES = 40 };

static uint64_t random_state = 11;

static uint32_t draw(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

static void fill(uint8_t *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        text[i] = draw(2) == 0 ? 'a' : 'b';
    }
}

static bool find_naively(const struct bytes *names, uint32_t count, struct bytes text, size_t from,
                         size_t *offset, size_t *size, uint32_t *id)
{
    *size = 0;
    for (size_t at = from; at < text.size && *size == 0; at++) {
        for (uint32_t i = 0; i < count; i++) {
            if (names[i].size > *size && names[i].size <= text.size - at &&
                memcmp(names[i].data, text.data + at, names[i].size) == 0) {
                *offset = at;
                *size = names[i].size;
                *id = i;
            }
        }
    }
    return *size > 0;
}

static void test_finds_what_a_naive_search_finds(void **state)
{
    (void)state;
    for (int round = 0; round < 5000; round++) {
        uint8_t letters[NAME_COUNT_MAX][NAME_BYTES_MAX], text[TEXT_BYTES];
        struct bytes names[NAME_COUNT_MAX];
        const uint32_t count = draw(NAME_COUNT_MAX + 1);
        struct special_trie trie;
        size_t from = 0;

        special_trie_init(&trie);
        for (uint32_t i = 0; i < count; i++) {
            fill(letters[i], NAME_BYTES_MAX);
            names[i] = bytes_of(letters[i], 1 + draw(NAME_BYTES_MAX));
            assert_int_equal(special_trie_add(&trie, names[i], i), STATUS_OK);
        }
        fill(text, sizeof text);
        while (from < sizeof text) {
            size_t offset = 0, size = 0, naive_offset = 0, naive_size = 0;
            uint32_t id = 0, naive_id = 0;
            const struct bytes whole = bytes_of(text, sizeof text);
            const bool naive =
                find_naively(names, count, whole, from, &naive_offset, &naive_size, &naive_id);
            assert_int_equal(special_trie_find(&trie, whole, from, &offset, &size, &id), naive);
            if (!naive) {
                break;
            }
            assert_int_equal(offset, naive_offset);
            assert_int_equal(size, naive_size);
            assert_int_equal(id, naive_id);
            from = offset + size;
        }
        special_trie_finish(&trie);
    }
}

static void test_names_that_cannot_be_text_are_left_out(void **state)
{
    struct special_trie trie;
    size_t offset, size;
    uint32_t id;

    (void)state;
    special_trie_init(&trie);
    assert_int_equal(special_trie_add(&trie, bytes_of_text(""), 1), STATUS_OK);
    assert_int_equal(special_trie_add(&trie, bytes_of("\xa9", 1), 2), STATUS_OK);
    assert_false(special_trie_find(&trie, bytes_of_text("é"), 0, &offset, &size, &id));
    special_trie_finish(&trie);
}

static void test_growing_may_fail(void **state)
{
    static const char name[] = "a name that takes nodes, more of them than the first block has: "
                               "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 "
                               "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789 "
                               "0123456789 0123456789 0123456789 0123456789 0123456789 0123456789";
    enum status status = STATUS_MEMORY;

    (void)state;
    for (int64_t survivors = 0; status != STATUS_OK; survivors++) {
        struct special_trie trie;
        special_trie_init(&trie);
        memory_fault_set(survivors);
        status = special_trie_add(&trie, bytes_of_text(name), 1);
        memory_fault_set(-1);
        special_trie_finish(&trie);
        assert_int_equal(memory_live_count(), 0);
        assert_true(survivors < 2 || status == STATUS_OK);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_what_a_naive_search_finds),
        cmocka_unit_test(test_names_that_cannot_be_text_are_left_out),
        cmocka_unit_test(test_growing_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
