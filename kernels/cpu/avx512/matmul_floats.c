/* F32, F16 and BF16 weights times float rows: one ascending chain of fused multiply-adds a value.
 *
 * Bound by: for one row the weights' bytes; the panels side by side hide the chain's latency.
 */
#include <immintrin.h>

#include "kernels/cpu/avx512/matmul.h"
#include "kernels/cpu/expand.h"

enum { PANELS_MAX = 4, TALL_PANELS = 2, LOW_ROWS_MAX = 6 };

/* The shape of an expansion. */
struct shape {
    uint32_t dtype;
    uint32_t panels;
    uint32_t rows;
};

static CPU_EXPAND __m512 load_column(uint32_t dtype, const uint8_t *column)
{
    if (dtype == DTYPE_F32) {
        return _mm512_load_ps((const float *)column);
    }
    if (dtype == DTYPE_F16) {
        return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)column));
    }
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i *)column)), 16));
}

static CPU_EXPAND void multiply(const struct shape shape, const struct backend_weight *weight,
                                uint32_t panel, const struct cpu_tile *tile, float *out,
                                uint32_t stride)
{
    const uint32_t column_bytes = shape.dtype == DTYPE_F32 ? 64 : 32;
    const float *x = tile->values;
    const uint8_t *columns[PANELS_MAX];
    __m512 acc[PANELS_MAX][CPU_TILE_ROWS_MAX];

    CPU_UNROLL(4)
    for (uint32_t p = 0; p < shape.panels; p++) {
        columns[p] = cpu_weight_panel(weight, panel + p);
        CPU_UNROLL(12)
        for (uint32_t r = 0; r < shape.rows; r++) {
            acc[p][r] = _mm512_setzero_ps();
        }
    }
    for (uint32_t k = 0; k < tile->cols; k++) {
        __m512 w[PANELS_MAX];

        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            w[p] = load_column(shape.dtype, columns[p]);
            /* The panels after these: see matmul_codes.c. */
            _mm_prefetch((const char *)columns[p] + shape.panels * weight->panel_bytes,
                         _MM_HINT_T1);
            columns[p] += column_bytes;
        }
        CPU_UNROLL(12)
        for (uint32_t r = 0; r < shape.rows; r++) {
            const __m512 value = _mm512_set1_ps(x[r]);

            CPU_UNROLL(4)
            for (uint32_t p = 0; p < shape.panels; p++) {
                acc[p][r] = _mm512_fmadd_ps(w[p], value, acc[p][r]);
            }
        }
        x += shape.rows;
    }
    CPU_UNROLL(12)
    for (uint32_t r = 0; r < shape.rows; r++) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            _mm512_storeu_ps(out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS, acc[p][r]);
        }
    }
}

#define ROWS(dtype, panels, rows)                                                        \
    case rows:                                                                           \
        multiply((struct shape){dtype, panels, rows}, weight, panel, tile, out, stride); \
        break;

#define LOW_ROWS(dtype, panels) \
    ROWS(dtype, panels, 1)      \
    ROWS(dtype, panels, 2)      \
    ROWS(dtype, panels, 3)      \
    ROWS(dtype, panels, 4)      \
    ROWS(dtype, panels, 5)      \
    ROWS(dtype, panels, 6)

#define ALL_ROWS(dtype, panels) \
    LOW_ROWS(dtype, panels)     \
    ROWS(dtype, panels, 7)      \
    ROWS(dtype, panels, 8)      \
    ROWS(dtype, panels, 9)      \
    ROWS(dtype, panels, 10)     \
    ROWS(dtype, panels, 11)     \
    ROWS(dtype, panels, 12)

#define FUNCTION(name, rows)                                                   \
    static void name(const struct backend_weight *weight, uint32_t panel,      \
                     const struct cpu_tile *tile, float *out, uint32_t stride) \
    {                                                                          \
        switch (tile->height) {                                                \
            rows                                                               \
        }                                                                      \
    }

FUNCTION(f32_four, LOW_ROWS(DTYPE_F32, 4))
FUNCTION(f32_two, ALL_ROWS(DTYPE_F32, 2))
FUNCTION(f32_one, ALL_ROWS(DTYPE_F32, 1))
FUNCTION(f16_four, LOW_ROWS(DTYPE_F16, 4))
FUNCTION(f16_two, ALL_ROWS(DTYPE_F16, 2))
FUNCTION(f16_one, ALL_ROWS(DTYPE_F16, 1))
FUNCTION(bf16_four, LOW_ROWS(DTYPE_BF16, 4))
FUNCTION(bf16_two, ALL_ROWS(DTYPE_BF16, 2))
FUNCTION(bf16_one, ALL_ROWS(DTYPE_BF16, 1))

struct functions {
    void (*one)(const struct backend_weight *weight, uint32_t panel, const struct cpu_tile *tile,
                float *out, uint32_t stride);
    void (*two)(const struct backend_weight *weight, uint32_t panel, const struct cpu_tile *tile,
                float *out, uint32_t stride);
    void (*four)(const struct backend_weight *weight, uint32_t panel, const struct cpu_tile *tile,
                 float *out, uint32_t stride);
};

void avx512_matmul_floats(const struct backend_weight *weight, uint32_t panel_first,
                          uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    const struct functions functions =
        weight->dtype == DTYPE_F32   ? (struct functions){f32_one, f32_two, f32_four}
        : weight->dtype == DTYPE_F16 ? (struct functions){f16_one, f16_two, f16_four}
                                     : (struct functions){bf16_one, bf16_two, bf16_four};
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;
    uint32_t p = 0;

    if (tile->height <= LOW_ROWS_MAX) {
        for (; p + PANELS_MAX <= panel_count; p += PANELS_MAX) {
            functions.four(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
        }
    }
    for (; p + TALL_PANELS <= panel_count; p += TALL_PANELS) {
        functions.two(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
    }
    for (; p < panel_count; p++) {
        functions.one(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
    }
}
