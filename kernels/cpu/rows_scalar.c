/* Norm, packing, activation and rotation: the scalar definitions. */
#include "kernels/cpu/rows_scalar.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/weight.h"
#include "kernels/steps/math.h"

enum { LANE_COUNT = 16 };

void cpu_rms_norm_scalar(const float *x, const float *norm, float epsilon, uint32_t cols,
                         float *out)
{
    float lanes[LANE_COUNT] = {0};
    float inverse;

    for (uint32_t c = 0; c < cols; c++) {
        lanes[c % LANE_COUNT] = fmaf(x[c], x[c], lanes[c % LANE_COUNT]);
    }
    for (uint32_t width = LANE_COUNT / 2; width > 0; width /= 2) {
        for (uint32_t i = 0; i < width; i++) {
            lanes[i] += lanes[i + width];
        }
    }
    inverse = 1.0f / sqrtf(lanes[0] / (float)cols + epsilon);
    for (uint32_t c = 0; c < cols; c++) {
        out[c] = x[c] * inverse * norm[c];
    }
}

/* The block's largest magnitude, or 0 when `out` already says all: zero, or not finite. */
static float largest_of(const float *x, struct cpu_block_codes *out)
{
    uint32_t largest = 0;
    float amax;

    /* As integers, magnitudes order like the values, with infinity and NaN above all. */
    for (uint32_t i = 0; i < CPU_BLOCK; i++) {
        const uint32_t magnitude = steps_bits_from_float(x[i]) & 0x7fffffffu;

        largest = magnitude > largest ? magnitude : largest;
    }
    memset(out, 0, sizeof(*out));
    amax = steps_float_from_bits(largest);
    if (largest >= CPU_INFINITY_BITS) {
        out->scale = NAN;
        out->sum = NAN;
        return 0.0f;
    }
    return amax < CPU_QUANTISE_MIN ? 0.0f : amax;
}

/* Adding 1.5 * 2^23 rounds to an integer, ties to even. */
static int32_t nearest(float value)
{
    return (int32_t)((value + 12582912.0f) - 12582912.0f);
}

void cpu_quantise_block_scalar(const float *x, struct cpu_block_codes *out)
{
    const float amax = largest_of(x, out);
    int32_t half_sums[2] = {0, 0};

    if (amax == 0.0f) {
        return;
    }
    out->scale = amax / (float)CPU_CODE_MAX;
    for (uint32_t i = 0; i < CPU_BLOCK; i++) {
        const int32_t code = nearest(x[i] * ((float)CPU_CODE_MAX / amax));

        out->codes[i] = (int8_t)code;
        half_sums[i / (CPU_BLOCK / 2)] += code;
    }
    out->sum = out->scale * (float)(half_sums[0] + half_sums[1]);
    out->half_sums[0] = -half_sums[0];
    out->half_sums[1] = -half_sums[1];
}

void cpu_quantise_precise_scalar(const float *x, struct cpu_block_codes *out)
{
    const float amax = largest_of(x, out);
    int32_t half_sums[2] = {0, 0};

    if (amax == 0.0f) {
        return;
    }
    out->scale = amax / (float)CPU_PRECISE_CODE_MAX;
    for (uint32_t i = 0; i < CPU_BLOCK; i++) {
        const int32_t code = nearest(x[i] * ((float)CPU_PRECISE_CODE_MAX / amax));
        /* Division cuts towards 0: this makes it round to the nearest, and there are no ties. */
        const int32_t high = (code + (code < 0 ? -CPU_CODE_MAX : CPU_CODE_MAX)) / CPU_CODE_RADIX;

        out->codes[i] = (int8_t)high;
        out->low_codes[i] = (int8_t)(code - CPU_CODE_RADIX * high);
        half_sums[i / (CPU_BLOCK / 2)] += code;
    }
    out->sum = out->scale * (float)(half_sums[0] + half_sums[1]);
    out->half_sums[0] = -half_sums[0];
    out->half_sums[1] = -half_sums[1];
}

/* A number as rows of BF16 have it. */
static uint16_t nearest_bf16(float value)
{
    const uint16_t bits = steps_bf16_from_float(value);

    return (bits & 0x7fffu) < CPU_BF16_MIN_BITS ? 0 : bits;
}

static void pack_pairs(const struct cpu_rows *rows, const struct cpu_row_place *place,
                       const float *x)
{
    for (uint32_t k = 0; k < rows->cols; k += 2) {
        const uint16_t even = nearest_bf16(x[k]);
        const uint16_t odd = k + 1 < rows->cols ? nearest_bf16(x[k + 1]) : 0;
        const uint64_t at = (uint64_t)k * place->height;

        if (rows->with_words) {
            place->words[at / 2] = (uint32_t)odd << 16 | even;
        } else {
            place->paired[at] = steps_float_from_bf16(even);
            place->paired[at + place->height] = steps_float_from_bf16(odd);
        }
    }
}

void cpu_pack_numbers(const struct cpu_rows *rows, const struct cpu_row_place *place,
                      const float *x)
{
    if (rows->with_floats) {
        for (uint32_t k = 0; k < rows->cols; k++) {
            place->values[(uint64_t)k * place->height] = x[k];
        }
    }
    if (rows->with_pairs) {
        pack_pairs(rows, place, x);
    }
}

void cpu_pack_blocks(const struct cpu_rows *rows, const struct cpu_row_place *place, const float *x,
                     void (*quantise)(const float *x, struct cpu_block_codes *out),
                     void (*quantise_precise)(const float *x, struct cpu_block_codes *out))
{
    for (uint32_t b = 0; b < rows->block_count; b++) {
        const uint64_t at = (uint64_t)b * place->height;
        struct cpu_block_codes block;

        if (place->low_codes != NULL) {
            quantise_precise(x + (uint64_t)b * CPU_BLOCK, &block);
            memcpy(place->low_codes + at * CPU_BLOCK, block.low_codes, CPU_BLOCK);
        } else {
            quantise(x + (uint64_t)b * CPU_BLOCK, &block);
        }
        memcpy(place->codes + at * CPU_BLOCK, block.codes, CPU_BLOCK);
        place->scales[at] = block.scale;
        place->sums[at] = block.sum;
        place->code_sums[at] = block.half_sums[0] + block.half_sums[1];
        place->half_sums[2 * at] = block.half_sums[0];
        place->half_sums[2 * at + place->height] = block.half_sums[1];
    }
}

void cpu_pack_row(struct cpu_rows *rows, uint32_t row, const float *x,
                  void (*quantise)(const float *x, struct cpu_block_codes *out),
                  void (*quantise_precise)(const float *x, struct cpu_block_codes *out))
{
    struct cpu_row_place place;

    cpu_row_place(rows, row, &place);
    cpu_pack_numbers(rows, &place, x);
    if (rows->with_codes) {
        cpu_pack_blocks(rows, &place, x, quantise, quantise_precise);
    }
}

void cpu_pack_row_scalar(struct cpu_rows *rows, uint32_t row, const float *x)
{
    cpu_pack_row(rows, row, x, cpu_quantise_block_scalar, cpu_quantise_precise_scalar);
}

void cpu_row_place(const struct cpu_rows *rows, uint32_t row, struct cpu_row_place *out)
{
    const uint32_t first = row / rows->tile_rows * rows->tile_rows;
    const uint32_t left = rows->row_count - first;
    const uint32_t within = row - first;
    const uint64_t block = (uint64_t)first * rows->block_count + within;
    const uint64_t pair = (uint64_t)first * ((rows->cols + 1) / 2);

    CHECK(row < rows->row_count);
    out->height = left < rows->tile_rows ? left : rows->tile_rows;
    out->values = rows->values + (uint64_t)first * rows->cols + within;
    out->paired = rows->paired + 2 * pair + within;
    out->words = rows->words + pair + within;
    out->codes = rows->codes + block * CPU_BLOCK;
    out->low_codes = rows->is_precise ? rows->low_codes + block * CPU_BLOCK : NULL;
    out->scales = rows->scales + block;
    out->sums = rows->sums + block;
    out->code_sums = rows->code_sums + block;
    out->half_sums = rows->half_sums + (uint64_t)first * rows->block_count * 2 + within;
}

void cpu_silu_multiply_scalar(float *gate, const float *up, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const float z = gate[i];
        const float e = steps_exp(-fabsf(z));

        gate[i] = (z >= 0.0f ? z : z * e) / (1.0f + e) * up[i];
    }
}

void cpu_rotate_scalar(float *head, const float *cosines, const float *sines, uint32_t pair_count,
                       enum rope_style style)
{
    const uint32_t step = style == ROPE_ADJACENT ? 2 : 1;
    const uint32_t distance = style == ROPE_ADJACENT ? 1 : pair_count;

    for (uint32_t i = 0; i < pair_count; i++) {
        float *first = head + (uint64_t)i * step;
        float *second = first + distance;
        const float a = *first;
        const float b = *second;

        *first = fmaf(a, cosines[i], -(b * sines[i]));
        *second = fmaf(a, sines[i], b * cosines[i]);
    }
}

bool cpu_round_to_half_scalar(const float *x, uint32_t count, uint16_t *out)
{
    bool has_nan = false;

    for (uint32_t i = 0; i < count; i++) {
        const bool is_nan = x[i] != x[i];

        out[i] = is_nan ? 0 : steps_half_from_float(x[i]);
        has_nan = has_nan || is_nan;
    }
    return has_nan;
}
