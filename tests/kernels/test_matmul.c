/* Goal: a product's bits are those of the scalar definition, whatever runs it and whatever else is
 * in the batch; and the definition is the product that it claims to be.
 * Method: random weights of every type in ragged shapes, activations in 8 bits and in 16; every
 * instruction set against scalar, and a row alone against the row among others, by memcmp; scalar
 * against double over the dequantised weights within a derived bound. A kernel whose order depends
 * on the number of rows must be caught, and one that forgets the low half of 16 bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows_scalar.h"
#include "kernels/steps/math.h"
#include "support/isa_names.h"
#include "support/random_weight.h"

enum {
    ROW_COUNT_MAX = 26,
    OUTPUT_COUNT_MAX = 64,
    COLS_MAX = 768,
};

static const uint32_t dtypes[] = {
#define X(name, number, elements, bytes) number,
    DTYPE_MAP(X)
#undef X
};

enum { DTYPE_COUNT = sizeof(dtypes) / sizeof(dtypes[0]) };

struct product {
    struct backend_weight *weight;
    bool precise;
    float *dense; /* [rows][cols] */
    float *x;     /* [ROW_COUNT_MAX][cols] */
    float *out;   /* [ROW_COUNT_MAX][OUTPUT_COUNT_MAX] */
};

static void product_init(struct product *product, uint64_t seed, uint32_t dtype, bool precise,
                         uint32_t rows, uint32_t cols)
{
    uint64_t state = seed;
    struct weight_source source = random_weight(&state, dtype, rows, cols);
    const uint64_t row_bytes = source.size_bytes / rows;

    product->precise = precise;
    assert_int_equal(cpu_weight_create(&source, !precise, NULL, NULL, NULL, &product->weight),
                     STATUS_OK);
    product->dense = memory_alloc((size_t)rows * cols, sizeof(float));
    product->x = memory_alloc((size_t)ROW_COUNT_MAX * cols, sizeof(float));
    product->out = memory_alloc((size_t)ROW_COUNT_MAX * OUTPUT_COUNT_MAX, sizeof(float));
    for (uint32_t r = 0; r < rows; r++) {
        dtype_dequantize_row(dtype, (const uint8_t *)source.data + r * row_bytes, cols,
                             product->dense + (size_t)r * cols);
    }
    random_floats(&state, product->x, (size_t)ROW_COUNT_MAX * cols);
    /* One row of zeros, one of tiny and one of large values. */
    for (uint32_t c = 0; c < cols; c++) {
        product->x[cols + c] = 0.0f;
        product->x[2 * cols + c] *= 1e-30f;
        product->x[3 * cols + c] *= 1e6f;
    }
    memory_free((void *)(uintptr_t)source.data);
}

static void product_finish(struct product *product)
{
    cpu_weight_destroy(product->weight);
    memory_free(product->dense);
    memory_free(product->x);
    memory_free(product->out);
}

/* Rows [first, first + count) into out, as the operations do it. */
static void run(const struct cpu_kernels *kernels, const struct product *product, uint32_t first,
                uint32_t count, float *out)
{
    const struct backend_weight *weight = product->weight;
    const uint32_t stride = weight->panel_count * CPU_PANEL_ROWS;
    float part[CPU_TILE_ROWS_MAX * OUTPUT_COUNT_MAX];
    struct cpu_row_forms forms = {0};
    struct cpu_rows *rows;

    assert_true(stride <= OUTPUT_COUNT_MAX);
    assert_int_equal(cpu_rows_create(count, 1, product->precise, kernels->with_words, &rows),
                     STATUS_OK);
    assert_int_equal(cpu_rows_reserve(rows, weight->cols), STATUS_OK);
    cpu_row_forms_add(&forms, weight);
    cpu_rows_begin(rows, count, weight->cols, forms);
    for (uint32_t t = 0; t < rows->tile_count; t++) {
        const struct cpu_tile_part from = {
            .tile = t,
            .col_count = weight->cols,
            .x = product->x + (size_t)(first + t * rows->tile_rows) * weight->cols,
            .stride = weight->cols,
        };
        struct cpu_tile tile;

        kernels->pack(rows, &from);
        cpu_rows_tile(rows, t, &tile);
        kernels->matmul(weight, 0, weight->panel_count, &tile, part);
        for (uint32_t r = 0; r < tile.height; r++) {
            memcpy(out + (size_t)(tile.row_first + r) * weight->rows, part + (size_t)r * stride,
                   weight->rows * sizeof(float));
        }
    }
    cpu_rows_destroy(rows);
}

static const struct cpu_kernels *kernels_of(const char *name)
{
    enum cpu_isa isa;

    return cpu_isa_choose(name, NULL, &isa) == STATUS_OK ? cpu_isa_kernels(isa) : NULL;
}

static bool same_in_all_shapes(const struct cpu_kernels *kernels, uint32_t dtype, bool precise,
                               uint32_t outputs, uint32_t cols)
{
    static const uint32_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 25};
    float expected[ROW_COUNT_MAX * OUTPUT_COUNT_MAX];
    bool same = true;
    struct product product;

    product_init(&product, 7 + dtype, dtype, precise, outputs, cols);
    run(&cpu_kernels_scalar, &product, 0, ROW_COUNT_MAX, expected);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        run(kernels, &product, 0, counts[i], product.out);
        same =
            same && memcmp(product.out, expected, (size_t)counts[i] * outputs * sizeof(float)) == 0;
    }
    product_finish(&product);
    return same;
}

static void check_instruction_set(const char *name, bool precise)
{
    static const uint32_t outputs[] = {1, 15, 16, 17, 49, 64};
    static const uint32_t blocks[] = {1, 3};
    const struct cpu_kernels *kernels = kernels_of(name);

    if (kernels == NULL) {
        print_message("skipped: this machine has no %s\n", name);
        return;
    }
    for (uint32_t d = 0; d < DTYPE_COUNT; d++) {
        const uint32_t elements = dtype_block_elements(dtypes[d]);

        for (size_t o = 0; o < sizeof(outputs) / sizeof(outputs[0]); o++) {
            for (size_t b = 0; b < sizeof(blocks) / sizeof(blocks[0]); b++) {
                const uint32_t cols = elements == 1 ? 37 * blocks[b] : elements * blocks[b];

                if (!same_in_all_shapes(kernels, dtypes[d], precise, outputs[o], cols)) {
                    fail_msg("%s differs from scalar: %s, %u outputs, %u columns", name,
                             dtype_name(dtypes[d]), outputs[o], cols);
                }
            }
        }
    }
}

static void test_all_instruction_sets_equal_scalar_by_memcmp(void **state)
{
    (void)state;
    for (size_t i = 1; i < ISA_NAME_COUNT; i++) {
        check_instruction_set(isa_names[i], false);
        check_instruction_set(isa_names[i], true);
    }
}

/* True when every row alone has the bits that it has among the others. */
static bool rows_are_independent(const struct cpu_kernels *kernels, uint32_t dtype, bool precise)
{
    const uint32_t cols = dtype_block_elements(dtype) == 256 ? 768 : 96;
    const uint32_t outputs = 33;
    float together[ROW_COUNT_MAX * OUTPUT_COUNT_MAX];
    bool same = true;
    struct product product;

    product_init(&product, 99 + dtype, dtype, precise, outputs, cols);
    run(kernels, &product, 0, ROW_COUNT_MAX, together);
    for (uint32_t r = 0; r < ROW_COUNT_MAX; r++) {
        run(kernels, &product, r, 1, product.out);
        same = same &&
               memcmp(product.out, together + (size_t)r * outputs, outputs * sizeof(float)) == 0;
    }
    product_finish(&product);
    return same;
}

static void test_a_row_alone_has_the_bits_it_has_among_others(void **state)
{
    (void)state;
    for (size_t i = 0; i < ISA_NAME_COUNT; i++) {
        const struct cpu_kernels *kernels = kernels_of(isa_names[i]);

        for (uint32_t d = 0; d < DTYPE_COUNT && kernels != NULL; d++) {
            if (!rows_are_independent(kernels, dtypes[d], false) ||
                !rows_are_independent(kernels, dtypes[d], true)) {
                fail_msg("%s: %s", isa_names[i], dtype_name(dtypes[d]));
            }
        }
    }
}

/* Wrong on purpose: with more than one row the blocks are summed in two halves. */
static void matmul_by_row_count(const struct backend_weight *weight, uint32_t panel_first,
                                uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    const uint32_t floats = tile->height * panel_count * CPU_PANEL_ROWS;
    struct cpu_tile first = *tile, second = *tile;
    struct backend_weight rest = *weight;
    float more[CPU_TILE_ROWS_MAX * OUTPUT_COUNT_MAX];

    if (tile->height == 1) {
        cpu_kernels_scalar.matmul(weight, panel_first, panel_count, tile, out);
        return;
    }
    first.block_count = 1;
    second.block_count -= 1;
    second.codes += (size_t)CPU_BLOCK * tile->height;
    if (tile->low_codes != NULL) {
        second.low_codes += (size_t)CPU_BLOCK * tile->height;
    }
    second.scales += tile->height;
    second.sums += tile->height;
    second.code_sums += tile->height;
    /* Q4_1: a block's codes and its scales are 256 and 64 bytes further on. */
    rest.panels += 256;
    rest.scale_offset += 64 - 256;
    cpu_kernels_scalar.matmul(weight, panel_first, panel_count, &first, out);
    cpu_kernels_scalar.matmul(&rest, panel_first, panel_count, &second, more);
    for (uint32_t i = 0; i < floats; i++) {
        out[i] += more[i];
    }
}

static void test_an_order_that_depends_on_the_row_count_is_caught(void **state)
{
    struct cpu_kernels broken = cpu_kernels_scalar;

    (void)state;
    for (uint32_t precise = 0; precise < 2; precise++) {
        broken.matmul = cpu_kernels_scalar.matmul;
        assert_true(rows_are_independent(&broken, DTYPE_Q4_1, precise != 0));
        broken.matmul = matmul_by_row_count;
        assert_false(rows_are_independent(&broken, DTYPE_Q4_1, precise != 0));
    }
}

/* Largest error that the definition allows against exact arithmetic: an int8 activation is off by
 * at most half a step, amax / 254 (one of 16 bits amax / 65024), and by the rounding of x * (127 /
 * amax), here taken as 1 % of that; then 3 roundings a block (or one a column of floats) of at most
 * 2^-24 of the sum of magnitudes so far. Rows of BF16 are off by 2^-9 of a value, and by values
 * below 2^-56. */
static double error_bound(const struct product *product, const float *w, const float *x)
{
    const struct backend_weight *weight = product->weight;
    const bool quantised = weight->format.code_bits != 0;
    const double rounds = quantised ? 6.0 * weight->cols / CPU_BLOCK : weight->cols;
    const double rounding = weight->is_paired ? 0x1p-9 : 0.0;
    const double codes = product->precise ? CPU_PRECISE_CODE_MAX : CPU_CODE_MAX;
    double magnitude = 0.0, steps = 0.0;

    for (uint32_t begin = 0; begin < weight->cols; begin += CPU_BLOCK) {
        double amax = 0.0, sum = 0.0;

        for (uint32_t c = begin; c < weight->cols && c < begin + CPU_BLOCK; c++) {
            amax = fmax(amax, fabs((double)x[c]));
            sum += fabs((double)w[c]);
            magnitude += fabs((double)w[c] * x[c]);
            steps += rounding * fabs((double)w[c] * x[c]);
            steps += weight->is_paired ? 0x1p-56 * fabs((double)w[c]) : 0.0;
        }
        /* A block below 2^-80 counts as zeros. */
        steps += quantised ? (amax < 0x1p-80 ? amax : 1.01 * amax / (2.0 * codes)) * sum : 0.0;
        /* Scales and minimums may cancel in a weight: count what they carry. */
        magnitude += quantised ? 8.0 * amax * sum : 0.0;
    }
    return steps + rounds * 0x1p-24 * magnitude + 1e-37;
}

/* Whether all products of a kernel are as close to double as the definition allows. */
static bool is_close_to_double(const struct cpu_kernels *kernels, uint32_t dtype, bool precise)
{
    const uint32_t cols = dtype_block_elements(dtype) == 256 ? COLS_MAX : 160;
    const uint32_t outputs = 40;
    struct product product;
    bool close = true;

    product_init(&product, 1234 + dtype, dtype, precise, outputs, cols);
    run(kernels, &product, 0, ROW_COUNT_MAX, product.out);
    for (uint32_t r = 0; r < ROW_COUNT_MAX; r++) {
        for (uint32_t o = 0; o < outputs; o++) {
            const float *w = product.dense + (size_t)o * cols;
            const float *x = product.x + (size_t)r * cols;
            double exact = 0.0;

            for (uint32_t c = 0; c < cols; c++) {
                exact += (double)w[c] * x[c];
            }
            close = close && fabs(product.out[(size_t)r * outputs + o] - exact) <=
                                 error_bound(&product, w, x);
        }
    }
    product_finish(&product);
    return close;
}

static void test_products_are_close_to_double(void **state)
{
    (void)state;
    for (uint32_t d = 0; d < DTYPE_COUNT; d++) {
        for (uint32_t precise = 0; precise < 2; precise++) {
            if (!is_close_to_double(&cpu_kernels_scalar, dtypes[d], precise != 0)) {
                fail_msg("%s%s", dtype_name(dtypes[d]), precise != 0 ? " precise" : "");
            }
        }
    }
}

/* A number of BF16 with an exponent from the smallest that may be paired on: what sums of products
 * would be denormals of, were it smaller. */
static uint16_t small_bf16(uint64_t *state)
{
    const uint32_t bits = random_bits(state);

    return (uint16_t)((bits & 0x807fu) | (CPU_BF16_MIN_BITS + ((bits >> 16) % 4 << 7)));
}

/* Weights and rows of the smallest numbers. */
static void small_product_init(struct product *product, uint32_t rows, uint32_t cols)
{
    uint16_t *values = memory_alloc((size_t)rows * cols, sizeof(values[0]));
    uint64_t state = 77;

    for (uint32_t i = 0; i < rows * cols; i++) {
        values[i] = i % 7 == 0 ? 0 : small_bf16(&state);
    }
    const struct weight_source source = {.name = "small",
                                         .dtype = DTYPE_BF16,
                                         .rows = rows,
                                         .cols = cols,
                                         .data = values,
                                         .size_bytes = (uint64_t)rows * cols * sizeof(values[0])};
    *product = (struct product){0};
    assert_int_equal(cpu_weight_create(&source, true, NULL, NULL, NULL, &product->weight),
                     STATUS_OK);
    product->x = memory_alloc((size_t)ROW_COUNT_MAX * cols, sizeof(float));
    product->out = memory_alloc((size_t)ROW_COUNT_MAX * OUTPUT_COUNT_MAX, sizeof(float));
    for (uint32_t i = 0; i < ROW_COUNT_MAX * cols; i++) {
        product->x[i] = steps_float_from_bf16(small_bf16(&state));
    }
    memory_free(values);
}

static void test_no_sum_of_bf16_is_a_denormal(void **state)
{
    enum { ROWS = 48, COLS = 63 };
    float expected[ROW_COUNT_MAX * OUTPUT_COUNT_MAX];
    uint32_t smallest = 0;
    struct product product;

    (void)state;
    small_product_init(&product, ROWS, COLS);
    assert_true(product.weight->is_paired);
    run(&cpu_kernels_scalar, &product, 0, ROW_COUNT_MAX, expected);
    for (uint32_t i = 0; i < ROW_COUNT_MAX * ROWS; i++) {
        assert_true(expected[i] == 0.0f || fabsf(expected[i]) >= 0x1p-126f);
        smallest += fabsf(expected[i]) < 0x1p-106f;
    }
    assert_true(smallest > 0); /* the numbers are as small as they should be */
    for (size_t i = 1; i < ISA_NAME_COUNT; i++) {
        const struct cpu_kernels *kernels = kernels_of(isa_names[i]);

        if (kernels != NULL) {
            run(kernels, &product, 0, ROW_COUNT_MAX, product.out);
            assert_memory_equal(product.out, expected, sizeof(float) * ROW_COUNT_MAX * ROWS);
        }
    }
    product_finish(&product);
}

static void test_smaller_weights_are_not_paired(void **state)
{
    const uint16_t values[2] = {CPU_BF16_MIN_BITS, CPU_BF16_MIN_BITS - 1};
    const struct weight_source source = {.name = "small",
                                         .dtype = DTYPE_BF16,
                                         .rows = 2,
                                         .cols = 1,
                                         .data = values,
                                         .size_bytes = sizeof(values)};
    struct backend_weight *weight;

    (void)state;
    assert_int_equal(cpu_weight_create(&source, true, NULL, NULL, NULL, &weight), STATUS_OK);
    assert_false(weight->is_paired);
    cpu_weight_destroy(weight);
}

/* Wrong on purpose: of each pair the even column first. */
static void matmul_even_first(const struct backend_weight *weight, uint32_t panel_first,
                              uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;

    for (uint32_t i = 0; i < tile->height * stride; i++) {
        const uint32_t row = i / stride, lane = i % stride % CPU_PANEL_ROWS;
        const uint8_t *panel = cpu_weight_panel(weight, panel_first + i % stride / CPU_PANEL_ROWS);

        out[i] = 0.0f;
        for (uint32_t k = 0; k < weight->cols; k++) {
            out[i] = fmaf(cpu_weight_float(weight, panel, lane, k),
                          tile->paired[(size_t)k * tile->height + row], out[i]);
        }
    }
}

static void test_pairs_in_another_order_are_caught(void **state)
{
    struct cpu_kernels broken = cpu_kernels_scalar;

    (void)state;
    assert_true(same_in_all_shapes(&broken, DTYPE_BF16, false, 16, 37));
    broken.matmul = matmul_even_first;
    assert_false(same_in_all_shapes(&broken, DTYPE_BF16, false, 16, 37));
}

/* Wrong on purpose: takes the high codes for all there is. */
static void matmul_high_only(const struct backend_weight *weight, uint32_t panel_first,
                             uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    static const int8_t zeros[CPU_TILE_ROWS_MAX * COLS_MAX];
    struct cpu_tile high = *tile;

    if (tile->low_codes != NULL) {
        high.low_codes = zeros;
    }
    cpu_kernels_scalar.matmul(weight, panel_first, panel_count, &high, out);
}

static void test_low_codes_that_are_forgotten_are_caught(void **state)
{
    struct cpu_kernels broken = cpu_kernels_scalar;

    (void)state;
    broken.matmul = matmul_high_only;
    for (uint32_t d = 0; d < DTYPE_COUNT; d++) {
        const bool is_float = dtype_block_elements(dtypes[d]) == 1;

        assert_true(is_close_to_double(&broken, dtypes[d], false));
        assert_int_equal(is_close_to_double(&broken, dtypes[d], true), is_float);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_instruction_sets_equal_scalar_by_memcmp),
        cmocka_unit_test(test_a_row_alone_has_the_bits_it_has_among_others),
        cmocka_unit_test(test_an_order_that_depends_on_the_row_count_is_caught),
        cmocka_unit_test(test_products_are_close_to_double),
        cmocka_unit_test(test_no_sum_of_bf16_is_a_denormal),
        cmocka_unit_test(test_smaller_weights_are_not_paired),
        cmocka_unit_test(test_pairs_in_another_order_are_caught),
        cmocka_unit_test(test_low_codes_that_are_forgotten_are_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
