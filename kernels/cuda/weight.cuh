/* Weights as the CUDA backend holds them: panels of 16 output rows, cut into units of 64 columns,
 * so that one 16-byte load of a lane is its part of the A operand of a tensor-core step. Quantised
 * types stay quantised, F16 and BF16 as they are; the others are rounded once to bf16. Missing rows
 * of the last panel and missing columns of the last unit are zero.
 *
 * Thread: made and freed by the engine thread; read by kernels through the view.
 *
 * Lane l of a warp holds rows l / 4 and l / 4 + 8. Element e = 0..7 of its fragment of one step of
 * 16 columns is row l / 4 + 8 * (e / 2 % 2), column 2 * (l % 4) + e % 2 + 8 * (e / 4).
 *
 *   codes   [panel][unit][load][lane] 16 bytes: 1 load of 4 steps (4-bit codes, element e in bits
 *           4e), 2 loads of 2 steps (8-bit), 4 loads of 1 step (bf16, f16)
 *   scales  [panel][unit][l / 4], of both rows of the lane (the lower first), by the format:
 *     Q4_0, Q8_0  [block of 32][row] half scale
 *     Q4_1        [block of 32][row] { half scale; half minimum }
 *     Q4_K, Q5_K  [block of 32][row] { u8 scale; u8 minimum }
 *     Q6_K        [step][row] s8 scale
 *   supers  [panel][4 units][l / 4]: Q4_K, Q5_K [row] { half d; half dmin };  Q6_K [row] half d
 *           FP8: [panel][l / 4][row] float, the row's scale times 2^120
 *
 * FP8 is e4m3 with a power of two for each row, so that a weight is rounded once, when it is made.
 */
#ifndef PERSONAD_KERNELS_CUDA_WEIGHT_CUH
#define PERSONAD_KERNELS_CUDA_WEIGHT_CUH

#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/cuda/prim.cuh"
#include "kernels/provider_table.h"
#include "kernels/steps/math.h"

enum {
    CUDA_PANEL_ROWS = 16,
    CUDA_UNIT_COLS = 64,
    CUDA_STEP_COLS = 16, /* of one tensor-core step */
    CUDA_UNIT_STEPS = CUDA_UNIT_COLS / CUDA_STEP_COLS,
    CUDA_SUPER_UNITS = 4,
    CUDA_LOAD_BYTES = 512, /* of a warp: 32 lanes of 16 bytes */
};

/* How the codes of a weight are stored. Q5_0, Q5_1, F32 and BF16 are all CUDA_BF16. */
enum cuda_format {
    CUDA_BF16,
    CUDA_Q4_0,
    CUDA_Q4_1,
    CUDA_Q8_0, /* codes + 128 */
    CUDA_Q4_K,
    CUDA_Q5_K,
    CUDA_Q6_K,
    CUDA_FP8,
    CUDA_F16,
    /* How a kernel may read CUDA_F16; no weight has it. For a launch with matrices of other types,
     * whose activations are bf16: rounded to it. */
    CUDA_F16_ROUNDED,
};

#define X(name) +1
static_assert(0 PROVIDER_TYPE_MAP(X) == CUDA_F16_ROUNDED, "a name for each: provider_table.h");
#undef X

/* By value in kernel arguments; the pointers are the device's. */
struct cuda_weight_view {
    const uint8_t *codes;
    const uint8_t *scales;
    const uint8_t *supers;
    uint32_t format; /* enum cuda_format */
    uint32_t rows;
    uint32_t cols;
    uint32_t unit_count; /* of a panel: ceil(cols / 64) */
};

struct backend_weight {
    struct backend *backend;
    struct backend_weight *next; /* the backend's list */
    uint32_t dtype;
    uint8_t *data; /* owned, device memory: codes, scales, supers */
    uint64_t data_bytes;
    struct cuda_weight_view view;
};

/* Repacks and uploads. UNSUPPORTED for a type outside enum dtype or columns that its blocks do not
 * divide; BAD_INPUT when the size does not fit the shape; MEMORY, with the numbers; DEVICE. */
MUST_USE enum status cuda_weight_create(struct backend *backend, const struct weight_source *source,
                                        struct error *error, struct backend_weight **out);
void cuda_weight_destroy(struct backend_weight *weight); /* NULL is fine */

/* The parts of the repacking that need no device. Bytes of one panel and unit: */
struct cuda_weight_layout {
    uint32_t format;
    uint32_t panel_count;
    uint32_t unit_count;
    uint32_t super_count; /* of a panel; 0 without supers */
    uint32_t unit_code_bytes;
    uint32_t unit_scale_bytes;
    uint32_t super_bytes;
    uint64_t scale_offset; /* in the data */
    uint64_t super_offset;
    uint64_t bytes;
};

void cuda_weight_get_layout(uint32_t format, uint32_t rows, uint32_t cols,
                            struct cuda_weight_layout *out);

/* Lays panels [panel_begin, panel_begin + panel_count) at the three places, which are zero before.
 */
struct cuda_weight_places {
    uint8_t *codes;
    uint8_t *scales;
    uint8_t *supers;
};

MUST_USE enum status cuda_weight_repack(const struct weight_source *source,
                                        const struct cuda_weight_layout *layout,
                                        uint32_t panel_begin, uint32_t panel_count,
                                        const struct cuda_weight_places *to);

/* matmul_library.cu: BF16 or F16, row by row, to `to`, [rows][unit_count * CUDA_UNIT_COLS]. */
MUST_USE enum status cuda_weight_copy_plain(struct device *device,
                                            const struct cuda_weight_view *view, uint16_t *to);

/* value = scale * code - minimum for the K types, scale * code + minimum for Q4_1. */
struct cuda_scale {
    float scale;
    float minimum;
};

/* Numbers of 16 bits, without scales. */
STEPS_FUNCTION bool cuda_format_is_plain(uint32_t format)
{
    return format == CUDA_BF16 || format == CUDA_F16 || format == CUDA_F16_ROUNDED;
}

STEPS_FUNCTION uint32_t cuda_unit_load_count(uint32_t format)
{
    return cuda_format_is_plain(format)                                        ? 4
           : format == CUDA_Q4_0 || format == CUDA_Q4_1 || format == CUDA_Q4_K ? 1
                                                                               : 2;
}

/* Bytes of a unit's scales, and of a super's. */
STEPS_FUNCTION uint32_t cuda_unit_scale_bytes(uint32_t format)
{
    return cuda_format_is_plain(format) || format == CUDA_FP8 ? 0 : format == CUDA_Q4_1 ? 128 : 64;
}

STEPS_FUNCTION uint32_t cuda_super_bytes(uint32_t format)
{
    return format == CUDA_Q4_K || format == CUDA_Q5_K || format == CUDA_FP8 ? 64
           : format == CUDA_Q6_K                                            ? 32
                                                                            : 0;
}

/* Of a panel. */
STEPS_FUNCTION uint32_t cuda_super_count(uint32_t format, uint32_t unit_count)
{
    if (cuda_super_bytes(format) == 0) {
        return 0;
    }
    return format == CUDA_FP8 ? 1 : (unit_count + CUDA_SUPER_UNITS - 1) / CUDA_SUPER_UNITS;
}

/* Where the super that holds a unit of a panel lies. */
template <uint32_t FORMAT>
DEVICE_INLINE const uint8_t *cuda_weight_super(const struct cuda_weight_view &view, uint32_t panel,
                                               uint32_t unit)
{
    const uint32_t within = FORMAT == CUDA_FP8 ? 0 : unit / CUDA_SUPER_UNITS;

    return view.supers + ((uint64_t)panel * cuda_super_count(FORMAT, view.unit_count) + within) *
                             cuda_super_bytes(FORMAT);
}

DEVICE_INLINE float cuda_half(uint32_t bits)
{
    return prim_float_from_half((uint16_t)bits);
}

/* Scale and minimum for step `step` (0..3) of a unit, of row `high` (0, 1) of lane group `group`
 * (0..7). `scales` is the unit's, `super` the super's that holds it. Exact in every format. */
template <uint32_t FORMAT>
DEVICE_INLINE struct cuda_scale cuda_weight_scale(const uint8_t *scales, const uint8_t *super,
                                                  uint32_t step, uint32_t group, uint32_t high)
{
    const uint32_t at = (group * 2 + step / 2) * 2 + high;
    struct cuda_scale scale = {0.0f, 0.0f};

    if (FORMAT == CUDA_Q4_0 || FORMAT == CUDA_Q8_0) {
        scale.scale = cuda_half(((const uint16_t *)scales)[at]);
    } else if (FORMAT == CUDA_Q4_1) {
        const uint32_t both = ((const uint32_t *)scales)[at];

        scale.scale = cuda_half(both & 0xffffu);
        scale.minimum = cuda_half(both >> 16);
    } else if (FORMAT == CUDA_Q4_K || FORMAT == CUDA_Q5_K) {
        const uint32_t both = ((const uint16_t *)scales)[at];
        const uint32_t d = ((const uint32_t *)super)[group * 2 + high];

        scale.scale = cuda_half(d & 0xffffu) * (float)(both & 255u);
        scale.minimum = cuda_half(d >> 16) * (float)(both >> 8);
    } else if (FORMAT == CUDA_Q6_K) {
        const int32_t sub = (int8_t)scales[(group * 4 + step) * 2 + high];

        scale.scale = cuda_half(((const uint16_t *)super)[group * 2 + high]) * (float)sub;
    } else if (FORMAT == CUDA_FP8) {
        scale.scale = ((const float *)super)[group * 2 + high];
    }
    return scale;
}

/* The value of a code, as dtype_dequantize_row makes it. */
template <uint32_t FORMAT>
DEVICE_INLINE float cuda_weight_value(uint32_t code, const struct cuda_scale &scale)
{
    if (FORMAT == CUDA_Q4_0) {
        return scale.scale * (float)((int32_t)code - 8);
    }
    if (FORMAT == CUDA_Q8_0) {
        return scale.scale * (float)((int32_t)code - 128);
    }
    if (FORMAT == CUDA_Q6_K) {
        return scale.scale * (float)((int32_t)code - 32);
    }
    if (FORMAT == CUDA_Q4_1) {
        return scale.scale * (float)code + scale.minimum;
    }
    if (FORMAT == CUDA_FP8) {
        return scale.scale * steps_float_from_bits((code & 128u) << 24 | (code & 127u) << 20);
    }
    return scale.scale * (float)code - scale.minimum;
}

#endif
