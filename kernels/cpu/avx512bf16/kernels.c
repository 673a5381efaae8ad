/* The table of AVX-512 VNNI and BF16. */
#include "kernels/cpu/kernels.h"

#include "kernels/cpu/avx512/matmul.h"
#include "kernels/cpu/avx512bf16/matmul.h"

static void matmul(const struct backend_weight *weight, uint32_t panel_first, uint32_t panel_count,
                   const struct cpu_tile *tile, float *out)
{
    if (weight->is_paired) {
        avx512bf16_matmul_pairs(weight, panel_first, panel_count, tile, out);
    } else {
        cpu_kernels_avx512.matmul(weight, panel_first, panel_count, tile, out);
    }
}

const struct cpu_kernels cpu_kernels_avx512bf16 = {
    .with_words = true,
    .rms_norm = avx512_rms_norm,
    .pack = avx512_pack,
    .matmul = matmul,
    .silu_multiply = avx512_silu_multiply,
    .rotate = avx512_rotate,
    .round_to_half = avx512_round_to_half,
    .round_to_bf16 = avx512_round_to_bf16,
};
