/* A thin layer over malloc with no header and no pool, so that ASan and Valgrind see every block.
 */
#include "base/memory.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"

/* From this size on, blocks are zeroed by the kernel instead of by writing to them. */
enum { LAZY_ZERO_BYTES_MIN = 64 * 1024, SMALL_ALIGNMENT = 64 };

static _Atomic int64_t live_count;
static _Thread_local uint64_t thread_allocation_count;
static _Thread_local int64_t thread_fault_survivors = -1;

/* False on overflow. Zero becomes one byte, so that the pointer is valid and is not NULL. */
static bool total_bytes(size_t count, size_t bytes, size_t *total)
{
    if (__builtin_mul_overflow(count, bytes, total)) {
        return false;
    }
    if (*total == 0) {
        *total = 1;
    }
    return true;
}

static bool fault_fires(void)
{
    if (thread_fault_survivors < 0) {
        return false;
    }
    if (thread_fault_survivors == 0) {
        return true;
    }
    thread_fault_survivors--;
    return false;
}

static void *count_block(void *block)
{
    if (block != NULL) {
        atomic_fetch_add_explicit(&live_count, 1, memory_order_relaxed);
        thread_allocation_count++;
    }
    return block;
}

/* The whole pages inside the block are given back, and the kernel hands them out again as zeros. */
static void zero_block(uint8_t *block, size_t total)
{
    const size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    const size_t head = (page_bytes - (uintptr_t)block % page_bytes) % page_bytes;
    size_t middle;

    if (total < LAZY_ZERO_BYTES_MIN) {
        memset(block, 0, total);
        return;
    }
    middle = (total - head) / page_bytes * page_bytes;
    if (madvise(block + head, middle, MADV_DONTNEED) != 0) {
        memset(block, 0, total); /* locked pages cannot be dropped */
        return;
    }
    memset(block, 0, head);
    memset(block + head + middle, 0, total - head - middle);
}

static void *alloc_zeroed(size_t alignment, size_t total)
{
    void *block = NULL;

    if (posix_memalign(&block, alignment, total) != 0) {
        return NULL;
    }
    /* A key-value cache of gigabytes costs memory when it fills, not when it is allocated. */
    zero_block(block, total);
    return count_block(block);
}

void *memory_alloc(size_t count, size_t bytes)
{
    size_t total;

    if (!total_bytes(count, bytes, &total) || fault_fires()) {
        return NULL;
    }
    /* calloc knows that a block is untouched only where it maps it, and from which size it maps
     * rises by itself (to 32 MiB) with the first large block that is freed. */
    return total < LAZY_ZERO_BYTES_MIN ? count_block(calloc(1, total))
                                       : alloc_zeroed(SMALL_ALIGNMENT, total);
}

void *memory_alloc_aligned(size_t alignment, size_t count, size_t bytes)
{
    size_t total;

    CHECK(alignment >= 16);
    CHECK((alignment & (alignment - 1)) == 0);
    if (!total_bytes(count, bytes, &total) || fault_fires()) {
        return NULL;
    }
    return alloc_zeroed(alignment, total);
}

void *memory_alloc_huge(size_t count, size_t bytes)
{
    void *block;
    size_t total;

    if (!total_bytes(count, bytes, &total)) {
        return NULL;
    }
    if (total < MEMORY_HUGE_BYTES) {
        return memory_alloc_aligned(SMALL_ALIGNMENT, count, bytes);
    }
    block = memory_alloc_aligned(MEMORY_HUGE_BYTES, count, bytes);
    if (block != NULL) {
        /* Refused by kernels without huge pages, which only costs speed. */
        (void)madvise(block, total / MEMORY_HUGE_BYTES * MEMORY_HUGE_BYTES, MADV_HUGEPAGE);
    }
    return block;
}

void *memory_resize(void *pointer, size_t count, size_t bytes)
{
    void *block;
    size_t total;

    if (!total_bytes(count, bytes, &total) || fault_fires()) {
        return NULL;
    }
    block = realloc(pointer, total);
    if (pointer == NULL) {
        return count_block(block);
    }
    if (block != NULL) {
        thread_allocation_count++;
    }
    return block;
}

char *memory_copy_text(const char *bytes, size_t size)
{
    char *copy;

    if (size == SIZE_MAX) {
        return NULL;
    }
    copy = memory_alloc(size + 1, 1);
    if (copy != NULL && size > 0) {
        memcpy(copy, bytes, size);
    }
    return copy;
}

void memory_clear(void *block, size_t count, size_t bytes)
{
    if (block != NULL) {
        zero_block(block, count * bytes);
    }
}

void memory_free(void *pointer)
{
    if (pointer == NULL) {
        return;
    }
    atomic_fetch_sub_explicit(&live_count, 1, memory_order_relaxed);
    free(pointer);
}

int64_t memory_live_count(void)
{
    return atomic_load_explicit(&live_count, memory_order_relaxed);
}

uint64_t memory_thread_allocation_count(void)
{
    return thread_allocation_count;
}

void memory_fault_set(int64_t survivors)
{
    thread_fault_survivors = survivors;
}
