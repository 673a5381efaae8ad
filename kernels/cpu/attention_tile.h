/* A tile of attention (struct attention_kernels) from two inner loops. Thread: any, as attention.h.
 *
 * Included once by each of {avx2,neon}/attention.c, which define product and softmax. avx512 folds
 * products while they are in registers, and so has a walk of its own.
 */
#ifndef PERSONAD_KERNELS_CPU_ATTENTION_TILE_H
#define PERSONAD_KERNELS_CPU_ATTENTION_TILE_H

#include "kernels/cpu/attention.h"
#include "kernels/cpu/expand.h"

/* out[t][lane] = chain over i < n of fmaf(a[t][i], b[i][lane]) from 0, over 16 lanes; paired: of
 * each two i the odd one first */
static CPU_EXPAND void product(bool is_paired, int tile, const float *const *a, const float *b,
                               size_t b_stride, uint32_t n, float *out, size_t out_stride);

/* Scores to weights in place, 0 where the column does not see; paired: rounded to BF16. */
static CPU_EXPAND void softmax(bool is_paired, float *scores, uint32_t visible, float scale,
                               float *max, float *sum);

static CPU_EXPAND void tile_of(int tile, bool is_paired, const struct attention_chunk *chunk,
                               const struct attention_column *columns)
{
    const float *a[ATTENTION_TILE_MAX];
    float max[ATTENTION_TILE_MAX], sum[ATTENTION_TILE_MAX];
    uint32_t visible_max = 0;

    for (int t = 0; t < tile; t++) {
        a[t] = columns[t].q;
        visible_max = columns[t].visible > visible_max ? columns[t].visible : visible_max;
    }
    for (uint32_t j = 0; j < visible_max; j += ATTENTION_LANES) {
        product(is_paired, tile, a, chunk->k + j, ATTENTION_CHUNK_TOKENS, chunk->head_size,
                chunk->scores + j, ATTENTION_CHUNK_TOKENS);
    }
    for (int t = 0; t < tile; t++) {
        a[t] = chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS;
        softmax(is_paired, chunk->scores + (size_t)t * ATTENTION_CHUNK_TOKENS, columns[t].visible,
                chunk->scale, &max[t], &sum[t]);
    }
    for (uint32_t d = 0; d < chunk->stride; d += ATTENTION_LANES) {
        product(is_paired, tile, a, chunk->v + d, chunk->stride, visible_max, chunk->products + d,
                chunk->stride);
    }
    for (int t = 0; t < tile; t++) {
        attention_accept(chunk, &columns[t], max[t], sum[t],
                         chunk->products + (size_t)t * chunk->stride);
    }
}

static void attention_tile(const struct attention_chunk *chunk,
                           const struct attention_column *columns, uint32_t column_count)
{
    ATTENTION_EXPAND(tile_of, column_count, false, chunk, columns)
}

static void attention_tile_pairs(const struct attention_chunk *chunk,
                                 const struct attention_column *columns, uint32_t column_count)
{
    ATTENTION_EXPAND(tile_of, column_count, true, chunk, columns)
}

#endif
