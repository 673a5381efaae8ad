/* Goal: the operations around the products (embed, attn_in, attn_out, ffn_in, ffn_out, logits) give
 * one set of bits on every instruction set, number of threads and batch, and compute what backend.h
 * says.
 * Method: one small layer, run as a program; everything that it wrote is compared by memcmp between
 * scalar with one thread and all others, and between rows together and rows one by one; with F32
 * weights it is compared with the same formulas in double. One wrong value of one row must be
 * caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/weight.h"
#include "kernels/steps/math.h"
#include "support/isa_names.h"
#include "support/layer.h"

enum { ROWS = 27, WIDTH_MAX = 256, HIDDEN_MAX = 512 };

/* Head sizes of whole panels and of half a panel more; ragged hidden sizes and vocabulary. */
static const struct layer_shape shapes[] = {
    {DTYPE_F32, 5, 1, 16, 40, 50, 8, ROPE_HALVES, true, false},
    {DTYPE_F16, 3, 3, 24, 33, 17, 12, ROPE_ADJACENT, true, false},
    {DTYPE_BF16, 4, 2, 40, 70, 31, 13, ROPE_HALVES, false, false},
    {DTYPE_Q4_0, 4, 2, 24, 96, 50, 12, ROPE_ADJACENT, false, false},
    {DTYPE_Q4_1, 9, 3, 32, 160, 101, 16, ROPE_ADJACENT, true, false},
    {DTYPE_Q5_0, 4, 1, 16, 64, 40, 5, ROPE_HALVES, false, false},
    {DTYPE_Q5_1, 2, 2, 80, 64, 19, 40, ROPE_ADJACENT, false, false},
    {DTYPE_Q8_0, 1, 1, 96, 32, 16, 24, ROPE_HALVES, true, false},
    {DTYPE_Q4_K, 4, 2, 64, 512, 33, 32, ROPE_ADJACENT, false, false},
    {DTYPE_Q5_K, 2, 1, 128, 256, 20, 64, ROPE_HALVES, false, false},
    {DTYPE_Q6_K, 8, 4, 32, 256, 47, 16, ROPE_ADJACENT, false, false},
    {DTYPE_Q4_1, 9, 3, 32, 160, 101, 16, ROPE_ADJACENT, true, true},
    {DTYPE_Q6_K, 8, 4, 32, 256, 47, 16, ROPE_HALVES, false, true},
};

enum { SHAPE_COUNT = sizeof(shapes) / sizeof(shapes[0]) };

static bool same_floats(const struct backend_buffer *a, uint64_t a_first,
                        const struct backend_buffer *b, uint64_t b_first, uint64_t count)
{
    return memcmp(a->data + a_first, b->data + b_first, count * sizeof(float)) == 0;
}

static bool same_kv(const struct layer *a, const struct layer *b)
{
    const struct kv_shape *shape = &a->kv->shape;
    const size_t bytes = sizeof(uint16_t) * shape->layer_count * shape->kv_head_count *
                         shape->page_count * shape->head_size * KV_PAGE_TOKEN_COUNT;

    return memcmp(a->kv->k, b->kv->k, bytes) == 0 && memcmp(a->kv->v, b->kv->v, bytes) == 0;
}

/* Row `row` of a against row `other` of b. */
static bool same_row(const struct layer *a, uint32_t row, const struct layer *b, uint32_t other)
{
    const uint32_t width = layer_width(&a->shape);
    const uint32_t hidden = a->shape.hidden;
    const uint32_t vocabulary = a->shape.vocabulary;

    return same_floats(a->x, (uint64_t)row * width, b->x, (uint64_t)other * width, width) &&
           same_floats(a->q, (uint64_t)row * width, b->q, (uint64_t)other * width, width) &&
           same_floats(a->h, (uint64_t)row * hidden, b->h, (uint64_t)other * hidden, hidden) &&
           same_floats(a->logits, (uint64_t)row * vocabulary, b->logits,
                       (uint64_t)other * vocabulary, vocabulary);
}

static bool same_rows(const struct layer *a, const struct layer *b, uint32_t count)
{
    bool same = same_kv(a, b);

    for (uint32_t r = 0; r < count; r++) {
        same = same && same_row(a, r, b, r);
    }
    return same;
}

static void test_every_instruction_set_and_thread_count_gives_the_same_bits(void **state)
{
    (void)state;
    for (uint32_t s = 0; s < SHAPE_COUNT; s++) {
        struct layer first;

        assert_int_equal(layer_init(&first, &shapes[s], "scalar", 1, s), STATUS_OK);
        layer_run(&first, 0, ROWS, NULL);
        for (uint32_t i = 0; i < 3 * ISA_NAME_COUNT; i++) {
            struct layer other;

            if (layer_init(&other, &shapes[s], isa_names[i / 3], i % 3 + 1, s) != STATUS_OK) {
                continue;
            }
            layer_run(&other, 0, ROWS, NULL);
            if (!same_rows(&first, &other, ROWS)) {
                fail_msg("shape %u, %s, %u threads", s, isa_names[i / 3], i % 3 + 1);
            }
            layer_finish(&other);
        }
        layer_finish(&first);
    }
}

static void check_rows_one_by_one(const struct layer_shape *shape, uint64_t seed, bool spoil)
{
    struct layer together, alone;
    bool same = true;

    assert_int_equal(layer_init(&together, shape, NULL, 2, seed), STATUS_OK);
    assert_int_equal(layer_init(&alone, shape, NULL, 2, seed), STATUS_OK);
    layer_run(&together, 0, ROWS, NULL);
    if (spoil) {
        /* What a kernel would leave that skips one value of the last row of a batch. */
        together.x->data[(uint64_t)ROWS * layer_width(shape) - 1] = 0.0f;
    }
    for (uint32_t r = 0; r < ROWS; r++) {
        layer_run(&alone, r, 1, NULL);
        same = same && same_row(&together, r, &alone, 0);
    }
    same = same && same_kv(&together, &alone);
    assert_int_equal(same, !spoil);
    layer_finish(&together);
    layer_finish(&alone);
}

static void test_rows_one_by_one_have_the_bits_of_rows_together(void **state)
{
    (void)state;
    for (uint32_t s = 0; s < SHAPE_COUNT; s++) {
        check_rows_one_by_one(&shapes[s], s, false);
    }
}

static void test_one_wrong_value_of_one_row_is_caught(void **state)
{
    (void)state;
    check_rows_one_by_one(&shapes[4], 4, true);
}

/* ---- the same layer in double ---- */

static void norm_row(const double *x, const float *weight, uint32_t count, double *out)
{
    double squares = 0.0;

    for (uint32_t i = 0; i < count; i++) {
        squares += x[i] * x[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        out[i] = x[i] / sqrt(squares / count + (double)LAYER_EPSILON) * (double)weight[i];
    }
}

static void multiply(const float *dense, const double *x, const float *bias, uint32_t rows,
                     uint32_t cols, double *out)
{
    for (uint32_t r = 0; r < rows; r++) {
        out[r] = bias == NULL ? 0.0 : (double)bias[r];
        for (uint32_t c = 0; c < cols; c++) {
            out[r] += (double)dense[(size_t)r * cols + c] * x[c];
        }
    }
}

static void finish_head(const struct layer *layer, const float *norm, uint32_t position,
                        double *head)
{
    const struct layer_shape *shape = &layer->shape;
    const uint32_t pairs = shape->rope_pair_count;

    if (norm != NULL) {
        norm_row(head, norm, shape->head_size, head);
    }
    for (uint32_t i = 0; i < pairs; i++) {
        const bool adjacent = shape->rope_style == ROPE_ADJACENT;
        double *a = head + (adjacent ? 2 * i : i);
        double *b = head + (adjacent ? 2 * i + 1 : i + pairs);
        const double angle = position * layer->inverse_frequency[i];
        const double first = *a * cos(angle) - *b * sin(angle);

        *b = *a * sin(angle) + *b * cos(angle);
        *a = first;
    }
}

struct reference {
    double x[WIDTH_MAX], q[WIDTH_MAX], k[WIDTH_MAX], v[WIDTH_MAX];
    double h[HIDDEN_MAX], logits[HIDDEN_MAX];
};

static void compute(const struct layer *layer, uint32_t row, struct reference *out)
{
    const struct layer_shape *shape = &layer->shape;
    const uint32_t width = layer_width(shape);
    const uint32_t kv_width = shape->kv_head_count * shape->head_size;
    const uint32_t token = (7 * row + 1) % shape->vocabulary;
    double n[WIDTH_MAX], sum[WIDTH_MAX], up[HIDDEN_MAX];

    for (uint32_t c = 0; c < width; c++) {
        out->x[c] = (double)layer->dense[LAYER_TABLE][(size_t)token * width + c];
    }
    norm_row(out->x, layer->norms[0], width, n);
    multiply(layer->dense[LAYER_WQ], n, layer->biases[0], width, width, out->q);
    multiply(layer->dense[LAYER_WK], n, layer->biases[1], kv_width, width, out->k);
    multiply(layer->dense[LAYER_WV], n, layer->biases[2], kv_width, width, out->v);
    for (uint32_t h = 0; h < shape->head_count; h++) {
        finish_head(layer, layer->head_norms[0], 3 * row, out->q + h * shape->head_size);
    }
    for (uint32_t h = 0; h < shape->kv_head_count; h++) {
        finish_head(layer, layer->head_norms[1], 3 * row, out->k + h * shape->head_size);
    }
    multiply(layer->dense[LAYER_WO], out->q, layer->biases[3], width, width, sum);
    for (uint32_t c = 0; c < width; c++) {
        out->x[c] += sum[c];
    }
    norm_row(out->x, layer->norms[1], width, n);
    multiply(layer->dense[LAYER_WG], n, NULL, shape->hidden, width, out->h);
    multiply(layer->dense[LAYER_WU], n, NULL, shape->hidden, width, up);
    for (uint32_t c = 0; c < shape->hidden; c++) {
        out->h[c] = out->h[c] / (1.0 + exp(-out->h[c])) * up[c];
    }
    multiply(layer->dense[LAYER_WD], out->h, NULL, width, shape->hidden, sum);
    for (uint32_t c = 0; c < width; c++) {
        out->x[c] += sum[c];
    }
    norm_row(out->x, layer->norms[2], width, n);
    multiply(layer->dense[LAYER_TABLE], n, NULL, shape->vocabulary, width, out->logits);
}

/* Largest relative error; values below 0.01 count as 0.01. */
static double error_of(const float *got, const double *expected, uint32_t count)
{
    double worst = 0.0;

    for (uint32_t i = 0; i < count; i++) {
        worst = fmax(worst, fabs(got[i] - expected[i]) / fmax(fabs(expected[i]), 0.01));
    }
    return worst;
}

static double kv_error(const struct layer *layer, uint32_t row, const struct reference *reference)
{
    static const uint32_t pages[] = {3, 0, 6, 1, 7, 2, 5, 4};
    const struct layer_shape *shape = &layer->shape;
    const uint32_t page = pages[3 * row / KV_PAGE_TOKEN_COUNT];
    const uint32_t slot = 3 * row % KV_PAGE_TOKEN_COUNT;
    double worst = 0.0;

    for (uint32_t h = 0; h < shape->kv_head_count; h++) {
        const uint16_t *k = cpu_kv_k(layer->kv, 1, h, page);
        const uint16_t *v = cpu_kv_v(layer->kv, 1, h, page);

        for (uint32_t d = 0; d < shape->head_size; d++) {
            const float got[2] = {steps_float_from_half(k[d * KV_PAGE_TOKEN_COUNT + slot]),
                                  steps_float_from_half(v[slot * shape->head_size + d])};
            const double expected[2] = {reference->k[h * shape->head_size + d],
                                        reference->v[h * shape->head_size + d]};

            worst = fmax(worst, error_of(got, expected, 2));
        }
    }
    return worst;
}

/* With F32 weights nothing is rounded but fp32 sums of at most 256 terms, over seven products in a
 * row that partly cancel: 1e-4 relative leaves a factor of ten above what is seen. Half precision
 * adds 2^-11. */
/* An ffn_in that keeps its h to itself, where ffn_out takes it packed. */
static void test_twin_an_h_that_is_not_handed_on_is_caught(void **state)
{
    struct layer right, wrong;
    uint32_t joined_count = 0;

    (void)state;
    assert_int_equal(layer_init(&right, &shapes[0], NULL, 2, 0), STATUS_OK);
    assert_int_equal(layer_init(&wrong, &shapes[0], NULL, 2, 0), STATUS_OK);
    for (uint32_t i = 0; i < wrong.program->op_count; i++) {
        struct cpu_op *op = &wrong.program->ops[i];

        if (op->kind == CPU_OP_ffn_in && op->joined != NULL) {
            op->joined = NULL;
            joined_count++;
        }
    }
    assert_int_equal(joined_count, 1);
    layer_run(&right, 0, ROWS, NULL);
    layer_run(&wrong, 0, ROWS, NULL);
    assert_false(same_rows(&right, &wrong, ROWS));
    layer_finish(&right);
    layer_finish(&wrong);
}

static void test_a_layer_of_floats_is_close_to_double(void **state)
{
    const struct layer_shape *shape = &shapes[0];
    const uint32_t width = layer_width(shape);
    struct reference reference;
    struct layer layer;

    (void)state;
    assert_int_equal(layer_init(&layer, shape, "scalar", 2, 11), STATUS_OK);
    layer_run(&layer, 0, ROWS, NULL);
    for (uint32_t r = 0; r < ROWS; r++) {
        compute(&layer, r, &reference);
        assert_true(error_of(layer.q->data + (size_t)r * width, reference.q, width) < 1e-4);
        assert_true(kv_error(&layer, r, &reference) < 1e-4 + 0x1p-11);
        assert_true(
            error_of(layer.h->data + (size_t)r * shape->hidden, reference.h, shape->hidden) < 1e-4);
        assert_true(error_of(layer.x->data + (size_t)r * width, reference.x, width) < 1e-4);
        assert_true(error_of(layer.logits->data + (size_t)r * shape->vocabulary, reference.logits,
                             shape->vocabulary) < 1e-4);
    }
    layer_finish(&layer);
}

static void test_no_denormal_arises(void **state)
{
    (void)state;
    for (uint32_t s = 0; s < SHAPE_COUNT; s++) {
        const struct backend_buffer *buffers[4];
        struct layer layer;

        assert_int_equal(layer_init(&layer, &shapes[s], NULL, 1, s), STATUS_OK);
        layer_run(&layer, 0, ROWS, NULL);
        buffers[0] = layer.x;
        buffers[1] = layer.q;
        buffers[2] = layer.h;
        buffers[3] = layer.logits;
        for (uint32_t b = 0; b < 4; b++) {
            for (uint64_t i = 0; i < buffers[b]->float_count; i++) {
                assert_int_not_equal(fpclassify(buffers[b]->data[i]), FP_SUBNORMAL);
            }
        }
        layer_finish(&layer);
    }
}

static void test_steps_allocate_nothing(void **state)
{
    struct layer layer;
    uint64_t before;

    (void)state;
    assert_int_equal(layer_init(&layer, &shapes[4], NULL, 2, 1), STATUS_OK);
    before = memory_thread_allocation_count();
    for (uint32_t i = 1; i <= ROWS; i++) {
        layer_run(&layer, 0, i, NULL);
    }
    assert_int_equal(memory_thread_allocation_count(), before);
    layer_finish(&layer);
}

static void test_a_nan_faults_its_own_row_only(void **state)
{
    const struct layer_shape *shape = &shapes[0];
    uint8_t faults[ROWS];
    struct layer layer;

    (void)state;
    assert_int_equal(layer_init(&layer, shape, NULL, 2, 1), STATUS_OK);
    /* Token 15, the token of row 2 and, with 50 ids, of no other row here. */
    for (struct backend_weight *w = layer.backend->weights; w != NULL; w = w->next) {
        if (w->rows == shape->vocabulary) {
            ((float *)(void *)w->panels)[15] = NAN; /* panel 0, column 0, lane 15 */
        }
    }
    layer_run(&layer, 0, ROWS, faults);
    for (uint32_t r = 0; r < ROWS; r++) {
        assert_int_equal(faults[r], (7 * r + 1) % shape->vocabulary == 15);
    }
    layer_finish(&layer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_instruction_set_and_thread_count_gives_the_same_bits),
        cmocka_unit_test(test_rows_one_by_one_have_the_bits_of_rows_together),
        cmocka_unit_test(test_one_wrong_value_of_one_row_is_caught),
        cmocka_unit_test(test_twin_an_h_that_is_not_handed_on_is_caught),
        cmocka_unit_test(test_a_layer_of_floats_is_close_to_double),
        cmocka_unit_test(test_no_denormal_arises),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_a_nan_faults_its_own_row_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
