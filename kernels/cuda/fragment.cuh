/* Stored weights as the A operand of tensor-core steps, in few instructions.
 *
 * Thread: a warp, by lanes; no state. Everything up to the last rounding is exact or rounded as
 * kernels/dtype.c rounds it, so a weight is what cuda_weight_value gives, rounded once to bf16; an
 * F16 is itself.
 *
 * A code becomes a float by setting it into the mantissa of 128 or of 32768, one byte permutation,
 * and the bias leaves in the multiplication: scale * (128 + code) - scale * 128 is exact in an fmaf
 * whenever scale * 128 and the result are, and the scales have at most 18 bits.
 */
#ifndef PERSONAD_KERNELS_CUDA_FRAGMENT_CUH
#define PERSONAD_KERNELS_CUDA_FRAGMENT_CUH

#include "kernels/cuda/weight.cuh"

struct alignas(16) cuda_words {
    uint32_t at[4];
};

/* A lane's scales of one step: of its row, and of that 8 further on; and what they make of the
 * bias. */
struct cuda_lane_scale {
    float scale[2];
    float offset[2];
    float minimum[2];
};

/* What the bias and the zero point of a code come to: value = scale * (bias + code) + offset. */
template <uint32_t FORMAT> DEVICE_INLINE float cuda_code_bias(void)
{
    return FORMAT == CUDA_Q8_0   ? 32768.0f + 128.0f
           : FORMAT == CUDA_Q4_0 ? 128.0f + 8.0f
           : FORMAT == CUDA_Q6_K ? 128.0f + 32.0f
                                 : 128.0f;
}

template <uint32_t FORMAT>
DEVICE_INLINE struct cuda_lane_scale cuda_lane_scales(const uint8_t *scales, const uint8_t *super,
                                                      uint32_t step, uint32_t group)
{
    struct cuda_lane_scale lane = {};

    PRIM_UNROLL
    for (uint32_t high = 0; high < 2; high++) {
        const struct cuda_scale scale = cuda_weight_scale<FORMAT>(scales, super, step, group, high);

        lane.scale[high] = scale.scale;
        lane.offset[high] = -(scale.scale * cuda_code_bias<FORMAT>());
        lane.minimum[high] = FORMAT == CUDA_Q4_1 ? scale.minimum : -scale.minimum;
    }
    return lane;
}

/* The value of the code in byte `byte` of `word`, for the lane's row `high`. */
template <uint32_t FORMAT>
DEVICE_INLINE float cuda_code_value(uint32_t word, uint32_t byte, uint32_t high,
                                    const struct cuda_lane_scale &lane)
{
    float value;

    if (FORMAT == CUDA_FP8) {
        const int32_t top = (int32_t)prim_permute(word, 0, byte << 12 | 0x444u);

        return steps_float_from_bits((uint32_t)(top >> 4) & 0x87f00000u) * lane.scale[high];
    }
    value = FORMAT == CUDA_Q8_0
                ? steps_float_from_bits(prim_permute(word, 0x47000000u, 0x7404u | byte << 4))
                : steps_float_from_bits(prim_permute(word, 0x43000000u, 0x7044u | byte << 8));
    value = fmaf(lane.scale[high], value, lane.offset[high]);
    if (FORMAT == CUDA_Q4_1 || FORMAT == CUDA_Q4_K || FORMAT == CUDA_Q5_K) {
        value += lane.minimum[high];
    }
    return value;
}

/* The A operand of step `step` of a unit out of `words`, the load that holds it. */
template <uint32_t FORMAT>
DEVICE_INLINE void cuda_fragment(const struct cuda_words &words, uint32_t step,
                                 const struct cuda_lane_scale &lane, uint32_t a[4])
{
    const bool nibbles = FORMAT == CUDA_Q4_0 || FORMAT == CUDA_Q4_1 || FORMAT == CUDA_Q4_K;
    const uint32_t low = words.at[step] & 0x0f0f0f0fu, high = words.at[step] >> 4 & 0x0f0f0f0fu;

    PRIM_UNROLL
    for (uint32_t i = 0; i < 4; i++) {
        if (FORMAT == CUDA_BF16 || FORMAT == CUDA_F16) {
            a[i] = words.at[i];
        } else if (FORMAT == CUDA_F16_ROUNDED) {
            a[i] = prim_pack_bf16(cuda_half(words.at[i] & 0xffffu), cuda_half(words.at[i] >> 16));
        } else if (nibbles) {
            a[i] = prim_pack_bf16(cuda_code_value<FORMAT>(low, i, i % 2, lane),
                                  cuda_code_value<FORMAT>(high, i, i % 2, lane));
        } else {
            const uint32_t word = words.at[step % 2 * 2 + i / 2];

            a[i] = prim_pack_bf16(cuda_code_value<FORMAT>(word, i % 2 * 2, i % 2, lane),
                                  cuda_code_value<FORMAT>(word, i % 2 * 2 + 1, i % 2, lane));
        }
    }
}

#endif
