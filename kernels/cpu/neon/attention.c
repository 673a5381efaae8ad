/* Attention's inner loops with four registers of 4 lanes: a lane a key in QK, a lane a dimension in
 * PV.
 *
 * Both are one small matrix product held in registers: T columns by 16 lanes, each element one
 * chain of fmaf in ascending order, as the scalar table has it. A column may run on to positions
 * that it does not see: their weight is 0 and their V is finite, which leaves the bits alone,
 * because a chain that starts at +0 never holds a -0. BF16 pairs are floats once they are loaded,
 * and differ in the order of their chains.
 */
#include "kernels/cpu/attention_tile.h"

#include "kernels/cpu/cpu.h"
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

/* The even, or the odd numbers of four words of two BF16. */
static CPU_EXPAND float32x4_t even_of(uint32x4_t words)
{
    return vreinterpretq_f32_u32(vshlq_n_u32(words, 16));
}

static CPU_EXPAND float32x4_t odd_of(uint32x4_t words)
{
    return vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xffff0000u)));
}

static CPU_EXPAND uint32x4_t load_words(const uint16_t *pairs)
{
    return vreinterpretq_u32_u16(vld1q_u16(pairs));
}

static void load_pairs(struct attention_chunk *chunk, uint32_t quarter, uint32_t slot_count,
                       const uint16_t *k_page, const uint16_t *v_page)
{
    const uint32_t first = quarter * KV_PAGE_TOKEN_COUNT;

    for (uint32_t d = 0; d < chunk->head_size; d += 2) {
        float *to = chunk->k + (size_t)d * ATTENTION_CHUNK_TOKENS + first;

        for (uint32_t lane = 0; lane < KV_PAGE_TOKEN_COUNT; lane += NEON_LANES) {
            const uint32x4_t words = load_words(k_page + cpu_kv_pairs_k(d, lane));

            vst1q_f32(to + lane, even_of(words));
            vst1q_f32(to + ATTENTION_CHUNK_TOKENS + lane, odd_of(words));
        }
    }
    for (uint32_t slot = 0; slot < slot_count; slot++) {
        float *to = chunk->v + (size_t)(first + slot) * chunk->stride;

        for (uint32_t d = 0; d < chunk->head_size; d += NEON_LANES) {
            const uint32x4_t words =
                load_words(v_page + cpu_kv_pairs_v(chunk->head_size, d, slot / 2 * 2));

            vst1q_f32(to + d, slot % 2 == 0 ? even_of(words) : odd_of(words));
        }
        for (uint32_t d = chunk->head_size; d < chunk->stride; d += NEON_LANES) {
            vst1q_f32(to + d, vdupq_n_f32(0.0f));
        }
    }
}

/* acc[t] += fmaf(a[t][k], b[k]) */
static CPU_EXPAND void add_row(int tile, const float *const *a, const float *b, size_t b_stride,
                               uint32_t k, float32x4_t acc[ATTENTION_TILE_MAX][REGISTERS])
{
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

static CPU_EXPAND void product(bool is_paired, int tile, const float *const *a, const float *b,
                               size_t b_stride, uint32_t n, float *out, size_t out_stride)
{
    const uint32_t whole = is_paired ? n / 2 * 2 : n;
    float32x4_t acc[ATTENTION_TILE_MAX][REGISTERS];

    for (int t = 0; t < tile; t++) {
        for (int i = 0; i < REGISTERS; i++) {
            acc[t][i] = vdupq_n_f32(0.0f);
        }
    }
    for (uint32_t k = 0; k < whole; k += is_paired ? 2 : 1) {
        if (is_paired) {
            add_row(tile, a, b, b_stride, k + 1, acc);
        }
        add_row(tile, a, b, b_stride, k, acc);
    }
    if (whole < n) {
        add_row(tile, a, b, b_stride, whole, acc);
    }
    for (int t = 0; t < tile; t++) {
        for (int i = 0; i < REGISTERS; i++) {
            vst1q_f32(out + (size_t)t * out_stride + (size_t)i * NEON_LANES, acc[t][i]);
        }
    }
}

/* To BF16 and back, of a number that is none but finite. */
static CPU_EXPAND uint32x4_t nearest(uint32x4_t bits)
{
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t up = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fffu)));

    return vandq_u32(up, vdupq_n_u32(0xffff0000u));
}

/* All ones in the lanes of register `index` that the column sees. */
static CPU_EXPAND uint32x4_t seen(uint32_t visible, int index)
{
    static const int32_t lanes[NEON_LANES] = {0, 1, 2, 3};

    return vcgtq_s32(vdupq_n_s32((int32_t)visible - NEON_LANES * index), vld1q_s32(lanes));
}

static CPU_EXPAND void softmax(bool is_paired, float *scores, uint32_t visible, float scale,
                               float *max, float *sum)
{
    const float32x4_t nothing = vdupq_n_f32(-INFINITY);
    float32x4_t largest = nothing;
    float32x4_t lanes[REGISTERS];

    for (int r = 0; r < CHUNK_REGISTERS; r++) {
        const float32x4_t raw = vld1q_f32(scores + (size_t)NEON_LANES * r);
        const float32x4_t scaled = is_paired ? raw : vmulq_n_f32(raw, scale);
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
        const float32x4_t less = vsubq_f32(value, vdupq_n_f32(*max));
        const uint32x4_t weight = vandq_u32(
            vreinterpretq_u32_f32(is_paired ? neon_exp2(less) : neon_exp(less)), seen(visible, r));
        lanes[r % REGISTERS] = vaddq_f32(lanes[r % REGISTERS], vreinterpretq_f32_u32(weight));
        vst1q_f32(scores + (size_t)NEON_LANES * r,
                  vreinterpretq_f32_u32(is_paired ? nearest(weight) : weight));
    }
    *sum = neon_sum(lanes);
}

const struct attention_kernels attention_kernels_neon = {
    .load = load,
    .tile = attention_tile,
    .fold = attention_fold,
    .divide = attention_divide,
};

const struct attention_kernels attention_pairs_neon = {
    .query = attention_query,
    .load = load_pairs,
    .tile = attention_tile_pairs,
    .fold = attention_fold,
    .divide = attention_divide,
};
