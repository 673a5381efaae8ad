/* Norm, packing, activation and rotation by AVX2; ../rows_scalar.c defines the bits. What does not
 * fill a register goes through the scalar form.
 */
#include <immintrin.h>
#include <math.h>

#include "kernels/cpu/avx2/math.h"
#include "kernels/cpu/avx2/matmul.h"
#include "kernels/cpu/rows_scalar.h"

enum { LANES = 8 };

void avx2_rms_norm(const float *x, const float *norm, float epsilon, uint32_t cols, float *out)
{
    const uint32_t whole = cols / (2 * LANES) * (2 * LANES);
    __m256 squares[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256 inverse;

    if (whole != cols) {
        cpu_rms_norm_scalar(x, norm, epsilon, cols, out);
        return;
    }
    for (uint32_t c = 0; c < cols; c += 2 * LANES) {
        const __m256 low = _mm256_loadu_ps(x + c);
        const __m256 high = _mm256_loadu_ps(x + c + LANES);

        squares[0] = _mm256_fmadd_ps(low, low, squares[0]);
        squares[1] = _mm256_fmadd_ps(high, high, squares[1]);
    }
    inverse =
        _mm256_set1_ps(1.0f / sqrtf(avx2_sum(squares[0], squares[1]) / (float)cols + epsilon));
    for (uint32_t c = 0; c < cols; c += LANES) {
        const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x + c), inverse);

        _mm256_storeu_ps(out + c, _mm256_mul_ps(value, _mm256_loadu_ps(norm + c)));
    }
}

static uint32_t largest_of(__m256i lanes)
{
    __m128i four = _mm_max_epu32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));

    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_max_epu32(four, _mm_shuffle_epi32(four, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(four);
}

static int32_t sum_of(__m256i lanes)
{
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));

    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1));
    return _mm_cvtsi128_si32(four);
}

/* Sixteen codes from two registers of integers in [-127, 127]. */
static __m128i narrow(__m256i low, __m256i high)
{
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);

    return _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* The values of a block; answers the bits of its largest magnitude. */
static uint32_t load_block(const float *x, __m256 values[4])
{
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256i largest = _mm256_setzero_si256();

    for (uint32_t i = 0; i < 4; i++) {
        values[i] = _mm256_loadu_ps(x + (size_t)i * LANES);
        largest =
            _mm256_max_epu32(largest, _mm256_castps_si256(_mm256_and_ps(values[i], magnitude)));
    }
    return largest_of(largest);
}

static void set_sums(const __m256i codes[4], struct cpu_block_codes *out)
{
    const int32_t first = sum_of(_mm256_add_epi32(codes[0], codes[1]));
    const int32_t second = sum_of(_mm256_add_epi32(codes[2], codes[3]));

    out->sum = out->scale * (float)(first + second);
    out->half_sums[0] = -first;
    out->half_sums[1] = -second;
}

static void store_codes(const __m256i codes[4], int8_t *to)
{
    _mm_storeu_si128((__m128i *)to, narrow(codes[0], codes[1]));
    _mm_storeu_si128((__m128i *)(to + CPU_BLOCK / 2), narrow(codes[2], codes[3]));
}

static void quantise_block(const float *x, struct cpu_block_codes *out)
{
    __m256 values[4];
    __m256i codes[4];
    const uint32_t bits = load_block(x, values);
    const float amax = steps_float_from_bits(bits);

    if (bits >= CPU_INFINITY_BITS || amax < CPU_QUANTISE_MIN) {
        cpu_quantise_block_scalar(x, out);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        /* The default rounding mode is nearest, ties to even: what the scalar form does. */
        codes[i] = _mm256_cvtps_epi32(
            _mm256_mul_ps(values[i], _mm256_set1_ps((float)CPU_CODE_MAX / amax)));
    }
    out->scale = amax / (float)CPU_CODE_MAX;
    store_codes(codes, out->codes);
    set_sums(codes, out);
}

static void quantise_precise(const float *x, struct cpu_block_codes *out)
{
    __m256 values[4];
    __m256i codes[4], high[4], low[4];
    const uint32_t bits = load_block(x, values);
    const float amax = steps_float_from_bits(bits);

    if (bits >= CPU_INFINITY_BITS || amax < CPU_QUANTISE_MIN) {
        cpu_quantise_precise_scalar(x, out);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        codes[i] = _mm256_cvtps_epi32(
            _mm256_mul_ps(values[i], _mm256_set1_ps((float)CPU_PRECISE_CODE_MAX / amax)));
        /* No code lies near the middle between two multiples of 255: any rounding is right. */
        high[i] = _mm256_cvtps_epi32(
            _mm256_mul_ps(_mm256_cvtepi32_ps(codes[i]), _mm256_set1_ps(1.0f / CPU_CODE_RADIX)));
        low[i] =
            _mm256_sub_epi32(codes[i], _mm256_sub_epi32(_mm256_slli_epi32(high[i], 8), high[i]));
    }
    out->scale = amax / (float)CPU_PRECISE_CODE_MAX;
    store_codes(high, out->codes);
    store_codes(low, out->low_codes);
    set_sums(codes, out);
}

void avx2_pack(struct cpu_rows *rows, const struct cpu_tile_part *part)
{
    cpu_pack(rows, part, quantise_block, quantise_precise);
}

void avx2_silu_multiply(float *gate, const float *up, uint32_t count)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const uint32_t whole = count / LANES * LANES;

    for (uint32_t i = 0; i < whole; i += LANES) {
        const __m256 z = _mm256_loadu_ps(gate + i);
        const __m256 e = avx2_exp(_mm256_or_ps(z, sign));
        const __m256 positive = _mm256_cmp_ps(z, _mm256_setzero_ps(), _CMP_GE_OQ);
        const __m256 top = _mm256_blendv_ps(_mm256_mul_ps(z, e), z, positive);
        const __m256 silu = _mm256_div_ps(top, _mm256_add_ps(one, e));

        _mm256_storeu_ps(gate + i, _mm256_mul_ps(silu, _mm256_loadu_ps(up + i)));
    }
    cpu_silu_multiply_scalar(gate + whole, up + whole, count - whole);
}

void avx2_rotate(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                 enum rope_style style)
{
    if (style == ROPE_ADJACENT || pair_count % LANES != 0) {
        cpu_rotate_scalar(head, cosines, sines, pair_count, style);
        return;
    }
    for (uint32_t i = 0; i < pair_count; i += LANES) {
        const __m256 a = _mm256_loadu_ps(head + i);
        const __m256 b = _mm256_loadu_ps(head + pair_count + i);
        const __m256 cosine = _mm256_loadu_ps(cosines + i);
        const __m256 sine = _mm256_loadu_ps(sines + i);

        _mm256_storeu_ps(head + i, _mm256_fmsub_ps(a, cosine, _mm256_mul_ps(b, sine)));
        _mm256_storeu_ps(head + pair_count + i, _mm256_fmadd_ps(a, sine, _mm256_mul_ps(b, cosine)));
    }
}

bool avx2_round_to_half(const float *x, uint32_t count, uint16_t *out)
{
    const __m256 most = _mm256_set1_ps(STEPS_HALF_MAX);
    const __m256 least = _mm256_set1_ps(-STEPS_HALF_MAX);
    const uint32_t whole = count / LANES * LANES;
    __m256 nans = _mm256_setzero_ps();

    for (uint32_t i = 0; i < whole; i += LANES) {
        const __m256 value = _mm256_loadu_ps(x + i);
        const __m256 is_nan = _mm256_cmp_ps(value, value, _CMP_UNORD_Q);
        const __m256 kept = _mm256_min_ps(_mm256_max_ps(value, least), most);

        _mm_storeu_si128((__m128i *)(out + i), _mm256_cvtps_ph(_mm256_andnot_ps(is_nan, kept),
                                                               _MM_FROUND_TO_NEAREST_INT));
        nans = _mm256_or_ps(nans, is_nan);
    }
    return cpu_round_to_half_scalar(x + whole, count - whole, out + whole) ||
           _mm256_movemask_ps(nans) != 0;
}

bool avx2_round_to_bf16(const float *x, uint32_t count, uint16_t *out)
{
    return cpu_round_to_bf16(x, count, out);
}
