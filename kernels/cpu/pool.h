/* The kernels' own thread pool. The calling thread is worker 0.
 *
 * pool_run() shares task_count tasks out dynamically and returns when all are done; which worker
 * ran a task changes no bit of a result. Workers spin briefly, then sleep. Nothing is allocated by
 * run.
 */
#ifndef PERSONAD_KERNELS_CPU_POOL_H
#define PERSONAD_KERNELS_CPU_POOL_H

#include <stdint.h>

#include "base/status.h"

struct pool;

/* task in [0, task_count), worker in [0, pool_thread_count). */
typedef void pool_task(void *context, uint32_t task, uint32_t worker);

/* thread_count 0: as many as the affinity mask allows. */
MUST_USE enum status pool_create(uint32_t thread_count, struct pool **out);
void pool_destroy(struct pool *pool);
uint32_t pool_thread_count(const struct pool *pool);
void pool_run(struct pool *pool, pool_task *task, void *context, uint32_t task_count);

#endif
