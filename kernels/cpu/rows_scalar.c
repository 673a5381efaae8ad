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

static void pack_pairs(const struct cpu_rows *rows, const struct cpu_row_place *place,
                       const float *x, uint32_t col_count)
{
    for (uint32_t k = 0; k < col_count; k += 2) {
        const uint16_t even = cpu_nearest_bf16(x[k]);
        const uint16_t odd = k + 1 < col_count ? cpu_nearest_bf16(x[k + 1]) : 0;
        const uint64_t at = (uint64_t)k * place->height;

        if (rows->with_words) {
            place->words[at / 2] = (uint32_t)odd << 16 | even;
        } else {
            place->paired[at] = steps_float_from_bf16(even);
            place->paired[at + place->height] = steps_float_from_bf16(odd);
        }
    }
}

void cpu_pack_numbers(const struct cpu_rows *rows, const struct cpu_tile_part *part)
{
    struct cpu_tile tile;

    cpu_rows_tile(rows, part->tile, &tile);
    for (uint32_t r = 0; r < tile.height; r++) {
        const float *x = part->x + r * part->stride;
        struct cpu_row_place place;

        cpu_row_place(rows, tile.row_first + r, part->col_first, &place);
        for (uint32_t k = 0; rows->with_floats && k < part->col_count; k++) {
            place.values[(uint64_t)k * place.height] = x[k];
        }
        if (rows->with_pairs) {
            pack_pairs(rows, &place, x, part->col_count);
        }
    }
}

static void pack_blocks(const struct cpu_row_place *place, const float *x, uint32_t block_count,
                        void (*quantise)(const float *x, struct cpu_block_codes *out),
                        void (*quantise_precise)(const float *x, struct cpu_block_codes *out))
{
    for (uint32_t b = 0; b < block_count; b++) {
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

void cpu_pack(struct cpu_rows *rows, const struct cpu_tile_part *part,
              void (*quantise)(const float *x, struct cpu_block_codes *out),
              void (*quantise_precise)(const float *x, struct cpu_block_codes *out))
{
    struct cpu_tile tile;

    if (rows->with_floats || rows->with_pairs) {
        cpu_pack_numbers(rows, part);
    }
    cpu_rows_tile(rows, part->tile, &tile);
    for (uint32_t r = 0; rows->with_codes && r < tile.height; r++) {
        struct cpu_row_place place;

        cpu_row_place(rows, tile.row_first + r, part->col_first, &place);
        pack_blocks(&place, part->x + r * part->stride, part->col_count / CPU_BLOCK, quantise,
                    quantise_precise);
    }
}

void cpu_pack_scalar(struct cpu_rows *rows, const struct cpu_tile_part *part)
{
    cpu_pack(rows, part, cpu_quantise_block_scalar, cpu_quantise_precise_scalar);
}

void cpu_row_place(const struct cpu_rows *rows, uint32_t row, uint32_t col,
                   struct cpu_row_place *out)
{
    const uint32_t first = row / rows->tile_rows * rows->tile_rows;
    const uint32_t left = rows->row_count - first;
    const uint32_t within = row - first;
    const uint32_t height = left < rows->tile_rows ? left : rows->tile_rows;
    const uint64_t block =
        (uint64_t)first * rows->block_count + (uint64_t)col / CPU_BLOCK * height + within;
    const uint64_t half =
        (uint64_t)first * rows->block_count * 2 + (uint64_t)col / CPU_BLOCK * 2 * height + within;
    const uint64_t pair = (uint64_t)first * ((rows->cols + 1) / 2) + (uint64_t)col / 2 * height;

    CHECK(row < rows->row_count && col % CPU_BLOCK == 0);
    out->height = height;
    out->values = rows->values + (uint64_t)first * rows->cols + (uint64_t)col * height + within;
    out->paired = rows->paired + 2 * pair + within;
    out->words = rows->words + pair + within;
    out->codes = rows->codes + block * CPU_BLOCK;
    out->low_codes = rows->is_precise ? rows->low_codes + block * CPU_BLOCK : NULL;
    out->scales = rows->scales + block;
    out->sums = rows->sums + block;
    out->code_sums = rows->code_sums + block;
    out->half_sums = rows->half_sums + half;
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

bool cpu_round_to_bf16_scalar(const float *x, uint32_t count, uint16_t *out)
{
    return cpu_round_to_bf16(x, count, out);
}
