/* What the store's modules share: personas, prompts, sessions, nodes, users, and their limits.
 *
 * Thread: loop. Everything here is owned by the store and lives until store_destroy(), but for
 * prompts, which are counted shares of sessions. Personas and sessions lie in arrays by ascending
 * id; nodes are found through a table. Ids are never reused.
 */
#ifndef PERSONAD_SESSION_STATE_H
#define PERSONAD_SESSION_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/table.h"
#include "limits.h"
#include "session/encoder.h"
#include "session/persona.h"
#include "session/prompt.h"
#include "session/store.h"
#include "session/template.h"
#include "session/tree.h"

/* What one system user has in hand. */
struct user {
    uint32_t uid;
    uint32_t branch_count;
    uint32_t session_count;
    uint32_t expansion_count;
    uint64_t output_bytes;  /* blocks of branches that are alive */
    uint64_t content_bytes; /* cards, given texts, settled nodes */
};

enum { ABSENT_COUNT = 64 };

struct id_array {
    void **items; /* owned array */
    uint32_t count;
    uint32_t capacity;
};

struct transfer;

struct store {
    struct store_settings settings; /* borrowed parts */
    struct encoder encoder;         /* owned */
    struct template template;       /* of the model */
    enum template_format format;    /* as recognised */
    struct id_array personas;       /* struct persona, owned */
    struct id_array built_in;       /* of these, those from files, as they were loaded */
    struct id_array sessions;       /* struct session, owned */
    struct table nodes;             /* id -> struct node, those in trees */
    struct table prompts;           /* scope -> struct prompt */
    struct table users;             /* uid + 1 -> struct user, owned */
    struct table keys;              /* hash -> struct key, owned (key.h) */
    struct table expansions;        /* id -> struct expansion, owned (expansion.h) */
    uint64_t last_expansion_id;
    uint64_t expansions_checked_ns;
    uint64_t last_persona_id, last_session_id, last_node_id, last_group;
    struct node *slots[BRANCH_COUNT_MAX]; /* the branches that are lent out */
    struct look *looks[BRANCH_COUNT_MAX]; /* the looks, in slots of the same stock (look.h) */
    uint32_t free_slots[BRANCH_COUNT_MAX];
    uint32_t free_slot_count;
    uint32_t pending_count; /* answers that wait for a commit */
    struct table tickets;   /* ticket -> struct pending, of answers that wait for one batch */
    uint64_t last_ticket;
    uint64_t resident_bytes;             /* of all trees */
    uint32_t look_count;                 /* lent */
    uint64_t held_until_ns;              /* no tree is let go before */
    uint32_t trim_at;                    /* where the look for trees that rest goes on */
    uint64_t absent_nodes[ABSENT_COUNT]; /* asked for lately, and not there */
    uint32_t absent_at;
    struct transfer *transfers[TRANSFER_COUNT_MAX]; /* owned; NULL: free (transfer.h) */
    uint64_t last_transfer_id;
    uint32_t transfer_at; /* whose turn it is to be made, modulo their number */
    uint64_t park_checked_ns;
    uint64_t started_ns;
    bool is_stopping;
};

/* MEMORY. */
MUST_USE enum status state_push(struct id_array *array, void *item);

struct persona *state_persona_find(const struct store *store, uint64_t id);
struct session *state_session_find(const struct store *store, uint64_t id);

/* The index of the first item whose id is above `after`. */
uint32_t state_persona_index(const struct store *store, uint64_t after);
uint32_t state_session_index(const struct store *store, uint64_t after);

/* NOT_FOUND, DENIED. */
MUST_USE enum status state_session_open(const struct store *store, uint64_t id, uint32_t uid,
                                        struct error *error, struct session **out);
MUST_USE enum status state_node_open(const struct store *store, uint64_t id, uint32_t uid,
                                     struct error *error, struct node **out);

/* A position of that session, checked; absent: the session's head. What is deleted, and what hangs
 * below it, is no place: NOT_FOUND. */
MUST_USE enum status state_place(const struct store *store, struct session *session,
                                 bool has_position, struct position position, struct error *error,
                                 struct place *out);

/* The same; deleted: there too. */
MUST_USE enum status state_place_any(const struct store *store, struct session *session,
                                     bool has_position, struct position position, bool deleted,
                                     struct error *error, struct place *out);

/* Where the session's reader is, also while its tree is not in memory. */
struct position state_head_position(const struct session *session);

/* The session's head as a place. */
struct place state_head(const struct session *session);

/* A head that stands in what is deleted goes to where the deleted node hangs. */
void state_head_leave(struct session *session);

/* LIMIT past USER_COUNT_MAX. */
MUST_USE enum status state_user(struct store *store, uint32_t uid, struct error *error,
                                struct user **out);

/* A node's bytes come or go: counted for its owner and for all. */
void state_account(struct store *store, struct node *node, bool is_added);

/* The same for so many bytes of a tree; what goes is given as 0 - bytes. */
void state_account_bytes(struct store *store, struct session *session, uint64_t bytes);

/* Room for so many bytes of content, or LIMIT. */
MUST_USE enum status state_content_check(const struct user *user, uint64_t bytes,
                                         struct error *error);

/* A prompt equal to the one at hand, or that one; the share is the caller's. Takes it over. */
MUST_USE enum status state_prompt_share(struct store *store, struct prompt *made,
                                        struct error *error, struct prompt **out);
void state_prompt_release(void *context, struct prompt *prompt);

#endif
