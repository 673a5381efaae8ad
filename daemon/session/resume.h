/* Nodes that a stop or a crash has left without an end.
 *
 * Thread: loop. A node goes on behind its last checkpoint and ends with the same bytes, since it is
 * computed from what is stored with it. Under another model or other arithmetic that would not be
 * so: there it ends as INTERRUPTED at the checkpoint, never with other bytes.
 */
#ifndef PERSONAD_SESSION_RESUME_H
#define PERSONAD_SESSION_RESUME_H

#include "session/state.h"

/* True when it goes on; else it has got its end, or the journal refuses that. */
bool resume_node(struct store *store, struct node *node);

#endif
