/* Attention's inner loops, scalar: what defines the bits of every table (attention.h). */
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"

static void scalar_load(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                        const uint16_t *k_page, const uint16_t *v_page)
{
    const uint32_t first = quarter * KV_PAGE_TOKEN_COUNT;

    for (uint32_t d = 0; d < chunk->head_size; d++) {
        for (uint32_t slot = 0; slot < KV_PAGE_TOKEN_COUNT; slot++) {
            chunk->k[d * ATTENTION_CHUNK_TOKENS + first + slot] =
                steps_float_from_half(k_page[d * KV_PAGE_TOKEN_COUNT + slot]);
        }
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        float *v = chunk->v + (size_t)(first + slot) * chunk->stride;
        for (uint32_t d = 0; d < chunk->stride; d++) {
            v[d] = d < chunk->head_size ? steps_float_from_half(v_page[slot * chunk->head_size + d])
                                        : 0.0f;
        }
    }
}

static void pairs_load(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                       const uint16_t *k_page, const uint16_t *v_page)
{
    const uint32_t first = quarter * KV_PAGE_TOKEN_COUNT;
    const uint32_t size = chunk->head_size;

    for (uint32_t d = 0; d < size; d++) {
        for (uint32_t slot = 0; slot < KV_PAGE_TOKEN_COUNT; slot++) {
            chunk->k[d * ATTENTION_CHUNK_TOKENS + first + slot] =
                steps_float_from_bf16(k_page[cpu_kv_pairs_k(d, slot)]);
        }
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        float *v = chunk->v + (size_t)(first + slot) * chunk->stride;
        for (uint32_t d = 0; d < chunk->stride; d++) {
            v[d] = d < size ? steps_float_from_bf16(v_page[cpu_kv_pairs_v(size, d, slot)]) : 0.0f;
        }
    }
}

static float lane_tree(float *lanes)
{
    for (uint32_t width = ATTENTION_LANES / 2; width > 0; width /= 2) {
        for (uint32_t i = 0; i < width; i++) {
            lanes[i] = lanes[i] + lanes[i + width];
        }
    }
    return lanes[0];
}

/* Scores to weights; the largest score and the sum of the weights. */
static void scalar_softmax(bool is_paired, float *scores, uint32_t visible, float *max, float *sum)
{
    float lanes[ATTENTION_LANES] = {0};
    float largest = -INFINITY;

    for (uint32_t j = 0; j < visible; j++) {
        largest = scores[j] > largest ? scores[j] : largest;
    }
    for (uint32_t j = 0; j < visible; j++) {
        const float less = scores[j] - largest;
        const float weight = is_paired ? steps_exp2(less) : steps_exp(less);

        lanes[j % ATTENTION_LANES] = lanes[j % ATTENTION_LANES] + weight;
        scores[j] = is_paired ? attention_bf16(weight) : weight;
    }
    *max = largest;
    *sum = lane_tree(lanes);
}

/* out[c] = chain over i < n of fmaf(a[i], b[i][c]) from 0; of pairs the odd one first. */
static void chains(bool is_paired, const float *a, const float *b, size_t b_stride, uint32_t n,
                   float *out, uint32_t count)
{
    const uint32_t run = is_paired ? 2 : 1;

    for (uint32_t c = 0; c < count; c++) {
        out[c] = 0.0f;
    }
    for (uint32_t begin = 0; begin < n; begin += run) {
        for (uint32_t i = begin + run < n ? begin + run : n; i-- > begin;) {
            for (uint32_t c = 0; c < count; c++) {
                out[c] = fmaf(a[i], b[i * b_stride + c], out[c]);
            }
        }
    }
}

static void scalar_column(const struct attention_chunk *chunk,
                          const struct attention_column *column)
{
    float *scores = chunk->scores;
    float *product = chunk->products;
    float max, sum;

    chains(chunk->is_paired, column->q, chunk->k, ATTENTION_CHUNK_TOKENS, chunk->head_size, scores,
           column->visible);
    for (uint32_t j = 0; j < column->visible && !chunk->is_paired; j++) {
        scores[j] = scores[j] * chunk->scale;
    }
    scalar_softmax(chunk->is_paired, scores, column->visible, &max, &sum);
    chains(chunk->is_paired, scores, chunk->v, chunk->stride, column->visible, product,
           chunk->stride);
    attention_accept(chunk, column, max, sum, product);
}

static void scalar_tile(const struct attention_chunk *chunk, const struct attention_column *columns,
                        uint32_t column_count)
{
    for (uint32_t i = 0; i < column_count; i++) {
        scalar_column(chunk, &columns[i]);
    }
}

const struct attention_kernels attention_kernels_scalar = {
    .load = scalar_load,
    .tile = scalar_tile,
    .fold = attention_fold,
    .divide = attention_divide,
};

const struct attention_kernels attention_pairs_scalar = {
    .query = attention_query,
    .load = pairs_load,
    .tile = scalar_tile,
    .fold = attention_fold,
    .divide = attention_divide,
};
