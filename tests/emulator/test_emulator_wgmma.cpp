/* Goal: products of warpgroups, barriers that count bytes and bulk copies are what prim_wgmma.cuh
 * says, and a kernel that breaks their rules does not go unseen.
 * Method: a product of 64 rows and 8 to 256 columns through shared memory, its B brought by bulk
 * copies and spread to two blocks, against plain loops over emulator_tensor_sum, by memcmp, under
 * all schedules. Then the same kernel with one thing left out at a time.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <vector>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/prim_wgmma.cuh"
#include "tests/emulator/emulator_rig.h"

enum {
    ROWS = 64,
    STEPS = 2,
    K = 16 * STEPS,
    THREADS = 128,
    COLUMNS_MAX = 256,
    CORE_BYTES = 128,
    TILE_BYTES = K / 8 * CORE_BYTES, /* of 8 columns */
    BARRIER_AT = COLUMNS_MAX / 8 * TILE_BYTES,
    SHARED_BYTES = BARRIER_AT + 16,
};

/* What a kernel leaves out, or does wrong. */
enum plant {
    NOTHING,
    NO_FENCE,        /* before the first product */
    LATE_REGISTERS,  /* a is written behind the fence */
    EARLY_REGISTERS, /* a is written before its product is done */
    NO_COMMIT,
    NO_WAIT,
    NO_WAIT_AT_ALL, /* not even before the end */
    NO_BYTES_WAIT,  /* B is used without waiting for it */
    OTHER_STRIDE,   /* the descriptor's */
    SWIZZLE,        /* a layout that B does not have */
    FAR_B,          /* B begins where shared memory is about to end */
    PART_OF_GROUP,  /* one warp multiplies with other columns of B */
    BYTES_TOO_MANY, /* are expected */
    NO_BEGIN,       /* of the barrier */
    END_EARLY,      /* with a copy on its way */
    TWO_ARRIVALS,   /* where one belongs to a phase */
    ODD_BYTES,      /* 8 at the end of a copy */
};

struct task {
    uint16_t a[ROWS][K];
    alignas(16) uint16_t b[COLUMNS_MAX / 8][K / 8][8][8]; /* [columns / 8][k / 8][column][k] */
    float out[2][ROWS][COLUMNS_MAX];                      /* of both blocks */
    enum plant plant;
    bool f16;
};

static float wanted_of(const struct task *task, uint32_t row, uint32_t column)
{
    uint16_t b[K];
    float sum = 0.25f;

    for (uint32_t k = 0; k < K; k++) {
        b[k] = task->b[column / 8][k / 8][column % 8][k % 8];
    }
    for (uint32_t k = 0; k < K; k += 16) {
        sum = emulator_tensor_sum(sum, task->a[row] + k, b + k,
                                  task->f16 ? EMULATOR_F16 : EMULATOR_BF16, 90);
    }
    return sum;
}

static void load_a(const struct task *task, uint32_t step, uint32_t a[4])
{
    const uint32_t row = PRIM_THREAD / 32 * 16 + PRIM_THREAD % 32 / 4;

    for (uint32_t i = 0; i < 4; i++) {
        const uint16_t *at = &task->a[row + i % 2 * 8][step * 16 + PRIM_THREAD % 4 * 2 + i / 2 * 8];

        a[i] = at[0] | (uint32_t)at[1] << 16;
    }
}

/* B for both blocks of the cluster, each sends half. */
static void bring_b(struct task *task, uint32_t columns, uint8_t *shared,
                    struct prim_barrier *barrier)
{
    const uint32_t rank = prim_cluster_rank(), bytes = columns / 8 * TILE_BYTES;
    const enum plant plant = task->plant;

    if (PRIM_THREAD == 0 && plant != NO_BEGIN) {
        prim_barrier_init(barrier, 1);
        prim_barrier_begun();
    }
    prim_cluster_sync();
    if (PRIM_THREAD == 0) {
        prim_barrier_expect(barrier, bytes + (plant == BYTES_TOO_MANY ? 16 : 0));
        prim_barrier_arrive(barrier, rank);
        if (plant == TWO_ARRIVALS) {
            prim_barrier_arrive(barrier, rank);
            prim_barrier_arrive(barrier, rank);
        }
        for (uint32_t i = rank; i < columns / 8; i += 2) {
            prim_copy_bulk_ranks(shared + i * TILE_BYTES, task->b[i],
                                 TILE_BYTES - (plant == ODD_BYTES ? 8 : 0), barrier, 3);
        }
        if (columns == 8 && rank == 0) { /* none is left for the other */
            prim_barrier_expect(barrier, 16);
            prim_copy_bulk(shared + TILE_BYTES, task->b[1], 16, barrier);
        }
    }
    if (plant != NO_BYTES_WAIT && plant != END_EARLY) {
        prim_barrier_wait(barrier, 0);
    }
}

template <int COLUMNS> static void kernel_product(struct task *task)
{
    SHARED(uint8_t, shared);
    struct prim_barrier *barrier = (struct prim_barrier *)(shared + BARRIER_AT);
    const enum plant plant = task->plant;
    float d[COLUMNS / 2];
    uint32_t a[4];

    bring_b(task, COLUMNS, shared, barrier);
    for (int i = 0; i < COLUMNS / 2; i++) {
        d[i] = 0.25f;
    }
    for (uint32_t step = 0; step < STEPS && plant != END_EARLY; step++) {
        const uint8_t *from =
            plant == FAR_B ? shared + SHARED_BYTES - 64 : shared + step * 2 * CORE_BYTES;
        const uint32_t stride = plant == OTHER_STRIDE ? CORE_BYTES : TILE_BYTES;
        uint64_t matrix = prim_wgmma_matrix(from, CORE_BYTES, stride);

        matrix |= plant == SWIZZLE ? UINT64_C(1) << 62 : 0;
        matrix += plant == PART_OF_GROUP && PRIM_THREAD / 32 == 2 ? 8 : 0;
        load_a(task, step, a);
        if (plant != NO_FENCE) {
            prim_wgmma_fence();
        }
        if (plant == LATE_REGISTERS) {
            task->f16 ? prim_wgmma_f16<COLUMNS>(d, a, matrix)
                      : prim_wgmma_bf16<COLUMNS>(d, a, matrix);
            a[0] ^= 0x00800080;
        }
        task->f16 ? prim_wgmma_f16<COLUMNS>(d, a, matrix) : prim_wgmma_bf16<COLUMNS>(d, a, matrix);
        if (plant != NO_COMMIT) {
            prim_wgmma_commit();
        }
        if (plant == EARLY_REGISTERS) {
            a[0] ^= 0x00800080;
        }
        if (plant != NO_WAIT || step + 1 < STEPS) {
            if (plant != NO_WAIT_AT_ALL) {
                prim_wgmma_wait();
            }
        }
    }
    for (uint32_t i = 0; i < COLUMNS / 2; i++) {
        const uint32_t row = PRIM_THREAD / 32 * 16 + PRIM_THREAD % 32 / 4 + i % 4 / 2 * 8;

        task->out[prim_cluster_rank()][row][i / 4 * 8 + PRIM_THREAD % 4 * 2 + i % 2] = d[i];
    }
    if (plant == NO_WAIT) {
        prim_wgmma_wait();
    }
    if (plant != END_EARLY) {
        prim_cluster_sync();
    }
}

template <int COLUMNS> static enum status run(struct task *task)
{
    auto body = [=] { kernel_product<COLUMNS>(task); };
    const struct emulator_kernel kernel = {
        2,
        1,
        THREADS,
        SHARED_BYTES,
        [](void *context) { (*static_cast<decltype(body) *>(context))(); },
        &body,
        false,
        2};

    return emulator_launch_list(&kernel, 1);
}

static bool right(const struct task *task, uint32_t columns)
{
    for (uint32_t rank = 0; rank < 2; rank++) {
        for (uint32_t row = 0; row < ROWS; row++) {
            for (uint32_t column = 0; column < columns; column++) {
                const float wanted = wanted_of(task, row, column);

                if (memcmp(&wanted, &task->out[rank][row][column], sizeof wanted) != 0) {
                    return false;
                }
            }
        }
    }
    return true;
}

static void fill(struct task *task, bool f16)
{
    uint16_t *b = &task->b[0][0][0][0];

    task->f16 = f16;
    task->plant = NOTHING;
    memset(task->out, 0xff, sizeof task->out);
    for (uint32_t i = 0; i < ROWS * K; i++) {
        task->a[i / K][i % K] =
            f16 ? steps_half_from_float(random_value()) : steps_bf16_from_float(random_value());
    }
    for (uint32_t i = 0; i < COLUMNS_MAX * K; i++) {
        b[i] = f16 ? steps_half_from_float(random_value()) : steps_bf16_from_float(random_value());
    }
}

static void settings_use(uint32_t which)
{
    struct emulator_settings settings = {};

    settings.schedule = (enum emulator_schedule)(which % 3);
    settings.seed = 5 + which;
    settings.copies_land_early = which / 3 % 2 != 0;
    settings.architecture = 90;
    emulator_configure(&settings);
}

static struct task task;

static void products_of_every_width_are_the_matrix_product(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 6; i++) {
        static enum status (*const runs[])(struct task *) = {run<8>,  run<16>,  run<32>,
                                                             run<64>, run<128>, run<256>};
        static const uint32_t columns[] = {8, 16, 32, 64, 128, 256};

        for (uint32_t w = 0; w < 6; w++) {
            settings_use(i);
            fill(&task, (i + w) % 2 != 0);
            if (runs[w](&task) != STATUS_OK) {
                fail_msg("%s", emulator_fault_text());
            }
            assert_true(right(&task, columns[w]));
        }
    }
}

/* What must be said of each planted fault; NULL: the numbers must be wrong. */
static void each_rule_that_is_broken_is_seen(void **state)
{
    static const struct {
        enum plant plant;
        const char *text;
    } plants[] = {
        {NO_FENCE, "without a fence"},
        {LATE_REGISTERS, "written after the fence"},
        {NO_COMMIT, "without waiting for its products"},
        {NO_WAIT, NULL},
        {NO_WAIT_AT_ALL, "without waiting for its products"},
        {OTHER_STRIDE, NULL},
        {SWIZZLE, "a layout that the emulator does not know"},
        {FAR_B, "past shared memory"},
        {PART_OF_GROUP, "do not all multiply the same"},
        {BYTES_TOO_MANY, "0 arrivals and 16 bytes are missing"},
        {NO_BEGIN, "was never begun"},
        {ODD_BYTES, "not in whole, aligned 16 bytes"},
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof plants / sizeof plants[0]; i++) {
        settings_use(i % 6);
        fill(&task, false);
        task.plant = plants[i].plant;
        const enum status status = run<16>(&task);

        if (plants[i].text == NULL) {
            assert_int_equal(status, STATUS_OK);
            assert_false(right(&task, 16));
        } else if (status != STATUS_DEVICE ||
                   strstr(emulator_fault_text(), plants[i].text) == NULL) {
            fail_msg("plant %d: %d, %s", plants[i].plant, status, emulator_fault_text());
        }
    }
}

/* What is read too early, or written too early, shows where copies and operands come late. */
static void what_is_not_waited_for_is_seen_where_it_comes_late(void **state)
{
    (void)state;
    for (enum plant plant : {EARLY_REGISTERS, NO_BYTES_WAIT}) {
        settings_use(0);
        fill(&task, true);
        task.plant = plant;
        assert_true(run<16>(&task) != STATUS_OK || !right(&task, 16));
    }
    settings_use(0);
    fill(&task, true);
    task.plant = END_EARLY;
    assert_int_equal(run<16>(&task), STATUS_DEVICE);
    assert_non_null(strstr(emulator_fault_text(), "on their way to it"));
    fill(&task, true);
    task.plant = TWO_ARRIVALS;
    assert_true(run<16>(&task) != STATUS_OK || !right(&task, 16));
}

static void only_sm_90_has_warpgroups(void **state)
{
    struct emulator_settings settings = {};
    auto body = [] {
        float d[4] = {};
        const uint32_t a[4] = {};

        prim_wgmma_fence();
        prim_wgmma_bf16<8>(d, a, 0);
    };

    (void)state;
    settings.architecture = 80;
    emulator_configure(&settings);
    assert_int_equal(launch(1, 1, THREADS, 1024, body), STATUS_DEVICE);
    assert_non_null(strstr(emulator_fault_text(), "its card has none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_every_width_are_the_matrix_product),
        cmocka_unit_test(each_rule_that_is_broken_is_seen),
        cmocka_unit_test(what_is_not_waited_for_is_seen_where_it_comes_late),
        cmocka_unit_test(only_sm_90_has_warpgroups),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
