/* Finds written-out tokens in a text: leftmost first, and of those the longest.
 *
 * Thread: immutable once its tokens are in; then any. Time is bounded by the text times the longest
 * token, and in practice by the text, since few bytes begin a token.
 */
#ifndef PERSONAD_TEXT_SPECIAL_TRIE_H
#define PERSONAD_TEXT_SPECIAL_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct special_trie {
    struct special_node *nodes; /* owned; node 0 is the root once anything was added */
    uint32_t node_count;
    uint32_t node_capacity;
    bool starts[256]; /* bytes that begin a token */
};

void special_trie_init(struct special_trie *trie);
void special_trie_finish(struct special_trie *trie);

/* MEMORY. An empty name, and one that is no UTF-8, is left out; of equal names the first stays. */
MUST_USE enum status special_trie_add(struct special_trie *trie, struct bytes name, uint32_t id);

/* The next token at or after `from`: its place, size and id. False when there is none. */
bool special_trie_find(const struct special_trie *trie, struct bytes text, size_t from,
                       size_t *offset, size_t *size, uint32_t *id);

#endif
