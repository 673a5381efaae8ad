/* Paired BF16 weights by the processor's dot product: vdpbf16ps adds the odd product, then the even
 * one, each rounded to nearest, as two fused multiply-adds do where nothing is a denormal.
 */
#include "kernels/cpu/avx512bf16/matmul.h"

#include <immintrin.h>

struct pair {
    __m512bh columns;
};

#define MATMUL_PAIRS avx512bf16_matmul_pairs
#include "kernels/cpu/avx512/matmul_pairs.h"

static CPU_EXPAND struct pair load_pair(const struct cpu_tile *tile, uint32_t k, uint32_t height,
                                        uint32_t r)
{
    return (struct pair){
        (__m512bh)_mm512_set1_epi32((int32_t)tile->words[(size_t)(k / 2) * height + r])};
}

static CPU_EXPAND __m512 add_pair(__m512 acc, __m512i w, struct pair x)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)w, x.columns);
}
