/* Attention's inner loops with 16 lanes: a lane a key in QK, a lane a dimension in PV.
 *
 * Both are one small matrix product held in registers: T columns by V vectors, each element one
 * chain of fmaf in ascending order, as the scalar table has it. A column may run on to positions
 * that it does not see: their weight is 0 and their V is finite, which leaves the bits alone,
 * because a chain that starts at +0 never holds a -0.
 */
#include <immintrin.h>

#include "kernels/cpu/avx512/attention_sums.h"
#include "kernels/cpu/avx512/math.h"
#include "kernels/cpu/expand.h"

static void load(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                 const uint16_t *k_page, const uint16_t *v_page)
{
    const uint32_t first = quarter * KV_PAGE_TOKEN_COUNT;

    for (uint32_t d = 0; d < chunk->head_size; d++) {
        const __m256i halves =
            _mm256_loadu_si256((const __m256i *)(k_page + (size_t)d * KV_PAGE_TOKEN_COUNT));
        _mm512_store_ps(chunk->k + (size_t)d * ATTENTION_CHUNK_TOKENS + first,
                        _mm512_cvtph_ps(halves));
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        const uint16_t *from = v_page + (size_t)slot * chunk->head_size;
        float *to = chunk->v + (size_t)(first + slot) * chunk->stride;
        for (uint32_t d = 0; d < chunk->stride; d += 16) {
            const uint32_t left = chunk->head_size - d;
            const __mmask16 mask = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffffu);
            const __m256i halves = _mm256_maskz_loadu_epi16(mask, from + d);
            _mm512_store_ps(to + d, _mm512_cvtph_ps(halves));
        }
    }
}

/* sums[t][v], lane = chain over i < n of fmaf(a[t][i], b[i][16 v + lane]) from 0 */
static CPU_EXPAND void product(int tile, int vectors, const float *const *a, const float *b,
                               size_t b_stride, uint32_t n,
                               __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX])
{
    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        CPU_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            sums[t][v] = _mm512_setzero_ps();
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        __m512 row[VECTOR_MAX];
        CPU_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            row[v] = _mm512_load_ps(b + i * b_stride + 16 * (size_t)v);
        }
        CPU_UNROLL(6)
        for (int t = 0; t < tile; t++) {
            const __m512 factor = _mm512_set1_ps(a[t][i]);
            CPU_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                sums[t][v] = _mm512_fmadd_ps(factor, row[v], sums[t][v]);
            }
        }
    }
}

/* The same over halves as the pages have them: for so few columns that converting a chunk once
 * would cost more than its use. end ends a run of positions or dimensions. Asks for the same parts
 * of `ahead`, a few lines a turn: in one go they would fill the buffers for misses, and computing
 * would wait for what it does not need yet. */
static CPU_EXPAND void product_halves(int tile, int vectors, const float *const *a,
                                      const uint16_t *const *b, const uint16_t *const *ahead,
                                      size_t b_stride, uint32_t first, uint32_t end,
                                      __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX])
{
    for (uint32_t i = first; i < end; i++) {
        __m512 row[VECTOR_MAX];
        CPU_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            row[v] = _mm512_cvtph_ps(
                _mm256_load_si256((const __m256i *)(b[v] + (i - first) * b_stride)));
            _mm_prefetch((const char *)(ahead[v] + (i - first) * b_stride), _MM_HINT_T1);
        }
        CPU_UNROLL(6)
        for (int t = 0; t < tile; t++) {
            const __m512 factor = _mm512_set1_ps(a[t][i]);
            CPU_UNROLL(4)
            for (int v = 0; v < vectors; v++) {
                sums[t][v] = _mm512_fmadd_ps(factor, row[v], sums[t][v]);
            }
        }
    }
}

/* Scores to weights in place, 0 where the column does not see. */
static CPU_EXPAND void softmax(float *scores, uint32_t visible, float scale, float *max, float *sum)
{
    const uint64_t seen = visible < 64 ? (UINT64_C(1) << visible) - 1 : ~UINT64_C(0);
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    __m512 value[VECTOR_MAX];
    __m512 largest = nothing;
    __m512 lanes = _mm512_setzero_ps();

    CPU_UNROLL(4)
    for (int v = 0; v < VECTOR_MAX; v++) {
        const __mmask16 mask = (__mmask16)(seen >> (16 * v));
        const __m512 raw = _mm512_load_ps(scores + 16 * (size_t)v);
        value[v] = _mm512_mask_mul_ps(nothing, mask, raw, _mm512_set1_ps(scale));
        largest = _mm512_max_ps(value[v], largest); /* the second operand where not ordered */
    }
    *max = avx512_max(largest);
    CPU_UNROLL(4)
    for (int v = 0; v < VECTOR_MAX; v++) {
        const __mmask16 mask = (__mmask16)(seen >> (16 * v));
        const __m512 weight = avx512_exp(_mm512_sub_ps(value[v], _mm512_set1_ps(*max)));
        value[v] = _mm512_maskz_mov_ps(mask, weight);
        lanes = _mm512_add_ps(lanes, value[v]);
        _mm512_store_ps(scores + 16 * (size_t)v, value[v]);
    }
    *sum = avx512_sum(lanes);
}

static CPU_EXPAND void weigh(int tile, const struct attention_chunk *chunk,
                             const struct attention_column *columns, const float **weights,
                             struct factors *factors)
{
    float max[16] = {0}, sum[16] = {0};

    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        float *scores = chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS;

        softmax(scores, columns[t].visible, chunk->scale, &max[t], &sum[t]);
        weights[t] = scores;
    }
    take_factors(tile, false, chunk, columns, max, sum, factors);
}

static CPU_EXPAND void tile_of(int tile, const struct attention_chunk *chunk,
                               const struct attention_column *columns)
{
    const uint32_t visible = most_visible(tile, columns);
    const float *a[ATTENTION_TILE_MAX];
    __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX];
    struct factors factors;
    uint32_t d = 0;

    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        a[t] = columns[t].q;
    }
    product(tile, VECTOR_MAX, a, chunk->k, ATTENTION_CHUNK_TOKENS, chunk->head_size, sums);
    store_scores(tile, chunk, sums);
    weigh(tile, chunk, columns, a, &factors);
    for (; d + 64 <= chunk->stride; d += 64) {
        product(tile, 4, a, chunk->v + d, chunk->stride, visible, sums);
        accept(tile, 4, chunk, columns, &factors, d, sums);
    }
    for (; d < chunk->stride; d += 16) {
        product(tile, 1, a, chunk->v + d, chunk->stride, visible, sums);
        accept(tile, 1, chunk, columns, &factors, d, sums);
    }
}

static CPU_EXPAND void few_of(int tile, const struct attention_chunk *chunk,
                              const struct attention_pages *pages,
                              const struct attention_pages *ahead,
                              const struct attention_column *columns)
{
    const uint32_t visible = most_visible(tile, columns);
    const float *a[ATTENTION_TILE_MAX];
    __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX];
    struct factors factors;

    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        a[t] = columns[t].q;
        CPU_UNROLL(4)
        for (int v = 0; v < VECTOR_MAX; v++) {
            sums[t][v] = _mm512_setzero_ps();
        }
    }
    product_halves(tile, VECTOR_MAX, a, pages->k, ahead->k, KV_PAGE_TOKEN_COUNT, 0,
                   chunk->head_size, sums);
    store_scores(tile, chunk, sums);
    weigh(tile, chunk, columns, a, &factors);
    for (uint32_t d = 0; d < chunk->stride; d += 64) {
        CPU_UNROLL(6)
        for (int t = 0; t < tile; t++) {
            CPU_UNROLL(4)
            for (int v = 0; v < VECTOR_MAX; v++) {
                sums[t][v] = _mm512_setzero_ps();
            }
        }
        for (uint32_t first = 0; first < visible; first += KV_PAGE_TOKEN_COUNT) {
            const uint16_t *v_page = pages->v[first / KV_PAGE_TOKEN_COUNT] + d;
            const uint16_t *const b[VECTOR_MAX] = {v_page, v_page + 16, v_page + 32, v_page + 48};
            const uint16_t *v_ahead = ahead->v[first / KV_PAGE_TOKEN_COUNT] + d;
            const uint16_t *const c[VECTOR_MAX] = {v_ahead, v_ahead + 16, v_ahead + 32,
                                                   v_ahead + 48};
            const uint32_t end = first + KV_PAGE_TOKEN_COUNT;

            product_halves(tile, VECTOR_MAX, a, b, c, chunk->head_size, first,
                           end < visible ? end : visible, sums);
        }
        accept(tile, VECTOR_MAX, chunk, columns, &factors, d, sums);
    }
}

static void few(const struct attention_chunk *chunk, const struct attention_pages *pages,
                const struct attention_pages *ahead, const struct attention_column *columns,
                uint32_t column_count)
{
    ATTENTION_EXPAND(few_of, column_count, chunk, pages, ahead, columns)
}

static void tile(const struct attention_chunk *chunk, const struct attention_column *columns,
                 uint32_t column_count)
{
    ATTENTION_EXPAND(tile_of, column_count, chunk, columns)
}

const struct attention_kernels attention_kernels_avx512 = {
    .load = load,
    .tile = tile,
    .few = few,
    .fold = attention_fold,
    .divide = attention_divide,
};
