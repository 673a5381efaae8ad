/* steps_exp and steps_exp2 over 4 lanes, and fixed-order reductions: the same bits as the scalar C.
 *
 * Thread: any; pure functions. Only for ARM's 64-bit processors, all of which have NEON with fused
 * multiply-add and conversion from half precision. Sixteen virtual lanes are four registers.
 */
#ifndef PERSONAD_KERNELS_CPU_NEON_MATH_H
#define PERSONAD_KERNELS_CPU_NEON_MATH_H

#include <arm_neon.h>

#include "kernels/steps/math.h"

enum { NEON_LANES = 4 };

/* a * b + c, rounded once. The intrinsic has the sum in front. */
static inline float32x4_t neon_fma(float32x4_t a, float32x4_t b, float32x4_t c)
{
    return vfmaq_f32(c, a, b);
}

/* steps_exp of each lane. */
static inline float32x4_t neon_exp(float32x4_t x)
{
    const float32x4_t round = vdupq_n_f32(STEPS_EXP_ROUND);
    const uint32x4_t above = vcgeq_f32(x, vdupq_n_f32(STEPS_EXP_LOW));
    const uint32x4_t huge = vcgtq_f32(x, vdupq_n_f32(STEPS_EXP_HIGH));
    const float32x4_t shifted = neon_fma(x, vdupq_n_f32(STEPS_EXP_LOG2E), round);
    const float32x4_t n = vsubq_f32(shifted, round);
    float32x4_t r = neon_fma(n, vdupq_n_f32(-STEPS_EXP_LN2_HIGH), x);
    r = neon_fma(n, vdupq_n_f32(-STEPS_EXP_LN2_LOW), r);
    float32x4_t q = neon_fma(vdupq_n_f32(STEPS_EXP_C6), r, vdupq_n_f32(STEPS_EXP_C5));
    q = neon_fma(q, r, vdupq_n_f32(STEPS_EXP_C4));
    q = neon_fma(q, r, vdupq_n_f32(STEPS_EXP_C3));
    q = neon_fma(q, r, vdupq_n_f32(STEPS_EXP_C2));
    q = neon_fma(q, r, vdupq_n_f32(1.0f));
    const float32x4_t p = neon_fma(q, r, vdupq_n_f32(1.0f));
    const uint32x4_t scaled =
        vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23));
    const float32x4_t value = vreinterpretq_f32_u32(vandq_u32(above, scaled));
    return vbslq_f32(huge, vdupq_n_f32(INFINITY), value);
}

/* steps_exp2 of each lane. */
static inline float32x4_t neon_exp2(float32x4_t x)
{
    const float32x4_t round = vdupq_n_f32(STEPS_EXP_ROUND);
    const uint32x4_t above = vcgeq_f32(x, vdupq_n_f32(STEPS_EXP2_LOW));
    const float32x4_t shifted = vaddq_f32(x, round);
    const float32x4_t r = vsubq_f32(x, vsubq_f32(shifted, round));
    float32x4_t q = neon_fma(vdupq_n_f32(STEPS_EXP2_C5), r, vdupq_n_f32(STEPS_EXP2_C4));
    q = neon_fma(q, r, vdupq_n_f32(STEPS_EXP2_C3));
    q = neon_fma(q, r, vdupq_n_f32(STEPS_EXP2_C2));
    q = neon_fma(q, r, vdupq_n_f32(STEPS_EXP2_C1));
    const float32x4_t p = neon_fma(q, r, vdupq_n_f32(1.0f));
    const uint32x4_t scaled =
        vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(shifted), 23));
    return vreinterpretq_f32_u32(vandq_u32(above, scaled));
}

/* Lanes i and i + 8, then i + 4, i + 2, i + 1: the one tree of all sums over 16 lanes. */
static inline float neon_sum(const float32x4_t lanes[4])
{
    const float32x4_t four =
        vaddq_f32(vaddq_f32(lanes[0], lanes[2]), vaddq_f32(lanes[1], lanes[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* value where it is above `largest`, else that: what is not a number never comes through. */
static inline float32x4_t neon_larger(float32x4_t value, float32x4_t largest)
{
    return vbslq_f32(vcgtq_f32(value, largest), value, largest);
}

/* Lanes are numbers. */
static inline float neon_max(float32x4_t lanes)
{
    return vmaxvq_f32(lanes);
}

static inline float32x4_t neon_halves(const uint16_t *halves)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(halves)));
}

#endif
