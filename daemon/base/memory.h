/* The only door to the heap: counted, and able to fail on purpose.
 *
 * Thread: any. Counters are per thread where the name says so (the engine thread must not allocate
 * in steady state, and a test reads memory_thread_allocation_count() to hold it to that). All
 * memory comes zeroed. A failed allocation returns NULL; callers answer STATUS_MEMORY.
 */
#ifndef PERSONAD_BASE_MEMORY_H
#define PERSONAD_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MEMORY_HUGE_BYTES = 2 << 20 };

/* count * bytes, zeroed; NULL on overflow or when none is left. count or bytes 0 gives a valid
 * pointer. Large blocks take physical pages only as they are touched. */
void *memory_alloc(size_t count, size_t bytes);

/* Like memory_alloc, aligned to `alignment` (a power of two, at least 16). Freed by memory_free. */
void *memory_alloc_aligned(size_t alignment, size_t count, size_t bytes);

/* Like memory_alloc_aligned, on MEMORY_HUGE_BYTES where the block is at least that large, and then
 * in huge pages where the kernel has them for programs that ask: for what is read in long runs, of
 * which page walks would take a large part. Physical memory comes in such pages as it is touched.
 */
void *memory_alloc_huge(size_t count, size_t bytes);

/* Grows or shrinks; the new part is NOT zeroed. pointer may be NULL. Not for aligned blocks. On
 * failure the answer is NULL and `pointer` is still good.
 */
void *memory_resize(void *pointer, size_t count, size_t bytes);

/* Zeroes a block of count * bytes, as it came. Where it is large its pages go back to the kernel,
 * so that it takes physical memory anew as it is touched. NULL is fine. */
void memory_clear(void *block, size_t count, size_t bytes);

/* A NUL-terminated copy of `size` bytes; NULL when out of memory. */
char *memory_copy_text(const char *bytes, size_t size);

/* NULL is fine. */
void memory_free(void *pointer);

/* Blocks alive in the whole process. */
int64_t memory_live_count(void);

/* Allocations ever made by the calling thread; a resize is one. */
uint64_t memory_thread_allocation_count(void);

/* The calling thread's next `survivors` allocations succeed, every later one fails; -1 switches
 * off. */
void memory_fault_set(int64_t survivors);

#ifdef __cplusplus
}
#endif

#endif
