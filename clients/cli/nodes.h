/* Nodes of a session, copied out of walks, and where in each other's texts they hang.
 *
 * Thread: one. A place in a tree is an offset in tokens; what a text is cut at is a byte, which the
 * daemon's vocabulary tells.
 */
#ifndef PERSONAD_CLIENTS_CLI_NODES_H
#define PERSONAD_CLIENTS_CLI_NODES_H

#include "cli.h"

struct node_copy {
    uint64_t id, created_us;
    struct personad_position parent;
    size_t above;       /* its parent's index + 1; 0: the root, or none of these */
    size_t parent_byte; /* it hangs behind so many bytes of the parent's text */
    uint32_t speaker;
    bool opens_turn, deleted;
    char *text; /* owned, [text_size] */
    size_t text_size;
    uint32_t *content; /* owned, [content_count] */
    size_t content_count;
};

struct node_slot {
    uint64_t id;
    size_t at;
};

struct node_copies {
    struct node_copy *list; /* owned, parents first */
    size_t count, capacity;
    struct node_slot *slots; /* owned, [count], by id */
};

/* Walks page after page; the walk says of what. CLI_FAILED after a complaint; the copies are to be
 * finished in every case. */
int nodes_read(struct cli *cli, const struct personad_walk_options *walk, struct node_copies *out);

/* The path to that node, 0: to the session's head. *size: bytes of the last node's text that belong
 * to it, which at a head may be fewer than it has. */
int nodes_read_path(struct cli *cli, uint64_t session, uint64_t node, struct node_copies *out,
                    size_t *size);

/* How many bytes of the node's text its first `offset` tokens show. */
int nodes_byte_at(struct cli *cli, const struct node_copy *node, uint32_t offset, size_t *byte);

/* Index + 1; 0: there is none with that id. */
size_t nodes_find(const struct node_copies *nodes, uint64_t id);

void nodes_finish(struct node_copies *nodes); /* zeroed ones are fine */

#endif
