/* A tree of likely continuations, as people see it, and how its nodes are named.
 *
 * Thread: one. A path names a node by ranks from the place on: "1" is the likeliest token there,
 * "1.2" the second likeliest behind it. Paths are the same as long as place and width are.
 */
#ifndef PERSONAD_CLIENTS_CLI_EXPAND_H
#define PERSONAD_CLIENTS_CLI_EXPAND_H

#include "cli.h"

/* The parents of an expansion's nodes: what outlives the next call. */
struct expand_shape {
    uint64_t id;
    uint32_t *parents; /* owned; of number n at n - 1 */
    size_t count;
};

/* Takes the place of what was there. False: out of memory. */
bool expand_shape_take(struct expand_shape *shape, const struct personad_expansion *seen);
void expand_shape_finish(struct expand_shape *shape);

/* The number of the node at a path; 0 where there is none. */
uint32_t expand_find(const struct expand_shape *shape, const char *path);

/* For people: a line a node, runs of single tokens on one. False: out of memory. */
bool expand_print(FILE *file, const struct personad_expansion *seen);

/* One object a line, every node. False: out of memory. */
bool expand_print_json(FILE *file, const struct personad_expansion *seen);

#endif
