/* A binary heap of node indices by the stamp of their last use: the order of eviction.
 *
 * Thread: engine. Allocates in init only. An index is in the heap at most once; its stamp stays as
 * it was pushed.
 */
#ifndef PERSONAD_SCHEDULE_KV_HEAP_H
#define PERSONAD_SCHEDULE_KV_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct kv_heap {
    struct kv_heap_entry *entries; /* owned */
    uint32_t *places;              /* owned: where an index stands, plus one; 0 is nowhere */
    uint32_t count;
    uint32_t count_max;
};

MUST_USE enum status kv_heap_init(struct kv_heap *heap, uint32_t count_max);
void kv_heap_finish(struct kv_heap *heap);

void kv_heap_push(struct kv_heap *heap, uint32_t index, uint64_t stamp);
void kv_heap_remove(struct kv_heap *heap, uint32_t index);

/* Takes the index with the smallest stamp out. False when empty. */
bool kv_heap_pop(struct kv_heap *heap, uint32_t *index);

bool kv_heap_has(const struct kv_heap *heap, uint32_t index);
uint32_t kv_heap_count(const struct kv_heap *heap);

#endif
