/* What a file leaves to the daemon: tokens of texts, offsets at an end, ordinals.
 *
 * Thread: loop. In the numbers of the file, node by node, a bit at a time.
 */
#ifndef PERSONAD_SESSION_IMPORT_SETTLE_H
#define PERSONAD_SESSION_IMPORT_SETTLE_H

#include "base/table.h"
#include "session/portable.h"
#include "session/state.h"

struct import_settling {
    struct store *store;
    struct portable *portable;
    const struct session *session; /* its cast */
    struct error *error;
    uint32_t *turns;       /* owned, [node_count + 1]: whose the turn is at each node's end */
    struct table siblings; /* parent << 32 | offset -> next ordinal */
    uint32_t at;
    uint64_t work;
};

/* MEMORY. All but the error is borrowed until it is finished. */
MUST_USE enum status import_settling_init(struct import_settling *settling, struct store *store,
                                          struct portable *portable, const struct session *session);
void import_settling_finish(struct import_settling *settling); /* a zeroed one is fine */

/* AGAIN: not all of it yet. BAD_INPUT, LIMIT, UNSUPPORTED: texts of another model; MEMORY. */
MUST_USE enum status import_settle(struct import_settling *settling, uint32_t work,
                                   struct error *error);

#endif
