/* Attention's inner loops with 16 lanes: a lane a key in QK, a lane a dimension in PV.
 *
 * Both are one small matrix product held in registers: T columns by V vectors, each element one
 * chain of fmaf in ascending order, as the scalar table has it. A column may run on to positions
 * that it does not see: their weight is 0 and their V is finite, which leaves the bits alone,
 * because a chain that starts at +0 never holds a -0.
 */
#include <immintrin.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/avx512/math.h"

enum { VECTOR_MAX = ATTENTION_CHUNK_TOKENS / 16 };

#define ALWAYS_INLINE inline __attribute__((always_inline))

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

/* out[t][16 v + lane] = chain over i < n of fmaf(a[t][i], b[i][16 v + lane]) from 0 */
static ALWAYS_INLINE void product(int tile, int vectors, const float *const *a, const float *b,
                                  size_t b_stride, uint32_t n, float *out, size_t out_stride)
{
    __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX];

    for (int t = 0; t < tile; t++) {
        for (int v = 0; v < vectors; v++) {
            sums[t][v] = _mm512_setzero_ps();
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        __m512 row[VECTOR_MAX];
        for (int v = 0; v < vectors; v++) {
            row[v] = _mm512_load_ps(b + i * b_stride + 16 * (size_t)v);
        }
        for (int t = 0; t < tile; t++) {
            const __m512 factor = _mm512_set1_ps(a[t][i]);
            for (int v = 0; v < vectors; v++) {
                sums[t][v] = _mm512_fmadd_ps(factor, row[v], sums[t][v]);
            }
        }
    }
    for (int t = 0; t < tile; t++) {
        for (int v = 0; v < vectors; v++) {
            _mm512_store_ps(out + (size_t)t * out_stride + 16 * (size_t)v, sums[t][v]);
        }
    }
}

/* Scores to weights in place, 0 where the column does not see. */
static ALWAYS_INLINE void softmax(float *scores, uint32_t visible, float scale, float *max,
                                  float *sum)
{
    const uint64_t seen = visible < 64 ? (UINT64_C(1) << visible) - 1 : ~UINT64_C(0);
    const __m512 nothing = _mm512_set1_ps(-INFINITY);
    __m512 value[VECTOR_MAX];
    __m512 largest = nothing;
    __m512 lanes = _mm512_setzero_ps();

    for (int v = 0; v < VECTOR_MAX; v++) {
        const __mmask16 mask = (__mmask16)(seen >> (16 * v));
        const __m512 raw = _mm512_load_ps(scores + 16 * (size_t)v);
        value[v] = _mm512_mask_mul_ps(nothing, mask, raw, _mm512_set1_ps(scale));
        largest = _mm512_max_ps(value[v], largest); /* the second operand where not ordered */
    }
    *max = avx512_max(largest);
    for (int v = 0; v < VECTOR_MAX; v++) {
        const __mmask16 mask = (__mmask16)(seen >> (16 * v));
        const __m512 weight = avx512_exp(_mm512_sub_ps(value[v], _mm512_set1_ps(*max)));
        value[v] = _mm512_maskz_mov_ps(mask, weight);
        lanes = _mm512_add_ps(lanes, value[v]);
        _mm512_store_ps(scores + 16 * (size_t)v, value[v]);
    }
    *sum = avx512_sum(lanes);
}

static ALWAYS_INLINE void tile_of(int tile, const struct attention_chunk *chunk,
                                  const struct attention_column *columns)
{
    const float *a[ATTENTION_TILE_MAX];
    float max[ATTENTION_TILE_MAX], sum[ATTENTION_TILE_MAX];
    uint32_t visible_max = 0;
    uint32_t d = 0;

    for (int t = 0; t < tile; t++) {
        a[t] = columns[t].q;
        visible_max = columns[t].visible > visible_max ? columns[t].visible : visible_max;
    }
    product(tile, VECTOR_MAX, a, chunk->k, ATTENTION_CHUNK_TOKENS, chunk->head_size, chunk->scores,
            ATTENTION_CHUNK_TOKENS);
    for (int t = 0; t < tile; t++) {
        a[t] = chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS;
        softmax(chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS, columns[t].visible,
                chunk->scale, &max[t], &sum[t]);
    }
    for (; d + 64 <= chunk->stride; d += 64) {
        product(tile, 4, a, chunk->v + d, chunk->stride, visible_max, chunk->products + d,
                chunk->stride);
    }
    for (; d < chunk->stride; d += 16) {
        product(tile, 1, a, chunk->v + d, chunk->stride, visible_max, chunk->products + d,
                chunk->stride);
    }
    for (int t = 0; t < tile; t++) {
        attention_accept(chunk, &columns[t], max[t], sum[t],
                         chunk->products + (size_t)t * chunk->stride);
    }
}

static void tile(const struct attention_chunk *chunk, const struct attention_column *columns,
                 uint32_t column_count)
{
    switch (column_count) {
    case 1:
        tile_of(1, chunk, columns);
        break;
    case 2:
        tile_of(2, chunk, columns);
        break;
    case 3:
        tile_of(3, chunk, columns);
        break;
    case 4:
        tile_of(4, chunk, columns);
        break;
    case 5:
        tile_of(5, chunk, columns);
        break;
    default:
        tile_of(ATTENTION_TILE_MAX, chunk, columns);
        break;
    }
}

static void fold(float *acc, const float *more, float a, float b, uint32_t count)
{
    attention_fold(acc, more, a, b, count);
}

static void divide(const float *acc, float sum, float *out, uint32_t count)
{
    attention_divide(acc, sum, out, count);
}

const struct attention_kernels attention_kernels_avx512 = {
    .load = load,
    .tile = tile,
    .fold = fold,
    .divide = divide,
};
