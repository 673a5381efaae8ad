/* Norm, packing, activation and rotation by AVX-512; ../rows_scalar.c defines the bits. */
#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/avx512/math.h"
#include "kernels/cpu/avx512/matmul.h"
#include "kernels/cpu/rows_scalar.h"

enum { LANES = 16 };

static __mmask16 lanes_below(uint32_t count)
{
    return count >= LANES ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

void avx512_rms_norm(const float *x, const float *norm, float epsilon, uint32_t cols, float *out)
{
    __m512 squares = _mm512_setzero_ps();
    __m512 inverse;

    for (uint32_t c = 0; c < cols; c += LANES) {
        const __mmask16 mask = lanes_below(cols - c);
        const __m512 value = _mm512_maskz_loadu_ps(mask, x + c);

        squares = _mm512_mask3_fmadd_ps(value, value, squares, mask);
    }
    inverse = _mm512_set1_ps(1.0f / sqrtf(avx512_sum(squares) / (float)cols + epsilon));
    for (uint32_t c = 0; c < cols; c += LANES) {
        const __mmask16 mask = lanes_below(cols - c);
        const __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + c), inverse);

        _mm512_mask_storeu_ps(out + c, mask,
                              _mm512_mul_ps(value, _mm512_maskz_loadu_ps(mask, norm + c)));
    }
}

static __m128i codes_of(__m512 x, __m512 factor)
{
    /* The default rounding mode is nearest, ties to even: what the scalar form does. */
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, factor)));
}

static int32_t sum_of(__m128i codes)
{
    return _mm512_reduce_add_epi32(_mm512_cvtepi8_epi32(codes));
}

static uint32_t largest_of(__m512 low, __m512 high)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);

    return _mm512_reduce_max_epu32(
        _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(low), magnitude),
                         _mm512_and_si512(_mm512_castps_si512(high), magnitude)));
}

static void quantise_block(const float *x, struct cpu_block_codes *out)
{
    const __m512 low = _mm512_loadu_ps(x);
    const __m512 high = _mm512_loadu_ps(x + LANES);
    const uint32_t largest = largest_of(low, high);
    const float amax = steps_float_from_bits(largest);
    __m512 factor;
    __m128i codes[2];
    int32_t sums[2];

    if (largest >= CPU_INFINITY_BITS || amax < CPU_QUANTISE_MIN) {
        cpu_quantise_block_scalar(x, out);
        return;
    }
    factor = _mm512_set1_ps(127.0f / amax);
    codes[0] = codes_of(low, factor);
    codes[1] = codes_of(high, factor);
    sums[0] = sum_of(codes[0]);
    sums[1] = sum_of(codes[1]);
    _mm_storeu_si128((__m128i *)out->codes, codes[0]);
    _mm_storeu_si128((__m128i *)(out->codes + LANES), codes[1]);
    out->scale = amax / 127.0f;
    out->sum = out->scale * (float)(sums[0] + sums[1]);
    out->half_sums[0] = -sums[0];
    out->half_sums[1] = -sums[1];
}

static void quantise_precise(const float *x, struct cpu_block_codes *out)
{
    const __m512 values[2] = {_mm512_loadu_ps(x), _mm512_loadu_ps(x + LANES)};
    const uint32_t largest = largest_of(values[0], values[1]);
    const float amax = steps_float_from_bits(largest);
    int32_t sums[2];

    if (largest >= CPU_INFINITY_BITS || amax < CPU_QUANTISE_MIN) {
        cpu_quantise_precise_scalar(x, out);
        return;
    }
    for (uint32_t i = 0; i < 2; i++) {
        const __m512 factor = _mm512_set1_ps((float)CPU_PRECISE_CODE_MAX / amax);
        const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(values[i], factor));
        /* No code lies near the middle between two multiples of 255: any rounding is right. */
        const __m512i high = _mm512_cvtps_epi32(
            _mm512_mul_ps(_mm512_cvtepi32_ps(codes), _mm512_set1_ps(1.0f / CPU_CODE_RADIX)));
        const __m512i low =
            _mm512_sub_epi32(codes, _mm512_sub_epi32(_mm512_slli_epi32(high, 8), high));

        _mm_storeu_si128((__m128i *)(out->codes + (size_t)LANES * i), _mm512_cvtepi32_epi8(high));
        _mm_storeu_si128((__m128i *)(out->low_codes + (size_t)LANES * i),
                         _mm512_cvtepi32_epi8(low));
        sums[i] = _mm512_reduce_add_epi32(codes);
    }
    out->scale = amax / (float)CPU_PRECISE_CODE_MAX;
    out->sum = out->scale * (float)(sums[0] + sums[1]);
    out->half_sums[0] = -sums[0];
    out->half_sums[1] = -sums[1];
}

void avx512_pack(struct cpu_rows *rows, const struct cpu_tile_part *part)
{
    if (!rows->with_codes || rows->is_precise || !avx512_pack_eights(rows, part)) {
        cpu_pack(rows, part, quantise_block, quantise_precise);
    } else if (rows->with_floats || rows->with_pairs) {
        cpu_pack_numbers(rows, part);
    }
}

void avx512_silu_multiply(float *gate, const float *up, uint32_t count)
{
    const __m512 one = _mm512_set1_ps(1.0f);

    for (uint32_t i = 0; i < count; i += LANES) {
        const __mmask16 mask = lanes_below(count - i);
        const __m512 z = _mm512_maskz_loadu_ps(mask, gate + i);
        const __m512 e = avx512_exp(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_abs_ps(z)));
        const __mmask16 positive = _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_GE_OQ);
        const __m512 top = _mm512_mask_mov_ps(_mm512_mul_ps(z, e), positive, z);
        const __m512 silu = _mm512_div_ps(top, _mm512_add_ps(one, e));

        _mm512_mask_storeu_ps(gate + i, mask,
                              _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
    }
}

static void rotate_halves(float *head, const float *cosines, const float *sines,
                          uint32_t pair_count)
{
    for (uint32_t i = 0; i < pair_count; i += LANES) {
        const __mmask16 mask = lanes_below(pair_count - i);
        const __m512 a = _mm512_maskz_loadu_ps(mask, head + i);
        const __m512 b = _mm512_maskz_loadu_ps(mask, head + pair_count + i);
        const __m512 cosine = _mm512_maskz_loadu_ps(mask, cosines + i);
        const __m512 sine = _mm512_maskz_loadu_ps(mask, sines + i);

        _mm512_mask_storeu_ps(head + i, mask, _mm512_fmsub_ps(a, cosine, _mm512_mul_ps(b, sine)));
        _mm512_mask_storeu_ps(head + pair_count + i, mask,
                              _mm512_fmadd_ps(a, sine, _mm512_mul_ps(b, cosine)));
    }
}

/* Eight pairs a register: each lane takes its partner from the other half of its pair. */
static void rotate_adjacent(float *head, const float *cosines, const float *sines,
                            uint32_t pair_count)
{
    const __m512i spread = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);

    for (uint32_t i = 0; i < pair_count; i += LANES / 2) {
        const uint32_t count = pair_count - i < LANES / 2 ? pair_count - i : LANES / 2;
        const __mmask16 mask = lanes_below(2 * count);
        const __mmask16 angles = lanes_below(count);
        const __m512 pairs = _mm512_maskz_loadu_ps(mask, head + 2 * (size_t)i);
        const __m512 cosine =
            _mm512_permutexvar_ps(spread, _mm512_maskz_loadu_ps(angles, cosines + i));
        const __m512 sine = _mm512_permutexvar_ps(spread, _mm512_maskz_loadu_ps(angles, sines + i));
        const __m512 first = _mm512_moveldup_ps(pairs);
        const __m512 second = _mm512_movehdup_ps(pairs);
        /* even lanes: a cos - b sin; odd lanes: a sin + b cos */
        const __m512 even = _mm512_fmsub_ps(first, cosine, _mm512_mul_ps(second, sine));
        const __m512 odd = _mm512_fmadd_ps(first, sine, _mm512_mul_ps(second, cosine));

        _mm512_mask_storeu_ps(head + 2 * (size_t)i, mask, _mm512_mask_mov_ps(even, 0xaaaa, odd));
    }
}

void avx512_rotate(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                   enum rope_style style)
{
    if (style == ROPE_ADJACENT) {
        rotate_adjacent(head, cosines, sines, pair_count);
    } else {
        rotate_halves(head, cosines, sines, pair_count);
    }
}

bool avx512_round_to_half(const float *x, uint32_t count, uint16_t *out)
{
    const __m512 most = _mm512_set1_ps(STEPS_HALF_MAX);
    const __m512 least = _mm512_set1_ps(-STEPS_HALF_MAX);
    __mmask16 nans = 0;

    for (uint32_t i = 0; i < count; i += LANES) {
        const __mmask16 mask = lanes_below(count - i);
        const __m512 value = _mm512_maskz_loadu_ps(mask, x + i);
        const __mmask16 numbers = _mm512_cmp_ps_mask(value, value, _CMP_ORD_Q);
        const __m512 kept = _mm512_maskz_min_ps(numbers, _mm512_max_ps(value, least), most);

        _mm256_mask_storeu_epi16(
            out + i, mask, _mm512_cvtps_ph(kept, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        nans |= (__mmask16)~numbers;
    }
    return nans != 0;
}

bool avx512_round_to_bf16(const float *x, uint32_t count, uint16_t *out)
{
    return cpu_round_to_bf16(x, count, out);
}
