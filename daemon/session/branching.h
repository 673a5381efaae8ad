/* What the n siblings of one request share, in the form in which the engine borrows it.
 *
 * Thread: loop. Immutable between generate_submit() and the end of the last sibling, then freed.
 */
#ifndef PERSONAD_SESSION_BRANCHING_H
#define PERSONAD_SESSION_BRANCHING_H

#include "base/sha256.h"
#include "session/cue_list.h"
#include "session/generate.h"

struct generation {
    struct user *user;         /* borrowed */
    struct reply_to to;        /* whose request it is; none for one that goes on after a start */
    uint32_t token_count_max;  /* of one output block: what is asked for, or the room */
    uint64_t branch_bytes;     /* of one output block */
    uint32_t alive_count;      /* branches lent out */
    bool is_unfollowed;        /* on purpose: never parked */
    struct context *context;   /* acquired */
    struct sampler *sampler;   /* acquired */
    struct cue_list *cue_list; /* acquired */
    struct cue_set *cues;      /* owned */
    uint32_t room;             /* context and reply together, tokens */
    struct branch_run *runs;   /* owned array; ids borrowed, or in `copies` */
    uint32_t run_count;
    struct id_list copies;                         /* owned: tokens of nodes that may still move */
    struct branch_run texts[DRAFT_TEXT_COUNT_MAX]; /* of siblings: drafts come from there */
    uint32_t text_count;
    struct id_list text_ids; /* owned: copies, since a sibling may be purged meanwhile */
    struct buffer lead_in;   /* owned */
    uint8_t context_digest[SHA256_BYTES];
    uint32_t spec_count;
    struct branch_spec specs[]; /* slot, node, seed and output are filled in at submit */
};

MUST_USE enum status branching_create(struct store *store, const struct generate_query *query,
                                      struct error *error, struct generation **out);

/* The same for one node that was sampled before, from what is stored with it: nothing is built
 * again. It goes on behind the tokens that the node has. */
MUST_USE enum status branching_resume(struct store *store, struct node *node, struct error *error,
                                      struct generation **out);
void branching_destroy(struct generation *generation);

#endif
