/* Eight blocks quantised at a time, so that their largest values and their sums are folded side by
 * side: one block alone waits for its own folds (14 ns a block where these take 7).
 */
#include <immintrin.h>

#include "kernels/cpu/avx512/matmul.h"
#include "kernels/cpu/expand.h"
#include "kernels/cpu/rows_scalar.h"
#include "kernels/steps/math.h"

enum { EIGHT = 8, LANES = 16, QUANTISE_MIN_BITS = (127 - 80) << 23 /* CPU_QUANTISE_MIN */ };

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
static CPU_EXPAND __m256i largest_of_eight(const float *const *x)
{
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i parts[EIGHT], low, high, both;

    CPU_UNROLL(8)
    for (uint32_t b = 0; b < EIGHT; b++) {
        parts[b] = _mm512_max_epu32(_mm512_and_si512(_mm512_loadu_si512(x[b]), magnitude),
                                    _mm512_and_si512(_mm512_loadu_si512(x[b] + LANES), magnitude));
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
static CPU_EXPAND __m512i codes_of_two(const float *const *x, const float *factors)
{
    const __m512i in_order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    __m512i codes[4];

    CPU_UNROLL(4)
    for (uint32_t i = 0; i < 4; i++) {
        codes[i] = _mm512_cvtps_epi32(_mm512_mul_ps(
            _mm512_loadu_ps(x[i / 2] + (size_t)i % 2 * LANES), _mm512_set1_ps(factors[i / 2])));
    }
    return _mm512_permutexvar_epi32(in_order,
                                    _mm512_packs_epi16(_mm512_packs_epi32(codes[0], codes[1]),
                                                       _mm512_packs_epi32(codes[2], codes[3])));
}

/* Where blocks of a tile go to: row beside row, block after block. */
struct places {
    int8_t *codes;
    float *scales;
    float *sums;
    int32_t *code_sums;
};

static CPU_EXPAND __m512i quantise_eight(const float *const *x, const float *factors, __m256 scales,
                                         const struct places *to)
{
    /* Element j of lane l is of block 2j + l / 2, half l % 2. */
    const __m512i by_half = _mm512_set_epi32(15, 7, 14, 6, 13, 5, 12, 4, 11, 3, 10, 2, 9, 1, 8, 0);
    __m512i parts[EIGHT / 2], halves;
    __m256i whole;

    CPU_UNROLL(4)
    for (uint32_t j = 0; j < EIGHT / 2; j++) {
        const __m512i two = codes_of_two(x + 2 * (size_t)j, factors + 2 * (size_t)j);

        _mm512_storeu_si512(to->codes + (size_t)2 * j * CPU_BLOCK, two);
        parts[j] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), two);
    }
    halves = _mm512_permutexvar_epi32(by_half, sum_of_four(parts));
    whole = _mm256_add_epi32(_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64(halves, 1));
    _mm256_storeu_ps(to->scales, scales);
    _mm256_storeu_ps(to->sums, _mm256_mul_ps(scales, _mm256_cvtepi32_ps(whole)));
    _mm256_storeu_si256((__m256i *)to->code_sums, _mm256_sub_epi32(_mm256_setzero_si256(), whole));
    return _mm512_sub_epi32(_mm512_setzero_si512(), halves);
}

/* One that is zero, or not finite: all its codes and sums are 0. */
static void quantise_special(const float *x, const struct places *to, uint32_t b)
{
    struct cpu_block_codes codes;

    cpu_quantise_block_scalar(x, &codes);
    _mm256_storeu_si256((__m256i *)(to->codes + (size_t)b * CPU_BLOCK), _mm256_setzero_si256());
    to->scales[b] = codes.scale;
    to->sums[b] = codes.sum;
    to->code_sums[b] = 0;
}

/* Returns minus the sums of their first halves, then of their second ones. */
static __m512i pack_eight(const float *const *x, const struct places *to)
{
    const __m256i largest = largest_of_eight(x);
    const __mmask8 special =
        _mm256_cmpge_epu32_mask(largest, _mm256_set1_epi32(CPU_INFINITY_BITS)) |
        _mm256_cmplt_epu32_mask(largest, _mm256_set1_epi32(QUANTISE_MIN_BITS));
    const __m256 code_max = _mm256_set1_ps(CPU_CODE_MAX);
    /* Of special blocks what comes out is replaced. */
    const __m256 amax =
        _mm256_mask_mov_ps(_mm256_castsi256_ps(largest), special, _mm256_set1_ps(1.0f));
    const __mmask16 kept = (__mmask16) ~(special | special << EIGHT);
    _Alignas(32) float factors[EIGHT];
    __m512i half_sums;

    _mm256_store_ps(factors, _mm256_div_ps(code_max, amax));
    half_sums = quantise_eight(x, factors, _mm256_div_ps(amax, code_max), to);
    for (uint32_t b = 0; special != 0 && b < EIGHT; b++) {
        if ((special >> b & 1) != 0) {
            quantise_special(x[b], to, b);
        }
    }
    return _mm512_maskz_mov_epi32(kept, half_sums);
}

bool avx512_pack_eights(const struct cpu_rows *rows, const struct cpu_tile_part *part)
{
    const uint32_t first = part->tile * rows->tile_rows;
    struct cpu_row_place place;
    uint32_t count;

    cpu_row_place(rows, first, part->col_first, &place);
    count = part->col_count / CPU_BLOCK * place.height;
    if (count < EIGHT) {
        return false;
    }
    for (uint32_t i = 0; i < count; i += EIGHT) {
        /* The last may pack some blocks again. */
        const uint32_t from = i + EIGHT <= count ? i : count - EIGHT;
        const struct places to = {place.codes + (size_t)from * CPU_BLOCK, place.scales + from,
                                  place.sums + from, place.code_sums + from};
        uint32_t block = from / place.height, row = from % place.height;
        int32_t *half_sums[EIGHT];
        _Alignas(64) int32_t sums[2 * EIGHT];
        const float *x[EIGHT];

        for (uint32_t b = 0; b < EIGHT; b++) {
            x[b] = part->x + row * part->stride + (size_t)block * CPU_BLOCK;
            half_sums[b] = place.half_sums + (size_t)2 * block * place.height + row;
            if (++row == place.height) {
                row = 0;
                block++;
            }
        }
        _mm512_store_si512(sums, pack_eight(x, &to));
        for (uint32_t b = 0; rows->with_halves && b < EIGHT; b++) {
            half_sums[b][0] = sums[b];
            half_sums[b][place.height] = sums[EIGHT + b];
        }
    }
    return true;
}
