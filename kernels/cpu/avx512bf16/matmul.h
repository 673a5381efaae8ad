/* The matrix product of BF16 by AVX-512 BF16; all else of this set is AVX-512's. Thread: any.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX512BF16_MATMUL_H
#define PERSONAD_KERNELS_CPU_AVX512BF16_MATMUL_H

#include "kernels/cpu/kernels.h"

/* out as struct cpu_kernels; the tile holds words. */
void avx512bf16_matmul_pairs(const struct backend_weight *weight, uint32_t panel_first,
                             uint32_t panel_count, const struct cpu_tile *tile, float *out);

#endif
