/* Attention over BF16 pairs by 16 lanes: a lane a key in QK, a lane a dimension in PV. Thread: any.
 *
 * Included once by each of {avx512,avx512bf16}/attention_pairs.c, which define ATTENTION_PAIRS (the
 * table's name), struct pair (a column's pair of numbers in all lanes) and the four functions on
 * it.
 *
 * Both products are one small matrix product held in registers: T columns by V vectors, each
 * element one chain over pairs, and their words are read where the pages have them. A column may
 * run on to positions that it does not see: their weight is 0 and their V is finite, which leaves
 * the bits alone, because a chain that starts at +0 never holds a -0. A position that no column
 * sees may hold anything, and is left out.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX512_ATTENTION_PAIRS_H
#define PERSONAD_KERNELS_CPU_AVX512_ATTENTION_PAIRS_H

#ifndef ATTENTION_PAIRS
#error "is part of {avx512,avx512bf16}/attention_pairs.c"
#endif

#include "kernels/cpu/avx512/attention_sums.h"

enum {
    PAGE_PAIRS = KV_PAGE_TOKEN_COUNT / 2, /* of positions */
    WORD_HALVES = 2,
    VECTOR_HALVES = 16 * WORD_HALVES,
};

/* Pair i of a column's queries or weights. */
static CPU_EXPAND struct pair load_pair(const float *numbers, uint32_t i);

/* acc + odd product + even product, in this order. */
static CPU_EXPAND __m512 add_pair(__m512 acc, __m512i words, struct pair x);

/* Vector v of a column's weights, rounded, to where load_pair finds them. */
static CPU_EXPAND void store_weights(float *numbers, int v, __m512 weights);

/* query() of the table. */
static void round_query(const float *query, float factor, uint32_t count, float *out);

/* A column's numbers, where a pair's words are, and how far the next pair's are. */
struct run {
    const float *const *numbers;
    const uint16_t *words[VECTOR_MAX];
    const uint16_t *ahead[VECTOR_MAX]; /* asked for meanwhile, a few lines a turn: in one go they
                                        * would fill the buffers for misses */
    size_t stride;
};

/* sums[t][v] += pairs [first, end) of the numbers times as many pairs from `words` on, of which
 * `lanes` are there and `kept` halves count. */
static CPU_EXPAND void add_pairs(int tile, int vectors, bool asks, __mmask16 lanes, __mmask32 kept,
                                 const struct run *run, uint32_t first, uint32_t end,
                                 __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX])
{
    for (uint32_t i = first; i < end; i++) {
        const size_t at = (i - first) * run->stride;
        __m512i words[VECTOR_MAX];

        CPU_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            words[v] = _mm512_maskz_loadu_epi32(lanes, run->words[v] + at);
            words[v] = kept == UINT32_MAX ? words[v] : _mm512_maskz_mov_epi16(kept, words[v]);
            if (asks) {
                _mm_prefetch((const char *)(run->ahead[v] + at), _MM_HINT_T1);
            }
        }
        CPU_UNROLL(6)
        for (int t = 0; t < tile; t++) {
            const struct pair pair = load_pair(run->numbers[t], i);

            CPU_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                sums[t][v] = add_pair(sums[t][v], words[v], pair);
            }
        }
    }
}

static CPU_EXPAND void clear(int tile, int vectors, __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX])
{
    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        CPU_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            sums[t][v] = _mm512_setzero_ps();
        }
    }
}

static CPU_EXPAND __m512 larger_or_sum(bool is_max, __m512 a, __m512 b)
{
    return is_max ? _mm512_max_ps(a, b) : _mm512_add_ps(a, b);
}

/* Lane t: the largest, or the sum, of the lanes of parts[t], for all columns of a tile at once.
 * Sums take lanes i and i + 8, then i + 4, i + 2, i + 1, as avx512_sum does. */
static CPU_EXPAND __m512 fold_lanes(int tile, bool is_max, const __m512 parts[ATTENTION_TILE_MAX])
{
    const __m512i by_column =
        _mm512_set_epi32(15, 14, 13, 11, 10, 9, 7, 6, 3, 2, 5, 1, 12, 8, 4, 0);
    __m512 two[3], four[2], eight;

    CPU_UNROLL(3)
    for (int i = 0; i < 3; i++) {
        const __m512 a = parts[2 * i < tile ? 2 * i : 0];
        const __m512 b = parts[2 * i + 1 < tile ? 2 * i + 1 : 0];

        two[i] = larger_or_sum(is_max, _mm512_shuffle_f32x4(a, b, 0x44),
                               _mm512_shuffle_f32x4(a, b, 0xee));
    }
    four[0] = larger_or_sum(is_max, _mm512_shuffle_f32x4(two[0], two[1], 0x88),
                            _mm512_shuffle_f32x4(two[0], two[1], 0xdd));
    four[1] = larger_or_sum(is_max, _mm512_shuffle_f32x4(two[2], two[2], 0x88),
                            _mm512_shuffle_f32x4(two[2], two[2], 0xdd));
    eight = larger_or_sum(is_max, _mm512_shuffle_ps(four[0], four[1], 0x44),
                          _mm512_shuffle_ps(four[0], four[1], 0xee));
    /* In blocks of four lanes: columns 0 and 4, 1 and 5, 2 and 4, 3 and 5. */
    return _mm512_permutexvar_ps(by_column,
                                 larger_or_sum(is_max, _mm512_shuffle_ps(eight, eight, 0x88),
                                               _mm512_shuffle_ps(eight, eight, 0xdd)));
}

/* Vector v of a column's scores; of what it does not see, less than any number. */
static CPU_EXPAND __m512 load_scores(const float *scores, int v, uint32_t visible)
{
    const uint64_t seen = visible < 64 ? (UINT64_C(1) << visible) - 1 : ~UINT64_C(0);

    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), (__mmask16)(seen >> (16 * v)),
                                scores + 16 * (size_t)v);
}

/* Lane by lane the largest of a column's scores. */
static CPU_EXPAND __m512 largest_score(const float *scores, uint32_t visible)
{
    __m512 largest = _mm512_set1_ps(-INFINITY);

    CPU_UNROLL(4)
    for (int v = 0; v < VECTOR_MAX; v++) {
        /* The second operand where not ordered. */
        largest = _mm512_max_ps(load_scores(scores, v, visible), largest);
    }
    return largest;
}

/* A column's scores to weights in place. Lane by lane their sum. */
static CPU_EXPAND __m512 weigh_scores(float *scores, uint32_t visible, float max)
{
    __m512 weights[VECTOR_MAX];
    __m512 sum = _mm512_setzero_ps();

    CPU_UNROLL(4)
    for (int v = 0; v < VECTOR_MAX; v++) {
        weights[v] =
            avx512_exp2(_mm512_sub_ps(load_scores(scores, v, visible), _mm512_set1_ps(max)));
        sum = _mm512_add_ps(sum, weights[v]);
    }
    CPU_UNROLL(4)
    for (int v = 0; v < VECTOR_MAX; v++) {
        store_weights(scores, v, weights[v]);
    }
    return sum;
}

/* Scores to weights in place, of all columns. What a column does not see weighs 0. */
static CPU_EXPAND void soften_tile(int tile, const struct attention_chunk *chunk,
                                   const struct attention_column *columns,
                                   const float *numbers[ATTENTION_TILE_MAX],
                                   struct factors *factors)
{
    __m512 parts[ATTENTION_TILE_MAX];
    float max[16], sum[16];

    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        numbers[t] = chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS;
        parts[t] = largest_score(numbers[t], columns[t].visible);
    }
    _mm512_storeu_ps(max, fold_lanes(tile, true, parts));
    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        parts[t] = weigh_scores(chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS,
                                columns[t].visible, max[t]);
    }
    _mm512_storeu_ps(sum, fold_lanes(tile, false, parts));
    take_factors(tile, true, chunk, columns, max, sum, factors);
}

/* Dimensions d to d + 16 vectors of the values, as far as `lanes` are there. */
static CPU_EXPAND void weigh_values(int tile, int vectors, bool asks, __mmask16 lanes,
                                    const struct attention_chunk *chunk,
                                    const struct attention_pages *pages,
                                    const struct attention_pages *ahead,
                                    const float *const *numbers, uint32_t visible, uint32_t d,
                                    __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX])
{
    struct run run = {.numbers = numbers, .stride = (size_t)chunk->head_size * WORD_HALVES};

    clear(tile, vectors, sums);
    for (uint32_t first = 0; first < visible; first += KV_PAGE_TOKEN_COUNT) {
        const uint32_t page = first / KV_PAGE_TOKEN_COUNT;
        const uint32_t left = visible - first;
        const uint32_t whole = left < KV_PAGE_TOKEN_COUNT ? left / 2 : PAGE_PAIRS;
        const uint32_t begin = page * PAGE_PAIRS;

        CPU_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            const size_t at = (size_t)d * WORD_HALVES + (size_t)v * VECTOR_HALVES;

            run.words[v] = pages->v[page] + at;
            run.ahead[v] = asks ? ahead->v[page] + at : NULL;
        }
        add_pairs(tile, vectors, asks, lanes, UINT32_MAX, &run, begin, begin + whole, sums);
        if (left < KV_PAGE_TOKEN_COUNT && left % 2 != 0) {
            CPU_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                run.words[v] += whole * run.stride;
            }
            add_pairs(tile, vectors, false, lanes, 0x55555555u, &run, begin + whole,
                      begin + whole + 1, sums);
        }
    }
}

static CPU_EXPAND void pairs_of(int tile, bool asks, const struct attention_chunk *chunk,
                                const struct attention_pages *pages,
                                const struct attention_pages *ahead,
                                const struct attention_column *columns)
{
    const uint32_t visible = most_visible(tile, columns);
    const float *numbers[ATTENTION_TILE_MAX];
    struct run keys = {.numbers = numbers, .stride = VECTOR_HALVES};
    __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX];
    struct factors factors;
    uint32_t d = 0;

    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        numbers[t] = columns[t].q;
    }
    CPU_UNROLL(4)
    for (int v = 0; v < VECTOR_MAX; v++) {
        keys.words[v] = pages->k[v];
        keys.ahead[v] = asks ? ahead->k[v] : NULL;
    }
    clear(tile, VECTOR_MAX, sums);
    /* Of a chunk's first half alone the other half's scores are not read. */
    if (visible <= ATTENTION_CHUNK_TOKENS / 2) {
        add_pairs(tile, VECTOR_MAX / 2, asks, 0xffff, UINT32_MAX, &keys, 0, chunk->head_size / 2,
                  sums);
    } else {
        add_pairs(tile, VECTOR_MAX, asks, 0xffff, UINT32_MAX, &keys, 0, chunk->head_size / 2, sums);
    }
    store_scores(tile, chunk, sums);
    soften_tile(tile, chunk, columns, numbers, &factors);
    for (; d + 64 <= chunk->stride; d += 64) {
        weigh_values(tile, VECTOR_MAX, asks, 0xffff, chunk, pages, ahead, numbers, visible, d,
                     sums);
        accept(tile, VECTOR_MAX, chunk, columns, &factors, d, sums);
    }
    for (; d < chunk->stride; d += 16) {
        const __mmask16 lanes = chunk->head_size - d < 16 ? 0x00ff : 0xffff;

        weigh_values(tile, 1, asks, lanes, chunk, pages, ahead, numbers, visible, d, sums);
        accept(tile, 1, chunk, columns, &factors, d, sums);
    }
}

static void pairs(const struct attention_chunk *chunk, const struct attention_pages *pages,
                  const struct attention_pages *ahead, const struct attention_column *columns,
                  uint32_t column_count)
{
    if (ahead != NULL) {
        ATTENTION_EXPAND(pairs_of, column_count, true, chunk, pages, ahead, columns)
    } else {
        ATTENTION_EXPAND(pairs_of, column_count, false, chunk, pages, ahead, columns)
    }
}

const struct attention_kernels ATTENTION_PAIRS = {
    .query = round_query,
    .few = pairs,
    .fold = attention_fold,
    .divide = attention_divide,
};

#endif
