/* Attention's inner loops with four registers of 4 lanes: a lane a key in QK, a lane a dimension in
 * PV.
 *
 * Both are one small matrix product held in registers: T columns by 16 lanes, each element one
 * chain of fmaf in ascending order, as the scalar table has it. A column may run on to positions
 * that it does not see: their weight is 0 and their V is finite, which leaves the bits alone,
 * because a chain that starts at +0 never holds a -0.
 */
#include "kernels/cpu/attention_tile.h"

#include "kernels/cpu/neon/math.h"

enum {
    REGISTERS = ATTENTION_LANES / NEON_LANES,
    CHUNK_REGISTERS = ATTENTION_CHUNK_TOKENS / NEON_LANES,
};

static void load(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                 const uint16_t *k_page, const uint16_t *v_page)
{
    const uint32_t first = quarter * KV_PAGE_TOKEN_COUNT;

    for (uint32_t d = 0; d < chunk->head_size; d++) {
        for (uint32_t lane = 0; lane < KV_PAGE_TOKEN_COUNT; lane += NEON_LANES) {
            vst1q_f32(chunk->k + (size_t)d * ATTENTION_CHUNK_TOKENS + first + lane,
                      neon_halves(k_page + (size_t)d * KV_PAGE_TOKEN_COUNT + lane));
        }
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        const uint16_t *from = v_page + (size_t)slot * chunk->head_size;
        float *to = chunk->v + (size_t)(first + slot) * chunk->stride;
        for (uint32_t d = 0; d < chunk->head_size; d += NEON_LANES) {
            vst1q_f32(to + d, neon_halves(from + d));
        }
        for (uint32_t d = chunk->head_size; d < chunk->stride; d += NEON_LANES) {
            vst1q_f32(to + d, vdupq_n_f32(0.0f));
        }
    }
}

static CPU_EXPAND void product(int tile, const float *const *a, const float *b, size_t b_stride,
                               uint32_t n, float *out, size_t out_stride)
{
    float32x4_t acc[ATTENTION_TILE_MAX][REGISTERS];

    for (int t = 0; t < tile; t++) {
        for (int i = 0; i < REGISTERS; i++) {
            acc[t][i] = vdupq_n_f32(0.0f);
        }
    }
    for (uint32_t k = 0; k < n; k++) {
        float32x4_t row[REGISTERS];
        for (int i = 0; i < REGISTERS; i++) {
            row[i] = vld1q_f32(b + k * b_stride + (size_t)i * NEON_LANES);
        }
        for (int t = 0; t < tile; t++) {
            const float32x4_t factor = vdupq_n_f32(a[t][k]);
            for (int i = 0; i < REGISTERS; i++) {
                acc[t][i] = neon_fma(factor, row[i], acc[t][i]);
            }
        }
    }
    for (int t = 0; t < tile; t++) {
        for (int i = 0; i < REGISTERS; i++) {
            vst1q_f32(out + (size_t)t * out_stride + (size_t)i * NEON_LANES, acc[t][i]);
        }
    }
}

/* All ones in the lanes of register `index` that the column sees. */
static CPU_EXPAND uint32x4_t seen(uint32_t visible, int index)
{
    static const int32_t lanes[NEON_LANES] = {0, 1, 2, 3};

    return vcgtq_s32(vdupq_n_s32((int32_t)visible - NEON_LANES * index), vld1q_s32(lanes));
}

static CPU_EXPAND void softmax(float *scores, uint32_t visible, float scale, float *max, float *sum)
{
    const float32x4_t nothing = vdupq_n_f32(-INFINITY);
    float32x4_t largest = nothing;
    float32x4_t lanes[REGISTERS];

    for (int r = 0; r < CHUNK_REGISTERS; r++) {
        const float32x4_t scaled = vmulq_n_f32(vld1q_f32(scores + (size_t)NEON_LANES * r), scale);
        const float32x4_t value = vbslq_f32(seen(visible, r), scaled, nothing);
        largest = neon_larger(value, largest);
        vst1q_f32(scores + (size_t)NEON_LANES * r, value);
    }
    *max = neon_max(largest);
    for (int i = 0; i < REGISTERS; i++) {
        lanes[i] = vdupq_n_f32(0.0f);
    }
    for (int r = 0; r < CHUNK_REGISTERS; r++) {
        const float32x4_t value = vld1q_f32(scores + (size_t)NEON_LANES * r);
        const uint32x4_t weight = vandq_u32(
            vreinterpretq_u32_f32(neon_exp(vsubq_f32(value, vdupq_n_f32(*max)))), seen(visible, r));
        lanes[r % REGISTERS] = vaddq_f32(lanes[r % REGISTERS], vreinterpretq_f32_u32(weight));
        vst1q_f32(scores + (size_t)NEON_LANES * r, vreinterpretq_f32_u32(weight));
    }
    *sum = neon_sum(lanes);
}

const struct attention_kernels attention_kernels_neon = {
    .load = load,
    .tile = attention_tile,
    .fold = attention_fold,
    .divide = attention_divide,
};
