/* The sampler's passes with 8 lanes. Sums are of integers, so lanes may add in any order. */
#include <immintrin.h>

#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/sample.h"
#include "kernels/steps/masses.h"

/* Lanes [i, i + 8) of count; lanes behind it read as -infinity. */
static inline __m256 load_lanes(const float *z, uint32_t i, uint32_t count)
{
    if (count - i >= 8) {
        return _mm256_loadu_ps(z + i);
    }
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(count - i)), lane);
    return _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_maskload_ps(z + i, mask),
                            _mm256_castsi256_ps(mask));
}

static void scan(const float *z, uint32_t count, float *block_max, float *max, bool *bad)
{
    const __m256 infinity = _mm256_set1_ps(INFINITY);
    __m256 wrong = _mm256_setzero_ps();
    float all = -INFINITY;

    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        __m256 largest = _mm256_set1_ps(-INFINITY);
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i += 8) {
            const __m256 value = load_lanes(z, i, count);
            wrong = _mm256_or_ps(wrong, _mm256_cmp_ps(value, infinity, _CMP_NLT_UQ));
            largest = _mm256_max_ps(value, largest); /* the second operand where not ordered */
        }
        const float block = avx2_max(largest);
        block_max[first / SAMPLE_BLOCK] = block;
        all = block > all ? block : all;
    }
    *max = all + 0.0f; /* -0 is answered as 0 */
    *bad = _mm256_movemask_ps(wrong) != 0;
}

static inline __m256d low_half(__m256 value)
{
    return _mm256_cvtps_pd(_mm256_castps256_ps128(value));
}

static inline __m256d high_half(__m256 value)
{
    return _mm256_cvtps_pd(_mm256_extractf128_ps(value, 1));
}

/* sums + floor(value), values in [0, 2^52): adding 2^52 leaves the integer in the mantissa. */
static inline __m256i sum_cut(__m256i sums, __m256d value)
{
    const __m256d magic = _mm256_set1_pd(0x1p52);
    const __m256d shifted = _mm256_add_pd(_mm256_floor_pd(value), magic);
    return _mm256_add_epi64(
        sums, _mm256_xor_si256(_mm256_castpd_si256(shifted), _mm256_castpd_si256(magic)));
}

static inline uint64_t sum_lanes(__m256i sums)
{
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)lanes, sums);
    return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}

static void masses(const float *z, uint32_t count, float max, uint64_t *block_sum, uint64_t *sum,
                   uint64_t *spread, float *weights)
{
    const __m256 one = _mm256_set1_ps(STEPS_MASS_ONE);
    __m256i spreads = _mm256_setzero_si256();
    uint64_t all = 0;

    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        __m256i sums = _mm256_setzero_si256();
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i += 8) {
            const __m256 below = _mm256_sub_ps(load_lanes(z, i, count), _mm256_set1_ps(max));
            const __m256 weight = avx2_exp(below);
            const __m256 mass = _mm256_floor_ps(_mm256_mul_ps(weight, one));
            sums = sum_cut(sum_cut(sums, low_half(mass)), high_half(mass));
            if (weights != NULL) {
                _mm256_storeu_ps(weights + i, weight); /* SAMPLE_SLACK covers the last */
            }
            if (spread != NULL) {
                /* A mass of 0 may belong to a logit of -infinity: 0 takes the product's place. */
                const __m256 some = _mm256_cmp_ps(mass, _mm256_setzero_ps(), _CMP_GT_OQ);
                const __m256 above = _mm256_and_ps(_mm256_sub_ps(_mm256_setzero_ps(), below), some);
                spreads = sum_cut(spreads, _mm256_mul_pd(low_half(mass), low_half(above)));
                spreads = sum_cut(spreads, _mm256_mul_pd(high_half(mass), high_half(above)));
            }
        }
        block_sum[first / SAMPLE_BLOCK] = sum_lanes(sums);
        all += block_sum[first / SAMPLE_BLOCK];
    }
    *sum = all;
    if (spread != NULL) {
        *spread = sum_lanes(spreads);
    }
}

static uint32_t filter(const float *z, const uint32_t *ids, uint32_t count, float bound,
                       float *z_out, uint32_t *ids_out)
{
    const __m256 least = _mm256_set1_ps(bound);
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i += 8) {
        const uint32_t real = count - i < 8 ? (1u << (count - i)) - 1 : 0xffu;
        const __m256 value = load_lanes(z, i, count);
        uint32_t mask =
            real & (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(value, least, _CMP_GE_OQ));
        for (; mask != 0; mask &= mask - 1) {
            const uint32_t at = i + (uint32_t)__builtin_ctz(mask);
            z_out[kept] = z[at];
            ids_out[kept] = ids == NULL ? at : ids[at];
            kept++;
        }
    }
    return kept;
}

static uint32_t above(const float *z, const float *weights, uint32_t count, float bound,
                      uint64_t *sum)
{
    const __m256 least = _mm256_set1_ps(bound);
    const __m256 one = _mm256_set1_ps(STEPS_MASS_ONE);
    __m256i sums = _mm256_setzero_si256();
    uint32_t found = 0;

    for (uint32_t i = 0; i < count; i += 8) {
        const uint32_t left = count - i;
        const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        const __m256 real = _mm256_castsi256_ps(
            _mm256_cmpgt_epi32(_mm256_set1_epi32(left < 8 ? (int)left : 8), lane));
        const __m256 kept =
            _mm256_and_ps(real, _mm256_cmp_ps(load_lanes(z, i, count), least, _CMP_GE_OQ));
        const __m256 mass =
            _mm256_floor_ps(_mm256_mul_ps(_mm256_and_ps(kept, _mm256_loadu_ps(weights + i)), one));
        sums = sum_cut(sum_cut(sums, low_half(mass)), high_half(mass));
        found += (uint32_t)__builtin_popcount((uint32_t)_mm256_movemask_ps(kept));
    }
    *sum = sum_lanes(sums);
    return found;
}

static void divide(const float *z, uint32_t count, float t, float *z_out)
{
    for (uint32_t i = 0; i < count; i++) {
        z_out[i] = z[i] / t;
    }
}

const struct sample_kernels sample_kernels_avx2 = {
    .scan = scan,
    .masses = masses,
    .filter = filter,
    .above = above,
    .divide = divide,
};
