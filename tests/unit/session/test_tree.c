/* Goal: children keep their order, ordinals and paths whatever grows where; a turn's text is found
 * from its end; a walk meets every visible node once, parents first.
 * Method: random trees beside a naive model (an array that is sorted and searched), with a fixed
 * seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "session/tree.h"

enum { NODE_COUNT = 600, IDS_A_NODE = 8 };

static uint64_t random_state = 1;
static struct session session;
static struct node *nodes[NODE_COUNT];
static uint32_t node_count;

static uint32_t draw(uint32_t bound)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % bound;
}

static void open_tree(void)
{
    memset(&session, 0, sizeof(session));
    session.root.session = &session;
    session.root.is_visible = true;
    node_count = 0;
}

static struct node *add(struct node *parent, uint32_t offset, bool opens_turn)
{
    const struct place place = {parent, offset};
    const uint32_t ordinal = tree_next_ordinal(place);
    struct node *node = NULL;

    assert_int_equal(tree_node_create(&session, place, 0, NULL, &node), STATUS_OK);
    node->id = node_count + 1;
    node->opens_turn = opens_turn;
    node->is_visible = true;
    node->is_finish_visible = true;
    node->ids = memory_alloc(IDS_A_NODE, sizeof(uint32_t));
    node->text = memory_alloc(1, IDS_A_NODE);
    assert_true(node->ids != NULL && node->text != NULL);
    node->id_count = IDS_A_NODE;
    node->text_bytes = IDS_A_NODE;
    memset(node->text, 'a' + (int)(node->id % 26), IDS_A_NODE);
    assert_int_equal(tree_reserve(parent, 1), STATUS_OK);
    tree_link(node);
    assert_int_equal(node->ordinal, ordinal);
    nodes[node_count++] = node;
    return node;
}

static void grow(uint32_t count)
{
    while (node_count < count) {
        const uint32_t at = draw(node_count + 1);
        struct node *parent = at == 0 ? &session.root : nodes[at - 1];

        add(parent, parent == &session.root ? 0 : draw(IDS_A_NODE + 1), draw(3) > 0);
    }
}

static void test_ordinals_count_the_siblings_of_a_position(void **state)
{
    (void)state;
    open_tree();
    grow(NODE_COUNT);
    for (uint32_t i = 0; i < node_count; i++) {
        uint32_t before = 0;

        for (uint32_t k = 0; k < i; k++) {
            before += nodes[k]->parent == nodes[i]->parent &&
                      nodes[k]->parent_offset == nodes[i]->parent_offset;
        }
        assert_int_equal(nodes[i]->ordinal, before);
    }
    for (uint32_t i = 0; i < node_count; i++) {
        const struct node_children *children = &nodes[i]->children;

        for (uint32_t k = 1; k < children->count; k++) {
            const struct node *a = children->items[k - 1];
            const struct node *b = children->items[k];

            assert_true(a->parent_offset < b->parent_offset ||
                        (a->parent_offset == b->parent_offset && a->ordinal < b->ordinal));
        }
    }
    tree_finish(&session);
}

static void test_a_path_leads_from_the_root_to_its_place(void **state)
{
    (void)state;
    open_tree();
    grow(NODE_COUNT);
    for (uint32_t i = 0; i < node_count; i++) {
        const struct place place = {nodes[i], draw(IDS_A_NODE + 1)};
        struct tree_path path = {0};

        assert_int_equal(tree_path_create(place, &path), STATUS_OK);
        assert_ptr_equal(path.steps[path.count - 1].node, nodes[i]);
        assert_int_equal(path.steps[path.count - 1].count, place.offset);
        assert_ptr_equal(path.steps[0].node->parent, &session.root);
        for (uint32_t k = 1; k < path.count; k++) {
            assert_ptr_equal(path.steps[k].node->parent, path.steps[k - 1].node);
            assert_int_equal(path.steps[k].node->parent_offset, path.steps[k - 1].count);
        }
        tree_path_finish(&path);
    }
    tree_finish(&session);
}

/* The whole text of the turn, from its start; the naive way. */
static size_t naive_turn(const struct tree_path *path, uint8_t *out)
{
    size_t size = 0;

    for (uint32_t i = 0; i < path->count; i++) {
        const struct node *node = path->steps[i].node;

        size = node->opens_turn || i == 0 ? 0 : size;
        memset(out + size, node->text[0], path->steps[i].count);
        size += path->steps[i].count;
    }
    return size;
}

static void test_the_end_of_a_turn_is_found_whole(void **state)
{
    static uint8_t expected[NODE_COUNT * IDS_A_NODE];

    (void)state;
    open_tree();
    grow(NODE_COUNT);
    for (uint32_t i = 0; i < node_count; i++) {
        /* Only whole nodes: without a tokeniser the text of a part is not known. */
        const struct place place = {nodes[i], IDS_A_NODE};
        const size_t most = 1 + draw(40);
        struct tree_path path = {0};
        struct buffer text;
        size_t size;
        bool is_whole = true;

        assert_int_equal(tree_path_create(place, &path), STATUS_OK);
        for (uint32_t k = 0; k < path.count; k++) {
            is_whole = is_whole && path.steps[k].count == IDS_A_NODE;
        }
        size = naive_turn(&path, expected);
        tree_path_finish(&path);
        if (!is_whole) {
            continue;
        }
        buffer_init(&text, most);
        assert_int_equal(tree_turn_text(place, NULL, most, &text), STATUS_OK);
        assert_int_equal(text.size, size < most ? size : most);
        assert_memory_equal(text.data, expected + size - text.size, text.size);
        buffer_finish(&text);
    }
    tree_finish(&session);
}

static void test_a_walk_meets_every_visible_node_once_and_parents_first(void **state)
{
    static bool seen[NODE_COUNT + 1];
    uint32_t expected = 0;
    uint32_t met = 0;

    (void)state;
    open_tree();
    grow(NODE_COUNT);
    for (uint32_t i = 0; i < node_count; i += 7) {
        nodes[i]->is_visible = false;
    }
    for (uint32_t i = 0; i < node_count; i++) {
        const struct node *node = nodes[i];

        while (node->parent != NULL && node->is_visible) {
            node = node->parent;
        }
        expected += node->parent == NULL;
    }
    memset(seen, 0, sizeof(seen));
    seen[0] = true; /* the root */
    for (struct node *node = tree_next(&session.root, &session.root, false); node != NULL;
         node = tree_next(&session.root, node, false)) {
        assert_true(node->is_visible && !seen[node->id] && seen[node->parent->id]);
        seen[node->id] = true;
        met++;
    }
    assert_int_equal(met, expected);
    assert_true(expected > 10);
    tree_finish(&session);
}

static void test_a_chain_of_many_nodes_needs_no_stack(void **state)
{
    struct node *node;

    (void)state;
    open_tree();
    node = &session.root;
    for (uint32_t i = 0; i < 200000; i++) {
        node_count = 0; /* the chain is found by its links alone */
        node = add(node, node == &session.root ? 0 : IDS_A_NODE, false);
    }
    assert_int_equal(node->depth, 199999);
    tree_finish(&session);
    assert_int_equal(memory_live_count(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordinals_count_the_siblings_of_a_position),
        cmocka_unit_test(test_a_path_leads_from_the_root_to_its_place),
        cmocka_unit_test(test_the_end_of_a_turn_is_found_whole),
        cmocka_unit_test(test_a_walk_meets_every_visible_node_once_and_parents_first),
        cmocka_unit_test(test_a_chain_of_many_nodes_needs_no_stack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
