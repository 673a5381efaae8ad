/* What a context has between its turns: lore, the card's note, the author's note, and the
 * instruction after the history.
 *
 * Thread: loop. A pure function of the path, the speaker and what was rendered when the session
 * opened; the result is stored with the context, so nothing of it runs again. A text at depth d
 * stands in front of the d-th turn before the one that is written; depth 0 is right in front of
 * that one; a depth beyond the first turn is behind the prompt. At one place stand, in this order,
 * lore, the card's note, the author's note, the instruction. In a joint group the cards of all
 * personas count, and the instruction of the one that speaks.
 */
#ifndef PERSONAD_SESSION_INSERTING_H
#define PERSONAD_SESSION_INSERTING_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "session/encoder.h"
#include "session/id_list.h"
#include "session/template.h"
#include "session/tree.h"

struct insert {
    enum insert_role role;
    uint32_t turn;      /* in front of which, counted from the root */
    struct id_list ids; /* owned: of the text alone */
};

struct insert_list {
    struct insert *items; /* owned; by turn */
    uint32_t count, capacity;
    uint64_t token_count; /* of all texts */
};

struct inserting {
    const struct session *session;
    struct encoder *encoder;
    const struct tree_path *path;
    const uint32_t *turns; /* [turn_count]: the first step of each */
    uint32_t turn_count;
    uint32_t written;   /* index of the turn that is written; turn_count: it is a new one */
    uint32_t viewpoint; /* through whose eyes */
    bool has_instruction;
    uint64_t *work; /* bytes that may still be searched for keys; set by inserting_collect() */
    struct error *error;
};

/* MEMORY, LIMIT. *out is the caller's to finish, whatever comes out. */
MUST_USE enum status inserting_collect(const struct inserting *asked, struct insert_list *out);

/* Adds a text by its ids, which it takes over when it succeeds. MEMORY. */
MUST_USE enum status inserting_add_ids(const struct inserting *inserting, enum insert_role role,
                                       uint32_t depth, struct id_list *ids,
                                       struct insert_list *out);

void inserting_finish(struct insert_list *list);

#endif
