/* Attention's inner loops, a table for each instruction set and kind of keys and values;
 * attention.c walks the plan around them.
 *
 * Thread: any; everything lies in memory of the caller. The bits are those of
 * attention_scalar.c's tables. For one column (a query row's head) and one chunk of 64 positions,
 * of which it sees the first n:
 *   s_j = (chain of fmaf over the head dimension, ascending, from 0) * scale     j < n
 *   m   = max s_j;  w_j = steps_exp(s_j - m)
 *   l   = sum of w_j: lane i of 16 adds j = i, i + 16, i + 32, i + 48, then lanes fold i + 8,
 *         i + 4, i + 2, i + 1
 *   c_d = chain of fmaf(w_j, v_jd) over j ascending from 0
 * Two partials (M, L, A) and (m, l, c) fold to
 *   m > M:  a = steps_exp(M - m), b = 1, M = m;   else a = 1, b = steps_exp(m - M)
 *   L = fmaf(L, a, l * b);  A_d = fmaf(A_d, a, c_d * b)
 * Positions from n on count as zero whatever they hold: their scores are replaced, never used.
 *
 * BF16 keys and values come in pairs, of two dimensions of a key and of two positions of a value,
 * and their chains take the odd one of each pair first, which is what vdpbf16ps computes where
 * nothing is a denormal (rows.h). The numbers that they are multiplied with are rounded to BF16:
 *   q_d = bf16(query_d * factor), factor = scale * log2(e);  s_j = chain over q_d k_jd
 *   w_j = steps_exp2(s_j - m);  l = sum of w_j as above;  c_d = chain over bf16(w_j) v_jd
 * and steps_exp2 stands for steps_exp in a fold.
 */
#ifndef PERSONAD_KERNELS_CPU_ATTENTION_H
#define PERSONAD_KERNELS_CPU_ATTENTION_H

#include "kernels/backend.h"
#include "kernels/cpu/rows_scalar.h"
#include "kernels/steps/math.h"

enum {
    ATTENTION_LANES = 16,
    ATTENTION_GROUP_MAX = 64,  /* query heads a KV head */
    ATTENTION_COLUMN_MAX = 96, /* columns that share one conversion of K and V to float */
    ATTENTION_TILE_MAX = 6,    /* columns held in registers */
};

/* One query row's head and the partial that it fills. */
struct attention_column {
    const float *q; /* [head_size]; BF16: what query() made of it */
    float *acc;     /* [stride] */
    float *max;
    float *sum;
    uint32_t visible; /* positions of the chunk at hand, 1 to 64 */
};

/* A chunk, converted, and room to work on it. */
struct attention_chunk {
    float *k;        /* [head_size][64] */
    float *v;        /* [64][stride]; columns from head_size to stride are zero */
    float *scores;   /* [ATTENTION_TILE_MAX][64] */
    float *products; /* [ATTENTION_TILE_MAX][stride] */
    uint32_t head_size;
    uint32_t stride; /* head_size rounded up to a multiple of 16 */
    float scale;
    bool first;     /* of its block: sets the partial instead of folding into it */
    bool is_paired; /* BF16 */
};

/* The pages of a chunk. Those past the last visible position repeat an earlier one. */
struct attention_pages {
    const uint16_t *k[ATTENTION_CHUNK_TOKENS / KV_PAGE_TOKEN_COUNT];
    const uint16_t *v[ATTENTION_CHUNK_TOKENS / KV_PAGE_TOKEN_COUNT];
};

struct attention_kernels {
    /* BF16: out[d] = bf16(query[d] * factor), as floats or as pairs, whichever this table reads;
     * room for count floats. NULL: queries are read as they are. */
    void (*query)(const float *query, float factor, uint32_t count, float *out);
    /* Converts one page into quarter `quarter` of the chunk; of V only the first slot_count slots.
     * NULL: few() does all. */
    void (*load)(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                 const uint16_t *k_page, const uint16_t *v_page);
    /* Folds the chunk into at most ATTENTION_TILE_MAX columns. */
    void (*tile)(const struct attention_chunk *chunk, const struct attention_column *columns,
                 uint32_t column_count);
    /* The same straight from the pages, without load(), where a chunk serves no second tile; asks
     * for the pages `ahead` meanwhile, unless that is NULL. NULL: this table always loads. Where
     * there is a load(), only for heads that are a multiple of 64, and `ahead` is there. */
    void (*few)(const struct attention_chunk *chunk, const struct attention_pages *pages,
                const struct attention_pages *ahead, const struct attention_column *columns,
                uint32_t column_count);
    /* acc = acc * a + more * b */
    void (*fold)(float *acc, const float *more, float a, float b, uint32_t count);
    /* out = acc / sum */
    void (*divide)(const float *acc, float sum, float *out, uint32_t count);
};

/* F16 */
extern const struct attention_kernels attention_kernels_scalar;
extern const struct attention_kernels attention_kernels_avx2;
extern const struct attention_kernels attention_kernels_avx512;
extern const struct attention_kernels attention_kernels_neon;

/* BF16 */
extern const struct attention_kernels attention_pairs_scalar;
extern const struct attention_kernels attention_pairs_avx2;
extern const struct attention_kernels attention_pairs_avx512;
extern const struct attention_kernels attention_pairs_avx512bf16;
extern const struct attention_kernels attention_pairs_neon;

/* Calls function(n, ...) where n, from 1 to ATTENTION_TILE_MAX, is a constant to be expanded with.
 */
#define ATTENTION_EXPAND(function, column_count, ...) \
    switch (column_count) {                           \
    case 1:                                           \
        function(1, __VA_ARGS__);                     \
        break;                                        \
    case 2:                                           \
        function(2, __VA_ARGS__);                     \
        break;                                        \
    case 3:                                           \
        function(3, __VA_ARGS__);                     \
        break;                                        \
    case 4:                                           \
        function(4, __VA_ARGS__);                     \
        break;                                        \
    case 5:                                           \
        function(5, __VA_ARGS__);                     \
        break;                                        \
    default:                                          \
        function(ATTENTION_TILE_MAX, __VA_ARGS__);    \
        break;                                        \
    }

/* A number as it is multiplied by a BF16 key or value. */
static inline float attention_bf16(float value)
{
    return steps_float_from_bf16(cpu_nearest_bf16(value));
}

static inline void attention_query(const float *query, float factor, uint32_t count, float *out)
{
    for (uint32_t d = 0; d < count; d++) {
        out[d] = attention_bf16(query[d] * factor);
    }
}

/* The factors of a fold; updates max and sum. */
static inline void attention_factors(bool is_paired, float *max, float *sum, float more_max,
                                     float more_sum, float *a, float *b)
{
    const bool is_larger = more_max > *max;
    const float less = is_larger ? *max - more_max : more_max - *max;
    const float weight = is_paired ? steps_exp2(less) : steps_exp(less);

    *a = is_larger ? weight : 1.0f;
    *b = is_larger ? 1.0f : weight;
    *max = is_larger ? more_max : *max;
    *sum = fmaf(*sum, *a, more_sum * *b);
}

static inline void attention_fold(float *acc, const float *more, float a, float b, uint32_t count)
{
    for (uint32_t d = 0; d < count; d++) {
        acc[d] = fmaf(acc[d], a, more[d] * b);
    }
}

static inline void attention_divide(const float *acc, float sum, float *out, uint32_t count)
{
    for (uint32_t d = 0; d < count; d++) {
        out[d] = acc[d] / sum;
    }
}

/* Takes one column's partial of the chunk in. */
static inline void attention_accept(const struct attention_chunk *chunk,
                                    const struct attention_column *column, float max, float sum,
                                    const float *product)
{
    if (chunk->first) {
        *column->max = max;
        *column->sum = sum;
        for (uint32_t d = 0; d < chunk->stride; d++) {
            column->acc[d] = product[d];
        }
        return;
    }
    float a, b;
    attention_factors(chunk->is_paired, column->max, column->sum, max, sum, &a, &b);
    attention_fold(column->acc, product, a, b, chunk->stride);
}

#endif
