/* The matrix product by AVX2: two registers are the 16 rows of a panel. Thread: any, no state.
 *
 * Blocks and columns run in the order of the scalar definition (../matmul.c), so that the bits are
 * the same.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX2_MATMUL_H
#define PERSONAD_KERNELS_CPU_AVX2_MATMUL_H

#include "kernels/cpu/kernels.h"

/* Quantised weights (matmul_codes.c) and floats (matmul_floats.c); out as struct cpu_kernels. */
void avx2_matmul_codes(const struct backend_weight *weight, uint32_t panel_first,
                       uint32_t panel_count, const struct cpu_tile *tile, float *out);
void avx2_matmul_floats(const struct backend_weight *weight, uint32_t panel_first,
                        uint32_t panel_count, const struct cpu_tile *tile, float *out);

/* rows.c */
void avx2_rms_norm(const float *x, const float *norm, float epsilon, uint32_t cols, float *out);
void avx2_pack(struct cpu_rows *rows, const struct cpu_tile_part *part);
void avx2_silu_multiply(float *gate, const float *up, uint32_t count);
void avx2_rotate(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                 enum rope_style style);
bool avx2_round_to_half(const float *x, uint32_t count, uint16_t *out);
bool avx2_round_to_bf16(const float *x, uint32_t count, uint16_t *out);

#endif
