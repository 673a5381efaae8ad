/* What the parts of the engine share: engine.c coordinates, admission, pressure, compose and settle
 * work on this. Thread: engine, but for what engine.h says about the loop.
 */
#ifndef PERSONAD_SCHEDULE_ENGINE_STATE_H
#define PERSONAD_SCHEDULE_ENGINE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/queue.h"
#include "limits.h"
#include "schedule/branch_table.h"
#include "schedule/engine.h"
#include "schedule/fairness.h"
#include "schedule/kv_pages.h"
#include "schedule/kv_tree.h"
#include "schedule/pace.h"
#include "schedule/plan.h"
#include "schedule/span.h"
#include "text/byte_mask.h"

enum { ENTRY_NONE = 0xffffffffu };

/* What a step does for one branch. */
struct step_entry {
    uint32_t branch;
    uint32_t row_first, row_count; /* rows of the plan; none for a sibling that joined */
    uint32_t kv_after;             /* positions computed once the step has ended */
    uint32_t sample;               /* the first one's index in the plan's samples, or ENTRY_NONE */
    uint32_t sample_count;         /* 1, or the marks of a look, or 1 + drafts */
    uint32_t draft_count;          /* rows and samples behind the first that are drafts */
    uint32_t leader;               /* the entry whose logits row this one samples, or ENTRY_NONE */
    enum status failure;           /* why nothing of it counts, or OK */
};

/* One step on its way. */
struct engine_flight {
    struct plan_builder *builder; /* owned */
    struct step_entry *entries;   /* owned, [2 * running_count_max] */
    uint32_t entry_count;
    uint32_t row_count;
    uint32_t decode_row_count;
    uint32_t sample_count;
    uint32_t *masks; /* owned: bit sets of the vocabulary, [running_count_max] */
    uint32_t mask_count;
    uint32_t ticket;
    const struct plan *plan; /* the builder's, while it is on its way */
    bool reads_rows;         /* logits are read back: no later step may begin before it has ended */
    uint64_t number;         /* steps are numbered from 1 */
};

/* See prescribe.h. */
struct prescribe {
    struct byte_mask *mask; /* owned */
    uint32_t *all;          /* owned: every token */
    uint8_t *text;          /* owned: scratch */
};

/* See speculate.h. */
struct speculate {
    uint32_t *ids;          /* owned: [DRAFT_PATH_TOKENS], scratch */
    uint32_t room_rows;     /* of this step, for drafts */
    uint32_t room_partials; /* likewise */
    uint32_t branch_count;  /* that decode in this step */
    uint32_t branches_left; /* of them, that have not been asked yet */
};

struct engine {
    struct engine_settings settings; /* what it points at is borrowed */
    uint32_t flight_count_max;       /* step slots of the backend */
    /* owned */
    struct queue *inbox;
    struct board *outbox;
    struct board *stats_board;
    struct kv_pages *pages;
    struct kv_tree *tree;
    struct branch_table table;
    struct fairness fairness;
    struct prescribe prescribe;
    struct speculate speculate;
    struct pace pace;
    struct engine_flight flights[BACKEND_STEP_SLOT_COUNT];
    uint32_t *scratch_pages;    /* [span_page_count_max]: a match at admission */
    uint32_t *scratch_branches; /* [running_count_max]: an order of branches */
    uint64_t *tried;            /* [BRANCH_COUNT_MAX]: admission round that has seen a branch */
    /* the rest */
    uint32_t flight_first; /* the oldest step on its way */
    uint32_t flight_count;
    uint64_t step_end_ns;           /* of the last one; 0: the forward is at rest */
    uint64_t step_number;           /* last one given */
    uint64_t admission_round;       /* one a step */
    struct engine_stats stats;      /* engine thread */
    struct engine_stats stats_seen; /* loop thread */
    void (*on_events)(void *context);
    void *on_events_context;
    bool has_posted; /* since on_events was called last */
    bool is_stopping;
    bool is_device_lost;    /* no step can be submitted before a restart */
    uint32_t restart_count; /* since the last good step */
};

#endif
