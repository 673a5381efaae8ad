/* What one warp does with a chunk of attention that lies in shared memory: scores, weights,
 * products.
 *
 * Thread: all lanes of a warp together; attention.cuh says what they compute and puts the barriers.
 * Ownership: none.
 */
#ifndef PERSONAD_KERNELS_CUDA_ATTENTION_CHUNK_CUH
#define PERSONAD_KERNELS_CUDA_ATTENTION_CHUNK_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"
#include "kernels/steps/math.h"

enum {
    ATTENTION_TILE_COLUMNS = 64,
    ATTENTION_TALL_COLUMNS = 128, /* of a tile of attention_tall_kernel */
    ATTENTION_BLOCK_CHUNKS = ATTENTION_BLOCK_TOKENS / ATTENTION_CHUNK_TOKENS,
    ATTENTION_WARP_COLUMNS = 16,
    ATTENTION_PADDING_HALVES = 8,
    ATTENTION_SCORE_TILES = ATTENTION_CHUNK_TOKENS / 8,
    ATTENTION_PRODUCT_STEPS = ATTENTION_CHUNK_TOKENS / 16,
    ATTENTION_STEP_DIMENSIONS = 16,
    ATTENTION_PIECE_BYTES = 16, /* one asynchronous copy */
    ATTENTION_SMALL_COLUMNS = ATTENTION_WARP_COLUMNS,
    ATTENTION_SCORE_STRIDE = ATTENTION_CHUNK_TOKENS + 4, /* floats; spreads rows over the banks */
    ATTENTION_FOLD_THREADS = 128,
};

/* Which tiles a kernel takes: attention_kernel, attention_tall_kernel, attention_chain_kernel. */
enum attention_kind { ATTENTION_SHORT, ATTENTION_TALL, ATTENTION_CHAIN };

/* What one layer's attention reads and writes. */
struct attention_view {
    const float *q; /* [row][head_count * head_size] */
    float *out;     /* [row][head_count * head_size] */
    struct cuda_kv_view kv;
    float *acc;       /* [partial][head_count][head_size] */
    float *max;       /* [partial][head_count] */
    float *sum;       /* [partial][head_count] */
    float scale_log2; /* scale * log2(e) */
    uint32_t head_count, kv_head_count;
    bool has_tall;   /* tall tiles are attention_tall_kernel's */
    bool has_chains; /* a plan may have any */
};

/* Asked for anew each time: what is computed from them and kept for the next tile would cost
 * registers that accumulators have taken. */
#define ATTENTION_THREAD prim_anew(PRIM_THREAD)

DEVICE_INLINE uint32_t attention_group(const struct attention_view *view)
{
    return prim_anew(view->head_count / view->kv_head_count);
}

#define ATTENTION_STRIDE(head_size) ((head_size) + ATTENTION_PADDING_HALVES)
/* Warps of a tile that have the same columns, and warps of a block for tiles of so many. */
#define ATTENTION_PARTS(head_size, columns) \
    ((head_size) > 128 && (columns) <= ATTENTION_TILE_COLUMNS ? 2u : 1u)
#define ATTENTION_WARPS(head_size, columns) \
    ((columns) / ATTENTION_WARP_COLUMNS * ATTENTION_PARTS(head_size, columns))
#define ATTENTION_THREADS(head_size, columns) (32u * ATTENTION_WARPS(head_size, columns))
/* Of a tile that walks a chain, and the threads that do. */
#define ATTENTION_CHAIN_COLUMNS(head_size) \
    ((head_size) > 128 ? (uint32_t)ATTENTION_TILE_COLUMNS : (uint32_t)ATTENTION_TALL_COLUMNS)
#define ATTENTION_CHAIN_THREADS(head_size) \
    ATTENTION_THREADS(head_size, ATTENTION_CHAIN_COLUMNS(head_size))
/* Where the accumulators of the blocks before lie: in registers, but for heads of 256. */
#define ATTENTION_TOTAL_IS_SHARED(head_size) ((head_size) > 128)
/* Blocks that a multiprocessor has room for, so that copies of some are on their way while others
 * compute; it bounds registers. */
#define ATTENTION_BLOCKS(head_size) ((head_size) > 128 ? 1 : (head_size) > 64 ? 2 : 3)
/* Steps of 16 dimensions that a warp has at the most. */
#define ATTENTION_PART_STEPS(head_size, parts) \
    (((head_size) / ATTENTION_STEP_DIMENSIONS + (parts)-1) / (parts))

static inline uint32_t attention_shared_bytes(uint32_t head_size, enum kv_type type,
                                              uint32_t columns)
{
    const uint32_t rows = columns + 2 * ATTENTION_CHUNK_TOKENS;
    const uint32_t halves = rows * ATTENTION_STRIDE(head_size);
    const uint32_t codes = 2 * ATTENTION_CHUNK_TOKENS * (head_size + (uint32_t)sizeof(float));

    return halves * (uint32_t)sizeof(uint16_t) + (type == KV_TYPE_FP8 ? codes : 0);
}

static inline uint32_t attention_chain_shared_bytes(uint32_t head_size, enum kv_type type)
{
    const uint32_t columns = ATTENTION_CHAIN_COLUMNS(head_size);
    const uint32_t total =
        ATTENTION_TOTAL_IS_SHARED(head_size) ? columns * head_size * (uint32_t)sizeof(float) : 0;

    return attention_shared_bytes(head_size, type, columns) + total;
}

/* Whether a card with so much shared memory a block has tall tiles, and whether chains. */
static inline bool attention_has_tall(uint32_t head_size, enum kv_type type,
                                      uint32_t shared_bytes_max)
{
    return attention_shared_bytes(head_size, type, ATTENTION_TALL_COLUMNS) <= shared_bytes_max;
}

static inline bool attention_has_chains(uint32_t head_size, enum kv_type type,
                                        uint32_t shared_bytes_max)
{
    return attention_chain_shared_bytes(head_size, type) <= shared_bytes_max;
}

struct attention_shared {
    uint16_t *q, *k, *v;
    uint8_t *k_codes, *v_codes;
    float *k_scales, *v_scales;
    float *total; /* [columns * D / threads][threads]: each thread's of the blocks before */
};

template <uint32_t D, enum kv_type T, uint32_t COLUMNS>
DEVICE_INLINE struct attention_shared attention_share(uint16_t *memory)
{
    const uint32_t rows = ATTENTION_CHUNK_TOKENS * ATTENTION_STRIDE(D);
    struct attention_shared shared;

    shared.k = memory;
    shared.v = memory + rows;
    shared.q = memory + 2 * rows;
    shared.k_codes = (uint8_t *)(shared.q + COLUMNS * ATTENTION_STRIDE(D));
    shared.v_codes = shared.k_codes + ATTENTION_CHUNK_TOKENS * D;
    shared.k_scales = (float *)(shared.v_codes + ATTENTION_CHUNK_TOKENS * D);
    shared.v_scales = shared.k_scales + ATTENTION_CHUNK_TOKENS;
    shared.total =
        T == KV_TYPE_FP8 ? shared.v_scales + ATTENTION_CHUNK_TOKENS : (float *)shared.k_codes;
    return shared;
}

/* In the padding of its q: what is asked for it seldom, and costs no register. */
struct attention_column {
    uint32_t query; /* row * head_count + head */
    uint32_t seen;  /* how many of the item's positions it attends to; 0: no such column */
    uint32_t slot;  /* of its partial: partial * head_count + head; NONE: its output is final */
};

#define ATTENTION_SLOT_NONE 0xffffffffu

static_assert(sizeof(struct attention_column) <= ATTENTION_PADDING_HALVES * sizeof(uint16_t),
              "a column fits its padding");

template <uint32_t D>
DEVICE_INLINE struct attention_column *attention_column_of(const struct attention_shared *shared,
                                                           uint32_t column)
{
    return (struct attention_column *)(shared->q + column * ATTENTION_STRIDE(D) + D);
}

/* Where the scores of a small tile meet: behind its columns. */
template <uint32_t D>
DEVICE_INLINE float *attention_scores_of(const struct attention_shared *shared)
{
    static_assert(ATTENTION_SMALL_COLUMNS * ATTENTION_SCORE_STRIDE * sizeof(float) <=
                      (ATTENTION_TILE_COLUMNS - ATTENTION_SMALL_COLUMNS) * ATTENTION_STRIDE(D) *
                          sizeof(uint16_t),
                  "the scores fit into rows without a column");
    return (float *)(shared->q + ATTENTION_SMALL_COLUMNS * ATTENTION_STRIDE(D));
}

/* What this warp has of a tile. */
struct attention_part {
    uint32_t column_first;
    uint32_t step_first, step_count; /* of 16 dimensions of V */
    bool leads;                      /* writes what all parts have */
};

/* Of one thread's two columns, lane / 4 and lane / 4 + 8 of its warp, and STEPS steps. */
template <uint32_t STEPS> struct attention_total {
    float acc[STEPS * 2][4];
    float max[2], sum[2];
};

/* How many of the item's positions the thread's column `c` (0 or 1) attends to. Not kept in a
 * register: heads of 128 have none to spare. */
template <uint32_t D>
DEVICE_INLINE uint32_t attention_seen(const struct attention_shared *shared,
                                      const struct attention_part *part, uint32_t c)
{
    return attention_column_of<D>(shared, part->column_first + ATTENTION_THREAD % 32 / 4 + c * 8)
        ->seen;
}

template <bool IS_BF16>
DEVICE_INLINE void attention_mma(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    if (IS_BF16) {
        prim_mma_bf16(c, a, b);
    } else {
        prim_mma_f16(c, a, b);
    }
}

/* Scores of 16 columns from `column_first` and TILES * 8 positions from `slot_first`. */
template <uint32_t D, enum kv_type T, uint32_t TILES>
DEVICE_INLINE void attention_score(const struct attention_shared *shared, uint32_t column_first,
                                   uint32_t slot_first, float scores[TILES][4])
{
    const uint32_t lane = ATTENTION_THREAD % 32;
    const uint16_t *q =
        shared->q + (column_first + lane % 16) * ATTENTION_STRIDE(D) + lane / 16 * 8;
    const uint16_t *k = shared->k + (slot_first + lane / 16 * 8 + lane % 8) * ATTENTION_STRIDE(D) +
                        lane / 8 % 2 * 8;

    PRIM_UNROLL
    for (uint32_t t = 0; t < TILES; t++) {
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
        for (uint32_t t = 0; t < TILES; t += 2) {
            uint32_t b[4];
            prim_ldmatrix_x4(b, k + t * 8 * ATTENTION_STRIDE(D) + d);
            attention_mma<T == KV_TYPE_BF16>(scores[t], a, b);
            attention_mma<T == KV_TYPE_BF16>(scores[t + 1], a, b + 2);
        }
    }
    if (T == KV_TYPE_FP8) {
        PRIM_UNROLL
        for (uint32_t i = 0; i < TILES * 4; i++) {
            const uint32_t slot = slot_first + i / 4 * 8 + lane % 4 * 2 + i % 2;
            scores[i / 4][i % 4] = scores[i / 4][i % 4] * shared->k_scales[slot];
        }
    }
}

/* Scores of a small tile: 16 positions a warp, four warps, to where all meet. */
template <uint32_t D, enum kv_type T>
DEVICE_INLINE void attention_score_small(const struct attention_shared *shared)
{
    const uint32_t lane = ATTENTION_THREAD % 32, slot_first = ATTENTION_THREAD / 32 * 16;
    float scores[2][4];

    if (slot_first >= ATTENTION_CHUNK_TOKENS) {
        return;
    }
    attention_score<D, T, 2>(shared, 0, slot_first, scores);
    PRIM_UNROLL
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t column = lane / 4 + i % 4 / 2 * 8;
        const uint32_t slot = slot_first + i / 4 * 8 + lane % 4 * 2 + i % 2;
        attention_scores_of<D>(shared)[column * ATTENTION_SCORE_STRIDE + slot] =
            scores[i / 4][i % 4];
    }
}

/* All scores of a small tile as a tall one's warp would have them. */
template <uint32_t D>
DEVICE_INLINE void attention_gather(const struct attention_shared *shared,
                                    float scores[ATTENTION_SCORE_TILES][4])
{
    const uint32_t lane = ATTENTION_THREAD % 32;

    PRIM_UNROLL
    for (uint32_t i = 0; i < ATTENTION_SCORE_TILES * 4; i++) {
        const uint32_t column = lane / 4 + i % 4 / 2 * 8;
        const uint32_t slot = i / 4 * 8 + lane % 4 * 2 + i % 2;
        scores[i / 4][i % 4] =
            attention_scores_of<D>(shared)[column * ATTENTION_SCORE_STRIDE + slot];
    }
}

/* Two weights rounded as they are multiplied. */
template <enum kv_type T> DEVICE_INLINE uint32_t attention_pack(float low, float high)
{
    return T == KV_TYPE_F16 ? prim_pack_half(low, high) : prim_pack_bf16(low, high);
}

template <enum kv_type T> DEVICE_INLINE float attention_unpack(uint32_t pair, bool high)
{
    const uint16_t bits = (uint16_t)(high ? pair >> 16 : pair);
    return T == KV_TYPE_F16 ? steps_float_from_half(bits) : steps_float_from_bf16(bits);
}

/* Scores to weights, packed as the product's A operand, for the thread's column `c` (0 or 1), which
 * sees the chunk's first `visible` positions. v_scales: fp8 only. */
template <enum kv_type T>
DEVICE_INLINE void attention_weigh(float scores[ATTENTION_SCORE_TILES][4], uint32_t c,
                                   uint32_t visible, float scale_log2, const float *v_scales,
                                   uint32_t weights[ATTENTION_SCORE_TILES][2], float *max,
                                   float *sum)
{
    const uint32_t first = ATTENTION_THREAD % 4 * 2;
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
        uint32_t pair =
            attention_pack<T>(at < visible ? low : 0.0f, at + 1 < visible ? high : 0.0f);
        const float low_weight = attention_unpack<T>(pair, false);
        const float high_weight = attention_unpack<T>(pair, true);
        total = total + low_weight;
        total = total + high_weight;
        if (T == KV_TYPE_FP8) {
            /* Not 0 times the scale of a slot that nobody sees: it may be a NaN. */
            pair = prim_pack_bf16(at < visible ? low_weight * v_scales[at] : 0.0f,
                                  at + 1 < visible ? high_weight * v_scales[at + 1] : 0.0f);
        }
        weights[t][c] = pair;
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
template <uint32_t D, enum kv_type T, uint32_t STEPS>
DEVICE_INLINE void attention_multiply(const struct attention_shared *shared,
                                      const struct attention_part *part,
                                      const uint32_t weights[ATTENTION_SCORE_TILES][2],
                                      const bool takes[2], const float a[2], const float b[2],
                                      bool first, struct attention_total<STEPS> *total)
{
    const uint32_t lane = ATTENTION_THREAD % 32;
    const uint16_t *v = shared->v + lane % 16 * ATTENTION_STRIDE(D) + lane / 16 * 8 +
                        part->step_first * ATTENTION_STEP_DIMENSIONS;

    PRIM_UNROLL
    for (uint32_t s = 0; s < STEPS; s++) {
        float product[2][4] = {};
        if (s >= part->step_count) {
            break;
        }
        PRIM_UNROLL
        for (uint32_t step = 0; step < ATTENTION_PRODUCT_STEPS; step++) {
            const uint32_t p[4] = {weights[step * 2][0], weights[step * 2][1],
                                   weights[step * 2 + 1][0], weights[step * 2 + 1][1]};
            uint32_t values[4];
            prim_ldmatrix_x4_trans(values, v + step * 16 * ATTENTION_STRIDE(D) +
                                               s * ATTENTION_STEP_DIMENSIONS);
            attention_mma<T != KV_TYPE_F16>(product[0], p, values);
            attention_mma<T != KV_TYPE_F16>(product[1], p, values + 2);
        }
        PRIM_UNROLL
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t c = i % 4 / 2;
            float *acc = &total->acc[s * 2 + i / 4][i % 4];
            const float more = product[i / 4][i % 4];
            const float folded = first ? more : fmaf(*acc, a[c], more * b[c]);
            *acc = takes[c] ? folded : *acc;
        }
    }
}

/* Softmax and product of one chunk, whose scores are there and whose V has landed. */
template <uint32_t D, enum kv_type T, uint32_t STEPS>
DEVICE_INLINE void attention_take_chunk(const struct attention_shared *shared,
                                        const struct attention_part *part, uint32_t chunk,
                                        float scale_log2, float scores[ATTENTION_SCORE_TILES][4],
                                        struct attention_total<STEPS> *total)
{
    uint32_t weights[ATTENTION_SCORE_TILES][2];
    float a[2] = {1.0f, 1.0f}, b[2] = {1.0f, 1.0f};
    bool takes[2];
    const uint32_t begin = chunk * ATTENTION_CHUNK_TOKENS;
    const bool is_first = chunk % ATTENTION_BLOCK_CHUNKS == 0;

    PRIM_UNROLL
    for (uint32_t c = 0; c < 2; c++) {
        const uint32_t seen = attention_seen<D>(shared, part, c);
        const uint32_t visible = seen > begin ? seen - begin : 0;
        float max, sum;
        attention_weigh<T>(scores, c, visible, scale_log2, shared->v_scales, weights, &max, &sum);
        takes[c] = visible > 0;
        if (takes[c] && is_first) {
            total->max[c] = max;
            total->sum[c] = sum;
        } else if (takes[c]) {
            attention_factors(&total->max[c], &total->sum[c], max, sum, &a[c], &b[c]);
        }
    }
    attention_multiply<D, T, STEPS>(shared, part, weights, takes, a, b, is_first, total);
}

/* Folds the block that ends with `chunk` into the blocks before it. `total`: of them; where it is
 * shared its accumulators are in shared memory, no thread touching another's. */
template <uint32_t D, uint32_t STEPS>
DEVICE_INLINE void attention_fold_block(const struct attention_shared *shared,
                                        const struct attention_part *part, uint32_t chunk,
                                        const struct attention_total<STEPS> *block,
                                        struct attention_total<STEPS> *total)
{
    const uint32_t begin = chunk / ATTENTION_BLOCK_CHUNKS * ATTENTION_BLOCK_TOKENS;
    float a[2], b[2];
    bool takes[2];

    PRIM_UNROLL
    for (uint32_t c = 0; c < 2; c++) {
        takes[c] = begin > 0 && attention_seen<D>(shared, part, c) > begin;
        if (begin == 0) {
            total->max[c] = block->max[c];
            total->sum[c] = block->sum[c];
        } else if (takes[c]) {
            attention_factors(&total->max[c], &total->sum[c], block->max[c], block->sum[c], &a[c],
                              &b[c]);
        }
    }
    PRIM_UNROLL
    for (uint32_t i = 0; i < STEPS * 8; i++) {
        const uint32_t c = i % 4 / 2;
        const float more = block->acc[i / 4][i % 4];
        float *acc = ATTENTION_TOTAL_IS_SHARED(D)
                         ? shared->total + i * ATTENTION_CHAIN_THREADS(D) + ATTENTION_THREAD
                         : &total->acc[i / 4][i % 4];
        if (begin == 0) {
            *acc = more;
        } else if (takes[c]) {
            *acc = fmaf(*acc, a[c], more * b[c]);
        }
    }
}

/* The accumulators of a shared total, where the tile ends. */
template <uint32_t D, uint32_t STEPS>
DEVICE_INLINE void attention_fetch_total(const struct attention_shared *shared,
                                         struct attention_total<STEPS> *total)
{
    PRIM_UNROLL
    for (uint32_t i = 0; i < STEPS * 8; i++) {
        total->acc[i / 4][i % 4] = shared->total[i * ATTENTION_CHAIN_THREADS(D) + ATTENTION_THREAD];
    }
}

#endif
