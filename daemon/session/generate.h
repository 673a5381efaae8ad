/* Branches: what the engine borrows for the n siblings of one request, and what becomes of them.
 *
 * Thread: loop. A generation is shared by siblings: one context, sampler, cue set and list of runs.
 * It lives until the last of its branches has ended. Runs borrow what never moves (prompts, frames,
 * given nodes, settled nodes); tokens of nodes that are not settled yet are copied.
 *
 *   generate_prepare   makes the nodes, unlinked, and everything that the engine will borrow
 *   generate_submit    lends them; the first may be refused, then nothing has happened
 *   generate_take      takes the engine's events: what is shown, and how a node ends
 *   generate_commit    a completion of the journal: now readers may see it
 *
 * A node's tokens are shown from the moment its intent is committed, its end from the moment its
 * finish row is.
 */
#ifndef PERSONAD_SESSION_GENERATE_H
#define PERSONAD_SESSION_GENERATE_H

#include <stdbool.h>
#include <stdint.h>

#include "session/context.h"
#include "session/state.h"

struct generation;

struct generate_query {
    struct session *session;
    struct place place; /* its node may be unlinked still */
    uint32_t speaker;
    bool opens_turn;
    const struct request_generation *request;
};

/* nodes: [request->n], owned by the caller until generate_submit() has succeeded. */
MUST_USE enum status generate_prepare(struct store *store, const struct generate_query *query,
                                      struct error *error, struct generation **out,
                                      struct node **nodes);

/* Frees a generation that was not submitted, and its nodes. NULL is fine. */
void generate_abandon(struct generation *generation, struct node **nodes);

/* Lends all branches. On failure nothing is lent. A later sibling that is refused ends as FAILED.
 */
MUST_USE enum status generate_submit(struct store *store, struct generation *generation,
                                     struct node **nodes, struct error *error);

/* The journal has taken the intent of a node that was submitted, or refused it. */
void generate_intent_given(struct store *store, struct node *node, enum status status);

/* Lends a node that was loaded without an end: it goes on behind the tokens that it has. */
MUST_USE enum status generate_resume(struct store *store, struct node *node, struct error *error);

/* Ends a node that was loaded without an end where it stands: INTERRUPTED. */
void generate_interrupt(struct store *store, struct node *node);

/* Takes all events that are there. */
void generate_take(struct store *store);

/* The journal's answer for a sampled node. */
void generate_commit(struct store *store, struct node *node, enum journal_told told,
                     enum status status);

/* Asks the engine to end it. Harmless when it has ended. */
void generate_cancel(struct store *store, struct node *node);

/* The same for all that this request made. */
void generate_cancel_request(struct store *store, struct reply_to to);

/* Parks branches that nobody has followed for BRANCH_UNFOLLOWED_MS_MAX. */
void generate_park_unfollowed(struct store *store);
void generate_follow(struct store *store, struct node *node);
void generate_unfollow(struct store *store, struct node *node);

/* Frees what is still lent; for store_destroy() after the engine has stopped. */
void generate_finish(struct store *store);

#endif
