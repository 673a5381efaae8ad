/* Goal: the loop and the engine may live on two threads: nothing is lost, nothing changes.
 * Method: one thread steps, the other submits, cancels, parks, reads and takes events, with waits
 * and wake-ups between; each branch is compared with itself alone. The thread sanitizer watches in
 * its build.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/queue.h"
#include "support/engine_rig.h"

enum { BRANCHES = 60 };

struct engine_thread {
    struct engine *engine;
    struct flag *stop;
};

static void *engine_main(void *context)
{
    const struct engine_thread *thread = context;

    while (!flag_is_raised(thread->stop)) {
        if (engine_step(thread->engine) == STATUS_AGAIN) {
            engine_wait(thread->engine, 1000);
        }
    }
    engine_stop(thread->engine);
    return NULL;
}

/* A full inbox is no failure: an engine thread that gets no processor has not read it yet. */
static void park(struct engine *engine, uint32_t slot, bool parked)
{
    enum status status = STATUS_LIMIT;

    while (status == STATUS_LIMIT) {
        status = engine_park(engine, slot, parked);
    }
    assert_int_equal(status, STATUS_OK);
}

static void test_two_threads_give_the_same_bytes(void **state)
{
    struct engine_rig_settings settings = engine_rig_defaults();
    struct engine_rig_request requests[BRANCHES];
    struct engine_thread thread;
    struct engine_stats stats;
    struct engine_rig rig;
    uint32_t ids[BRANCHES][70];
    uint32_t next = 0;
    pthread_t id;

    (void)state;
    settings.page_count = 60;
    settings.step_slot_count = 2;
    engine_rig_open(&rig, &settings, BRANCHES);
    thread.engine = rig.engine;
    assert_int_equal(flag_create(&thread.stop), STATUS_OK);
    assert_int_equal(pthread_create(&id, NULL, engine_main, &thread), 0);
    for (uint32_t turn = 0; next < BRANCHES || rig.alive_count > 0; turn++) {
        if (next < BRANCHES && rig.alive_count < 12) {
            const struct engine_rig_request request = {.ids = ids[next],
                                                       .count = 10 + next,
                                                       .prompt_count = 8,
                                                       .prompt_scope = 1,
                                                       .session_scope = 10 + next % 5,
                                                       .seed = next,
                                                       .cue = "ab",
                                                       .max_tokens = 40};
            engine_rig_fill(ids[next], 70, next % 5);
            requests[next] = request;
            engine_rig_lend(&rig, &requests[next]);
            next++;
        }
        engine_rig_take(&rig);
        if (turn % 64 == 0 && next > 0) {
            const struct engine_rig_branch *branch = &rig.branches[next - 1];
            park(rig.engine, branch->slot, turn % 128 == 0);
            park(rig.engine, branch->slot, false);
            engine_stats(rig.engine, &stats);
            engine_wake(rig.engine);
        }
        (void)sched_yield(); /* on a busy machine the engine's thread gets its turns, too */
    }
    flag_raise(thread.stop);
    engine_wake(rig.engine);
    assert_int_equal(pthread_join(id, NULL), 0);
    engine_rig_take(&rig);
    assert_int_equal(rig.alive_count, 0);
    for (uint32_t i = 0; i < BRANCHES; i++) {
        engine_rig_assert_as_alone(&rig.branches[i], &requests[i]);
    }
    flag_destroy(thread.stop);
    engine_rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_threads_give_the_same_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
