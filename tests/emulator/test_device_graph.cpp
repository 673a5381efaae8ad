/* Goal: a graph does what was captured, with the arguments it was captured with, on whatever their
 * addresses hold when it runs; and the device's double shows who builds on anything else.
 * Method: small kernels under every configuration, work coming at once and late. Planted: a count
 * taken by value when the launch was captured; pinned memory changed, or answers read, before the
 * step that uses them was waited for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/device.h"
#include "tests/emulator/card.h"
#include "tests/emulator/emulator_rig.h"

enum { NUMBER_COUNT = 100, THREADS = 64 };

/* A plan as the card has it, and its answers. */
struct numbers {
    uint32_t count;
    uint32_t at[NUMBER_COUNT];
};

struct graph_rig {
    struct device *device;
    struct device_event *end;
    struct device_graph *graph;
    struct numbers *plan_host, *plan, *sums, *answers_host;
};

/* sums[i] = at[0] + .. + at[i], for i below the count: the captured one, or the plan's. */
static KERNEL void prefix_kernel(const struct numbers *plan, struct numbers *sums,
                                 uint32_t captured, bool by_value)
{
    prim_depend_wait();
    const uint32_t count = by_value ? captured : plan->count;

    for (uint32_t i = PRIM_THREAD; i < count; i += PRIM_THREADS) {
        uint32_t sum = 0;
        for (uint32_t j = 0; j <= i; j++) {
            sum += plan->at[j];
        }
        sums->at[i] = sum;
    }
}

static KERNEL void double_kernel(struct numbers *sums)
{
    prim_depend_wait();
    for (uint32_t i = PRIM_THREAD; i < NUMBER_COUNT; i += PRIM_THREADS) {
        sums->at[i] *= 2;
    }
}

static void rig_open(struct graph_rig *rig, bool by_value)
{
    const uint64_t bytes = sizeof(struct numbers);

    memset(rig, 0, sizeof *rig);
    assert_int_equal(device_open(0, NULL, &rig->device), STATUS_OK);
    assert_int_equal(device_event_create(rig->device, &rig->end), STATUS_OK);
    assert_int_equal(device_pinned_alloc(rig->device, bytes, (void **)&rig->plan_host), STATUS_OK);
    assert_int_equal(device_pinned_alloc(rig->device, bytes, (void **)&rig->answers_host),
                     STATUS_OK);
    assert_int_equal(device_alloc(rig->device, bytes, (void **)&rig->plan), STATUS_OK);
    assert_int_equal(device_alloc(rig->device, bytes, (void **)&rig->sums), STATUS_OK);
    memset(rig->answers_host, 0xff, bytes);
    assert_int_equal(device_upload(rig->device, rig->sums, rig->answers_host, bytes), STATUS_OK);
    assert_int_equal(device_wait(rig->device), STATUS_OK);
    rig->plan_host->count = 3; /* what a bug would remember */
    assert_int_equal(device_capture_begin(rig->device), STATUS_OK);
    assert_int_equal(device_launch<prefix_kernel>(rig->device, 1, 1, THREADS, 0, rig->plan,
                                                  rig->sums, rig->plan_host->count, by_value),
                     STATUS_OK);
    assert_int_equal(device_launch<double_kernel>(rig->device, 1, 1, THREADS, 0, rig->sums),
                     STATUS_OK);
    assert_int_equal(device_download(rig->device, rig->answers_host, rig->sums, bytes), STATUS_OK);
    assert_int_equal(device_capture_end(rig->device, &rig->graph), STATUS_OK);
}

static void rig_close(struct graph_rig *rig)
{
    device_graph_destroy(rig->device, rig->graph);
    device_event_destroy(rig->device, rig->end);
    device_pinned_free(rig->device, rig->plan_host);
    device_pinned_free(rig->device, rig->answers_host);
    device_free(rig->device, rig->plan);
    device_free(rig->device, rig->sums);
    device_close(rig->device);
}

static void rig_submit(struct graph_rig *rig, uint32_t count, uint32_t first)
{
    rig->plan_host->count = count;
    for (uint32_t i = 0; i < NUMBER_COUNT; i++) {
        rig->plan_host->at[i] = first + i;
    }
    assert_int_equal(device_upload(rig->device, rig->plan, rig->plan_host, sizeof(struct numbers)),
                     STATUS_OK);
    assert_int_equal(device_graph_launch(rig->device, rig->graph), STATUS_OK);
    assert_int_equal(device_event_record(rig->device, rig->end), STATUS_OK);
}

static bool answers_are(const struct graph_rig *rig, uint32_t count, uint32_t first)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        sum += first + i;
        if (rig->answers_host->at[i] != 2 * sum) {
            return false;
        }
    }
    return true;
}

static bool run(struct graph_rig *rig, uint32_t count, uint32_t first)
{
    rig_submit(rig, count, first);
    assert_int_equal(device_event_wait(rig->device, rig->end), STATUS_OK);
    return answers_are(rig, count, first);
}

static void a_replay_reads_new_contents_and_a_captured_count_is_seen(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        struct graph_rig rig;

        configure(i);
        rig_open(&rig, false);
        assert_true(run(&rig, 3, 5));
        assert_true(run(&rig, 70, 9));
        assert_true(run(&rig, 1, 2));
        rig_close(&rig);
        rig_open(&rig, true);
        assert_true(run(&rig, 3, 5));
        assert_false(run(&rig, 70, 9));
        rig_close(&rig);
    }
}

static void captured_work_is_not_done_before_its_launch(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        struct numbers sums, untouched;
        struct graph_rig rig;

        configure(i);
        memset(&untouched, 0xff, sizeof untouched);
        rig_open(&rig, false);
        assert_int_equal(device_wait(rig.device), STATUS_OK);
        card_read(rig.device, &sums, rig.sums, sizeof sums);
        assert_int_equal(sums.at[0], untouched.at[0]); /* still as it came */
        rig_close(&rig);
    }
}

static void pinned_memory_that_is_changed_too_early_is_seen(void **state)
{
    (void)state;
    if (!card_is_emulated("pinned memory that is changed before its upload is done")) {
        skip();
    }
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        struct graph_rig rig;

        configure(i);
        rig_open(&rig, false);
        rig_submit(&rig, 4, 1);
        rig.plan_host->at[2] += 100; /* the upload may still be to come */
        assert_int_equal(device_event_wait(rig.device, rig.end), STATUS_OK);
        assert_int_equal(answers_are(&rig, 4, 1), i >= 3);
        rig_close(&rig);
    }
}

static void answers_are_not_there_before_the_wait(void **state)
{
    (void)state;
    if (!card_is_emulated("answers that are read before the wait")) {
        skip();
    }
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        struct graph_rig rig;

        configure(i);
        rig_open(&rig, false);
        rig_submit(&rig, 4, 1);
        assert_false(answers_are(&rig, 4, 1));
        assert_int_equal(device_event_wait(rig.device, rig.end), STATUS_OK);
        assert_true(answers_are(&rig, 4, 1));
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_replay_reads_new_contents_and_a_captured_count_is_seen),
        cmocka_unit_test(captured_work_is_not_done_before_its_launch),
        cmocka_unit_test(pinned_memory_that_is_changed_too_early_is_seen),
        cmocka_unit_test(answers_are_not_there_before_the_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
