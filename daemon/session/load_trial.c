#include "session/load_trial.h"

#include <string.h>

#include "base/memory.h"
#include "session/author_note.h"
#include "session/bookmark.h"
#include "session/filling.h"
#include "session/load_tree.h"

struct load_trial {
    struct filling filling;
    struct table nodes;  /* owned, and the nodes in it */
    uint32_t left_count; /* of rows whose nodes are still to be taken down */
    bool is_released;
};

enum status load_trial_create(struct store *store, struct session *session,
                              const struct rows_tree *rows, struct load_trial **out)
{
    struct load_trial *trial = memory_alloc(1, sizeof(*trial));

    if (trial == NULL) {
        return STATUS_MEMORY;
    }
    trial->filling =
        (struct filling){.store = store, .session = session, .rows = rows, .nodes = &trial->nodes};
    trial->left_count = rows->node_count;
    session->node_count = 0;
    *out = trial;
    return STATUS_OK;
}

enum status load_trial_go_on(struct load_trial *trial, uint32_t work, struct error *error)
{
    struct session *session = trial->filling.session;
    uint32_t count = 0;

    trial->filling.error = error;
    TRY(load_tree_go_on(&trial->filling, work));
    load_tree_place_head(&trial->filling);
    node_content(session->head, &count);
    session->stored_head = (struct position){session->head->id, session->head_offset};
    session->stored_head_count = count;
    return STATUS_OK;
}

/* Children come after their parents, and go before them. */
bool load_trial_drop(struct load_trial *trial, uint32_t count)
{
    struct session *session = trial->filling.session;

    if (!trial->is_released) {
        bookmark_finish(session);
        author_note_finish(session);
        load_tree_release(&trial->filling);
        session->head = &session->root;
        trial->is_released = true;
    }
    for (; count > 0 && trial->left_count > 0; count--) {
        const struct rows_node *row = &trial->filling.rows->nodes[--trial->left_count];

        node_destroy(table_remove(&trial->nodes, row->node.id));
    }
    if (trial->left_count > 0) {
        return false;
    }
    memory_free(session->root.children.items);
    memset(&session->root.children, 0, sizeof(session->root.children));
    table_finish(&trial->nodes);
    memory_free(trial);
    return true;
}

void load_trial_destroy(struct load_trial *trial)
{
    if (trial != NULL) {
        (void)load_trial_drop(trial, UINT32_MAX);
    }
}
