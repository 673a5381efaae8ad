/* A trie with sibling lists: special tokens are few and their first bytes fewer. */
#include "text/special_trie.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/vocabulary.h"

enum { NODE_COUNT_START = 256, NODE_NONE = 0 };

struct special_node {
    uint32_t child;   /* first child, or NODE_NONE: the root is nobody's child */
    uint32_t sibling; /* next, or NODE_NONE */
    uint32_t id;      /* token that ends here, or TOKEN_NONE */
    uint8_t byte;
};

void special_trie_init(struct special_trie *trie)
{
    *trie = (struct special_trie){0};
}

void special_trie_finish(struct special_trie *trie)
{
    memory_free(trie->nodes);
    *trie = (struct special_trie){0};
}

static enum status add_node(struct special_trie *trie, uint8_t byte, uint32_t *out)
{
    if (trie->node_count == trie->node_capacity) {
        const uint32_t capacity =
            trie->node_capacity == 0 ? NODE_COUNT_START : 2 * trie->node_capacity;
        struct special_node *nodes;
        CHECK(trie->node_capacity <= UINT32_MAX / 2);
        nodes = memory_resize(trie->nodes, capacity, sizeof *nodes);
        if (nodes == NULL) {
            return STATUS_MEMORY;
        }
        trie->nodes = nodes;
        trie->node_capacity = capacity;
    }
    trie->nodes[trie->node_count] = (struct special_node){NODE_NONE, NODE_NONE, TOKEN_NONE, byte};
    *out = trie->node_count++;
    return STATUS_OK;
}

static uint32_t find_child(const struct special_trie *trie, uint32_t node, uint8_t byte)
{
    uint32_t child = trie->nodes[node].child;

    while (child != NODE_NONE && trie->nodes[child].byte != byte) {
        child = trie->nodes[child].sibling;
    }
    return child;
}

enum status special_trie_add(struct special_trie *trie, struct bytes name, uint32_t id)
{
    uint32_t node = 0;

    if (name.size == 0 || !utf8_is_valid(name)) {
        return STATUS_OK;
    }
    if (trie->node_count == 0) {
        TRY(add_node(trie, 0, &node));
    }
    for (size_t i = 0; i < name.size; i++) {
        uint32_t child = find_child(trie, node, name.data[i]);
        if (child == NODE_NONE) {
            TRY(add_node(trie, name.data[i], &child));
            trie->nodes[child].sibling = trie->nodes[node].child;
            trie->nodes[node].child = child;
        }
        node = child;
    }
    if (trie->nodes[node].id == TOKEN_NONE) {
        trie->nodes[node].id = id;
    }
    trie->starts[name.data[0]] = true;
    return STATUS_OK;
}

/* The longest token that begins at `from`; 0 bytes when none does. */
static size_t match_at(const struct special_trie *trie, struct bytes text, size_t from,
                       uint32_t *id)
{
    uint32_t node = 0;
    size_t size = 0;

    for (size_t i = from; i < text.size; i++) {
        node = find_child(trie, node, text.data[i]);
        if (node == NODE_NONE) {
            break;
        }
        if (trie->nodes[node].id != TOKEN_NONE) {
            *id = trie->nodes[node].id;
            size = i + 1 - from;
        }
    }
    return size;
}

bool special_trie_find(const struct special_trie *trie, struct bytes text, size_t from,
                       size_t *offset, size_t *size, uint32_t *id)
{
    for (size_t i = from; trie->node_count > 0 && i < text.size; i++) {
        uint32_t found = TOKEN_NONE;
        size_t found_bytes;

        if (!trie->starts[text.data[i]]) {
            continue;
        }
        found_bytes = match_at(trie, text, i, &found);
        if (found_bytes > 0) {
            *offset = i;
            *size = found_bytes;
            *id = found;
            return true;
        }
    }
    return false;
}
