/* Quantised weights times rows of codes, half a panel (8 output rows) at a time. Thread: any.
 *
 * Included once by each of matmul_{neon,dotprod,i8mm}.c, which define MATMUL_CODES (the function's
 * name), SUM_ROWS_MAX, struct sums and sums_clear, sums_add, sums_read: how bytes are multiplied.
 * Codes of 8 bits become signed here, so that all codes are; their offset is gone with that.
 */
#ifndef PERSONAD_KERNELS_CPU_NEON_MATMUL_CODES_H
#define PERSONAD_KERNELS_CPU_NEON_MATMUL_CODES_H

#ifndef MATMUL_CODES
#error "is part of matmul_{neon,dotprod,i8mm}.c"
#endif

#include "kernels/cpu/neon/math.h"

enum {
    NIBBLE_BLOCK_BYTES = 256,
    BYTE_BLOCK_BYTES = 512,
    SUB_BLOCKS = CPU_SUPER_BLOCK / CPU_BLOCK,
    K_BYTES = 64 + 2 * SUB_BLOCKS * CPU_PANEL_ROWS,  /* of SCALE_K, 8 blocks */
    K6_BYTES = 32 + 2 * SUB_BLOCKS * CPU_PANEL_ROWS, /* of SCALE_K6, 8 blocks */
    REGISTERS = 2,                                   /* of output rows */
    LANES = REGISTERS * NEON_LANES,
    SIGNED_SHIFT = 7, /* codes of this offset use all 8 bits */
};

/* The shape of an expansion. */
struct shape {
    uint32_t bits;
    uint32_t offset_shift;
    enum cpu_scale scale;
    uint32_t rows;
};

/* What the rows of an expansion read: the tile from some row on. */
struct rows {
    const int8_t *high_codes; /* NULL: codes of 8 bits */
    const int8_t *codes;      /* precise: the low ones */
    const float *scales;
    const float *sums;
    const int32_t *minus_sums;
    uint32_t height; /* of the whole tile: from block to block */
};

/* Where an expansion is: a panel's codes, the lanes of this half of it, its scales. */
struct place {
    const uint8_t *codes;
    const uint8_t *scales; /* at the lanes of this half in arrays of halves */
    uint32_t lane;         /* the first, for arrays of bytes */
};

static CPU_EXPAND bool has_minimum(const struct shape *shape)
{
    return shape->scale == SCALE_HALF_MIN || shape->scale == SCALE_K;
}

static CPU_EXPAND float32x4_t halves_to_floats(const uint8_t *halves, uint32_t i)
{
    return neon_halves((const uint16_t *)(const void *)halves + (size_t)i * NEON_LANES);
}

static CPU_EXPAND float32x4_t bytes_to_floats(const uint8_t *bytes, uint32_t i)
{
    const uint16x8_t words = vmovl_u8(vld1_u8(bytes));

    return vcvtq_f32_u32(vmovl_u16(i == 0 ? vget_low_u16(words) : vget_high_u16(words)));
}

static CPU_EXPAND float32x4_t signed_bytes_to_floats(const uint8_t *bytes, uint32_t i)
{
    const int16x8_t words = vmovl_s8(vreinterpret_s8_u8(vld1_u8(bytes)));

    return vcvtq_f32_s32(vmovl_s16(i == 0 ? vget_low_s16(words) : vget_high_s16(words)));
}

static CPU_EXPAND float32x4_t load_scale(enum cpu_scale kind, const struct place *place,
                                         uint32_t block, uint32_t part, uint32_t i)
{
    const uint8_t *super;

    switch (kind) {
    case SCALE_HALF:
        return halves_to_floats(place->scales + (uint64_t)block * 32, i);
    case SCALE_HALF_MIN:
        return halves_to_floats(place->scales + (uint64_t)block * 64, i);
    case SCALE_K:
        super = place->scales + (uint64_t)(block / SUB_BLOCKS) * K_BYTES;
        /* Bytes start where the halves of all 16 rows end; `scales` is 2 * lane further on. */
        return vmulq_f32(halves_to_floats(super, i),
                         bytes_to_floats(super + 64 - place->lane +
                                             (size_t)(block % SUB_BLOCKS) * CPU_PANEL_ROWS,
                                         i));
    case SCALE_K6:
        super = place->scales + (uint64_t)(block / SUB_BLOCKS) * K6_BYTES;
        return vmulq_f32(
            halves_to_floats(super, i),
            signed_bytes_to_floats(super + 32 - place->lane +
                                       (size_t)(2 * (block % SUB_BLOCKS) + part) * CPU_PANEL_ROWS,
                                   i));
    case SCALE_NONE:
        break;
    }
    return vdupq_n_f32(0.0f);
}

static CPU_EXPAND float32x4_t load_minimum(enum cpu_scale kind, const struct place *place,
                                           uint32_t block, uint32_t i)
{
    const uint8_t *super = place->scales + (uint64_t)(block / SUB_BLOCKS) * K_BYTES;

    if (kind == SCALE_HALF_MIN) {
        return halves_to_floats(place->scales + (uint64_t)block * 64 + 32, i);
    }
    return vmulq_f32(halves_to_floats(super + 32, i),
                     bytes_to_floats(super + 64 - place->lane +
                                         (size_t)SUB_BLOCKS * CPU_PANEL_ROWS +
                                         (size_t)(block % SUB_BLOCKS) * CPU_PANEL_ROWS,
                                     i));
}

/* Four columns of four rows, signed. */
static CPU_EXPAND int8x16_t load_group(const struct shape *shape, const struct place *place,
                                       uint32_t group, uint32_t i)
{
    const uint32_t row = shape->bits == 8 ? group : group % 4;
    const uint8x16_t raw = vld1q_u8(place->codes + (size_t)row * 64 + (size_t)place->lane * 4 +
                                    (size_t)i * 4 * NEON_LANES);

    if (shape->bits == 8) {
        return vreinterpretq_s8_u8(
            shape->offset_shift == SIGNED_SHIFT ? veorq_u8(raw, vdupq_n_u8(0x80)) : raw);
    }
    return vreinterpretq_s8_u8(group < 4 ? vandq_u8(raw, vdupq_n_u8(15)) : vshrq_n_u8(raw, 4));
}

/* Adds codes . x over the groups [from, to) of four columns of a block. */
static CPU_EXPAND void add_groups(const struct shape *shape, const struct place *place,
                                  const int8_t *codes, uint32_t from, uint32_t to,
                                  struct sums *sums)
{
    CPU_UNROLL(4)
    for (uint32_t g = from; g < to; g += 2) {
        int8x16_t first[REGISTERS], second[REGISTERS];
        int8x8_t x[SUM_ROWS_MAX];

        CPU_UNROLL(2)
        for (uint32_t i = 0; i < REGISTERS; i++) {
            first[i] = load_group(shape, place, g, i);
            second[i] = load_group(shape, place, g + 1, i);
        }
        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape->rows; r++) {
            x[r] = vld1_s8(codes + (size_t)r * CPU_BLOCK + (size_t)g * 4);
        }
        sums_add(shape->rows, first, second, x, sums);
    }
}

/* The exact products of a block, or of half of one, less the offset's share. */
static CPU_EXPAND void dot_groups(const struct shape *shape, const struct place *place,
                                  const struct rows *rows, uint32_t from, uint32_t to,
                                  int32x4_t dot[SUM_ROWS_MAX][REGISTERS])
{
    const bool has_offset = !has_minimum(shape) && shape->offset_shift != SIGNED_SHIFT;
    const int32_t offset = has_offset ? 1 << shape->offset_shift : 0;
    struct sums sums;

    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape->rows; r++) {
        dot[r][0] = vdupq_n_s32(offset * rows->minus_sums[r]);
        dot[r][1] = dot[r][0];
    }
    if (rows->high_codes != NULL) {
        sums_clear(shape->rows, &sums);
        add_groups(shape, place, rows->high_codes, from, to, &sums);
        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape->rows; r++) {
            CPU_UNROLL(2)
            for (uint32_t i = 0; i < REGISTERS; i++) {
                dot[r][i] = vmlaq_n_s32(dot[r][i], sums_read(&sums, r, i), CPU_CODE_RADIX);
            }
        }
    }
    sums_clear(shape->rows, &sums);
    add_groups(shape, place, rows->codes, from, to, &sums);
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape->rows; r++) {
        CPU_UNROLL(2)
        for (uint32_t i = 0; i < REGISTERS; i++) {
            dot[r][i] = vaddq_s32(dot[r][i], sums_read(&sums, r, i));
        }
    }
}

static CPU_EXPAND void add_block(const struct shape *shape, const struct place *place,
                                 const struct rows *rows, uint32_t block, uint32_t part,
                                 int32x4_t dot[SUM_ROWS_MAX][REGISTERS],
                                 float32x4_t acc[SUM_ROWS_MAX][REGISTERS])
{
    CPU_UNROLL(2)
    for (uint32_t i = 0; i < REGISTERS; i++) {
        const float32x4_t scale = load_scale(shape->scale, place, block, part, i);

        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape->rows; r++) {
            acc[r][i] =
                neon_fma(vmulq_n_f32(scale, rows->scales[r]), vcvtq_f32_s32(dot[r][i]), acc[r][i]);
        }
        if (has_minimum(shape)) {
            const float32x4_t minimum = load_minimum(shape->scale, place, block, i);

            CPU_UNROLL(4)
            for (uint32_t r = 0; r < shape->rows; r++) {
                acc[r][i] = neon_fma(minimum, vdupq_n_f32(rows->sums[r]), acc[r][i]);
            }
        }
    }
}

static CPU_EXPAND void multiply(const struct shape shape, uint32_t block_count, struct place place,
                                struct rows rows, float *out, uint32_t stride)
{
    const uint32_t block_bytes = shape.bits == 4 ? NIBBLE_BLOCK_BYTES : BYTE_BLOCK_BYTES;
    const uint32_t parts = shape.scale == SCALE_K6 ? 2 : 1;
    float32x4_t acc[SUM_ROWS_MAX][REGISTERS];
    int32x4_t dot[SUM_ROWS_MAX][REGISTERS];

    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape.rows; r++) {
        acc[r][0] = vdupq_n_f32(0.0f);
        acc[r][1] = vdupq_n_f32(0.0f);
    }
    for (uint32_t b = 0; b < block_count; b++) {
        CPU_UNROLL(2)
        for (uint32_t part = 0; part < parts; part++) {
            dot_groups(&shape, &place, &rows, part * 4, parts == 2 ? part * 4 + 4 : 8, dot);
            add_block(&shape, &place, &rows, b, part, dot, acc);
            rows.minus_sums += rows.height;
        }
        place.codes += block_bytes;
        rows.codes += (size_t)rows.height * CPU_BLOCK;
        if (rows.high_codes != NULL) {
            rows.high_codes += (size_t)rows.height * CPU_BLOCK;
        }
        rows.scales += rows.height;
        rows.sums += rows.height;
    }
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape.rows; r++) {
        vst1q_f32(out + (size_t)r * stride, acc[r][0]);
        vst1q_f32(out + (size_t)r * stride + NEON_LANES, acc[r][1]);
    }
}

#define ROWS(bits, shift, scale, count)                                                      \
    case count:                                                                              \
        multiply((struct shape){bits, shift, scale, count}, block_count, *place, *rows, out, \
                 stride);                                                                    \
        break;

#define FORMAT(name, bits, shift, scale)                                                       \
    static void name(uint32_t block_count, const struct place *place, const struct rows *rows, \
                     uint32_t row_count, float *out, uint32_t stride)                          \
    {                                                                                          \
        switch (row_count) {                                                                   \
            ROWS(bits, shift, scale, 1)                                                        \
            ROWS(bits, shift, scale, 2)                                                        \
            ROWS(bits, shift, scale, 3)                                                        \
            ROWS(bits, shift, scale, 4)                                                        \
        }                                                                                      \
    }

FORMAT(q4_0, 4, 3, SCALE_HALF)
FORMAT(q4_1, 4, 0, SCALE_HALF_MIN)
FORMAT(q5_0, 8, 4, SCALE_HALF)
FORMAT(q5_1, 8, 0, SCALE_HALF_MIN)
FORMAT(q8_0, 8, SIGNED_SHIFT, SCALE_HALF)
FORMAT(q4_k, 4, 0, SCALE_K)
FORMAT(q5_k, 8, 0, SCALE_K)
FORMAT(q6_k, 8, 5, SCALE_K6)

struct function {
    void (*run)(uint32_t block_count, const struct place *place, const struct rows *rows,
                uint32_t row_count, float *out, uint32_t stride);
};

static struct function function_of(uint32_t dtype)
{
    switch (dtype) {
    case DTYPE_Q4_0:
        return (struct function){q4_0};
    case DTYPE_Q4_1:
        return (struct function){q4_1};
    case DTYPE_Q5_0:
        return (struct function){q5_0};
    case DTYPE_Q5_1:
        return (struct function){q5_1};
    case DTYPE_Q8_0:
        return (struct function){q8_0};
    case DTYPE_Q4_K:
        return (struct function){q4_k};
    case DTYPE_Q5_K:
        return (struct function){q5_k};
    default:
        return (struct function){q6_k};
    }
}

void MATMUL_CODES(const struct backend_weight *weight, uint32_t panel_first, uint32_t panel_count,
                  const struct cpu_tile *tile, float *out)
{
    const struct function function = function_of(weight->dtype);
    const bool precise = tile->low_codes != NULL;
    const bool in_parts = weight->format.scale == SCALE_K6;
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;

    for (uint32_t p = 0; p < panel_count; p++) {
        const uint8_t *panel = cpu_weight_panel(weight, panel_first + p);

        for (uint32_t r = 0; r < tile->height; r += SUM_ROWS_MAX) {
            const uint32_t left = tile->height - r;
            const size_t codes = (size_t)r * CPU_BLOCK;
            const struct rows rows = {
                .high_codes = precise ? tile->codes + codes : NULL,
                .codes = (precise ? tile->low_codes : tile->codes) + codes,
                .scales = tile->scales + r,
                .sums = tile->sums + r,
                .minus_sums = (in_parts ? tile->half_sums : tile->code_sums) + r,
                .height = tile->height,
            };

            for (uint32_t lane = 0; lane < CPU_PANEL_ROWS; lane += LANES) {
                const struct place place = {panel, panel + weight->scale_offset + (size_t)2 * lane,
                                            lane};

                function.run(tile->block_count, &place, &rows,
                             left < SUM_ROWS_MAX ? left : SUM_ROWS_MAX,
                             out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS + lane, stride);
            }
        }
    }
}

#endif
