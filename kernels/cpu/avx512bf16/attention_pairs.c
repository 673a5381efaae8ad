/* BF16 pairs by the processor's dot product, which adds the odd product, then the even one
 * (matmul_pairs.c). Numbers are words of two BF16. */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/expand.h"

struct pair {
    __m512bh numbers;
};

#define ATTENTION_PAIRS attention_pairs_avx512bf16
#include "kernels/cpu/avx512/attention_pairs.h"

static CPU_EXPAND struct pair load_pair(const float *numbers, uint32_t i)
{
    int32_t word;

    memcpy(&word, numbers + i, sizeof(word));
    return (struct pair){(__m512bh)_mm512_set1_epi32(word)};
}

static CPU_EXPAND __m512 add_pair(__m512 acc, __m512i words, struct pair x)
{
    return _mm512_dpbf16_ps(acc, (__m512bh)words, x.numbers);
}

/* No weight is a denormal, which the conversion would take for 0. */
static CPU_EXPAND void store_weights(float *numbers, int v, __m512 weights)
{
    _mm256_storeu_si256((__m256i *)(numbers + 8 * (size_t)v), (__m256i)_mm512_cvtneps_pbh(weights));
}

static void round_query(const float *query, float factor, uint32_t count, float *out)
{
    const __m256i magnitude = _mm256_set1_epi16(0x7fff);

    for (uint32_t d = 0; d < count; d += 16) {
        const __mmask16 mask = (__mmask16)(count - d < 16 ? 0x00ff : 0xffff);
        const __m512 value =
            _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, query + d), _mm512_set1_ps(factor));
        const __m256i halves = (__m256i)_mm512_cvtneps_pbh(value);
        const __mmask16 kept = _mm256_cmpge_epu16_mask(_mm256_and_si256(halves, magnitude),
                                                       _mm256_set1_epi16(CPU_BF16_MIN_BITS));

        _mm256_mask_storeu_epi16((char *)out + (size_t)d * sizeof(uint16_t), mask,
                                 _mm256_maskz_mov_epi16(kept, halves));
    }
}
