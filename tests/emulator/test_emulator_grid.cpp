/* Goal: the emulator shows what happens between blocks of a launch, and between a kernel and one
 * that begins before it has ended.
 * Method: small kernels with a known answer under every configuration; each with a bug planted
 * that only blocks that take turns, or a part before its wait that runs first, can show.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "tests/emulator/emulator_rig.h"

enum { THREADS = 64, BLOCKS = 5 };

/* ---- blocks that take turns ---- */

/* out[block][thread] = 100 * block + what the neighbour wrote, through scratch in global memory
 * that blocks have for themselves, or share. */
static void kernel_through_scratch(uint32_t *out, uint32_t *scratch, bool shared)
{
    uint32_t *own = scratch + (shared ? PRIM_BLOCK_X % 2 : PRIM_BLOCK_X) * THREADS;

    own[PRIM_THREAD] = 100 * PRIM_BLOCK_X + PRIM_THREAD;
    prim_sync();
    out[PRIM_BLOCK_X * THREADS + PRIM_THREAD] = own[(PRIM_THREAD + 1) % THREADS];
    prim_sync();
}

static bool scratch_is_right(bool shared)
{
    uint32_t out[BLOCKS * THREADS], scratch[BLOCKS * THREADS];

    memset(out, 0xff, sizeof out);
    assert_int_equal(
        launch(BLOCKS, 1, THREADS, 0, [&] { kernel_through_scratch(out, scratch, shared); }),
        STATUS_OK);
    for (uint32_t i = 0; i < BLOCKS * THREADS; i++) {
        if (out[i] != 100 * (i / THREADS) + (i + 1) % THREADS) {
            return false;
        }
    }
    return true;
}

static void blocks_that_share_scratch_are_seen_where_blocks_take_turns(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        assert_true(scratch_is_right(false));
        assert_int_equal(scratch_is_right(true), i % 3 != EMULATOR_SHUFFLED);
    }
}

static void more_blocks_than_run_at_once_all_run_once(void **state)
{
    enum { COUNT = 37 };
    uint32_t counts[COUNT];

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        memset(counts, 0, sizeof counts);
        assert_int_equal(launch(COUNT, 1, 32, 4,
                                [&] {
                                    SHARED(uint32_t, held);
                                    if (PRIM_THREAD == 7) {
                                        *held = PRIM_BLOCK_X;
                                    }
                                    prim_sync();
                                    if (PRIM_THREAD == 31) {
                                        counts[*held]++;
                                    }
                                }),
                         STATUS_OK);
        for (uint32_t j = 0; j < COUNT; j++) {
            assert_int_equal(counts[j], 1);
        }
    }
}

/* ---- kernels that begin early ---- */

enum bug {
    BUG_NONE,
    BUG_READS_EARLY,  /* what the kernel before writes */
    BUG_WRITES_EARLY, /* what the kernel before reads */
    BUG_NO_WAIT,
};

struct chain {
    uint32_t first[BLOCKS * THREADS], second[BLOCKS * THREADS], third[BLOCKS * THREADS];
    uint32_t constant[BLOCKS * THREADS]; /* nobody writes it: may be read before the wait */
    enum bug bug;
};

static void kernel_first(void *context)
{
    struct chain *chain = static_cast<struct chain *>(context);
    const uint32_t i = PRIM_BLOCK_X * THREADS + PRIM_THREAD;

    prim_depend_wait();
    chain->first[i] = 3 * i + chain->third[i];
    prim_depend_launch();
}

static void kernel_second(void *context)
{
    struct chain *chain = static_cast<struct chain *>(context);
    const uint32_t i = PRIM_BLOCK_X * THREADS + PRIM_THREAD;
    const uint32_t ahead = chain->constant[i];
    uint32_t from = chain->first[BLOCKS * THREADS - 1 - i];

    if (chain->bug == BUG_WRITES_EARLY) {
        chain->third[i] = 9;
    }
    if (chain->bug != BUG_NO_WAIT) {
        prim_depend_wait();
    }
    if (chain->bug != BUG_READS_EARLY) {
        from = chain->first[BLOCKS * THREADS - 1 - i];
    }
    chain->second[i] = ahead + from;
    prim_depend_launch();
}

static void kernel_third(void *context)
{
    struct chain *chain = static_cast<struct chain *>(context);
    const uint32_t i = PRIM_BLOCK_X * THREADS + PRIM_THREAD;

    prim_depend_wait();
    chain->third[i] = chain->second[i] + chain->first[i];
}

static enum status run_chain(struct chain *chain, enum bug bug)
{
    const struct emulator_kernel kernels[] = {
        {BLOCKS, 1, THREADS, 0, kernel_first, chain, true},
        {BLOCKS, 1, THREADS, 0, kernel_second, chain, true},
        {BLOCKS, 1, THREADS, 0, kernel_third, chain, true},
    };

    memset(chain, 0, sizeof *chain);
    memset(chain->first, 0xff, sizeof chain->first);
    for (uint32_t i = 0; i < BLOCKS * THREADS; i++) {
        chain->constant[i] = 7 * i;
    }
    chain->bug = bug;
    return emulator_launch_list(kernels, 3);
}

static bool chain_is_right(enum bug bug)
{
    static struct chain chain;

    assert_int_equal(run_chain(&chain, bug), STATUS_OK);
    for (uint32_t i = 0; i < BLOCKS * THREADS; i++) {
        if (chain.third[i] != 7 * i + 3 * (BLOCKS * THREADS - 1 - i) + 3 * i) {
            return false;
        }
    }
    return true;
}

static void a_part_before_the_wait_that_touches_what_is_not_done_is_seen(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        assert_true(chain_is_right(BUG_NONE));
        assert_false(chain_is_right(BUG_READS_EARLY));
        assert_false(chain_is_right(BUG_WRITES_EARLY));
    }
}

static void a_kernel_that_never_waits_is_reported(void **state)
{
    static struct chain chain;

    (void)state;
    for (uint32_t i = 0; i < CONFIG_COUNT; i++) {
        configure(i);
        assert_int_equal(run_chain(&chain, BUG_NO_WAIT), STATUS_DEVICE);
        assert_non_null(strstr(emulator_fault_text(), "without prim_depend_wait"));
        assert_true(chain_is_right(BUG_NONE));
    }
}

/* ---- clusters ---- */

enum cluster_bug {
    CLUSTER_RIGHT,
    CLUSTER_NO_FIRST, /* reads before the others have written */
    CLUSTER_NO_LAST,  /* ends while others read */
    CLUSTER_FEWER,    /* one warp does not come */
};

/* out[cluster][thread] = what the blocks of the cluster hold, added in order of their ranks. */
static void kernel_fold(float *out, enum cluster_bug bug)
{
    SHARED(float, held);
    const uint32_t size = EMULATOR_CLUSTER_BLOCKS_MAX;
    const uint32_t rank = prim_cluster_rank();

    held[PRIM_THREAD] = (float)(PRIM_BLOCK_X * THREADS + PRIM_THREAD);
    if (bug == CLUSTER_FEWER && rank == 2 && PRIM_THREAD < 32) {
        return;
    }
    if (bug != CLUSTER_NO_FIRST) {
        prim_cluster_sync();
    }
    float sum = 0.0f;
    for (uint32_t i = 0; i < size; i++) {
        sum += prim_cluster_map(held, i)[(PRIM_THREAD + rank) % THREADS];
        if (i == 0) {
            prim_sync(); /* others may run */
        }
    }
    if (bug != CLUSTER_NO_LAST) {
        prim_cluster_sync();
    }
    out[PRIM_BLOCK_X * THREADS + PRIM_THREAD] = sum;
}

static enum status run_fold(enum cluster_bug bug, bool *right)
{
    enum { CLUSTERS = 3, SIZE = EMULATOR_CLUSTER_BLOCKS_MAX };
    static float out[CLUSTERS * SIZE * THREADS];
    auto body = [=] { kernel_fold(out, bug); };
    struct emulator_kernel kernel = {
        CLUSTERS * SIZE,
        1,
        THREADS,
        THREADS * sizeof(float),
        [](void *context) { (*static_cast<decltype(body) *>(context))(); },
        &body,
        false,
        SIZE};
    const enum status status = emulator_launch_list(&kernel, 1);

    *right = true;
    for (uint32_t i = 0; i < CLUSTERS * SIZE * THREADS; i++) {
        const uint32_t block = i / THREADS;
        const uint32_t from = (i + block % SIZE) % THREADS;
        float sum = 0.0f;
        for (uint32_t rank = 0; rank < SIZE; rank++) {
            sum += (float)((block / SIZE * SIZE + rank) * THREADS + from);
        }
        *right = *right && out[i] == sum;
    }
    return status;
}

static void clusters_fold_and_a_missing_barrier_is_seen(void **state)
{
    uint32_t last_seen = 0;
    bool right;

    (void)state;
    for (uint32_t i = 0; i < 2 * CONFIG_COUNT; i++) {
        const struct emulator_settings settings = {(enum emulator_schedule)(i % 3), i, false, 90};

        emulator_configure(&settings);
        assert_int_equal(run_fold(CLUSTER_RIGHT, &right), STATUS_OK);
        assert_true(right);
        assert_int_equal(run_fold(CLUSTER_NO_FIRST, &right), STATUS_OK);
        assert_false(right);
        assert_int_equal(run_fold(CLUSTER_NO_LAST, &right), STATUS_OK);
        last_seen += !right;
        assert_int_equal(run_fold(CLUSTER_FEWER, &right), STATUS_DEVICE);
        assert_non_null(strstr(emulator_fault_text(), "prim_cluster_sync"));
    }
    assert_true(last_seen > 0);
}

static void clusters_are_refused_where_no_card_has_them(void **state)
{
    const struct emulator_settings settings = {EMULATOR_ASCENDING, 1, false, 80};
    bool right;

    (void)state;
    emulator_configure(&settings);
    assert_int_equal(run_fold(CLUSTER_RIGHT, &right), STATUS_LIMIT);
    assert_non_null(strstr(emulator_fault_text(), "clusters of 4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_that_share_scratch_are_seen_where_blocks_take_turns),
        cmocka_unit_test(more_blocks_than_run_at_once_all_run_once),
        cmocka_unit_test(a_part_before_the_wait_that_touches_what_is_not_done_is_seen),
        cmocka_unit_test(a_kernel_that_never_waits_is_reported),
        cmocka_unit_test(clusters_fold_and_a_missing_barrier_is_seen),
        cmocka_unit_test(clusters_are_refused_where_no_card_has_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
