/* Expansions: likely continuations of a place, as an overlay in memory that is no part of the
 * session.
 *
 * Thread: loop. The store owns them, by an id that is never used again. Expand (expand.h) makes one
 * and adds nodes while is_going; Keep (keep.h) reads it. One that is not going is forgotten when
 * its connection closes, when nobody has named it for EXPANSION_IDLE_MS_MAX (at the next turn of
 * the store after that), when what was said in its session is purged, and when its user needs room
 * for a newer one: EXPANSION_PER_USER_COUNT_MAX of EXPAND_NODE_COUNT_MAX nodes bound its bytes.
 */
#ifndef PERSONAD_SESSION_EXPANSION_H
#define PERSONAD_SESSION_EXPANSION_H

#include <stdbool.h>
#include <stdint.h>

#include "session/id_list.h"
#include "session/state.h"

/* Number n, from 1, is entry n - 1 of the array; number 0 is the place. */
struct expansion_node {
    double joint_logprob; /* sum over its path */
    uint32_t parent;      /* a smaller number */
    uint32_t token;
    float logprob, entropy;
    bool is_end; /* its token ends the turn */
};

struct expansion {
    uint64_t id;
    uint64_t connection;
    uint32_t uid;
    struct user *user; /* borrowed */
    uint64_t session_id;
    struct position position;
    uint32_t speaker;
    bool opens_turn;
    bool is_going;     /* its job names it */
    bool is_abandoned; /* forget it once it is not going */
    uint64_t used_ns;
    uint32_t node_count_max, node_count;
    struct expansion_node *nodes; /* owned, [node_count_max] */
};

static_assert((uint64_t)EXPANSION_PER_USER_COUNT_MAX * EXPAND_NODE_COUNT_MAX *
                      sizeof(struct expansion_node) <=
                  UINT64_C(8) * 1024 * 1024,
              "as limits.h says");

/* A going one without nodes, at a place that the caller fills in. LIMIT when the user has too many
 * that are going, MEMORY. */
MUST_USE enum status expansion_create(struct store *store, struct user *user, uint64_t connection,
                                      uint32_t node_count_max, struct error *error,
                                      struct expansion **out);

/* NOT_FOUND, DENIED. */
MUST_USE enum status expansion_find(struct store *store, uint64_t id, uint32_t uid,
                                    struct error *error, struct expansion **out);

/* Its session's id, or 0. */
uint64_t expansion_session(const struct store *store, uint64_t id);

/* The tokens from the place to a node, a number from 1. MEMORY. */
MUST_USE enum status expansion_path(const struct expansion *expansion, uint32_t number,
                                    struct id_list *out);

/* It goes no further: from here on it may be forgotten, at once if it was abandoned. */
void expansion_rest(struct store *store, struct expansion *expansion);

void expansion_forget(struct store *store, struct expansion *expansion);
void expansion_forget_connection(struct store *store, uint64_t connection);
void expansion_forget_session(struct store *store, uint64_t session);
void expansion_forget_idle(struct store *store);

/* All of them; for store_destroy(). */
void expansion_finish(struct store *store);

#endif
