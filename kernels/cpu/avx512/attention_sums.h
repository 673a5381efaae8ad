/* What all AVX-512 tables of attention do with a tile's sums. Thread: any, as attention.h.
 *
 * A tile is a few columns by up to four vectors, all of it in registers.
 */
#ifndef PERSONAD_KERNELS_CPU_AVX512_ATTENTION_SUMS_H
#define PERSONAD_KERNELS_CPU_AVX512_ATTENTION_SUMS_H

#include <immintrin.h>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/avx512/math.h"
#include "kernels/cpu/expand.h"

enum { VECTOR_MAX = ATTENTION_CHUNK_TOKENS / 16 };

static CPU_EXPAND void store_scores(int tile, const struct attention_chunk *chunk,
                                    __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX])
{
    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        CPU_UNROLL(4)
        for (int v = 0; v < VECTOR_MAX; v++) {
            _mm512_store_ps(chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS + 16 * (size_t)v,
                            sums[t][v]);
        }
    }
}

/* What a tile's columns and the chunk are to be multiplied by: attention_factors of each column. */
struct factors {
    float old[16], more[16];
};

static CPU_EXPAND void take_factors(int tile, bool is_paired, const struct attention_chunk *chunk,
                                    const struct attention_column *columns, const float *max,
                                    const float *sum, struct factors *out)
{
    float old_max[16] = {0}, old_sum[16] = {0};

    if (chunk->first) {
        CPU_UNROLL(6)
        for (int t = 0; t < tile; t++) {
            *columns[t].max = max[t];
            *columns[t].sum = sum[t];
        }
        return;
    }
    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        old_max[t] = *columns[t].max;
        old_sum[t] = *columns[t].sum;
    }
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 before = _mm512_loadu_ps(old_max);
    const __m512 now = _mm512_loadu_ps(max);
    const __mmask16 above = _mm512_cmp_ps_mask(now, before, _CMP_GT_OQ);
    const __m512 less = _mm512_mask_sub_ps(_mm512_sub_ps(now, before), above, before, now);
    const __m512 weight = is_paired ? avx512_exp2(less) : avx512_exp(less);
    const __m512 old = _mm512_mask_mov_ps(one, above, weight);
    const __m512 more = _mm512_mask_mov_ps(weight, above, one);
    const __m512 total =
        _mm512_fmadd_ps(_mm512_loadu_ps(old_sum), old, _mm512_mul_ps(_mm512_loadu_ps(sum), more));

    _mm512_storeu_ps(out->old, old);
    _mm512_storeu_ps(out->more, more);
    _mm512_storeu_ps(old_max, _mm512_mask_mov_ps(before, above, now));
    _mm512_storeu_ps(old_sum, total);
    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        *columns[t].max = old_max[t];
        *columns[t].sum = old_sum[t];
    }
}

/* The chunk's part of dimensions d to d + 16 vectors, into the columns' partials. */
static CPU_EXPAND void accept(int tile, int vectors, const struct attention_chunk *chunk,
                              const struct attention_column *columns, const struct factors *factors,
                              uint32_t d, __m512 sums[ATTENTION_TILE_MAX][VECTOR_MAX])
{
    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        float *acc = columns[t].acc + d;

        CPU_UNROLL(4)
        for (int v = 0; v < vectors; v++) {
            __m512 value = sums[t][v];

            if (!chunk->first) {
                value = _mm512_fmadd_ps(_mm512_load_ps(acc + 16 * (size_t)v),
                                        _mm512_set1_ps(factors->old[t]),
                                        _mm512_mul_ps(value, _mm512_set1_ps(factors->more[t])));
            }
            _mm512_store_ps(acc + 16 * (size_t)v, value);
        }
    }
}

static CPU_EXPAND uint32_t most_visible(int tile, const struct attention_column *columns)
{
    uint32_t most = 0;

    CPU_UNROLL(6)
    for (int t = 0; t < tile; t++) {
        most = columns[t].visible > most ? columns[t].visible : most;
    }
    return most;
}

static CPU_EXPAND __m512 larger_or_sum(bool is_max, __m512 a, __m512 b)
{
    return is_max ? _mm512_max_ps(a, b) : _mm512_add_ps(a, b);
}

/* Lane t: the largest, or the sum, of the lanes of parts[t], for all columns of a tile at once.
 * Sums take lanes i and i + 8, then i + 4, i + 2, i + 1, as avx512_sum does. */
static CPU_EXPAND __m512 fold_lanes(int tile, bool is_max, const __m512 parts[ATTENTION_TILE_MAX])
{
    const __m512i by_column =
        _mm512_set_epi32(15, 14, 13, 11, 10, 9, 7, 6, 3, 2, 5, 1, 12, 8, 4, 0);
    __m512 two[3], four[2], eight;

    CPU_UNROLL(3)
    for (int i = 0; i < 3; i++) {
        const __m512 a = parts[2 * i < tile ? 2 * i : 0];
        const __m512 b = parts[2 * i + 1 < tile ? 2 * i + 1 : 0];

        two[i] = larger_or_sum(is_max, _mm512_shuffle_f32x4(a, b, 0x44),
                               _mm512_shuffle_f32x4(a, b, 0xee));
    }
    four[0] = larger_or_sum(is_max, _mm512_shuffle_f32x4(two[0], two[1], 0x88),
                            _mm512_shuffle_f32x4(two[0], two[1], 0xdd));
    four[1] = larger_or_sum(is_max, _mm512_shuffle_f32x4(two[2], two[2], 0x88),
                            _mm512_shuffle_f32x4(two[2], two[2], 0xdd));
    eight = larger_or_sum(is_max, _mm512_shuffle_ps(four[0], four[1], 0x44),
                          _mm512_shuffle_ps(four[0], four[1], 0xee));
    /* In blocks of four lanes: columns 0 and 4, 1 and 5, 2 and 4, 3 and 5. */
    return _mm512_permutexvar_ps(by_column,
                                 larger_or_sum(is_max, _mm512_shuffle_ps(eight, eight, 0x88),
                                               _mm512_shuffle_ps(eight, eight, 0xdd)));
}

#endif
