/* One 64-bit word holds the run number and how many tasks were taken from either end: a worker
 * claims by compare-and-swap, so that one that wakes up late can never take a task of a run that it
 * did not see.
 *
 * Kept apart, workers of even index take the first tasks, odd ones the last. Where tasks are rows,
 * what one reads was mostly written by that of the same rows in the run before: each half of them
 * stays with one half of the workers and in the caches of their cores. Else all
 * take the first, and weights that are read once are read side by side.
 */
#include "kernels/cpu/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/check.h"
#include "base/memory.h"

enum {
    /* The gap between two operations is a few microseconds: longer than this and it is idleness. */
    SPIN_COUNT = 2000,
    THREAD_COUNT_MAX = 256,
    END_BITS = 16, /* of a count of tasks taken from one end */
    END_TASKS_MAX = (1 << END_BITS) - 1,
};

struct worker {
    struct pool *pool;
    uint32_t index;
    pthread_t thread;
    uint64_t busy_ns; /* its own; read between runs */
};

struct pool {
    uint32_t thread_count;
    uint32_t started_count;
    struct worker *workers; /* owned: [thread_count]; 0 is the caller and has no thread */
    bool is_timed;          /* changes between runs only, as the next */
    bool is_apart;
    uint64_t run_count; /* while timed */
    uint64_t run_ns;

    /* run number << 32 | taken, all from the front; from_ends: run number << 32 | taken from the
     * end << 16 | from the front */
    _Alignas(64) _Atomic uint64_t claim;
    _Alignas(64) _Atomic uint32_t done_count;
    _Alignas(64) _Atomic uint32_t sleeper_count;
    _Atomic uint32_t caller_sleeps;
    _Atomic uint32_t stopping;

    /* Written while no task can be claimed, released and acquired: a worker that reads the next
     * run's values also sees that the run before is closed, so its claim fails. */
    _Atomic(void (*)(void *, uint32_t, uint32_t)) run_task;
    _Atomic(void *) context;
    _Atomic uint32_t task_count;
    _Atomic uint32_t from_ends; /* of at most END_TASKS_MAX tasks */

    pthread_mutex_t mutex;
    pthread_cond_t work;
    pthread_cond_t done;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

uint64_t pool_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The task that a worker takes next, and what the claim becomes by it. False: none is left. */
static bool next_task(uint64_t claim, uint32_t count, bool from_ends, uint32_t worker,
                      uint32_t *task, uint64_t *after)
{
    const uint32_t taken = (uint32_t)claim;
    const uint32_t front = taken & END_TASKS_MAX, end = taken >> END_BITS;

    if (!from_ends) {
        *task = taken;
        *after = claim + 1;
        return taken < count;
    }
    if (worker % 2 == 0) {
        *task = front;
        *after = claim + 1;
    } else {
        *task = count - 1 - end;
        *after = claim + (1u << END_BITS);
    }
    return front + end < count;
}

/* Takes tasks of the run `number` until none is left. */
static void work_on(struct pool *pool, uint32_t number, uint32_t worker)
{
    for (;;) {
        uint64_t word = atomic_load_explicit(&pool->claim, memory_order_acquire);
        void (*const run_task)(void *, uint32_t, uint32_t) =
            atomic_load_explicit(&pool->run_task, memory_order_acquire);
        void *const context = atomic_load_explicit(&pool->context, memory_order_acquire);
        const uint32_t count = atomic_load_explicit(&pool->task_count, memory_order_acquire);
        const bool from_ends = atomic_load_explicit(&pool->from_ends, memory_order_acquire) != 0;
        uint64_t after = 0;
        uint32_t next = 0;

        if ((uint32_t)(word >> 32) != number ||
            !next_task(word, count, from_ends, worker, &next, &after)) {
            return;
        }
        if (!atomic_compare_exchange_weak_explicit(&pool->claim, &word, after, memory_order_acq_rel,
                                                   memory_order_relaxed)) {
            continue;
        }
        const uint64_t begin_ns = pool->is_timed ? pool_now_ns() : 0;
        run_task(context, next, worker);
        if (begin_ns != 0) {
            pool->workers[worker].busy_ns += pool_now_ns() - begin_ns;
        }
        if (atomic_fetch_add(&pool->done_count, 1) + 1 == count &&
            atomic_load(&pool->caller_sleeps) != 0) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->done);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

static uint32_t run_number(struct pool *pool)
{
    return (uint32_t)(atomic_load(&pool->claim) >> 32);
}

/* Waits for a run other than `seen`, or for the end; returns its number. */
static uint32_t wait_for_work(struct pool *pool, uint32_t seen)
{
    uint32_t number;

    for (uint32_t spin = 0; spin < SPIN_COUNT; spin++) {
        number = run_number(pool);
        if (number != seen || atomic_load(&pool->stopping) != 0) {
            return number;
        }
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeper_count, 1);
    for (;;) {
        number = run_number(pool);
        if (number != seen || atomic_load(&pool->stopping) != 0) {
            break;
        }
        pthread_cond_wait(&pool->work, &pool->mutex);
    }
    atomic_fetch_sub(&pool->sleeper_count, 1);
    pthread_mutex_unlock(&pool->mutex);
    return number;
}

static void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    uint32_t seen = 0;

    while (atomic_load(&pool->stopping) == 0) {
        const uint32_t number = wait_for_work(pool, seen);

        if (number != seen) {
            seen = number;
            work_on(pool, number, worker->index);
        }
    }
    return NULL;
}

static uint32_t affinity_count(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        return 1; /* more processors than the set holds: the caller can still name a number */
    }
    return CPU_COUNT(&set) > 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

static enum status start_workers(struct pool *pool)
{
    sigset_t all, before;
    enum status status = STATUS_OK;

    /* Signals belong to the threads that wait for them. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (uint32_t i = 1; i < pool->thread_count; i++) {
        struct worker *worker = &pool->workers[i];

        worker->pool = pool;
        worker->index = i;
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) {
            status = STATUS_MEMORY;
            break;
        }
        pthread_setname_np(worker->thread, "kernels");
        pool->started_count = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

enum status pool_create(uint32_t thread_count, struct pool **out)
{
    struct pool *pool = memory_alloc_aligned(64, 1, sizeof(*pool));
    enum status status = STATUS_MEMORY;

    if (pool == NULL) {
        return STATUS_MEMORY;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, NULL);
    pool->thread_count = thread_count > 0 ? thread_count : affinity_count();
    if (pool->thread_count > THREAD_COUNT_MAX) {
        pool->thread_count = THREAD_COUNT_MAX;
    }
    pool->workers = memory_alloc(pool->thread_count, sizeof(pool->workers[0]));
    if (pool->workers == NULL) {
        goto done;
    }
    status = start_workers(pool);
    if (status != STATUS_OK) {
        goto done;
    }
    *out = pool;
    pool = NULL;
done:
    pool_destroy(pool);
    return status;
}

void pool_destroy(struct pool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stopping, 1);
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (uint32_t i = 1; i <= pool->started_count; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->done);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    memory_free(pool->workers);
    memory_free(pool);
}

uint32_t pool_thread_count(const struct pool *pool)
{
    return pool->thread_count;
}

static void wait_until_done(struct pool *pool, uint32_t task_count)
{
    for (uint32_t spin = 0; spin < SPIN_COUNT; spin++) {
        if (atomic_load(&pool->done_count) == task_count) {
            return;
        }
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_sleeps, 1);
    while (atomic_load(&pool->done_count) != task_count) {
        pthread_cond_wait(&pool->done, &pool->mutex);
    }
    atomic_store(&pool->caller_sleeps, 0);
    pthread_mutex_unlock(&pool->mutex);
}

void pool_run(struct pool *pool, void (*run_task)(void *context, uint32_t task, uint32_t worker),
              void *context, uint32_t task_count)
{
    const uint32_t number = run_number(pool) + 1;

    if (pool->thread_count == 1 || task_count <= 1) {
        for (uint32_t i = 0; i < task_count; i++) {
            run_task(context, i, 0);
        }
        return;
    }
    const uint64_t begin_ns = pool->is_timed ? pool_now_ns() : 0;
    /* Every task of the run before is done. Close it before its count is replaced, or a late worker
     * could claim a task past its end. */
    atomic_store(&pool->claim, (uint64_t)(number - 1) << 32 | UINT32_MAX);
    atomic_store_explicit(&pool->run_task, run_task, memory_order_release);
    atomic_store_explicit(&pool->context, context, memory_order_release);
    atomic_store_explicit(&pool->task_count, task_count, memory_order_release);
    atomic_store_explicit(&pool->from_ends, pool->is_apart && task_count <= END_TASKS_MAX,
                          memory_order_release);
    atomic_store(&pool->done_count, 0);
    atomic_store(&pool->claim, (uint64_t)number << 32);
    if (atomic_load(&pool->sleeper_count) != 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->mutex);
    }
    work_on(pool, number, 0);
    wait_until_done(pool, task_count);
    if (begin_ns != 0) {
        pool->run_ns += pool_now_ns() - begin_ns;
        pool->run_count++;
    }
}

void pool_keep_apart(struct pool *pool, bool is_apart)
{
    pool->is_apart = is_apart;
}

void pool_time(struct pool *pool, bool is_timed)
{
    pool->is_timed = is_timed;
    if (is_timed) {
        pool->run_count = 0;
        pool->run_ns = 0;
        for (uint32_t i = 0; i < pool->thread_count; i++) {
            pool->workers[i].busy_ns = 0;
        }
    }
}

struct pool_times pool_times(const struct pool *pool)
{
    struct pool_times times = {.run_count = pool->run_count, .run_ns = pool->run_ns};

    for (uint32_t i = 0; i < pool->thread_count; i++) {
        times.busy_ns += pool->workers[i].busy_ns;
    }
    return times;
}
