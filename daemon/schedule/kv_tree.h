/* Which KV exists: a radix tree of token ids, a page a node, under scopes.
 *
 * A node stands for up to 16 ids that follow its parent's and names the page that holds their KV.
 * Full nodes have 16 ids and may have children; partial nodes are leaves, and only their first
 * `count` slots may be used: by copying, never in place. Ids decide what a node is, its scope who
 * finds it: a lookup names (parent, scope, ids), so a session's nodes may hang below a persona's.
 * Several nodes may name one page.
 *
 *   COMPUTING  the page is being filled by the branch `owner`; others who want it wait
 *   READY      usable
 *   ORPHAN     its scope was forgotten, or its owner gave up, while a branch still pinned it: found
 *              by nobody, gone with its last pin
 *
 * READY leaves that nobody pins are evicted, least recently used first. A parent is used no longer
 * ago than its children.
 *
 * Thread: engine. Everything is allocated in create. A node that cannot be had (the pool of nodes
 * is empty, the parent is an orphan) only costs sharing: insert answers KV_NODE_NONE.
 */
#ifndef PERSONAD_SCHEDULE_KV_TREE_H
#define PERSONAD_SCHEDULE_KV_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "schedule/kv_pages.h"

enum { KV_NODE_NONE = 0xffffffffu, KV_OWNER_NONE = 0xffffffffu };

enum kv_node_state { KV_NODE_FREE, KV_NODE_COMPUTING, KV_NODE_READY, KV_NODE_ORPHAN };

struct kv_tree;

/* What a node is called by. parent KV_NODE_NONE: it stands at the root. */
struct kv_key {
    uint32_t parent;
    uint64_t scope;
    const uint32_t *ids; /* borrowed */
    uint32_t count;      /* 1 to KV_PAGE_TOKEN_COUNT */
};

/* A node seen in the past: `generation` tells whether it is still the same one. */
struct kv_ticket {
    uint32_t node;
    uint32_t generation;
};

/* pages is borrowed and outlives the tree. */
MUST_USE enum status kv_tree_create(struct kv_pages *pages, uint32_t node_count_max,
                                    struct kv_tree **out);
void kv_tree_destroy(struct kv_tree *tree);

/* The node of exactly this key, COMPUTING or READY, or KV_NODE_NONE. */
uint32_t kv_tree_find(const struct kv_tree *tree, const struct kv_key *key);

/* Among the READY nodes of (parent, scope) the one that shares the most leading ids; *shared says
 * how many (0 with KV_NODE_NONE). *computing: a COMPUTING node all of whose ids lead key's, or
 * NONE. Looks at a bounded number of siblings, youngest first. */
uint32_t kv_tree_find_prefix(const struct kv_tree *tree, const struct kv_key *key, uint32_t *shared,
                             uint32_t *computing);

/* Adds a node for a page that the caller holds. With an owner it is COMPUTING and pinned until
 * kv_tree_settle; else READY. A READY node takes the place of partial ones that it covers. No node
 * of this key may be there. */
uint32_t kv_tree_insert(struct kv_tree *tree, const struct kv_key *key, uint32_t page,
                        uint32_t owner);

/* The owner is done with a COMPUTING node: READY, or (not is_ready) gone with all below it. */
void kv_tree_settle(struct kv_tree *tree, uint32_t node, bool is_ready);

/* A pinned node and its ancestors are not evicted. */
void kv_tree_pin(struct kv_tree *tree, uint32_t node);
void kv_tree_unpin(struct kv_tree *tree, uint32_t node);

/* Frees nodes until a page comes free (or into limbo). False: nothing can be evicted. */
bool kv_tree_evict(struct kv_tree *tree);

/* Forgets every node of the scope and all below it. */
void kv_tree_release_scope(struct kv_tree *tree, uint64_t scope);

/* Forgets every node of every scope: the pages hold nothing any more. */
void kv_tree_release_all(struct kv_tree *tree);

enum kv_node_state kv_tree_state(const struct kv_tree *tree, uint32_t node);
uint32_t kv_tree_page(const struct kv_tree *tree, uint32_t node);
uint32_t kv_tree_owner(const struct kv_tree *tree, uint32_t node);
struct kv_ticket kv_tree_ticket(const struct kv_tree *tree, uint32_t node);

/* True while the ticket's node is the same and COMPUTING. */
bool kv_tree_is_computing(const struct kv_tree *tree, struct kv_ticket ticket);

uint32_t kv_tree_node_count(const struct kv_tree *tree);

/* Walks everything and CHECKs links, hashes, the eviction heap and states. For tests. */
void kv_tree_check(const struct kv_tree *tree);

#endif
