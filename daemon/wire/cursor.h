/* Streams: a cursor is how far one request has read one node, while it grows or later.
 *
 * Thread: loop. The index owns nothing but its lists: the exchange that a cursor belongs to creates
 * and destroys it. A cursor never holds text, so a reader that is slow costs its place and nothing
 * else; the node goes on.
 */
#ifndef PERSONAD_WIRE_CURSOR_H
#define PERSONAD_WIRE_CURSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"
#include "base/table.h"
#include "session/request.h"
#include "wire/link.h"

struct exchange;

/* All cursors of one node. */
struct cursor_node {
    uint64_t id;
    struct link cursors;
};

struct cursor_index {
    struct table nodes; /* node id -> struct cursor_node */
};

struct cursor {
    struct link of_node;     /* in cursor_node.cursors */
    struct link of_exchange; /* in exchange.cursors */
    struct link of_news;     /* in connection.news, while there may be something to send */
    struct cursor_node *node;
    struct exchange *exchange; /* borrowed */
    enum delivery delivery;
    bool numbers;

    /* what was sent, or was read before */
    uint32_t token_count, byte_count, number_count;
};

void cursor_index_init(struct cursor_index *index);

/* All cursors are gone by then. */
void cursor_index_finish(struct cursor_index *index);

/* NULL when nobody reads the node. */
struct cursor_node *cursor_index_find(const struct cursor_index *index, uint64_t node);

/* A cursor of follow->nodes[i]; it joins the node's list, no other. MEMORY. */
MUST_USE enum status cursor_create(struct cursor_index *index, const struct follow *follow,
                                   uint32_t i, struct cursor **out);

/* Leaves all lists. NULL is fine. */
void cursor_destroy(struct cursor_index *index, struct cursor *cursor);

/* Appends the next reply of the stream, one frame, to `out`. AGAIN: nothing new. ended: it was the
 * node's last. MEMORY or LIMIT as the codec. */
MUST_USE enum status cursor_write(struct cursor *cursor, const struct node_view *view,
                                  uint64_t request, struct buffer *out, bool *ended);

#endif
