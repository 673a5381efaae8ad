/* steps_exp and steps_exp2 over 16 lanes, and fixed-order reductions: the same bits as the scalar
 * C.
 *
 * Thread: any; pure functions. Only for files compiled with AVX-512F.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX512_MATH_H
#define PERSONAD_KERNELS_CPU_AVX512_MATH_H

#include <immintrin.h>

#include "kernels/steps/math.h"

/* steps_exp of each lane. */
static inline __m512 avx512_exp(__m512 x)
{
    const __m512 round = _mm512_set1_ps(STEPS_EXP_ROUND);
    const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(STEPS_EXP_LOW), _CMP_GE_OQ);
    const __mmask16 huge = _mm512_cmp_ps_mask(x, _mm512_set1_ps(STEPS_EXP_HIGH), _CMP_GT_OQ);
    const __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(STEPS_EXP_LOG2E), round);
    const __m512 n = _mm512_sub_ps(shifted, round);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-STEPS_EXP_LN2_HIGH), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-STEPS_EXP_LN2_LOW), r);
    __m512 q = _mm512_fmadd_ps(_mm512_set1_ps(STEPS_EXP_C6), r, _mm512_set1_ps(STEPS_EXP_C5));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(STEPS_EXP_C4));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(STEPS_EXP_C3));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(STEPS_EXP_C2));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
    const __m512 p = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
    const __m512i scaled = _mm512_add_epi32(_mm512_castps_si512(p),
                                            _mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
    const __m512 value = _mm512_maskz_mov_ps(above, _mm512_castsi512_ps(scaled));
    return _mm512_mask_mov_ps(value, huge, _mm512_set1_ps(INFINITY));
}

/* steps_exp2 of each lane. */
static inline __m512 avx512_exp2(__m512 x)
{
    const __m512 round = _mm512_set1_ps(STEPS_EXP_ROUND);
    const __mmask16 above = _mm512_cmp_ps_mask(x, _mm512_set1_ps(STEPS_EXP2_LOW), _CMP_GE_OQ);
    const __m512 shifted = _mm512_add_ps(x, round);
    const __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, round));
    __m512 q = _mm512_fmadd_ps(_mm512_set1_ps(STEPS_EXP2_C5), r, _mm512_set1_ps(STEPS_EXP2_C4));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(STEPS_EXP2_C3));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(STEPS_EXP2_C2));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(STEPS_EXP2_C1));
    const __m512 p = _mm512_fmadd_ps(q, r, _mm512_set1_ps(1.0f));
    const __m512i scaled = _mm512_maskz_add_epi32(
        above, _mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(shifted), 23));
    return _mm512_castsi512_ps(scaled);
}

/* Lanes i and i + 8, then i + 4, i + 2, i + 1: the one tree of all sums over 16 lanes. */
static inline float avx512_sum(__m512 lanes)
{
    const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(lanes), 1));
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Lanes that are not numbers must have been replaced. */
static inline float avx512_max(__m512 lanes)
{
    return _mm512_reduce_max_ps(lanes);
}

#endif
