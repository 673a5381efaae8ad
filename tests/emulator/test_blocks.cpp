/* Goal: the matrix operations of the CUDA backend (attn_in's product, attn_out, ffn_in, ffn_out,
 * logits) compute what backend.h says, out of rows that are normed and rounded as matmul.cuh says.
 * Method: each operation is recorded and run in the emulator over ragged shapes, memory poisoned.
 * The rounded rows are read back and held against double, then the outputs against double over
 * those rows, with derived bounds. A norm that forgets its weight must be caught.
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
#include "kernels/cuda/product.cuh"
#include "tests/emulator/card.h"
#include "tests/emulator/product_rig.h"

enum { WIDTH = 320, HIDDEN = 72, ROW_COUNT = 11 };

static const float epsilon = 1e-5f;

/* A program of one operation over ROW_COUNT rows. */
struct block {
    struct product_rig rig; /* the first weight; its backend is everyone's */
    struct backend_program program;
    struct cuda_plan_view view;
    struct cuda_step step;
    struct backend_buffer x, norm, out, bias;
    std::vector<float> x_data, norm_data, out_data, bias_data;
    std::vector<uint8_t> rounded; /* what the scratch of activations held */
    struct card card;
};

static void block_init(struct block *block, uint32_t dtype, uint32_t rows, uint32_t cols)
{
    product_rig_init(&block->rig, 99 + dtype, dtype, rows, cols, ROW_COUNT + 2);
    block->rig.backend.settings.sample_count_max = ROW_COUNT;
    block->rig.backend.settings.vocabulary_count = rows;
    block->program = {};
    block->program.backend = &block->rig.backend;
    block->program.row_count_max = ROW_COUNT;
    block->view = {};
    block->view.row_count = ROW_COUNT;
    block->view.logits_row_count = ROW_COUNT;
    block->step = {};
    block->step.backend = &block->rig.backend;
    block->step.program = &block->program;
    block->step.most.row_count = ROW_COUNT;
    block->step.most.logits_row_count = ROW_COUNT;
    block->x_data.assign(block->rig.x.begin(), block->rig.x.begin() + ROW_COUNT * cols);
    block->norm_data.assign(block->rig.x.begin() + ROW_COUNT * cols,
                            block->rig.x.begin() + (ROW_COUNT + 1) * cols);
    block->bias_data.assign(rows, 0.75f);
    block->out_data.assign((size_t)ROW_COUNT * rows, NAN);
    block->x = {&block->rig.backend, NULL, NULL, block->x_data.size()};
    block->norm = {&block->rig.backend, NULL, NULL, cols};
    block->bias = {&block->rig.backend, NULL, NULL, rows};
    block->out = {&block->rig.backend, NULL, NULL, block->out_data.size()};
}

/* What an operation reads and writes, to the card. */
static void block_give(struct block *block)
{
    card_borrow(&block->card, block->rig.backend.device);
    block->x.data = card_give(&block->card, block->x_data.data(), block->x_data.size());
    block->norm.data = card_give(&block->card, block->norm_data.data(), block->norm_data.size());
    block->bias.data = card_give(&block->card, block->bias_data.data(), block->bias_data.size());
    block->out.data = card_give(&block->card, block->out_data.data(), block->out_data.size());
    block->step.view = card_give<const struct cuda_plan_view>(&block->card, &block->view, 1);
}

/* And back, the rounded rows too. */
static void block_take(struct block *block)
{
    const struct cuda_scratch *activations = &block->rig.backend.activations;

    block->rounded.resize(activations->size_bytes);
    card_read(block->rig.backend.device, block->rounded.data(), activations->data,
              activations->size_bytes);
    card_take(&block->card);
    card_finish(&block->card);
}

static void block_finish(struct block *block)
{
    device_free(block->rig.backend.device, block->rig.backend.activations.data);
    memory_free(block->program.ops);
    product_rig_finish(&block->rig);
}

/* Column `col` of rounded row `row`, as the scratch has it. */
static float rounded_at(const struct block *block, uint32_t row, uint32_t col)
{
    const uint16_t *scratch = (const uint16_t *)block->rounded.data();
    const uint32_t groups = block->rig.weight->view.unit_count * 8;
    const uint64_t group = (uint64_t)(row / CUDA_TILE_ROWS) * groups + col / 8;
    const uint16_t bits = scratch[(group * CUDA_TILE_ROWS + row % CUDA_TILE_ROWS) * 8 + col % 8];
    const float *scales =
        (const float *)((const uint8_t *)scratch + cuda_row_scales_at(ROW_COUNT, block->rig.cols));

    return block->rig.half ? steps_float_from_half(bits) * scales[row]
                           : steps_float_from_bf16(bits);
}

static std::vector<float> rounded_row(const struct block *block, uint32_t row)
{
    std::vector<float> values(block->rig.cols);

    for (uint32_t c = 0; c < block->rig.cols; c++) {
        values[c] = rounded_at(block, row, c);
    }
    return values;
}

/* Whether the rounded rows are rms_norm(x[rows[r]]) * norm: bf16 rounds by 2^-8, a value passes
 * through two products of three factors, whose inverse root carries half of the sum's error. */
static bool rows_are_normed(const struct block *block, const uint32_t *rows)
{
    const uint32_t cols = block->rig.cols;
    const double relative = ldexp(1.0, -8) + (cols / 128 + 16) * ldexp(1.0, -24);

    for (uint32_t r = 0; r < ROW_COUNT; r++) {
        const float *x = block->x_data.data() + (size_t)(rows == NULL ? r : rows[r]) * cols;
        double sum = 0.0, inverse;

        for (uint32_t c = 0; c < cols; c++) {
            sum += (double)x[c] * x[c];
        }
        inverse = 1.0 / sqrt(sum / cols + epsilon);
        for (uint32_t c = 0; c < cols; c++) {
            const double exact = x[c] * inverse * block->norm_data[c];

            if (!(fabs(rounded_at(block, r, c) - exact) <= relative * fabs(exact) + 1e-38)) {
                return false;
            }
        }
    }
    return true;
}

static void expect_near(double value, double exact, double bound)
{
    if (!(fabs(value - exact) <= bound)) {
        fail_msg("%.9g where %.9g was expected, within %.3g", value, exact, bound);
    }
}

static void ffn_in_is_gate_times_up(void **state)
{
    struct product_rig up;
    struct block block;

    (void)state;
    product_settings_use(4);
    block_init(&block, DTYPE_Q4_1, HIDDEN, WIDTH);
    product_rig_init(&up, 7, DTYPE_Q8_0, HIDDEN, WIDTH, 1);
    const struct ffn_in_args args = {&block.x,         &block.out, &block.norm,    epsilon,
                                     block.rig.weight, up.weight,  ACTIVATION_SILU};
    assert_int_equal(cuda_ffn_in(&block.program, &args, NULL), STATUS_OK);
    block_give(&block);
    assert_int_equal(cuda_ffn_in_run(&block.step, &block.program.ops[0]), STATUS_OK);
    block_take(&block);
    assert_true(rows_are_normed(&block, NULL));
    for (uint32_t r = 0; r < ROW_COUNT; r++) {
        const std::vector<float> row = rounded_row(&block, r);

        for (uint32_t o = 0; o < HIDDEN; o++) {
            const struct product_exact g = product_rig_exact(&block.rig, row.data(), o);
            const struct product_exact u = product_rig_exact(&up, row.data(), o);
            const double silu = g.value / (1.0 + exp(-g.value));
            const double g_bound = product_bound(WIDTH, g.magnitude);
            const double u_bound = product_bound(WIDTH, u.magnitude);

            /* The slope of silu is below 1.1. */
            expect_near(block.out_data[(size_t)r * HIDDEN + o], silu * u.value,
                        1.1 * g_bound * (fabs(u.value) + u_bound) + u_bound * fabs(silu) +
                            8 * ldexp(1.0, -24) * fabs(silu * u.value));
        }
    }
    /* Planted: another weight of the norm than was asked for. */
    block.norm_data[WIDTH - 1] *= 1.01f;
    assert_false(rows_are_normed(&block, NULL));
    product_rig_finish(&up);
    block_finish(&block);
}

/* x += W a (+ bias), by either operation. */
static void check_residual(uint32_t dtype, bool with_bias)
{
    struct block block;

    product_settings_use(with_bias ? 2 : 5);
    block_init(&block, dtype, HIDDEN, WIDTH);
    block.out_data.assign(block.out_data.size(), 0.5f);
    if (with_bias) {
        const struct attn_out_args args = {&block.out, &block.x, block.rig.weight, &block.bias};

        assert_int_equal(cuda_attn_out(&block.program, &args, NULL), STATUS_OK);
        block_give(&block);
        assert_int_equal(cuda_attn_out_run(&block.step, &block.program.ops[0]), STATUS_OK);
    } else {
        const struct ffn_out_args args = {&block.out, &block.x, block.rig.weight};

        assert_int_equal(cuda_ffn_out(&block.program, &args, NULL), STATUS_OK);
        block_give(&block);
        assert_int_equal(cuda_ffn_out_run(&block.step, &block.program.ops[0]), STATUS_OK);
    }
    block_take(&block);
    for (uint32_t r = 0; r < ROW_COUNT; r++) {
        for (uint32_t o = 0; o < HIDDEN; o++) {
            const struct product_exact sum =
                product_rig_exact(&block.rig, block.x_data.data() + (size_t)r * WIDTH, o);

            expect_near(
                block.out_data[(size_t)r * HIDDEN + o], 0.5 + sum.value + (with_bias ? 0.75 : 0.0),
                product_bound(WIDTH, sum.magnitude) + 2 * ldexp(1.0, -24) * (sum.magnitude + 1.25));
        }
    }
    block_finish(&block);
}

static void attn_out_and_ffn_out_add_to_x(void **state)
{
    (void)state;
    check_residual(DTYPE_Q4_0, true);
    check_residual(DTYPE_F16, false);
}

static void logits_are_of_the_rows_asked_for(void **state)
{
    static const uint32_t rows[ROW_COUNT] = {10, 0, 3, 3, 9, 8, 1, 2, 4, 5, 10};
    struct block block;

    (void)state;
    product_settings_use(1);
    block_init(&block, DTYPE_Q6_K, 50, 512);
    const struct logits_args args = {&block.x, &block.out,       &block.norm,
                                     epsilon,  block.rig.weight, 0.0f};
    assert_int_equal(cuda_logits(&block.program, &args, NULL), STATUS_OK);
    block_give(&block);
    block.step.logits_rows = card_give(&block.card, rows, ROW_COUNT);
    assert_int_equal(cuda_logits_run(&block.step, &block.program.ops[0]), STATUS_OK);
    block_take(&block);
    assert_true(rows_are_normed(&block, rows));
    assert_false(rows_are_normed(&block, NULL));
    for (uint32_t r = 0; r < ROW_COUNT; r++) {
        const std::vector<float> row = rounded_row(&block, r);

        for (uint32_t o = 0; o < 50; o++) {
            const struct product_exact sum = product_rig_exact(&block.rig, row.data(), o);

            expect_near(block.out_data[(size_t)r * 50 + o], sum.value,
                        product_bound(512, sum.magnitude));
        }
    }
    assert_memory_equal(block.out_data.data(), block.out_data.data() + 500, 50 * sizeof(float));
    block_finish(&block);
}

/* Three weights of two sizes in one launch, side by side; f16 only where all of them are. */
static void check_shared_launch(const uint32_t dtypes[3], bool half)
{
    struct product_rig parts[2];
    struct block block;
    std::vector<float> qkv((size_t)ROW_COUNT * 64, NAN);
    struct attn_in_args args = {};

    product_settings_use(3);
    block_init(&block, dtypes[0], 32, WIDTH);
    product_rig_init(&parts[0], 1, dtypes[1], 16, WIDTH, 1);
    product_rig_init(&parts[1], 2, dtypes[2], 16, WIDTH, 1);
    for (struct product_rig *rig : {&block.rig, &parts[0], &parts[1]}) {
        rig->half = half;
        for (size_t i = 0; i < rig->values.size() && !half; i++) {
            rig->values[i] = product_bf16(rig->values[i]);
        }
    }
    args.x = &block.x;
    args.norm = &block.norm;
    args.epsilon = epsilon;
    args.wq = block.rig.weight;
    args.wk = parts[0].weight;
    args.wv = parts[1].weight;
    args.head_count = 4;
    args.kv_head_count = 2;
    args.head_size = 8;
    assert_int_equal(
        cuda_product_check(&block.program, "the query matrix", args.wq, 32, WIDTH, NULL),
        STATUS_OK);
    block_give(&block);
    assert_int_equal(
        cuda_qkv_product(&block.step, &args, card_give(&block.card, qkv.data(), qkv.size())),
        STATUS_OK);
    block_take(&block);
    for (uint32_t r = 0; r < ROW_COUNT; r++) {
        const std::vector<float> row = rounded_row(&block, r);

        for (uint32_t o = 0; o < 64; o++) {
            const struct product_rig *rig = o < 32 ? &block.rig : &parts[(o - 32) / 16];
            const struct product_exact sum =
                product_rig_exact(rig, row.data(), o < 32 ? o : o % 16);

            expect_near(qkv[(size_t)r * 64 + o], sum.value, product_bound(WIDTH, sum.magnitude));
        }
    }
    product_rig_finish(&parts[0]);
    product_rig_finish(&parts[1]);
    block_finish(&block);
}

static void queries_keys_and_values_share_a_launch(void **state)
{
    (void)state;
    check_shared_launch((const uint32_t[]){DTYPE_Q4_0, DTYPE_Q8_0, DTYPE_BF16}, false);
    check_shared_launch((const uint32_t[]){DTYPE_F16, DTYPE_F16, DTYPE_F16}, true);
    check_shared_launch((const uint32_t[]){DTYPE_F16, DTYPE_Q8_0, DTYPE_F16}, false);
}

static void wrong_shapes_are_named(void **state)
{
    struct error error = {};
    struct block block;

    (void)state;
    block_init(&block, DTYPE_Q4_0, 32, WIDTH);
    assert_int_equal(
        cuda_product_check(&block.program, "the output matrix", block.rig.weight, 33, 64, &error),
        STATUS_UNSUPPORTED);
    assert_string_equal(error.text, "the output matrix has 32 rows of 320 columns where the model "
                                    "needs 33 of 64");
    block_finish(&block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ffn_in_is_gate_times_up),
        cmocka_unit_test(attn_out_and_ffn_out_add_to_x),
        cmocka_unit_test(logits_are_of_the_rows_asked_for),
        cmocka_unit_test(queries_keys_and_values_share_a_launch),
        cmocka_unit_test(wrong_shapes_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
