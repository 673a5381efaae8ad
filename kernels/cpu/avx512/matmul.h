/* The matrix product by AVX-512 VNNI: a register is the 16 rows of a panel. Thread: any, no state.
 *
 * A tile of rows is multiplied while a panel's codes are in registers; blocks and columns run in
 * the order of the scalar definition (../matmul.c), so that the bits are the same.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX512_MATMUL_H
#define PERSONAD_KERNELS_CPU_AVX512_MATMUL_H

#include <stdbool.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/rows_scalar.h"

/* Quantised weights (matmul_codes.c), floats (matmul_floats.c), paired BF16 (matmul_pairs.c); out
 * as struct cpu_kernels. */
void avx512_matmul_codes(const struct backend_weight *weight, uint32_t panel_first,
                         uint32_t panel_count, const struct cpu_tile *tile, float *out);
void avx512_matmul_floats(const struct backend_weight *weight, uint32_t panel_first,
                          uint32_t panel_count, const struct cpu_tile *tile, float *out);
void avx512_matmul_pairs(const struct backend_weight *weight, uint32_t panel_first,
                         uint32_t panel_count, const struct cpu_tile *tile, float *out);

/* rows.c */
void avx512_rms_norm(const float *x, const float *norm, float epsilon, uint32_t cols, float *out);
void avx512_pack(struct cpu_rows *rows, const struct cpu_tile_part *part);
/* quantise.c: all blocks of a part in 8 bits; false, and nothing done, where they are less than 8.
 */
bool avx512_pack_eights(const struct cpu_rows *rows, const struct cpu_tile_part *part);
void avx512_silu_multiply(float *gate, const float *up, uint32_t count);
void avx512_rotate(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                   enum rope_style style);
bool avx512_round_to_half(const float *x, uint32_t count, uint16_t *out);
bool avx512_round_to_bf16(const float *x, uint32_t count, uint16_t *out);

#endif
