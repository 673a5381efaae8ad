/* F32, F16 and BF16 weights times float rows: one ascending chain of fused multiply-adds a value.
 * Four panels side by side for one row, four rows side by side for more, hide the chain's latency.
 */
#include "kernels/cpu/neon/matmul.h"

#include "kernels/cpu/expand.h"
#include "kernels/cpu/neon/math.h"

enum { REGISTERS = CPU_PANEL_ROWS / NEON_LANES, ROWS_MAX = 4, PANELS_MAX = 4 };

/* The shape of an expansion. */
struct shape {
    uint32_t dtype;
    uint32_t panels;
    uint32_t rows;
};

/* What the rows of an expansion read: the tile from some row on. */
struct rows {
    const float *values;
    uint32_t height; /* of the whole tile: from column to column */
    uint32_t cols;
};

static CPU_EXPAND float32x4_t load_column(uint32_t dtype, const uint8_t *column, uint32_t i)
{
    if (dtype == DTYPE_F32) {
        return vld1q_f32((const float *)(const void *)column + (size_t)i * NEON_LANES);
    }
    const uint16_t *halves = (const uint16_t *)(const void *)column + (size_t)i * NEON_LANES;
    if (dtype == DTYPE_F16) {
        return neon_halves(halves);
    }
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(halves), 16));
}

static CPU_EXPAND void multiply(const struct shape shape, const struct backend_weight *weight,
                                uint32_t panel, struct rows rows, float *out, uint32_t stride)
{
    const uint32_t column_bytes = shape.dtype == DTYPE_F32 ? 64 : 32;
    const uint8_t *columns[PANELS_MAX];
    float32x4_t acc[PANELS_MAX][ROWS_MAX][REGISTERS];

    CPU_UNROLL(4)
    for (uint32_t p = 0; p < shape.panels; p++) {
        columns[p] = cpu_weight_panel(weight, panel + p);
        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape.rows; r++) {
            CPU_UNROLL(4)
            for (uint32_t i = 0; i < REGISTERS; i++) {
                acc[p][r][i] = vdupq_n_f32(0.0f);
            }
        }
    }
    for (uint32_t k = 0; k < rows.cols; k++) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            CPU_UNROLL(4)
            for (uint32_t i = 0; i < REGISTERS; i++) {
                const float32x4_t w = load_column(shape.dtype, columns[p], i);

                CPU_UNROLL(4)
                for (uint32_t r = 0; r < shape.rows; r++) {
                    acc[p][r][i] = neon_fma(w, vdupq_n_f32(rows.values[r]), acc[p][r][i]);
                }
            }
            columns[p] += column_bytes;
        }
        rows.values += rows.height;
    }
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape.rows; r++) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            CPU_UNROLL(4)
            for (uint32_t i = 0; i < REGISTERS; i++) {
                vst1q_f32(out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS +
                              (size_t)i * NEON_LANES,
                          acc[p][r][i]);
            }
        }
    }
}

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

static void run(const struct backend_weight *weight, uint32_t panel, uint32_t panels,
                const struct rows *rows, uint32_t row_count, float *out, uint32_t stride)
{
    if (weight->dtype == DTYPE_F32) {
        f32(weight, panel, panels, rows, row_count, out, stride);
    } else if (weight->dtype == DTYPE_F16) {
        f16(weight, panel, panels, rows, row_count, out, stride);
    } else {
        bf16(weight, panel, panels, rows, row_count, out, stride);
    }
}

void neon_matmul_floats(const struct backend_weight *weight, uint32_t panel_first,
                        uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;

    for (uint32_t r = 0; r < tile->height; r += ROWS_MAX) {
        const uint32_t left = tile->height - r;
        const uint32_t row_count = left < ROWS_MAX ? left : ROWS_MAX;
        const struct rows rows = {tile->values + r, tile->height, tile->cols};
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
