/* F32, F16 and BF16 weights times float rows: one ascending chain of fused multiply-adds a value.
 * Four panels side by side for one row, four rows side by side for more, hide the chain's latency.
 */
#include <immintrin.h>

#include "kernels/cpu/avx2/matmul.h"
#include "kernels/cpu/expand.h"

enum { LANES = 8, ROWS_MAX = 4, PANELS_MAX = 4 };

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

static CPU_EXPAND __m256 load_column(uint32_t dtype, const uint8_t *column, uint32_t half)
{
    if (dtype == DTYPE_F32) {
        return _mm256_load_ps((const float *)column + (size_t)half * LANES);
    }
    const __m128i raw = _mm_load_si128((const __m128i *)column + half);
    if (dtype == DTYPE_F16) {
        return _mm256_cvtph_ps(raw);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}

static CPU_EXPAND void multiply(const struct shape shape, const struct backend_weight *weight,
                                uint32_t panel, struct rows rows, float *out, uint32_t stride)
{
    const uint32_t column_bytes = shape.dtype == DTYPE_F32 ? 64 : 32;
    const uint8_t *columns[PANELS_MAX];
    __m256 acc[PANELS_MAX][ROWS_MAX][2];

    CPU_UNROLL(4)
    for (uint32_t p = 0; p < shape.panels; p++) {
        columns[p] = cpu_weight_panel(weight, panel + p);
        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape.rows; r++) {
            acc[p][r][0] = _mm256_setzero_ps();
            acc[p][r][1] = _mm256_setzero_ps();
        }
    }
    for (uint32_t k = 0; k < rows.cols; k++) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            const __m256 low = load_column(shape.dtype, columns[p], 0);
            const __m256 high = load_column(shape.dtype, columns[p], 1);

            _mm_prefetch((const char *)columns[p] + shape.panels * weight->panel_bytes,
                         _MM_HINT_T1);
            columns[p] += column_bytes;
            CPU_UNROLL(4)
            for (uint32_t r = 0; r < shape.rows; r++) {
                const __m256 value = _mm256_set1_ps(rows.values[r]);

                acc[p][r][0] = _mm256_fmadd_ps(low, value, acc[p][r][0]);
                acc[p][r][1] = _mm256_fmadd_ps(high, value, acc[p][r][1]);
            }
        }
        rows.values += rows.height;
    }
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape.rows; r++) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            float *to = out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS;

            _mm256_storeu_ps(to, acc[p][r][0]);
            _mm256_storeu_ps(to + LANES, acc[p][r][1]);
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

void avx2_matmul_floats(const struct backend_weight *weight, uint32_t panel_first,
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
