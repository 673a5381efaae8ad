/* Attention's inner loops with two registers of 8 lanes: a lane a key in QK, a lane a dimension in
 * PV.
 *
 * Both are one small matrix product held in registers: T columns by 16 lanes, each element one
 * chain of fmaf in ascending order, as the scalar table has it. A column may run on to positions
 * that it does not see: their weight is 0 and their V is finite, which leaves the bits alone,
 * because a chain that starts at +0 never holds a -0.
 */
#include <immintrin.h>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/avx2/math.h"

enum { HALF_LANES = 8, REGISTERS = ATTENTION_CHUNK_TOKENS / HALF_LANES };

static void load(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                 const uint16_t *k_page, const uint16_t *v_page)
{
    const uint32_t first = quarter * KV_PAGE_TOKEN_COUNT;

    for (uint32_t d = 0; d < chunk->head_size; d++) {
        for (uint32_t lane = 0; lane < KV_PAGE_TOKEN_COUNT; lane += HALF_LANES) {
            const __m128i halves =
                _mm_loadu_si128((const __m128i *)(k_page + (size_t)d * KV_PAGE_TOKEN_COUNT + lane));
            _mm256_store_ps(chunk->k + (size_t)d * ATTENTION_CHUNK_TOKENS + first + lane,
                            _mm256_cvtph_ps(halves));
        }
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        const uint16_t *from = v_page + (size_t)slot * chunk->head_size;
        float *to = chunk->v + (size_t)(first + slot) * chunk->stride;
        for (uint32_t d = 0; d < chunk->head_size; d += HALF_LANES) {
            _mm256_store_ps(to + d, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(from + d))));
        }
        for (uint32_t d = chunk->head_size; d < chunk->stride; d += HALF_LANES) {
            _mm256_store_ps(to + d, _mm256_setzero_ps());
        }
    }
}

static CPU_EXPAND void product(int tile, const float *const *a, const float *b, size_t b_stride,
                               uint32_t n, float *out, size_t out_stride)
{
    __m256 low[ATTENTION_TILE_MAX], high[ATTENTION_TILE_MAX];

    for (int t = 0; t < tile; t++) {
        low[t] = _mm256_setzero_ps();
        high[t] = _mm256_setzero_ps();
    }
    for (uint32_t i = 0; i < n; i++) {
        const __m256 row_low = _mm256_load_ps(b + i * b_stride);
        const __m256 row_high = _mm256_load_ps(b + i * b_stride + HALF_LANES);
        for (int t = 0; t < tile; t++) {
            const __m256 factor = _mm256_broadcast_ss(a[t] + i);
            low[t] = _mm256_fmadd_ps(factor, row_low, low[t]);
            high[t] = _mm256_fmadd_ps(factor, row_high, high[t]);
        }
    }
    for (int t = 0; t < tile; t++) {
        _mm256_store_ps(out + (size_t)t * out_stride, low[t]);
        _mm256_store_ps(out + (size_t)t * out_stride + HALF_LANES, high[t]);
    }
}

/* All ones in the lanes of register `index` that the column sees. */
static CPU_EXPAND __m256 seen(uint32_t visible, int index)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i first = _mm256_set1_epi32((int)visible - HALF_LANES * index);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(first, lane));
}

static CPU_EXPAND void softmax(float *scores, uint32_t visible, float scale, float *max, float *sum)
{
    const __m256 nothing = _mm256_set1_ps(-INFINITY);
    __m256 largest = nothing;
    __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};

    for (int r = 0; r < REGISTERS; r++) {
        const __m256 scaled =
            _mm256_mul_ps(_mm256_load_ps(scores + (size_t)HALF_LANES * r), _mm256_set1_ps(scale));
        const __m256 value = _mm256_blendv_ps(nothing, scaled, seen(visible, r));
        largest = _mm256_max_ps(value, largest); /* the second operand where not ordered */
        _mm256_store_ps(scores + (size_t)HALF_LANES * r, value);
    }
    *max = avx2_max(largest);
    for (int r = 0; r < REGISTERS; r++) {
        const __m256 value = _mm256_load_ps(scores + (size_t)HALF_LANES * r);
        const __m256 weight =
            _mm256_and_ps(avx2_exp(_mm256_sub_ps(value, _mm256_set1_ps(*max))), seen(visible, r));
        lanes[r % 2] = _mm256_add_ps(lanes[r % 2], weight);
        _mm256_store_ps(scores + (size_t)HALF_LANES * r, weight);
    }
    *sum = avx2_sum(lanes[0], lanes[1]);
}

const struct attention_kernels attention_kernels_avx2 = {
    .load = load,
    .tile = attention_tile,
    .fold = attention_fold,
    .divide = attention_divide,
};
