/* A request that is open on a connection, from its frame to its last reply.
 *
 * Thread: loop. Its connection owns it; it owns its cursors. An exchange that ends has sent exactly
 * one reply with more = false, or its connection is gone.
 */
#ifndef PERSONAD_WIRE_EXCHANGE_H
#define PERSONAD_WIRE_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "wire/cursor.h"
#include "wire/link.h"

struct connection;
struct store;

struct exchange {
    uint64_t id;
    struct connection *connection; /* borrowed */
    struct link cursors;
    uint32_t cursor_count_max; /* reserved when it was opened */
    bool is_following;         /* Done comes when the last cursor has ended */

    /* A Cancel that names this request before its nodes are known waits for them. */
    uint64_t cancelled_by; /* request id; 0: none */

    /* Of a Cancel by request: the nodes that it found, executed when the store is not at work. */
    struct link of_ready; /* in connection.ready */
    uint64_t *nodes;      /* owned */
    uint32_t node_count;
};

/* MEMORY. */
MUST_USE enum status exchange_create(struct connection *connection, uint64_t id,
                                     uint32_t cursor_count_max, struct exchange **out);

/* Its cursors go too, and the store hears that they do. NULL is fine. */
void exchange_destroy(struct exchange *exchange, struct cursor_index *index, struct store *store);

/* A cursor for each node; all of them have news. MEMORY leaves those that were made. */
MUST_USE enum status exchange_follow(struct exchange *exchange, struct cursor_index *index,
                                     struct store *store, const struct follow *follow);

/* Takes one cursor away. */
void exchange_drop(struct cursor *cursor, struct cursor_index *index, struct store *store);

/* Room for node_count more ids in `nodes`. MEMORY. */
MUST_USE enum status exchange_nodes_reserve(struct exchange *exchange, uint32_t node_count);

#endif
