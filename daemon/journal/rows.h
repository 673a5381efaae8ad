/* What is read back: the lists that a start needs, and one session's whole tree.
 *
 * Thread: the journal's, or the one that builds the daemon before the journal thread lives. Trees
 * belong to the caller and travel by pointer; what a visitor is shown is borrowed for its call.
 */
#ifndef PERSONAD_JOURNAL_ROWS_H
#define PERSONAD_JOURNAL_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/status.h"
#include "base/table.h"
#include "journal/record.h"

struct database;

/* What a list of sessions needs of a tree that is not read. */
struct rows_session {
    uint32_t node_count;
    uint32_t head_content_count; /* tokens of the node where the reader is */
};

/* A visitor that answers anything but OK ends the reading with that status. */
struct rows_visitor {
    void *context;
    enum status (*on_persona)(void *context, const struct journal_persona *row,
                              struct error *error);
    enum status (*on_prompt)(void *context, const struct journal_prompt *row, struct error *error);
    enum status (*on_session)(void *context, const struct journal_session *row,
                              const struct rows_session *more, struct error *error);
    enum status (*on_member)(void *context, const struct journal_member *row, struct error *error);
    enum status (*on_preamble)(void *context, const struct journal_preamble *row,
                               struct error *error);
    enum status (*on_joint)(void *context, const struct journal_joint *row, struct error *error);
    enum status (*on_key)(void *context, const struct journal_key *row, struct error *error);
    enum status (*on_note)(void *context, const struct journal_note *row, struct error *error);
    enum status (*on_unfinished)(void *context, uint64_t node_id, uint64_t session_id,
                                 struct error *error);
};

/* All personas, prompts, sessions, members, preambles, joint prompts, client keys, notes, and nodes
 * without an end, in this order (notes of sessions and personas: the others come with a tree); what
 * has an id by ascending id. Purged sessions are left out with all that is theirs. */
MUST_USE enum status rows_read_all(struct database *database, const struct rows_visitor *visitor,
                                   struct error *error);

/* The highest ids ever given. */
struct rows_last {
    uint64_t persona_id, session_id, node_id;
};

MUST_USE enum status rows_read_last(struct database *database, struct error *error,
                                    struct rows_last *out);

/* The session that a node belongs to. NOT_FOUND. */
MUST_USE enum status rows_read_node_session(struct database *database, uint64_t node_id,
                                            struct error *error, uint64_t *out);

/* ---- one session ---- */

struct rows_node {
    struct journal_node node;
    uint32_t finish; /* 0: it is not finished */
    uint64_t finished_us;
    bool is_sampled;
    struct bytes ids, text; /* given */
    uint64_t original;      /* likewise; 0: none */
    bool is_ordinal_open;   /* of a file that does not say it */

    /* sampled */
    uint64_t seed, context_id;
    uint32_t room, top_count, sampled_count, kept, content_bytes, cue_pattern;
    uint32_t cached_count, computed_count, error_status;
    uint64_t queued_ns, first_token_ns, last_token_ns;
    struct bytes steps_digest, tail, error_text, model_hash, numerics_id;
    uint32_t first_chunk, chunk_count; /* in the tree's chunks */
};

struct rows_tree {
    uint64_t session_id;
    struct bytes model_hash, numerics_id; /* of what made the session */
    struct arena arena;                   /* owns all bytes */
    struct rows_node *nodes;              /* owned array, by ascending id: parents first */
    uint32_t node_count, node_capacity;
    struct journal_context *contexts; /* owned array, by ascending id: bases first */
    uint32_t context_count, context_capacity;
    struct journal_steps *steps; /* owned array */
    uint32_t steps_count, steps_capacity;
    struct table steps_places;    /* first bytes of the digest, or what follows -> index + 1 */
    struct journal_chunk *chunks; /* owned array */
    uint32_t chunk_count, chunk_capacity;
    struct journal_note *notes; /* owned array: labels of nodes, bookmarks */
    uint32_t note_count, note_capacity;
    struct journal_author_note *author_notes; /* owned array */
    uint32_t author_note_count, author_note_capacity;
};

/* LIMIT past TREE_BYTES_MAX, MEMORY, STORAGE. */
MUST_USE enum status rows_read_tree(struct database *database, uint64_t session_id,
                                    struct error *error, struct rows_tree **out);
void rows_tree_destroy(struct rows_tree *tree); /* NULL is fine */

/* The index of what has that id or digest; ROWS_NONE: nothing has. */
enum { ROWS_NONE = 0xffffffffu };
uint32_t rows_tree_find_context(const struct rows_tree *tree, uint64_t id);
uint32_t rows_tree_find_steps(const struct rows_tree *tree, struct bytes digest);

/* An empty one, to be filled by hand. What is added is copied, its bytes are borrowed: they belong
 * into the tree's arena. MEMORY. */
MUST_USE enum status rows_tree_create(uint64_t session_id, struct rows_tree **out);
MUST_USE enum status rows_tree_add_node(struct rows_tree *tree, const struct rows_node *node);
MUST_USE enum status rows_tree_add_context(struct rows_tree *tree,
                                           const struct journal_context *context);
MUST_USE enum status rows_tree_add_steps(struct rows_tree *tree, const struct journal_steps *steps);
MUST_USE enum status rows_tree_add_chunk(struct rows_tree *tree, const struct journal_chunk *chunk);
MUST_USE enum status rows_tree_add_note(struct rows_tree *tree, const struct journal_note *note);
MUST_USE enum status rows_tree_add_author_note(struct rows_tree *tree,
                                               const struct journal_author_note *note);

#endif
