/* Goal: the pool runs every task exactly once before it returns, whatever the number of tasks and
 * threads, also when threads sleep, uses no processor time when idle, and lets a worker keep to
 * one end of the tasks.
 * Method: many short runs of changing length on 1 to 5 threads (more than this machine may have),
 * counting each task; pauses that let the workers sleep; the process's processor time over an idle
 * stretch; failing allocations. The thread sanitizer runs this too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/pool.h"

enum { TASK_COUNT_MAX = 64, RUN_COUNT = 400000 };

struct counts {
    uint32_t thread_count;
    uint32_t plain[TASK_COUNT_MAX]; /* not atomic: pool_run must order them */
    _Atomic uint32_t total;
    _Atomic uint32_t bad_worker_count;
};

static void count_task(void *context, uint32_t task, uint32_t worker)
{
    struct counts *counts = context;

    /* Long enough that the last task of a run is a worker's as often as the caller's. */
    for (volatile uint32_t i = 0; i < 100; i = i + 1) {
    }
    counts->plain[task]++;
    atomic_fetch_add(&counts->total, 1);
    if (worker >= counts->thread_count) {
        atomic_fetch_add(&counts->bad_worker_count, 1);
    }
}

static void sleep_us(long us)
{
    const struct timespec pause = {0, us * 1000};

    nanosleep(&pause, NULL);
}

static void run_and_check(struct pool *pool, struct counts *counts, uint32_t task_count)
{
    memset(counts->plain, 0, sizeof(counts->plain));
    atomic_store(&counts->total, 0);
    pool_run(pool, count_task, counts, task_count);
    assert_int_equal(atomic_load(&counts->total), task_count);
    for (uint32_t i = 0; i < TASK_COUNT_MAX; i++) {
        assert_int_equal(counts->plain[i], i < task_count ? 1 : 0);
    }
}

static void test_every_task_runs_once_in_runs_of_changing_length(void **state)
{
    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads++) {
        struct counts counts = {.thread_count = threads};
        struct pool *pool;

        assert_int_equal(pool_create(threads, &pool), STATUS_OK);
        assert_int_equal(pool_thread_count(pool), threads);
        for (uint32_t run = 0; run < RUN_COUNT / threads; run++) {
            pool_keep_apart(pool, run / 7 % 2 == 1);
            run_and_check(pool, &counts, 2 + run % 3 * 3);
        }
        assert_int_equal(atomic_load(&counts.bad_worker_count), 0);
        pool_destroy(pool);
    }
}

/* Which worker ran each task of a run. */
struct record {
    uint8_t worker[1000];
    uint32_t count;
};

static void record_task(void *context, uint32_t task, uint32_t worker)
{
    struct record *record = context;

    for (volatile uint32_t i = 0; i < 100; i = i + 1) {
    }
    record->worker[task] = (uint8_t)worker;
}

/* Whether all tasks of even workers lie before all of odd ones. */
static bool ends_meet(const struct record *record)
{
    bool odd = false;

    for (uint32_t i = 0; i < record->count; i++) {
        if (odd && record->worker[i] % 2 == 0) {
            return false;
        }
        odd = record->worker[i] % 2 == 1;
    }
    return true;
}

static void test_workers_keep_to_their_end(void **state)
{
    struct record record = {.count = 1000};
    uint32_t shared = 0;
    struct pool *pool;

    (void)state;
    for (uint32_t threads = 2; threads <= 5; threads++) {
        assert_int_equal(pool_create(threads, &pool), STATUS_OK);
        pool_keep_apart(pool, true);
        for (uint32_t i = 0; i < 500; i++) {
            pool_run(pool, record_task, &record, record.count);
            assert_true(ends_meet(&record));
            shared += record.worker[record.count - 1] % 2;
        }
        pool_destroy(pool);
    }
    assert_true(shared > 0); /* an odd worker took something at all */
}

static void test_a_worker_at_the_other_end_is_caught(void **state)
{
    struct record record = {.count = 1000};

    (void)state;
    record.worker[998] = 1;
    record.worker[999] = 3;
    assert_true(ends_meet(&record));
    record.worker[3] = 1;
    assert_false(ends_meet(&record));
}

static void count_long(void *context, uint32_t task, uint32_t worker)
{
    uint8_t *counts = context;

    (void)worker;
    counts[task]++;
}

static void test_runs_too_long_for_two_ends(void **state)
{
    static const uint32_t lengths[] = {65534, 65535, 65536, 65537, 200000};
    uint8_t *counts = memory_alloc(200000, 1);
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_create(3, &pool), STATUS_OK);
    pool_keep_apart(pool, true);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        memset(counts, 0, 200000);
        pool_run(pool, count_long, counts, lengths[i]);
        for (uint32_t k = 0; k < 200000; k++) {
            assert_int_equal(counts[k], k < lengths[i] ? 1 : 0);
        }
    }
    pool_destroy(pool);
    memory_free(counts);
}

static void test_sleeping_workers_wake_up(void **state)
{
    struct counts counts = {.thread_count = 3};
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_create(3, &pool), STATUS_OK);
    for (uint32_t run = 0; run < 200; run++) {
        sleep_us(run % 2 == 0 ? 1000 : 20);
        run_and_check(pool, &counts, 1 + run % TASK_COUNT_MAX);
    }
    pool_destroy(pool);
}

static void slow_task(void *context, uint32_t task, uint32_t worker)
{
    count_task(context, task, worker);
    if (worker != 0) {
        sleep_us(2000); /* the caller runs out of tasks and sleeps */
    }
}

static void test_the_caller_sleeps_until_the_last_task_is_done(void **state)
{
    struct counts counts = {.thread_count = 2};
    struct pool *pool;

    (void)state;
    assert_int_equal(pool_create(2, &pool), STATUS_OK);
    for (uint32_t run = 0; run < 50; run++) {
        atomic_store(&counts.total, 0);
        pool_run(pool, slow_task, &counts, TASK_COUNT_MAX);
        assert_int_equal(atomic_load(&counts.total), TASK_COUNT_MAX);
    }
    pool_destroy(pool);
}

static void test_an_idle_pool_uses_no_processor_time(void **state)
{
    struct counts counts = {.thread_count = 4};
    struct pool *pool;
    clock_t before;

    (void)state;
    assert_int_equal(pool_create(4, &pool), STATUS_OK);
    run_and_check(pool, &counts, TASK_COUNT_MAX);
    sleep_us(50 * 1000); /* let them fall asleep */
    before = clock();
    sleep_us(300 * 1000);
    /* Three spinning workers would use hundreds of milliseconds. */
    assert_true((double)(clock() - before) / CLOCKS_PER_SEC < 0.02);
    pool_destroy(pool);
}

static void test_a_failing_allocation_leaves_nothing_behind(void **state)
{
    const int64_t live = memory_live_count();

    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        struct pool *pool = NULL;
        enum status status;

        memory_fault_set(survivors);
        status = pool_create(3, &pool);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            pool_destroy(pool);
            assert_int_equal(memory_live_count(), live);
            return;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_null(pool);
        assert_int_equal(memory_live_count(), live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_runs_once_in_runs_of_changing_length),
        cmocka_unit_test(test_workers_keep_to_their_end),
        cmocka_unit_test(test_a_worker_at_the_other_end_is_caught),
        cmocka_unit_test(test_runs_too_long_for_two_ends),
        cmocka_unit_test(test_sleeping_workers_wake_up),
        cmocka_unit_test(test_the_caller_sleeps_until_the_last_task_is_done),
        cmocka_unit_test(test_an_idle_pool_uses_no_processor_time),
        cmocka_unit_test(test_a_failing_allocation_leaves_nothing_behind),
    };

    pool_destroy(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
