/* The matrix product, scalar: what defines the bits of every format (kernels.h has the order). */
#include <math.h>
#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/rows_scalar.h"

/* Codes of one block of a panel, a column after the other. */
static void read_codes(const struct backend_weight *weight, const uint8_t *panel, uint32_t block,
                       uint8_t codes[CPU_BLOCK][CPU_PANEL_ROWS])
{
    for (uint32_t k = 0; k < CPU_BLOCK; k++) {
        for (uint32_t lane = 0; lane < CPU_PANEL_ROWS; lane++) {
            codes[k][lane] = (uint8_t)cpu_weight_code(weight, panel, lane, block * CPU_BLOCK + k);
        }
    }
}

/* Sum of code * x over the columns [from, to) of a block, less the offset's share. `at`: which
 * block of which row of the tile. */
static int32_t dot(uint8_t codes[CPU_BLOCK][CPU_PANEL_ROWS], uint32_t lane,
                   const struct cpu_tile *tile, uint64_t at, uint32_t from, uint32_t to,
                   int32_t offset_sum)
{
    const int8_t *x = tile->codes + at * CPU_BLOCK;
    const int8_t *low = tile->low_codes == NULL ? NULL : tile->low_codes + at * CPU_BLOCK;
    int32_t sum = offset_sum;

    for (uint32_t k = from; k < to; k++) {
        const int32_t value = low == NULL ? x[k] : CPU_CODE_RADIX * x[k] + low[k];

        sum += (int32_t)codes[k][lane] * value;
    }
    return sum;
}

static void block_times_rows(const struct backend_weight *weight, const uint8_t *panel,
                             uint32_t block, const struct cpu_tile *tile, float *out,
                             uint32_t out_stride)
{
    const enum cpu_scale kind = weight->format.scale;
    const bool has_minimum = kind == SCALE_HALF_MIN || kind == SCALE_K;
    const int32_t offset = has_minimum ? 0 : 1 << weight->format.offset_shift;
    const uint32_t part = kind == SCALE_K6 ? CPU_BLOCK / 2 : CPU_BLOCK;
    uint8_t codes[CPU_BLOCK][CPU_PANEL_ROWS];

    read_codes(weight, panel, block, codes);
    for (uint32_t lane = 0; lane < CPU_PANEL_ROWS; lane++) {
        for (uint32_t from = 0; from < CPU_BLOCK; from += part) {
            const uint32_t half = from / (CPU_BLOCK / 2);
            const struct cpu_block_scale w =
                cpu_weight_scale(weight, panel, lane, 2 * block + half);

            for (uint32_t r = 0; r < tile->height; r++) {
                const uint64_t at = (uint64_t)block * tile->height + r;
                const int32_t minus_sum =
                    kind == SCALE_K6
                        ? tile->half_sums[(2 * (uint64_t)block + half) * tile->height + r]
                        : tile->code_sums[at];
                const int32_t product =
                    dot(codes, lane, tile, at, from, from + part, offset * minus_sum);
                float *acc = out + (uint64_t)r * out_stride + lane;

                *acc = fmaf(w.scale * tile->scales[at], (float)product, *acc);
                if (has_minimum) {
                    *acc = fmaf(w.minimum, tile->sums[at], *acc);
                }
            }
        }
    }
}

static void column_times_rows(const struct backend_weight *weight, const uint8_t *panel, uint32_t k,
                              const struct cpu_tile *tile, float *out, uint32_t out_stride)
{
    for (uint32_t lane = 0; lane < CPU_PANEL_ROWS; lane++) {
        const float w = cpu_weight_float(weight, panel, lane, k);

        for (uint32_t r = 0; r < tile->height; r++) {
            float *acc = out + (uint64_t)r * out_stride + lane;

            *acc = fmaf(w, tile->values[(uint64_t)k * tile->height + r], *acc);
        }
    }
}

/* The odd column first: so dot products of BF16 pairs add. */
static void pair_times_rows(const struct backend_weight *weight, const uint8_t *panel, uint32_t k,
                            const struct cpu_tile *tile, float *out, uint32_t out_stride)
{
    for (uint32_t lane = 0; lane < CPU_PANEL_ROWS; lane++) {
        const float even = cpu_weight_float(weight, panel, lane, k);
        const float odd = cpu_weight_float(weight, panel, lane, k + 1);

        for (uint32_t r = 0; r < tile->height; r++) {
            const float *x = tile->paired + (uint64_t)k * tile->height + r;
            float *acc = out + (uint64_t)r * out_stride + lane;

            *acc = fmaf(odd, x[tile->height], *acc);
            *acc = fmaf(even, x[0], *acc);
        }
    }
}

static void matmul_scalar(const struct backend_weight *weight, uint32_t panel_first,
                          uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;

    memset(out, 0, (size_t)tile->height * stride * sizeof(out[0]));
    for (uint32_t p = 0; p < panel_count; p++) {
        const uint8_t *panel = cpu_weight_panel(weight, panel_first + p);
        float *to = out + (size_t)p * CPU_PANEL_ROWS;

        if (weight->is_paired) {
            for (uint32_t k = 0; k < weight->cols; k += 2) {
                pair_times_rows(weight, panel, k, tile, to, stride);
            }
        } else if (weight->format.code_bits == 0) {
            for (uint32_t k = 0; k < weight->cols; k++) {
                column_times_rows(weight, panel, k, tile, to, stride);
            }
        } else {
            for (uint32_t b = 0; b < tile->block_count; b++) {
                block_times_rows(weight, panel, b, tile, to, stride);
            }
        }
    }
}

const struct cpu_kernels cpu_kernels_scalar = {
    .rms_norm = cpu_rms_norm_scalar,
    .pack = cpu_pack_scalar,
    .matmul = matmul_scalar,
    .silu_multiply = cpu_silu_multiply_scalar,
    .rotate = cpu_rotate_scalar,
    .round_to_half = cpu_round_to_half_scalar,
    .round_to_bf16 = cpu_round_to_bf16_scalar,
};
