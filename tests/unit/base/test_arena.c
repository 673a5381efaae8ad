/* Goal: an arena hands out separate, zeroed, aligned pieces up to its bound and frees them at once.
 * Method: random sizes filled with their own number and checked at the end; the bound is met
 * exactly; every allocation below it is made to fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/memory.h"

static bool is_filled(const uint8_t *piece, size_t size, uint8_t with)
{
    for (size_t i = 0; i < size; i++) {
        if (piece[i] != with) {
            return false;
        }
    }
    return true;
}

static void test_pieces_are_zeroed_aligned_and_apart(void **state)
{
    enum { PIECE_COUNT = 500 };
    const int64_t live = memory_live_count();
    uint8_t *pieces[PIECE_COUNT];
    size_t sizes[PIECE_COUNT];
    struct arena arena;
    uint32_t seed = 1;

    (void)state;
    arena_init(&arena, 64 * 1024 * 1024);
    for (int i = 0; i < PIECE_COUNT; i++) {
        seed = seed * 1664525u + 1013904223u;
        sizes[i] = (seed >> 16) % (i % 50 == 0 ? 300000 : 900);
        pieces[i] = arena_alloc(&arena, sizes[i], 1);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        assert_true(is_filled(pieces[i], sizes[i], 0));
        memset(pieces[i], i % 251 + 1, sizes[i]);
    }
    for (int i = 0; i < PIECE_COUNT; i++) {
        assert_true(is_filled(pieces[i], sizes[i], (uint8_t)(i % 251 + 1)));
    }
    assert_true(memory_live_count() > live);
    arena_finish(&arena);
    assert_true(memory_live_count() == live);
    arena_finish(&arena);
}

static void test_the_bound_is_met_and_never_passed(void **state)
{
    struct arena arena;

    (void)state;
    arena_init(&arena, 1024);
    for (int i = 0; i < 64; i++) {
        assert_non_null(arena_alloc(&arena, 1, 1));
    }
    assert_int_equal(arena.used_bytes, 1024);
    assert_null(arena_alloc(&arena, 1, 1));
    assert_null(arena_alloc(&arena, 0, 1));
    assert_int_equal(arena.used_bytes, 1024);
    arena_finish(&arena);
    assert_non_null(arena_alloc(&arena, 1024, 1));
    arena_finish(&arena);
    assert_null(arena_alloc(&arena, 1025, 1));
    arena_finish(&arena);
}

static void test_sizes_that_overflow_give_no_memory(void **state)
{
    struct arena arena;

    (void)state;
    arena_init(&arena, SIZE_MAX);
    assert_null(arena_alloc(&arena, SIZE_MAX / 2, 3));
    assert_null(arena_alloc(&arena, SIZE_MAX, 1));
    assert_null(arena_copy(&arena, "x", SIZE_MAX));
    arena_finish(&arena);
}

static void test_a_copy_ends_in_a_zero(void **state)
{
    struct arena arena;
    char *copy;

    (void)state;
    arena_init(&arena, 1024);
    copy = arena_copy(&arena, "sixteen bytes ok", 16);
    assert_non_null(copy);
    assert_string_equal(copy, "sixteen bytes ok");
    copy = arena_copy(&arena, NULL, 0);
    assert_non_null(copy);
    assert_string_equal(copy, "");
    arena_finish(&arena);
}

static void test_a_zeroed_arena_can_be_finished(void **state)
{
    struct arena arena = {0};

    (void)state;
    arena_finish(&arena);
    assert_null(arena_alloc(&arena, 1, 1));
}

static void test_every_failed_allocation_leaves_the_arena_whole(void **state)
{
    const int64_t live = memory_live_count();

    (void)state;
    for (int64_t survivors = 0; survivors < 4; survivors++) {
        struct arena arena;
        int count = 0;

        arena_init(&arena, 1024 * 1024);
        memory_fault_set(survivors);
        while (arena_alloc(&arena, 4096, 1) != NULL) {
            count++;
        }
        memory_fault_set(-1);
        assert_int_equal(arena.used_bytes, (size_t)count * 4096);
        assert_true(count >= survivors);
        assert_non_null(arena_alloc(&arena, 4096, 1));
        arena_finish(&arena);
        assert_true(memory_live_count() == live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_are_zeroed_aligned_and_apart),
        cmocka_unit_test(test_the_bound_is_met_and_never_passed),
        cmocka_unit_test(test_sizes_that_overflow_give_no_memory),
        cmocka_unit_test(test_a_copy_ends_in_a_zero),
        cmocka_unit_test(test_a_zeroed_arena_can_be_finished),
        cmocka_unit_test(test_every_failed_allocation_leaves_the_arena_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
