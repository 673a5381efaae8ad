/* The kernels of attention.cu, apart so that the emulator's tests can launch them bare.
 *
 * Thread: none of its own; everything runs on the device. The caller owns all memory in the views;
 * `acc`, `max` and `sum` hold one partial for each (plan partial, query head) and are written by
 * attention_kernel before attention_fold_kernel reads them.
 *
 * A tile is 64 query columns (a column is one query head of one row of an item's list) over the 16
 * to 512 positions of the item, and one KV head. Its four warps have 16 columns each and share K
 * and V, which pass through shared memory a chunk of 64 positions at a time:
 *
 *   q [64][D + 8]   k [64][D + 8]   v [64][D + 8]   halves; 8 of padding spread rows over the banks
 *
 * The padding of a column's q holds two words of its own: `query`, row * head_count + head, and
 * `seen`, how many of the item's positions it attends to (0: no such column). With them elsewhere
 * heads of 256 would not fit the 99 KiB of sm_89.
 *
 * The bits of a column and chunk, of which the column sees the first n positions (D: head size):
 *   s_j = chain of m16n8k16 steps ascending over D from 0, q and k as halves
 *   t_j = s_j * (scale * log2(e));  m = max t_j;  w_j = half(exp2(t_j - m)), 0 from n on
 *   l   = lane i of 4 adds w_j of j = 8 t + 2 i, 8 t + 2 i + 1, t ascending; then lanes i ^ 1, i ^
 * 2 c_d = chain of four m16n8k16 steps ascending over the chunk's positions from 0 Chunks fold left
 * inside the item, items fold left in the second kernel, each by the rule of
 * kernels/cpu/attention.h with exp2 for exp.
 */
#ifndef PERSONAD_KERNELS_CUDA_ATTENTION_CUH
#define PERSONAD_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"
#include "kernels/steps/math.h"

enum {
    ATTENTION_THREADS = 128,
    ATTENTION_TILE_COLUMNS = 64,
    ATTENTION_WARP_COLUMNS = 16,
    ATTENTION_PADDING_HALVES = 8,
    ATTENTION_SCORE_TILES = ATTENTION_CHUNK_TOKENS / 8,
    ATTENTION_PRODUCT_STEPS = ATTENTION_CHUNK_TOKENS / 16,
    ATTENTION_PIECE_HALVES = 8, /* one asynchronous copy */
};

static_assert(ATTENTION_TILE_COLUMNS == ATTENTION_THREADS / 32 * ATTENTION_WARP_COLUMNS,
              "each warp has its columns");
static_assert((int)ATTENTION_TILE_COLUMNS == (int)ATTENTION_CHUNK_TOKENS,
              "one stride of shared rows");

/* What one layer's attention reads and writes. Pages: [kv_head][page][16][head_size] halves. */
struct attention_view {
    const float *q; /* [row][head_count * head_size] */
    float *out;     /* [row][head_count * head_size] */
    const uint16_t *k, *v;
    float *acc;       /* [partial][head_count][head_size] */
    float *max;       /* [partial][head_count] */
    float *sum;       /* [partial][head_count] */
    float scale_log2; /* scale * log2(e) */
    uint32_t head_count, kv_head_count, head_size, page_count;
};

#define ATTENTION_STRIDE(head_size) ((head_size) + ATTENTION_PADDING_HALVES)

static inline uint32_t attention_shared_bytes(uint32_t head_size)
{
    return 3 * ATTENTION_TILE_COLUMNS * ATTENTION_STRIDE(head_size) * (uint32_t)sizeof(uint16_t);
}

struct attention_shared {
    uint16_t *q, *k, *v;
};

struct attention_column {
    uint32_t query, seen;
};

template <uint32_t D>
DEVICE_INLINE struct attention_column *attention_column_of(const struct attention_shared *shared,
                                                           uint32_t column)
{
    return (struct attention_column *)(shared->q + column * ATTENTION_STRIDE(D) + D);
}

/* A walk over the items, 32 at a time: work items are tiles, counted through all items. */
struct attention_search {
    uint32_t item_base; /* first of the 32 items at hand */
    uint32_t tile_base; /* tiles of all items before it */
};

struct attention_tile {
    struct plan_item item;
    uint32_t column_first;
    uint32_t kv_head;
    uint32_t seen_max;  /* by any column */
    uint32_t warp_seen; /* by any column of this warp */
};

/* Of one thread's two columns, lane / 4 and lane / 4 + 8 of its warp. */
template <uint32_t D> struct attention_total {
    float acc[D / 8][4];
    float max[2], sum[2];
    uint32_t seen[2];
};

/* Finds work item `index` (ascending between calls); false past the last. Every lane of a warp
 * gets the same answer. */
DEVICE_INLINE bool attention_find(const struct cuda_plan_view *plan, uint32_t group, uint32_t index,
                                  struct attention_search *search, struct attention_tile *tile)
{
    const uint32_t lane = PRIM_THREAD % 32;

    while (search->item_base < plan->item_count) {
        const uint32_t mine = search->item_base + lane;
        uint32_t tiles = 0;
        if (mine < plan->item_count) {
            const uint32_t columns = plan->items[mine].row_count * group;
            tiles = (columns + ATTENTION_TILE_COLUMNS - 1) / ATTENTION_TILE_COLUMNS;
        }
        uint32_t before = tiles;
        for (uint32_t delta = 1; delta < 32; delta *= 2) {
            const uint32_t other = prim_shuffle_up(before, delta);
            before += lane >= delta ? other : 0;
        }
        const uint32_t total = prim_shuffle(before, 31);
        if (index < search->tile_base + total) {
            uint32_t found = search->tile_base + before <= index ? 1 : 0;
            for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
                found += prim_shuffle_xor(found, lanes);
            }
            const uint32_t first = search->tile_base + prim_shuffle(before - tiles, found);
            tile->item = plan->items[search->item_base + found];
            tile->column_first = (index - first) * ATTENTION_TILE_COLUMNS;
            return true;
        }
        search->tile_base += total;
        search->item_base += 32;
    }
    return false;
}

/* Which query each column is, and how far it sees. Has a barrier. */
template <uint32_t D>
DEVICE_INLINE void
attention_list_columns(const struct cuda_plan_view *plan, const struct attention_view *view,
                       const struct attention_shared *shared, struct attention_tile *tile)
{
    const uint32_t group = view->head_count / view->kv_head_count;
    const uint32_t lane = PRIM_THREAD % 32;

    if (PRIM_THREAD < ATTENTION_TILE_COLUMNS) {
        const uint32_t column = tile->column_first + PRIM_THREAD;
        uint32_t seen = 0, query = 0;
        if (column / group < tile->item.row_count) {
            const uint32_t row = plan->item_rows[tile->item.row_first + column / group];
            const uint32_t past = plan->rows[row].position + 1;
            const uint32_t end = past < tile->item.end ? past : tile->item.end;
            seen = end > tile->item.begin ? end - tile->item.begin : 0;
            query = row * view->head_count + tile->kv_head * group + column % group;
        }
        *attention_column_of<D>(shared, PRIM_THREAD) = {query, seen};
    }
    prim_sync();
    const uint32_t low = attention_column_of<D>(shared, lane)->seen;
    const uint32_t high = attention_column_of<D>(shared, lane + 32)->seen;
    const uint32_t warp = PRIM_THREAD / 32 * ATTENTION_WARP_COLUMNS;
    uint32_t most = high > low ? high : low;
    uint32_t warp_most = attention_column_of<D>(shared, warp + lane % ATTENTION_WARP_COLUMNS)->seen;
    for (uint32_t lanes = 16; lanes > 0; lanes /= 2) {
        const uint32_t other = prim_shuffle_xor(most, lanes);
        const uint32_t warp_other = prim_shuffle_xor(warp_most, lanes);
        most = other > most ? other : most;
        warp_most = warp_other > warp_most ? warp_other : warp_most;
    }
    tile->seen_max = most;
    tile->warp_seen = warp_most;
}

/* Queries as halves; columns that are not there as zeros. */
template <uint32_t D>
DEVICE_INLINE void attention_load_queries(const struct attention_view *view,
                                          const struct attention_shared *shared)
{
    for (uint32_t i = PRIM_THREAD; i < ATTENTION_TILE_COLUMNS * D / 2; i += ATTENTION_THREADS) {
        const uint32_t column = i / (D / 2);
        const uint32_t d = i % (D / 2) * 2;
        uint32_t pair = 0;
        const struct attention_column of = *attention_column_of<D>(shared, column);
        if (of.seen > 0) {
            const float *q = view->q + (uint64_t)of.query * D + d;
            pair = steps_half_from_float(q[0]) | (uint32_t)steps_half_from_float(q[1]) << 16;
        }
        *(uint32_t *)(shared->q + column * ATTENTION_STRIDE(D) + d) = pair;
    }
}

/* Starts the copy of one chunk of K or V; positions that no column sees become zeros, so that what
 * a page held before never meets a product. */
template <uint32_t D>
DEVICE_INLINE void attention_copy_chunk(const struct cuda_plan_view *plan,
                                        const struct attention_view *view,
                                        const struct attention_tile *tile, uint32_t chunk,
                                        const uint16_t *pages, uint16_t *to)
{
    const uint32_t pieces = D / ATTENTION_PIECE_HALVES;
    const uint64_t head = (uint64_t)tile->kv_head * view->page_count;

    PRIM_UNROLL_4
    for (uint32_t i = 0; i < ATTENTION_CHUNK_TOKENS * pieces / ATTENTION_THREADS; i++) {
        const uint32_t piece = i * ATTENTION_THREADS + PRIM_THREAD;
        const uint32_t slot = piece / pieces;
        const uint32_t d = piece % pieces * ATTENTION_PIECE_HALVES;
        const uint32_t position = chunk * ATTENTION_CHUNK_TOKENS + slot;
        const bool valid = position < tile->seen_max;
        const uint16_t *from = pages;
        if (valid) {
            const uint32_t page =
                plan->pages[tile->item.page_first + position / KV_PAGE_TOKEN_COUNT];
            from += ((head + page) * KV_PAGE_TOKEN_COUNT + slot % KV_PAGE_TOKEN_COUNT) * D + d;
        }
        prim_copy16(to + slot * ATTENTION_STRIDE(D) + d, from, valid);
    }
    prim_copy_commit();
}

/* Scores of this warp's 16 columns and the chunk's 64 positions. */
template <uint32_t D>
DEVICE_INLINE void attention_score(const struct attention_shared *shared,
                                   float scores[ATTENTION_SCORE_TILES][4])
{
    const uint32_t lane = PRIM_THREAD % 32;
    const uint32_t warp = PRIM_THREAD / 32 * ATTENTION_WARP_COLUMNS;
    const uint16_t *q = shared->q + (warp + lane % 16) * ATTENTION_STRIDE(D) + lane / 16 * 8;
    const uint16_t *k =
        shared->k + (lane / 16 * 8 + lane % 8) * ATTENTION_STRIDE(D) + lane / 8 % 2 * 8;

    PRIM_UNROLL
    for (uint32_t t = 0; t < ATTENTION_SCORE_TILES; t++) {
        PRIM_UNROLL
        for (uint32_t i = 0; i < 4; i++) {
            scores[t][i] = 0.0f;
        }
    }
    PRIM_UNROLL_4
    for (uint32_t d = 0; d < D; d += 16) {
        uint32_t a[4];
        prim_ldmatrix_x4(a, q + d);
        PRIM_UNROLL
        for (uint32_t t = 0; t < ATTENTION_SCORE_TILES; t += 2) {
            uint32_t b[4];
            prim_ldmatrix_x4(b, k + t * 8 * ATTENTION_STRIDE(D) + d);
            prim_mma_f16(scores[t], a, b);
            prim_mma_f16(scores[t + 1], a, b + 2);
        }
    }
}

/* Scores to weights in half precision, packed as the product's A operand, for the thread's column
 * `c` (0 or 1), which sees the chunk's first `visible` positions. */
DEVICE_INLINE void attention_weigh(float scores[ATTENTION_SCORE_TILES][4], uint32_t c,
                                   uint32_t visible, float scale_log2,
                                   uint32_t weights[ATTENTION_SCORE_TILES][2], float *max,
                                   float *sum)
{
    const uint32_t first = PRIM_THREAD % 4 * 2;
    float largest = -INFINITY, total = 0.0f;

    PRIM_UNROLL
    for (uint32_t i = 0; i < ATTENTION_SCORE_TILES * 2; i++) {
        float *score = &scores[i / 2][c * 2 + i % 2];
        *score = i / 2 * 8 + first + i % 2 < visible ? *score * scale_log2 : -INFINITY;
        largest = *score > largest ? *score : largest;
    }
    PRIM_UNROLL
    for (uint32_t lanes = 1; lanes < 4; lanes *= 2) {
        const float other = prim_shuffle_xor(largest, lanes);
        largest = other > largest ? other : largest;
    }
    PRIM_UNROLL
    for (uint32_t t = 0; t < ATTENTION_SCORE_TILES; t++) {
        const uint32_t at = t * 8 + first;
        const float low = prim_exp2(scores[t][c * 2] - largest);
        const float high = prim_exp2(scores[t][c * 2 + 1] - largest);
        const uint32_t pair =
            prim_pack_half(at < visible ? low : 0.0f, at + 1 < visible ? high : 0.0f);
        weights[t][c] = pair;
        total = total + steps_float_from_half((uint16_t)pair);
        total = total + steps_float_from_half((uint16_t)(pair >> 16));
    }
    total = total + prim_shuffle_xor(total, 1);
    total = total + prim_shuffle_xor(total, 2);
    *max = largest;
    *sum = total;
}

/* The factors of a fold; updates max and sum. */
DEVICE_INLINE void attention_factors(float *max, float *sum, float more_max, float more_sum,
                                     float *a, float *b)
{
    *a = 1.0f;
    *b = 1.0f;
    if (more_max > *max) {
        *a = prim_exp2(*max - more_max);
        *max = more_max;
    } else {
        *b = prim_exp2(more_max - *max);
    }
    *sum = fmaf(*sum, *a, more_sum * *b);
}

/* Multiplies the weights with V, 16 dimensions at a time, and folds the products in. */
template <uint32_t D>
DEVICE_INLINE void attention_multiply(const struct attention_shared *shared,
                                      const uint32_t weights[ATTENTION_SCORE_TILES][2],
                                      const bool takes[2], const float a[2], const float b[2],
                                      bool first, struct attention_total<D> *total)
{
    const uint32_t lane = PRIM_THREAD % 32;
    const uint16_t *v = shared->v + lane % 16 * ATTENTION_STRIDE(D) + lane / 16 * 8;

    PRIM_UNROLL
    for (uint32_t d = 0; d < D; d += 16) {
        float product[2][4] = {};
        PRIM_UNROLL
        for (uint32_t step = 0; step < ATTENTION_PRODUCT_STEPS; step++) {
            const uint32_t p[4] = {weights[step * 2][0], weights[step * 2][1],
                                   weights[step * 2 + 1][0], weights[step * 2 + 1][1]};
            uint32_t values[4];
            prim_ldmatrix_x4_trans(values, v + step * 16 * ATTENTION_STRIDE(D) + d);
            prim_mma_f16(product[0], p, values);
            prim_mma_f16(product[1], p, values + 2);
        }
        PRIM_UNROLL
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t c = i % 4 / 2;
            float *acc = &total->acc[d / 8 + i / 4][i % 4];
            const float more = product[i / 4][i % 4];
            const float folded = first ? more : fmaf(*acc, a[c], more * b[c]);
            *acc = takes[c] ? folded : *acc;
        }
    }
}

/* Softmax and product of one chunk, whose scores are there and whose V has landed. */
template <uint32_t D>
DEVICE_INLINE void attention_take_chunk(const struct attention_shared *shared, uint32_t chunk,
                                        float scale_log2, float scores[ATTENTION_SCORE_TILES][4],
                                        struct attention_total<D> *total)
{
    uint32_t weights[ATTENTION_SCORE_TILES][2];
    float a[2] = {1.0f, 1.0f}, b[2] = {1.0f, 1.0f};
    bool takes[2];
    const uint32_t begin = chunk * ATTENTION_CHUNK_TOKENS;

    PRIM_UNROLL
    for (uint32_t c = 0; c < 2; c++) {
        const uint32_t visible = total->seen[c] > begin ? total->seen[c] - begin : 0;
        float max, sum;
        attention_weigh(scores, c, visible, scale_log2, weights, &max, &sum);
        takes[c] = visible > 0;
        if (takes[c] && chunk == 0) {
            total->max[c] = max;
            total->sum[c] = sum;
        } else if (takes[c]) {
            attention_factors(&total->max[c], &total->sum[c], max, sum, &a[c], &b[c]);
        }
    }
    attention_multiply<D>(shared, weights, takes, a, b, chunk == 0, total);
}

/* Writes this thread's part of its two columns' partials. */
template <uint32_t D>
DEVICE_INLINE void
attention_store(const struct attention_view *view, const struct attention_shared *shared,
                const struct attention_tile *tile, const struct attention_total<D> *total)
{
    const uint32_t group = view->head_count / view->kv_head_count;
    const uint32_t lane = PRIM_THREAD % 32;

    PRIM_UNROLL
    for (uint32_t c = 0; c < 2; c++) {
        const uint32_t column = PRIM_THREAD / 32 * ATTENTION_WARP_COLUMNS + lane / 4 + c * 8;
        if (total->seen[c] == 0) {
            continue;
        }
        const uint32_t partial = tile->item.partial_first + (tile->column_first + column) / group;
        const uint32_t head = attention_column_of<D>(shared, column)->query % view->head_count;
        const uint64_t slot = (uint64_t)partial * view->head_count + head;
        if (lane % 4 == 0) {
            view->max[slot] = total->max[c];
            view->sum[slot] = total->sum[c];
        }
        PRIM_UNROLL
        for (uint32_t t = 0; t < D / 8; t++) {
            float *acc = view->acc + slot * D + t * 8 + lane % 4 * 2;
            acc[0] = total->acc[t][c * 2];
            acc[1] = total->acc[t][c * 2 + 1];
        }
    }
}

/* One tile. While a chunk's scores become weights the next chunk's K is on its way, and while they
 * are scored its V is. Enters and leaves with shared memory free. */
template <uint32_t D>
DEVICE_INLINE void
attention_run_tile(const struct cuda_plan_view *plan, const struct attention_view *view,
                   const struct attention_shared *shared, struct attention_tile *tile)
{
    struct attention_total<D> total = {
    };
    float scores[ATTENTION_SCORE_TILES][4];

    attention_list_columns<D>(plan, view, shared, tile);
    attention_copy_chunk<D>(plan, view, tile, 0, view->k, shared->k);
    attention_copy_chunk<D>(plan, view, tile, 0, view->v, shared->v);
    attention_load_queries<D>(view, shared);
    for (uint32_t c = 0; c < 2; c++) {
        const uint32_t column =
            PRIM_THREAD / 32 * ATTENTION_WARP_COLUMNS + PRIM_THREAD % 32 / 4 + c * 8;
        total.seen[c] = attention_column_of<D>(shared, column)->seen;
    }
    const uint32_t chunk_count =
        (tile->seen_max + ATTENTION_CHUNK_TOKENS - 1) / ATTENTION_CHUNK_TOKENS;
    for (uint32_t chunk = 0; chunk < chunk_count; chunk++) {
        const bool seen = chunk * ATTENTION_CHUNK_TOKENS < tile->warp_seen;
        prim_copy_wait<1>();
        prim_sync();
        if (seen) {
            attention_score<D>(shared, scores);
        }
        prim_sync();
        attention_copy_chunk<D>(plan, view, tile, chunk + 1, view->k, shared->k);
        prim_copy_wait<1>();
        prim_sync();
        if (seen) {
            attention_take_chunk<D>(shared, chunk, view->scale_log2, scores, &total);
        }
        prim_sync();
        attention_copy_chunk<D>(plan, view, tile, chunk + 1, view->v, shared->v);
    }
    prim_copy_wait<0>();
    attention_store<D>(view, shared, tile, &total);
    prim_sync();
}

/* Partials of every item, query head and listed row. Grid: x strides over tiles, y is the KV head.
 */
template <uint32_t D>
KERNEL void PRIM_BOUNDS(ATTENTION_THREADS, 1)
    attention_kernel(const struct cuda_plan_view *plan, struct attention_view view)
{
    SHARED(uint16_t, memory);
    const uint32_t rows = ATTENTION_TILE_COLUMNS * ATTENTION_STRIDE(D);
    const struct attention_shared shared = {memory, memory + rows, memory + 2 * rows};
    const uint32_t group = view.head_count / view.kv_head_count;
    struct attention_search search = {0, 0};
    struct attention_tile tile;

    prim_depend_wait();
    prim_depend_launch();
    tile.kv_head = PRIM_BLOCK_Y;
    for (uint32_t index = PRIM_BLOCK_X; attention_find(plan, group, index, &search, &tile);
         index += PRIM_GRID_X) {
        attention_run_tile<D>(plan, &view, &shared, &tile);
    }
}

/* Folds a row's blocks, ascending, and divides. Grid: x strides over rows, y is the query head. */
template <uint32_t D>
KERNEL void PRIM_BOUNDS(ATTENTION_THREADS, 1)
    attention_fold_kernel(const struct cuda_plan_view *plan_at, struct attention_view view)
{
    prim_depend_wait();
    const struct cuda_plan_view plan = *plan_at;
    prim_depend_launch();
    for (uint32_t row = PRIM_BLOCK_X; row < plan.row_count; row += PRIM_GRID_X) {
        const uint32_t *partials = plan.row_partials + plan.rows[row].partial_first;
        const uint32_t count = plan.rows[row].partial_count;
        const uint64_t head = (uint64_t)row * view.head_count + PRIM_BLOCK_Y;

        for (uint32_t d = PRIM_THREAD; d < D; d += PRIM_THREADS) {
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
