/* Linear probing over ids; the names themselves stay in the vocabulary. */
#include "text/token_index.h"

#include "base/check.h"
#include "base/memory.h"

enum { CAPACITY_MIN = 16 };

enum status token_index_init(struct token_index *index, const struct vocabulary *vocabulary)
{
    uint32_t capacity = CAPACITY_MIN;
    uint32_t *ids;

    while (capacity / 2 < vocabulary->token_count) {
        CHECK(capacity <= UINT32_MAX / 2);
        capacity *= 2;
    }
    ids = memory_alloc(capacity, sizeof *ids);
    *index = (struct token_index){0};
    if (ids == NULL) {
        return STATUS_MEMORY;
    }
    memset(ids, 0xff, capacity * sizeof *ids);
    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        uint32_t slot = (uint32_t)bytes_hash(vocabulary->tokens[id]) & (capacity - 1);
        while (ids[slot] != TOKEN_NONE &&
               !bytes_equal(vocabulary->tokens[ids[slot]], vocabulary->tokens[id])) {
            slot = (slot + 1) & (capacity - 1);
        }
        if (ids[slot] == TOKEN_NONE) {
            ids[slot] = id;
        }
    }
    index->vocabulary = vocabulary;
    index->ids = ids;
    index->capacity = capacity;
    return STATUS_OK;
}

void token_index_finish(struct token_index *index)
{
    memory_free(index->ids);
    *index = (struct token_index){0};
}

uint32_t token_index_find(const struct token_index *index, struct bytes name)
{
    uint32_t slot = (uint32_t)bytes_hash(name) & (index->capacity - 1);

    while (index->ids[slot] != TOKEN_NONE) {
        const uint32_t id = index->ids[slot];
        if (bytes_equal(index->vocabulary->tokens[id], name)) {
            return id;
        }
        slot = (slot + 1) & (index->capacity - 1);
    }
    return TOKEN_NONE;
}

bool token_index_is_text(const struct vocabulary *vocabulary, uint32_t id)
{
    const struct bytes name = vocabulary->tokens[id];

    switch (vocabulary->types[id]) {
    case TOKEN_NORMAL:
        return true;
    case TOKEN_USER_DEFINED:
        return name.size > 0 && name.data[0] != '<' && name.data[0] != '[';
    default:
        return false;
    }
}

uint32_t token_index_find_text(const struct token_index *index, struct bytes name)
{
    const uint32_t id = token_index_find(index, name);

    if (id == TOKEN_NONE || !token_index_is_text(index->vocabulary, id)) {
        return TOKEN_NONE;
    }
    return id;
}
