/* What launches of the matrix product have in common, whatever multiplies.
 *
 * Thread: host functions on the engine thread. Ownership: none.
 */
#ifndef PERSONAD_KERNELS_CUDA_MATMUL_LAUNCH_CUH
#define PERSONAD_KERNELS_CUDA_MATMUL_LAUNCH_CUH

#include "kernels/cuda/matmul.cuh"

static inline uint32_t cuda_launch_panels(const struct cuda_matmul_part *part)
{
    return (part->weight.rows + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS;
}

/* Of all parts: S. */
static inline uint32_t cuda_launch_segments(const struct cuda_matmul_args *args,
                                            uint32_t architecture)
{
    const uint32_t units = args->parts[0].weight.unit_count;
    const uint32_t groups = (units + CUDA_SEGMENT_UNITS - 1) / CUDA_SEGMENT_UNITS;
    const uint32_t wanted = args->variant.segment_count;
    uint32_t rows = 0, bits = 16;

    if (wanted != 0) {
        return wanted < groups ? wanted : groups;
    }
    for (uint32_t i = 0; i < args->part_count; i++) {
        const uint32_t part_bits = cuda_format_bits(args->parts[i].weight.format);

        rows += args->parts[i].weight.rows;
        bits = part_bits < bits ? part_bits : bits;
    }
    return cuda_segment_count(rows, units, bits, architecture);
}

/* Tiles of rows by which a launch is cut. */
static inline uint32_t cuda_launch_tiles(const struct cuda_matmul_args *args)
{
    const uint32_t tiles = (args->row_count + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS;

    return tiles > args->variant.tiles_min ? tiles : args->variant.tiles_min;
}

/* Places the parts' blocks in the grid; gives how many there are. */
static inline uint32_t cuda_launch_blocks(struct cuda_matmul_args *args)
{
    const uint32_t slots = args->shape.slot_count;
    uint32_t blocks = 0;

    if (args->shape.epilogue == CUDA_SWIGLU) {
        return (2 * cuda_launch_panels(&args->parts[0]) + slots - 1) / slots;
    }
    for (uint32_t i = 0; i < args->part_count; i++) {
        args->parts[i].block_first = blocks;
        blocks += (cuda_launch_panels(&args->parts[i]) + slots - 1) / slots;
    }
    return blocks;
}

static inline uint32_t cuda_launch_slot_bytes(const struct cuda_matmul_args *args)
{
    uint32_t most = 0;

    for (uint32_t i = 0; i < args->part_count; i++) {
        const uint32_t format = args->parts[i].weight.format;
        const uint32_t bytes =
            args->shape.stage_units *
                (cuda_unit_load_count(format) * CUDA_LOAD_BYTES + cuda_unit_scale_bytes(format)) +
            cuda_super_bytes(format);

        most = bytes > most ? bytes : most;
    }
    return most;
}

/* wgmma.cu: the same bits by products of warpgroups, for parts of one format on an architecture
 * that has them (cuda_wgmma_serves). */
bool cuda_wgmma_serves(const struct cuda_matmul_args *args, uint32_t architecture);
MUST_USE enum status cuda_wgmma_launch(struct device *device, struct cuda_matmul_args *args);

/* matmul_unpack.cu: unpacks all parts to bf16 in args.unpacked, and makes of args a launch of
 * wgmma.cu over those, with the same bits; what it serves has to be packed, and wgmma.cu to serve
 * its shape. */
bool cuda_unpack_serves(const struct cuda_matmul_args *args, uint32_t architecture);
MUST_USE enum status cuda_unpack(struct device *device, struct cuda_matmul_args *args);

/* matmul_library.cu: by cuBLASLt, args.library being filled. Other bits than mma's, perhaps. */
MUST_USE enum status cuda_library_launch(struct device *device, struct cuda_matmul_args *args);

#endif
