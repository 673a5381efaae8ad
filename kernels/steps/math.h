/* The project's own exp, log, sine, cosine and number formats: same bits on every machine.
 *
 * Reads as C11 and as CUDA C++. Thread: any; pure functions. Only +, -, *, /, comparisons, integer
 * operations and the fused multiply-adds that are spelled out here are on the way of a value, each
 * of them exactly rounded, so that a compiler that fuses or reorders nothing (-ffp-contract=off,
 * -fmad=false) has no choice. The vector twins in kernels/cpu/avx2/math.h and avx512/math.h use the
 * constants below in the same order.
 *
 *   function           argument            error against the true value
 *   steps_exp          any float           at most 1 ulp; 0 below 2^-60, never a denormal
 *   steps_exp2         float <= 0          at most 3 ulp; 0 below 2^-56
 *   steps_log          normal double > 0   at most 2 ulp, absolute 2^-52 close to 1
 *   steps_sincos       |angle| <= 2^20     at most 1 ulp of a float
 */
#ifndef PERSONAD_KERNELS_STEPS_MATH_H
#define PERSONAD_KERNELS_STEPS_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define STEPS_FUNCTION static __host__ __device__ __forceinline__
#else
#define STEPS_FUNCTION static inline
#endif

/* exp(x) = 2^n exp(r), r = x - n log(2), |r| <= log(2) / 2:  1 + r + r^2 (C2 + C3 r + ... C6 r^4).
 */
#define STEPS_EXP_LOW (-41.5888290f) /* the smallest argument that does not give 0 */
#define STEPS_EXP_HIGH 88.7228317f   /* the largest that does not give infinity */
#define STEPS_EXP_LOG2E 1.44269504f
#define STEPS_EXP_ROUND 12582912.0f      /* 1.5 * 2^23: adding it rounds to an integer */
#define STEPS_EXP_LN2_HIGH 0.693145752f  /* 16 bits, so that n times it is exact */
#define STEPS_EXP_LN2_LOW 1.42860677e-6f /* log(2) less the above */
#define STEPS_EXP_C2 0.5f
#define STEPS_EXP_C3 0.166665763f
#define STEPS_EXP_C4 0.0416665561f
#define STEPS_EXP_C5 0.00836320315f
#define STEPS_EXP_C6 0.00139262131f

/* 2^x = 2^n 2^r, n the integer nearest to x, |r| <= 1/2:  1 + r (C1 + C2 r + ... C5 r^4). */
#define STEPS_EXP2_LOW (-56.0f) /* the smallest argument that does not give 0 */
#define STEPS_EXP2_C1 0.693147004f
#define STEPS_EXP2_C2 0.240222424f
#define STEPS_EXP2_C3 0.0555073358f
#define STEPS_EXP2_C4 0.00967151299f
#define STEPS_EXP2_C5 0.00132647273f

#define STEPS_HALF_MAX 65504.0f

STEPS_FUNCTION uint32_t steps_bits_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

STEPS_FUNCTION float steps_float_from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A NaN gives 0: what depends on it finds the NaN elsewhere (a sum of 0, the value itself). */
STEPS_FUNCTION float steps_exp(float x)
{
    if (!(x >= STEPS_EXP_LOW)) {
        return 0.0f;
    }
    if (x > STEPS_EXP_HIGH) {
        return INFINITY;
    }
    const float shifted = fmaf(x, STEPS_EXP_LOG2E, STEPS_EXP_ROUND);
    const float n = shifted - STEPS_EXP_ROUND;
    float r = fmaf(n, -STEPS_EXP_LN2_HIGH, x);
    r = fmaf(n, -STEPS_EXP_LN2_LOW, r);
    float q = fmaf(STEPS_EXP_C6, r, STEPS_EXP_C5);
    q = fmaf(q, r, STEPS_EXP_C4);
    q = fmaf(q, r, STEPS_EXP_C3);
    q = fmaf(q, r, STEPS_EXP_C2);
    q = fmaf(q, r, 1.0f);
    const float p = fmaf(q, r, 1.0f);
    /* The low bits of `shifted` are n; no result is a denormal, so n adds to the exponent. */
    return steps_float_from_bits(steps_bits_from_float(p) + (steps_bits_from_float(shifted) << 23));
}

/* Of what is not above 0. A NaN gives 0, as in steps_exp. */
STEPS_FUNCTION float steps_exp2(float x)
{
    if (!(x >= STEPS_EXP2_LOW)) {
        return 0.0f;
    }
    const float shifted = x + STEPS_EXP_ROUND;
    const float r = x - (shifted - STEPS_EXP_ROUND);
    float q = fmaf(STEPS_EXP2_C5, r, STEPS_EXP2_C4);
    q = fmaf(q, r, STEPS_EXP2_C3);
    q = fmaf(q, r, STEPS_EXP2_C2);
    q = fmaf(q, r, STEPS_EXP2_C1);
    const float p = fmaf(q, r, 1.0f);
    return steps_float_from_bits(steps_bits_from_float(p) + (steps_bits_from_float(shifted) << 23));
}

/* Natural logarithm of a positive normal number. */
STEPS_FUNCTION double steps_log(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    /* m = x / 2^n in [sqrt(1/2), sqrt(2)): the mantissa of the latter is the carry's threshold. */
    const uint64_t carried = bits + (UINT64_C(0x3ff0000000000000) - UINT64_C(0x3fe6a09e667f3bcd));
    const int32_t n = (int32_t)(carried >> 52) - 1023;
    const uint64_t m_bits = bits - ((uint64_t)(int64_t)n << 52);
    double m;
    memcpy(&m, &m_bits, sizeof m);
    /* log(m) = 2 s + s^3 P(s^2) with s = (m - 1) / (m + 1). */
    const double f = m - 1.0;
    const double s = f / (m + 1.0);
    const double z = s * s;
    double p = 0.14617807153417325;
    p = p * z + 0.15331611722055008;
    p = p * z + 0.1818289243253687;
    p = p * z + 0.22222211089379496;
    p = p * z + 0.28571428626253836;
    p = p * z + 0.3999999999989889;
    p = p * z + 0.666666666666667;
    /* 2 s = f - s f, so that the large part f is exact. */
    const double tail = s * (f - z * p);
    const double ln2_high = 0.6931471803691238; /* 32 bits: n times it is exact */
    const double ln2_low = 1.9082149292705877e-10;
    return n * ln2_high + (f - (tail - n * ln2_low));
}

/* Angles in radians, up to 2^20 in magnitude. */
STEPS_FUNCTION void steps_sincos(double angle, float *sine, float *cosine)
{
    const double two_over_pi = 0.6366197723675814;
    const double round = 6755399441055744.0; /* 1.5 * 2^52 */
    const double shifted = angle * two_over_pi + round;
    const double n = shifted - round;
    uint64_t quadrant;
    memcpy(&quadrant, &shifted, sizeof quadrant);
    /* pi / 2 in three parts, the first two of 32 bits: products with n are exact. */
    double r = angle - n * 1.5707963267341256;
    r = r - n * 6.077100506303966e-11;
    r = r - n * 2.0222662487959506e-21;
    const double z = r * r;
    double s = 1.5917988979397435e-10;
    s = s * z - 2.5051129896450185e-08;
    s = s * z + 2.7557316093198404e-06;
    s = s * z - 0.00019841269836740532;
    s = s * z + 0.008333333333330936;
    s = s * z - 0.16666666666666666;
    s = r + r * z * s;
    double c = -1.138254464534925e-11;
    c = c * z + 2.087614504941318e-09;
    c = c * z - 2.755731726587808e-07;
    c = c * z + 2.48015872987544e-05;
    c = c * z - 0.0013888888888887389;
    c = c * z + 0.041666666666666664;
    c = 1.0 - 0.5 * z + z * z * c;
    const double sin_magnitude = (quadrant & 1) != 0 ? c : s;
    const double cos_magnitude = (quadrant & 1) != 0 ? s : c;
    *sine = (float)((quadrant & 2) != 0 ? -sin_magnitude : sin_magnitude);
    *cosine = (float)(((quadrant + 1) & 2) != 0 ? -cos_magnitude : cos_magnitude);
}

/* Nearest even; beyond the largest finite half, infinities too, saturates to it. A NaN stays one.
 */
STEPS_FUNCTION uint16_t steps_half_from_float(float value)
{
    const uint32_t bits = steps_bits_from_float(value);
    const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;

    if (magnitude > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u);
    }
    if (magnitude >= 0x477fe000u) {
        return (uint16_t)(sign | 0x7bffu);
    }
    if (magnitude < 0x38800000u) {
        /* Below the smallest normal half, 2^-14: adding 1/2 makes the float unit round for us. */
        const float rounded = steps_float_from_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (steps_bits_from_float(rounded) - 0x3f000000u));
    }
    const uint32_t odd = (magnitude >> 13) & 1u;
    const uint32_t half = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
    return (uint16_t)(sign | (half > 0x7bffu ? 0x7bffu : half));
}

/* Exact; a half that is not a number stays one. */
STEPS_FUNCTION float steps_float_from_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t magnitude = (uint32_t)half & 0x7fffu;

    if (magnitude >= 0x7c00u) {
        const uint32_t quiet = magnitude > 0x7c00u ? 0x400000u : 0u;
        return steps_float_from_bits(sign | 0x7f800000u | (magnitude - 0x7c00u) << 13 | quiet);
    }
    if (magnitude < 0x400u) {
        /* magnitude * 2^-24, exact and a normal float */
        const float value = (float)magnitude * 5.9604644775390625e-8f;
        return steps_float_from_bits(sign | steps_bits_from_float(value));
    }
    return steps_float_from_bits(sign | ((magnitude << 13) + 0x38000000u));
}

/* Nearest even; a NaN stays one. */
STEPS_FUNCTION uint16_t steps_bf16_from_float(float value)
{
    const uint32_t bits = steps_bits_from_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(bits >> 16 | 0x40u);
    }
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* Exact. */
STEPS_FUNCTION float steps_float_from_bf16(uint16_t value)
{
    return steps_float_from_bits((uint32_t)value << 16);
}

#endif
