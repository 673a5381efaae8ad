/* Goal: memory comes zeroed and aligned, is counted, can fail on purpose, and hides nothing from
 * the address sanitizer.
 * Method: dirty blocks are freed and asked for again; counters are read before and after; faults
 * are set in one thread and looked for in another; a child process runs over the end of a block.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

static bool is_zero(const uint8_t *bytes, size_t size)
{
    return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static void test_blocks_come_zeroed_even_after_a_dirty_one(void **state)
{
    (void)state;
    for (size_t size = 1; size < 100000; size = size * 3 + 1) {
        for (int round = 0; round < 4; round++) {
            uint8_t *block = memory_alloc(size, 1);

            assert_non_null(block);
            assert_true(is_zero(block, size));
            memset(block, 0xA5, size);
            memory_free(block);
        }
    }
}

/* Sizes around the border where zeroing turns lazy, and odd ones whose ends share a page. */
static void test_aligned_blocks_come_zeroed_and_aligned(void **state)
{
    const size_t mib = 1024 * 1024;
    const size_t lazy = 256 * 1024;
    const size_t sizes[] = {0,    1,        64,           4097,        lazy - 1,
                            lazy, lazy + 1, lazy + 12345, 4 * mib + 1, 9 * mib + 12345};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (size_t alignment = 16; alignment <= 8192; alignment *= 8) {
            for (int round = 0; round < 3; round++) {
                uint8_t *block = memory_alloc_aligned(alignment, sizes[i], 1);

                assert_non_null(block);
                assert_int_equal((uintptr_t)block % alignment, 0);
                assert_true(is_zero(block, sizes[i]));
                memset(block, 0xA5, sizes[i]);
                memory_free(block);
            }
        }
    }
}

static void test_the_search_for_zeros_sees_one_dirty_byte(void **state)
{
    uint8_t *block = memory_alloc(5000, 1);

    (void)state;
    assert_non_null(block);
    for (size_t i = 0; i < 5000; i += 4999) {
        block[i] = 1;
        assert_false(is_zero(block, 5000));
        block[i] = 0;
    }
    memory_free(block);
}

/* Whether the kernel was told to use huge pages where `at` lies: flag "hg" of its mapping. */
static bool asks_for_huge_pages(const void *at)
{
    FILE *maps = fopen("/proc/self/smaps", "r");
    char line[512];
    bool is_here = false, asks = false;

    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL) {
        unsigned long long first, end;

        if (sscanf(line, "%llx-%llx ", &first, &end) == 2) {
            is_here = first <= (uintptr_t)at && (uintptr_t)at < end;
        } else if (is_here && strncmp(line, "VmFlags:", 8) == 0) {
            asks = strstr(line, " hg") != NULL;
        }
    }
    (void)fclose(maps);
    return asks;
}

static void test_huge_blocks_come_zeroed_aligned_and_in_huge_pages(void **state)
{
    const size_t sizes[] = {
        0, 1, 4097, MEMORY_HUGE_BYTES - 1, MEMORY_HUGE_BYTES, 3 * MEMORY_HUGE_BYTES + 12345};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *block = memory_alloc_huge(sizes[i], 1);

        assert_non_null(block);
        assert_int_equal((uintptr_t)block % 64, 0);
        assert_true(is_zero(block, sizes[i]));
        if (sizes[i] >= MEMORY_HUGE_BYTES) {
            assert_int_equal((uintptr_t)block % MEMORY_HUGE_BYTES, 0);
        }
        memory_free(block);
    }
    assert_null(memory_alloc_huge(SIZE_MAX / 4 + 1, 4));
}

/* Blocks so large that each has a mapping of its own: smaller ones may get memory that asked before
 * it was freed. */
static void test_only_huge_blocks_ask_for_huge_pages(void **state)
{
    uint8_t *huge = memory_alloc_huge(20, MEMORY_HUGE_BYTES);
    uint8_t *plain = memory_alloc_aligned(64, 20, MEMORY_HUGE_BYTES);

    (void)state;
    assert_non_null(huge);
    assert_non_null(plain);
    const bool asks = asks_for_huge_pages(huge + MEMORY_HUGE_BYTES);
    const bool plain_asks = asks_for_huge_pages(plain + MEMORY_HUGE_BYTES);
    memory_free(huge);
    memory_free(plain);
    if (access("/sys/kernel/mm/transparent_hugepage", F_OK) != 0) {
        skip(); /* a kernel without huge pages */
    }
    assert_true(asks);
    assert_false(plain_asks);
}

/* Pages of a block that lie in physical memory, of those that are wholly inside. */
static size_t resident_pages(uint8_t *block, size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t head = (page - (uintptr_t)block % page) % page;
    const size_t count = (size - head) / page;
    unsigned char *states = calloc(count, 1);
    size_t resident = 0;

    assert_non_null(states);
    assert_int_equal(mincore(block + head, count * page, states), 0);
    for (size_t i = 0; i < count; i++) {
        resident += states[i] & 1;
    }
    free(states);
    return resident;
}

static void test_a_cleared_block_is_zero_and_takes_no_memory_until_it_is_touched(void **state)
{
    const size_t mib = 1024 * 1024;
    const size_t sizes[] = {1, 4097, 3 * mib + 12345};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *block = memory_alloc_aligned(64, sizes[i], 1);

        assert_non_null(block);
        memset(block, 0xA5, sizes[i]);
        assert_true(sizes[i] < mib || resident_pages(block, sizes[i]) * 4096 > 2 * mib);
        memory_clear(block, sizes[i], 1);
        assert_true(sizes[i] < mib || resident_pages(block, sizes[i]) == 0);
        assert_true(is_zero(block, sizes[i]));
        memset(block, 0xA5, sizes[i]);
        memory_free(block);
    }
    memory_clear(NULL, 3, 4);
}

static void test_sizes_that_overflow_give_no_memory(void **state)
{
    const int64_t live = memory_live_count();

    (void)state;
    assert_null(memory_alloc(SIZE_MAX / 2 + 1, 2));
    assert_null(memory_alloc_aligned(64, SIZE_MAX / 4 + 1, 4));
    assert_null(memory_resize(NULL, SIZE_MAX, SIZE_MAX));
    assert_null(memory_copy_text("x", SIZE_MAX));
    assert_true(memory_live_count() == live);
}

static void test_a_block_of_nothing_is_a_valid_pointer(void **state)
{
    void *a = memory_alloc(0, 8);
    void *b = memory_alloc(8, 0);
    void *c = memory_resize(NULL, 0, 0);

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
    assert_ptr_not_equal(a, b);
    c = memory_resize(c, 0, 4);
    assert_non_null(c);
    memory_free(a);
    memory_free(b);
    memory_free(c);
    memory_free(NULL);
}

static void test_a_resize_keeps_the_content_and_a_failed_one_keeps_the_block(void **state)
{
    char *block = memory_resize(NULL, 6, 1);

    (void)state;
    assert_non_null(block);
    memcpy(block, "hello", 6);
    block = memory_resize(block, 100000, 1);
    assert_non_null(block);
    assert_string_equal(block, "hello");
    memory_fault_set(0);
    assert_null(memory_resize(block, 200000, 1));
    memory_fault_set(-1);
    assert_string_equal(block, "hello");
    block = memory_resize(block, 6, 1);
    assert_non_null(block);
    assert_string_equal(block, "hello");
    memory_free(block);
}

static void test_a_text_is_copied_with_its_inner_and_final_zero(void **state)
{
    char *copy = memory_copy_text("a\0bc", 3);

    (void)state;
    assert_non_null(copy);
    assert_memory_equal(copy, "a\0b", 4);
    memory_free(copy);
    copy = memory_copy_text(NULL, 0);
    assert_non_null(copy);
    assert_string_equal(copy, "");
    memory_free(copy);
}

static void test_live_blocks_and_allocations_are_counted(void **state)
{
    const int64_t live = memory_live_count();
    const uint64_t made = memory_thread_allocation_count();
    void *a = memory_alloc(1, 1);
    void *b = memory_alloc_aligned(64, 1, 1);
    void *c = memory_copy_text("c", 1);

    (void)state;
    assert_true(memory_live_count() == live + 3);
    a = memory_resize(a, 2, 1);
    assert_true(memory_live_count() == live + 3);
    assert_true(memory_thread_allocation_count() == made + 4);
    memory_free(a);
    memory_free(b);
    assert_true(memory_live_count() == live + 1);
    memory_free(c);
    assert_true(memory_live_count() == live);
    assert_true(memory_thread_allocation_count() == made + 4);
}

static void test_a_fault_lets_the_survivors_pass_and_stops_the_rest(void **state)
{
    (void)state;
    for (int64_t survivors = 0; survivors < 5; survivors++) {
        const int64_t live = memory_live_count();
        void *blocks[8];
        int64_t count = 0;

        memory_fault_set(survivors);
        for (int i = 0; i < 8; i++) {
            blocks[i] = i % 2 == 0 ? memory_alloc(1, 9) : memory_alloc_aligned(32, 1, 9);
            count += blocks[i] != NULL;
            assert_true((blocks[i] != NULL) == (i < survivors));
        }
        assert_true(count == survivors);
        assert_true(memory_live_count() == live + survivors);
        memory_fault_set(-1);
        for (int i = 0; i < 8; i++) {
            memory_free(blocks[i]);
        }
        blocks[0] = memory_alloc(1, 9);
        assert_non_null(blocks[0]);
        memory_free(blocks[0]);
    }
}

static void *allocate_elsewhere(void *out)
{
    const uint64_t made = memory_thread_allocation_count();
    void *block = memory_alloc(1, 16);

    *(uint64_t *)out = memory_thread_allocation_count() - made;
    return block;
}

static void test_faults_and_allocation_counts_stay_in_their_thread(void **state)
{
    const int64_t live = memory_live_count();
    const uint64_t made = memory_thread_allocation_count();
    uint64_t made_there = 0;
    void *block = NULL;
    pthread_t thread;

    (void)state;
    memory_fault_set(0);
    assert_int_equal(pthread_create(&thread, NULL, allocate_elsewhere, &made_there), 0);
    assert_int_equal(pthread_join(thread, &block), 0);
    assert_null(memory_alloc(1, 16));
    memory_fault_set(-1);
    assert_non_null(block);
    assert_true(made_there == 1);
    assert_true(memory_thread_allocation_count() == made);
    assert_true(memory_live_count() == live + 1);
    memory_free(block);
}

/* One byte past the end, in a child: the sanitizer must end it, whatever the block came from. */
static bool overflow_is_caught(size_t alignment)
{
    int result = 0;
    const pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        volatile uint8_t *block =
            alignment == 0 ? memory_alloc(1, 48) : memory_alloc_aligned(alignment, 1, 48);
        volatile size_t index = 48;

        close(STDERR_FILENO);
        block[index] = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    return !(WIFEXITED(result) && WEXITSTATUS(result) == 0);
}

static void test_the_address_sanitizer_sees_overflows(void **state)
{
    (void)state;
#ifdef WITH_ASAN
    assert_true(overflow_is_caught(0));
    assert_true(overflow_is_caught(64));
#else
    (void)overflow_is_caught;
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_come_zeroed_even_after_a_dirty_one),
        cmocka_unit_test(test_aligned_blocks_come_zeroed_and_aligned),
        cmocka_unit_test(test_the_search_for_zeros_sees_one_dirty_byte),
        cmocka_unit_test(test_huge_blocks_come_zeroed_aligned_and_in_huge_pages),
        cmocka_unit_test(test_only_huge_blocks_ask_for_huge_pages),
        cmocka_unit_test(test_a_cleared_block_is_zero_and_takes_no_memory_until_it_is_touched),
        cmocka_unit_test(test_sizes_that_overflow_give_no_memory),
        cmocka_unit_test(test_a_block_of_nothing_is_a_valid_pointer),
        cmocka_unit_test(test_a_resize_keeps_the_content_and_a_failed_one_keeps_the_block),
        cmocka_unit_test(test_a_text_is_copied_with_its_inner_and_final_zero),
        cmocka_unit_test(test_live_blocks_and_allocations_are_counted),
        cmocka_unit_test(test_a_fault_lets_the_survivors_pass_and_stops_the_rest),
        cmocka_unit_test(test_faults_and_allocation_counts_stay_in_their_thread),
        cmocka_unit_test(test_the_address_sanitizer_sees_overflows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
