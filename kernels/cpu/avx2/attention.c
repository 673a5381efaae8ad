/* Attention's inner loops with two registers of 8 lanes: a lane a key in QK, a lane a dimension in
 * PV.
 *
 * Both are one small matrix product held in registers: T columns by 16 lanes, each element one
 * chain of fmaf in ascending order, as the scalar table has it. A column may run on to positions
 * that it does not see: their weight is 0 and their V is finite, which leaves the bits alone,
 * because a chain that starts at +0 never holds a -0. BF16 pairs are floats once they are loaded,
 * and differ in the order of their chains.
 */
#include <immintrin.h>

#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/cpu.h"

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

/* The even, or the odd numbers of eight words of two BF16. */
static CPU_EXPAND __m256 even_of(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}

static CPU_EXPAND __m256 odd_of(__m256i words)
{
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32(-65536)));
}

static void load_pairs(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                       const uint16_t *k_page, const uint16_t *v_page)
{
    const uint32_t first = quarter * KV_PAGE_TOKEN_COUNT;

    for (uint32_t d = 0; d < chunk->head_size; d += 2) {
        float *to = chunk->k + (size_t)d * ATTENTION_CHUNK_TOKENS + first;

        for (uint32_t lane = 0; lane < KV_PAGE_TOKEN_COUNT; lane += HALF_LANES) {
            const __m256i words =
                _mm256_loadu_si256((const __m256i *)(k_page + cpu_kv_pairs_k(d, lane)));

            _mm256_store_ps(to + lane, even_of(words));
            _mm256_store_ps(to + ATTENTION_CHUNK_TOKENS + lane, odd_of(words));
        }
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        float *to = chunk->v + (size_t)(first + slot) * chunk->stride;

        for (uint32_t d = 0; d < chunk->head_size; d += HALF_LANES) {
            const __m256i words = _mm256_loadu_si256(
                (const __m256i *)(v_page + cpu_kv_pairs_v(chunk->head_size, d, slot / 2 * 2)));

            _mm256_store_ps(to + d, slot % 2 == 0 ? even_of(words) : odd_of(words));
        }
        for (uint32_t d = chunk->head_size; d < chunk->stride; d += HALF_LANES) {
            _mm256_store_ps(to + d, _mm256_setzero_ps());
        }
    }
}

/* sums += fmaf(a[t][i], b[i]) */
static CPU_EXPAND void add_row(int tile, const float *const *a, const float *b, size_t b_stride,
                               uint32_t i, __m256 *low, __m256 *high)
{
    const __m256 row_low = _mm256_load_ps(b + i * b_stride);
    const __m256 row_high = _mm256_load_ps(b + i * b_stride + HALF_LANES);

    for (int t = 0; t < tile; t++) {
        const __m256 factor = _mm256_broadcast_ss(a[t] + i);

        low[t] = _mm256_fmadd_ps(factor, row_low, low[t]);
        high[t] = _mm256_fmadd_ps(factor, row_high, high[t]);
    }
}

static CPU_EXPAND void product(bool is_paired, int tile, const float *const *a, const float *b,
                               size_t b_stride, uint32_t n, float *out, size_t out_stride)
{
    const uint32_t whole = is_paired ? n / 2 * 2 : n;
    __m256 low[ATTENTION_TILE_MAX], high[ATTENTION_TILE_MAX];

    for (int t = 0; t < tile; t++) {
        low[t] = _mm256_setzero_ps();
        high[t] = _mm256_setzero_ps();
    }
    for (uint32_t i = 0; i < whole; i += is_paired ? 2 : 1) {
        if (is_paired) {
            add_row(tile, a, b, b_stride, i + 1, low, high);
        }
        add_row(tile, a, b, b_stride, i, low, high);
    }
    if (whole < n) {
        add_row(tile, a, b, b_stride, whole, low, high);
    }
    for (int t = 0; t < tile; t++) {
        _mm256_store_ps(out + (size_t)t * out_stride, low[t]);
        _mm256_store_ps(out + (size_t)t * out_stride + HALF_LANES, high[t]);
    }
}

/* To BF16 and back, of a number that is none but finite. */
static CPU_EXPAND __m256 nearest(__m256 value)
{
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));

    return odd_of(up);
}

/* All ones in the lanes of register `index` that the column sees. */
static CPU_EXPAND __m256 seen(uint32_t visible, int index)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i first = _mm256_set1_epi32((int)visible - HALF_LANES * index);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(first, lane));
}

static CPU_EXPAND void softmax(bool is_paired, float *scores, uint32_t visible, float scale,
                               float *max, float *sum)
{
    const __m256 nothing = _mm256_set1_ps(-INFINITY);
    __m256 largest = nothing;
    __m256 lanes[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};

    for (int r = 0; r < REGISTERS; r++) {
        const __m256 raw = _mm256_load_ps(scores + (size_t)HALF_LANES * r);
        const __m256 scaled = is_paired ? raw : _mm256_mul_ps(raw, _mm256_set1_ps(scale));
        const __m256 value = _mm256_blendv_ps(nothing, scaled, seen(visible, r));
        largest = _mm256_max_ps(value, largest); /* the second operand where not ordered */
        _mm256_store_ps(scores + (size_t)HALF_LANES * r, value);
    }
    *max = avx2_max(largest);
    for (int r = 0; r < REGISTERS; r++) {
        const __m256 value = _mm256_load_ps(scores + (size_t)HALF_LANES * r);
        const __m256 less = _mm256_sub_ps(value, _mm256_set1_ps(*max));
        const __m256 weight =
            _mm256_and_ps(is_paired ? avx2_exp2(less) : avx2_exp(less), seen(visible, r));
        lanes[r % 2] = _mm256_add_ps(lanes[r % 2], weight);
        _mm256_store_ps(scores + (size_t)HALF_LANES * r, is_paired ? nearest(weight) : weight);
    }
    *sum = avx2_sum(lanes[0], lanes[1]);
}

const struct attention_kernels attention_kernels_avx2 = {
    .load = load,
    .tile = attention_tile,
    .fold = attention_fold,
    .divide = attention_divide,
};

const struct attention_kernels attention_pairs_avx2 = {
    .query = attention_query,
    .load = load_pairs,
    .tile = attention_tile_pairs,
    .fold = attention_fold,
    .divide = attention_divide,
};
