/* What an instruction set provides to the matrix operations. Every function equals the scalar one
 * by memcmp (a NaN's sign and payload aside). Thread: called by workers; no state.
 */
#ifndef PERSONAD_KERNELS_CPU_KERNELS_H
#define PERSONAD_KERNELS_CPU_KERNELS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/weight.h"

struct cpu_kernels {
    bool with_words; /* paired rows as words (rows.h) */

    /* out[c] = x[c] * inverse * norm[c], inverse = 1 / sqrtf(mean(x^2) + epsilon). Squares are
     * summed by fmaf in 16 lanes (lane = c mod 16) and folded 8, 4, 2, 1. */
    void (*rms_norm)(const float *x, const float *norm, float epsilon, uint32_t cols, float *out);

    /* Packs a part of one tile into `rows` (rows.h), into the forms that cpu_rows_begin() asked
     * for. */
    void (*pack)(struct cpu_rows *rows, const struct cpu_tile_part *part);

    /* out[r][16 p + lane] for the tile's rows r and panels panel_first + p. Quantised, blocks
     * ascending from 0:  s = scale_w * scale_x;  acc = fmaf(s, (float)dot, acc);
     * then with a minimum  acc = fmaf(minimum, sum_x, acc);  dot is the exact integer product of
     * (code - offset) and the activation codes. SCALE_K6 does it for each half block. Floats:
     * one ascending chain of fmaf(w, x, acc) over k. Paired BF16: the same over rows rounded to
     * BF16, of each pair of columns the odd one first, which is what vdpbf16ps computes where
     * nothing is a denormal (rows.h). */
    void (*matmul)(const struct backend_weight *weight, uint32_t panel_first, uint32_t panel_count,
                   const struct cpu_tile *tile, float *out);

    /* gate[i] = silu(gate[i]) * up[i], silu(z) = (z >= 0 ? z : z * e) / (1 + e), e = exp(-|z|). */
    void (*silu_multiply)(float *gate, const float *up, uint32_t count);

    /* Rotates pair_count pairs of one head in place: (a, b) becomes
     * (fmaf(a, cos, -(b * sin)), fmaf(a, sin, b * cos)). */
    void (*rotate)(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                   enum rope_style style);

    /* out[i] = steps_half_from_float(x[i]), 0 for a NaN; answers whether there was one. */
    bool (*round_to_half)(const float *x, uint32_t count, uint16_t *out);

    /* The same to BF16: what is then smaller than 2^-56 is 0 (rows.h), what is larger than all
     * finite numbers the largest of them. */
    bool (*round_to_bf16)(const float *x, uint32_t count, uint16_t *out);
};

extern const struct cpu_kernels cpu_kernels_scalar;
extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avx512;
extern const struct cpu_kernels cpu_kernels_avx512bf16;
extern const struct cpu_kernels cpu_kernels_neon;
extern const struct cpu_kernels cpu_kernels_dotprod;
extern const struct cpu_kernels cpu_kernels_i8mm;

#endif
