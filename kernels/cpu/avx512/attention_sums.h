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

#endif
