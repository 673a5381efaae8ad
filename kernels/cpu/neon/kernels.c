/* The tables of NEON, one a form of integer products. */
#include "kernels/cpu/kernels.h"

#include "kernels/cpu/neon/matmul.h"

#define TABLE(name)                                                                          \
    static void name##_matmul(const struct backend_weight *weight, uint32_t panel_first,     \
                              uint32_t panel_count, const struct cpu_tile *tile, float *out) \
    {                                                                                        \
        if (weight->format.code_bits == 0) {                                                 \
            neon_matmul_floats(weight, panel_first, panel_count, tile, out);                 \
        } else {                                                                             \
            name##_matmul_codes(weight, panel_first, panel_count, tile, out);                \
        }                                                                                    \
    }                                                                                        \
    const struct cpu_kernels cpu_kernels_##name = {                                          \
        .rms_norm = neon_rms_norm,                                                           \
        .pack = neon_pack,                                                                   \
        .matmul = name##_matmul,                                                             \
        .silu_multiply = neon_silu_multiply,                                                 \
        .rotate = neon_rotate,                                                               \
        .round_to_half = neon_round_to_half,                                                 \
        .round_to_bf16 = neon_round_to_bf16,                                                 \
    };

TABLE(neon)
TABLE(dotprod)
TABLE(i8mm)
