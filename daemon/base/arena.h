/* Bump allocation for data that dies together (one request, one card): freed in one call.
 *
 * Thread: one at a time. The arena owns all that it hands out. Bounded: past bytes_max it returns
 * NULL, which callers answer with STATUS_LIMIT.
 */
#ifndef PERSONAD_BASE_ARENA_H
#define PERSONAD_BASE_ARENA_H

#include <stddef.h>

struct arena_block;

struct arena {
    struct arena_block *blocks; /* owned, newest first */
    size_t used_bytes;          /* in all blocks, alignment included */
    size_t bytes_max;
};

void arena_init(struct arena *arena, size_t bytes_max);

/* Frees everything; a zeroed or finished arena is fine. */
void arena_finish(struct arena *arena);

/* count * bytes, zeroed, aligned to 16. NULL past the bound or out of memory. */
void *arena_alloc(struct arena *arena, size_t count, size_t bytes);

/* A copy of `size` bytes with a NUL after them. */
void *arena_copy(struct arena *arena, const void *bytes, size_t size);

#endif
