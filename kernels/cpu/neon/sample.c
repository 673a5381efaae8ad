/* The sampler's passes with 4 lanes. Sums are of integers, so lanes may add in any order. */
#include "kernels/cpu/sample.h"

#include "kernels/cpu/neon/math.h"
#include "kernels/steps/masses.h"

/* All ones in the lanes that are below `left`. */
static inline uint32x4_t real_lanes(uint32_t left)
{
    static const uint32_t lanes[NEON_LANES] = {0, 1, 2, 3};

    return vcltq_u32(vld1q_u32(lanes), vdupq_n_u32(left));
}

/* Lanes [i, i + 4) of count; lanes behind it read as -infinity. */
static inline float32x4_t load_lanes(const float *z, uint32_t i, uint32_t count)
{
    float last[NEON_LANES] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};

    if (count - i >= NEON_LANES) {
        return vld1q_f32(z + i);
    }
    for (uint32_t lane = 0; i + lane < count; lane++) {
        last[lane] = z[i + lane];
    }
    return vld1q_f32(last);
}

static void scan(const float *z, uint32_t count, float *block_max, float *max, bool *bad)
{
    const float32x4_t infinity = vdupq_n_f32(INFINITY);
    uint32x4_t right = vdupq_n_u32(UINT32_MAX);
    float all = -INFINITY;

    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        float32x4_t largest = vdupq_n_f32(-INFINITY);
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i += NEON_LANES) {
            const float32x4_t value = load_lanes(z, i, count);
            right = vandq_u32(right, vcltq_f32(value, infinity));
            largest = neon_larger(value, largest);
        }
        const float block = neon_max(largest);
        block_max[first / SAMPLE_BLOCK] = block;
        all = block > all ? block : all;
    }
    *max = all + 0.0f; /* -0 is answered as 0 */
    *bad = vminvq_u32(right) != UINT32_MAX;
}

/* sums + floor(value), values in [0, 2^52): conversion cuts. */
static inline uint64x2_t sum_cut(uint64x2_t sums, float64x2_t value)
{
    return vaddq_u64(sums, vcvtq_u64_f64(value));
}

static inline float64x2_t low_half(float32x4_t value)
{
    return vcvt_f64_f32(vget_low_f32(value));
}

static void masses(const float *z, uint32_t count, float max, uint64_t *block_sum, uint64_t *sum,
                   uint64_t *spread, float *weights)
{
    const float32x4_t one = vdupq_n_f32(STEPS_MASS_ONE);
    uint64x2_t spreads = vdupq_n_u64(0);
    uint64_t all = 0;

    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        uint64x2_t sums = vdupq_n_u64(0);
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i += NEON_LANES) {
            const float32x4_t below = vsubq_f32(load_lanes(z, i, count), vdupq_n_f32(max));
            const float32x4_t weight = neon_exp(below);
            const float32x4_t mass = vrndmq_f32(vmulq_f32(weight, one));
            sums = sum_cut(sum_cut(sums, low_half(mass)), vcvt_high_f64_f32(mass));
            if (weights != NULL) {
                vst1q_f32(weights + i, weight); /* SAMPLE_SLACK covers the last */
            }
            if (spread != NULL) {
                /* A mass of 0 may belong to a logit of -infinity: 0 takes the product's place. */
                const float32x4_t above = vreinterpretq_f32_u32(vandq_u32(
                    vreinterpretq_u32_f32(vsubq_f32(vdupq_n_f32(0.0f), below)), vcgtzq_f32(mass)));
                spreads = sum_cut(spreads, vmulq_f64(low_half(mass), low_half(above)));
                spreads =
                    sum_cut(spreads, vmulq_f64(vcvt_high_f64_f32(mass), vcvt_high_f64_f32(above)));
            }
        }
        block_sum[first / SAMPLE_BLOCK] = vaddvq_u64(sums);
        all += block_sum[first / SAMPLE_BLOCK];
    }
    *sum = all;
    if (spread != NULL) {
        *spread = vaddvq_u64(spreads);
    }
}

static uint32_t filter(const float *z, const uint32_t *ids, uint32_t count, float bound,
                       float *z_out, uint32_t *ids_out)
{
    const float32x4_t least = vdupq_n_f32(bound);
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i += NEON_LANES) {
        const uint32x4_t mask =
            vandq_u32(vcgeq_f32(load_lanes(z, i, count), least), real_lanes(count - i));
        if (vmaxvq_u32(mask) == 0) {
            continue; /* most registers of a vocabulary */
        }
        for (uint32_t at = i; at < count && at < i + NEON_LANES; at++) {
            if (z[at] >= bound) {
                z_out[kept] = z[at];
                ids_out[kept] = ids == NULL ? at : ids[at];
                kept++;
            }
        }
    }
    return kept;
}

static uint32_t above(const float *z, const float *weights, uint32_t count, float bound,
                      uint64_t *sum)
{
    const float32x4_t least = vdupq_n_f32(bound);
    const float32x4_t one = vdupq_n_f32(STEPS_MASS_ONE);
    uint64x2_t sums = vdupq_n_u64(0);
    uint32x4_t found = vdupq_n_u32(0);

    for (uint32_t i = 0; i < count; i += NEON_LANES) {
        const uint32x4_t kept =
            vandq_u32(real_lanes(count - i), vcgeq_f32(load_lanes(z, i, count), least));
        const float32x4_t weight =
            vreinterpretq_f32_u32(vandq_u32(kept, vreinterpretq_u32_f32(vld1q_f32(weights + i))));
        const float32x4_t mass = vrndmq_f32(vmulq_f32(weight, one));
        sums = sum_cut(sum_cut(sums, low_half(mass)), vcvt_high_f64_f32(mass));
        found = vsubq_u32(found, kept); /* all ones is -1 */
    }
    *sum = vaddvq_u64(sums);
    return vaddvq_u32(found);
}

static void divide(const float *z, uint32_t count, float t, float *z_out)
{
    for (uint32_t i = 0; i < count; i++) {
        z_out[i] = z[i] / t;
    }
}

const struct sample_kernels sample_kernels_neon = {
    .scan = scan,
    .masses = masses,
    .filter = filter,
    .above = above,
    .divide = divide,
};
