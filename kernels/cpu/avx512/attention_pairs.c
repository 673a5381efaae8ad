/* BF16 pairs where the processor has no dot product of them: two fused multiply-adds. Numbers are
 * floats. */
#include "kernels/cpu/avx512/pair.h"

#define ATTENTION_PAIRS attention_pairs_avx512
#include "kernels/cpu/avx512/attention_pairs.h"

static CPU_EXPAND struct pair load_pair(const float *numbers, uint32_t i)
{
    return (struct pair){_mm512_set1_ps(numbers[2 * (size_t)i + 1]),
                         _mm512_set1_ps(numbers[2 * (size_t)i])};
}

static CPU_EXPAND __m512 add_pair(__m512 acc, __m512i words, struct pair x)
{
    return avx512_add_pair(acc, words, x);
}

/* To BF16 and back: to nearest, ties to even; a NaN stays one. */
static CPU_EXPAND __m512 nearest(__m512 value)
{
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 numbers = _mm512_cmp_ps_mask(value, value, _CMP_ORD_Q);

    return _mm512_castsi512_ps(_mm512_mask_and_epi32(bits, numbers, up, _mm512_set1_epi32(-65536)));
}

static CPU_EXPAND void store_weights(float *numbers, int v, __m512 weights)
{
    _mm512_storeu_ps(numbers + 16 * (size_t)v, nearest(weights));
}

static void round_query(const float *query, float factor, uint32_t count, float *out)
{
    const __m512 least = _mm512_set1_ps(0x1p-56f);

    for (uint32_t d = 0; d < count; d += 16) {
        const __mmask16 mask = (__mmask16)(count - d < 16 ? 0x00ff : 0xffff);
        const __m512 value =
            nearest(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, query + d), _mm512_set1_ps(factor)));
        const __mmask16 tiny = _mm512_cmp_ps_mask(_mm512_abs_ps(value), least, _CMP_LT_OQ);

        _mm512_mask_storeu_ps(out + d, mask, _mm512_maskz_mov_ps((__mmask16)~tiny, value));
    }
}
