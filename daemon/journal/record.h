/* What the journal keeps, one struct a kind of record, and how records travel.
 *
 * Thread: any; plain structs. All bytes and arrays are borrowed: journal_batch_add() copies them,
 * and what is read back is borrowed from the rows that were read (rows.h). The columns of
 * schema.sql say what the fields mean; docs/JOURNAL.md says how to add a kind.
 */
#ifndef PERSONAD_JOURNAL_RECORD_H
#define PERSONAD_JOURNAL_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum { JOURNAL_DIGEST_BYTES = 32 };

enum journal_kind {
    JOURNAL_PERSONA,
    JOURNAL_PROMPT,  /* does nothing where the digest is there already */
    JOURNAL_SESSION, /* with its head */
    JOURNAL_MEMBER,  /* or another name for one that is there */
    JOURNAL_HEAD,
    JOURNAL_STEPS, /* does nothing where the digest is there already */
    JOURNAL_CONTEXT,
    JOURNAL_GIVEN,      /* a whole node: skeleton and content */
    JOURNAL_INTENT,     /* a node that is to be sampled */
    JOURNAL_CHECKPOINT, /* tokens that a node got since the last one */
    JOURNAL_FINISH,     /* its last tokens, and how it ended */
    JOURNAL_KEY,
    JOURNAL_NODE_MARK, /* deleted, purged; purging erases what the node holds */
    JOURNAL_NOTE,      /* replaces the one with that kind, id and name */
    JOURNAL_PREAMBLE,
    JOURNAL_JOINT,
    JOURNAL_AUTHOR_NOTE, /* replaces the one at that place, or takes it away */
    JOURNAL_KIND_COUNT,
};

/* What computes: columns of table origin. */
struct journal_origin {
    uint8_t model_hash[JOURNAL_DIGEST_BYTES];
    struct bytes numerics_id;
};

struct journal_persona {
    uint64_t id, created_us;
    uint32_t version, owner_uid, visibility;
    struct bytes card;
};

struct journal_prompt {
    uint8_t digest[JOURNAL_DIGEST_BYTES];
    uint64_t persona_id, scope;
    uint32_t format, end_side, is_open;
    struct bytes character, user, post_history;
    struct bytes ids;       /* [u32] */
    struct bytes greetings; /* for each: count u32, ids [u32] */
    struct bytes inserts;   /* session/prompt_insert.h */
};

struct journal_session {
    uint64_t id, seed, created_us, head_node;
    uint32_t owner_uid, context_tokens, head_offset, group_mode;
    struct bytes label;
    struct journal_origin origin;
};

struct journal_member {
    uint64_t session_id;
    uint32_t speaker;
    struct bytes name;
    struct bytes prompt_digest; /* empty: a human */
};

struct journal_preamble {
    uint64_t session_id;
    uint32_t speaker;
    struct bytes system, examples;
};

struct journal_joint {
    uint64_t session_id;
    uint32_t member_count;
    uint8_t prompt_digest[JOURNAL_DIGEST_BYTES];
};

struct journal_author_note {
    uint64_t session_id, node_id, created_us; /* node 0: the root */
    uint32_t node_offset, depth, role;
    bool is_removed;
    struct bytes text;
};

struct journal_head {
    uint64_t session_id, node_id;
    uint32_t offset;
};

struct journal_steps {
    uint8_t digest[JOURNAL_DIGEST_BYTES];
    struct bytes sampler, cues;
};

struct journal_context {
    uint64_t id, session_id, base_id; /* base 0: none */
    uint32_t base_count, speaker, token_count, first_turn, scope_token_count;
    uint8_t prompt_digest[JOURNAL_DIGEST_BYTES];
    struct bytes segments;
};

enum {
    JOURNAL_NODE_OPENS_TURN = 1,
    JOURNAL_NODE_GREETING = 2,
    JOURNAL_NODE_DELETED = 4,
    JOURNAL_NODE_PURGED = 8,
};

/* The skeleton of a node. */
struct journal_node {
    uint64_t id, session_id, parent_id; /* parent 0: the root */
    uint64_t created_us;
    uint32_t parent_offset, ordinal, speaker, origin, flags;
};

struct journal_given {
    struct journal_node node;
    uint32_t finish;
    uint64_t original;      /* 0: none */
    struct bytes ids, text; /* ids: [u32] */
};

struct journal_intent {
    struct journal_node node;
    uint64_t seed, context_id;
    uint32_t room, top_count;
    uint8_t steps_digest[JOURNAL_DIGEST_BYTES];
    struct journal_origin origin;
};

/* A stretch of a node's tokens, as the arrays of struct branch_output hold them. */
struct journal_chunk {
    uint32_t first, count;
    struct bytes tokens, logprobs, logprobs_sampler, entropies, text_ends, tops, text;
};

struct journal_checkpoint {
    uint64_t node_id;
    struct journal_chunk chunk; /* count may be 0 */
    uint32_t released_count, released_bytes;
};

struct journal_finish {
    uint64_t node_id, finished_us;
    struct journal_chunk chunk; /* count may be 0 */
    uint32_t finish, kept, content_bytes, cue_pattern;
    uint32_t cached_count, computed_count, error_status;
    uint64_t queued_ns, first_token_ns, last_token_ns;
    struct bytes tail; /* [u32] */
    struct bytes error_text;
};

struct journal_key {
    uint32_t uid, request;
    uint64_t session_id;
    struct bytes key;
    struct bytes nodes; /* [u64] */
};

struct journal_node_mark {
    uint64_t node_id;
    uint32_t flags; /* JOURNAL_NODE_DELETED, JOURNAL_NODE_PURGED */
};

enum journal_note_kind {
    JOURNAL_NOTE_NODE = 0,
    JOURNAL_NOTE_SESSION = 1,
    JOURNAL_NOTE_PERSONA = 2,
    JOURNAL_NOTE_BOOKMARK = 3,
};

/* FROM_FILE: a persona that came from a file of the daemon's folder. */
enum { JOURNAL_NOTE_DELETED = 1, JOURNAL_NOTE_PURGED = 2, JOURNAL_NOTE_FROM_FILE = 4 };

/* The label of a purged session that is being imported: a start erases what there is of it. */
#define JOURNAL_IMPORTING "importing"

/* A bookmark that was taken away is a deleted one. A purged session's content is erased. */
struct journal_note {
    uint32_t kind, flags, node_offset;
    uint64_t id, node_id, created_us;
    struct bytes name, label;
};

struct journal_record {
    enum journal_kind kind;
    union {
        struct journal_persona persona;
        struct journal_prompt prompt;
        struct journal_session session;
        struct journal_member member;
        struct journal_head head;
        struct journal_steps steps;
        struct journal_context context;
        struct journal_given given;
        struct journal_intent intent;
        struct journal_checkpoint checkpoint;
        struct journal_finish finish;
        struct journal_key key;
        struct journal_node_mark node_mark;
        struct journal_note note;
        struct journal_preamble preamble;
        struct journal_joint joint;
        struct journal_author_note author_note;
    } u;
};

#endif
