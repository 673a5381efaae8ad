#include <string.h>

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
        table_finish(&tree->steps_places);
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

/* Where a digest lies, or would: two may begin alike, so that the next place is looked at too. */
static uint32_t find_steps(const struct rows_tree *tree, const uint8_t *digest, uint64_t *place)
{
    for (*place = bytes_load_u64(digest);; ++*place) {
        const uint32_t number = table_find_number(&tree->steps_places, *place);

        if (number == 0 ||
            memcmp(tree->steps[number - 1].digest, digest, JOURNAL_DIGEST_BYTES) == 0) {
            return number;
        }
    }
}

/* What comes twice is found where it came first. */
enum status rows_tree_add_steps(struct rows_tree *tree, const struct journal_steps *steps)
{
    uint64_t place = 0;
    const bool is_new = find_steps(tree, steps->digest, &place) == 0;

    ADD(tree->steps, tree->steps_count, tree->steps_capacity, *steps);
    return is_new ? table_insert_number(&tree->steps_places, place, tree->steps_count) : STATUS_OK;
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

uint32_t rows_tree_find_context(const struct rows_tree *tree, uint64_t id)
{
    uint32_t from = 0;
    uint32_t to = tree->context_count;

    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;

        if (tree->contexts[middle].id < id) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from < tree->context_count && tree->contexts[from].id == id ? from : ROWS_NONE;
}

uint32_t rows_tree_find_steps(const struct rows_tree *tree, struct bytes digest)
{
    uint64_t place = 0;

    return digest.size == JOURNAL_DIGEST_BYTES ? find_steps(tree, digest.data, &place) - 1
                                               : ROWS_NONE;
}
