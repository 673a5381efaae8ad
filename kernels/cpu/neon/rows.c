/* Norm, packing, activation and rotation by NEON; ../rows_scalar.c defines the bits. What does not
 * fill a register goes through the scalar form.
 */
#include <math.h>

#include "kernels/cpu/neon/math.h"
#include "kernels/cpu/neon/matmul.h"
#include "kernels/cpu/rows_scalar.h"

enum { SUM_LANES = 16, BLOCK_REGISTERS = CPU_BLOCK / NEON_LANES };

void neon_rms_norm(const float *x, const float *norm, float epsilon, uint32_t cols, float *out)
{
    float32x4_t squares[4];
    float32x4_t inverse;

    if (cols % SUM_LANES != 0) {
        cpu_rms_norm_scalar(x, norm, epsilon, cols, out);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        squares[i] = vdupq_n_f32(0.0f);
    }
    for (uint32_t c = 0; c < cols; c += SUM_LANES) {
        for (uint32_t i = 0; i < 4; i++) {
            const float32x4_t value = vld1q_f32(x + c + (size_t)i * NEON_LANES);

            squares[i] = neon_fma(value, value, squares[i]);
        }
    }
    inverse = vdupq_n_f32(1.0f / sqrtf(neon_sum(squares) / (float)cols + epsilon));
    for (uint32_t c = 0; c < cols; c += NEON_LANES) {
        vst1q_f32(out + c, vmulq_f32(vmulq_f32(vld1q_f32(x + c), inverse), vld1q_f32(norm + c)));
    }
}

/* The values of a block; answers the bits of its largest magnitude. */
static uint32_t load_block(const float *x, float32x4_t values[BLOCK_REGISTERS])
{
    uint32x4_t largest = vdupq_n_u32(0);

    for (uint32_t i = 0; i < BLOCK_REGISTERS; i++) {
        values[i] = vld1q_f32(x + (size_t)i * NEON_LANES);
        largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(values[i])));
    }
    return vmaxvq_u32(largest);
}

/* Sixteen codes from four registers of integers in [-127, 127]. */
static int8x16_t narrow(const int32x4_t codes[4])
{
    const int16x8_t low = vcombine_s16(vmovn_s32(codes[0]), vmovn_s32(codes[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(codes[2]), vmovn_s32(codes[3]));

    return vcombine_s8(vmovn_s16(low), vmovn_s16(high));
}

static void store_codes(const int32x4_t codes[BLOCK_REGISTERS], int8_t *to)
{
    vst1q_s8(to, narrow(codes));
    vst1q_s8(to + CPU_BLOCK / 2, narrow(codes + BLOCK_REGISTERS / 2));
}

static int32_t sum_of(const int32x4_t codes[4])
{
    return vaddvq_s32(vaddq_s32(vaddq_s32(codes[0], codes[1]), vaddq_s32(codes[2], codes[3])));
}

static void set_sums(const int32x4_t codes[BLOCK_REGISTERS], struct cpu_block_codes *out)
{
    const int32_t first = sum_of(codes);
    const int32_t second = sum_of(codes + BLOCK_REGISTERS / 2);

    out->sum = out->scale * (float)(first + second);
    out->half_sums[0] = -first;
    out->half_sums[1] = -second;
}

static void quantise_block(const float *x, struct cpu_block_codes *out)
{
    float32x4_t values[BLOCK_REGISTERS];
    int32x4_t codes[BLOCK_REGISTERS];
    const uint32_t bits = load_block(x, values);
    const float amax = steps_float_from_bits(bits);

    if (bits >= CPU_INFINITY_BITS || amax < CPU_QUANTISE_MIN) {
        cpu_quantise_block_scalar(x, out);
        return;
    }
    for (uint32_t i = 0; i < BLOCK_REGISTERS; i++) {
        codes[i] = vcvtnq_s32_f32(vmulq_n_f32(values[i], (float)CPU_CODE_MAX / amax));
    }
    out->scale = amax / (float)CPU_CODE_MAX;
    store_codes(codes, out->codes);
    set_sums(codes, out);
}

static void quantise_precise(const float *x, struct cpu_block_codes *out)
{
    float32x4_t values[BLOCK_REGISTERS];
    int32x4_t codes[BLOCK_REGISTERS], high[BLOCK_REGISTERS], low[BLOCK_REGISTERS];
    const uint32_t bits = load_block(x, values);
    const float amax = steps_float_from_bits(bits);

    if (bits >= CPU_INFINITY_BITS || amax < CPU_QUANTISE_MIN) {
        cpu_quantise_precise_scalar(x, out);
        return;
    }
    for (uint32_t i = 0; i < BLOCK_REGISTERS; i++) {
        codes[i] = vcvtnq_s32_f32(vmulq_n_f32(values[i], (float)CPU_PRECISE_CODE_MAX / amax));
        /* No code lies near the middle between two multiples of 255: any rounding is right. */
        high[i] = vcvtnq_s32_f32(vmulq_n_f32(vcvtq_f32_s32(codes[i]), 1.0f / CPU_CODE_RADIX));
        low[i] = vmlsq_n_s32(codes[i], high[i], CPU_CODE_RADIX);
    }
    out->scale = amax / (float)CPU_PRECISE_CODE_MAX;
    store_codes(high, out->codes);
    store_codes(low, out->low_codes);
    set_sums(codes, out);
}

void neon_pack(struct cpu_rows *rows, const struct cpu_tile_part *part)
{
    cpu_pack(rows, part, quantise_block, quantise_precise);
}

void neon_silu_multiply(float *gate, const float *up, uint32_t count)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    const uint32_t whole = count / NEON_LANES * NEON_LANES;

    for (uint32_t i = 0; i < whole; i += NEON_LANES) {
        const float32x4_t z = vld1q_f32(gate + i);
        const float32x4_t e = neon_exp(vnegq_f32(vabsq_f32(z)));
        const float32x4_t top = vbslq_f32(vcgezq_f32(z), z, vmulq_f32(z, e));
        const float32x4_t silu = vdivq_f32(top, vaddq_f32(one, e));

        vst1q_f32(gate + i, vmulq_f32(silu, vld1q_f32(up + i)));
    }
    cpu_silu_multiply_scalar(gate + whole, up + whole, count - whole);
}

void neon_rotate(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                 enum rope_style style)
{
    const uint32_t whole = pair_count / NEON_LANES * NEON_LANES;

    if (style == ROPE_ADJACENT) {
        for (uint32_t i = 0; i < whole; i += NEON_LANES) {
            const float32x4x2_t pair = vld2q_f32(head + (size_t)2 * i);
            const float32x4_t cosine = vld1q_f32(cosines + i);
            const float32x4_t sine = vld1q_f32(sines + i);
            const float32x4x2_t turned = {
                {neon_fma(pair.val[0], cosine, vnegq_f32(vmulq_f32(pair.val[1], sine))),
                 neon_fma(pair.val[0], sine, vmulq_f32(pair.val[1], cosine))}};

            vst2q_f32(head + (size_t)2 * i, turned);
        }
        cpu_rotate_scalar(head + (size_t)2 * whole, cosines + whole, sines + whole,
                          pair_count - whole, style);
        return;
    }
    if (whole != pair_count) {
        cpu_rotate_scalar(head, cosines, sines, pair_count, style);
        return;
    }
    for (uint32_t i = 0; i < pair_count; i += NEON_LANES) {
        const float32x4_t a = vld1q_f32(head + i);
        const float32x4_t b = vld1q_f32(head + pair_count + i);
        const float32x4_t cosine = vld1q_f32(cosines + i);
        const float32x4_t sine = vld1q_f32(sines + i);

        vst1q_f32(head + i, neon_fma(a, cosine, vnegq_f32(vmulq_f32(b, sine))));
        vst1q_f32(head + pair_count + i, neon_fma(a, sine, vmulq_f32(b, cosine)));
    }
}

bool neon_round_to_half(const float *x, uint32_t count, uint16_t *out)
{
    const float32x4_t most = vdupq_n_f32(STEPS_HALF_MAX);
    const float32x4_t least = vdupq_n_f32(-STEPS_HALF_MAX);
    const uint32_t whole = count / NEON_LANES * NEON_LANES;
    uint32x4_t all_numbers = vdupq_n_u32(UINT32_MAX);

    for (uint32_t i = 0; i < whole; i += NEON_LANES) {
        const float32x4_t value = vld1q_f32(x + i);
        const uint32x4_t is_number = vceqq_f32(value, value);
        const float32x4_t kept = vminq_f32(vmaxq_f32(value, least), most);
        const uint32x4_t bits = vandq_u32(vreinterpretq_u32_f32(kept), is_number);

        vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vreinterpretq_f32_u32(bits))));
        all_numbers = vandq_u32(all_numbers, is_number);
    }
    return cpu_round_to_half_scalar(x + whole, count - whole, out + whole) ||
           vminvq_u32(all_numbers) == 0;
}

bool neon_round_to_bf16(const float *x, uint32_t count, uint16_t *out)
{
    return cpu_round_to_bf16(x, count, out);
}
