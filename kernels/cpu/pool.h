/* The kernels' own thread pool. The calling thread is worker 0.
 *
 * pool_run() shares task_count tasks out dynamically and returns when all are done; which worker
 * ran a task changes no bit of a result. Workers spin briefly, then sleep. Nothing is allocated by
 * run.
 */
#ifndef PERSONAD_KERNELS_CPU_POOL_H
#define PERSONAD_KERNELS_CPU_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct pool;

/* thread_count 0: as many as the affinity mask allows. */
MUST_USE enum status pool_create(uint32_t thread_count, struct pool **out);
void pool_destroy(struct pool *pool);
uint32_t pool_thread_count(const struct pool *pool);

/* Calls run_task(context, task, worker) for each task in [0, task_count); worker is in
 * [0, pool_thread_count). */
void pool_run(struct pool *pool, void (*run_task)(void *context, uint32_t task, uint32_t worker),
              void *context, uint32_t task_count);

/* From now on, between runs: workers with an even index take the first tasks that are left, those
 * with an odd one the last (of up to 65,535), so that what a run of the same rows wrote is near.
 * Else, as at first, all take the first. */
void pool_keep_apart(struct pool *pool, bool is_apart);

/* Nanoseconds on a clock that never steps back: what all times of this backend are read from. */
uint64_t pool_now_ns(void);

/* What runs that more than one worker could share took. */
struct pool_times {
    uint64_t run_count;
    uint64_t run_ns;  /* on the calling thread */
    uint64_t busy_ns; /* in tasks, all workers together */
};

/* Starts (from zero) or ends keeping times; between runs. Not kept, they cost nothing. */
void pool_time(struct pool *pool, bool is_timed);
struct pool_times pool_times(const struct pool *pool);

#endif
