#include "base/memory.h"
#include "journal/rows.h"
#include "limits.h"

enum status rows_tree_create(uint64_t session_id, struct rows_tree **out)
{
    struct rows_tree *tree = memory_alloc(1, sizeof(*tree));

    if (tree == NULL) {
        return STATUS_MEMORY;
    }
    tree->session_id = session_id;
    arena_init(&tree->arena, TREE_BYTES_MAX);
    *out = tree;
    return STATUS_OK;
}

void rows_tree_destroy(struct rows_tree *tree)
{
    if (tree != NULL) {
        arena_finish(&tree->arena);
        memory_free(tree->nodes);
        memory_free(tree->contexts);
        memory_free(tree->steps);
        memory_free(tree->chunks);
        memory_free(tree->notes);
        memory_free(tree->author_notes);
        memory_free(tree);
    }
}

/* Room for one more; the array moves. */
static enum status grow(void **array, size_t item_bytes, uint32_t count, uint32_t *capacity)
{
    const uint32_t wanted = *capacity == 0 ? 16 : *capacity * 2;
    void *items;

    if (count < *capacity) {
        return STATUS_OK;
    }
    items = memory_resize(*array, wanted, item_bytes);
    if (items == NULL) {
        return STATUS_MEMORY;
    }
    *array = items;
    *capacity = wanted;
    return STATUS_OK;
}

#define ADD(array, count, capacity, item)                                   \
    do {                                                                    \
        TRY(grow((void **)&(array), sizeof(*(array)), count, &(capacity))); \
        (array)[(count)++] = (item);                                        \
    } while (0)

enum status rows_tree_add_node(struct rows_tree *tree, const struct rows_node *node)
{
    ADD(tree->nodes, tree->node_count, tree->node_capacity, *node);
    return STATUS_OK;
}

enum status rows_tree_add_context(struct rows_tree *tree, const struct journal_context *context)
{
    ADD(tree->contexts, tree->context_count, tree->context_capacity, *context);
    return STATUS_OK;
}

enum status rows_tree_add_steps(struct rows_tree *tree, const struct journal_steps *steps)
{
    ADD(tree->steps, tree->steps_count, tree->steps_capacity, *steps);
    return STATUS_OK;
}

enum status rows_tree_add_chunk(struct rows_tree *tree, const struct journal_chunk *chunk)
{
    ADD(tree->chunks, tree->chunk_count, tree->chunk_capacity, *chunk);
    return STATUS_OK;
}

enum status rows_tree_add_note(struct rows_tree *tree, const struct journal_note *note)
{
    ADD(tree->notes, tree->note_count, tree->note_capacity, *note);
    return STATUS_OK;
}

enum status rows_tree_add_author_note(struct rows_tree *tree,
                                      const struct journal_author_note *note)
{
    ADD(tree->author_notes, tree->author_note_count, tree->author_note_capacity, *note);
    return STATUS_OK;
}
