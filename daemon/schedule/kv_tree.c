#include "schedule/kv_tree.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/backend.h"
#include "schedule/kv_heap.h"

enum {
    /* A partial match is worth at most 15 rows: no longer a search than a few microseconds. */
    SIBLING_LOOK_COUNT_MAX = 1024,
};

/* Doubly linked lists of node indices; a node is in up to three. */
enum chain { CHAIN_EXACT, CHAIN_FAMILY, CHAIN_CHILDREN, CHAIN_COUNT };

struct kv_link {
    uint32_t next;
    uint32_t previous;
};

struct kv_node {
    uint32_t ids[KV_PAGE_TOKEN_COUNT];
    uint64_t scope;
    uint32_t count;
    uint32_t parent;
    uint32_t page;
    uint32_t owner;
    uint32_t pin_count;
    uint32_t generation;
    uint32_t first_child;
    enum kv_node_state state;
    struct kv_link links[CHAIN_COUNT]; /* EXACT: all ids; FAMILY: (parent, scope); CHILDREN */
    uint64_t stamp;                    /* of the last use */
};

struct kv_tree {
    struct kv_node *nodes;     /* owned, [node_count_max] */
    uint32_t *buckets[2];      /* owned, EXACT and FAMILY, [bucket_mask + 1] */
    struct kv_heap heap;       /* evictable nodes by stamp */
    struct kv_pages *pages;    /* borrowed */
    uint32_t root_first_child; /* of nodes without a parent */
    uint32_t free_first;       /* chained by links[EXACT].next */
    uint32_t used_count;       /* nodes that were ever used: those behind cost no memory yet */
    uint32_t node_count_max;
    uint32_t node_count;
    uint32_t bucket_mask;
    uint64_t clock; /* uses so far */
};

enum status kv_tree_create(struct kv_pages *pages, uint32_t node_count_max, struct kv_tree **out)
{
    struct kv_tree *tree = memory_alloc(1, sizeof(*tree));
    enum status status = STATUS_MEMORY;
    uint32_t bucket_count = 16;

    CHECK(node_count_max > 0);
    if (tree == NULL) {
        return STATUS_MEMORY;
    }
    while (bucket_count < node_count_max) {
        bucket_count *= 2;
    }
    tree->nodes = memory_alloc(node_count_max, sizeof(*tree->nodes));
    tree->buckets[CHAIN_EXACT] = memory_alloc(bucket_count, sizeof(uint32_t));
    tree->buckets[CHAIN_FAMILY] = memory_alloc(bucket_count, sizeof(uint32_t));
    if (tree->nodes == NULL || tree->buckets[CHAIN_EXACT] == NULL ||
        tree->buckets[CHAIN_FAMILY] == NULL) {
        goto done;
    }
    if (kv_heap_init(&tree->heap, node_count_max) != STATUS_OK) {
        goto done;
    }
    memset(tree->buckets[CHAIN_EXACT], 0xff, bucket_count * sizeof(uint32_t));
    memset(tree->buckets[CHAIN_FAMILY], 0xff, bucket_count * sizeof(uint32_t));
    tree->free_first = KV_NODE_NONE;
    tree->root_first_child = KV_NODE_NONE;
    tree->pages = pages;
    tree->node_count_max = node_count_max;
    tree->bucket_mask = bucket_count - 1;
    *out = tree;
    tree = NULL; /* handed over */
    status = STATUS_OK;
done:
    kv_tree_destroy(tree);
    return status;
}

void kv_tree_destroy(struct kv_tree *tree)
{
    if (tree == NULL) {
        return;
    }
    memory_free(tree->nodes);
    memory_free(tree->buckets[CHAIN_EXACT]);
    memory_free(tree->buckets[CHAIN_FAMILY]);
    kv_heap_finish(&tree->heap);
    memory_free(tree);
}

static struct kv_node *node_at(const struct kv_tree *tree, uint32_t node)
{
    CHECK(node < tree->node_count_max);
    return &tree->nodes[node];
}

/* ---- chains ---- */

static uint64_t mix(uint64_t hash, uint64_t value)
{
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

static uint32_t *family_head(const struct kv_tree *tree, uint32_t parent, uint64_t scope)
{
    const uint64_t hash = mix(mix(0x517cc1b7u, parent), scope);

    return &tree->buckets[CHAIN_FAMILY][(hash >> 16) & tree->bucket_mask];
}

static uint32_t *exact_head(const struct kv_tree *tree, const struct kv_key *key)
{
    uint64_t hash = mix(mix(key->count, key->parent), key->scope);

    for (uint32_t i = 0; i < key->count; i++) {
        hash = mix(hash, key->ids[i]);
    }
    return &tree->buckets[CHAIN_EXACT][(hash >> 16) & tree->bucket_mask];
}

static struct kv_key key_of(const struct kv_node *node)
{
    const struct kv_key key = {node->parent, node->scope, node->ids, node->count};

    return key;
}

static uint32_t *children_head(struct kv_tree *tree, uint32_t parent)
{
    return parent == KV_NODE_NONE ? &tree->root_first_child : &node_at(tree, parent)->first_child;
}

static void chain_push(struct kv_tree *tree, enum chain chain, uint32_t *head, uint32_t node)
{
    struct kv_link *link = &tree->nodes[node].links[chain];

    link->previous = KV_NODE_NONE;
    link->next = *head;
    if (*head != KV_NODE_NONE) {
        tree->nodes[*head].links[chain].previous = node;
    }
    *head = node;
}

static void chain_remove(struct kv_tree *tree, enum chain chain, uint32_t *head, uint32_t node)
{
    const struct kv_link link = tree->nodes[node].links[chain];

    if (link.previous == KV_NODE_NONE) {
        CHECK(*head == node);
        *head = link.next;
    } else {
        tree->nodes[link.previous].links[chain].next = link.next;
    }
    if (link.next != KV_NODE_NONE) {
        tree->nodes[link.next].links[chain].previous = link.previous;
    }
}

/* ---- eviction order ---- */

static bool is_evictable(const struct kv_node *node)
{
    return node->state == KV_NODE_READY && node->pin_count == 0 &&
           node->first_child == KV_NODE_NONE;
}

/* Puts the node into the heap or takes it out, as its state now says. */
static void heap_update(struct kv_tree *tree, uint32_t node)
{
    const bool is_wanted = is_evictable(&tree->nodes[node]);
    const bool is_there = kv_heap_has(&tree->heap, node);

    if (is_wanted && !is_there) {
        kv_heap_push(&tree->heap, node, tree->nodes[node].stamp);
    } else if (!is_wanted && is_there) {
        kv_heap_remove(&tree->heap, node);
    }
}

/* ---- nodes ---- */

static uint32_t node_take(struct kv_tree *tree)
{
    uint32_t node = tree->free_first;

    if (node != KV_NODE_NONE) {
        tree->free_first = tree->nodes[node].links[CHAIN_EXACT].next;
    } else if (tree->used_count < tree->node_count_max) {
        node = tree->used_count++;
    } else {
        return KV_NODE_NONE;
    }
    tree->node_count++;
    return node;
}

static void node_free(struct kv_tree *tree, uint32_t node)
{
    struct kv_node *entry = &tree->nodes[node];

    CHECK(entry->pin_count == 0);
    entry->state = KV_NODE_FREE;
    entry->generation++;
    entry->links[CHAIN_EXACT].next = tree->free_first;
    tree->free_first = node;
    tree->node_count--;
}

/* Out of every list, its page given up; freed at once, or with its last pin. Has no children. */
static void node_detach(struct kv_tree *tree, uint32_t node)
{
    struct kv_node *entry = &tree->nodes[node];
    const struct kv_key key = key_of(entry);
    const uint32_t parent = entry->parent;

    CHECK(entry->first_child == KV_NODE_NONE);
    chain_remove(tree, CHAIN_EXACT, exact_head(tree, &key), node);
    chain_remove(tree, CHAIN_FAMILY, family_head(tree, parent, entry->scope), node);
    chain_remove(tree, CHAIN_CHILDREN, children_head(tree, parent), node);
    kv_pages_release_cached(tree->pages, entry->page);
    entry->state = KV_NODE_ORPHAN;
    entry->parent = KV_NODE_NONE;
    heap_update(tree, node);
    if (parent != KV_NODE_NONE) {
        if (tree->nodes[parent].stamp < entry->stamp) {
            tree->nodes[parent].stamp = entry->stamp;
        }
        heap_update(tree, parent);
    }
    if (entry->pin_count == 0) {
        node_free(tree, node);
    }
}

/* Detaches all below the node, then the node, leaves first and without recursion. */
static void subtree_detach(struct kv_tree *tree, uint32_t node)
{
    uint32_t at = node;

    for (;;) {
        while (tree->nodes[at].first_child != KV_NODE_NONE) {
            at = tree->nodes[at].first_child;
        }
        const uint32_t parent = tree->nodes[at].parent;
        const bool is_last = at == node;
        node_detach(tree, at);
        if (is_last) {
            return;
        }
        at = parent;
    }
}

/* A partial node whose ids a READY sibling of the same scope also holds is of no more use. */
static void absorb_partials(struct kv_tree *tree, uint32_t node)
{
    const struct kv_node *entry = &tree->nodes[node];
    uint32_t at = *family_head(tree, entry->parent, entry->scope);

    for (uint32_t looked = 0; at != KV_NODE_NONE && looked < SIBLING_LOOK_COUNT_MAX; looked++) {
        const struct kv_node *other = &tree->nodes[at];
        const uint32_t next = other->links[CHAIN_FAMILY].next;
        if (other->parent == entry->parent && other->scope == entry->scope &&
            other->count < entry->count && is_evictable(other) &&
            memcmp(other->ids, entry->ids, other->count * sizeof(uint32_t)) == 0) {
            node_detach(tree, at);
        }
        at = next;
    }
}

uint32_t kv_tree_find(const struct kv_tree *tree, const struct kv_key *key)
{
    uint32_t at = *exact_head(tree, key);

    while (at != KV_NODE_NONE) {
        const struct kv_node *node = &tree->nodes[at];
        if (node->parent == key->parent && node->scope == key->scope && node->count == key->count &&
            memcmp(node->ids, key->ids, key->count * sizeof(uint32_t)) == 0) {
            return at;
        }
        at = node->links[CHAIN_EXACT].next;
    }
    return KV_NODE_NONE;
}

static uint32_t shared_count(const struct kv_node *node, const struct kv_key *key)
{
    const uint32_t bound = node->count < key->count ? node->count : key->count;
    uint32_t shared = 0;

    while (shared < bound && node->ids[shared] == key->ids[shared]) {
        shared++;
    }
    return shared;
}

uint32_t kv_tree_find_prefix(const struct kv_tree *tree, const struct kv_key *key, uint32_t *shared,
                             uint32_t *computing)
{
    uint32_t at = *family_head(tree, key->parent, key->scope);
    uint32_t best = KV_NODE_NONE;

    *shared = 0;
    *computing = KV_NODE_NONE;
    for (uint32_t looked = 0; at != KV_NODE_NONE && looked < SIBLING_LOOK_COUNT_MAX; looked++) {
        const struct kv_node *node = &tree->nodes[at];
        if (node->parent == key->parent && node->scope == key->scope) {
            const uint32_t common = shared_count(node, key);
            if (node->state == KV_NODE_COMPUTING && common == node->count) {
                *computing = at;
            } else if (node->state == KV_NODE_READY && common > *shared) {
                *shared = common;
                best = at;
            }
        }
        at = node->links[CHAIN_FAMILY].next;
    }
    return best;
}

uint32_t kv_tree_insert(struct kv_tree *tree, const struct kv_key *key, uint32_t page,
                        uint32_t owner)
{
    CHECK(key->count > 0);
    CHECK(key->count <= KV_PAGE_TOKEN_COUNT);
    CHECK(kv_tree_find(tree, key) == KV_NODE_NONE);
    if (key->parent != KV_NODE_NONE) {
        const struct kv_node *parent = node_at(tree, key->parent);
        CHECK(parent->state != KV_NODE_FREE);
        if (parent->state == KV_NODE_ORPHAN) {
            return KV_NODE_NONE;
        }
        CHECK(parent->count == KV_PAGE_TOKEN_COUNT);
        CHECK(owner != KV_OWNER_NONE || parent->state == KV_NODE_READY);
    }
    const uint32_t node = node_take(tree);
    if (node == KV_NODE_NONE) {
        return KV_NODE_NONE;
    }
    struct kv_node *entry = &tree->nodes[node];
    memset(entry->ids, 0, sizeof(entry->ids));
    memcpy(entry->ids, key->ids, key->count * sizeof(uint32_t));
    entry->scope = key->scope;
    entry->count = key->count;
    entry->parent = key->parent;
    entry->page = page;
    entry->owner = owner;
    entry->first_child = KV_NODE_NONE;
    entry->stamp = ++tree->clock;
    entry->state = owner == KV_OWNER_NONE ? KV_NODE_READY : KV_NODE_COMPUTING;
    entry->pin_count = owner == KV_OWNER_NONE ? 0 : 1;
    kv_pages_acquire_cached(tree->pages, page);
    chain_push(tree, CHAIN_EXACT, exact_head(tree, key), node);
    chain_push(tree, CHAIN_FAMILY, family_head(tree, key->parent, key->scope), node);
    chain_push(tree, CHAIN_CHILDREN, children_head(tree, key->parent), node);
    if (key->parent != KV_NODE_NONE) {
        heap_update(tree, key->parent);
    }
    heap_update(tree, node);
    if (entry->state == KV_NODE_READY) {
        absorb_partials(tree, node);
    }
    return node;
}

void kv_tree_settle(struct kv_tree *tree, uint32_t node, bool is_ready)
{
    struct kv_node *entry = node_at(tree, node);

    if (entry->state == KV_NODE_ORPHAN) {
        kv_tree_unpin(tree, node);
        return;
    }
    CHECK(entry->state == KV_NODE_COMPUTING);
    if (!is_ready) {
        subtree_detach(tree, node);
        kv_tree_unpin(tree, node);
        return;
    }
    entry->state = KV_NODE_READY;
    entry->owner = KV_OWNER_NONE;
    absorb_partials(tree, node);
    kv_tree_unpin(tree, node);
}

void kv_tree_pin(struct kv_tree *tree, uint32_t node)
{
    struct kv_node *entry = node_at(tree, node);

    CHECK(entry->state == KV_NODE_READY || entry->state == KV_NODE_COMPUTING);
    entry->pin_count++;
    heap_update(tree, node);
}

void kv_tree_unpin(struct kv_tree *tree, uint32_t node)
{
    struct kv_node *entry = node_at(tree, node);

    CHECK(entry->pin_count > 0);
    entry->pin_count--;
    entry->stamp = ++tree->clock;
    if (entry->state == KV_NODE_ORPHAN) {
        if (entry->pin_count == 0) {
            node_free(tree, node);
        }
        return;
    }
    heap_update(tree, node);
}

bool kv_tree_evict(struct kv_tree *tree)
{
    const struct kv_pages_counts before = kv_pages_counts(tree->pages);
    uint32_t node;

    while (kv_heap_pop(&tree->heap, &node)) {
        node_detach(tree, node);
        const struct kv_pages_counts after = kv_pages_counts(tree->pages);
        if (after.free_count + after.limbo_count > before.free_count + before.limbo_count) {
            return true;
        }
    }
    return false;
}

void kv_tree_release_scope(struct kv_tree *tree, uint64_t scope)
{
    for (uint32_t i = 0; i < tree->used_count; i++) {
        const struct kv_node *node = &tree->nodes[i];
        if (node->scope == scope &&
            (node->state == KV_NODE_READY || node->state == KV_NODE_COMPUTING)) {
            subtree_detach(tree, i);
        }
    }
}

void kv_tree_release_all(struct kv_tree *tree)
{
    for (uint32_t i = 0; i < tree->used_count; i++) {
        const struct kv_node *node = &tree->nodes[i];
        if (node->state == KV_NODE_READY || node->state == KV_NODE_COMPUTING) {
            subtree_detach(tree, i);
        }
    }
}

enum kv_node_state kv_tree_state(const struct kv_tree *tree, uint32_t node)
{
    return node_at(tree, node)->state;
}

uint32_t kv_tree_page(const struct kv_tree *tree, uint32_t node)
{
    const struct kv_node *entry = node_at(tree, node);

    CHECK(entry->state == KV_NODE_READY || entry->state == KV_NODE_COMPUTING);
    return entry->page;
}

uint32_t kv_tree_owner(const struct kv_tree *tree, uint32_t node)
{
    return node_at(tree, node)->owner;
}

struct kv_ticket kv_tree_ticket(const struct kv_tree *tree, uint32_t node)
{
    const struct kv_ticket ticket = {node, node_at(tree, node)->generation};

    return ticket;
}

bool kv_tree_is_computing(const struct kv_tree *tree, struct kv_ticket ticket)
{
    const struct kv_node *node;

    if (ticket.node == KV_NODE_NONE) {
        return false;
    }
    node = node_at(tree, ticket.node);
    return node->generation == ticket.generation && node->state == KV_NODE_COMPUTING;
}

uint32_t kv_tree_node_count(const struct kv_tree *tree)
{
    return tree->node_count;
}

void kv_tree_check(const struct kv_tree *tree)
{
    uint32_t alive = 0;
    uint32_t evictable = 0;

    for (uint32_t i = 0; i < tree->used_count; i++) {
        const struct kv_node *node = &tree->nodes[i];
        if (node->state == KV_NODE_FREE) {
            CHECK(!kv_heap_has(&tree->heap, i));
            continue;
        }
        alive++;
        evictable += is_evictable(node);
        CHECK(kv_heap_has(&tree->heap, i) == is_evictable(node));
        CHECK(node->count == KV_PAGE_TOKEN_COUNT || node->first_child == KV_NODE_NONE);
        if (node->state == KV_NODE_ORPHAN) {
            CHECK(node->pin_count > 0);
            CHECK(node->first_child == KV_NODE_NONE);
            continue;
        }
        const struct kv_key key = key_of(node);
        CHECK(kv_tree_find(tree, &key) == i);
        CHECK((node->state == KV_NODE_COMPUTING) == (node->owner != KV_OWNER_NONE));
        if (node->parent != KV_NODE_NONE) {
            const enum kv_node_state above = node_at(tree, node->parent)->state;
            CHECK(above == KV_NODE_READY ||
                  (above == KV_NODE_COMPUTING && node->state == KV_NODE_COMPUTING));
        }
    }
    CHECK(alive == tree->node_count);
    CHECK(evictable == kv_heap_count(&tree->heap));
}
