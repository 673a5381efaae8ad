/* Client keys: a repeat of a changing request by the same user gives the same nodes.
 *
 * Thread: loop. A key is remembered from the moment its request has taken effect, with what the
 * request made: the nodes, or the session. It is forgotten if that could not be stored. The journal
 * keeps it in the same commit as what was made.
 */
#ifndef PERSONAD_SESSION_KEY_H
#define PERSONAD_SESSION_KEY_H

#include "session/state.h"

struct key {
    uint32_t uid;
    struct bytes text; /* owned */
    enum request_type type;
    uint64_t session_id;
    uint32_t node_count;
    uint64_t *nodes; /* owned array of ids */
};

/* NULL when the key is empty or new. */
struct key *key_find(const struct store *store, uint32_t uid, struct bytes text);

/* An entry that is not remembered yet. An empty key gives NULL. LIMIT, MEMORY. */
MUST_USE enum status key_create(const struct store *store, uint32_t uid, struct bytes text,
                                uint32_t node_count, struct error *error, struct key **out);

/* Reserves its place, so that nothing can fail later; nodes are filled in by the caller. */
MUST_USE enum status key_remember(struct store *store, struct key *key, struct error *error);
void key_forget(struct store *store, uint32_t uid, struct bytes text);
/* Those that made the session, or nodes in it. */
void key_forget_session(struct store *store, const struct session *session);
void key_destroy(struct key *key); /* NULL is fine */

#endif
