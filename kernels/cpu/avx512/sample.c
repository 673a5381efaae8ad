/* The sampler's passes with 16 lanes. Sums are of integers, so lanes may add in any order. */
#include <immintrin.h>

#include "kernels/cpu/avx512/math.h"
#include "kernels/cpu/sample.h"
#include "kernels/steps/masses.h"

/* Lanes [i, i + 16) of count; lanes behind it read as -infinity. */
static inline __m512 load_lanes(const float *z, uint32_t i, uint32_t count, __mmask16 *mask)
{
    const uint32_t left = count - i;
    *mask = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffffu);
    return _mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), *mask, z + i);
}

static void scan(const float *z, uint32_t count, float *block_max, float *max, bool *bad)
{
    const __m512 infinity = _mm512_set1_ps(INFINITY);
    float all = -INFINITY;
    unsigned wrong = 0;

    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        __m512 largest = _mm512_set1_ps(-INFINITY);
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i += 16) {
            __mmask16 mask;
            const __m512 value = load_lanes(z, i, count, &mask);
            wrong |= _mm512_cmp_ps_mask(value, infinity, _CMP_NLT_UQ);
            largest = _mm512_max_ps(value, largest); /* the second operand where not ordered */
        }
        const float block = avx512_max(largest);
        block_max[first / SAMPLE_BLOCK] = block;
        all = block > all ? block : all;
    }
    *max = all + 0.0f; /* -0 is answered as 0 */
    *bad = wrong != 0;
}

/* The two halves of 16 floats as doubles. */
static inline __m512d low_half(__m512 value)
{
    return _mm512_cvtps_pd(_mm512_castps512_ps256(value));
}

static inline __m512d high_half(__m512 value)
{
    return _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(value), 1)));
}

static inline __m512i sum_cut(__m512i sums, __mmask16 mask, __m512d low, __m512d high)
{
    sums = _mm512_add_epi64(sums, _mm512_maskz_cvttpd_epu64((__mmask8)mask, low));
    return _mm512_add_epi64(sums, _mm512_maskz_cvttpd_epu64((__mmask8)(mask >> 8), high));
}

static void masses(const float *z, uint32_t count, float max, uint64_t *block_sum, uint64_t *sum,
                   uint64_t *spread, float *weights)
{
    const __m512 one = _mm512_set1_ps(STEPS_MASS_ONE);
    __m512i spreads = _mm512_setzero_si512();
    uint64_t all = 0;

    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        __m512i sums = _mm512_setzero_si512();
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i += 16) {
            __mmask16 mask;
            const __m512 below = _mm512_sub_ps(load_lanes(z, i, count, &mask), _mm512_set1_ps(max));
            const __m512 weight = avx512_exp(below);
            const __m512 scaled = _mm512_mul_ps(weight, one);
            sums = sum_cut(sums, 0xffff, low_half(scaled), high_half(scaled));
            if (weights != NULL) {
                _mm512_mask_storeu_ps(weights + i, mask, weight);
            }
            if (spread != NULL) {
                /* A mass of 0 may belong to a logit of -infinity: its product is left out. */
                const __m512 mass =
                    _mm512_roundscale_ps(scaled, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
                const __mmask16 some = _mm512_cmp_ps_mask(mass, _mm512_setzero_ps(), _CMP_GT_OQ);
                const __m512 above = _mm512_sub_ps(_mm512_setzero_ps(), below);
                spreads = sum_cut(spreads, some, _mm512_mul_pd(low_half(mass), low_half(above)),
                                  _mm512_mul_pd(high_half(mass), high_half(above)));
            }
        }
        block_sum[first / SAMPLE_BLOCK] = (uint64_t)_mm512_reduce_add_epi64(sums);
        all += block_sum[first / SAMPLE_BLOCK];
    }
    *sum = all;
    if (spread != NULL) {
        *spread = (uint64_t)_mm512_reduce_add_epi64(spreads);
    }
}

/* Stores whole vectors: SAMPLE_SLACK covers the lanes behind the last one kept. */
static uint32_t filter(const float *z, const uint32_t *ids, uint32_t count, float bound,
                       float *z_out, uint32_t *ids_out)
{
    const __m512 least = _mm512_set1_ps(bound);
    __m512i id = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i += 16) {
        __mmask16 mask;
        const __m512 value = load_lanes(z, i, count, &mask);
        mask = _mm512_mask_cmp_ps_mask(mask, value, least, _CMP_GE_OQ);
        if (mask != 0) {
            const __m512i from = ids == NULL ? id : _mm512_maskz_loadu_epi32(mask, ids + i);
            _mm512_storeu_ps(z_out + kept, _mm512_maskz_compress_ps(mask, value));
            _mm512_storeu_si512(ids_out + kept, _mm512_maskz_compress_epi32(mask, from));
            kept += (uint32_t)__builtin_popcount(mask);
        }
        id = _mm512_add_epi32(id, _mm512_set1_epi32(16));
    }
    return kept;
}

static uint32_t above(const float *z, const float *weights, uint32_t count, float bound,
                      uint64_t *sum)
{
    const __m512 least = _mm512_set1_ps(bound);
    const __m512 one = _mm512_set1_ps(STEPS_MASS_ONE);
    __m512i sums = _mm512_setzero_si512();
    uint32_t found = 0;

    for (uint32_t i = 0; i < count; i += 16) {
        __mmask16 mask;
        const __m512 value = load_lanes(z, i, count, &mask);
        mask = _mm512_mask_cmp_ps_mask(mask, value, least, _CMP_GE_OQ);
        const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, weights + i), one);
        sums = sum_cut(sums, mask, low_half(scaled), high_half(scaled));
        found += (uint32_t)__builtin_popcount(mask);
    }
    *sum = (uint64_t)_mm512_reduce_add_epi64(sums);
    return found;
}

static void divide(const float *z, uint32_t count, float t, float *z_out)
{
    for (uint32_t i = 0; i < count; i++) {
        z_out[i] = z[i] / t;
    }
}

const struct sample_kernels sample_kernels_avx512 = {
    .scan = scan,
    .masses = masses,
    .filter = filter,
    .above = above,
    .divide = divide,
};
