/* The engine's side of a branch: its state, its tokens, its KV, what the loop was told.
 *
 * Thread: engine. One entry for each slot that the loop may choose, all allocated in create.
 *
 *   FREE -> WAITING -> PREFILL -> DECODE -> DRAINING -> FREE
 *
 *   WAITING   holds nothing; admission decides (a preempted or parked branch comes back here)
 *   PREFILL   has a running slot and pages; rows of known tokens are computed
 *   DECODE    every known token but the last is computed; one row a step
 *   DRAINING  wants to leave (finished, preempted, parked), but submitted steps still name it
 *
 * branch_table_move() is the only writer of `state`.
 */
#ifndef PERSONAD_SCHEDULE_BRANCH_TABLE_H
#define PERSONAD_SCHEDULE_BRANCH_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "schedule/branch.h"
#include "schedule/kv_tree.h"
#include "text/cue.h"

enum branch_state {
    BRANCH_FREE,
    BRANCH_WAITING,
    BRANCH_PREFILL,
    BRANCH_DECODE,
    BRANCH_DRAINING,
    BRANCH_STATE_COUNT,
};

enum { BRANCH_NONE = 0xffffffffu, RUNNING_NONE = 0xffffffffu };

/* What a branch with a running slot holds of the KV pool. */
struct kv_span {
    uint32_t *pages;          /* borrowed from the table: page of positions 16i .. 16i+15 */
    uint32_t *nodes;          /* borrowed: COMPUTING node that this branch fills, or KV_NODE_NONE */
    uint32_t partials[2];     /* COMPUTING partial nodes: the prompt's end, the context's end */
    uint32_t partial_ends[2]; /* positions that must be computed before they are ready */
    uint32_t page_count;
    uint32_t published_count; /* leading pages that stand in the tree, down to the cursor */
    uint32_t settled_count;   /* leading pages whose COMPUTING nodes are settled */
    uint32_t cursor;          /* deepest node on this path, pinned; or KV_NODE_NONE */
    bool is_publishing;       /* pages may enter the tree below the cursor */
    uint32_t copy_from;       /* page to copy from in the next step, held; or KV_PAGE_NONE */
    uint32_t copy_slots;
    uint32_t copy_to; /* index in pages */
};

struct branch {
    const struct branch_spec *spec; /* borrowed until the final event; NULL when FREE */
    enum branch_state state;
    enum branch_finish finish; /* set when it is decided; posted once it has drained */
    bool is_parked;
    bool is_preempting; /* DRAINING leads to WAITING */
    bool is_history_sent;
    uint64_t sequence; /* in the order of submission */
    uint64_t submit_ns;
    uint32_t running;  /* running slot = backend slot, or RUNNING_NONE */
    uint32_t priority; /* spec's, or better while others wait for what it computes */
    uint32_t user_account;
    uint32_t session_account;
    uint32_t passed_count;    /* younger branches admitted while this was the oldest waiting */
    struct kv_ticket wait;    /* the node that it waits for */
    uint32_t pages_wanted;    /* found too few pages: not tried again before so many are there */
    uint32_t steps_in_flight; /* submitted steps that name it */

    uint32_t known_count;   /* tokens known when it was admitted: context and sampled ones */
    uint32_t kv_planned;    /* positions whose KV is stored or will be by submitted steps */
    uint32_t kv_done;       /* the same, by ended steps */
    uint32_t sampled_count; /* known sampled tokens; of a look: answered marks */
    uint32_t planned_count; /* with those that submitted steps will sample */
    uint32_t history_count; /* ids in its slot's history when that was sent */
    uint32_t text_bytes;
    uint32_t draft_count;    /* in flight; a next row waits for what becomes of them */
    bool draft_is_long;      /* the match that they, or the last ones, came from */
    uint32_t draft_rates[2]; /* how often drafts are right, after short and long matches */
    uint32_t draft_next_try; /* sampled tokens before one is tried though it will not pay */
    struct kv_span span;
    struct cue_reader reader;
    struct branch_event event; /* as it will be posted next */

    uint32_t run_index;      /* of the last read context token: reads mostly go forward */
    uint32_t run_start;      /* position of that run's first token */
    uint32_t next, previous; /* list of WAITING branches, oldest first */
};

struct branch_table {
    struct branch *branches; /* owned, [BRANCH_COUNT_MAX] */
    uint32_t *span_pages;    /* owned, [running_count_max][span_page_count_max] */
    uint32_t *span_nodes;    /* owned, the same */
    uint32_t *running;       /* owned: branches with a running slot, oldest first */
    uint32_t *running_free;  /* owned: a stack of running slots */
    uint32_t running_count;
    uint32_t running_count_max;
    uint32_t span_page_count_max;
    uint32_t waiting_first, waiting_last;
    uint32_t waiting_count;
    uint64_t sequence; /* last given */
};

MUST_USE enum status branch_table_init(struct branch_table *table, uint32_t running_count_max,
                                       uint32_t span_page_count_max);
void branch_table_finish(struct branch_table *table);

struct branch *branch_table_at(struct branch_table *table, uint32_t slot);
uint32_t branch_table_slot(const struct branch_table *table, const struct branch *branch);

/* Takes the spec in as WAITING, after all others. */
struct branch *branch_table_open(struct branch_table *table, const struct branch_spec *spec,
                                 uint64_t submit_ns);

/* The only writer of branch->state: CHECKs the edge, keeps the lists. PREFILL and DECODE from
 * WAITING take a running slot (one must be free); FREE and WAITING give it back. */
void branch_table_move(struct branch_table *table, struct branch *branch, enum branch_state to);

/* Copies the ids of positions [from, from + count) of context and sampled tokens. */
void branch_read_ids(struct branch *branch, uint32_t from, uint32_t count, uint32_t *ids);

/* Tokens whose KV the branch may hold that it knows now: the context's, and the sampled ones. */
uint32_t branch_known_count(const struct branch *branch);

/* Most entries of its output: max_tokens, or what the context's room leaves; a look's marks. */
uint32_t branch_sample_count_max(const struct branch_spec *spec);

#endif
