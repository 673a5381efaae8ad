/* What the modules that fill a loaded tree share.
 *
 * Thread: loop. A filling lives for one load_tree() or one trial (load_trial.h). Its first failure
 * fills its error.
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
    struct table *nodes;       /* borrowed; id -> node: the store's, or a trial's own */
    struct context **contexts; /* owned array of shares; [rows->context_count] */
    struct sampler **samplers; /* likewise; [rows->steps_count] */
    struct cue_list **cues;    /* likewise */
    struct error *error;
    uint32_t phase, at; /* where it goes on */
    uint64_t work;      /* done so far: a unit a row, and one for some tokens of it */
};

enum { FILLING_TOKENS_PER_WORK = 32, FILLING_WORK_ALL = 0x7fffffff };

/* Status and sentence of a row that cannot be right. */
enum status filling_damaged(const struct filling *filling, const char *what, uint64_t id);
enum status filling_out_of_memory(const struct filling *filling);

/* MEMORY as it is, anything else as damage. */
enum status filling_failed(const struct filling *filling, enum status status, const char *what,
                           uint64_t id);

/* Makes a context, once the nodes that it names and the contexts before it are there. */
MUST_USE enum status filling_make_context(struct filling *filling, uint32_t at);

#endif
