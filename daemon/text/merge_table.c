#include "text/merge_table.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/vocabulary.h"

enum { CAPACITY_MIN = 16 };

struct merge_entry {
    uint64_t pair; /* left id in the high half, right id in the low */
    uint32_t rank;
    uint32_t id; /* TOKEN_NONE: a free slot */
};

static uint32_t pair_slot(const struct merge_table *table, uint64_t pair)
{
    uint32_t slot = (uint32_t)(pair * 0x9e3779b97f4a7c15u >> 32) & (table->capacity - 1);

    while (table->entries[slot].id != TOKEN_NONE && table->entries[slot].pair != pair) {
        slot = (slot + 1) & (table->capacity - 1);
    }
    return slot;
}

/* "left right" into its halves. A token of this alphabet holds no space. */
static bool split_merge(struct bytes merge, struct bytes *left, struct bytes *right)
{
    const uint8_t *space = merge.size == 0 ? NULL : memchr(merge.data, ' ', merge.size);

    if (space == NULL) {
        return false;
    }
    *left = bytes_of(merge.data, (size_t)(space - merge.data));
    *right = bytes_of(space + 1, merge.size - left->size - 1);
    return left->size > 0 && right->size > 0;
}

static enum status add_merge(struct merge_table *table, const struct token_index *index,
                             uint32_t rank, struct buffer *joined, struct error *error)
{
    const struct vocabulary *vocabulary = index->vocabulary;
    const struct bytes merge = vocabulary->merges[rank];
    struct bytes left, right;
    uint32_t left_id, right_id, id;
    uint64_t pair;

    if (!split_merge(merge, &left, &right)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the vocabulary: merge %u is not two tokens and a space", rank);
    }
    joined->size = 0;
    TRY(buffer_append(joined, left));
    TRY(buffer_append(joined, right));
    left_id = token_index_find(index, left);
    right_id = token_index_find(index, right);
    id = token_index_find(index, buffer_bytes(joined));
    if (left_id == TOKEN_NONE || right_id == TOKEN_NONE || id == TOKEN_NONE) {
        return error_set(error, STATUS_BAD_INPUT,
                         "the vocabulary: merge %u needs a token that is not there", rank);
    }
    if (!token_index_is_text(vocabulary, id)) {
        return STATUS_OK;
    }
    pair = (uint64_t)left_id << 32 | right_id;
    table->entries[pair_slot(table, pair)] = (struct merge_entry){pair, rank, id};
    return STATUS_OK;
}

static enum status add_merges(struct merge_table *table, const struct token_index *index,
                              struct error *error)
{
    const struct vocabulary *vocabulary = index->vocabulary;
    enum status status = STATUS_OK;
    struct buffer joined;

    buffer_init(&joined, SIZE_MAX / 4);
    for (uint32_t rank = 0; rank < vocabulary->merge_count && status == STATUS_OK; rank++) {
        status = add_merge(table, index, rank, &joined, error);
    }
    buffer_finish(&joined);
    return status;
}

enum status merge_table_init(struct merge_table *table, const struct token_index *index,
                             struct error *error)
{
    uint32_t capacity = CAPACITY_MIN;

    /* At most three quarters full. */
    while (capacity / 4 * 3 < index->vocabulary->merge_count) {
        CHECK(capacity <= UINT32_MAX / 2);
        capacity *= 2;
    }
    *table = (struct merge_table){memory_alloc(capacity, sizeof *table->entries), capacity};
    if (table->entries == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < capacity; i++) {
        table->entries[i].id = TOKEN_NONE;
    }
    const enum status status = add_merges(table, index, error);
    if (status != STATUS_OK) {
        merge_table_finish(table);
    }
    return status;
}

void merge_table_finish(struct merge_table *table)
{
    memory_free(table->entries);
    table->entries = NULL;
    table->capacity = 0;
}

bool merge_table_find(const struct merge_table *table, uint32_t left, uint32_t right,
                      uint32_t *rank, uint32_t *id)
{
    const struct merge_entry *entry =
        &table->entries[pair_slot(table, (uint64_t)left << 32 | right)];

    if (entry->id == TOKEN_NONE) {
        return false;
    }
    *rank = entry->rank;
    *id = entry->id;
    return true;
}
