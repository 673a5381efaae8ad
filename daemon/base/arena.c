#include "base/arena.h"

#include <stdint.h>
#include <string.h>

#include "base/memory.h"

enum {
    ARENA_ALIGNMENT = 16,
    ARENA_BLOCK_BYTES_MIN = 4 * 1024,
    ARENA_BLOCK_BYTES_MAX = 256 * 1024, /* larger requests get a block of their own */
};

struct arena_block {
    struct arena_block *next;
    size_t capacity;
    size_t used_bytes;
    _Alignas(ARENA_ALIGNMENT) uint8_t data[];
};

void arena_init(struct arena *arena, size_t bytes_max)
{
    arena->blocks = NULL;
    arena->used_bytes = 0;
    arena->bytes_max = bytes_max;
}

void arena_finish(struct arena *arena)
{
    struct arena_block *block = arena->blocks;

    while (block != NULL) {
        struct arena_block *next = block->next;

        memory_free(block);
        block = next;
    }
    arena->blocks = NULL;
    arena->used_bytes = 0;
}

/* Blocks grow with the arena, so that the number of blocks stays logarithmic for small requests. */
static struct arena_block *arena_grow(struct arena *arena, size_t bytes)
{
    struct arena_block *block;
    size_t capacity = arena->used_bytes;

    if (capacity < ARENA_BLOCK_BYTES_MIN) {
        capacity = ARENA_BLOCK_BYTES_MIN;
    }
    if (capacity > ARENA_BLOCK_BYTES_MAX) {
        capacity = ARENA_BLOCK_BYTES_MAX;
    }
    if (capacity < bytes) {
        capacity = bytes;
    }
    if (capacity > SIZE_MAX - sizeof(*block)) {
        return NULL;
    }
    block = memory_alloc(1, sizeof(*block) + capacity);
    if (block == NULL) {
        return NULL;
    }
    block->capacity = capacity;
    block->next = arena->blocks;
    arena->blocks = block;
    return block;
}

void *arena_alloc(struct arena *arena, size_t count, size_t bytes)
{
    struct arena_block *block = arena->blocks;
    size_t total;
    void *out;

    if (__builtin_mul_overflow(count, bytes, &total) || total > SIZE_MAX - ARENA_ALIGNMENT) {
        return NULL;
    }
    total = total == 0 ? ARENA_ALIGNMENT
                       : (total + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    if (total > arena->bytes_max - arena->used_bytes) {
        return NULL;
    }
    if (block == NULL || total > block->capacity - block->used_bytes) {
        block = arena_grow(arena, total);
        if (block == NULL) {
            return NULL;
        }
    }
    out = block->data + block->used_bytes;
    block->used_bytes += total;
    arena->used_bytes += total;
    return out;
}

void *arena_copy(struct arena *arena, const void *bytes, size_t size)
{
    uint8_t *copy;

    if (size == SIZE_MAX) {
        return NULL;
    }
    copy = arena_alloc(arena, size + 1, 1);
    if (copy != NULL && size > 0) {
        memcpy(copy, bytes, size);
    }
    return copy;
}
