/* Goal: the emulator gives what prim.cuh promises, and catches kernels that lean on more.
 * Method: small kernels, one a primitive, against plain loops over whole matrices, under every
 * schedule with copies early and late. Kernels with one planted bug each (a barrier left out, a
 * wait too lax, a buffer too short, an order that depends on the batch, lanes that part) must be
 * caught by a fault, by AddressSanitizer in a child process, or by a difference.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

#include "tests/emulator/emulator_rig.h"

#ifdef __SANITIZE_ADDRESS__
#define HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ASAN 1
#endif
#endif

/* ---- places, barriers, what a warp shares ---- */

static void every_thread_of_every_block_runs_once(void **state)
{
    enum { GRID_X = 5, GRID_Y = 3, THREADS = 96 };
    uint8_t seen[GRID_Y][GRID_X][THREADS];

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        memset(seen, 0, sizeof seen);
        uint32_t bad_count = 0;
        auto body = [&] {
            bad_count += PRIM_THREADS != THREADS || PRIM_GRID_X != GRID_X || PRIM_GRID_Y != GRID_Y;
            seen[PRIM_BLOCK_Y][PRIM_BLOCK_X][PRIM_THREAD]++;
        };
        assert_int_equal(launch(GRID_X, GRID_Y, THREADS, 0, body), STATUS_OK);
        assert_int_equal(bad_count, 0);
        for (size_t j = 0; j < sizeof seen; j++) {
            assert_int_equal((&seen[0][0][0])[j], 1);
        }
    }
}

static void shapes_that_no_card_takes_are_refused(void **state)
{
    auto nothing = [] {};

    (void)state;
    configure(0);
    assert_int_equal(launch(1, 1, 33, 0, nothing), STATUS_LIMIT);
    assert_int_equal(launch(1, 1, 0, 0, nothing), STATUS_LIMIT);
    assert_int_equal(launch(1, 1, 1056, 0, nothing), STATUS_LIMIT);
    assert_int_equal(launch(1, 65536, 32, 0, nothing), STATUS_LIMIT);
    assert_int_equal(launch(1, 1, 32, 227 * 1024, nothing), STATUS_OK);
    assert_int_equal(launch(1, 1, 32, 227 * 1024 + 1, nothing), STATUS_LIMIT);
    configure(1);
    assert_int_equal(launch(1, 1, 32, 163 * 1024 + 1, nothing), STATUS_LIMIT);
}

/* out = x turned around within each block; `barrier` false leaves the barrier out. */
static void kernel_reverse(uint32_t *out, const uint32_t *x, bool barrier)
{
    SHARED(uint32_t, held);
    const uint32_t base = PRIM_BLOCK_X * PRIM_THREADS;

    held[PRIM_THREAD] = x[base + PRIM_THREAD];
    if (barrier) {
        prim_sync();
    }
    out[base + PRIM_THREAD] = held[PRIM_THREADS - 1 - PRIM_THREAD];
}

static void a_barrier_parts_before_from_after_and_its_lack_is_seen(void **state)
{
    enum { BLOCKS = 2, THREADS = 128, COUNT = BLOCKS * THREADS };
    uint32_t x[COUNT];
    uint32_t out[COUNT];
    uint32_t wrong_count = 0;

    (void)state;
    for (uint32_t i = 0; i < COUNT; i++) {
        x[i] = random_bits();
    }
    for (uint32_t i = 0; i < 2 * CONFIG_COUNT; i++) {
        const bool barrier = i < CONFIG_COUNT;
        configure(i % CONFIG_COUNT);
        assert_int_equal(launch(BLOCKS, 1, THREADS, THREADS * sizeof *x,
                                [&] { kernel_reverse(out, x, barrier); }),
                         STATUS_OK);
        uint32_t differing = 0;
        for (uint32_t j = 0; j < COUNT; j++) {
            const uint32_t base = j / THREADS * THREADS;
            differing += out[j] != x[base + THREADS - 1 - j % THREADS];
        }
        if (barrier) {
            assert_int_equal(differing, 0);
        } else {
            wrong_count += differing > 0;
        }
    }
    assert_int_equal(wrong_count, CONFIG_COUNT);
}

struct exchanged {
    float sum;
    uint64_t other;
    uint32_t up, votes, rank;
};

static void lanes_exchange_what_the_definition_says(void **state)
{
    enum { THREADS = 64 };
    struct exchanged got[THREADS];
    uint32_t total = 0;

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        auto body = [&] {
            SHARED(uint32_t, count);
            struct exchanged *mine = &got[PRIM_THREAD];
            if (PRIM_THREAD == 0) {
                count[0] = 0;
            }
            prim_sync();
            mine->sum = (float)PRIM_THREAD;
            for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
                mine->sum += prim_shuffle_xor(mine->sum, lanes);
            }
            mine->other = prim_shuffle((uint64_t)PRIM_THREAD << 40, (PRIM_THREAD + 3) % 32);
            mine->up = prim_shuffle_up(PRIM_THREAD, 5);
            mine->votes = prim_ballot(PRIM_THREAD % 3 == 0);
            prim_sync_warp();
            mine->rank = prim_atomic_add_shared(&count[0], PRIM_THREAD);
            prim_sync();
            total = count[0];
        };
        assert_int_equal(launch(1, 1, THREADS, 4, body), STATUS_OK);
        assert_int_equal(total, THREADS * (THREADS - 1) / 2);
        for (uint32_t j = 0; j < THREADS; j++) {
            const uint32_t base = j / 32 * 32;
            uint32_t votes = 0;
            for (uint32_t lane = 0; lane < 32; lane++) {
                votes |= (uint32_t)((base + lane) % 3 == 0) << lane;
            }
            assert_true(got[j].sum == (float)(32 * base + 496));
            assert_true(got[j].other == (uint64_t)(base + (j + 3) % 32) << 40);
            assert_int_equal(got[j].up, j % 32 < 5 ? j : j - 5);
            assert_int_equal(got[j].votes, votes);
        }
    }
}

/* ---- faults ---- */

static void assert_fault(enum status status, const char *first, const char *second)
{
    assert_int_equal(status, STATUS_DEVICE);
    assert_non_null(strstr(emulator_fault_text(), first));
    assert_non_null(strstr(emulator_fault_text(), second));
}

static void threads_that_do_not_meet_are_reported(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        assert_fault(launch(1, 1, 64, 0,
                            [] {
                                if (PRIM_THREAD != 40) {
                                    prim_sync();
                                }
                            }),
                     "waits at prim_sync", "thread 40 has ended");
        assert_fault(launch(1, 1, 32, 0,
                            [] {
                                if (PRIM_THREAD < 31) {
                                    (void)prim_shuffle(1.0f, 0);
                                }
                            }),
                     "waits at a shuffle", "thread 31 has ended");
        assert_fault(launch(1, 1, 32, 0,
                            [] {
                                if (PRIM_THREAD < 16) {
                                    (void)prim_ballot(true);
                                } else {
                                    prim_sync_warp();
                                }
                            }),
                     "lanes part", "waits at prim_sync_warp");
        assert_fault(launch(1, 1, 32, 0,
                            [] {
                                if (PRIM_THREAD == 3) {
                                    prim_sync();
                                }
                                prim_sync_warp();
                                if (PRIM_THREAD != 3) {
                                    prim_sync();
                                }
                            }),
                     "waits at prim_sync_warp", "thread 3 waits at prim_sync");
    }
    assert_int_equal(launch(1, 1, 32, 0, [] { prim_sync(); }), STATUS_OK);
    assert_string_equal(emulator_fault_text(), "");
}

static void addresses_out_of_line_are_reported(void **state)
{
    alignas(16) static const uint8_t global[64] = {0};

    (void)state;
    configure(0);
    assert_fault(launch(1, 1, 32, 512,
                        [] {
                            SHARED(uint8_t, held);
                            prim_copy16(held + 16 * PRIM_THREAD + 8, global, true);
                        }),
                 "thread 0", "not aligned");
    assert_fault(launch(1, 1, 32, 512,
                        [] {
                            SHARED(uint8_t, held);
                            prim_copy16(held + 16 * PRIM_THREAD, global + 4, true);
                        }),
                 "thread 0", "global memory is not aligned");
    assert_fault(launch(1, 1, 32, 496,
                        [] {
                            SHARED(uint8_t, held);
                            prim_copy16(held + 16 * PRIM_THREAD, global, true);
                        }),
                 "thread 31", "not in shared memory");
    assert_fault(launch(1, 1, 32, 512,
                        [] {
                            uint32_t r[4];
                            prim_ldmatrix_x4(r, global);
                        }),
                 "thread 0", "not in shared memory");
    assert_fault(launch(1, 1, 32, 512,
                        [] {
                            uint32_t words[4];
                            prim_load16_shared(words, global);
                        }),
                 "thread 0", "not in shared memory");
    assert_fault(launch(1, 1, 32, 0, [] { (void)prim_shuffle_xor(1.0f, 32); }), "thread 0", "lane");
}

/* ---- copies ---- */

static void copies_land_by_groups_and_bring_zeros_for_what_is_not_valid(void **state)
{
    alignas(16) uint32_t global[3 * 32 * 4];
    uint32_t bad_count = 0;

    (void)state;
    for (uint32_t i = 0; i < 3 * 32 * 4; i++) {
        global[i] = i + 1;
    }
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        auto body = [&] {
            SHARED(uint32_t, held);
            const uint32_t at = 4 * PRIM_THREAD;
            for (uint32_t group = 0; group < 3; group++) {
                prim_copy16(held + group * 128 + at, global + group * 128 + at, group != 1);
                prim_copy_commit();
            }
            prim_copy_wait<1>();
            bad_count += held[at] != at + 1 || held[at + 3] != at + 4;
            bad_count += held[128 + at] != 0 || held[128 + at + 3] != 0;
            prim_copy_wait<0>();
            bad_count += held[256 + at] != 256 + at + 1;
        };
        assert_int_equal(launch(1, 1, 32, sizeof global, body), STATUS_OK);
        assert_int_equal(bad_count, 0);
    }
}

static void copies_land_when_they_are_started_or_when_they_are_waited_for(void **state)
{
    alignas(16) uint32_t global[4] = {1, 2, 3, 4};
    uint32_t before = 0;
    uint32_t after = 0;

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        auto body = [&] {
            SHARED(uint32_t, held);
            held[4 * PRIM_THREAD + 3] = 7;
            prim_copy16(held + 4 * PRIM_THREAD, global, true);
            before = held[4 * PRIM_THREAD + 3];
            prim_copy_commit();
            prim_copy_wait<0>();
            after = held[4 * PRIM_THREAD + 3];
        };
        assert_int_equal(launch(1, 1, 32, 512, body), STATUS_OK);
        assert_int_equal(before, i < 3 ? UINT32_MAX : 4);
        assert_int_equal(after, 4);
    }
}

/* ---- planted bugs in a pipeline of copies ---- */

enum bug {
    BUG_NONE,
    BUG_LAX_WAIT,         /* the tile that is read may be on its way */
    BUG_NO_BARRIER_FIRST, /* other threads' copies were not waited for */
    BUG_NO_BARRIER_LAST,  /* the next copy goes where slower threads still read */
    BUG_SHORT_OUT,        /* out is a word too short */
    BUG_BATCH_ORDER,      /* the order of the sum depends on how many rows there are */
};

enum { TILE = 64 * 4, TILE_COUNT = 5, STAGES = 2, ROW_FLOATS = TILE * TILE_COUNT };

/* out[row][thread] = sum over tiles of a value that another thread has fetched. A block a row. */
static void kernel_pipeline(float *out, const float *x, enum bug bug)
{
    SHARED(float, held);
    const uint32_t thread = PRIM_THREAD;
    const float *row = x + (size_t)PRIM_BLOCK_X * ROW_FLOATS;
    const bool backward = bug == BUG_BATCH_ORDER && PRIM_GRID_X > 1;
    float sum = 0.0f;

    prim_copy16(held + 4 * thread, row + (backward ? TILE_COUNT - 1 : 0) * TILE + 4 * thread, true);
    prim_copy_commit();
    for (uint32_t i = 0; i < TILE_COUNT; i++) {
        const uint32_t next = backward ? TILE_COUNT - 2 - i : i + 1;
        const bool more = i + 1 < TILE_COUNT;
        prim_copy16(held + (i + 1) % STAGES * TILE + 4 * thread,
                    row + (more ? next : 0) * TILE + 4 * thread, more);
        prim_copy_commit();
        if (bug == BUG_LAX_WAIT) {
            prim_copy_wait<2>();
        } else {
            prim_copy_wait<1>();
        }
        if (bug != BUG_NO_BARRIER_FIRST) {
            prim_sync();
        }
        sum += held[i % STAGES * TILE + (4 * thread + 77) % TILE];
        if (bug != BUG_NO_BARRIER_LAST) {
            prim_sync();
        }
    }
    out[PRIM_BLOCK_X * 64 + thread] = sum;
}

/* How many of the configurations differ from the definition in any bit. */
static uint32_t pipeline_wrong_count(enum bug bug, uint32_t row_count)
{
    static float x[3 * ROW_FLOATS] __attribute__((aligned(16)));
    uint32_t wrong_count = 0;

    random_state = 7;
    for (uint32_t i = 0; i < 3 * ROW_FLOATS; i++) {
        x[i] = random_value() / (float)(1 + i % 7);
    }
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        const size_t short_by = bug == BUG_SHORT_OUT ? 1 : 0;
        float *out = static_cast<float *>(malloc((row_count * 64 - short_by) * sizeof *out));
        configure(i);
        assert_int_equal(launch(row_count, 1, 64, STAGES * TILE * sizeof *x,
                                [&] { kernel_pipeline(out, x, bug); }),
                         STATUS_OK);
        bool right = true;
        for (uint32_t j = 0; j < row_count * 64 - short_by; j++) {
            float sum = 0.0f;
            for (uint32_t k = 0; k < TILE_COUNT; k++) {
                sum += x[j / 64 * ROW_FLOATS + k * TILE + (4 * (j % 64) + 77) % TILE];
            }
            right = right && memcmp(&sum, &out[j], sizeof sum) == 0;
        }
        wrong_count += right ? 0 : 1;
        free(out);
    }
    return wrong_count;
}

static void a_right_pipeline_is_right_under_every_schedule(void **state)
{
    (void)state;
    assert_int_equal(pipeline_wrong_count(BUG_NONE, 1), 0);
    assert_int_equal(pipeline_wrong_count(BUG_NONE, 3), 0);
}

static void planted_races_are_seen(void **state)
{
    (void)state;
    assert_true(pipeline_wrong_count(BUG_LAX_WAIT, 1) > 0);
    assert_true(pipeline_wrong_count(BUG_NO_BARRIER_FIRST, 1) > 0);
    assert_true(pipeline_wrong_count(BUG_NO_BARRIER_LAST, 1) > 0);
}

static void an_order_that_depends_on_the_batch_is_seen(void **state)
{
    (void)state;
    assert_int_equal(pipeline_wrong_count(BUG_BATCH_ORDER, 1), 0);
    assert_int_equal(pipeline_wrong_count(BUG_BATCH_ORDER, 3), CONFIG_COUNT);
}

#ifdef HAS_ASAN
static void kernel_short_out(void)
{
    (void)pipeline_wrong_count(BUG_SHORT_OUT, 1);
}

static void kernel_short_shared(void)
{
    static uint32_t x[128];
    static uint32_t out[128];

    configure(0);
    (void)launch(1, 1, 128, sizeof x - 4, [] { kernel_reverse(out, x, true); });
}

/* The function in a child process: true if it did not get to its end. */
static bool is_ended_early(void (*function)(void))
{
    const pid_t child = fork();
    int result = 0;

    assert_true(child >= 0);
    if (child == 0) {
        if (freopen("/dev/null", "w", stderr) != NULL) {
            function();
        }
        _exit(0);
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    return !WIFEXITED(result) || WEXITSTATUS(result) != 0;
}
#endif

static void a_buffer_a_word_short_ends_the_process(void **state)
{
    (void)state;
#ifdef HAS_ASAN
    assert_true(is_ended_early(kernel_short_out));
    assert_true(is_ended_early(kernel_short_shared));
#else
    skip(); /* nothing else sees a plain access */
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_of_every_block_runs_once),
        cmocka_unit_test(shapes_that_no_card_takes_are_refused),
        cmocka_unit_test(a_barrier_parts_before_from_after_and_its_lack_is_seen),
        cmocka_unit_test(lanes_exchange_what_the_definition_says),
        cmocka_unit_test(threads_that_do_not_meet_are_reported),
        cmocka_unit_test(addresses_out_of_line_are_reported),
        cmocka_unit_test(copies_land_when_they_are_started_or_when_they_are_waited_for),
        cmocka_unit_test(copies_land_by_groups_and_bring_zeros_for_what_is_not_valid),
        cmocka_unit_test(a_right_pipeline_is_right_under_every_schedule),
        cmocka_unit_test(planted_races_are_seen),
        cmocka_unit_test(an_order_that_depends_on_the_batch_is_seen),
        cmocka_unit_test(a_buffer_a_word_short_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
