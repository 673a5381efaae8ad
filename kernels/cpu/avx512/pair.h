/* A pair of numbers for words of two BF16, by AVX-512 without a dot product of them. Thread: any.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX512_PAIR_H
#define PERSONAD_KERNELS_CPU_AVX512_PAIR_H

#include <immintrin.h>

#include "kernels/cpu/expand.h"

struct pair {
    __m512 odd, even;
};

/* acc + odd product + even product, in this order. */
static CPU_EXPAND __m512 avx512_add_pair(__m512 acc, __m512i words, struct pair x)
{
    const __m512i odd = _mm512_and_si512(words, _mm512_set1_epi32(-65536));

    acc = _mm512_fmadd_ps(_mm512_castsi512_ps(odd), x.odd, acc);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)), x.even, acc);
}

#endif
