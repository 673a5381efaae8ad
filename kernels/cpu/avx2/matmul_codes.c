/* Quantised weights times int8 rows, half a panel (8 output rows) at a time.
 *
 * There is no dot product of bytes into 32 bits: products are summed in pairs into 16 bits, and so
 * many such sums are added there as cannot overflow (struct shape, run) before they widen.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/avx2/matmul.h"
#include "kernels/cpu/expand.h"

enum {
    NIBBLE_BLOCK_BYTES = 256,
    BYTE_BLOCK_BYTES = 512,
    SUB_BLOCKS = CPU_SUPER_BLOCK / CPU_BLOCK,
    K_BYTES = 64 + 2 * SUB_BLOCKS * CPU_PANEL_ROWS,  /* of SCALE_K, 8 blocks */
    K6_BYTES = 32 + 2 * SUB_BLOCKS * CPU_PANEL_ROWS, /* of SCALE_K6, 8 blocks */
    LANES = 8,
    ROWS_MAX = 4,
    SIGNED_SHIFT = 7, /* codes of this offset use all 8 bits */
};

/* The shape of an expansion. run: groups of four columns that 16 bits hold: two products of a code
 * and 127 a group, so 8 of 4-bit codes, 4 of 5-bit, 2 of 6-bit, 1 of 8-bit. */
struct shape {
    uint32_t bits;
    uint32_t run;
    uint32_t offset_shift;
    enum cpu_scale scale;
    bool precise; /* rows of two codes a column */
    uint32_t rows;
};

static CPU_EXPAND __m256 halves_to_floats(const uint8_t *halves)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)halves));
}

static CPU_EXPAND __m256 bytes_to_floats(const uint8_t *bytes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes)));
}

static CPU_EXPAND __m256 signed_bytes_to_floats(const uint8_t *bytes)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)bytes)));
}

/* `scales` and all below point at the lanes of this half of the panel in arrays of halves; `lane`
 * is its first lane, for arrays of bytes. */
static CPU_EXPAND __m256 load_scale(enum cpu_scale kind, const uint8_t *scales, uint32_t block,
                                    uint32_t part, uint32_t lane)
{
    const uint8_t *super;

    switch (kind) {
    case SCALE_HALF:
        return halves_to_floats(scales + (uint64_t)block * 32 + 2 * lane);
    case SCALE_HALF_MIN:
        return halves_to_floats(scales + (uint64_t)block * 64 + 2 * lane);
    case SCALE_K:
        super = scales + (uint64_t)(block / SUB_BLOCKS) * K_BYTES;
        return _mm256_mul_ps(
            halves_to_floats(super + 2 * lane),
            bytes_to_floats(super + 64 + block % SUB_BLOCKS * CPU_PANEL_ROWS + lane));
    case SCALE_K6:
        super = scales + (uint64_t)(block / SUB_BLOCKS) * K6_BYTES;
        return _mm256_mul_ps(
            halves_to_floats(super + 2 * lane),
            signed_bytes_to_floats(super + 32 + (2 * (block % SUB_BLOCKS) + part) * CPU_PANEL_ROWS +
                                   lane));
    case SCALE_NONE:
        break;
    }
    return _mm256_setzero_ps();
}

static CPU_EXPAND __m256 load_minimum(enum cpu_scale kind, const uint8_t *scales, uint32_t block,
                                      uint32_t lane)
{
    const uint8_t *super = scales + (uint64_t)(block / SUB_BLOCKS) * K_BYTES;

    if (kind == SCALE_HALF_MIN) {
        return halves_to_floats(scales + (uint64_t)block * 64 + 32 + 2 * lane);
    }
    return _mm256_mul_ps(halves_to_floats(super + 32 + 2 * lane),
                         bytes_to_floats(super + 64 + SUB_BLOCKS * CPU_PANEL_ROWS +
                                         block % SUB_BLOCKS * CPU_PANEL_ROWS + lane));
}

static CPU_EXPAND __m256i four_codes(const int8_t *codes)
{
    int32_t word;

    memcpy(&word, codes, sizeof(word));
    return _mm256_set1_epi32(word);
}

static CPU_EXPAND __m256i load_group(const struct shape *shape, const uint8_t *codes,
                                     uint32_t group, uint32_t lane)
{
    const uint32_t row = shape->bits == 8 ? group : group % 4;
    const __m256i raw =
        _mm256_load_si256((const __m256i *)(codes + (size_t)row * 64 + (size_t)lane * 4));

    if (shape->bits == 8) {
        return raw;
    }
    return _mm256_and_si256(group < 4 ? raw : _mm256_srli_epi16(raw, 4), _mm256_set1_epi8(15));
}

/* The shift count is part of an instruction: each needs its own. */
static CPU_EXPAND __m256i times_power(__m256i value, uint32_t shift)
{
    switch (shift) {
    case 3:
        return _mm256_slli_epi32(value, 3);
    case 4:
        return _mm256_slli_epi32(value, 4);
    default:
        return _mm256_slli_epi32(value, 5);
    }
}

/* Where the sums of integers start: minus what the codes' offset adds. */
static CPU_EXPAND __m256i first_dot(const struct shape *shape, int32_t minus_sum)
{
    if (shape->scale == SCALE_HALF_MIN || shape->scale == SCALE_K ||
        shape->offset_shift == SIGNED_SHIFT) {
        return _mm256_setzero_si256();
    }
    return times_power(_mm256_set1_epi32(minus_sum), shape->offset_shift);
}

/* From the products of the high codes to where those of the low ones go on: times 255. */
static CPU_EXPAND __m256i after_high(const struct shape *shape, __m256i dot, int32_t minus_sum)
{
    return _mm256_add_epi32(_mm256_sub_epi32(_mm256_slli_epi32(dot, 8), dot),
                            first_dot(shape, minus_sum));
}

/* Products of a group in pairs. 8-bit codes become signed, and their sign moves to the rows'. */
static CPU_EXPAND __m256i pair_products(const struct shape *shape, __m256i w, __m256i x)
{
    if (shape->offset_shift == SIGNED_SHIFT) {
        const __m256i signed_w = _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80));

        return _mm256_maddubs_epi16(_mm256_abs_epi8(signed_w), _mm256_sign_epi8(x, signed_w));
    }
    return _mm256_maddubs_epi16(w, x);
}

/* dot[r] += codes . x over the groups [from, to) of four columns of a block. */
static CPU_EXPAND void dot_groups(const struct shape *shape, const uint8_t *codes, uint32_t lane,
                                  const int8_t *x, uint32_t from, uint32_t to,
                                  __m256i dot[ROWS_MAX])
{
    const __m256i ones = _mm256_set1_epi16(1);

    CPU_UNROLL(8)
    for (uint32_t g = from; g < to; g += shape->run) {
        __m256i sums[ROWS_MAX];

        CPU_UNROLL(8)
        for (uint32_t i = 0; i < shape->run; i++) {
            const __m256i w = load_group(shape, codes, g + i, lane);

            CPU_UNROLL(4)
            for (uint32_t r = 0; r < shape->rows; r++) {
                const __m256i four = four_codes(x + (size_t)r * CPU_BLOCK + (size_t)(g + i) * 4);
                const __m256i products = pair_products(shape, w, four);

                sums[r] = i == 0 ? products : _mm256_add_epi16(sums[r], products);
            }
        }
        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape->rows; r++) {
            dot[r] = _mm256_add_epi32(dot[r], _mm256_madd_epi16(sums[r], ones));
        }
    }
}

/* What the rows of this expansion read: the tile from row `first` on. */
struct rows {
    const int8_t *high_codes; /* precise only */
    const int8_t *codes;      /* precise: the low ones */
    const float *scales;
    const float *sums;
    const int32_t *minus_sums;
    uint32_t height; /* of the whole tile: from block to block */
};

/* dot[r] = codes . x over a block, or over half of one. */
static CPU_EXPAND void dot_block(const struct shape *shape, const uint8_t *codes, uint32_t lane,
                                 const struct rows *rows, uint32_t from, uint32_t to,
                                 __m256i dot[ROWS_MAX])
{
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape->rows; r++) {
        dot[r] = shape->precise ? _mm256_setzero_si256() : first_dot(shape, rows->minus_sums[r]);
    }
    if (shape->precise) {
        dot_groups(shape, codes, lane, rows->high_codes, from, to, dot);
        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape->rows; r++) {
            dot[r] = after_high(shape, dot[r], rows->minus_sums[r]);
        }
    }
    dot_groups(shape, codes, lane, rows->codes, from, to, dot);
}

static CPU_EXPAND void add_block(const struct shape *shape, const uint8_t *scales, uint32_t block,
                                 uint32_t part, uint32_t lane, const struct rows *rows,
                                 __m256i dot[ROWS_MAX], __m256 acc[ROWS_MAX])
{
    const __m256 scale = load_scale(shape->scale, scales, block, part, lane);

    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape->rows; r++) {
        acc[r] = _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_set1_ps(rows->scales[r])),
                                 _mm256_cvtepi32_ps(dot[r]), acc[r]);
    }
    if (shape->scale == SCALE_HALF_MIN || shape->scale == SCALE_K) {
        const __m256 minimum = load_minimum(shape->scale, scales, block, lane);

        CPU_UNROLL(4)
        for (uint32_t r = 0; r < shape->rows; r++) {
            acc[r] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(rows->sums[r]), acc[r]);
        }
    }
}

static CPU_EXPAND void multiply(const struct shape shape, const struct backend_weight *weight,
                                const uint8_t *panel, uint32_t block_count, uint32_t lane,
                                struct rows rows, float *out, uint32_t stride)
{
    const uint32_t block_bytes = shape.bits == 4 ? NIBBLE_BLOCK_BYTES : BYTE_BLOCK_BYTES;
    const uint32_t parts = shape.scale == SCALE_K6 ? 2 : 1;
    const uint64_t panel_bytes = weight->panel_bytes;
    const uint8_t *scales = panel + weight->scale_offset;
    __m256 acc[ROWS_MAX];
    __m256i dot[ROWS_MAX];

    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape.rows; r++) {
        acc[r] = _mm256_setzero_ps();
    }
    for (uint32_t b = 0; b < block_count; b++) {
        CPU_UNROLL(2)
        for (uint32_t part = 0; part < parts; part++) {
            dot_block(&shape, panel, lane, &rows, part * 4, parts == 2 ? part * 4 + 4 : 8, dot);
            add_block(&shape, scales, b, part, lane, &rows, dot, acc);
            rows.minus_sums += rows.height;
        }
        /* The next panel, once: the processor's own prefetch stops while a tile works on this. */
        for (uint32_t i = 0; lane == 0 && i < block_bytes; i += 64) {
            _mm_prefetch((const char *)panel + panel_bytes + i, _MM_HINT_T1);
        }
        panel += block_bytes;
        rows.codes += (size_t)rows.height * CPU_BLOCK;
        rows.high_codes += shape.precise ? (size_t)rows.height * CPU_BLOCK : 0;
        rows.scales += rows.height;
        rows.sums += rows.height;
    }
    CPU_UNROLL(4)
    for (uint32_t r = 0; r < shape.rows; r++) {
        _mm256_storeu_ps(out + (size_t)r * stride + lane, acc[r]);
    }
}

#define ROWS(bits, run, shift, scale, precise, count)                                    \
    case count:                                                                          \
        multiply((struct shape){bits, run, shift, scale, precise, count}, weight, panel, \
                 block_count, lane, *rows, out, stride);                                 \
        break;

#define FUNCTION(name, bits, run, shift, scale, precise)                           \
    static void name(const struct backend_weight *weight, const uint8_t *panel,    \
                     uint32_t block_count, uint32_t lane, const struct rows *rows, \
                     uint32_t row_count, float *out, uint32_t stride)              \
    {                                                                              \
        switch (row_count) {                                                       \
            ROWS(bits, run, shift, scale, precise, 1)                              \
            ROWS(bits, run, shift, scale, precise, 2)                              \
            ROWS(bits, run, shift, scale, precise, 3)                              \
            ROWS(bits, run, shift, scale, precise, 4)                              \
        }                                                                          \
    }

#define FORMAT(name, bits, run, shift, scale)      \
    FUNCTION(name, bits, run, shift, scale, false) \
    FUNCTION(name##_precise, bits, run, shift, scale, true)

FORMAT(q4_0, 4, 8, 3, SCALE_HALF)
FORMAT(q4_1, 4, 8, 0, SCALE_HALF_MIN)
FORMAT(q5_0, 8, 4, 4, SCALE_HALF)
FORMAT(q5_1, 8, 4, 0, SCALE_HALF_MIN)
FORMAT(q8_0, 8, 1, SIGNED_SHIFT, SCALE_HALF)
FORMAT(q4_k, 4, 8, 0, SCALE_K)
FORMAT(q5_k, 8, 4, 0, SCALE_K)
FORMAT(q6_k, 8, 2, 5, SCALE_K6)

struct function {
    void (*run)(const struct backend_weight *weight, const uint8_t *panel, uint32_t block_count,
                uint32_t lane, const struct rows *rows, uint32_t row_count, float *out,
                uint32_t stride);
};

#define CHOICE(name)                    \
    return (struct function)            \
    {                                   \
        precise ? name##_precise : name \
    }

static struct function function_of(uint32_t dtype, bool precise)
{
    switch (dtype) {
    case DTYPE_Q4_0:
        CHOICE(q4_0);
    case DTYPE_Q4_1:
        CHOICE(q4_1);
    case DTYPE_Q5_0:
        CHOICE(q5_0);
    case DTYPE_Q5_1:
        CHOICE(q5_1);
    case DTYPE_Q8_0:
        CHOICE(q8_0);
    case DTYPE_Q4_K:
        CHOICE(q4_k);
    case DTYPE_Q5_K:
        CHOICE(q5_k);
    default:
        CHOICE(q6_k);
    }
}

void avx2_matmul_codes(const struct backend_weight *weight, uint32_t panel_first,
                       uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    const bool precise = tile->low_codes != NULL;
    const struct function function = function_of(weight->dtype, precise);
    const bool in_parts = weight->format.scale == SCALE_K6;
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;

    for (uint32_t p = 0; p < panel_count; p++) {
        const uint8_t *panel = cpu_weight_panel(weight, panel_first + p);

        for (uint32_t r = 0; r < tile->height; r += ROWS_MAX) {
            const uint32_t left = tile->height - r;
            const struct rows rows = {
                .high_codes = tile->codes + (size_t)r * CPU_BLOCK,
                .codes = (precise ? tile->low_codes : tile->codes) + (size_t)r * CPU_BLOCK,
                .scales = tile->scales + r,
                .sums = tile->sums + r,
                .minus_sums = (in_parts ? tile->half_sums : tile->code_sums) + r,
                .height = tile->height,
            };
            float *to = out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS;

            for (uint32_t lane = 0; lane < CPU_PANEL_ROWS; lane += LANES) {
                function.run(weight, panel, tile->block_count, lane, &rows,
                             left < ROWS_MAX ? left : ROWS_MAX, to, stride);
            }
        }
    }
}
