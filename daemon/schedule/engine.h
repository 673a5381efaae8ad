/* The engine: branches in, tokens out, one batch a step.
 *
 * Threads: engine_create/destroy before and after the engine thread lives; engine_submit, _cancel,
 * _park, _release_scope, _event_take, _stats on the loop thread; engine_step and engine_wait on the
 * engine thread (or on the same thread in tests and the simulator: nothing here starts a thread).
 * After engine_create nothing allocates.
 *
 * A step: take the inbox -> admit by free pages -> plan (decode rows first, then chunks of prefill,
 * within the time budget) -> forward_submit -> (while it runs) deliver the step before ->
 * forward_wait -> text and cues -> board.
 *
 * Promises kept here: rows of one branch give the same bits whatever shares the step; no page is
 * reused while a submitted step names it; requests that need a span which another branch computes
 * wait for it; preemption takes the youngest, the oldest always finishes; nothing grows without
 * bound.
 */
#ifndef PERSONAD_SCHEDULE_ENGINE_H
#define PERSONAD_SCHEDULE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "model/forward.h"
#include "schedule/branch.h"
#include "text/tokenizer.h"

struct engine;

struct engine_settings {
    struct forward *forward;           /* borrowed: owns weights, KV pool and program */
    const struct tokenizer *tokenizer; /* borrowed */
    uint32_t page_count;               /* KV pages in the forward's pool */
    uint32_t row_count_max;            /* rows a step, as the forward was made */
    uint32_t running_count_max;        /* branches with a backend slot, as the backend was made:
                                          its slot_count and sample_count_max are at least this */
    uint32_t partial_count_max;        /* as the backend was made */
    uint32_t step_budget_ms;           /* STEP_BUDGET_MS */
    uint32_t rest_ms;                  /* with no step for so long, the forward gives back what
                                          only steps use; 0: never */
    uint32_t context_token_count_max;  /* longest context + reply of one branch */
    bool speculates; /* drafts are checked where that pays (speculate.h); changes no bit */

    /* Makes the device anew after it failed and gives a forward of the same model, numerics id,
     * pages and step slots in place of the old one, which is gone whatever the answer. Called on
     * the engine thread. NULL: a failure ends the branches of its step, and that is all. */
    enum status (*restart)(void *context, struct error *error, struct forward **out);
    void *restart_context;
};

MUST_USE enum status engine_create(const struct engine_settings *settings, struct error *error,
                                   struct engine **out);
void engine_destroy(struct engine *engine);

/* Wake-up hook of the loop: called on the engine thread after events were posted. */
void engine_on_events(struct engine *engine, void (*on_ready)(void *context), void *context);

/* Lends spec (borrowed until the final event; not copied). LIMIT when the inbox is full or the
 * context cannot ever fit the pool. */
MUST_USE enum status engine_submit(struct engine *engine, const struct branch_spec *spec,
                                   struct error *error);

/* While it is held the engine sees nothing of what is submitted and asked: so branches that belong
 * together begin in one step. For the span of a loop over engine_submit(). */
void engine_hold(struct engine *engine, bool is_held);

/* Ends the branch as FINISH_CANCELLED at the tokens released so far. Harmless when it has ended. */
MUST_USE enum status engine_cancel(struct engine *engine, uint32_t slot);

/* Parks a branch that nobody follows (its pages may go), or lets it go on. */
MUST_USE enum status engine_park(struct engine *engine, uint32_t slot, bool parked);

/* Forgets the cached KV of a session's or persona's scope (deleted, or its last user is gone). */
MUST_USE enum status engine_release_scope(struct engine *engine, uint64_t scope);

/* The next branch with news. AGAIN when there is none. */
MUST_USE enum status engine_event_take(struct engine *engine, uint32_t *slot,
                                       struct branch_event *event);

/* One step. AGAIN: nothing to do until the inbox wakes it, or until rest_ms have passed. Anything
 * else but OK is a device failure that has already ended the branches it touched; with
 * settings.restart that is so only once two restarts did not help, and the engine goes on. */
MUST_USE enum status engine_step(struct engine *engine);

/* Sleeps until there may be work (or timeout_ms passed). engine_wake() ends it from any thread. */
void engine_wait(struct engine *engine, int timeout_ms);
void engine_wake(struct engine *engine);

/* Ends every branch as FINISH_FAILED/STOPPING (their intents stay). Engine thread. */
void engine_stop(struct engine *engine);

enum { DEVICE_TEXT_BYTES_MAX = 256 };

/* Counters since start, as of the last step. */
struct engine_stats {
    uint64_t step_count, row_count, decode_row_count, prefill_row_count, sample_count;
    uint64_t step_ns;             /* time inside steps */
    uint64_t context_token_count; /* asked for by branches */
    uint64_t context_cached_count, context_computed_count;
    uint64_t drafted_count, accepted_count; /* drafts, and those of them that were drawn */
    uint64_t preemption_count, cancelled_count, finished_count, failed_count;
    uint32_t waiting_count, running_count;
    uint32_t page_count, page_free_count, page_cached_count;
    uint64_t restart_count;                  /* of the device */
    char device_text[DEVICE_TEXT_BYTES_MAX]; /* what failed last, "" if nothing did */
};

void engine_stats(struct engine *engine, struct engine_stats *out);

#endif
