/* The matrix product by warpgroups, for cards of sm_90a: the bits of matmul.cu, in larger pieces.
 *
 * Maths and shapes: struct cuda_matmul_args in matmul.cuh.
 * Bound by: the tensor cores, from about 256 rows on. A block reads 128 outputs' codes and 256 rows
 *           for 2 M products a column, and shares its rows with the block beside it.
 * Launch:   grid = (groups of 8 panels, groups of 8 TILES rows), in clusters of two where there are
 *           two; block = 8 warps that multiply, a panel each, and 4 of which one copies and all
 *           give registers away; dynamic shared memory = stages, barriers.
 * Order:    matmul.cuh. A step of a warpgroup is 16 columns, as one of mma.sync; both sum them
 *           alike on these cards. Segments follow each other in a block and are folded in
 *           registers.
 * Checked:  tests/emulator/test_wgmma.cpp, against matmul.cu by memcmp.
 *
 * A stage is one unit of columns: [8 panels] of codes, scales and a super as in matmul_block.cuh,
 * then [TILES] of activations. Its barrier `full` counts the bytes that come, `empty` the warps of
 * the cluster that are done with it: each block sends its share of the rows to both.
 */
#include "kernels/cuda/matmul_block.cuh"
#include "kernels/cuda/matmul_launch.cuh"
#include "kernels/cuda/prim_wgmma.cuh"

#include "base/check.h"

enum {
    SLOTS = 8,                               /* panels of a block, a warp each */
    THREADS = (SLOTS + 4) * CUDA_WARP_LANES, /* of the last four warps one copies */
    REGISTERS_MULTIPLYING = 240,             /* 3 groups of 128 threads share 64 K registers */
    REGISTERS_COPYING = 32,
    STAGES_MAX = 8,
    BARRIERS_BYTES = 2 * STAGES_MAX * 8,
    SHARING_BLOCKS = 2, /* of a cluster */
    CORE_BYTES = 128,   /* of 8 columns of 8 rows */
    STEP_BYTES = 2 * CORE_BYTES,
    MANY_TILES = 32, /* where nothing is folded: sums and totals are two sets of registers */
    FOLD_TILES = 16,
};

#if PRIM_HAS_WGMMA

struct barriers {
    struct prim_barrier full[STAGES_MAX];
    struct prim_barrier empty[STAGES_MAX];
};

DEVICE_INLINE struct barriers *barriers_of(const struct cuda_matmul_args &args,
                                           const struct cuda_block &block)
{
    return (struct barriers *)(block.shared + args.shape.sums_offset);
}

/* Nothing of the kernel before this one is read or written earlier. */
DEVICE_INLINE void wait_for_rows(const struct cuda_matmul_args &args, struct cuda_block &block)
{
    prim_depend_wait();
    block.row_count = args.row_count_at == NULL ? args.row_count : *args.row_count_at;
}

/* ---- the warp that copies ---- */

/* Lane l takes the panel of slot l. */
DEVICE_INLINE void send_weights(const struct cuda_matmul_args &args, const struct cuda_block &block,
                                const struct cuda_slot_panel &slot, uint32_t stage, uint32_t unit)
{
    struct prim_barrier *full = &barriers_of(args, block)->full[stage];
    uint8_t *to =
        block.shared + stage * args.shape.stage_bytes + block.lane * args.shape.slot_bytes;

    if (slot.part != NULL) {
        const struct cuda_weight_view &view = slot.part->weight;
        const uint32_t code_bytes = cuda_unit_load_count(view.format) * CUDA_LOAD_BYTES;
        const uint32_t scale_bytes = cuda_unit_scale_bytes(view.format);
        const uint32_t super_bytes = cuda_super_bytes(view.format);
        const uint64_t at = (uint64_t)slot.panel * view.unit_count + unit;

        prim_barrier_expect(full, code_bytes + scale_bytes + super_bytes);
        prim_copy_bulk(to, view.codes + at * code_bytes, code_bytes, full);
        if (scale_bytes != 0) {
            prim_copy_bulk(to + code_bytes, view.scales + at * scale_bytes, scale_bytes, full);
        }
        if (super_bytes != 0) {
            const uint32_t super = view.format == CUDA_FP8 ? 0 : unit / CUDA_SUPER_UNITS;
            const uint64_t super_at =
                (uint64_t)slot.panel * cuda_super_count(view.format, view.unit_count) + super;

            prim_copy_bulk(to + code_bytes + scale_bytes, view.supers + super_at * super_bytes,
                           super_bytes, full);
        }
    }
    prim_sync_warp(); /* all is expected before the arrival that may end the phase */
}

/* Lane l takes tile l, for all blocks of the cluster where it is this one's turn. Tiles behind the
 * last row do not come: whatever is there makes sums that nobody stores. */
template <int TILES>
DEVICE_INLINE void send_rows(const struct cuda_matmul_args &args, const struct cuda_block &block,
                             uint32_t stage, uint32_t unit)
{
    struct prim_barrier *full = &barriers_of(args, block)->full[stage];
    const uint32_t ranks = args.shape.rank_count;
    const uint32_t tile = block.tile_first + block.lane;
    const uint32_t tile_count = (block.row_count + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS;
    const uint32_t left = tile_count > block.tile_first ? tile_count - block.tile_first : 0;

    if (block.lane == 0) {
        prim_barrier_expect(full, (left < TILES ? left : TILES) * CUDA_TILE_UNIT_BYTES);
        prim_barrier_arrive(full, block.rank);
    }
    if (block.lane < TILES && tile < tile_count && block.lane % ranks == block.rank) {
        uint8_t *to = block.shared + stage * args.shape.stage_bytes +
                      SLOTS * args.shape.slot_bytes + block.lane * CUDA_TILE_UNIT_BYTES;
        const uint8_t *from = (const uint8_t *)args.activations +
                              ((uint64_t)tile * block.unit_count + unit) * CUDA_TILE_UNIT_BYTES;

        if (ranks == 1) {
            prim_copy_bulk(to, from, CUDA_TILE_UNIT_BYTES, full);
        } else {
            prim_copy_bulk_ranks(to, from, CUDA_TILE_UNIT_BYTES, full, (1u << ranks) - 1);
        }
    }
}

/* Until the kernel before this one is done, only weights come; not even they where it makes them.
 */
template <int TILES>
DEVICE_INLINE void produce(const struct cuda_matmul_args &args, struct cuda_block &block)
{
    const uint32_t stages = args.shape.stage_count;
    const uint32_t fill = block.unit_count < stages ? block.unit_count : stages;
    const struct cuda_slot_panel slot = block.lane < SLOTS
                                            ? cuda_slot_find(args, block.block, block.lane)
                                            : cuda_slot_panel{NULL, 0};
    uint32_t stage = 0, parity = 0;

    if (args.weights_are_new != 0) {
        prim_depend_wait();
    }
    for (uint32_t unit = 0; unit < fill; unit++) {
        send_weights(args, block, slot, unit, unit);
    }
    wait_for_rows(args, block);
    for (uint32_t unit = 0; unit < fill; unit++) {
        send_rows<TILES>(args, block, unit, unit);
    }
    if (block.tile_first * CUDA_TILE_ROWS >= block.row_count) {
        for (uint32_t unit = 0; unit < fill; unit++) {
            prim_barrier_wait(&barriers_of(args, block)->full[unit],
                              0); /* nothing may come later */
        }
        return;
    }
    for (uint32_t unit = fill; unit < block.unit_count; unit++) {
        prim_barrier_wait(&barriers_of(args, block)->empty[stage], parity);
        send_weights(args, block, slot, stage, unit);
        send_rows<TILES>(args, block, stage, unit);
        stage++;
        if (stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
}

/* ---- the warps that multiply ---- */

/* The warp has read all that it needs of a stage. */
DEVICE_INLINE void release(const struct cuda_matmul_args &args, const struct cuda_block &block,
                           uint32_t stage)
{
    prim_sync_warp();
    if (block.lane < args.shape.rank_count) {
        prim_barrier_arrive(&barriers_of(args, block)->empty[stage], block.lane);
    }
}

/* The A operands of a unit's steps, out of the warp's panel. */
template <uint32_t FORMAT>
DEVICE_INLINE void fragments_of(const struct cuda_block &block, const uint8_t *panel,
                                uint32_t (&a)[CUDA_UNIT_STEPS][4])
{
    const uint32_t loads = cuda_unit_load_count(FORMAT);
    const uint8_t *scales = panel + loads * CUDA_LOAD_BYTES;
    struct cuda_words words;

    PRIM_UNROLL
    for (uint32_t step = 0; step < CUDA_UNIT_STEPS; step++) {
        if (step % (CUDA_UNIT_STEPS / loads) == 0) {
            prim_load16_shared(words.at, panel + step * loads / CUDA_UNIT_STEPS * CUDA_LOAD_BYTES +
                                             block.lane * 16);
        }
        cuda_fragment<FORMAT>(words, step,
                              cuda_lane_scales<FORMAT>(scales,
                                                       scales + cuda_unit_scale_bytes(FORMAT), step,
                                                       block.lane / 4),
                              a[step]);
    }
}

/* Begins the products of a unit. */
template <uint32_t FORMAT, int TILES>
DEVICE_INLINE void begin_unit(const uint8_t *rows, const uint32_t (&a)[CUDA_UNIT_STEPS][4],
                              float (&sums)[TILES * 4])
{
    prim_wgmma_fence();
    PRIM_UNROLL
    for (uint32_t step = 0; step < CUDA_UNIT_STEPS; step++) {
        const uint64_t b =
            prim_wgmma_matrix(rows + step * STEP_BYTES, CORE_BYTES, CUDA_TILE_UNIT_BYTES);

        if (FORMAT == CUDA_F16) {
            prim_wgmma_f16<TILES * CUDA_TILE_ROWS>(sums, a[step], b);
        } else {
            prim_wgmma_bf16<TILES * CUDA_TILE_ROWS>(sums, a[step], b);
        }
    }
    prim_wgmma_commit();
}

/* Segments are added from left to right. */
template <int COUNT>
DEVICE_INLINE void fold_segment(float (&total)[COUNT], float (&sums)[COUNT], bool first)
{
    PRIM_UNROLL
    for (uint32_t i = 0; i < COUNT; i++) {
        total[i] = first ? sums[i] : total[i] + sums[i];
        sums[i] = 0.0f;
    }
}

/* All units of the warp's panel; the warp's sums. While the products of a unit are on their way,
 * the operands of the next are made. */
template <uint32_t FORMAT, int TILES, bool FOLDS>
DEVICE_INLINE void multiply(const struct cuda_matmul_args &args, const struct cuda_block &block,
                            float (&out)[TILES * 4])
{
    const struct cuda_matmul_shape &shape = args.shape;
    const uint8_t *const panels = block.shared + block.warp * shape.slot_bytes;
    const uint8_t *const rows = block.shared + SLOTS * shape.slot_bytes;
    struct barriers *barriers = barriers_of(args, block);
    uint32_t stage = 0, parity = 0, segment = 0;
    uint32_t segment_end = cuda_segment_begin(1, shape.segment_count, block.unit_count);
    uint32_t a[CUDA_UNIT_STEPS][4], next[CUDA_UNIT_STEPS][4] = {};
    float sums[TILES * 4] = {};

    prim_barrier_wait(&barriers->full[0], 0);
    fragments_of<FORMAT>(block, panels, a);
    prim_wgmma_pin(sums);
    for (uint32_t unit = 0; unit < block.unit_count; unit++) {
        const uint32_t now = stage;

        begin_unit<FORMAT, TILES>(rows + now * shape.stage_bytes, a, sums);
        stage++;
        if (stage == shape.stage_count) {
            stage = 0;
            parity ^= 1;
        }
        if (unit + 1 < block.unit_count) {
            prim_barrier_wait(&barriers->full[stage], parity);
            fragments_of<FORMAT>(block, panels + stage * shape.stage_bytes, next);
        }
        prim_wgmma_wait();
        prim_wgmma_pin(sums);
        release(args, block, now);
        memcpy(a, next, sizeof a);
        if (FOLDS && unit + 1 == segment_end) {
            fold_segment(out, sums, segment == 0);
            segment++;
            segment_end = cuda_segment_begin(segment + 1, shape.segment_count, block.unit_count);
        }
    }
    if (!FOLDS) {
        fold_segment(out, sums, true);
    }
}

template <int TILES, bool FOLDS>
DEVICE_INLINE void multiply_any(const struct cuda_matmul_args &args, const struct cuda_block &block,
                                uint32_t format, float (&out)[TILES * 4])
{
    if (format == CUDA_F16 && args.row_scales == NULL) {
        format = CUDA_F16_ROUNDED; /* beside a part that is not F16 */
    }
    switch (format) {
    case CUDA_F16:
        multiply<CUDA_F16, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_F16_ROUNDED:
        multiply<CUDA_F16_ROUNDED, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_Q4_0:
        multiply<CUDA_Q4_0, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_Q4_1:
        multiply<CUDA_Q4_1, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_Q8_0:
        multiply<CUDA_Q8_0, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_Q4_K:
        multiply<CUDA_Q4_K, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_Q5_K:
        multiply<CUDA_Q5_K, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_Q6_K:
        multiply<CUDA_Q6_K, TILES, FOLDS>(args, block, out);
        break;
    case CUDA_FP8:
        multiply<CUDA_FP8, TILES, FOLDS>(args, block, out);
        break;
    default:
        multiply<CUDA_BF16, TILES, FOLDS>(args, block, out);
        break;
    }
}

/* ---- the end ---- */

/* Up's sums go to the warp of gate beside it, over the stages: none is read any more, and no copy
 * is on its way. Block; where they are. */
template <int TILES>
DEVICE_INLINE const float *hand_up(const struct cuda_block &block, const float (&sums)[TILES * 4])
{
    float *place =
        (float *)block.shared + block.warp / 2 * (TILES * 4 * CUDA_WARP_LANES) + block.lane;

    prim_sync();
    if (block.warp % 2 == 1) {
        PRIM_UNROLL
        for (uint32_t i = 0; i < TILES * 4; i++) {
            place[i * CUDA_WARP_LANES] = sums[i];
        }
    }
    prim_sync();
    return place;
}

/* Eight lanes have outputs next to each other of one row. */
template <int TILES>
DEVICE_INLINE void store(const struct cuda_matmul_args &args, const struct cuda_block &block,
                         const float (&sums)[TILES * 4])
{
    const bool swiglu = args.shape.epilogue == CUDA_SWIGLU;
    const float *up = swiglu ? hand_up<TILES>(block, sums) : NULL;
    const struct cuda_slot_panel slot = !swiglu || block.warp % 2 == 0
                                            ? cuda_slot_find(args, block.block, block.warp)
                                            : cuda_slot_panel{NULL, 0};

    if (slot.part == NULL) {
        return;
    }
    PRIM_UNROLL
    for (uint32_t i = 0; i < TILES * 4; i++) {
        const uint32_t output = slot.panel * CUDA_PANEL_ROWS + block.lane / 4 + i % 4 / 2 * 8;
        const uint32_t row =
            (block.tile_first + i / 4) * CUDA_TILE_ROWS + block.lane % 4 * 2 + i % 2;

        if (row < block.row_count && output < slot.part->weight.rows) {
            const float scale = cuda_row_scale(args, row);

            cuda_output(*slot.part, args.shape.epilogue, row, output, sums[i] * scale,
                        (swiglu ? up[i * CUDA_WARP_LANES] : 0.0f) * scale);
        }
    }
}

template <int TILES>
DEVICE_INLINE struct cuda_block block_here(const struct cuda_matmul_args &args, uint8_t *shared)
{
    struct cuda_block block = {};

    /* From one lane: so the compiler sees that a warp stays together. */
    block.warp = prim_shuffle(PRIM_THREAD / CUDA_WARP_LANES, 0);
    block.warp_count = SLOTS;
    block.lane = PRIM_THREAD % CUDA_WARP_LANES;
    block.block = PRIM_BLOCK_X;
    block.rank = args.shape.rank_count > 1 ? prim_cluster_rank() : 0;
    block.unit_count = args.parts[0].weight.unit_count;
    block.unit_end = block.unit_count;
    block.tiles = TILES;
    block.tile_first = PRIM_BLOCK_Y * TILES;
    block.shared = shared;
    return block;
}

DEVICE_INLINE bool has_rows(const struct cuda_block &block)
{
    return block.tile_first * CUDA_TILE_ROWS < block.row_count; /* the same in all the cluster */
}

template <int TILES>
DEVICE_INLINE void copy_all(const struct cuda_matmul_args &args, struct cuda_block &block)
{
    if (block.warp == SLOTS) {
        produce<TILES>(args, block);
    } else {
        wait_for_rows(args, block);
    }
    if (args.shape.epilogue == CUDA_SWIGLU && has_rows(block)) {
        prim_sync(); /* with hand_up, twice */
        prim_sync();
    }
}

template <int TILES, bool FOLDS>
DEVICE_INLINE void multiply_all(const struct cuda_matmul_args &args, struct cuda_block &block)
{
    const struct cuda_slot_panel first = cuda_slot_find(args, block.block, 0);
    float sums[TILES * 4];

    wait_for_rows(args, block);
    if (has_rows(block)) {
        multiply_any<TILES, FOLDS>(
            args, block, first.part == NULL ? (uint32_t)CUDA_BF16 : first.part->weight.format,
            sums);
        store<TILES>(args, block, sums);
    }
}

/* Whoever sends to another block, or arrives there, finds it alive. */
DEVICE_INLINE void meet(const struct cuda_matmul_args &args)
{
    if (args.shape.rank_count > 1) {
        prim_cluster_sync();
    } else {
        prim_sync();
    }
}

#endif

template <int TILES, bool FOLDS>
static KERNEL void PRIM_BOUNDS(THREADS, 1)
    wgmma_kernel(const PRIM_GRID_CONSTANT struct cuda_matmul_args args)
{
#if PRIM_HAS_WGMMA
    SHARED(uint8_t, shared);
    struct cuda_block block = block_here<TILES>(args, shared);

    if (PRIM_THREAD == 0) {
        for (uint32_t i = 0; i < args.shape.stage_count; i++) {
            prim_barrier_init(&barriers_of(args, block)->full[i], 1);
            prim_barrier_init(&barriers_of(args, block)->empty[i], SLOTS * args.shape.rank_count);
        }
        prim_barrier_begun();
    }
    meet(args);
    if (block.warp >= SLOTS) {
        prim_registers_fewer<REGISTERS_COPYING>();
        copy_all<TILES>(args, block);
    } else {
        prim_registers_more<REGISTERS_MULTIPLYING>();
        multiply_all<TILES, FOLDS>(args, block);
    }
    meet(args);
    prim_depend_launch();
#else
    (void)args;
#endif
}

/* ---- launches ---- */

bool cuda_wgmma_serves(const struct cuda_matmul_args *args, uint32_t architecture)
{
    bool same_format = true;

    for (uint32_t i = 1; i < args->part_count; i++) {
        same_format = same_format && args->parts[i].weight.format == args->parts[0].weight.format;
    }
    /* A block has outputs of one part, but of gate and of up. */
    return architecture == PROVIDER_WGMMA_ARCHITECTURE &&
           (same_format || args->shape.epilogue != CUDA_SWIGLU);
}

/* As many stages as the block has room for. */
static uint32_t lay_stages(struct cuda_matmul_args *args, uint32_t tiles, uint32_t shared_bytes_max)
{
    struct cuda_matmul_shape *shape = &args->shape;

    shape->stage_units = 1;
    shape->slot_bytes = cuda_launch_slot_bytes(args);
    shape->stage_bytes = SLOTS * shape->slot_bytes + tiles * CUDA_TILE_UNIT_BYTES;
    shape->stage_count = (shared_bytes_max - BARRIERS_BYTES) / shape->stage_bytes;
    if (shape->stage_count > STAGES_MAX) {
        shape->stage_count = STAGES_MAX;
    }
    shape->sums_offset = shape->stage_count * shape->stage_bytes;
    /* Up's sums of a block lie over the stages. */
    CHECK(shape->stage_count >= 2);
    CHECK(shape->sums_offset >= SLOTS / 2 * tiles * 4 * CUDA_WARP_LANES * sizeof(float));
    return shape->sums_offset + BARRIERS_BYTES;
}

template <int TILES, bool FOLDS>
static enum status launch(struct device *device, struct cuda_matmul_args *args)
{
    struct cuda_matmul_shape *shape = &args->shape;
    const uint32_t rows = TILES * CUDA_TILE_ROWS;
    const uint32_t shared_bytes =
        lay_stages(args, TILES, device_read_facts(device)->shared_bytes_max);
    const uint32_t blocks = cuda_launch_blocks(args);

    /* Where rows are few, what two blocks would share is little beside their weights. */
    shape->rank_count = blocks > 1 && TILES >= FOLD_TILES ? SHARING_BLOCKS : 1;
    return device_launch_cluster<wgmma_kernel<TILES, FOLDS>>(
        device, shape->rank_count,
        (blocks + shape->rank_count - 1) / shape->rank_count * shape->rank_count,
        (args->row_count + rows - 1) / rows, THREADS, shared_bytes, *args);
}

enum status cuda_wgmma_launch(struct device *device, struct cuda_matmul_args *args)
{
    const uint32_t tiles = cuda_launch_tiles(args);
    struct cuda_matmul_shape *shape = &args->shape;

    shape->slot_count = SLOTS;
    shape->row_warps = 1;
    shape->segment_count = cuda_launch_segments(args, device_read_facts(device)->architecture);
    if (tiles <= 1) {
        return launch<1, true>(device, args);
    }
    if (tiles <= 2) {
        return launch<2, true>(device, args);
    }
    if (tiles <= 4) {
        return launch<4, true>(device, args);
    }
    if (tiles <= 8) {
        return launch<8, true>(device, args);
    }
    if (tiles <= FOLD_TILES || shape->segment_count > 1) {
        return launch<FOLD_TILES, true>(device, args);
    }
    return launch<MANY_TILES, false>(device, args);
}
