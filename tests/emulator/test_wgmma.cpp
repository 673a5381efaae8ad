/* Goal: products of warpgroups are, bit for bit, those of mma.sync, for every format, number of
 * rows, epilogue and cut of K, whether codes are unpacked on the way or all at once before.
 * Method: the same launch by each provider in the emulator, under several schedules and with
 * copies and operands early and late, by memcmp; outputs are poisoned before. A card whose
 * warpgroups sum otherwise must be caught, and so must a row that is not the same, and a weight
 * that is read before it was unpacked.
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

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/matmul_launch.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/product_rig.h"

enum { PARTS = 3, MARGIN = 16, CARD = 90 };

/* Weights of one launch, which share their rows. */
struct launch_rig {
    struct product_rig parts[PARTS];
    uint32_t part_count;
    uint32_t outputs; /* of all */
    uint32_t cols;
    bool bias;
};

static void rig_init(struct launch_rig *rig, uint32_t part_count, const uint32_t *dtypes,
                     const uint32_t *rows, uint32_t cols, uint32_t x_count, bool fp8)
{
    rig->part_count = part_count;
    rig->outputs = 0;
    rig->cols = cols;
    rig->bias = false;
    for (uint32_t i = 0; i < part_count; i++) {
        product_rig_init(&rig->parts[i], 31 + i, dtypes[i], rows[i], cols, i == 0 ? x_count : 1,
                         fp8);
        rig->outputs += rows[i];
    }
}

static void rig_finish(struct launch_rig *rig)
{
    for (uint32_t i = 0; i < rig->part_count; i++) {
        product_rig_finish(&rig->parts[i]);
    }
}

static void use_settings(uint32_t which, uint32_t wgmma_sums_as)
{
    static const enum emulator_schedule schedules[] = {EMULATOR_ASCENDING, EMULATOR_DESCENDING,
                                                       EMULATOR_SHUFFLED};
    struct emulator_settings settings = {};

    settings.schedule = schedules[which % 3];
    settings.seed = 91 + which;
    settings.copies_land_early = which % 2 == 1;
    settings.architecture = CARD;
    settings.wgmma_sums_as = wgmma_sums_as;
    emulator_configure(&settings);
}

typedef enum status (*multiply)(struct device *device, struct cuda_matmul_args *args);

/* The first `count` rows; a launch that is sized for more is told so on the card. */
static std::vector<float> run(const struct launch_rig *rig, multiply function,
                              enum provider provider, uint32_t count, uint32_t room)
{
    const size_t words = (cuda_activation_bytes(room, rig->cols) + 15) / 16;
    struct device *device = rig->parts[0].backend.device;
    struct card card;
    std::vector<struct cuda_words> activations(words);
    std::vector<float> out((size_t)count * rig->outputs + MARGIN,
                           function == cuda_matmul_add ? 0.5f : NAN);
    std::vector<float> bias(rig->outputs), row_scales(room, NAN);
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};
    uint32_t first = 0;
    uint64_t unpacked_bytes = 0;

    card_borrow(&card, device);
    memset(activations.data(), 0xff, words * sizeof activations[0]);
    for (size_t i = 0; i < bias.size(); i++) {
        bias[i] = (float)i / 64.0f;
    }
    args.part_count = rig->part_count;
    float *out_there = card_give(&card, out.data(), out.size());
    const float *bias_there = card_give<const float>(&card, bias.data(), bias.size());
    for (uint32_t i = 0; i < rig->part_count; i++) {
        args.parts[i].weight = rig->parts[i].weight->view;
        args.parts[i].out = out_there + first;
        args.parts[i].stride = rig->outputs;
        args.parts[i].bias = rig->bias ? bias_there : NULL;
        first += function == cuda_matmul_swiglu ? 0 : rig->parts[i].rows;
        unpacked_bytes += cuda_unpacked_bytes(&rig->parts[i].weight->view);
    }
    const std::vector<uint8_t> unpacked(unpacked_bytes, 0xff);
    args.unpacked = (uint8_t *)card_give(&card, unpacked.data(), unpacked_bytes);
    uint16_t *rounded = (uint16_t *)card_give(&card, activations.data(), words);
    source.x = card_give(&card, rig->parts[0].x.data(), (size_t)count * rig->cols);
    source.cols = rig->cols;
    source.row_count = count;
    source.row_scales =
        cuda_matmul_is_half(&args) ? card_give(&card, row_scales.data(), room) : NULL;
    assert_int_equal(cuda_activations_fill(device, &source, rounded), STATUS_OK);
    args.activations = rounded;
    args.row_scales = source.row_scales;
    args.row_count = room;
    args.row_count_at = card_give<const uint32_t>(&card, &count, 1);
    args.provider = provider;
    if (function(device, &args) != STATUS_OK) {
        fail_msg("%s", device_fault_text(device));
    }
    card_take(&card);
    card_finish(&card);
    return out;
}

static bool equal(const std::vector<float> &a, const std::vector<float> &b)
{
    return a.size() == b.size() && memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/* All providers under one setting of the emulator; what they store, and that they store nothing
 * else. Types that are not packed are mma's where they should be unpacked. */
static bool same_bits(const struct launch_rig *rig, multiply function, uint32_t which,
                      uint32_t count, uint32_t room)
{
    use_settings(which, 0);
    const std::vector<float> mma = run(rig, function, PROVIDER_MMA, count, room);
    const std::vector<float> wgmma = run(rig, function, PROVIDER_WGMMA, count, room);
    const std::vector<float> unpacked = run(rig, function, PROVIDER_UNPACKED, count, room);

    return equal(mma, wgmma) && equal(mma, unpacked);
}

static void every_format_has_the_bits_of_mma(void **state)
{
    static const uint32_t dtypes[] = {
#define X(name, number, elements, bytes) number,
        DTYPE_MAP(X)
#undef X
    };
    static const uint32_t rows[] = {37};
    uint32_t which = 0;

    (void)state;
    for (uint32_t dtype : dtypes) {
        struct launch_rig rig;

        rig_init(&rig, 1, &dtype, rows, dtype_block_elements(dtype) == 256 ? 512 : 352, 20, false);
        assert_true(same_bits(&rig, cuda_matmul_store, which, 5 + which, 20));
        which++;
        rig_finish(&rig);
    }
    const uint32_t dtype = DTYPE_BF16;
    struct launch_rig rig;

    rig_init(&rig, 1, &dtype, rows, 352, 20, true);
    assert_int_equal(rig.parts[0].weight->view.format, CUDA_FP8);
    assert_true(same_bits(&rig, cuda_matmul_store, 1, 9, 20));
    rig_finish(&rig);
}

/* Each size of a tile; two blocks that share rows, and three with one beside them that has nothing
 * to do. */
static void every_number_of_rows_has_the_bits_of_mma(void **state)
{
    static const uint32_t counts[] = {1, 8, 9, 17, 33, 65, 100, 129, 150};
    static const uint32_t rows[] = {300};
    const uint32_t dtype = DTYPE_Q8_0;
    struct launch_rig rig;

    (void)state;
    rig_init(&rig, 1, &dtype, rows, 64, 150, false);
    for (uint32_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        assert_true(same_bits(&rig, cuda_matmul_store, i, counts[i], counts[i]));
    }
    rig_finish(&rig);
}

/* One chain in 32 tiles, more units than stages; and four segments in 16. */
static void long_rows_are_folded_alike(void **state)
{
    static const uint32_t rows[] = {33}, wide[] = {4240};
    const uint32_t dtype = DTYPE_Q4_0, plain = DTYPE_BF16;
    struct launch_rig rig;

    (void)state;
    rig_init(&rig, 1, &dtype, rows, 1024, 70, false);
    assert_int_equal(cuda_segment_count(33, 16, 4, CARD), 4);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(same_bits(&rig, cuda_matmul_store, i, 70, 70));
    }
    rig_finish(&rig);
    rig_init(&rig, 1, &plain, wide, 64, 130, false);
    assert_int_equal(cuda_segment_count(4240, 1, 16, CARD), 1);
    assert_true(same_bits(&rig, cuda_matmul_store, 1, 130, 130));
    rig_finish(&rig);
}

static void every_epilogue_has_the_bits_of_mma(void **state)
{
    static const uint32_t rows[] = {40, 40}, parts[] = {70, 20, 33};
    static const uint32_t same[] = {DTYPE_Q4_1, DTYPE_Q4_1}, other[] = {DTYPE_Q4_1, DTYPE_Q8_0};
    static const uint32_t mixed[] = {DTYPE_Q4_K, DTYPE_F16, DTYPE_Q6_K};
    struct launch_rig rig;

    (void)state;
    rig_init(&rig, 1, same, rows, 96, 20, false);
    assert_true(same_bits(&rig, cuda_matmul_add, 0, 20, 20));
    rig.bias = true;
    assert_true(same_bits(&rig, cuda_matmul_add, 2, 20, 20));
    rig_finish(&rig);
    rig_init(&rig, 2, same, rows, 96, 20, false);
    assert_true(same_bits(&rig, cuda_matmul_swiglu, 1, 20, 20));
    assert_true(same_bits(&rig, cuda_matmul_swiglu, 2, 20, 20));
    rig_finish(&rig);
    rig_init(&rig, 2, other, rows, 96, 20, false); /* mma serves it */
    assert_true(same_bits(&rig, cuda_matmul_swiglu, 1, 20, 20));
    rig_finish(&rig);
    rig_init(&rig, 3, mixed, parts, 256, 20, false);
    assert_true(same_bits(&rig, cuda_matmul_store, 2, 20, 20));
    rig_finish(&rig);
}

/* Launched for 140 rows, of which there are few: groups of rows without any leave in time. */
static void rows_that_do_not_come_leave_nothing_behind(void **state)
{
    static const uint32_t rows[] = {130};
    const uint32_t dtype = DTYPE_Q4_1;
    struct launch_rig rig;

    (void)state;
    rig_init(&rig, 1, &dtype, rows, 640, 140, false);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(same_bits(&rig, cuda_matmul_store, i, 3, 140));
    }
    rig_finish(&rig);
}

/* Planted: the card's warpgroups sum eight terms and then eight. */
static void another_order_in_warpgroups_is_caught(void **state)
{
    static const uint32_t rows[] = {40};
    const uint32_t dtype = DTYPE_BF16;
    struct launch_rig rig;

    (void)state;
    rig_init(&rig, 1, &dtype, rows, 320, 8, false);
    use_settings(0, 0);
    const std::vector<float> mma = run(&rig, cuda_matmul_store, PROVIDER_MMA, 8, 8);
    assert_true(equal(mma, run(&rig, cuda_matmul_store, PROVIDER_WGMMA, 8, 8)));
    if (card_is_emulated("warpgroups that sum otherwise")) {
        use_settings(0, 80);
        assert_false(equal(mma, run(&rig, cuda_matmul_store, PROVIDER_WGMMA, 8, 8)));
    }
    rig_finish(&rig);
}

/* In a graph, as a step has it: there a kernel may begin before the one before it has ended. */
static enum status by_graph(struct device *device, struct cuda_matmul_args *args, bool hasty)
{
    struct device_graph *graph = NULL;
    enum status status = device_capture_begin(device);

    if (status == STATUS_OK && hasty) {
        /* Planted: the product is told nothing of what is unpacked just before it. */
        status = cuda_unpack(device, args);
        args->weights_are_new = 0;
        status = status == STATUS_OK ? cuda_wgmma_launch(device, args) : status;
    } else if (status == STATUS_OK) {
        status = cuda_matmul_store(device, args);
    }
    const enum status ended = device_capture_end(device, &graph);
    status = status == STATUS_OK ? ended : status;
    status = status == STATUS_OK ? device_graph_launch(device, graph) : status;
    const enum status waited = device_wait(device);
    device_graph_destroy(device, graph);
    return status == STATUS_OK ? waited : status;
}

static enum status patient_store(struct device *device, struct cuda_matmul_args *args)
{
    return by_graph(device, args, false);
}

static enum status hasty_store(struct device *device, struct cuda_matmul_args *args)
{
    return by_graph(device, args, true);
}

static void weights_that_come_before_they_are_unpacked_are_caught(void **state)
{
    static const uint32_t rows[] = {40};
    const bool is_emulated = card_is_emulated("weights that are read before they are unpacked");
    const uint32_t dtype = DTYPE_Q8_0;
    struct launch_rig rig;

    (void)state;
    rig_init(&rig, 1, &dtype, rows, 320, 8, false);
    for (uint32_t i = 0; i < 6; i++) {
        use_settings(i, 0);
        const std::vector<float> mma = run(&rig, cuda_matmul_store, PROVIDER_MMA, 8, 8);
        assert_int_equal(emulator_wgmma_count(), 0);
        assert_true(equal(mma, run(&rig, patient_store, PROVIDER_UNPACKED, 8, 8)));
        assert_true(!is_emulated || emulator_wgmma_count() > 0); /* it was not mma's */
        assert_true(!is_emulated || !equal(mma, run(&rig, hasty_store, PROVIDER_UNPACKED, 8, 8)));
    }
    rig_finish(&rig);
}

/* An older card has none: it is served by mma, whatever the table says. */
static void a_card_without_warpgroups_is_served(void **state)
{
    static const uint32_t rows[] = {40};
    const uint32_t dtype = DTYPE_Q4_0;
    struct launch_rig rig;

    (void)state;
    product_settings_use(3);
    rig_init(&rig, 1, &dtype, rows, 320, 8, false);
    const std::vector<float> mma = run(&rig, cuda_matmul_store, PROVIDER_MMA, 8, 8);
    assert_true(equal(mma, run(&rig, cuda_matmul_store, PROVIDER_WGMMA, 8, 8)));
    assert_true(equal(mma, run(&rig, cuda_matmul_store, PROVIDER_UNPACKED, 8, 8)));
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_has_the_bits_of_mma),
        cmocka_unit_test(every_number_of_rows_has_the_bits_of_mma),
        cmocka_unit_test(long_rows_are_folded_alike),
        cmocka_unit_test(every_epilogue_has_the_bits_of_mma),
        cmocka_unit_test(rows_that_do_not_come_leave_nothing_behind),
        cmocka_unit_test(another_order_in_warpgroups_is_caught),
        cmocka_unit_test(weights_that_come_before_they_are_unpacked_are_caught),
        cmocka_unit_test(a_card_without_warpgroups_is_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
