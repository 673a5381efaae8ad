/* Eight blocks of a row quantised at a time, so that their largest values and their sums are folded
 * side by side: one block alone waits for its own folds (14 ns a block where these take 7).
 */
#include <immintrin.h>

#include "kernels/cpu/avx512/matmul.h"
#include "kernels/cpu/expand.h"
#include "kernels/cpu/rows_scalar.h"
#include "kernels/steps/math.h"

enum { EIGHT = 8, LANES = 16, QUANTISE_MIN_BITS = (127 - 80) << 23 /* CPU_QUANTISE_MIN */ };

/* What eight blocks have beside their codes. */
struct eight {
    _Alignas(32) float factors[EIGHT];
    _Alignas(32) float scales[EIGHT];
    _Alignas(32) float sums[EIGHT];
    _Alignas(32) int32_t code_sums[EIGHT];
    _Alignas(64) int32_t half_sums[2][EIGHT];
};

static CPU_EXPAND __m512i largest_of_pair(__m512i a, __m512i b, bool wide)
{
    return wide ? _mm512_max_epu32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
                : _mm512_max_epu32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

static CPU_EXPAND __m512i sum_of_pair(__m512i a, __m512i b, bool wide)
{
    return wide ? _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
                : _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

/* Element j of each 128-bit lane: the largest of that lane of parts[j]. */
static CPU_EXPAND __m512i largest_of_four(const __m512i *parts)
{
    return largest_of_pair(largest_of_pair(parts[0], parts[1], false),
                           largest_of_pair(parts[2], parts[3], false), true);
}

static CPU_EXPAND __m512i sum_of_four(const __m512i *parts)
{
    return sum_of_pair(sum_of_pair(parts[0], parts[1], false),
                       sum_of_pair(parts[2], parts[3], false), true);
}

/* The bits of each block's largest magnitude. */
static CPU_EXPAND __m256i largest_of_eight(const float *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i parts[EIGHT], low, high, both;

    CPU_UNROLL(8)
    for (uint32_t b = 0; b < EIGHT; b++) {
        parts[b] = _mm512_max_epu32(
            _mm512_and_si512(_mm512_loadu_si512(x + (size_t)b * CPU_BLOCK), magnitude),
            _mm512_and_si512(_mm512_loadu_si512(x + (size_t)b * CPU_BLOCK + LANES), magnitude));
    }
    low = largest_of_four(parts);
    high = largest_of_four(parts + 4);
    /* Lanes: blocks 0 to 3 twice, 4 to 7 twice; then each the largest of both. */
    both = _mm512_max_epu32(_mm512_shuffle_i32x4(low, high, 0x44),
                            _mm512_shuffle_i32x4(low, high, 0xee));
    both = _mm512_max_epu32(both, _mm512_shuffle_i32x4(both, both, 0xb1));
    return _mm512_castsi512_si256(_mm512_shuffle_i32x4(both, both, 0x08));
}

/* Codes of two blocks, one after the other. */
static CPU_EXPAND __m512i codes_of_two(const float *x, const float *factors)
{
    const __m512i in_order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i codes[4];

    CPU_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        codes[i] = _mm512_cvtps_epi32(
            _mm512_mul_ps(_mm512_loadu_ps(x + (size_t)LANES * i), _mm512_set1_ps(factors[i / 2])));
    }
    return _mm512_permutexvar_epi32(in_order,
                                    _mm512_packs_epi16(_mm512_packs_epi32(codes[0], codes[1]),
                                                       _mm512_packs_epi32(codes[2], codes[3])));
}

static CPU_EXPAND void quantise_eight(const float *x, int8_t *codes, size_t stride,
                                      struct eight *out)
{
    /* Element j of lane l is of block 2j + l / 2, half l % 2. */
    const __m512i by_half = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
    __m512i parts[EIGHT / 2], halves;
    __m256i whole;

    CPU_UNROLL(4)
    for (uint32_t j = 0; j < EIGHT / 2; j++) {
        const __m512i two =
            codes_of_two(x + (size_t)2 * j * CPU_BLOCK, out->factors + 2 * (size_t)j);

        _mm256_storeu_si256((__m256i *)(codes + 2 * j * stride), _mm512_castsi512_si256(two));
        _mm256_storeu_si256((__m256i *)(codes + (2 * j + 1) * stride),
                            _mm512_extracti64x4_epi64(two, 1));
        parts[j] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), two);
    }
    halves = _mm512_permutexvar_epi32(by_half, sum_of_four(parts));
    whole = _mm256_add_epi32(_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64(halves, 1));
    _mm512_store_si512(out->half_sums, _mm512_sub_epi32(_mm512_setzero_si512(), halves));
    _mm256_store_si256((__m256i *)out->code_sums, _mm256_sub_epi32(_mm256_setzero_si256(), whole));
    _mm256_store_ps(out->sums,
                    _mm256_mul_ps(_mm256_load_ps(out->scales), _mm256_cvtepi32_ps(whole)));
}

/* One that is zero, or not finite. */
static void quantise_special(const struct cpu_row_place *place, uint32_t block, const float *x)
{
    const size_t at = (size_t)block * place->height;
    struct cpu_block_codes codes;

    cpu_quantise_block_scalar(x, &codes);
    _mm256_storeu_si256((__m256i *)(place->codes + at * CPU_BLOCK),
                        _mm256_loadu_si256((const __m256i *)codes.codes));
    place->scales[at] = codes.scale;
    place->sums[at] = codes.sum;
    place->code_sums[at] = codes.half_sums[0] + codes.half_sums[1];
    place->half_sums[2 * at] = codes.half_sums[0];
    place->half_sums[2 * at + place->height] = codes.half_sums[1];
}

static void pack_eight(const struct cpu_row_place *place, uint32_t block, const float *x)
{
    const size_t at = (size_t)block * place->height;
    const __m256i largest = largest_of_eight(x);
    const __mmask8 special =
        _mm256_cmpge_epu32_mask(largest, _mm256_set1_epi32(CPU_INFINITY_BITS)) |
        _mm256_cmplt_epu32_mask(largest, _mm256_set1_epi32(QUANTISE_MIN_BITS));
    const __m256 code_max = _mm256_set1_ps(CPU_CODE_MAX);
    /* Of special blocks what comes out is replaced. */
    const __m256 amax =
        _mm256_mask_mov_ps(_mm256_castsi256_ps(largest), special, _mm256_set1_ps(1.0f));
    struct eight eight;

    _mm256_store_ps(eight.scales, _mm256_div_ps(amax, code_max));
    _mm256_store_ps(eight.factors, _mm256_div_ps(code_max, amax));
    quantise_eight(x, place->codes + at * CPU_BLOCK, (size_t)place->height * CPU_BLOCK, &eight);
    for (uint32_t b = 0; b < EIGHT; b++) {
        const size_t to = at + (size_t)b * place->height;

        place->scales[to] = eight.scales[b];
        place->sums[to] = eight.sums[b];
        place->code_sums[to] = eight.code_sums[b];
        place->half_sums[2 * to] = eight.half_sums[0][b];
        place->half_sums[2 * to + place->height] = eight.half_sums[1][b];
    }
    for (uint32_t b = 0; special != 0 && b < EIGHT; b++) {
        if ((special >> b & 1) != 0) {
            quantise_special(place, block + b, x + (size_t)b * CPU_BLOCK);
        }
    }
}

bool avx512_pack_eights(const struct cpu_row_place *place, uint32_t block_count, const float *x)
{
    if (block_count < EIGHT) {
        return false;
    }
    for (uint32_t b = 0; b < block_count; b += EIGHT) {
        /* The last may pack some blocks again. */
        const uint32_t from = b + EIGHT <= block_count ? b : block_count - EIGHT;

        pack_eight(place, from, x + (size_t)from * CPU_BLOCK);
    }
    return true;
}
