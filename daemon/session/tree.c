#include "session/tree.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"

/* The first index whose child lies behind (offset, ordinal). */
static uint32_t upper_bound(const struct node_children *children, uint32_t offset, uint64_t ordinal)
{
    uint32_t from = 0;
    uint32_t to = children->count;

    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;
        const struct node *child = children->items[middle];

        if (child->parent_offset < offset ||
            (child->parent_offset == offset && child->ordinal <= ordinal)) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

uint32_t tree_next_ordinal(struct place place)
{
    const struct node_children *children = &place.node->children;
    const uint32_t end = upper_bound(children, place.offset, UINT64_MAX);

    if (end == 0 || children->items[end - 1]->parent_offset != place.offset) {
        return 0;
    }
    return children->items[end - 1]->ordinal + 1;
}

enum status tree_reserve(struct node *parent, uint32_t extra)
{
    struct node_children *children = &parent->children;
    const uint32_t wanted = children->count + extra;
    uint32_t capacity = children->capacity == 0 ? 2 : children->capacity;
    struct node **items;

    if (wanted <= children->capacity) {
        return STATUS_OK;
    }
    while (capacity < wanted) {
        capacity *= 2;
    }
    items = memory_resize(children->items, capacity, sizeof(struct node *));
    if (items == NULL) {
        return STATUS_MEMORY;
    }
    children->items = items;
    children->capacity = capacity;
    return STATUS_OK;
}

enum status tree_node_create(struct session *session, struct place place, uint32_t speaker,
                             struct error *error, struct node **out)
{
    struct node *node;

    if (session->node_count >= SESSION_NODE_COUNT_MAX) {
        return error_set_limit(error, "SESSION_NODE_COUNT_MAX", SESSION_NODE_COUNT_MAX,
                               "the session has %u nodes, which is the most", session->node_count);
    }
    node = memory_alloc(1, sizeof(*node));
    if (node == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while a node was made");
    }
    node->session = session;
    node->parent = place.node;
    node->parent_offset = place.offset;
    node->speaker = speaker;
    node->depth = place.node == &session->root ? 0 : place.node->depth + 1;
    *out = node;
    return STATUS_OK;
}

static void insert(struct node *node, uint32_t at)
{
    struct node_children *children = &node->parent->children;

    CHECK(children->count < children->capacity);
    memmove(children->items + at + 1, children->items + at,
            (children->count - at) * sizeof(struct node *));
    children->items[at] = node;
    children->count++;
    node->session->node_count++;
}

void tree_link(struct node *node)
{
    const struct place place = {node->parent, node->parent_offset};

    node->ordinal = tree_next_ordinal(place);
    insert(node, upper_bound(&node->parent->children, node->parent_offset, UINT64_MAX));
}

enum status tree_link_stored(struct node *node)
{
    const struct node_children *children = &node->parent->children;
    const uint32_t at = upper_bound(children, node->parent_offset, node->ordinal);

    if (at > 0 && children->items[at - 1]->parent_offset == node->parent_offset &&
        children->items[at - 1]->ordinal == node->ordinal) {
        return STATUS_CONFLICT;
    }
    insert(node, at);
    return STATUS_OK;
}

enum status tree_path_create(struct place place, struct tree_path *out)
{
    const bool is_root = place.node->parent == NULL;
    const uint32_t count = is_root ? 0 : place.node->depth + 1;
    struct tree_step *steps = memory_alloc(count, sizeof(*steps));
    struct node *node = place.node;
    uint32_t offset = place.offset;

    if (steps == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = count; i > 0; i--) {
        CHECK(node->parent != NULL);
        steps[i - 1].node = node;
        steps[i - 1].count = offset;
        offset = node->parent_offset;
        node = node->parent;
    }
    CHECK(node->parent == NULL);
    out->steps = steps;
    out->count = count;
    return STATUS_OK;
}

void tree_path_finish(struct tree_path *path)
{
    memory_free(path->steps);
    path->steps = NULL;
    path->count = 0;
}

uint32_t tree_turn_speaker(struct place place)
{
    return place.node->parent == NULL ? CAST_START : place.node->speaker;
}

/* From the end to the start, since a turn may be long and only its end is wanted. */
enum status tree_turn_text(struct place place, const struct tokenizer *tokenizer, size_t bytes_max,
                           struct buffer *out)
{
    const struct node *first = place.node;
    uint32_t offset = place.offset;
    size_t wanted = 0;
    size_t skipped;

    while (first->parent != NULL) {
        wanted += node_text_until(first, offset, tokenizer).size;
        if (first->opens_turn || wanted >= bytes_max) {
            break;
        }
        offset = first->parent_offset;
        first = first->parent;
    }
    skipped = wanted > bytes_max ? wanted - bytes_max : 0;
    TRY(buffer_reserve(out, wanted - skipped));
    out->size += wanted - skipped;
    /* Filled from the back. */
    for (size_t end = wanted, at = out->size; end > skipped;) {
        CHECK(place.node->parent != NULL); /* the first loop has counted these nodes */
        const struct bytes text = node_text_until(place.node, place.offset, tokenizer);
        const size_t part = text.size < end - skipped ? text.size : end - skipped;

        if (part > 0) {
            memcpy(out->data + at - part, text.data + text.size - part, part);
        }
        at -= part;
        end -= text.size < end ? text.size : end;
        place.offset = place.node->parent_offset;
        place.node = place.node->parent;
    }
    return STATUS_OK;
}

static struct node *first_shown(const struct node_children *children, uint32_t from, bool deleted)
{
    for (uint32_t i = from; i < children->count; i++) {
        const struct node *node = children->items[i];

        if (node->is_visible && !node->is_purged && (deleted || !node->is_deleted)) {
            return children->items[i];
        }
    }
    return NULL;
}

struct node *tree_next(const struct node *top, struct node *node, bool deleted)
{
    struct node *next = first_shown(&node->children, 0, deleted);

    while (next == NULL && node != top) {
        const uint32_t at =
            upper_bound(&node->parent->children, node->parent_offset, node->ordinal);

        next = first_shown(&node->parent->children, at, deleted);
        node = node->parent;
    }
    return next;
}

struct node *tree_next_of_all(const struct node *top, struct node *node)
{
    if (node->children.count > 0) {
        return node->children.items[0];
    }
    while (node != top) {
        const struct node_children *siblings = &node->parent->children;
        const uint32_t next = tree_child_index(node) + 1;

        if (next < siblings->count) {
            return siblings->items[next];
        }
        node = node->parent;
    }
    return NULL;
}

uint32_t tree_child_index(const struct node *node)
{
    return upper_bound(&node->parent->children, node->parent_offset, node->ordinal) - 1;
}

struct node *tree_hidden_by(struct node *node)
{
    while (node != NULL && !node->is_deleted) {
        node = node->parent;
    }
    return node;
}

void tree_finish(struct session *session)
{
    struct node *node = &session->root;

    /* Without recursion: a tree may be as deep as it has nodes. */
    for (;;) {
        if (node->children.count > 0) {
            node = node->children.items[--node->children.count];
            continue;
        }
        if (node->parent == NULL) {
            break;
        }
        struct node *parent = node->parent;

        node_destroy(node);
        node = parent;
    }
    memory_free(session->root.children.items);
}
