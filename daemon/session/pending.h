/* Answers that wait until nodes are committed.
 *
 * Thread: loop. A pending answer counts the nodes that it waits for: a new node until readers may
 * see it (a sampled one from its intent, a given one from its finish row), or any node until its
 * end is committed (Cancel). When the last one is there the answer goes out and the pending is
 * gone. If a node could not be made durable, the answer is STORAGE.
 */
#ifndef PERSONAD_SESSION_PENDING_H
#define PERSONAD_SESSION_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "session/state.h"

struct pending;

/* One a node and pending. */
struct waiter {
    struct waiter *next;
    struct pending *pending;
    bool for_finish;
};

struct pending {
    struct reply_to to;
    enum request_type type;
    struct session *session; /* SESSION_OPEN */
    enum delivery delivery;  /* SAY, GENERATE */
    bool numbers;
    bool context;            /* with its ids, where the caller may see them */
    struct persona *persona; /* PERSONA_PUT */
    struct position head;    /* HEAD */
    struct bytes key;        /* owned copy: the client key that is forgotten if this fails */
    uint32_t uid;
    uint64_t transfer;  /* SESSION_IMPORT: whose slice it is; 0: a repeat */
    enum status status; /* STORAGE once a node failed */
    uint32_t outstanding;
    uint32_t node_count;
    struct node **nodes;    /* [node_count], in the order of the answer */
    struct waiter *waiters; /* [node_count] */
};

/* Room for so many nodes; not waiting yet. */
MUST_USE enum status pending_create(uint32_t node_count, struct bytes key, struct error *error,
                                    struct pending **out);
void pending_destroy(struct pending *pending); /* before it waits; NULL is fine */

/* What a generation's answer is to carry, made or repeated. NULL: none. */
void pending_ask(struct pending *pending, const struct request_generation *generation);

/* From here on the pending belongs to itself. Answers at once if nothing is outstanding. */
void pending_start(struct store *store, struct pending *pending, bool for_finish);

/* The same for an answer that waits for one batch (record.h). */
void pending_start_ticket(struct store *store, struct pending *pending, uint64_t ticket);
void pending_wake_ticket(struct store *store, uint64_t ticket, enum status status);

/* A node became visible, or finished, or failed before either (status). */
void pending_wake(struct store *store, struct node *node, enum status status);

/* All that still wait are dropped unanswered; for store_destroy(). */
void pending_drop(struct node *node);

#endif
