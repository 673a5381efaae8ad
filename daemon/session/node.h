/* A node: an immutable run of tokens in a session's tree.
 *
 * Thread: loop. A node belongs to its session and lives as long; nodes are never moved or freed
 * alone, so pointers to them are stable. What a node holds only grows while it is being generated
 * and never changes afterwards.
 *
 *   given     ids and text are owned by the node from the start
 *   sampled   ids, numbers and text lie in the output block that the engine writes; at the end they
 *             move once into a block of exact size (node_settle), and content = the kept tokens +
 *             the tail that encodes the bytes which the cut token still showed
 *
 * Readers see a node once its intent is committed (is_visible), and its end once its finish row is
 * (is_finish_visible).
 */
#ifndef PERSONAD_SESSION_NODE_H
#define PERSONAD_SESSION_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "sample/sampler.h"
#include "schedule/branch.h"
#include "session/request.h"
#include "text/tokenizer.h"

struct session;
struct context;
struct waiter;
struct generation;
struct cue_list;

/* Children by (offset, ordinal). */
struct node_children {
    struct node **items; /* owned array, borrowed nodes */
    uint32_t count;
    uint32_t capacity;
};

/* Only in sampled nodes. */
struct node_sampled {
    struct branch_output output; /* owned arrays, in one block */
    void *block;
    uint64_t block_bytes;
    bool is_settled;           /* the block will not move any more */
    struct branch_event event; /* the last one taken */
    struct branch_event shown; /* what readers may see of it */
    struct sampler *sampler;   /* acquired */
    struct context *context;   /* acquired */
    struct cue_list *cue_list; /* acquired */
    uint64_t seed;
    uint32_t room;                 /* context and reply together, tokens */
    struct generation *generation; /* borrowed; NULL once the branch has ended */
    uint32_t slot;                 /* while generation is set */
    uint32_t follower_count;
    uint64_t unfollowed_since_ns; /* 0: followed, or never to be parked */
    bool has_intent;              /* the journal has taken it */
    bool is_finish_given;         /* likewise */
    bool is_foreign;              /* another model or other arithmetic sampled it */
    uint32_t stored_count;        /* tokens that it has taken */
    uint32_t stored_released_count;
    bool is_refused; /* the engine has not */
    bool is_parked;
};

struct node {
    uint64_t id;
    struct session *session; /* borrowed */
    struct node *parent;     /* NULL for the root only */
    uint32_t parent_offset;
    uint32_t ordinal;
    uint32_t speaker;
    uint32_t depth; /* nodes above it, the root not counted */
    enum node_origin origin;
    enum node_finish finish; /* readers see it with is_finish_visible */
    bool opens_turn;
    bool is_greeting; /* whole greeting of the session's first persona, child of the root */
    bool is_visible, is_finish_visible;
    bool is_deleted; /* marked: it and all below it are hidden */
    bool is_purged;  /* holds nothing any more; only its id and ordinal are kept */
    struct node_children children;
    uint64_t original; /* ORIGIN_EDITED: the node that it was made from */
    uint64_t created_us, finished_us;
    uint32_t *ids; /* owned; given nodes, and sampled ones with a tail: the content */
    uint32_t id_count;
    uint8_t *text; /* owned; given nodes */
    uint32_t text_bytes;
    struct node_sampled *sampled; /* owned; NULL for given nodes */
    struct waiter *waiters;       /* who waits for a commit of this node (pending.h) */
    struct error *error;          /* owned; why it failed, or NULL */
    char *label;                  /* owned, or NULL */
    uint32_t label_bytes;
};

/* The content as far as it is fixed: whole, or what is released. */
const uint32_t *node_content(const struct node *node, uint32_t *count);

/* The bytes that content[0, offset) shows (borrowed), for cue readers; OFFSET_END: all that is
 * shown. */
struct bytes node_text_until(const struct node *node, uint32_t offset,
                             const struct tokenizer *tokenizer);

/* Bytes that count towards what its user may store. */
uint64_t node_stored_bytes(const struct node *node);

/* Frees what it holds: is_purged from then on. Nothing may borrow from it. */
void node_purge(struct node *node);

/* Children that readers see: visible and not deleted. */
uint32_t node_child_count(const struct node *node);

/* What a reader sees; the node must be visible. */
struct node_view node_view_of(const struct node *node);

/* The output block for so many tokens. MEMORY. */
MUST_USE enum status node_sampled_create(uint32_t token_count_max, uint32_t token_bytes_max,
                                         uint32_t top_count, struct node_sampled **out);

/* The same for a node that is loaded, with room for so many bytes of text. */
MUST_USE enum status node_sampled_create_sized(uint32_t token_count_max, uint32_t text_bytes_max,
                                               uint32_t top_count, struct node_sampled **out);

/* Bytes that such a block takes. */
uint64_t node_block_bytes(uint32_t token_count_max, uint32_t token_bytes_max, uint32_t top_count);

/* The branch has ended: shrinks the block, if there is memory for that. */
void node_settle(struct node *node);

void node_destroy(struct node *node); /* NULL is fine */

#endif
