/* A change of a session's tree: all of it happens, or nothing.
 *
 * Thread: loop. A change is collected (nodes are made, but stand in no tree), and then committed:
 * branches are lent to the engine, nodes are linked, the journal gets one batch, and an answer
 * waits for its commit. What can fail fails before the first visible step.
 *
 *   change_init -> change_give, change_generate ... -> change_commit -> change_finish
 */
#ifndef PERSONAD_SESSION_CHANGE_H
#define PERSONAD_SESSION_CHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "session/generate.h"
#include "session/key.h"
#include "session/pending.h"

struct change {
    struct store *store;
    struct session *session;
    struct error *error;
    struct node **nodes; /* owned until committed; given ones first */
    uint32_t given_count;
    uint32_t count;
    uint32_t count_max;
    struct generation *generation; /* owned until committed */
    struct pending *pending;       /* owned until committed */
    struct key *key;               /* owned until committed */
    struct journal_batch *batch;   /* owned until committed */
};

/* A change that makes at most so many nodes. */
MUST_USE enum status change_init(struct change *change, struct store *store,
                                 struct session *session, uint32_t count_max, struct error *error);

struct change_given {
    struct place place;
    uint32_t speaker;
    bool opens_turn;
    bool is_greeting;
    bool is_expanded;    /* kept from an expansion */
    uint64_t original;   /* of an edited node; 0: it is new */
    const uint32_t *ids; /* copied */
    uint32_t count;
};

/* Adds a given node; *out is where what follows it hangs. */
MUST_USE enum status change_give(struct change *change, const struct change_given *given,
                                 struct place *out);

/* Adds the sampled nodes of a request. After the given ones. */
MUST_USE enum status change_generate(struct change *change, const struct generate_query *query);

/* What the answer is to carry. Borrowed. */
struct change_answer {
    struct reply_to to;
    enum request_type type;
    uint32_t uid;
    struct bytes key;
    const struct request_generation *generation; /* NULL: none */
    struct node *head; /* the session's reader moves to its end; NULL: stays */
};

/* Does it. The answer comes when all is committed. */
MUST_USE enum status change_commit(struct change *change, const struct change_answer *answer);

/* Frees what was not committed. */
void change_finish(struct change *change);

/* The journal's answer for a given node. */
void change_given_committed(struct store *store, struct node *node, enum status status);

#endif
