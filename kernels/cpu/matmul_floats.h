/* Float weights times float rows: which panels and rows are multiplied at once. Thread: any.
 *
 * Included once by each of {avx2,neon}/matmul_floats.c, which define MATMUL_FLOATS (the function's
 * name) and multiply. Four panels side by side for one row, four rows side by side for more, hide
 * the latency of the chains.
 */
#ifndef PERSONAD_KERNELS_CPU_MATMUL_FLOATS_H
#define PERSONAD_KERNELS_CPU_MATMUL_FLOATS_H

#ifndef MATMUL_FLOATS
#error "is part of {avx2,neon}/matmul_floats.c"
#endif

#include "kernels/cpu/expand.h"
#include "kernels/cpu/kernels.h"

enum { ROWS_MAX = 4, PANELS_MAX = 4 };

enum { DTYPE_BF16_PAIRED = 256 }; /* beyond those of files */

/* The shape of an expansion. */
struct shape {
    uint32_t dtype;
    uint32_t panels;
    uint32_t rows;
};

/* A paired column holds two, of which the odd one is multiplied first. */
static CPU_EXPAND uint32_t columns_a_load(uint32_t dtype)
{
    return dtype == DTYPE_BF16_PAIRED ? 2 : 1;
}

static CPU_EXPAND uint32_t load_bytes(uint32_t dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_BF16_PAIRED ? 64 : 32;
}

/* What the rows of an expansion read: the tile from some row on. */
struct rows {
    const float *values; /* paired: rounded */
    uint32_t height;     /* of the whole tile: from column to column */
    uint32_t cols;
};

/* shape.panels panels from `panel` on times shape.rows rows, to out[row * stride + output]. */
static CPU_EXPAND void multiply(struct shape shape, const struct backend_weight *weight,
                                uint32_t panel, struct rows rows, float *out, uint32_t stride);

#define SHAPE(dtype, panels, rows_)                                                        \
    case 8 * panels + rows_:                                                               \
        multiply((struct shape){dtype, panels, rows_}, weight, panel, *rows, out, stride); \
        break;

#define FUNCTION(name, dtype)                                                                  \
    static void name(const struct backend_weight *weight, uint32_t panel, uint32_t panels,     \
                     const struct rows *rows, uint32_t row_count, float *out, uint32_t stride) \
    {                                                                                          \
        switch (8 * panels + row_count) {                                                      \
            SHAPE(dtype, 4, 1)                                                                 \
            SHAPE(dtype, 1, 1)                                                                 \
            SHAPE(dtype, 1, 2)                                                                 \
            SHAPE(dtype, 1, 3)                                                                 \
            SHAPE(dtype, 1, 4)                                                                 \
        }                                                                                      \
    }

FUNCTION(f32, DTYPE_F32)
FUNCTION(f16, DTYPE_F16)
FUNCTION(bf16, DTYPE_BF16)
FUNCTION(bf16_paired, DTYPE_BF16_PAIRED)

static void run(const struct backend_weight *weight, uint32_t panel, uint32_t panels,
                const struct rows *rows, uint32_t row_count, float *out, uint32_t stride)
{
    if (weight->dtype == DTYPE_F32) {
        f32(weight, panel, panels, rows, row_count, out, stride);
    } else if (weight->dtype == DTYPE_F16) {
        f16(weight, panel, panels, rows, row_count, out, stride);
    } else if (weight->is_paired) {
        bf16_paired(weight, panel, panels, rows, row_count, out, stride);
    } else {
        bf16(weight, panel, panels, rows, row_count, out, stride);
    }
}

void MATMUL_FLOATS(const struct backend_weight *weight, uint32_t panel_first, uint32_t panel_count,
                   const struct cpu_tile *tile, float *out)
{
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;

    for (uint32_t r = 0; r < tile->height; r += ROWS_MAX) {
        const uint32_t left = tile->height - r;
        const uint32_t row_count = left < ROWS_MAX ? left : ROWS_MAX;
        const float *values = weight->is_paired ? tile->paired : tile->values;
        const struct rows rows = {values + r, tile->height, tile->cols};
        uint32_t p = 0;

        while (p < panel_count) {
            const uint32_t panels =
                row_count == 1 && panel_count - p >= PANELS_MAX ? PANELS_MAX : 1;

            run(weight, panel_first + p, panels, &rows, row_count,
                out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS, stride);
            p += panels;
        }
    }
}

#endif
