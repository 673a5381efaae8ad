/* A session's tree: its root, its nodes, and the positions in them.
 *
 * Thread: loop. The session owns its nodes; they stay where they are until the session goes. A
 * position is (node, offset in its content); the root stands for node 0. Children hang at any
 * offset of a node that exists, also of one that is still being generated: up to what is released.
 */
#ifndef PERSONAD_SESSION_TREE_H
#define PERSONAD_SESSION_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "session/cast.h"
#include "session/node.h"

/* Whether the tree is in memory (residence.h). */
enum session_residence { SESSION_RESIDENT, SESSION_LOADING, SESSION_ABSENT };

struct session {
    uint64_t id;
    uint32_t owner_uid;
    uint64_t seed; /* S of the seed rule */
    uint64_t created_us;
    uint32_t context_tokens; /* longest context + reply */
    char *label;             /* owned */
    uint32_t label_bytes;
    struct node root; /* id 0, no content */
    struct cast cast;
    struct node *head; /* where its reader was: a node of this tree, the root included */
    uint32_t head_offset;
    struct position stored_head; /* while it is not resident */
    uint32_t stored_head_count;  /* tokens of that node */
    enum session_residence residence;
    uint64_t resident_bytes; /* of its tree */
    uint64_t idle_mark;      /* batches submitted when it was used last */
    uint32_t branch_count;   /* alive */
    uint32_t follower_count; /* cursors on its nodes */
    bool is_used;            /* since the last look for trees that rest */
    bool is_damaged;         /* its tree cannot be read */
    uint32_t node_count;
    struct bookmark *bookmarks; /* owned, by name (bookmark.h) */
    uint32_t bookmark_count;
    struct author_note *author_notes; /* owned (author_note.h) */
    uint32_t author_note_count;
    uint32_t loan_count; /* computations beside its branches that borrow from its nodes */
    bool is_deleted;
    bool is_foreign;   /* made with another model: it can be read, and nothing can be added */
    bool is_elsewhere; /* made under another numerics id: it can be looked into too */
    bool is_open;      /* its greetings are committed, so that it can be listed */
};

/* A place inside a tree, checked. */
struct place {
    struct node *node; /* the root included */
    uint32_t offset;   /* at most the content's length */
};

/* One piece of the way from the root to a place. */
struct tree_step {
    struct node *node;
    uint32_t count; /* tokens of its content that lie on the way */
};

struct tree_path {
    struct tree_step *steps; /* owned; root side first, the root itself left out */
    uint32_t count;
};

/* A node below `place`, not linked yet. LIMIT names SESSION_NODE_COUNT_MAX. */
MUST_USE enum status tree_node_create(struct session *session, struct place place, uint32_t speaker,
                                      struct error *error, struct node **out);

/* Links it: the ordinal is the next one of its position. Room was made by tree_reserve. */
void tree_link(struct node *node);

/* Links a node that was loaded, where its stored ordinal says. CONFLICT when that is taken. */
MUST_USE enum status tree_link_stored(struct node *node);

/* Makes room for `extra` children of one node, so that linking cannot fail. */
MUST_USE enum status tree_reserve(struct node *parent, uint32_t extra);

/* The ordinal that the next child of that place gets. */
uint32_t tree_next_ordinal(struct place place);

MUST_USE enum status tree_path_create(struct place place, struct tree_path *out);
void tree_path_finish(struct tree_path *path);

/* The place's turn was opened by whom: CAST_START at the root. */
uint32_t tree_turn_speaker(struct place place);

/* Bytes that the open turn at that place shows so far, the last bytes_max of them. Appends. */
MUST_USE enum status tree_turn_text(struct place place, const struct tokenizer *tokenizer,
                                    size_t bytes_max, struct buffer *out);

/* The node after `node` in depth first order below `top`, or NULL. Children that are not visible
 * are left out, purged ones too, and deleted ones with all below them unless asked for. */
struct node *tree_next(const struct node *top, struct node *node, bool deleted);

/* The same, with every node that stands in the tree. */
struct node *tree_next_of_all(const struct node *top, struct node *node);

/* Where it stands among its parent's children. */
uint32_t tree_child_index(const struct node *node);

/* The nearest node from that one upwards that is marked as deleted, or NULL. */
struct node *tree_hidden_by(struct node *node);

/* Frees all nodes. */
void tree_finish(struct session *session);

#endif
