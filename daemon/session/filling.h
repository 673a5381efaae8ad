/* What the modules that fill a loaded tree share.
 *
 * Thread: loop. A filling lives for one load_tree(). Its first failure fills its error.
 */
#ifndef PERSONAD_SESSION_FILLING_H
#define PERSONAD_SESSION_FILLING_H

#include "journal/rows.h"
#include "session/state.h"

struct cue_list;

/* The filling of one tree. */
struct filling {
    struct store *store;
    struct session *session;
    const struct rows_tree *rows;
    struct context **contexts; /* owned array of shares; [rows->context_count] */
    struct sampler **samplers; /* likewise; [rows->steps_count] */
    struct cue_list **cues;    /* likewise */
    struct error *error;
};

/* Status and sentence of a row that cannot be right. */
enum status filling_damaged(const struct filling *filling, const char *what, uint64_t id);
enum status filling_out_of_memory(const struct filling *filling);

/* MEMORY as it is, anything else as damage. */
enum status filling_failed(const struct filling *filling, enum status status, const char *what,
                           uint64_t id);

/* Makes all contexts, once the nodes that they name are there. */
MUST_USE enum status filling_make_contexts(struct filling *filling);

#endif
