/* The matrix product by NEON: four registers are the 16 rows of a panel. Thread: any, no state.
 *
 * Blocks and columns run in the order of the scalar definition (../matmul.c), so that the bits are
 * the same. Integer products come in three forms, which matmul_codes.h is compiled for: multiplies
 * of bytes into 16 bits (all processors), sdot (FEAT_DotProd), smmla (FEAT_I8MM).
 */
#ifndef PERSONAD_KERNELS_CPU_NEON_MATMUL_H
#define PERSONAD_KERNELS_CPU_NEON_MATMUL_H

#include "kernels/cpu/kernels.h"

/* Quantised weights; out as struct cpu_kernels. */
void neon_matmul_codes(const struct backend_weight *weight, uint32_t panel_first,
                       uint32_t panel_count, const struct cpu_tile *tile, float *out);
void dotprod_matmul_codes(const struct backend_weight *weight, uint32_t panel_first,
                          uint32_t panel_count, const struct cpu_tile *tile, float *out);
void i8mm_matmul_codes(const struct backend_weight *weight, uint32_t panel_first,
                       uint32_t panel_count, const struct cpu_tile *tile, float *out);

/* Floats. */
void neon_matmul_floats(const struct backend_weight *weight, uint32_t panel_first,
                        uint32_t panel_count, const struct cpu_tile *tile, float *out);

/* rows.c */
void neon_rms_norm(const float *x, const float *norm, float epsilon, uint32_t cols, float *out);
void neon_pack(struct cpu_rows *rows, const struct cpu_tile_part *part);
void neon_silu_multiply(float *gate, const float *up, uint32_t count);
void neon_rotate(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                 enum rope_style style);
bool neon_round_to_half(const float *x, uint32_t count, uint16_t *out);
bool neon_round_to_bf16(const float *x, uint32_t count, uint16_t *out);

#endif
