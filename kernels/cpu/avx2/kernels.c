/* The table of AVX2. */
#include "kernels/cpu/kernels.h"

#include "kernels/cpu/avx2/matmul.h"

static void matmul(const struct backend_weight *weight, uint32_t panel_first, uint32_t panel_count,
                   const struct cpu_tile *tile, float *out)
{
    if (weight->format.code_bits == 0) {
        avx2_matmul_floats(weight, panel_first, panel_count, tile, out);
    } else {
        avx2_matmul_codes(weight, panel_first, panel_count, tile, out);
    }
}

const struct cpu_kernels cpu_kernels_avx2 = {
    .rms_norm = avx2_rms_norm,
    .pack = avx2_pack,
    .matmul = matmul,
    .silu_multiply = avx2_silu_multiply,
    .rotate = avx2_rotate,
    .round_to_half = avx2_round_to_half,
    .round_to_bf16 = avx2_round_to_bf16,
};
