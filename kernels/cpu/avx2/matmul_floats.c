/* F32, F16 and BF16 weights times float rows: one chain of fused multiply-adds a value, ascending,
 * or the odd column of each pair before the even one.
 */
#include <immintrin.h>

#include "kernels/cpu/avx2/matmul.h"

#define MATMUL_FLOATS avx2_matmul_floats
#include "kernels/cpu/matmul_floats.h"

enum { LANES = 8 };

static CPU_EXPAND __m256 load_column(uint32_t dtype, const uint8_t *column, uint32_t half,
                                     uint32_t of_pair)
{
    if (dtype == DTYPE_BF16_PAIRED) {
        const __m256i pairs = _mm256_load_si256((const __m256i *)column + half);

        return _mm256_castsi256_ps(of_pair == 1 ? _mm256_and_si256(pairs, _mm256_set1_epi32(-65536))
                                                : _mm256_slli_epi32(pairs, 16));
    }
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
    const uint32_t step = columns_a_load(shape.dtype);
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
    for (uint32_t k = 0; k < rows.cols; k += step) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            CPU_UNROLL(2)
            for (uint32_t j = step; j-- > 0;) {
                const __m256 low = load_column(shape.dtype, columns[p], 0, j);
                const __m256 high = load_column(shape.dtype, columns[p], 1, j);

                CPU_UNROLL(4)
                for (uint32_t r = 0; r < shape.rows; r++) {
                    const __m256 value = _mm256_set1_ps(rows.values[(size_t)j * rows.height + r]);

                    acc[p][r][0] = _mm256_fmadd_ps(low, value, acc[p][r][0]);
                    acc[p][r][1] = _mm256_fmadd_ps(high, value, acc[p][r][1]);
                }
            }
            _mm_prefetch((const char *)columns[p] + shape.panels * weight->panel_bytes,
                         _MM_HINT_T1);
            columns[p] += load_bytes(shape.dtype);
        }
        rows.values += (size_t)step * rows.height;
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
