/* A binary heap of candidate pairs over a doubly linked list of symbols. Pairs are never removed
 * when a neighbour changes: symbols only grow, so a pair whose size no longer fits is stale and is
 * skipped when it comes up. */
#include "text/merger.h"

#include "base/check.h"
#include "base/memory.h"

/* Made at once, so that short texts never allocate after the first. */
enum { SYMBOL_COUNT_START = 1024 };

void merger_init(struct merger *merger)
{
    *merger = (struct merger){0};
}

void merger_finish(struct merger *merger)
{
    memory_free(merger->symbols);
    memory_free(merger->heap);
    *merger = (struct merger){0};
}

enum status merger_clear(struct merger *merger, uint32_t symbol_count_max)
{
    uint32_t capacity = merger->symbol_capacity;
    struct merge_symbol *symbols;
    struct merge_pair *heap;

    merger->symbol_count = 0;
    merger->heap_count = 0;
    if (symbol_count_max <= capacity && capacity > 0) {
        return STATUS_OK;
    }
    capacity = capacity == 0 ? SYMBOL_COUNT_START : capacity;
    while (capacity < symbol_count_max) {
        CHECK(capacity <= UINT32_MAX / 4);
        capacity *= 2;
    }
    /* The old content is of no use: new blocks first, so that a failure leaves the old ones. */
    symbols = memory_alloc(capacity, sizeof *symbols);
    heap = memory_alloc(2 * (size_t)capacity, sizeof *heap);
    if (symbols == NULL || heap == NULL) {
        memory_free(symbols);
        memory_free(heap);
        return STATUS_MEMORY;
    }
    merger_finish(merger);
    merger->symbols = symbols;
    merger->heap = heap;
    merger->symbol_capacity = capacity;
    return STATUS_OK;
}

void merger_push(struct merger *merger, uint32_t offset, uint32_t size, uint32_t id)
{
    const uint32_t index = merger->symbol_count;
    struct merge_symbol *symbol = &merger->symbols[index];

    CHECK(index < merger->symbol_capacity);
    CHECK(size > 0);
    symbol->offset = offset;
    symbol->size = size;
    symbol->id = id;
    symbol->previous = index == 0 ? MERGER_NONE : index - 1;
    symbol->next = MERGER_NONE;
    if (index > 0) {
        merger->symbols[index - 1].next = index;
    }
    merger->symbol_count++;
}

static void heap_push(struct merger *merger, struct merge_pair pair)
{
    struct merge_pair *heap = merger->heap;
    uint32_t at = merger->heap_count++;

    CHECK(merger->heap_count <= 2 * merger->symbol_capacity);
    while (at > 0 && pair.order < heap[(at - 1) / 2].order) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = pair;
}

static struct merge_pair heap_pop(struct merger *merger)
{
    struct merge_pair *heap = merger->heap;
    const struct merge_pair top = heap[0];
    const struct merge_pair last = heap[--merger->heap_count];
    const uint32_t count = merger->heap_count;
    uint32_t at = 0;

    for (uint32_t child = 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && heap[child + 1].order < heap[child].order) {
            child++;
        }
        if (last.order <= heap[child].order) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

static void offer_pair(struct merger *merger, const struct merge_rules *rules, struct bytes text,
                       uint32_t left_index)
{
    const struct merge_symbol *left = &merger->symbols[left_index];
    const struct merge_symbol *right;
    uint32_t rank, id;

    if (left->next == MERGER_NONE) {
        return;
    }
    right = &merger->symbols[left->next];
    if (rules->find(rules->context, text, left, right, &rank, &id)) {
        const uint64_t order = (uint64_t)rank << 32 | left_index;
        heap_push(merger, (struct merge_pair){order, left->size + right->size, id});
    }
}

static void join_right(struct merger *merger, struct merge_symbol *left, uint32_t id)
{
    struct merge_symbol *right = &merger->symbols[left->next];

    left->size += right->size;
    left->id = id;
    left->next = right->next;
    if (right->next != MERGER_NONE) {
        merger->symbols[right->next].previous = right->previous;
    }
    right->size = 0;
}

void merger_run(struct merger *merger, const struct merge_rules *rules, struct bytes text)
{
    for (uint32_t i = 0; i + 1 < merger->symbol_count; i++) {
        offer_pair(merger, rules, text, i);
    }
    while (merger->heap_count > 0) {
        const struct merge_pair pair = heap_pop(merger);
        const uint32_t left_index = (uint32_t)pair.order;
        struct merge_symbol *left = &merger->symbols[left_index];

        if (left->size == 0 || left->next == MERGER_NONE ||
            left->size + merger->symbols[left->next].size != pair.size) {
            continue;
        }
        join_right(merger, left, pair.id);
        offer_pair(merger, rules, text, left_index);
        if (left->previous != MERGER_NONE) {
            offer_pair(merger, rules, text, left->previous);
        }
    }
}
