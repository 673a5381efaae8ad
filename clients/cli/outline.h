/* A session's tree as lines of text that stay readable with thousands of nodes.
 *
 * Thread: one. Nodes are fetched by pages, skeleton and text alike, and kept until they are
 * printed. A chain of only children keeps its column; a fork indents its branches:
 *
 *   12 Guide: Good evening. I keep the lamp here...
 *   13 You: Who are you?
 *   |- 14 Guide: Only the keeper.
 *   |  17 You: Since when?
 *   `- 15 Guide: A friend, I hope.           <- head
 */
#ifndef PERSONAD_CLIENTS_CLI_OUTLINE_H
#define PERSONAD_CLIENTS_CLI_OUTLINE_H

#include "cli.h"

/* node 0: the whole tree. children_max: so many branches of a fork are shown, the rest is counted
 * (0: all). CLI_FAILED after a complaint. */
int outline_print(struct cli *cli, uint64_t session, uint64_t node, uint32_t children_max,
                  size_t columns);

#endif
