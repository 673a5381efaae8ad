/* A backend whose plans or results are bent on their way, so that just one property of invariance
 * is broken: for the twins that must be caught.
 *
 * Thread: one; what was bent last holds for all that are bent.
 */
#ifndef PERSONAD_TESTS_SUPPORT_BENT_OPS_H
#define PERSONAD_TESTS_SUPPORT_BENT_OPS_H

#include "kernels/backend.h"

enum bent {
    BENT_NOTHING,
    BENT_BY_COMPANY, /* a draw depends on how many share the step */
    BENT_CHUNK_END,  /* the last row of a stretch of prefill keeps nothing in the KV */
    BENT_PAGE,       /* a later step reads another page for its first one */
    BENT_SHARED,     /* the same where a reply begins behind pages that were there */
    BENT_BY_THREADS, /* a sum depends on the number of threads */
};

/* The calls of `ops`, bent. With BENT_NOTHING they are the same. */
struct backend_ops bent_ops(const struct backend_ops *ops, enum bent bent, uint32_t thread_count);

#endif
