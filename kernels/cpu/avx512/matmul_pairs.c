/* Paired BF16 weights where the processor has no dot product of them: two fused multiply-adds. */
#include "kernels/cpu/avx512/pair.h"

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
    return avx512_add_pair(acc, w, x);
}
