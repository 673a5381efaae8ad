/* steps_exp and steps_exp2 over 8 lanes, and fixed-order reductions: the same bits as the scalar C.
 *
 * Thread: any; pure functions. Only for files compiled with AVX2 and FMA. Sixteen virtual lanes are
 * a pair of registers, lanes 0-7 and 8-15.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX2_MATH_H
#define PERSONAD_KERNELS_CPU_AVX2_MATH_H

#include <immintrin.h>

#include "kernels/steps/math.h"

/* steps_exp of each lane. */
static inline __m256 avx2_exp(__m256 x)
{
    const __m256 round = _mm256_set1_ps(STEPS_EXP_ROUND);
    const __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(STEPS_EXP_LOW), _CMP_GE_OQ);
    const __m256 huge = _mm256_cmp_ps(x, _mm256_set1_ps(STEPS_EXP_HIGH), _CMP_GT_OQ);
    const __m256 shifted = _mm256_fmadd_ps(x, _mm256_set1_ps(STEPS_EXP_LOG2E), round);
    const __m256 n = _mm256_sub_ps(shifted, round);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-STEPS_EXP_LN2_HIGH), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-STEPS_EXP_LN2_LOW), r);
    __m256 q = _mm256_fmadd_ps(_mm256_set1_ps(STEPS_EXP_C6), r, _mm256_set1_ps(STEPS_EXP_C5));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(STEPS_EXP_C4));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(STEPS_EXP_C3));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(STEPS_EXP_C2));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.0f));
    const __m256 p = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.0f));
    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p),
                                            _mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
    const __m256 value = _mm256_and_ps(above, _mm256_castsi256_ps(scaled));
    return _mm256_blendv_ps(value, _mm256_set1_ps(INFINITY), huge);
}

/* steps_exp2 of each lane. */
static inline __m256 avx2_exp2(__m256 x)
{
    const __m256 round = _mm256_set1_ps(STEPS_EXP_ROUND);
    const __m256 above = _mm256_cmp_ps(x, _mm256_set1_ps(STEPS_EXP2_LOW), _CMP_GE_OQ);
    const __m256 shifted = _mm256_add_ps(x, round);
    const __m256 r = _mm256_sub_ps(x, _mm256_sub_ps(shifted, round));
    __m256 q = _mm256_fmadd_ps(_mm256_set1_ps(STEPS_EXP2_C5), r, _mm256_set1_ps(STEPS_EXP2_C4));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(STEPS_EXP2_C3));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(STEPS_EXP2_C2));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(STEPS_EXP2_C1));
    const __m256 p = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.0f));
    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p),
                                            _mm256_slli_epi32(_mm256_castps_si256(shifted), 23));
    return _mm256_and_ps(above, _mm256_castsi256_ps(scaled));
}

/* Lanes i and i + 8, then i + 4, i + 2, i + 1: the one tree of all sums over 16 lanes. */
static inline float avx2_sum(__m256 low, __m256 high)
{
    const __m256 eight = _mm256_add_ps(low, high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Lanes that are not numbers must have been replaced. */
static inline float avx2_max(__m256 lanes)
{
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

#endif
