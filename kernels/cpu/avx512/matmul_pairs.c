/* Paired BF16 weights where the processor has no dot product of them: two fused multiply-adds. */
#include <immintrin.h>

struct pair {
    __m512 odd, even;
};

#define MATMUL_PAIRS avx512_matmul_pairs
#include "kernels/cpu/avx512/matmul_pairs.h"

static CPU_EXPAND struct pair load_pair(const struct cpu_tile *tile, uint32_t k, uint32_t height,
                                        uint32_t r)
{
    const float *even = tile->paired + (size_t)k * height + r;

    return (struct pair){_mm512_set1_ps(even[height]), _mm512_set1_ps(even[0])};
}

static CPU_EXPAND __m512 add_pair(__m512 acc, __m512i w, struct pair x)
{
    const __m512i odd = _mm512_and_si512(w, _mm512_set1_epi32(-65536));

    acc = _mm512_fmadd_ps(_mm512_castsi512_ps(odd), x.odd, acc);
    return _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(w, 16)), x.even, acc);
}
