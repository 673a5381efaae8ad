/* A model on a backend and the means to time its steps.
 *
 * Thread: one. The run owns backend, forward and plans, and borrows the model.
 */
#ifndef PERSONAD_BENCH_BENCH_RUN_H
#define PERSONAD_BENCH_BENCH_RUN_H

#include "bench/bench.h"
#include "bench/bench_plan.h"
#include "model/forward.h"

enum { BENCH_PLAN_COUNT = BACKEND_STEP_SLOT_COUNT };

struct bench_run {
    const struct bench_settings *settings;
    const struct model *model;
    struct backend *backend;
    struct forward *forward;
    struct bench_plan *plans[BENCH_PLAN_COUNT]; /* one for each step that may be in flight */
    uint32_t row_count_max;
    uint32_t page_count;
};

/* page_count: wanted; the run has fewer where memory_bytes of the settings hold fewer. */
MUST_USE enum status bench_run_open(struct bench_run *run, const struct bench_settings *settings,
                                    const struct model *model, uint32_t row_count_max,
                                    uint32_t sample_count_max, uint32_t position_max,
                                    uint32_t page_count, struct error *error);
void bench_run_close(struct bench_run *run); /* a zeroed one is fine */

/* Makes plan number `index` in `plan`; NULL when there are no more. */
struct bench_source {
    const struct plan *(*make)(void *context, struct bench_plan *plan, uint32_t index);
    void *context;
};

/* Runs all plans of a source once, several in flight where the backend can; *ms from the first
 * submit to the last answer. DEVICE, or what submit answers; a row fault is DEVICE. */
MUST_USE enum status bench_run_all(struct bench_run *run, const struct bench_source *source,
                                   struct error *error, double *ms);

#endif
