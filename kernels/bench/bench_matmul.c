/* How fast a matrix product runs: one line a type, shape and number of rows, for one thread.
 *
 *   bench_matmul [isa [repeats [precise [type]]]]
 *
 * Time is processor time, the smallest of the repeats. GB/s counts the packed weights once, GOP/s
 * two operations a multiply-add. The weights of one shape are many copies (as many as layers in a
 * model), so that they come from memory as in a decode step.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/memory.h"
#include "kernels/cpu/isa.h"

enum {
    COPIES_BYTES = 96 * 1024 * 1024, /* more than the last cache holds */
    COPY_COUNT_MAX = 64,
    GROUP = 4,
};

struct shape {
    uint32_t rows;
    uint32_t cols;
};

/* What is measured. */
struct variant {
    const struct cpu_kernels *kernels;
    bool is_precise;
};

struct load {
    struct backend_weight *copies[COPY_COUNT_MAX];
    uint32_t copy_count;
    struct cpu_rows *rows;
    float *out;
};

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Any bytes are weights; the halves among them must be ordinary numbers, or the time is that of
 * infinities. */
static void fill_weights(uint32_t dtype, uint8_t *bytes, uint64_t size)
{
    uint64_t state = 1;

    for (uint64_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)next_random(&state);
        if (dtype == DTYPE_F16 || dtype == DTYPE_F32 || dtype == DTYPE_BF16 || i % 2 == 1) {
            bytes[i] &= 0x3f;
        }
        if (dtype == DTYPE_BF16 && i % 2 == 1) {
            bytes[i] = 0x3c; /* all of it exponent: others would be denormals, or nearly */
        }
    }
}

static int load_create(uint32_t dtype, const struct shape *shape, uint32_t row_count,
                       const struct variant *variant, struct load *load)
{
    struct weight_source source = {
        .name = "bench", .dtype = dtype, .rows = shape->rows, .cols = shape->cols};
    struct cpu_row_forms forms = {0};
    uint8_t *bytes;
    uint64_t state = 2;
    float *x;

    source.size_bytes = (uint64_t)shape->rows * (shape->cols / dtype_block_elements(dtype)) *
                        dtype_block_bytes(dtype);
    bytes = memory_alloc(source.size_bytes, 1);
    x = memory_alloc((size_t)row_count * shape->cols, sizeof(x[0]));
    load->out = memory_alloc((size_t)CPU_TILE_ROWS_MAX * GROUP * CPU_PANEL_ROWS, sizeof(float));
    if (bytes == NULL || x == NULL || load->out == NULL) {
        return 1;
    }
    fill_weights(dtype, bytes, source.size_bytes);
    source.data = bytes;
    load->copy_count = (uint32_t)(COPIES_BYTES / source.size_bytes) + 1;
    load->copy_count = load->copy_count < COPY_COUNT_MAX ? load->copy_count : COPY_COUNT_MAX;
    for (uint32_t i = 0; i < load->copy_count; i++) {
        if (cpu_weight_create(&source, !variant->is_precise, NULL, NULL, NULL, &load->copies[i]) !=
            STATUS_OK) {
            return 1;
        }
    }
    if (cpu_rows_create(row_count, 1, variant->is_precise, variant->kernels->with_words,
                        &load->rows) != STATUS_OK ||
        cpu_rows_reserve(load->rows, shape->cols) != STATUS_OK) {
        return 1;
    }
    cpu_row_forms_add(&forms, load->copies[0]);
    cpu_rows_begin(load->rows, row_count, shape->cols, forms);
    for (uint64_t i = 0; i < (uint64_t)row_count * shape->cols; i++) {
        x[i] = (float)(int32_t)(next_random(&state) % 2001) / 1000.0f - 1.0f;
    }
    for (uint32_t t = 0; t < load->rows->tile_count; t++) {
        const struct cpu_tile_part part = {
            .tile = t,
            .col_count = shape->cols,
            .x = x + (uint64_t)t * load->rows->tile_rows * shape->cols,
            .stride = shape->cols,
        };

        variant->kernels->pack(load->rows, &part);
    }
    memory_free(bytes);
    memory_free(x);
    return 0;
}

static void load_destroy(struct load *load)
{
    for (uint32_t i = 0; i < load->copy_count; i++) {
        cpu_weight_destroy(load->copies[i]);
    }
    cpu_rows_destroy(load->rows);
    memory_free(load->out);
    memset(load, 0, sizeof(*load));
}

/* All copies once. */
static double run_once(const struct cpu_kernels *kernels, const struct load *load)
{
    const double begin = now_s();

    for (uint32_t i = 0; i < load->copy_count; i++) {
        const struct backend_weight *weight = load->copies[i];

        for (uint32_t p = 0; p < weight->panel_count; p += GROUP) {
            const uint32_t left = weight->panel_count - p;

            for (uint32_t t = 0; t < load->rows->tile_count; t++) {
                struct cpu_tile tile;

                cpu_rows_tile(load->rows, t, &tile);
                kernels->matmul(weight, p, left < GROUP ? left : GROUP, &tile, load->out);
            }
        }
    }
    return now_s() - begin;
}

static int bench(const struct variant *variant, uint32_t dtype, const struct shape *shape,
                 uint32_t row_count, uint32_t repeats)
{
    struct load load = {0};
    double best = 1e9;
    double bytes, operations;

    if (load_create(dtype, shape, row_count, variant, &load) != 0) {
        load_destroy(&load);
        fprintf(stderr, "bench_matmul: out of memory\n");
        return 1;
    }
    for (uint32_t i = 0; i < repeats; i++) {
        const double seconds = run_once(variant->kernels, &load);

        best = seconds < best ? seconds : best;
    }
    bytes = (double)load.copies[0]->panel_bytes * load.copies[0]->panel_count * load.copy_count;
    operations = 2.0 * shape->rows * shape->cols * row_count * load.copy_count;
    printf("%-5s %6" PRIu32 " x %-5" PRIu32 " rows %3" PRIu32 "  %7.2f GB/s  %8.1f GOP/s\n",
           dtype_name(dtype), shape->rows, shape->cols, row_count, bytes / best * 1e-9,
           operations / best * 1e-9);
    load_destroy(&load);
    return 0;
}

static int bench_type(const struct variant *variant, uint32_t dtype, uint32_t repeats)
{
    static const struct shape shapes[] = {{576, 576}, {1536, 576}, {576, 1536}, {2048, 2048}};
    static const uint32_t row_counts[] = {1, 4, 6, 12, 16, 64};

    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        if (shapes[s].cols % dtype_block_elements(dtype) != 0) {
            continue;
        }
        for (size_t r = 0; r < sizeof(row_counts) / sizeof(row_counts[0]); r++) {
            if (bench(variant, dtype, &shapes[s], row_counts[r], repeats)) {
                return 1;
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static const uint32_t dtypes[] = {DTYPE_Q4_0, DTYPE_Q4_1, DTYPE_Q8_0, DTYPE_Q5_0, DTYPE_Q5_1,
                                      DTYPE_Q4_K, DTYPE_Q5_K, DTYPE_Q6_K, DTYPE_F16,  DTYPE_BF16};
    const uint32_t repeats = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 5;
    const char *type = argc > 4 ? argv[4] : NULL;
    struct variant variant = {.is_precise = argc > 3 && strcmp(argv[3], "precise") == 0};
    struct error error;
    enum cpu_isa isa;

    if (cpu_isa_choose(argc > 1 ? argv[1] : NULL, &error, &isa) != STATUS_OK) {
        fprintf(stderr, "bench_matmul: %s\n", error.text);
        return 1;
    }
    variant.kernels = cpu_isa_kernels(isa);
    for (size_t d = 0; d < sizeof(dtypes) / sizeof(dtypes[0]); d++) {
        if (type != NULL && strcmp(type, dtype_name(dtypes[d])) != 0) {
            continue;
        }
        if (bench_type(&variant, dtypes[d], repeats) != 0) {
            return 1;
        }
    }
    return 0;
}
