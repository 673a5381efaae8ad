/* Looks: numbers along contexts that are all known, computed by the engine and stored nowhere.
 *
 * Thread: loop. A job is one request; it owns its looks, which are lent to the engine like branches
 * and take slots from the same stock. A look copies the ids of its context, so that whatever
 * happens to the nodes meanwhile does not matter.
 *
 *   look_create -> look_lend -> (events) -> job->on_end -> look_destroy
 *
 * A job's struct begins with a struct look_job. It is freed by its own on_end, or by look_finish().
 */
#ifndef PERSONAD_SESSION_LOOK_H
#define PERSONAD_SESSION_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "session/context.h"
#include "session/state.h"

struct look_job {
    struct reply_to to;
    enum request_type type;
    uint32_t uid;
    struct user *user; /* borrowed */
    uint32_t lent_count;
    bool is_failing;    /* its looks were asked to end */
    bool is_cancelled;  /* by a request */
    struct error error; /* of the first look that failed; status OK: none has */

    /* A look of it has ended, and is the job's own again. */
    void (*on_end)(struct store *store, struct look_job *job, struct look *look);
    void (*destroy)(struct look_job *job); /* nothing is lent */
};

struct look {
    struct look_job *job; /* borrowed */
    uint32_t index;       /* the job's own number for it */
    struct branch_spec spec;
    struct branch_output output;
    struct branch_event event;
    void *block; /* owned: the output's arrays, but for rows */
    uint64_t block_bytes;
    uint32_t *ids;             /* owned */
    struct branch_run *runs;   /* owned */
    struct branch_mark *marks; /* owned; filled in by the job before it lends the look */
    struct sampler *sampler;   /* acquired, or NULL */
};

struct look_query {
    const struct session *session;
    const struct context *context;
    const uint32_t *ids;  /* the context's ids, which outlive the look; NULL: it copies them */
    const uint32_t *more; /* ids behind the context; copied */
    uint32_t more_count;
    uint32_t mark_count;
    uint32_t top_count;
    uint32_t row_width; /* the vocabulary's count where whole rows are wanted; 0: none */
    enum branch_priority priority;
    bool is_secret; /* shares no KV: reads none, leaves none */

    /* The marks are a node's sampled tokens: also draw. */
    struct sampler *sampler; /* NULL: do not */
    uint64_t seed;
    uint64_t node;
};

/* Room for the marks, and everything that the engine will borrow. MEMORY. */
MUST_USE enum status look_create(struct look_job *job, const struct look_query *query,
                                 struct error *error, struct look **out);

/* Leaves the context's first `count` ids alone. */
void look_cut(struct look *look, uint32_t count);
void look_destroy(struct look *look); /* not lent; NULL is fine */

/* Slots and memory for `count` more looks of the user, or LIMIT. */
MUST_USE enum status look_check(const struct store *store, const struct user *user, uint32_t count,
                                struct error *error);
MUST_USE enum status look_lend(struct store *store, struct look *look, struct error *error);

/* An event of the slot of a look. */
void look_take(struct store *store, uint32_t slot, const struct branch_event *event);

/* Asks the engine to end it. */
void look_cancel(struct store *store, const struct look *look);

/* Ends the looks of that request, if it has any; its job then answers. */
void look_cancel_request(struct store *store, struct reply_to to);

/* Frees what is still lent, and its jobs; for store_destroy() after the engine has stopped. */
void look_finish(struct store *store);

/* ---- where a look stands ---- */

/* A place of look_place, checked as Generate checks it. */
struct look_stand {
    struct session *session;
    struct place place;
    uint32_t speaker;
    bool opens_turn;
};

MUST_USE enum status look_stand_open(struct store *store, uint32_t uid,
                                     const struct look_place *asked, struct error *error,
                                     struct look_stand *out);

/* CONFLICT where another model made the session: its tokens are not this one's. */
MUST_USE enum status look_check_session(const struct session *session, struct error *error);

/* The context of a reply there; the share is the caller's. */
MUST_USE enum status look_stand_context(struct store *store, const struct look_stand *stand,
                                        struct error *error, struct context **out);

/* NOT_FOUND where the vocabulary has no such token. */
MUST_USE enum status look_check_token(const struct store *store, uint32_t token,
                                      struct error *error);

/* Nothing is lent: destroys the job. All lent looks of `looks` are asked to end first, and the job
 * is answered with its error when they have. */
void look_job_fail(struct store *store, struct look_job *job, struct look *const *looks,
                   uint32_t look_count);

#endif
