/* The matrix product: a block streams panels of 16 outputs and tiles of 8 rows through shared
 * memory.
 *
 * Maths and shapes: struct cuda_matmul_args in matmul.cuh; what a block does: matmul_block.cuh.
 * Bound by: memory up to about 64 rows, the weights once; beyond, the tensor cores and the
 *           conversion of codes, which a warp does once for 64 rows.
 * Launch:   grid = (groups of panels x ranks, groups of rows), block = a warp a panel for up to 64
 *           rows, else 2 x 2 warps of 2 panels and 64 rows; dynamic shared memory = stages, sums.
 * Order:    matmul.cuh. Where the rows are too few to fill the card segments are ranks
 *           (matmul_fold.cuh): of a cluster, or without clusters of blocks that meet in global
 *           memory. Else one block runs them after each other. All add them from left to right.
 * Checked:  tests/emulator/test_matmul.cpp, against double over the bf16 operands, derived bound;
 *           rows alone and in every kind of launch by memcmp.
 */
#include "kernels/cuda/matmul_block.cuh"
#include "kernels/cuda/matmul_fold.cuh"
#include "kernels/cuda/matmul_launch.cuh"

#include "base/check.h"

enum {
    MANY_PANELS = 2, /* of a warp that has many rows */
    MANY_ROW_WARPS = 2,
    THREADS_MAX = 128,
    SLOTS_MAX = 4,
    BLOCKS_RESIDENT = 2,          /* of a multiprocessor, that the stages leave room for */
    SHARED_RESERVED_BYTES = 1024, /* of a block, the card's own */
    MEETING_TILES_MAX = 8,        /* of a block whose ranks meet in global memory */
    SUM_TILE_BYTES = CUDA_WARP_LANES * 4 * 4,
};

/* Where the sum of output o (0..15) of a slot and row n of the block lies: matmul_block.cuh. */
template <int PANELS, int TILES>
DEVICE_INLINE uint32_t sum_place(uint32_t slot_count, uint32_t slot, uint32_t o, uint32_t n)
{
    const uint32_t tile = n / CUDA_TILE_ROWS;
    const uint32_t warp = tile / TILES * (slot_count / PANELS) + slot / PANELS;
    const uint32_t lane = o % 8 * 4 + n % 8 / 2;

    return (((warp * PANELS + slot % PANELS) * TILES + tile % TILES) * CUDA_WARP_LANES + lane) * 4 +
           o / 8 * 2 + n % 2;
}

/* The ranks of a cluster share the outputs of their block. */
template <int PANELS, int TILES>
DEVICE_INLINE void finish_rows(const struct cuda_matmul_args &args, const struct cuda_block &block,
                               const struct cuda_ranks &ranks)
{
    const struct cuda_matmul_shape &shape = args.shape;
    const bool swiglu = shape.epilogue == CUDA_SWIGLU;
    const uint32_t slot_step = swiglu ? 2 : 1;
    const uint32_t across = shape.slot_count / slot_step * CUDA_PANEL_ROWS;
    const float *sums = (const float *)(block.shared + shape.sums_offset);

    const uint32_t share = ranks.sums == NULL ? ranks.rank : 0;
    const uint32_t shares = ranks.sums == NULL ? ranks.count : 1;

    for (uint32_t i = PRIM_THREAD + PRIM_THREADS * share; i < across * block.tiles * CUDA_TILE_ROWS;
         i += PRIM_THREADS * shares) {
        const uint32_t slot = i % across / CUDA_PANEL_ROWS * slot_step;
        const uint32_t o = i % CUDA_PANEL_ROWS, n = i / across;
        const uint32_t row = block.tile_first * CUDA_TILE_ROWS + n;
        const struct cuda_slot_panel found = cuda_slot_find(args, block.block, slot);
        const uint32_t output = found.panel * CUDA_PANEL_ROWS + o;

        if (row >= block.row_count || found.part == NULL || output >= found.part->weight.rows) {
            continue;
        }
        const float scale = cuda_row_scale(args, row);
        const float sum =
            cuda_ranks_fold(ranks, sums, sum_place<PANELS, TILES>(shape.slot_count, slot, o, n));
        const float up =
            swiglu ? cuda_ranks_fold(ranks, sums,
                                     sum_place<PANELS, TILES>(shape.slot_count, slot + 1, o, n))
                   : 0.0f;

        cuda_output(*found.part, shape.epilogue, row, output, sum * scale, up * scale);
    }
}

/* Where this block and the others of its outputs meet. */
DEVICE_INLINE struct cuda_ranks ranks_of(const struct cuda_matmul_args &args,
                                         const struct cuda_block &block)
{
    const struct cuda_matmul_shape &shape = args.shape;
    struct cuda_ranks ranks = {block.rank, shape.rank_count, NULL, NULL, 0};

    if (shape.rank_count > 1 && args.meeting != NULL) {
        const uint32_t blocks = PRIM_GRID_X / shape.rank_count;
        const uint32_t at = PRIM_BLOCK_Y * blocks + block.block;

        ranks.size = shape.slot_count * block.tiles * CUDA_WARP_LANES * 4;
        ranks.arrived = (uint32_t *)args.meeting + at;
        ranks.sums = (float *)(args.meeting + shape.meeting_sums_at) +
                     (uint64_t)at * shape.rank_count * ranks.size;
    }
    return ranks;
}

template <int PANELS, int TILES>
static KERNEL void PRIM_BOUNDS(THREADS_MAX, BLOCKS_RESIDENT)
    matmul_kernel(const PRIM_GRID_CONSTANT struct cuda_matmul_args args)
{
    SHARED(uint8_t, shared);
    const struct cuda_matmul_shape &shape = args.shape;
    struct cuda_block block;

    block.warp = PRIM_THREAD / CUDA_WARP_LANES;
    block.warp_count = PRIM_THREADS / CUDA_WARP_LANES;
    block.lane = PRIM_THREAD % CUDA_WARP_LANES;
    block.block = PRIM_BLOCK_X / shape.rank_count;
    block.rank = PRIM_BLOCK_X % shape.rank_count;
    block.unit_count = args.parts[0].weight.unit_count;
    block.unit_begin = 0;
    block.unit_end = block.unit_count;
    if (shape.rank_count > 1) {
        block.unit_begin = cuda_segment_begin(block.rank, shape.segment_count, block.unit_count);
        block.unit_end = cuda_segment_begin(block.rank + 1, shape.segment_count, block.unit_count);
    }
    block.tiles = TILES * shape.row_warps;
    block.tile_first = PRIM_BLOCK_Y * block.tiles;
    block.shared = shared;
    const struct cuda_slot_panel own = block.warp < shape.slot_count
                                           ? cuda_slot_find(args, block.block, block.warp)
                                           : cuda_slot_panel{NULL, 0};
    const uint32_t across = shape.slot_count / PANELS;
    const struct cuda_slot_panel first =
        cuda_slot_find(args, block.block, block.warp % across * PANELS);

    for (uint32_t i = 0; i + 1 < shape.stage_count; i++) {
        cuda_copy_weights(args, block, own, i, block.unit_begin + i * shape.stage_units);
        prim_copy_commit();
    }
    prim_depend_wait();
    block.row_count = args.row_count_at == NULL ? args.row_count : *args.row_count_at;
    if (block.tile_first * CUDA_TILE_ROWS >= block.row_count) {
        return; /* and so do the other ranks */
    }
    for (uint32_t i = 0; i + 1 < shape.stage_count; i++) {
        cuda_copy_rows(args, block, i, block.unit_begin + i * shape.stage_units);
        prim_copy_commit();
    }
    cuda_stream_any<PANELS, TILES>(
        args, block, own, first.part == NULL ? (uint32_t)CUDA_BF16 : first.part->weight.format);
    const struct cuda_ranks ranks = ranks_of(args, block);
    const bool is_cluster = shape.rank_count > 1 && ranks.sums == NULL;

    if (is_cluster) {
        prim_cluster_sync();
    } else {
        prim_sync();
    }
    if (ranks.sums != NULL &&
        !cuda_ranks_leave(ranks, (const float *)(shared + shape.sums_offset), (uint32_t *)shared)) {
        return;
    }
    finish_rows<PANELS, TILES>(args, block, ranks);
    if (is_cluster) {
        prim_cluster_sync(); /* others may still read this block's sums */
    }
    prim_depend_launch();
}

/* ---- launches ---- */

/* Lays out shared memory; gives its bytes. Two blocks shall fit a multiprocessor. */
static uint32_t lay_shared(struct cuda_matmul_args *args, uint32_t tiles, uint32_t shared_bytes_max)
{
    struct cuda_matmul_shape *shape = &args->shape;
    const uint32_t sums_bytes =
        shape->slot_count * tiles * CUDA_WARP_LANES * 4 * (uint32_t)sizeof(float);
    const bool apart = shape->segment_count > 1 && shape->rank_count == 1;
    const uint32_t apart_bytes = apart ? sums_bytes : 0;
    const uint32_t room = shared_bytes_max / BLOCKS_RESIDENT - SHARED_RESERVED_BYTES - apart_bytes;
    uint32_t stages_bytes;

    shape->slot_bytes = cuda_launch_slot_bytes(args);
    shape->stage_bytes =
        shape->slot_count * shape->slot_bytes + tiles * shape->stage_units * CUDA_TILE_UNIT_BYTES;
    shape->stage_count = room / shape->stage_bytes;
    shape->stage_count = shape->stage_count < 2 ? 2 : shape->stage_count;
    if (shape->stage_count > CUDA_STAGE_COUNT_MAX) {
        shape->stage_count = CUDA_STAGE_COUNT_MAX;
    }
    stages_bytes = shape->stage_count * shape->stage_bytes;
    shape->sums_offset = apart ? stages_bytes : 0;
    if (apart || sums_bytes < stages_bytes) {
        return stages_bytes + apart_bytes;
    }
    return sums_bytes;
}

/* Bounds of what ranks that meet in global memory take. Fewer blocks than fill the card do so, of
 * SLOTS_MAX panels each, or twice as many of half. */
static uint32_t meeting_counts_bytes(const struct device_facts *facts)
{
    return (2 * BLOCKS_RESIDENT * facts->multiprocessor_count * (uint32_t)sizeof(uint32_t) + 255) /
           256 * 256;
}

static uint64_t meeting_sums_bytes(const struct device_facts *facts)
{
    return (uint64_t)BLOCKS_RESIDENT * facts->multiprocessor_count * CUDA_SEGMENT_COUNT_MAX *
           SLOTS_MAX * MEETING_TILES_MAX * SUM_TILE_BYTES;
}

uint64_t cuda_meeting_bytes(const struct device_facts *facts)
{
    return meeting_counts_bytes(facts) + meeting_sums_bytes(facts);
}

template <int PANELS, int TILES>
static enum status launch(struct device *device, struct cuda_matmul_args *args)
{
    const struct device_facts *facts = device_read_facts(device);
    struct cuda_matmul_shape *shape = &args->shape;
    const uint32_t tiles = TILES * shape->row_warps;
    const uint32_t rows = tiles * CUDA_TILE_ROWS;
    const uint32_t row_blocks = (args->row_count + rows - 1) / rows;
    const uint32_t threads = shape->slot_count / PANELS * shape->row_warps * CUDA_WARP_LANES;
    uint32_t blocks = cuda_launch_blocks(args);

    shape->segment_count = cuda_launch_segments(args, facts->architecture);
    shape->rank_count = 1;
    if ((facts->architecture >= DEVICE_ARCHITECTURE_CLUSTER ||
         (args->meeting != NULL && PANELS == 1)) &&
        blocks * row_blocks < BLOCKS_RESIDENT * facts->multiprocessor_count) {
        shape->rank_count = shape->segment_count;
    }
    /* Fewer panels a block where there are not enough blocks. */
    if (PANELS == 1 &&
        blocks * row_blocks * shape->rank_count < BLOCKS_RESIDENT * facts->multiprocessor_count) {
        shape->slot_count = SLOTS_MAX / 2;
        blocks = cuda_launch_blocks(args);
    }
    const uint32_t shared_bytes = lay_shared(args, tiles, facts->shared_bytes_max);
    const bool meets = args->meeting != NULL && shape->rank_count > 1;

    if (meets) {
        shape->meeting_sums_at = meeting_counts_bytes(facts);
        CHECK(blocks * row_blocks * sizeof(uint32_t) <= shape->meeting_sums_at);
        CHECK((uint64_t)blocks * row_blocks * shape->rank_count * shape->slot_count * tiles *
                  SUM_TILE_BYTES <=
              meeting_sums_bytes(facts));
    }
    return device_launch_cluster<matmul_kernel<PANELS, TILES>>(
        device, meets ? 1 : shape->rank_count, blocks * shape->rank_count, row_blocks,
        PANELS == 1 ? shape->slot_count * CUDA_WARP_LANES : threads, shared_bytes, *args);
}

static enum status launch_any(struct device *device, enum cuda_epilogue epilogue,
                              struct cuda_matmul_args *args)
{
    const uint32_t tiles = cuda_launch_tiles(args);
    bool same_format = true;

    CHECK(args->part_count >= 1 && args->part_count <= CUDA_PART_COUNT_MAX);
    for (uint32_t i = 0; i < args->part_count; i++) {
        CHECK(args->parts[i].weight.unit_count == args->parts[0].weight.unit_count);
        same_format = same_format && args->parts[i].weight.format == args->parts[0].weight.format;
    }
    if (epilogue == CUDA_SWIGLU) {
        CHECK(args->part_count == 2 &&
              cuda_launch_panels(&args->parts[0]) == cuda_launch_panels(&args->parts[1]));
    }
    args->shape.epilogue = epilogue;
    args->shape.slot_count = SLOTS_MAX;
    args->shape.row_warps = 1;
    if (args->provider == PROVIDER_WGMMA &&
        cuda_wgmma_serves(args, device_read_facts(device)->architecture)) {
        return cuda_wgmma_launch(device, args);
    }
    if (args->provider == PROVIDER_UNPACKED &&
        cuda_unpack_serves(args, device_read_facts(device)->architecture)) {
        TRY(cuda_unpack(device, args));
        return cuda_wgmma_launch(device, args);
    }
    if (args->provider == PROVIDER_CUBLASLT) {
        return cuda_library_launch(device, args);
    }
    args->shape.stage_units = CUDA_SEGMENT_UNITS;
    if (tiles <= 1) {
        return launch<1, 1>(device, args);
    }
    if (tiles <= 2) {
        return launch<1, 2>(device, args);
    }
    if (tiles <= 4) {
        return launch<1, 4>(device, args);
    }
    args->shape.stage_units = 2;
    /* A warp of two panels unpacks both in one way. */
    if (tiles <= 8 || (epilogue == CUDA_SWIGLU && !same_format)) {
        return launch<1, 8>(device, args);
    }
    args->shape.stage_units = 1;
    args->shape.row_warps = MANY_ROW_WARPS;
    return launch<MANY_PANELS, 8>(device, args);
}

enum status cuda_matmul_store(struct device *device, struct cuda_matmul_args *args)
{
    return launch_any(device, CUDA_STORE, args);
}

enum status cuda_matmul_add(struct device *device, struct cuda_matmul_args *args)
{
    return launch_any(device, CUDA_ADD, args);
}

enum status cuda_matmul_swiglu(struct device *device, struct cuda_matmul_args *args)
{
    return launch_any(device, CUDA_SWIGLU, args);
}
