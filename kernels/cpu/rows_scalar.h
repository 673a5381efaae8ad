/* The scalar kernels around the matrix products, shared with the vector versions, which use them
 * for what is left over at the end of a row. kernels.h has the maths. Thread: any, no state.
 */
#ifndef PERSONAD_KERNELS_CPU_ROWS_SCALAR_H
#define PERSONAD_KERNELS_CPU_ROWS_SCALAR_H

#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/weight.h"
#include "kernels/steps/math.h"

#define CPU_INFINITY_BITS 0x7f800000u
#define CPU_QUANTISE_MIN 0x1p-80f /* below it a block is 0, so that no scale is a denormal */

/* One quantised block of 32; sums as struct cpu_rows has them (the code sums negated). */
struct cpu_block_codes {
    int8_t codes[CPU_BLOCK];     /* precise: the high parts */
    int8_t low_codes[CPU_BLOCK]; /* written by precise quantising only */
    float scale;
    float sum;
    int32_t half_sums[2];
};

/* Where one row lies inside its tile, from some column on: the next k, or the next block, is
 * `height` further on. */
struct cpu_row_place {
    uint32_t height;
    float *values;
    float *paired;
    uint32_t *words;
    int8_t *codes;     /* blocks are 32 * height apart */
    int8_t *low_codes; /* NULL: not precise */
    float *scales;
    float *sums;
    int32_t *code_sums;
    int32_t *half_sums; /* block b, half j: [(2 b + j) * height] */
};

/* col: a multiple of 32. */
void cpu_row_place(const struct cpu_rows *rows, uint32_t row, uint32_t col,
                   struct cpu_row_place *out);

void cpu_rms_norm_scalar(const float *x, const float *norm, float epsilon, uint32_t cols,
                         float *out);
void cpu_quantise_block_scalar(const float *x, struct cpu_block_codes *out);
void cpu_quantise_precise_scalar(const float *x, struct cpu_block_codes *out);

/* Packs a part of a tile, its blocks quantised by one of the given functions. */
void cpu_pack(struct cpu_rows *rows, const struct cpu_tile_part *part,
              void (*quantise)(const float *x, struct cpu_block_codes *out),
              void (*quantise_precise)(const float *x, struct cpu_block_codes *out));

/* What it does first: floats and pairs. */
void cpu_pack_numbers(const struct cpu_rows *rows, const struct cpu_tile_part *part);
void cpu_pack_scalar(struct cpu_rows *rows, const struct cpu_tile_part *part);
void cpu_silu_multiply_scalar(float *gate, const float *up, uint32_t count);
void cpu_rotate_scalar(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                       enum rope_style style);
bool cpu_round_to_half_scalar(const float *x, uint32_t count, uint16_t *out);
bool cpu_round_to_bf16_scalar(const float *x, uint32_t count, uint16_t *out);

/* A number as rows, keys and values of BF16 have it; a NaN stays one. */
static inline uint16_t cpu_nearest_bf16(float value)
{
    const uint16_t bits = steps_bf16_from_float(value);

    return (bits & 0x7fffu) < CPU_BF16_MIN_BITS ? 0 : bits;
}

/* round_to_bf16 of kernels.h, in integers alone, so that compilers make vectors of it wherever it
 * is expanded. */
static inline bool cpu_round_to_bf16(const float *x, uint32_t count, uint16_t *out)
{
    uint32_t nan_count = 0;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t bits = steps_bits_from_float(x[i]);
        const uint32_t magnitude = bits & 0x7fffffffu;
        const uint32_t is_nan = magnitude > CPU_INFINITY_BITS ? 1 : 0;
        uint32_t rounded = (magnitude + 0x7fffu + (magnitude >> 16 & 1u)) >> 16;

        rounded = rounded > CPU_BF16_MAX_BITS ? CPU_BF16_MAX_BITS : rounded;
        rounded = rounded < CPU_BF16_MIN_BITS || is_nan != 0 ? 0 : rounded | (bits >> 16 & 0x8000u);
        out[i] = (uint16_t)rounded;
        nan_count += is_nan;
    }
    return nan_count != 0;
}

#endif
