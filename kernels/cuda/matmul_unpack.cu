/* Matrices unpacked to bf16 for a launch of many rows, which then multiplies panels of bf16.
 *
 * Maths and shapes: struct cuda_matmul_args in matmul.cuh.
 * Bound by: memory: the codes are read once, two bytes an element are written and read again. Who
 *           multiplies codes unpacks them once for every 128 or 256 rows instead.
 * Launch:   grid = panels of all parts, block = UNPACK_WARPS warps; a warp takes a unit in turn.
 *           Then wgmma.cu, which lets no weight come before that is done.
 * Order:    matmul.cuh: the operands of a step are those that cuda_fragment makes, and the segments
 *           are those of the stored format, so that every bit is mma's.
 * Checked:  tests/emulator/test_wgmma.cpp, against matmul.cu by memcmp.
 *
 * A step's operand of a panel is 512 bytes, one lane's 16 after another: which is how a panel of
 * bf16 is stored. Panels of the parts follow each other.
 */
#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/matmul_launch.cuh"

#include "base/check.h"

enum { UNPACK_WARPS = 8, UNPACK_THREADS = UNPACK_WARPS * CUDA_WARP_LANES };

struct unpack_view {
    struct cuda_weight_view weights[CUDA_PART_COUNT_MAX];
    uint32_t panel_counts[CUDA_PART_COUNT_MAX];
    uint32_t part_count;
    struct cuda_words *to; /* [panel][unit][step][lane] */
};

template <uint32_t FORMAT>
DEVICE_INLINE void unpack_panel(const struct cuda_weight_view &view, uint32_t panel,
                                struct cuda_words *to)
{
    const uint32_t loads = cuda_unit_load_count(FORMAT), lane = PRIM_THREAD % CUDA_WARP_LANES;

    for (uint32_t unit = PRIM_THREAD / CUDA_WARP_LANES; unit < view.unit_count;
         unit += UNPACK_WARPS) {
        const uint64_t at = (uint64_t)panel * view.unit_count + unit;
        const struct cuda_words *codes =
            (const struct cuda_words *)(view.codes + at * loads * CUDA_LOAD_BYTES) + lane;
        const uint8_t *scales = view.scales + at * cuda_unit_scale_bytes(FORMAT);
        const uint8_t *super = cuda_weight_super<FORMAT>(view, panel, unit);

        PRIM_UNROLL
        for (uint32_t step = 0; step < CUDA_UNIT_STEPS; step++) {
            const struct cuda_words words = codes[step * loads / CUDA_UNIT_STEPS * CUDA_WARP_LANES];
            struct cuda_words operand;

            cuda_fragment<FORMAT>(
                words, step, cuda_lane_scales<FORMAT>(scales, super, step, lane / 4), operand.at);
            to[(unit * CUDA_UNIT_STEPS + step) * CUDA_WARP_LANES + lane] = operand;
        }
    }
}

static KERNEL void PRIM_BOUNDS(UNPACK_THREADS, 1)
    unpack_kernel(const PRIM_GRID_CONSTANT struct unpack_view view)
{
    uint32_t part = 0, panel = PRIM_BLOCK_X;

    prim_depend_wait(); /* who reads what was here before is done */
    while (part + 1 < view.part_count && panel >= view.panel_counts[part]) {
        panel -= view.panel_counts[part];
        part++;
    }
    const struct cuda_weight_view &weight = view.weights[part];
    struct cuda_words *to =
        view.to + (uint64_t)PRIM_BLOCK_X * weight.unit_count * CUDA_UNIT_STEPS * CUDA_WARP_LANES;

    switch (weight.format) {
    case CUDA_Q4_0:
        unpack_panel<CUDA_Q4_0>(weight, panel, to);
        break;
    case CUDA_Q4_1:
        unpack_panel<CUDA_Q4_1>(weight, panel, to);
        break;
    case CUDA_Q8_0:
        unpack_panel<CUDA_Q8_0>(weight, panel, to);
        break;
    case CUDA_Q4_K:
        unpack_panel<CUDA_Q4_K>(weight, panel, to);
        break;
    case CUDA_Q5_K:
        unpack_panel<CUDA_Q5_K>(weight, panel, to);
        break;
    case CUDA_Q6_K:
        unpack_panel<CUDA_Q6_K>(weight, panel, to);
        break;
    default:
        unpack_panel<CUDA_FP8>(weight, panel, to);
        break;
    }
    prim_depend_launch();
}

bool cuda_unpack_serves(const struct cuda_matmul_args *args, uint32_t architecture)
{
    bool is_packed = args->unpacked != NULL;

    for (uint32_t i = 0; i < args->part_count; i++) {
        is_packed = is_packed && !cuda_format_is_plain(args->parts[i].weight.format);
    }
    return is_packed && cuda_wgmma_serves(args, architecture);
}

enum status cuda_unpack(struct device *device, struct cuda_matmul_args *args)
{
    struct unpack_view view = {};
    uint32_t panel_count = 0;
    uint64_t at = 0;

    args->variant.segment_count =
        cuda_launch_segments(args, device_read_facts(device)->architecture);
    view.part_count = args->part_count;
    view.to = (struct cuda_words *)args->unpacked;
    for (uint32_t i = 0; i < args->part_count; i++) {
        struct cuda_weight_view *weight = &args->parts[i].weight;

        view.weights[i] = *weight;
        view.panel_counts[i] = cuda_launch_panels(&args->parts[i]);
        panel_count += view.panel_counts[i];
        weight->codes = args->unpacked + at;
        weight->scales = NULL;
        weight->supers = NULL;
        at += cuda_unpacked_bytes(weight);
        weight->format = CUDA_BF16;
    }
    args->weights_are_new = 1;
    return device_launch<unpack_kernel>(device, panel_count, 1, UNPACK_THREADS, 0, view);
}
