/* What a block of the matrix product does: streams its panels and the rows through shared memory,
 * multiplies what has come, and leaves the warps' sums there.
 *
 * Thread: kernels of matmul.cu; all threads of a block together. Format of shared memory:
 *
 *   stages  [stage_count] of
 *             [slot_count] panels, slot_bytes each: stage_units of codes, of scales, then a super
 *             [tiles of the block][stage_units] CUDA_TILE_UNIT_BYTES of activations
 *   sums    [warp][panel of the warp][tile of the warp][lane][4] floats, at sums_offset: behind the
 *           stages, or over them where only the end needs them
 *
 * A copy is started stage_count - 1 stages before it is used, those of the weights before the wait
 * for the kernel before: nobody writes weights.
 */
#ifndef PERSONAD_KERNELS_CUDA_MATMUL_BLOCK_CUH
#define PERSONAD_KERNELS_CUDA_MATMUL_BLOCK_CUH

#include "kernels/cuda/fragment.cuh"
#include "kernels/cuda/matmul.cuh"

enum { CUDA_STAGE_COUNT_MAX = 6 };

/* The panel of a slot; none: `part` is NULL. */
struct cuda_slot_panel {
    const struct cuda_matmul_part *part;
    uint32_t panel;
};

/* A warp's place and its block's. */
struct cuda_block {
    uint32_t warp, warp_count, lane;
    uint32_t block; /* in x, ranks counted once */
    uint32_t rank;
    uint32_t unit_count;           /* of a panel */
    uint32_t unit_begin, unit_end; /* of this rank */
    uint32_t tile_first;
    uint32_t tiles;     /* places for tiles in the block */
    uint32_t row_count; /* known after the wait */
    uint8_t *shared;
};

DEVICE_INLINE uint32_t cuda_panels_of(const struct cuda_weight_view &view)
{
    return (view.rows + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS;
}

/* Gate and up alternate, so that a block has the same outputs of both. */
DEVICE_INLINE struct cuda_slot_panel cuda_slot_find(const struct cuda_matmul_args &args,
                                                    uint32_t block, uint32_t slot)
{
    struct cuda_slot_panel found = {NULL, 0};
    uint32_t index = 0;

    if (args.shape.epilogue == CUDA_SWIGLU) {
        index = slot % 2;
        found.panel = block * (args.shape.slot_count / 2) + slot / 2;
    } else {
        while (index + 1 < args.part_count && block >= args.parts[index + 1].block_first) {
            index++;
        }
        found.panel = (block - args.parts[index].block_first) * args.shape.slot_count + slot;
    }
    if (found.panel < cuda_panels_of(args.parts[index].weight)) {
        found.part = &args.parts[index];
    }
    return found;
}

/* ---- the end of a sum ---- */

/* As the CPU backend computes it. */
DEVICE_INLINE float cuda_silu(float z)
{
    const float e = steps_exp(-fabsf(z));

    return (z >= 0.0f ? z : z * e) / (1.0f + e);
}

/* What a row's f16 activations are to be multiplied with. */
DEVICE_INLINE float cuda_row_scale(const struct cuda_matmul_args &args, uint32_t row)
{
    return args.row_scales == NULL ? 1.0f : args.row_scales[row];
}

/* Output `output` of row `row` is `sum`; of gate and up: `sum` and `up`. */
DEVICE_INLINE void cuda_output(const struct cuda_matmul_part &part, uint32_t epilogue, uint32_t row,
                               uint32_t output, float sum, float up)
{
    float *to = part.out + (uint64_t)row * part.stride + output;

    if (epilogue == CUDA_SWIGLU) {
        *to = cuda_silu(sum) * up;
    } else if (epilogue == CUDA_ADD) {
        *to += part.bias == NULL ? sum : sum + part.bias[output];
    } else {
        *to = sum;
    }
}

/* ---- copies ---- */

/* A warp copies a run of 16-byte items. */
DEVICE_INLINE void cuda_copy_run(uint8_t *to, const uint8_t *from, uint32_t size_bytes,
                                 uint32_t lane)
{
    for (uint32_t at = lane * 16; at < size_bytes; at += CUDA_WARP_LANES * 16) {
        prim_copy16(to + at, from + at, true);
    }
}

/* The warp's slot of a stage that begins with unit `unit`. */
DEVICE_INLINE void cuda_copy_weights(const struct cuda_matmul_args &args,
                                     const struct cuda_block &block,
                                     const struct cuda_slot_panel &slot, uint32_t stage,
                                     uint32_t unit)
{
    uint8_t *to =
        block.shared + stage * args.shape.stage_bytes + block.warp * args.shape.slot_bytes;

    if (slot.part == NULL || unit >= block.unit_end) {
        return;
    }
    const struct cuda_weight_view &view = slot.part->weight;
    const uint32_t left = block.unit_end - unit;
    const uint32_t units = left < args.shape.stage_units ? left : args.shape.stage_units;
    const uint32_t code_bytes = cuda_unit_load_count(view.format) * CUDA_LOAD_BYTES;
    const uint32_t scale_bytes = cuda_unit_scale_bytes(view.format);
    const uint32_t super_bytes = cuda_super_bytes(view.format);
    const uint64_t at = (uint64_t)slot.panel * view.unit_count + unit;

    cuda_copy_run(to, view.codes + at * code_bytes, units * code_bytes, block.lane);
    to += args.shape.stage_units * code_bytes;
    cuda_copy_run(to, view.scales + at * scale_bytes, units * scale_bytes, block.lane);
    to += args.shape.stage_units * scale_bytes;
    if (super_bytes != 0) {
        const uint32_t super = view.format == CUDA_FP8 ? 0 : unit / CUDA_SUPER_UNITS;
        const uint64_t super_at =
            (uint64_t)slot.panel * cuda_super_count(view.format, view.unit_count) + super;

        cuda_copy_run(to, view.supers + super_at * super_bytes, super_bytes, block.lane);
    }
}

/* Rows that do not exist arrive as zeros. A warp takes half a unit of a tile at a time. */
DEVICE_INLINE void cuda_copy_rows(const struct cuda_matmul_args &args,
                                  const struct cuda_block &block, uint32_t stage, uint32_t unit)
{
    const uint32_t halves = 2 * args.shape.stage_units;
    const uint32_t half_bytes = CUDA_TILE_UNIT_BYTES / 2;
    uint8_t *to = block.shared + stage * args.shape.stage_bytes +
                  args.shape.slot_count * args.shape.slot_bytes + block.lane * 16;
    const uint8_t *from = (const uint8_t *)args.activations + block.lane * 16;

    for (uint32_t i = block.warp; i < block.tiles * halves; i += block.warp_count) {
        const uint32_t tile = block.tile_first + i / halves, half = i % halves;
        const uint32_t row = tile * CUDA_TILE_ROWS + block.lane % CUDA_TILE_ROWS;

        if (unit + half / 2 < block.unit_end) {
            const uint64_t at = ((uint64_t)tile * block.unit_count + unit) * 2 + half;

            prim_copy16(to + i * half_bytes, from + (row < block.row_count ? at * half_bytes : 0),
                        row < block.row_count);
        }
    }
}

/* Until the stage that is to be used has come: all but the `stages - 2` started last. */
DEVICE_INLINE void cuda_copy_wait(uint32_t stages)
{
    switch (stages) {
    case 2:
        prim_copy_wait<0>();
        break;
    case 3:
        prim_copy_wait<1>();
        break;
    case 4:
        prim_copy_wait<2>();
        break;
    case 5:
        prim_copy_wait<3>();
        break;
    default:
        prim_copy_wait<CUDA_STAGE_COUNT_MAX - 2>();
        break;
    }
}

/* ---- products ---- */

/* A warp's part of a stage: PANELS panels next to each other, TILES tiles. */
template <uint32_t FORMAT, int PANELS, int TILES>
DEVICE_INLINE void cuda_multiply_unit(const struct cuda_matmul_args &args,
                                      const struct cuda_block &block, const uint8_t *panels,
                                      const uint8_t *rows, uint32_t u, float sums[PANELS][TILES][4])
{
    const uint32_t loads = cuda_unit_load_count(FORMAT);
    const uint32_t stage_units = args.shape.stage_units;
    const uint8_t *const codes = panels + u * loads * CUDA_LOAD_BYTES + block.lane * 16;
    const uint8_t *const scales =
        panels + stage_units * loads * CUDA_LOAD_BYTES + u * cuda_unit_scale_bytes(FORMAT);
    const uint8_t *const super =
        panels + stage_units * (loads * CUDA_LOAD_BYTES + cuda_unit_scale_bytes(FORMAT));
    struct cuda_words words[PANELS];
    uint32_t b[TILES][4];

    PRIM_UNROLL
    for (uint32_t step = 0; step < CUDA_UNIT_STEPS; step++) {
        if (step % (CUDA_UNIT_STEPS / loads) == 0) {
            PRIM_UNROLL
            for (uint32_t p = 0; p < PANELS; p++) {
                prim_load16_shared(words[p].at,
                                   codes + p * args.shape.slot_bytes +
                                       step * loads / CUDA_UNIT_STEPS * CUDA_LOAD_BYTES);
            }
        }
        if (step % 2 == 0) {
            PRIM_UNROLL
            for (uint32_t t = 0; t < TILES; t++) {
                prim_ldmatrix_x4(b[t], rows + (t * stage_units + u) * CUDA_TILE_UNIT_BYTES +
                                           step / 2 * (CUDA_TILE_UNIT_BYTES / 2) + block.lane * 16);
            }
        }
        PRIM_UNROLL
        for (uint32_t p = 0; p < PANELS; p++) {
            const uint32_t at = p * args.shape.slot_bytes;
            const struct cuda_lane_scale lane =
                cuda_lane_scales<FORMAT>(scales + at, super + at, step, block.lane / 4);
            uint32_t a[4];

            cuda_fragment<FORMAT>(words[p], step, lane, a);
            PRIM_UNROLL
            for (uint32_t t = 0; t < TILES; t++) {
                if (FORMAT == CUDA_F16) {
                    prim_mma_f16(sums[p][t], a, b[t] + step % 2 * 2);
                } else {
                    prim_mma_bf16(sums[p][t], a, b[t] + step % 2 * 2);
                }
            }
        }
    }
}

/* The end of a segment: the first is stored, others are added to it. */
template <int PANELS, int TILES>
DEVICE_INLINE void cuda_flush(const struct cuda_block &block, float *to, bool first,
                              float sums[PANELS][TILES][4])
{
    PRIM_UNROLL
    for (uint32_t p = 0; p < PANELS; p++) {
        PRIM_UNROLL
        for (uint32_t t = 0; t < TILES; t++) {
            float *place = to + ((p * TILES + t) * CUDA_WARP_LANES + block.lane) * 4;

            PRIM_UNROLL
            for (uint32_t i = 0; i < 4; i++) {
                place[i] = first ? sums[p][t][i] : place[i] + sums[p][t][i];
                sums[p][t][i] = 0.0f;
            }
        }
    }
}

/* From the first stage to the sums. */
template <uint32_t FORMAT, int PANELS, int TILES>
DEVICE_INLINE void cuda_stream(const struct cuda_matmul_args &args, const struct cuda_block &block,
                               const struct cuda_slot_panel &slot)
{
    const struct cuda_matmul_shape &shape = args.shape;
    const uint32_t warps_across = shape.slot_count / PANELS;
    const uint8_t *const panels =
        block.shared + block.warp % warps_across * PANELS * shape.slot_bytes;
    const uint8_t *const rows =
        block.shared + shape.slot_count * shape.slot_bytes +
        block.warp / warps_across * TILES * shape.stage_units * CUDA_TILE_UNIT_BYTES;
    float *const to = (float *)(block.shared + shape.sums_offset) +
                      block.warp * PANELS * TILES * CUDA_WARP_LANES * 4;
    uint32_t segment = shape.rank_count > 1 ? block.rank : 0;
    uint32_t segment_end = cuda_segment_begin(segment + 1, shape.segment_count, block.unit_count);
    uint32_t stage = 0, stage_free = shape.stage_count - 1;
    float sums[PANELS][TILES][4] = {};
    bool first = true;

    for (uint32_t unit = block.unit_begin; unit < block.unit_end; unit += shape.stage_units) {
        const uint32_t ahead = unit + (shape.stage_count - 1) * shape.stage_units;
        const uint32_t end =
            unit + shape.stage_units < segment_end ? unit + shape.stage_units : segment_end;

        cuda_copy_wait(shape.stage_count);
        prim_sync(); /* it has come for all, and all are done with the one before */
        cuda_copy_weights(args, block, slot, stage_free, ahead);
        cuda_copy_rows(args, block, stage_free, ahead);
        prim_copy_commit();
        for (uint32_t u = unit; u < end; u++) {
            cuda_multiply_unit<FORMAT, PANELS, TILES>(
                args, block, panels + stage * shape.stage_bytes, rows + stage * shape.stage_bytes,
                u - unit, sums);
        }
        stage_free = stage;
        stage = stage + 1 == shape.stage_count ? 0 : stage + 1;
        if (end == segment_end && end < block.unit_end) {
            cuda_flush<PANELS, TILES>(block, to, first, sums);
            first = false;
            segment++;
            segment_end = cuda_segment_begin(segment + 1, shape.segment_count, block.unit_count);
        }
    }
    prim_sync(); /* sums may lie over stages */
    cuda_flush<PANELS, TILES>(block, to, first, sums);
}

template <int PANELS, int TILES>
DEVICE_INLINE void cuda_stream_any(const struct cuda_matmul_args &args,
                                   const struct cuda_block &block,
                                   const struct cuda_slot_panel &slot, uint32_t format)
{
    if (format == CUDA_F16 && args.row_scales == NULL) {
        format = CUDA_F16_ROUNDED;
    }
    switch (format) {
    case CUDA_F16:
        cuda_stream<CUDA_F16, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_F16_ROUNDED:
        cuda_stream<CUDA_F16_ROUNDED, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_Q4_0:
        cuda_stream<CUDA_Q4_0, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_Q4_1:
        cuda_stream<CUDA_Q4_1, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_Q8_0:
        cuda_stream<CUDA_Q8_0, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_Q4_K:
        cuda_stream<CUDA_Q4_K, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_Q5_K:
        cuda_stream<CUDA_Q5_K, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_Q6_K:
        cuda_stream<CUDA_Q6_K, PANELS, TILES>(args, block, slot);
        break;
    case CUDA_FP8:
        cuda_stream<CUDA_FP8, PANELS, TILES>(args, block, slot);
        break;
    default:
        cuda_stream<CUDA_BF16, PANELS, TILES>(args, block, slot);
        break;
    }
}

#endif
