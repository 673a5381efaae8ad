/* Goal: the CUDA backend's matrix product is the product of the stored weight, rounded to bf16,
 * with rows rounded to bf16, and a row's bits depend on nothing but the row.
 * Method: the kernels' source in the emulator, under several schedules and both sums of tensor
 * cores. Every element of every type comes back through embed's reader; products against double
 * over the same operands within a derived bound; a row alone against the row among others by
 * memcmp. An order that depends on the number of rows, and a fold without its barrier, must be
 * caught.
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

#include "base/memory.h"
#include "kernels/cuda/matmul_block.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/product_rig.h"

enum { ROW_COUNT_MAX = 70 };

static const uint32_t dtypes[] = {
#define X(name, number, elements, bytes) number,
    DTYPE_MAP(X)
#undef X
};

/* Ragged in units, segments and panels. */
static uint32_t cols_of(uint32_t dtype, uint32_t i)
{
    static const uint32_t plain[] = {32, 96, 320, 576};
    static const uint32_t super[] = {256, 512, 768, 256};

    return dtype_block_elements(dtype) == 256 ? super[i] : plain[i];
}

/* Rows [first, first + count) of the rig's x. */
static void run_rows(const struct product_rig *rig, product_multiply function, uint32_t first,
                     uint32_t count, std::vector<float> &out)
{
    if (product_rig_run(rig, function, first, count, out) != STATUS_OK) {
        fail_msg("%s", device_fault_text(rig->backend.device));
    }
}

static bool near_double(const struct product_rig *rig, const float *out, uint32_t first,
                        uint32_t count)
{
    for (uint32_t r = 0; r < count; r++) {
        for (uint32_t o = 0; o < rig->rows; o++) {
            const struct product_exact exact =
                product_rig_exact(rig, rig->x.data() + (size_t)(first + r) * rig->cols, o);
            const double error = fabs(out[(size_t)r * rig->rows + o] - exact.value);

            if (!(error <= product_bound(rig->cols, exact.magnitude))) {
                return false;
            }
        }
    }
    return true;
}

/* Float weights in e4m3: every element as rounded by row, and the product of those. */
static void float_weights_are_kept_as_fp8_when_asked_for(void **state)
{
    (void)state;
    for (uint32_t dtype : {DTYPE_F32, DTYPE_F16, DTYPE_BF16}) {
        struct product_rig rig;
        std::vector<float> out;

        product_settings_use(dtype % PRODUCT_SETTINGS_COUNT);
        product_rig_init(&rig, 3 + dtype, dtype, 21, 544, 9, true);
        assert_int_equal(rig.weight->view.format, CUDA_FP8);
        assert_memory_equal(rig.exact.data(), rig.values.data(), rig.exact.size() * sizeof(float));
        run_rows(&rig, cuda_matmul_store, 0, 9, out);
        assert_true(near_double(&rig, out.data(), 0, 9));
        rig.values[0] += 2e-3f; /* planted */
        assert_false(near_double(&rig, out.data(), 0, 9));
        product_rig_finish(&rig);
    }
}

/* Of the products that make output 0 of row 0. */
static float largest_term(const struct product_rig *rig)
{
    float largest = 0.0f;

    for (uint32_t c = 0; c < rig->cols; c++) {
        const float term = rig->values[c] * product_rounded(rig, rig->x.data())[c];

        largest = fabsf(term) > fabsf(largest) ? term : largest;
    }
    return largest;
}

static void products_are_near_double(void **state)
{
    static const uint32_t counts[] = {1, 9, 25, 33};
    std::vector<float> out;
    uint32_t settings = 0;

    (void)state;
    for (uint32_t dtype : dtypes) {
        for (uint32_t i = 0; i < 4; i++) {
            struct product_rig rig;

            product_settings_use(settings++ % PRODUCT_SETTINGS_COUNT);
            product_rig_init(&rig, 11 + dtype, dtype, 5 + 14 * i, cols_of(dtype, i), counts[i]);
            run_rows(&rig, cuda_matmul_store, 0, counts[i], out);
            assert_true(near_double(&rig, out.data(), 0, counts[i]));
            /* Planted: the largest product of a sum is lost. */
            out[0] -= largest_term(&rig);
            assert_false(near_double(&rig, out.data(), 0, counts[i]));
            product_rig_finish(&rig);
        }
    }
}

/* Whether sums over rows as they are come within what rounding to f16 takes, a bit of 2^11. */
static bool near_as_half(const struct product_rig *rig, const float *out, bool as_bf16)
{
    for (uint32_t r = 0; r < rig->x.size() / rig->cols; r++) {
        const float *x = rig->x.data() + (size_t)r * rig->cols;

        for (uint32_t o = 0; o < rig->rows; o++) {
            double exact = 0.0, rounded = 0.0, magnitude = 0.0;

            for (uint32_t c = 0; c < rig->cols; c++) {
                const double w = rig->exact[(size_t)o * rig->cols + c];

                exact += w * x[c];
                rounded += w * product_bf16(x[c]);
                magnitude += fabs(w * x[c]);
            }
            const double value = as_bf16 ? rounded : out[(size_t)r * rig->rows + o];
            const double bound = ldexp(1.0, -11) + product_bound(rig->cols, 1.01);

            if (!(fabs(value - exact) <= bound * magnitude)) {
                return false;
            }
        }
    }
    return true;
}

/* Rows from 2^-100 to 2^100, far beyond what a half holds, among each other and alone; every other
 * one has one number only, so that nothing makes up for its rounding. */
static void f16_weights_multiply_as_f16(void **state)
{
    enum { MANY = 35, COLS = 544, ROWS = 21 };
    std::vector<float> all, part;
    struct product_rig rig;

    (void)state;
    for (uint32_t i = 0; i < PRODUCT_SETTINGS_COUNT; i++) {
        product_settings_use(i);
        product_rig_init(&rig, 3 + i, DTYPE_F16, ROWS, COLS, MANY);
        assert_int_equal(rig.weight->view.format, CUDA_F16);
        for (uint32_t at = 0; at < MANY * COLS; at++) {
            const uint32_t r = at / COLS;
            const bool is_zero = r == 7 || (r % 2 == 1 && at % COLS != 13 * r);

            rig.x[at] = is_zero ? 0.0f : ldexpf(rig.x[at], (int)r % 5 * 50 - 100);
        }
        run_rows(&rig, cuda_matmul_store, 0, MANY, all);
        assert_true(near_double(&rig, all.data(), 0, MANY));
        assert_true(near_as_half(&rig, all.data(), false));
        assert_false(near_as_half(&rig, all.data(), true)); /* bf16 would not do */
        for (uint32_t r = 0; r < MANY; r += 6) {
            run_rows(&rig, cuda_matmul_store, r, 1, part);
            assert_memory_equal(part.data(), all.data() + (size_t)r * ROWS, ROWS * sizeof(float));
        }
        product_rig_finish(&rig);
    }
}

/* Planted: f16 without a scale of its own for each row. */
static void f16_rows_without_their_scale_are_caught(void **state)
{
    struct product_rig rig;
    std::vector<float> out;

    (void)state;
    product_settings_use(0);
    product_rig_init(&rig, 8, DTYPE_F16, 16, 64, 2);
    for (uint32_t c = 0; c < 64; c++) {
        rig.x[c] = ldexpf(rig.x[c], 30);
    }
    run_rows(&rig, cuda_matmul_store, 0, 2, out);
    assert_true(near_double(&rig, out.data(), 0, 2));
    for (uint32_t c = 0; c < 64; c++) {
        rig.x[c] = steps_float_from_half(steps_half_from_float(rig.x[c]));
    }
    assert_false(near_double(&rig, out.data(), 0, 2));
    product_rig_finish(&rig);
}

/* A NaN or an infinity among a row's numbers is seen in all that it makes, and nowhere else. */
static void f16_rows_that_are_not_finite_stay_so(void **state)
{
    struct product_rig rig;
    std::vector<float> out;

    (void)state;
    for (float bad : {NAN, INFINITY, -INFINITY}) {
        product_settings_use(1);
        product_rig_init(&rig, 9, DTYPE_F16, 16, 96, 3);
        for (float &value : rig.x) {
            value += value < 0 ? -0.5f : 0.5f;
        }
        rig.x[96 + 17] = bad;
        run_rows(&rig, cuda_matmul_store, 0, 3, out);
        assert_true(near_double(&rig, out.data(), 0, 1));
        assert_true(near_double(&rig, out.data() + 32, 2, 1));
        for (uint32_t o = 0; o < 16; o++) {
            assert_false(isfinite(out[16 + o]));
        }
        product_rig_finish(&rig);
    }
}

/* Beside a matrix of another type the rows are bf16, and so is what multiplies them. */
static void f16_beside_other_types_is_rounded_to_bf16(void **state)
{
    enum { COLS = 320, ROWS = 24, MANY = 9 };
    std::vector<struct cuda_words> activations((cuda_activation_bytes(MANY, COLS) + 15) / 16);
    std::vector<float> mixed(MANY * ROWS, NAN), other(MANY * ROWS, NAN), expected, alone;
    std::vector<uint16_t> bits(ROWS * COLS);
    struct product_rig rig, quantised, rounded;
    struct card card;
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};

    (void)state;
    product_settings_use(4);
    product_rig_init(&rig, 5, DTYPE_F16, ROWS, COLS, MANY);
    product_rig_init(&quantised, 6, DTYPE_Q8_0, ROWS, COLS, 1);
    product_rig_init(&rounded, 7, DTYPE_BF16, ROWS, COLS, MANY);
    for (uint32_t i = 0; i < ROWS * COLS; i++) {
        bits[i] = steps_bf16_from_float(rig.exact[i]);
    }
    const struct weight_source again = {"rounded", DTYPE_BF16,  ROWS,
                                        COLS,      bits.data(), bits.size() * 2};
    cuda_weight_destroy(rounded.weight);
    assert_int_equal(cuda_weight_create(&rounded.backend, &again, NULL, &rounded.weight),
                     STATUS_OK);
    rounded.x = rig.x;
    card_borrow(&card, rig.backend.device);
    uint16_t *there = (uint16_t *)card_give(&card, activations.data(), activations.size());
    source.x = card_give(&card, rig.x.data(), rig.x.size());
    source.cols = COLS;
    source.row_count = MANY;
    args.part_count = 2;
    args.parts[0].weight = rig.weight->view;
    args.parts[0].out = card_give(&card, mixed.data(), mixed.size());
    args.parts[1].weight = quantised.weight->view;
    args.parts[1].out = card_give(&card, other.data(), other.size());
    args.parts[0].stride = args.parts[1].stride = ROWS;
    args.row_count = MANY;
    args.activations = there;
    assert_false(cuda_matmul_is_half(&args));
    assert_int_equal(cuda_activations_fill(rig.backend.device, &source, there), STATUS_OK);
    assert_int_equal(cuda_matmul_store(rig.backend.device, &args), STATUS_OK);
    card_take(&card);
    card_finish(&card);
    run_rows(&rounded, cuda_matmul_store, 0, MANY, expected);
    run_rows(&rig, cuda_matmul_store, 0, MANY, alone);
    assert_memory_equal(mixed.data(), expected.data(), mixed.size() * sizeof(float));
    assert_memory_not_equal(mixed.data(), alone.data(), mixed.size() * sizeof(float));
    product_rig_finish(&rig);
    product_rig_finish(&quantised);
    product_rig_finish(&rounded);
}

/* Whether rows keep their bits in batches of other sizes and at other places. */
static bool rows_keep_their_bits(product_multiply function, uint32_t dtype)
{
    static const uint32_t counts[] = {2, 7, 8, 9, 16, 17, 31, 33, 64, 65};
    std::vector<float> all, part;
    struct product_rig rig;
    bool same = true;

    product_rig_init(&rig, 5 + dtype, dtype, 24, cols_of(dtype, 2), ROW_COUNT_MAX);
    run_rows(&rig, function, 0, ROW_COUNT_MAX, all);
    for (uint32_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        const uint32_t first = i % 5;

        product_settings_use(i % 3);
        run_rows(&rig, function, first, counts[i], part);
        same = same && memcmp(part.data(), all.data() + (size_t)first * rig.rows,
                              (size_t)counts[i] * rig.rows * sizeof(float)) == 0;
    }
    for (uint32_t r = 0; r < 3; r++) {
        run_rows(&rig, function, r, 1, part);
        same = same && memcmp(part.data(), all.data() + (size_t)r * rig.rows,
                              rig.rows * sizeof(float)) == 0;
    }
    product_rig_finish(&rig);
    return same;
}

static void a_row_keeps_its_bits_in_every_batch(void **state)
{
    (void)state;
    product_settings_use(0);
    for (uint32_t dtype : {DTYPE_Q4_1, DTYPE_Q6_K, DTYPE_BF16, DTYPE_F16}) {
        assert_true(rows_keep_their_bits(cuda_matmul_store, dtype));
    }
}

/* So many rows that blocks run all segments one after the other, where few rows take ranks. */
static void ranks_of_a_cluster_and_one_block_give_the_same_bits(void **state)
{
    enum { MANY = 1030, COLS = 1024, ROWS = 20 };
    static const uint32_t counts[] = {1, 12, 31, 60, 100};
    std::vector<float> all, part;
    struct product_rig rig;

    (void)state;
    product_settings_use(0);
    product_rig_init(&rig, 77, DTYPE_Q4_0, ROWS, COLS, MANY);
    assert_int_equal(cuda_segment_count(ROWS, COLS / CUDA_UNIT_COLS, 4, 90), 4);
    run_rows(&rig, cuda_matmul_store, 0, MANY, all);
    for (uint32_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        product_settings_use(i % 3);
        run_rows(&rig, cuda_matmul_store, i, counts[i], part);
        assert_memory_equal(part.data(), all.data() + (size_t)i * ROWS,
                            (size_t)counts[i] * ROWS * sizeof(float));
    }
    product_rig_finish(&rig);
}

/* By the shapes of an 8B model, and at the edges of the rule. */
static void segments_follow_shape_type_and_architecture(void **state)
{
    (void)state;
    assert_int_equal(cuda_segment_count(6144, 64, 16, 90), 1);
    assert_int_equal(cuda_segment_count(4096, 64, 16, 90), 2);
    assert_int_equal(cuda_segment_count(4096, 64, 16, 80), 1);
    assert_int_equal(cuda_segment_count(4096, 64, 4, 90), 4);
    assert_int_equal(cuda_segment_count(28672, 64, 4, 90), 2);
    assert_int_equal(cuda_segment_count(1024, 64, 8, 90), 4);
    assert_int_equal(cuda_segment_count(64, 4, 16, 90), 1);
    assert_int_equal(cuda_segment_count(64, 9, 16, 90), 2);
    for (uint32_t units = 1; units < 40; units++) {
        for (uint32_t count = 1; count <= (units + 3) / 4; count++) {
            assert_int_equal(cuda_segment_begin(0, count, units), 0);
            assert_int_equal(cuda_segment_begin(count, count, units), units);
            for (uint32_t s = 0; s < count; s++) {
                assert_true(cuda_segment_begin(s, count, units) <
                            cuda_segment_begin(s + 1, count, units));
                assert_int_equal(cuda_segment_begin(s, count, units) % CUDA_SEGMENT_UNITS, 0);
            }
        }
    }
}

/* Planted: many rows take K in one chain where few take it in segments. */
static KERNEL void one_chain_kernel(struct cuda_matmul_args args)
{
    SHARED(uint8_t, shared);
    const struct cuda_matmul_part &part = args.parts[0];
    struct cuda_block block = {};

    block.warp_count = 1;
    block.lane = PRIM_THREAD;
    block.block = PRIM_BLOCK_X;
    block.unit_count = block.unit_end = part.weight.unit_count;
    block.tile_first = PRIM_BLOCK_Y;
    block.tiles = 1;
    block.row_count = args.row_count;
    block.shared = shared;
    const struct cuda_slot_panel slot = cuda_slot_find(args, block.block, 0);

    cuda_copy_weights(args, block, slot, 0, 0);
    cuda_copy_rows(args, block, 0, 0);
    prim_copy_commit();
    cuda_stream_any<1, 1>(args, block, slot, part.weight.format);
    prim_sync();
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t output = slot.panel * CUDA_PANEL_ROWS + block.lane / 4 + i / 2 * 8;
        const uint32_t row = block.tile_first * CUDA_TILE_ROWS + block.lane % 4 * 2 + i % 2;

        if (output < part.weight.rows && row < args.row_count) {
            part.out[(uint64_t)row * part.stride + output] =
                ((const float *)(shared + args.shape.sums_offset))[block.lane * 4 + i];
        }
    }
}

static enum status multiply_by_count(struct device *device, struct cuda_matmul_args *args)
{
    if (args->row_count <= 16) {
        return cuda_matmul_store(device, args);
    }
    args->shape = {CUDA_STORE, 1, 1, 1, 2, 1, 1, 2048, 3072, 0, 0};
    return device_launch<one_chain_kernel>(
        device, (args->parts[0].weight.rows + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS,
        (args->row_count + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS, CUDA_WARP_LANES,
        2 * args->shape.stage_bytes, *args);
}

static void an_order_by_batch_size_is_caught(void **state)
{
    (void)state;
    product_settings_use(0);
    assert_false(rows_keep_their_bits(multiply_by_count, DTYPE_Q4_1));
}

/* Element by element through the reader of embeddings: F16 and quantised types exactly, others as
 * bf16. */
static void every_element_comes_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
        const bool kept =
            dtypes[i] == DTYPE_F16 || (dtypes[i] != DTYPE_Q5_0 && dtypes[i] != DTYPE_Q5_1 &&
                                       dtype_block_elements(dtypes[i]) != 1);
        std::vector<uint32_t> tokens(37);
        std::vector<float> out(tokens.size() * cols_of(dtypes[i], 2));
        struct product_rig rig;
        struct backend_buffer x = {};
        struct cuda_op entry = {};
        struct cuda_plan_view view = {};
        struct cuda_step step = {};
        struct card card;

        product_rig_init(&rig, 23 + i, dtypes[i], 37, cols_of(dtypes[i], 2), 1);
        product_settings_use(i % PRODUCT_SETTINGS_COUNT);
        for (uint32_t r = 0; r < tokens.size(); r++) {
            tokens[r] = 36 - r;
        }
        card_borrow(&card, rig.backend.device);
        x.data = card_give(&card, out.data(), out.size());
        entry.args.embed = {&x, rig.weight, 1.0f};
        view.row_count = (uint32_t)tokens.size();
        step.backend = &rig.backend;
        step.most.row_count = view.row_count + 3; /* more than there are */
        step.view = card_give<const struct cuda_plan_view>(&card, &view, 1);
        step.tokens = card_give(&card, tokens.data(), tokens.size());
        assert_int_equal(cuda_embed_run(&step, &entry), STATUS_OK);
        card_take(&card);
        card_finish(&card);
        for (uint32_t r = 0; r < tokens.size(); r++) {
            const std::vector<float> &from = kept ? rig.exact : rig.values;

            assert_memory_equal(out.data() + (size_t)r * rig.cols,
                                from.data() + (size_t)tokens[r] * rig.cols,
                                rig.cols * sizeof(float));
        }
        product_rig_finish(&rig);
    }
}

/* Planted: sums are folded before all warps have written theirs. */
static KERNEL void hasty_fold_kernel(struct cuda_matmul_args args)
{
    SHARED(float, sums);

    sums[PRIM_THREAD] = (float)PRIM_THREAD;
    if (args.part_count == 2) {
        prim_sync();
    }
    if (PRIM_THREAD < CUDA_WARP_LANES) {
        args.parts[0].out[PRIM_THREAD] = sums[PRIM_THREAD] + sums[PRIM_THREAD + CUDA_WARP_LANES];
    }
}

static void a_fold_without_its_barrier_is_caught(void **state)
{
    struct card card;

    (void)state;
    product_settings_use(0);
    for (uint32_t with_barrier = card_is_emulated("a fold without its barrier") ? 0 : 1;
         with_barrier < 2; with_barrier++) {
        float out[CUDA_WARP_LANES] = {};
        struct cuda_matmul_args args = {};

        card_open(&card);
        args.part_count = 1 + with_barrier;
        args.parts[0].out = card_give(&card, out, CUDA_WARP_LANES);
        assert_int_equal(device_launch<hasty_fold_kernel>(card.device, 1, 1, 64, 256, args),
                         STATUS_OK);
        card_take(&card);
        card_finish(&card);
        assert_true(with_barrier == 1 ? out[1] == 34.0f : isnan(out[1]));
    }
}

static void a_source_that_cannot_be_held_is_named(void **state)
{
    static const uint8_t bytes[40] = {0};
    struct weight_source source = {"blk.0.odd", DTYPE_Q4_0, 2, 32, bytes, 36};
    struct backend_weight *weight = NULL;
    struct backend backend = {};
    struct error error = {};

    (void)state;
    assert_int_equal(device_open(0, NULL, &backend.device), STATUS_OK);
    source.size_bytes = 35;
    assert_int_equal(cuda_weight_create(&backend, &source, &error, &weight), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.text, "blk.0.odd has 35 bytes where its shape needs 36"));
    source.cols = 33;
    assert_int_equal(cuda_weight_create(&backend, &source, &error, &weight), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "Q4_0 needs a multiple of 32"));
    source.dtype = 77;
    assert_int_equal(cuda_weight_create(&backend, &source, &error, &weight), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "type 77"));
    assert_null(weight);
    device_close(backend.device);
}

static void a_weight_without_memory_leaves_nothing_behind(void **state)
{
    static const uint8_t bytes[36] = {0};
    const struct weight_source source = {"blk.0.wide", DTYPE_Q4_0, 2, 32, bytes, 36};
    struct backend_weight *weight = NULL;
    struct backend backend = {};
    enum status status = STATUS_MEMORY;
    int64_t live;

    (void)state;
    assert_int_equal(device_open(0, NULL, &backend.device), STATUS_OK);
    live = memory_live_count();
    for (int64_t survivors = 0; status == STATUS_MEMORY; survivors++) {
        struct error error = {};

        assert_int_equal(memory_live_count(), live);
        memory_fault_set(survivors);
        status = cuda_weight_create(&backend, &source, &error, &weight);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || strstr(error.text, "blk.0.wide") != NULL);
    }
    assert_int_equal(status, STATUS_OK);
    cuda_weight_destroy(weight);
    device_close(backend.device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_near_double),
        cmocka_unit_test(a_row_keeps_its_bits_in_every_batch),
        cmocka_unit_test(ranks_of_a_cluster_and_one_block_give_the_same_bits),
        cmocka_unit_test(segments_follow_shape_type_and_architecture),
        cmocka_unit_test(float_weights_are_kept_as_fp8_when_asked_for),
        cmocka_unit_test(f16_weights_multiply_as_f16),
        cmocka_unit_test(f16_rows_without_their_scale_are_caught),
        cmocka_unit_test(f16_rows_that_are_not_finite_stay_so),
        cmocka_unit_test(f16_beside_other_types_is_rounded_to_bf16),
        cmocka_unit_test(an_order_by_batch_size_is_caught),
        cmocka_unit_test(a_fold_without_its_barrier_is_caught),
        cmocka_unit_test(every_element_comes_back),
        cmocka_unit_test(a_source_that_cannot_be_held_is_named),
        cmocka_unit_test(a_weight_without_memory_leaves_nothing_behind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
