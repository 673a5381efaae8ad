#include "schedule/kv_heap.h"

#include "base/check.h"
#include "base/memory.h"

struct kv_heap_entry {
    uint64_t stamp;
    uint32_t index;
};

enum status kv_heap_init(struct kv_heap *heap, uint32_t count_max)
{
    heap->count = 0;
    heap->count_max = count_max;
    heap->entries = memory_alloc(count_max, sizeof(*heap->entries));
    heap->places = memory_alloc(count_max, sizeof(*heap->places));
    if (heap->entries == NULL || heap->places == NULL) {
        kv_heap_finish(heap);
        return STATUS_MEMORY;
    }
    return STATUS_OK;
}

void kv_heap_finish(struct kv_heap *heap)
{
    memory_free(heap->entries);
    memory_free(heap->places);
    heap->entries = NULL;
    heap->places = NULL;
    heap->count = 0;
}

static void place(struct kv_heap *heap, uint32_t at, struct kv_heap_entry entry)
{
    heap->entries[at] = entry;
    heap->places[entry.index] = at + 1;
}

static void sift_up(struct kv_heap *heap, uint32_t at, struct kv_heap_entry entry)
{
    while (at > 0) {
        const uint32_t parent = (at - 1) / 2;
        if (heap->entries[parent].stamp <= entry.stamp) {
            break;
        }
        place(heap, at, heap->entries[parent]);
        at = parent;
    }
    place(heap, at, entry);
}

static void sift_down(struct kv_heap *heap, uint32_t at, struct kv_heap_entry entry)
{
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count &&
            heap->entries[child + 1].stamp < heap->entries[child].stamp) {
            child++;
        }
        if (entry.stamp <= heap->entries[child].stamp) {
            break;
        }
        place(heap, at, heap->entries[child]);
        at = child;
    }
    place(heap, at, entry);
}

void kv_heap_push(struct kv_heap *heap, uint32_t index, uint64_t stamp)
{
    const struct kv_heap_entry entry = {stamp, index};

    CHECK(index < heap->count_max);
    CHECK(heap->places[index] == 0);
    heap->count++;
    sift_up(heap, heap->count - 1, entry);
}

void kv_heap_remove(struct kv_heap *heap, uint32_t index)
{
    uint32_t at;

    CHECK(kv_heap_has(heap, index));
    at = heap->places[index] - 1;
    heap->places[index] = 0;
    heap->count--;
    if (at < heap->count) {
        const struct kv_heap_entry last = heap->entries[heap->count];
        sift_up(heap, at, last);
        at = heap->places[last.index] - 1;
        sift_down(heap, at, last);
    }
}

bool kv_heap_pop(struct kv_heap *heap, uint32_t *index)
{
    if (heap->count == 0) {
        return false;
    }
    *index = heap->entries[0].index;
    kv_heap_remove(heap, *index);
    return true;
}

bool kv_heap_has(const struct kv_heap *heap, uint32_t index)
{
    CHECK(index < heap->count_max);
    return heap->places[index] != 0;
}

uint32_t kv_heap_count(const struct kv_heap *heap)
{
    return heap->count;
}
