/* A block's memory is not touched before it is taken, so that a small model costs no more. */
#include "kernels/cpu/panel_store.h"

#include <stddef.h>

#include "base/check.h"

enum { BLOCK_BYTES = 16 * MEMORY_HUGE_BYTES, ALIGNMENT = 64 };

struct panel_store_block {
    struct panel_store_block *next;
    uint8_t *bytes; /* owned: [BLOCK_BYTES] */
    uint64_t used_bytes;
};

void panel_store_finish(struct panel_store *store)
{
    while (store->blocks != NULL) {
        struct panel_store_block *block = store->blocks;

        store->blocks = block->next;
        memory_free(block->bytes);
        memory_free(block);
    }
}

static struct panel_store_block *grow(struct panel_store *store)
{
    struct panel_store_block *block = memory_alloc(1, sizeof(*block));

    if (block == NULL) {
        return NULL;
    }
    block->bytes = memory_alloc_huge(1, BLOCK_BYTES);
    if (block->bytes == NULL) {
        memory_free(block);
        return NULL;
    }
    block->next = store->blocks;
    store->blocks = block;
    return block;
}

uint8_t *panel_store_take(struct panel_store *store, uint64_t bytes)
{
    const uint64_t room = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct panel_store_block *block = store->blocks;
    uint8_t *out;

    CHECK(bytes <= PANEL_STORE_BYTES_MAX);
    if (block == NULL || room > BLOCK_BYTES - block->used_bytes) {
        block = grow(store);
        if (block == NULL) {
            return NULL;
        }
    }
    out = block->bytes + block->used_bytes;
    block->used_bytes += room;
    return out;
}
