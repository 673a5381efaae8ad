/* Goal: the tree finds exactly what was put in and not forgotten, evicts the least recently used
 * leaf that nobody pins, and never loses or doubles a page.
 * Method: 100,000 random operations over ids of a vocabulary of 2 and three scopes, side by side
 * with a naive list of nodes that is searched from end to end; after each the counts agree, now and
 * then everything is walked. Twins: a pin that is secretly dropped, a page that is secretly taken
 * and a node of a scope that should be forgotten must be noticed by the same comparison.
 * A place with many partial siblings finds the oldest of them, in a time that is counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/backend.h"
#include "schedule/kv_tree.h"

enum {
    PAGE_COUNT = 100,
    NAIVE_COUNT_MAX = 400,
    OPERATION_COUNT = 100000,
    PAGE = KV_PAGE_TOKEN_COUNT,
};

enum plant { PLANT_NONE, PLANT_UNPIN, PLANT_UNPINNED, PLANT_PAGE, PLANT_SCOPE };

struct naive_node {
    struct kv_ticket ticket;
    uint32_t parent; /* in the naive list, or KV_NODE_NONE */
    uint64_t scope;
    uint32_t ids[PAGE];
    uint32_t count;
    uint32_t page;
    uint32_t pin_count; /* of this test, the owner's not counted */
    uint64_t stamp;
    bool is_computing;
    bool is_alive;
    bool is_orphan;
};

struct fuzz {
    struct kv_pages *pages;
    struct kv_tree *tree;
    struct naive_node nodes[NAIVE_COUNT_MAX];
    uint64_t clock;
    uint64_t random;
    enum plant plant;
    const char *problem;
};

static uint32_t draw(struct fuzz *fuzz, uint32_t bound)
{
    fuzz->random ^= fuzz->random << 13;
    fuzz->random ^= fuzz->random >> 7;
    fuzz->random ^= fuzz->random << 17;
    return (uint32_t)((fuzz->random >> 20) % bound);
}

static void expect(struct fuzz *fuzz, bool holds, const char *problem)
{
    if (!holds && fuzz->problem == NULL) {
        fuzz->problem = problem;
    }
}

/* ---- the naive side ---- */

static bool naive_has_child(const struct fuzz *fuzz, uint32_t node)
{
    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        if (fuzz->nodes[i].is_alive && !fuzz->nodes[i].is_orphan && fuzz->nodes[i].parent == node) {
            return true;
        }
    }
    return false;
}

static bool naive_is_evictable(const struct fuzz *fuzz, uint32_t node)
{
    const struct naive_node *entry = &fuzz->nodes[node];

    return entry->is_alive && !entry->is_orphan && !entry->is_computing && entry->pin_count == 0 &&
           !naive_has_child(fuzz, node);
}

static void naive_remove(struct fuzz *fuzz, uint32_t node)
{
    struct naive_node *entry = &fuzz->nodes[node];

    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        if (fuzz->nodes[i].is_alive && !fuzz->nodes[i].is_orphan && fuzz->nodes[i].parent == node) {
            naive_remove(fuzz, i);
        }
    }
    if (entry->parent != KV_NODE_NONE && fuzz->nodes[entry->parent].stamp < entry->stamp) {
        fuzz->nodes[entry->parent].stamp = entry->stamp;
    }
    entry->parent = KV_NODE_NONE;
    if (entry->pin_count == 0 && !entry->is_computing) {
        entry->is_alive = false;
    } else {
        entry->is_orphan = true;
    }
}

static void naive_absorb(struct fuzz *fuzz, uint32_t node)
{
    const struct naive_node *entry = &fuzz->nodes[node];

    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        const struct naive_node *other = &fuzz->nodes[i];
        if (i != node && naive_is_evictable(fuzz, i) && other->parent == entry->parent &&
            other->scope == entry->scope && other->count < entry->count &&
            memcmp(other->ids, entry->ids, other->count * sizeof(uint32_t)) == 0) {
            naive_remove(fuzz, i);
        }
    }
}

static uint32_t naive_find(const struct fuzz *fuzz, uint32_t parent, uint64_t scope,
                           const uint32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        const struct naive_node *node = &fuzz->nodes[i];
        if (node->is_alive && !node->is_orphan && node->parent == parent && node->scope == scope &&
            node->count == count && memcmp(node->ids, ids, count * sizeof(uint32_t)) == 0) {
            return i;
        }
    }
    return KV_NODE_NONE;
}

static uint32_t naive_shared(const struct fuzz *fuzz, uint32_t parent, uint64_t scope,
                             const uint32_t *ids, uint32_t count)
{
    uint32_t best = 0;

    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        const struct naive_node *node = &fuzz->nodes[i];
        uint32_t shared = 0;
        if (!node->is_alive || node->is_orphan || node->is_computing || node->parent != parent ||
            node->scope != scope) {
            continue;
        }
        while (shared < count && shared < node->count && node->ids[shared] == ids[shared]) {
            shared++;
        }
        best = shared > best ? shared : best;
    }
    return best;
}

/* A random living node for which `is_wanted` holds, or KV_NODE_NONE. */
static uint32_t naive_pick(struct fuzz *fuzz, bool (*is_wanted)(const struct naive_node *node))
{
    const uint32_t first = draw(fuzz, NAIVE_COUNT_MAX);

    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        const uint32_t at = (first + i) % NAIVE_COUNT_MAX;
        if (fuzz->nodes[at].is_alive && is_wanted(&fuzz->nodes[at])) {
            return at;
        }
    }
    return KV_NODE_NONE;
}

static bool is_full(const struct naive_node *node)
{
    return node->count == PAGE && !node->is_orphan;
}

static bool is_computing(const struct naive_node *node)
{
    return node->is_computing;
}

static bool is_there(const struct naive_node *node)
{
    return !node->is_orphan;
}

static bool is_pinned(const struct naive_node *node)
{
    return node->pin_count > 0;
}

/* ---- operations ---- */

/* Two letters, few patterns: most insertions meet something that is there. */
static void draw_ids(struct fuzz *fuzz, uint32_t *ids)
{
    const uint32_t turn = draw(fuzz, 4) * 5;

    for (uint32_t i = 0; i < PAGE; i++) {
        ids[i] = i >= turn;
    }
}

static uint32_t parent_node(const struct fuzz *fuzz, uint32_t parent)
{
    return parent == KV_NODE_NONE ? KV_NODE_NONE : fuzz->nodes[parent].ticket.node;
}

static void do_insert(struct fuzz *fuzz)
{
    const uint32_t parent = draw(fuzz, 3) == 0 ? KV_NODE_NONE : naive_pick(fuzz, is_full);
    const uint64_t scope = 1 + draw(fuzz, 3);
    const uint32_t count = draw(fuzz, 2) == 0 ? PAGE : 1 + draw(fuzz, PAGE - 1);
    const bool above_computes = parent != KV_NODE_NONE && fuzz->nodes[parent].is_computing;
    const bool computes = above_computes || draw(fuzz, 4) == 0;
    uint32_t ids[PAGE];
    const struct kv_key key = {parent_node(fuzz, parent), scope, ids, count};
    uint32_t at = 0;
    uint32_t shared;
    uint32_t computing;

    draw_ids(fuzz, ids);
    const uint32_t known = naive_find(fuzz, parent, scope, ids, count);
    const uint32_t found = kv_tree_find(fuzz->tree, &key);
    kv_tree_find_prefix(fuzz->tree, &key, &shared, &computing);
    expect(fuzz, shared == naive_shared(fuzz, parent, scope, ids, count), "another prefix");
    expect(fuzz, (known == KV_NODE_NONE) == (found == KV_NODE_NONE), "another find");
    if (known != KV_NODE_NONE || found != KV_NODE_NONE || fuzz->problem != NULL) {
        expect(fuzz, found == fuzz->nodes[known].ticket.node, "another node");
        return;
    }
    while (at < NAIVE_COUNT_MAX && fuzz->nodes[at].is_alive) {
        at++;
    }
    struct naive_node *node = &fuzz->nodes[at];
    if (at == NAIVE_COUNT_MAX || kv_pages_take(fuzz->pages, &node->page) != STATUS_OK) {
        return;
    }
    const uint32_t inserted =
        kv_tree_insert(fuzz->tree, &key, node->page, computes ? 7 : KV_OWNER_NONE);
    kv_pages_release(fuzz->pages, node->page);
    CHECK(inserted != KV_NODE_NONE);
    node->ticket = kv_tree_ticket(fuzz->tree, inserted);
    node->parent = parent;
    node->scope = scope;
    memcpy(node->ids, ids, sizeof(ids));
    node->count = count;
    node->pin_count = 0;
    node->stamp = ++fuzz->clock;
    node->is_computing = computes;
    node->is_orphan = false;
    node->is_alive = true;
    if (!computes) {
        naive_absorb(fuzz, at);
    }
}

static void do_settle(struct fuzz *fuzz)
{
    uint32_t at = naive_pick(fuzz, is_computing);
    const bool is_ready = draw(fuzz, 3) != 0;

    if (at == KV_NODE_NONE) {
        return;
    }
    struct naive_node *node = &fuzz->nodes[at];
    const bool above_computes =
        node->parent != KV_NODE_NONE && fuzz->nodes[node->parent].is_computing;
    if (is_ready && above_computes) {
        return; /* owners compute from the front */
    }
    kv_tree_settle(fuzz->tree, node->ticket.node, is_ready);
    if (node->is_orphan) {
        node->is_computing = false;
        node->is_alive = node->pin_count > 0;
        fuzz->clock++;
        return;
    }
    if (is_ready) {
        node->is_computing = false;
        node->pin_count++; /* the owner's pin lasts until the partial ones are gone */
        naive_absorb(fuzz, at);
        node->pin_count--;
        node->stamp = ++fuzz->clock;
    } else {
        naive_remove(fuzz, at);
        node->is_computing = false;
        node->is_alive = node->pin_count > 0;
        fuzz->clock++;
    }
}

static void do_pin(struct fuzz *fuzz)
{
    const uint32_t at = naive_pick(fuzz, is_there);

    if (at != KV_NODE_NONE && draw(fuzz, 2) == 0 && fuzz->plant != PLANT_UNPINNED) {
        kv_tree_pin(fuzz->tree, fuzz->nodes[at].ticket.node);
        fuzz->nodes[at].pin_count++;
    }
}

static void do_unpin(struct fuzz *fuzz)
{
    const uint32_t at = naive_pick(fuzz, is_pinned);

    if (at == KV_NODE_NONE || fuzz->plant == PLANT_UNPINNED) {
        return; /* a second unpin would meet the tree's own check */
    }
    struct naive_node *node = &fuzz->nodes[at];
    kv_tree_unpin(fuzz->tree, node->ticket.node);
    node->pin_count--;
    node->stamp = ++fuzz->clock;
    if (node->is_orphan && node->pin_count == 0 && !node->is_computing) {
        node->is_alive = false;
    }
}

static void do_evict(struct fuzz *fuzz)
{
    uint32_t oldest = KV_NODE_NONE;

    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        if (naive_is_evictable(fuzz, i) &&
            (oldest == KV_NODE_NONE || fuzz->nodes[i].stamp < fuzz->nodes[oldest].stamp)) {
            oldest = i;
        }
    }
    expect(fuzz, kv_tree_evict(fuzz->tree) == (oldest != KV_NODE_NONE), "another eviction");
    if (oldest != KV_NODE_NONE) {
        naive_remove(fuzz, oldest);
    }
}

static void do_release_scope(struct fuzz *fuzz)
{
    const uint64_t scope = 1 + draw(fuzz, 3);

    if (draw(fuzz, 200) != 0) {
        return;
    }
    if (fuzz->plant != PLANT_SCOPE) {
        kv_tree_release_scope(fuzz->tree, scope);
    }
    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        if (fuzz->nodes[i].is_alive && !fuzz->nodes[i].is_orphan && fuzz->nodes[i].scope == scope) {
            naive_remove(fuzz, i);
        }
    }
}

static void do_plant(struct fuzz *fuzz)
{
    if (fuzz->plant == PLANT_UNPIN) {
        const uint32_t at = naive_pick(fuzz, is_pinned);
        if (at != KV_NODE_NONE && fuzz->nodes[at].pin_count == 1 && !fuzz->nodes[at].is_orphan &&
            !fuzz->nodes[at].is_computing) {
            kv_tree_unpin(fuzz->tree, fuzz->nodes[at].ticket.node);
            fuzz->plant = PLANT_UNPINNED;
        }
    } else if (fuzz->plant == PLANT_PAGE) {
        const uint32_t at = naive_pick(fuzz, is_there);
        if (at != KV_NODE_NONE) {
            kv_pages_acquire(fuzz->pages, fuzz->nodes[at].page);
        }
    }
}

/* ---- agreement ---- */

static void compare(struct fuzz *fuzz, bool is_thorough)
{
    const struct kv_pages_counts counts = kv_pages_counts(fuzz->pages);
    uint32_t alive = 0;
    uint32_t cached = 0;

    for (uint32_t i = 0; i < NAIVE_COUNT_MAX; i++) {
        const struct naive_node *node = &fuzz->nodes[i];
        if (!node->is_alive) {
            continue;
        }
        alive++;
        cached += !node->is_orphan;
        const struct kv_ticket now = kv_tree_ticket(fuzz->tree, node->ticket.node);
        expect(fuzz, now.generation == node->ticket.generation, "a node is gone");
        const enum kv_node_state state = node->is_orphan      ? KV_NODE_ORPHAN
                                         : node->is_computing ? KV_NODE_COMPUTING
                                                              : KV_NODE_READY;
        expect(fuzz, kv_tree_state(fuzz->tree, node->ticket.node) == state, "another state");
    }
    expect(fuzz, kv_tree_node_count(fuzz->tree) == alive, "another number of nodes");
    expect(fuzz, counts.held_count == 0, "a page is held");
    expect(fuzz, counts.cached_count == cached, "another number of cached pages");
    expect(fuzz, counts.free_count + counts.cached_count == PAGE_COUNT, "a page is lost");
    if (is_thorough && fuzz->problem == NULL) {
        kv_pages_check(fuzz->pages);
        kv_tree_check(fuzz->tree);
    }
}

static const char *run(enum plant plant, uint64_t seed)
{
    struct fuzz *fuzz = memory_alloc(1, sizeof(*fuzz));
    const char *problem;

    fuzz->random = seed * 0x9e3779b97f4a7c15u + 1;
    fuzz->plant = plant;
    assert_int_equal(kv_pages_create(PAGE_COUNT, &fuzz->pages), STATUS_OK);
    assert_int_equal(kv_tree_create(fuzz->pages, NAIVE_COUNT_MAX, &fuzz->tree), STATUS_OK);
    for (uint32_t i = 0; i < OPERATION_COUNT && fuzz->problem == NULL; i++) {
        static void (*const operations[])(struct fuzz *) = {
            do_insert, do_insert, do_insert, do_settle, do_pin,
            do_unpin,  do_unpin,  do_evict,  do_evict,  do_release_scope,
        };
        operations[draw(fuzz, sizeof(operations) / sizeof(operations[0]))](fuzz);
        if (i > 1000) {
            do_plant(fuzz);
        }
        compare(fuzz, i % 64 == 0);
    }
    problem = fuzz->problem;
    kv_tree_destroy(fuzz->tree);
    kv_pages_destroy(fuzz->pages);
    memory_free(fuzz);
    return problem;
}

static void test_100000_random_operations_agree_with_a_naive_list(void **state)
{
    const char *problem = run(PLANT_NONE, 1);

    (void)state;
    if (problem != NULL) {
        fail_msg("%s", problem);
    }
}

static void test_planted_faults_are_noticed(void **state)
{
    (void)state;
    assert_non_null(run(PLANT_UNPIN, 2));
    assert_non_null(run(PLANT_PAGE, 3));
    assert_non_null(run(PLANT_SCOPE, 4));
}

static void test_a_page_returns_only_after_the_last_step_that_names_it(void **state)
{
    struct kv_pages *pages = NULL;
    uint32_t page;
    uint32_t other;

    (void)state;
    assert_int_equal(kv_pages_create(1, &pages), STATUS_OK);
    assert_int_equal(kv_pages_take(pages, &page), STATUS_OK);
    kv_pages_name(pages, page, 1);
    kv_pages_name(pages, page, 2);
    kv_pages_release(pages, page);
    assert_int_equal(kv_pages_counts(pages).limbo_count, 1);
    assert_int_equal(kv_pages_take(pages, &other), STATUS_AGAIN);
    kv_pages_complete(pages, 1);
    assert_int_equal(kv_pages_take(pages, &other), STATUS_AGAIN);
    kv_pages_complete(pages, 2);
    assert_int_equal(kv_pages_take(pages, &other), STATUS_OK);
    assert_int_equal(other, page);
    kv_pages_release(pages, page);
    kv_pages_check(pages);
    kv_pages_destroy(pages);
}

/* Partial siblings that share their first id alone: number `index` of them. */
static struct kv_key sibling_key(uint32_t index, uint32_t *ids)
{
    ids[0] = 1;
    ids[1] = 100 + index;
    ids[2] = 2;
    return (struct kv_key){KV_NODE_NONE, 7, ids, 3};
}

static struct kv_tree *plant_siblings(struct kv_pages *pages, uint32_t count)
{
    struct kv_tree *tree = NULL;
    uint32_t ids[PAGE];
    uint32_t page;

    assert_int_equal(kv_tree_create(pages, count, &tree), STATUS_OK);
    assert_int_equal(kv_pages_take(pages, &page), STATUS_OK);
    for (uint32_t i = 0; i < count; i++) {
        const struct kv_key key = sibling_key(i, ids);
        assert_int_not_equal(kv_tree_insert(tree, &key, page, KV_OWNER_NONE), KV_NODE_NONE);
    }
    kv_pages_release(pages, page);
    return tree;
}

/* Ids that the best partial node shares with what follows sibling `index`. */
static uint32_t shared_with(const struct kv_tree *tree, uint32_t index)
{
    uint32_t ids[PAGE];
    uint32_t shared = 0;
    uint32_t computing = 0;
    struct kv_key key = sibling_key(index, ids);

    ids[3] = 3;
    key.count = 4;
    (void)kv_tree_find_prefix(tree, &key, &shared, &computing);
    assert_int_equal(computing, KV_NODE_NONE);
    return shared;
}

static void test_the_oldest_of_a_thousand_siblings_is_found_in_little_time(void **state)
{
    struct kv_pages *pages = NULL;
    struct timespec begin, end;

    (void)state;
    assert_int_equal(kv_pages_create(2, &pages), STATUS_OK);
    struct kv_tree *tree = plant_siblings(pages, 1024);
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (uint32_t i = 0; i < 1024; i++) {
        assert_int_equal(shared_with(tree, i), 3);
    }
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    const double us =
        (double)(end.tv_sec - begin.tv_sec) * 1e6 + (double)(end.tv_nsec - begin.tv_nsec) * 1e-3;
    print_message("a look among 1,024 siblings: %.2f us\n", us / 1024);
    /* A hundred times what it takes: sanitizers and busy machines stay below. */
    assert_true(us / 1024 < 500);
    kv_tree_destroy(tree);
    kv_pages_destroy(pages);
}

static void test_more_siblings_than_are_looked_at_cost_sharing_alone(void **state)
{
    struct kv_pages *pages = NULL;

    (void)state;
    assert_int_equal(kv_pages_create(2, &pages), STATUS_OK);
    struct kv_tree *tree = plant_siblings(pages, 1025);
    assert_int_equal(shared_with(tree, 0), 1); /* the oldest is one too far */
    assert_int_equal(shared_with(tree, 1), 3);
    kv_tree_destroy(tree);
    kv_pages_destroy(pages);
}

static void test_creation_survives_the_failure_of_every_allocation(void **state)
{
    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        const int64_t live = memory_live_count();
        struct kv_pages *pages = NULL;
        struct kv_tree *tree = NULL;
        memory_fault_set(survivors);
        enum status status = kv_pages_create(8, &pages);
        if (status == STATUS_OK) {
            status = kv_tree_create(pages, 8, &tree);
        }
        memory_fault_set(-1);
        kv_tree_destroy(tree);
        kv_pages_destroy(pages);
        assert_int_equal(memory_live_count(), live);
        if (status == STATUS_OK) {
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_100000_random_operations_agree_with_a_naive_list),
        cmocka_unit_test(test_planted_faults_are_noticed),
        cmocka_unit_test(test_a_page_returns_only_after_the_last_step_that_names_it),
        cmocka_unit_test(test_the_oldest_of_a_thousand_siblings_is_found_in_little_time),
        cmocka_unit_test(test_more_siblings_than_are_looked_at_cost_sharing_alone),
        cmocka_unit_test(test_creation_survives_the_failure_of_every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
