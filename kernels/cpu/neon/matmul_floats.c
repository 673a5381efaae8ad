/* F32, F16 and BF16 weights times float rows: one chain of fused multiply-adds a value, ascending,
 * or the odd column of each pair before the even one.
 */
#include "kernels/cpu/neon/matmul.h"

#include "kernels/cpu/neon/math.h"

#define MATMUL_FLOATS neon_matmul_floats
#include "kernels/cpu/matmul_floats.h"

enum { REGISTERS = CPU_PANEL_ROWS / NEON_LANES };

static CPU_EXPAND float32x4_t load_column(uint32_t dtype, const uint8_t *column, uint32_t i,
                                          uint32_t of_pair)
{
    if (dtype == DTYPE_BF16_PAIRED) {
        const uint32x4_t pairs =
            vld1q_u32((const uint32_t *)(const void *)column + (size_t)i * NEON_LANES);

        return vreinterpretq_f32_u32(of_pair == 1 ? vandq_u32(pairs, vdupq_n_u32(0xffff0000u))
                                                  : vshlq_n_u32(pairs, 16));
    }
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
    const uint32_t step = columns_a_load(shape.dtype);
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
    for (uint32_t k = 0; k < rows.cols; k += step) {
        CPU_UNROLL(4)
        for (uint32_t p = 0; p < shape.panels; p++) {
            CPU_UNROLL(8)
            for (uint32_t i = 0; i < step * REGISTERS; i++) {
                const uint32_t j = step - 1 - i / REGISTERS;
                const float32x4_t w = load_column(shape.dtype, columns[p], i % REGISTERS, j);
                const float *x = rows.values + (size_t)j * rows.height;

                CPU_UNROLL(4)
                for (uint32_t r = 0; r < shape.rows; r++) {
                    acc[p][r][i % REGISTERS] =
                        neon_fma(w, vdupq_n_f32(x[r]), acc[p][r][i % REGISTERS]);
                }
            }
            columns[p] += load_bytes(shape.dtype);
        }
        rows.values += (size_t)step * rows.height;
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
