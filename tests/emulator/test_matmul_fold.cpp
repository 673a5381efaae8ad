/* Goal: segments of a product that are blocks without a cluster give the bits of a cluster and of
 * one block, whichever of them comes last.
 * Method: the same rows by all ways that an architecture has, under every schedule, several
 * launches over the same counts, by memcmp. Folds by order of arrival, and a count before the sums
 * are there, must be caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/matmul_fold.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/product_rig.h"

enum { COLS = 1024, ROWS = 84, MANY = 64 };

static void give_meeting(struct product_rig *rig)
{
    const struct device_facts *facts = device_read_facts(rig->backend.device);
    struct cuda_scratch *meeting = &rig->backend.meeting;

    meeting->size_bytes = cuda_meeting_bytes(facts);
    assert_int_equal(device_alloc(rig->backend.device, meeting->size_bytes, &meeting->data),
                     STATUS_OK);
    assert_int_equal(device_clear(rig->backend.device, meeting->data, meeting->size_bytes),
                     STATUS_OK);
}

static void take_meeting(struct product_rig *rig)
{
    device_free(rig->backend.device, rig->backend.meeting.data);
    rig->backend.meeting = {};
}

static bool is_used(const struct product_rig *rig)
{
    std::vector<uint8_t> bytes(rig->backend.meeting.size_bytes);

    card_read(rig->backend.device, bytes.data(), rig->backend.meeting.data, bytes.size());
    for (uint8_t byte : bytes) {
        if (byte != 0) {
            return true;
        }
    }
    return false;
}

static void ranks_that_meet_give_the_bits_of_one_block_and_of_a_cluster(void **state)
{
    static const uint32_t counts[] = {1, 9, 31, 60};
    std::vector<float> expected, met;
    struct product_rig rig;

    (void)state;
    for (uint32_t which = 0; which < PRODUCT_SETTINGS_COUNT; which++) {
        product_settings_use(which);
        product_rig_init(&rig, 50 + which, which % 2 == 0 ? DTYPE_Q4_1 : DTYPE_F16, ROWS, COLS,
                         MANY);
        for (uint32_t count : counts) {
            assert_int_equal(product_rig_run(&rig, cuda_matmul_store, 0, count, expected),
                             STATUS_OK);
            give_meeting(&rig);
            for (uint32_t again = 0; again < 2; again++) {
                assert_int_equal(product_rig_run(&rig, cuda_matmul_store, 0, count, met),
                                 STATUS_OK);
                assert_memory_equal(met.data(), expected.data(), count * ROWS * sizeof(float));
            }
            assert_true(is_used(&rig));
            take_meeting(&rig);
        }
        product_rig_finish(&rig);
    }
}

/* More rows than a block has fill the card otherwise. */
static void many_rows_do_not_meet(void **state)
{
    std::vector<float> alone, many;
    struct product_rig rig;

    (void)state;
    product_settings_use(3);
    product_rig_init(&rig, 5, DTYPE_Q8_0, ROWS, COLS, 70);
    if (device_read_facts(rig.backend.device)->architecture >= DEVICE_ARCHITECTURE_CLUSTER) {
        print_message("left to cards without clusters: many rows beside a meeting\n");
        product_rig_finish(&rig);
        skip();
    }
    give_meeting(&rig);
    assert_int_equal(product_rig_run(&rig, cuda_matmul_store, 0, 70, many), STATUS_OK);
    assert_false(is_used(&rig));
    assert_int_equal(product_rig_run(&rig, cuda_matmul_store, 69, 1, alone), STATUS_OK);
    assert_true(is_used(&rig));
    assert_memory_equal(alone.data(), many.data() + 69 * ROWS, ROWS * sizeof(float));
    take_meeting(&rig);
    product_rig_finish(&rig);
}

/* ---- twins ---- */

enum { RANKS = 4, SIZE = 64 };

enum bug {
    BUG_NONE,
    BUG_ARRIVAL,     /* sums lie in the order in which ranks came */
    BUG_EARLY_COUNT, /* a rank counts itself before its sums are there */
};

struct fold_args {
    const float *values; /* [block][rank][SIZE] */
    float *sums;
    uint32_t *arrived, *tickets; /* [block] */
    float *out;                  /* [block][SIZE] */
    enum bug bug;
};

DEVICE_INLINE bool leave_too_early(const struct cuda_ranks &ranks, const float *shared,
                                   uint32_t *flag)
{
    if (PRIM_THREAD == 0) {
        *flag = prim_atomic_add_global(ranks.arrived, 1) + 1 == ranks.count ? 1 : 0;
    }
    prim_sync();
    const bool last = *flag != 0;

    for (uint32_t i = 0; i < 8 && !last; i++) {
        prim_sync(); /* its stores take their time */
    }
    for (uint32_t i = PRIM_THREAD; i < ranks.size; i += PRIM_THREADS) {
        ranks.sums[ranks.rank * ranks.size + i] = shared[i];
    }
    prim_sync();
    return last;
}

static KERNEL void fold_kernel(struct fold_args args)
{
    SHARED(float, shared);
    const uint32_t block = PRIM_BLOCK_X / RANKS;
    struct cuda_ranks ranks = {PRIM_BLOCK_X % RANKS, RANKS, args.sums + block * RANKS * SIZE,
                               args.arrived + block, SIZE};

    prim_depend_wait();
    for (uint32_t i = PRIM_THREAD; i < SIZE; i += PRIM_THREADS) {
        shared[i] = args.values[PRIM_BLOCK_X * SIZE + i];
    }
    if (args.bug == BUG_ARRIVAL) {
        if (PRIM_THREAD == 0) {
            ((uint32_t *)shared)[SIZE] = prim_atomic_add_global(args.tickets + block, 1);
        }
        prim_sync();
        ranks.rank = ((uint32_t *)shared)[SIZE];
    }
    prim_sync();
    const bool last = args.bug == BUG_EARLY_COUNT
                          ? leave_too_early(ranks, shared, (uint32_t *)shared + SIZE)
                          : cuda_ranks_leave(ranks, shared, (uint32_t *)shared + SIZE);
    if (last) {
        for (uint32_t i = PRIM_THREAD; i < SIZE; i += PRIM_THREADS) {
            args.out[block * SIZE + i] = cuda_ranks_fold(ranks, shared, i);
        }
    }
}

/* Whether all schedules give the sum from left to right. */
static bool folds_in_order(enum bug bug)
{
    enum { BLOCKS = 5 };
    static float values[BLOCKS * RANKS * SIZE];
    bool right = true;

    for (uint32_t which = 0; which < PRODUCT_SETTINGS_COUNT; which++) {
        float sums[BLOCKS * RANKS * SIZE], out[BLOCKS * SIZE] = {};
        uint32_t arrived[BLOCKS] = {0}, tickets[BLOCKS] = {0};
        struct card card;

        product_settings_use(which);
        card_open(&card);
        memset(sums, 0xff, sizeof sums);
        for (uint32_t i = 0; i < BLOCKS * RANKS * SIZE; i++) {
            values[i] = (float)((i * 2654435761u) >> 8) * ldexpf(1.0f, (int)(i % 7) - 24);
        }
        const struct fold_args args = {card_give<const float>(&card, values, BLOCKS * RANKS * SIZE),
                                       card_give(&card, sums, BLOCKS * RANKS * SIZE),
                                       card_give(&card, arrived, BLOCKS),
                                       card_give(&card, tickets, BLOCKS),
                                       card_give(&card, out, BLOCKS * SIZE),
                                       bug};
        assert_int_equal(device_launch<fold_kernel>(card.device, BLOCKS * RANKS, 1, 32,
                                                    (SIZE + 1) * (uint32_t)sizeof(float), args),
                         STATUS_OK);
        card_take(&card);
        card_finish(&card);
        for (uint32_t i = 0; i < BLOCKS * SIZE; i++) {
            const float *of = values + i / SIZE * RANKS * SIZE + i % SIZE;
            const float sum = of[0] + of[SIZE] + of[2 * SIZE] + of[3 * SIZE];

            right = right && memcmp(&sum, &out[i], sizeof sum) == 0;
        }
        for (uint32_t i = 0; i < BLOCKS && bug == BUG_NONE; i++) {
            assert_int_equal(arrived[i], 0);
        }
    }
    return right;
}

static void folds_out_of_order_are_caught(void **state)
{
    (void)state;
    assert_true(folds_in_order(BUG_NONE));
    if (!card_is_emulated("sums in the order of arrival, and a count that comes too early")) {
        return;
    }
    assert_false(folds_in_order(BUG_ARRIVAL));
    assert_false(folds_in_order(BUG_EARLY_COUNT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_that_meet_give_the_bits_of_one_block_and_of_a_cluster),
        cmocka_unit_test(many_rows_do_not_meet),
        cmocka_unit_test(folds_out_of_order_are_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
