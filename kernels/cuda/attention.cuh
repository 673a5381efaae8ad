/* The kernels of attention.cu, apart so that the emulator's tests can launch them bare.
 *
 * Thread: none of its own; everything runs on the device. The caller owns all memory in the views;
 * `acc`, `max` and `sum` hold one partial for each (plan partial, query head) and are written by
 * the others before attention_fold_kernel reads them.
 *
 * A tile is up to 64 query columns (a column is one query head of one row of an item's list), or up
 * to 128, over the 16 to 512 positions of the item, and one KV head, the block's y. K and V pass
 * through shared memory once for the whole tile, a chunk of 64 positions at a time:
 *
 *   k [64][D + 8]   v [64][D + 8]   q [64 or 128][D + 8]
 *       16 bits each; 8 of padding spread rows over the banks
 *   codes of k and v [64][D], scales of k and v [64]
 *       fp8 only: bytes as they come, and floats
 *   total [64 * D / threads][threads]
 *       chains of heads of 256 only: floats
 *
 * The padding of a column's q holds what a tile keeps of it, struct attention_column. With that
 * elsewhere heads of 256 would not fit the 99 KiB of sm_89.
 *
 * An item's columns are cut into tall tiles of 128 where a card has room for them, as long as more
 * than 64 are left, and into others for the rest. Tall ones are a kernel of their own, of eight
 * warps: a block of both kinds would leave small tiles half of the copies on their way.
 *
 * A chain (chain.cuh) is an item of several blocks, all of whose tiles are tall, of 64 columns with
 * heads of 256. Its tile walks them in turn, as far as its own rows see: chunks fold left into the
 * block's total, the block's into that of the blocks before, which never leaves the thread that has
 * it, and lies in its registers, or with heads of 256 in its own words of shared memory. What is
 * left is a row's output, or its first partial. Copies go on over the ends of blocks.
 *
 * Warps share a tile in one of two ways. Parts = warps that have the same 16 columns:
 *
 *   wide    more than 16 columns. A warp has 16 columns and all dimensions of V; but in tiles of 64
 *           of heads of 256 two warps have the same columns and half of the dimensions each: eight
 *           warps for what is copied, and registers for a chain
 *   small   at most 16. Each warp scores 16 positions, all scores meet in the rows of q that have
 *           no column, each warp weighs all of them and has its share of the dimensions of V
 *
 * The bits of a column and chunk, of which the column sees the first n positions (D: head size),
 * are the same in tiles of any height. T is half (f16), bf16, or for fp8 half in q k and bf16 in
 * w v:
 *
 *   s_j = chain of m16n8k16 steps ascending over D from 0, q and k as T; fp8: times k's scale
 *   t_j = s_j * (scale * log2(e));  m = max t_j;  w_j = T(exp2(t_j - m)), 0 from n on
 *   l   = lane i of 4 adds w_j of j = 8 t + 2 i, 8 t + 2 i + 1, t ascending; then lanes i ^ 1, and
 *         then i ^ 2
 *   c_d = chain of four m16n8k16 steps ascending over the chunk's positions from 0, of w_j and v_j;
 *         fp8: of bf16(w_j * v's scale) and v's codes
 *
 * Chunks fold left inside a block, blocks fold left inside a chain or in attention_fold_kernel,
 * each by the rule of kernels/cpu/attention.h with exp2 for exp.
 */
#ifndef PERSONAD_KERNELS_CUDA_ATTENTION_CUH
#define PERSONAD_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/attention_chunk.cuh"

struct attention_tile {
    struct plan_item item;
    uint32_t column_first;
    uint32_t column_count; /* that the item has from there on, at most the tile's */
    uint32_t seen_max;     /* by any column */
    uint32_t warp_seen;    /* by any column of this warp */
};

/* Which tiles of an item a kernel takes. */
struct attention_cut {
    uint32_t first, tiles; /* columns before them, and how many tiles */
};

#define ATTENTION_COLUMNS(head_size, kind)                          \
    ((kind) == ATTENTION_TALL    ? (uint32_t)ATTENTION_TALL_COLUMNS \
     : (kind) == ATTENTION_SHORT ? (uint32_t)ATTENTION_TILE_COLUMNS \
                                 : ATTENTION_CHAIN_COLUMNS(head_size))
/* Heads of up to 128 have chains in the kernel of tall tiles. */
#define ATTENTION_TAKES_CHAINS(head_size, kind) \
    ((kind) == ((head_size) > 128 ? ATTENTION_CHAIN : ATTENTION_TALL))

/* All tiles of a chain are one kernel's; an item's columns are cut into tall tiles first, the rest
 * into tiles of 64. */
template <uint32_t D, enum attention_kind KIND>
DEVICE_INLINE struct attention_cut attention_cut_of(const struct cuda_plan_view *plan,
                                                    const struct attention_view *view,
                                                    uint32_t item)
{
    const uint32_t each = ATTENTION_COLUMNS(D, KIND);
    const uint32_t columns = plan->items[item].row_count * attention_group(view);
    const uint32_t tall = view->has_tall
                              ? (columns + ATTENTION_TALL_COLUMNS - ATTENTION_TILE_COLUMNS - 1) /
                                    ATTENTION_TALL_COLUMNS
                              : 0;
    const uint32_t taken = tall * ATTENTION_TALL_COLUMNS;

    if (item < plan->chain_count) {
        return {0, ATTENTION_TAKES_CHAINS(D, KIND) ? (columns + each - 1) / each : 0};
    }
    if (KIND != ATTENTION_SHORT) {
        return {0, KIND == ATTENTION_TALL ? tall : 0};
    }
    return {taken, columns > taken ? (columns - taken + each - 1) / each : 0};
}

/* Finds tile `index`, counted through all items, 32 items at a time; false past the last. Every
 * lane of a warp gets the same answer. Begins at the first item each time: what it would keep from
 * the last search costs registers that heads of 128 do not have. */
template <uint32_t D, enum attention_kind KIND>
DEVICE_INLINE bool attention_find(const struct cuda_plan_view *plan,
                                  const struct attention_view *view, uint32_t index,
                                  struct attention_tile *tile)
{
    const uint32_t group = attention_group(view), each = ATTENTION_COLUMNS(D, KIND);
    const uint32_t lane = ATTENTION_THREAD % 32;
    uint32_t tile_base = 0;

    for (uint32_t item_base = 0; item_base < plan->item_count; item_base += 32) {
        const uint32_t mine = item_base + lane;
        uint32_t tiles = 0;
        if (mine < plan->item_count) {
            tiles = attention_cut_of<D, KIND>(plan, view, mine).tiles;
        }
        uint32_t before = tiles;
        for (uint32_t delta = 1; delta < 32; delta *= 2) {
            const uint32_t other = prim_shuffle_up(before, delta);
            before += lane >= delta ? other : 0;
        }
        const uint32_t total = prim_shuffle(before, 31);
        if (index < tile_base + total) {
            uint32_t found = tile_base + before <= index ? 1 : 0;
            for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
                found += prim_shuffle_xor(found, lanes);
            }
            const uint32_t first = tile_base + prim_shuffle(before - tiles, found);
            tile->item = plan->items[item_base + found];
            tile->column_first = attention_cut_of<D, KIND>(plan, view, item_base + found).first +
                                 (index - first) * each;
            const uint32_t left = tile->item.row_count * group - tile->column_first;
            tile->column_count = left < each ? left : each;
            return true;
        }
        tile_base += total;
    }
    return false;
}

/* Which query each column is, and how far it sees. Has a barrier. */
template <uint32_t D, uint32_t COLUMNS>
DEVICE_INLINE void
attention_list_columns(const struct cuda_plan_view *plan, const struct attention_view *view,
                       const struct attention_shared *shared, const struct attention_part *part,
                       struct attention_tile *tile)
{
    const uint32_t group = attention_group(view);
    const uint32_t lane = ATTENTION_THREAD % 32;
    uint32_t most = 0;

    if (ATTENTION_THREAD < COLUMNS) {
        const uint32_t column = tile->column_first + ATTENTION_THREAD;
        struct attention_column of = {};
        if (ATTENTION_THREAD < tile->column_count) {
            const uint32_t entry = column / group;
            const uint32_t head = PRIM_BLOCK_Y * group + column % group;
            const uint32_t row = plan->item_rows[tile->item.row_first + entry];
            const uint32_t past = plan->rows[row].position + 1;
            const uint32_t end = past < tile->item.end ? past : tile->item.end;
            of.seen = end > tile->item.begin ? end - tile->item.begin : 0;
            of.query = row * view->head_count + head;
            of.slot = plan->rows[row].partial_count == 0
                          ? ATTENTION_SLOT_NONE
                          : (tile->item.partial_first + entry) * view->head_count + head;
        }
        *attention_column_of<D>(shared, ATTENTION_THREAD) = of;
    }
    prim_sync();
    PRIM_UNROLL
    for (uint32_t column = 0; column < COLUMNS; column += 32) {
        const uint32_t seen = attention_column_of<D>(shared, column + lane)->seen;
        most = seen > most ? seen : most;
    }
    uint32_t warp_most =
        attention_column_of<D>(shared, part->column_first + lane % ATTENTION_WARP_COLUMNS)->seen;
    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        const uint32_t other = prim_shuffle_xor(most, lanes);
        const uint32_t warp_other = prim_shuffle_xor(warp_most, lanes);
        most = other > most ? other : most;
        warp_most = warp_other > warp_most ? warp_other : warp_most;
    }
    tile->seen_max = most;
    tile->warp_seen = warp_most;
}

/* Queries rounded; those that are not there as zeros. The first `columns` of the tile. */
template <uint32_t D, enum kv_type T, uint32_t THREADS>
DEVICE_INLINE void attention_load_queries(const struct attention_view *view,
                                          const struct attention_shared *shared, uint32_t columns)
{
    for (uint32_t i = ATTENTION_THREAD; i < columns * D / 2; i += THREADS) {
        const uint32_t column = i / (D / 2);
        const uint32_t d = i % (D / 2) * 2;
        uint32_t pair = 0;
        const struct attention_column of = *attention_column_of<D>(shared, column);
        if (of.seen > 0) {
            const float *q = view->q + (uint64_t)of.query * D + d;
            pair = T == KV_TYPE_BF16
                       ? prim_pack_bf16(q[0], q[1])
                       : steps_half_from_float(q[0]) | (uint32_t)steps_half_from_float(q[1]) << 16;
        }
        *(uint32_t *)(shared->q + column * ATTENTION_STRIDE(D) + d) = pair;
    }
}

/* Starts the copy of one chunk of K or V to rows of `stride` bytes; positions that no column sees
 * become zeros, so that what a page held before never meets a product. */
template <uint32_t BYTES, uint32_t THREADS>
DEVICE_INLINE void attention_copy_rows(const struct cuda_plan_view *plan,
                                       const struct attention_view *view,
                                       const struct attention_tile *tile, uint32_t chunk,
                                       const uint8_t *pages, uint8_t *to, uint32_t stride)
{
    const uint32_t pieces = BYTES / ATTENTION_PIECE_BYTES;
    const uint64_t head = (uint64_t)PRIM_BLOCK_Y * view->kv.page_count;

    PRIM_UNROLL_1
    for (uint32_t piece = ATTENTION_THREAD; piece < ATTENTION_CHUNK_TOKENS * pieces;
         piece += THREADS) {
        const uint32_t slot = piece / pieces;
        const uint32_t at = piece % pieces * ATTENTION_PIECE_BYTES;
        const uint32_t position = chunk * ATTENTION_CHUNK_TOKENS + slot;
        const bool valid = position < tile->seen_max;
        const uint8_t *from = pages;
        if (valid) {
            const uint32_t page =
                plan->pages[tile->item.page_first + position / KV_PAGE_TOKEN_COUNT];
            from += ((head + page) * KV_PAGE_TOKEN_COUNT + slot % KV_PAGE_TOKEN_COUNT) * BYTES + at;
        }
        prim_copy16(to + slot * stride + at, from, valid);
    }
}

/* The scales of a chunk, which lie together a page. */
DEVICE_INLINE void attention_copy_scales(const struct cuda_plan_view *plan,
                                         const struct attention_view *view,
                                         const struct attention_tile *tile, uint32_t chunk,
                                         const float *scales, float *to)
{
    const uint32_t per_piece = ATTENTION_PIECE_BYTES / (uint32_t)sizeof(float);

    if (ATTENTION_THREAD < ATTENTION_CHUNK_TOKENS / per_piece) {
        const uint32_t slot = ATTENTION_THREAD * per_piece;
        const uint32_t position = chunk * ATTENTION_CHUNK_TOKENS + slot;
        const bool valid = position < tile->seen_max;
        const float *from = scales;
        if (valid) {
            const uint32_t page =
                plan->pages[tile->item.page_first + position / KV_PAGE_TOKEN_COUNT];
            from += ((uint64_t)PRIM_BLOCK_Y * view->kv.page_count + page) * KV_PAGE_TOKEN_COUNT +
                    slot % KV_PAGE_TOKEN_COUNT;
        }
        prim_copy16(to + slot, from, valid);
    }
}

template <uint32_t D, enum kv_type T, uint32_t THREADS>
DEVICE_INLINE void
attention_copy_chunk(const struct cuda_plan_view *plan, const struct attention_view *view,
                     const struct attention_shared *shared, const struct attention_tile *tile,
                     uint32_t chunk, bool is_v)
{
    const uint8_t *pages = is_v ? view->kv.v : view->kv.k;

    if (T == KV_TYPE_FP8) {
        attention_copy_rows<D, THREADS>(plan, view, tile, chunk, pages,
                                        is_v ? shared->v_codes : shared->k_codes, D);
        attention_copy_scales(plan, view, tile, chunk, is_v ? view->kv.v_scales : view->kv.k_scales,
                              is_v ? shared->v_scales : shared->k_scales);
    } else {
        attention_copy_rows<2 * D, THREADS>(plan, view, tile, chunk, pages,
                                            (uint8_t *)(is_v ? shared->v : shared->k),
                                            2 * ATTENTION_STRIDE(D));
    }
    prim_copy_commit();
}

/* Codes that have landed become numbers of 16 bits, exactly: K halves, V bf16. Behind a barrier,
 * and has one at its end. Slots that nobody sees may hold what was there before, with the scale of
 * a stranger: their codes came as zeros. */
template <uint32_t D, uint32_t THREADS>
DEVICE_INLINE void attention_widen(const struct attention_shared *shared, bool is_v)
{
    const uint32_t *codes = (const uint32_t *)(is_v ? shared->v_codes : shared->k_codes);
    uint16_t *to = is_v ? shared->v : shared->k;

    for (uint32_t i = ATTENTION_THREAD; i < ATTENTION_CHUNK_TOKENS * D / 4; i += THREADS) {
        const uint32_t slot = i / (D / 4), d = i % (D / 4) * 4;
        uint32_t pairs[2];
        if (is_v) {
            prim_widen_fp8_bf16(pairs, codes[i]);
        } else {
            prim_widen_fp8_half(pairs, codes[i]);
        }
        uint32_t *row = (uint32_t *)(to + slot * ATTENTION_STRIDE(D) + d);
        row[0] = pairs[0];
        row[1] = pairs[1];
    }
    prim_sync();
}

/* Writes this thread's part of its two columns: partials, or what is final. */
template <uint32_t D, bool CHAIN, uint32_t STEPS>
DEVICE_INLINE void
attention_store(const struct attention_view *view, const struct attention_shared *shared,
                const struct attention_part *part, const struct attention_total<STEPS> *total)
{
    const uint32_t lane = ATTENTION_THREAD % 32;

    PRIM_UNROLL
    for (uint32_t c = 0; c < 2; c++) {
        const struct attention_column *column =
            attention_column_of<D>(shared, part->column_first + lane / 4 + c * 8);
        const uint64_t slot = column->slot;
        const bool is_final = CHAIN && slot == ATTENTION_SLOT_NONE;
        if (column->seen == 0) {
            continue;
        }
        if (part->leads && !is_final && lane % 4 == 0) {
            view->max[slot] = total->max[c];
            view->sum[slot] = total->sum[c];
        }
        float *to = (is_final ? view->out + (uint64_t)column->query * D : view->acc + slot * D) +
                    part->step_first * ATTENTION_STEP_DIMENSIONS + lane % 4 * 2;
        PRIM_UNROLL
        for (uint32_t t = 0; t < STEPS * 2; t++) {
            const float *acc = &total->acc[t][c * 2];
            if (t < part->step_count * 2) {
                to[t * 8] = is_final ? acc[0] / total->sum[c] : acc[0];
                to[t * 8 + 1] = is_final ? acc[1] / total->sum[c] : acc[1];
            }
        }
    }
}

/* PARTS warps have the same columns. */
template <uint32_t D, uint32_t PARTS> DEVICE_INLINE struct attention_part attention_part_of(void)
{
    const uint32_t warp = ATTENTION_THREAD / 32, steps = D / ATTENTION_STEP_DIMENSIONS;
    const uint32_t index = warp % PARTS;
    struct attention_part part;

    part.column_first = warp / PARTS * ATTENTION_WARP_COLUMNS;
    part.step_first = steps * index / PARTS;
    part.step_count = steps * (index + 1) / PARTS - part.step_first;
    part.leads = index == 0;
    return part;
}

/* One tile of up to COLUMNS columns. While a chunk's scores become weights the next chunk's K is on
 * its way, and while they are scored its V is. Enters and leaves with shared memory free. */
template <uint32_t D, enum kv_type T, uint32_t COLUMNS, uint32_t PARTS, bool CHAIN>
DEVICE_INLINE void
attention_run_tile(const struct cuda_plan_view *plan, const struct attention_view *view,
                   const struct attention_shared *shared, struct attention_tile *tile)
{
    const uint32_t threads = ATTENTION_THREADS(D, COLUMNS);
    const bool is_small = PARTS == ATTENTION_WARPS(D, COLUMNS);
    const struct attention_part part = attention_part_of<D, PARTS>();
    float scores[ATTENTION_SCORE_TILES][4];

    attention_list_columns<D, COLUMNS>(plan, view, shared, &part, tile);
    attention_copy_chunk<D, T, threads>(plan, view, shared, tile, 0, false);
    attention_copy_chunk<D, T, threads>(plan, view, shared, tile, 0, true);
    attention_load_queries<D, T, threads>(view, shared,
                                          is_small ? (uint32_t)ATTENTION_SMALL_COLUMNS : COLUMNS);
    struct attention_total<ATTENTION_PART_STEPS(D, PARTS)> block = {}, total;
    for (uint32_t chunk = 0; chunk * ATTENTION_CHUNK_TOKENS < tile->seen_max; chunk++) {
        const bool seen = chunk * ATTENTION_CHUNK_TOKENS < tile->warp_seen;
        prim_copy_wait<1>();
        prim_sync();
        if (T == KV_TYPE_FP8) {
            attention_widen<D, threads>(shared, false);
        }
        if (is_small) {
            attention_score_small<D, T>(shared);
        } else if (seen) {
            attention_score<D, T, ATTENTION_SCORE_TILES>(shared, part.column_first, 0, scores);
        }
        prim_sync();
        attention_copy_chunk<D, T, threads>(plan, view, shared, tile, chunk + 1, false);
        prim_copy_wait<1>();
        prim_sync();
        if (T == KV_TYPE_FP8) {
            attention_widen<D, threads>(shared, true);
        }
        if (is_small) {
            attention_gather<D>(shared, scores);
        }
        if (seen) {
            attention_take_chunk<D, T>(shared, &part, chunk, view->scale_log2, scores, &block);
        }
        if (CHAIN && (chunk % ATTENTION_BLOCK_CHUNKS == ATTENTION_BLOCK_CHUNKS - 1 ||
                      (chunk + 1) * ATTENTION_CHUNK_TOKENS >= tile->seen_max)) {
            attention_fold_block<D>(shared, &part, chunk, &block, &total);
        }
        prim_sync();
        attention_copy_chunk<D, T, threads>(plan, view, shared, tile, chunk + 1, true);
    }
    prim_copy_wait<0>();
    if (CHAIN && ATTENTION_TOTAL_IS_SHARED(D)) {
        attention_fetch_total<D>(shared, &total);
    }
    attention_store<D, CHAIN>(view, shared, &part, CHAIN ? &total : &block);
    prim_sync();
}

/* Tiles of every item, but tall ones and those of chains. Grid: x strides over tiles, y is the KV
 * head. */
template <uint32_t D, enum kv_type T>
KERNEL void PRIM_BOUNDS(ATTENTION_THREADS(D, ATTENTION_TILE_COLUMNS), ATTENTION_BLOCKS(D))
    attention_kernel(const struct cuda_plan_view *plan, struct attention_view view)
{
    SHARED(uint16_t, memory);
    const uint32_t columns = ATTENTION_TILE_COLUMNS;
    const struct attention_shared shared = attention_share<D, T, columns>(memory);
    struct attention_tile tile;

    prim_depend_wait();
    prim_depend_launch();
    for (uint32_t index = PRIM_BLOCK_X;
         attention_find<D, ATTENTION_SHORT>(plan, &view, index, &tile); index += PRIM_GRID_X) {
        if (tile.column_count <= ATTENTION_SMALL_COLUMNS) {
            attention_run_tile<D, T, columns, ATTENTION_WARPS(D, columns), false>(plan, &view,
                                                                                  &shared, &tile);
        } else {
            attention_run_tile<D, T, columns, ATTENTION_PARTS(D, columns), false>(plan, &view,
                                                                                  &shared, &tile);
        }
    }
}

/* Tall tiles, which are all there where view.has_tall, and chains but of heads of 256. Grid: the
 * same. */
template <uint32_t D, enum kv_type T>
KERNEL void PRIM_BOUNDS(ATTENTION_THREADS(D, ATTENTION_TALL_COLUMNS), 1)
    attention_tall_kernel(const struct cuda_plan_view *plan, struct attention_view view)
{
    SHARED(uint16_t, memory);
    const uint32_t columns = ATTENTION_TALL_COLUMNS;
    const struct attention_shared shared = attention_share<D, T, columns>(memory);
    struct attention_tile tile;

    prim_depend_wait();
    prim_depend_launch();
    for (uint32_t index = PRIM_BLOCK_X;
         attention_find<D, ATTENTION_TALL>(plan, &view, index, &tile); index += PRIM_GRID_X) {
        attention_run_tile<D, T, columns, ATTENTION_PARTS(D, columns),
                           ATTENTION_TAKES_CHAINS(D, ATTENTION_TALL)>(plan, &view, &shared, &tile);
    }
}

/* Chains of heads of 256, for which a tall tile's registers have no room. Grid: the same. */
template <uint32_t D, enum kv_type T>
KERNEL void PRIM_BOUNDS(ATTENTION_THREADS(D, ATTENTION_TILE_COLUMNS), 1)
    attention_chain_kernel(const struct cuda_plan_view *plan, struct attention_view view)
{
    SHARED(uint16_t, memory);
    const uint32_t columns = ATTENTION_TILE_COLUMNS;
    const struct attention_shared shared = attention_share<D, T, columns>(memory);
    struct attention_tile tile;

    prim_depend_wait();
    prim_depend_launch();
    for (uint32_t index = PRIM_BLOCK_X;
         attention_find<D, ATTENTION_CHAIN>(plan, &view, index, &tile); index += PRIM_GRID_X) {
        attention_run_tile<D, T, columns, ATTENTION_PARTS(D, columns), true>(plan, &view, &shared,
                                                                             &tile);
    }
}

/* Folds a row's partials, ascending, and divides; final rows have none. Grid: x strides over rows,
 * y is the query head. */
template <uint32_t D>
KERNEL void PRIM_BOUNDS(ATTENTION_FOLD_THREADS, 1)
    attention_fold_kernel(const struct cuda_plan_view *plan_at, struct attention_view view)
{
    prim_depend_wait();
    const struct cuda_plan_view plan = *plan_at;
    prim_depend_launch();
    for (uint32_t row = PRIM_BLOCK_X; row < plan.row_count; row += PRIM_GRID_X) {
        const uint32_t *partials = plan.row_partials + plan.rows[row].partial_first;
        const uint32_t count = plan.rows[row].partial_count;
        const uint64_t head = (uint64_t)row * view.head_count + PRIM_BLOCK_Y;

        if (count == 0) {
            continue;
        }
        for (uint32_t d = ATTENTION_THREAD; d < D; d += PRIM_THREADS) {
            uint64_t slot = (uint64_t)partials[0] * view.head_count + PRIM_BLOCK_Y;
            float max = view.max[slot];
            float sum = view.sum[slot];
            float acc = view.acc[slot * D + d];
            for (uint32_t i = 1; i < count; i++) {
                float a, b;
                slot = (uint64_t)partials[i] * view.head_count + PRIM_BLOCK_Y;
                attention_factors(&max, &sum, view.max[slot], view.sum[slot], &a, &b);
                acc = fmaf(acc, a, view.acc[slot * D + d] * b);
            }
            view.out[head * D + d] = acc / sum;
        }
    }
}

#endif
