/* Quantised weights times int8 rows.
 *
 * Bound by: for few rows the weights' bytes, for many vpdpbusd (8 a block, panel and row).
 * Every function below takes its shape as constants and is expanded once a shape, so that all sums
 * of a tile stay in registers.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/avx512/matmul.h"
#include "kernels/cpu/expand.h"

enum {
    NIBBLE_BLOCK_BYTES = 256,
    BYTE_BLOCK_BYTES = 512,
    SUB_BLOCKS = CPU_SUPER_BLOCK / CPU_BLOCK,
    K_BYTES = 64 + 2 * SUB_BLOCKS * CPU_PANEL_ROWS,  /* of SCALE_K, 8 blocks */
    K6_BYTES = 32 + 2 * SUB_BLOCKS * CPU_PANEL_ROWS, /* of SCALE_K6, 8 blocks */
    PAIR_ROWS_MAX = 6, /* up to this height two panels share each load of an activation */
};

/* The shape of an expansion. */
struct shape {
    uint32_t bits;
    uint32_t offset_shift;
    enum cpu_scale scale;
    bool precise; /* rows of two codes a column */
    uint32_t panels;
    uint32_t rows;
};

static CPU_EXPAND __m512 halves_to_floats(const uint8_t *halves)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)halves));
}

static CPU_EXPAND __m512 bytes_to_floats(const uint8_t *bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)bytes)));
}

static CPU_EXPAND __m512 signed_bytes_to_floats(const uint8_t *bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)bytes)));
}

static CPU_EXPAND __m512 load_scale(enum cpu_scale kind, const uint8_t *scales, uint32_t block,
                                    uint32_t half)
{
    const uint8_t *super;

    switch (kind) {
    case SCALE_HALF:
        return halves_to_floats(scales + (uint64_t)block * 32);
    case SCALE_HALF_MIN:
        return halves_to_floats(scales + (uint64_t)block * 64);
    case SCALE_K:
        super = scales + (uint64_t)(block / SUB_BLOCKS) * K_BYTES;
        return _mm512_mul_ps(halves_to_floats(super),
                             bytes_to_floats(super + 64 + block % SUB_BLOCKS * CPU_PANEL_ROWS));
    case SCALE_K6:
        super = scales + (uint64_t)(block / SUB_BLOCKS) * K6_BYTES;
        return _mm512_mul_ps(halves_to_floats(super),
                             signed_bytes_to_floats(
                                 super + 32 + (2 * (block % SUB_BLOCKS) + half) * CPU_PANEL_ROWS));
    case SCALE_NONE:
        break;
    }
    return _mm512_setzero_ps();
}

static CPU_EXPAND __m512 load_minimum(enum cpu_scale kind, const uint8_t *scales, uint32_t block)
{
    const uint8_t *super = scales + (uint64_t)(block / SUB_BLOCKS) * K_BYTES;

    if (kind == SCALE_HALF_MIN) {
        return halves_to_floats(scales + (uint64_t)block * 64 + 32);
    }
    return _mm512_mul_ps(halves_to_floats(super + 32),
                         bytes_to_floats(super + 64 + SUB_BLOCKS * CPU_PANEL_ROWS +
                                         block % SUB_BLOCKS * CPU_PANEL_ROWS));
}

static CPU_EXPAND __m512i four_codes(const int8_t *codes)
{
    int32_t word;

    memcpy(&word, codes, sizeof(word));
    return _mm512_set1_epi32(word);
}

/* The shift count is part of an instruction: each needs its own. */
static CPU_EXPAND __m512i times_power(__m512i value, uint32_t shift)
{
    switch (shift) {
    case 3:
        return _mm512_slli_epi32(value, 3);
    case 4:
        return _mm512_slli_epi32(value, 4);
    case 5:
        return _mm512_slli_epi32(value, 5);
    default:
        return _mm512_slli_epi32(value, 7);
    }
}

/* Where the sums of integers start: minus what the codes' offset adds. */
static CPU_EXPAND __m512i first_dot(const struct shape *shape, int32_t minus_sum)
{
    if (shape->scale == SCALE_HALF_MIN || shape->scale == SCALE_K) {
        return _mm512_setzero_si512();
    }
    return times_power(_mm512_set1_epi32(minus_sum), shape->offset_shift);
}

/* From the products of the high codes to where those of the low ones go on: times 255. */
static CPU_EXPAND __m512i after_high(const struct shape *shape, __m512i dot, int32_t minus_sum)
{
    return _mm512_add_epi32(_mm512_sub_epi32(_mm512_slli_epi32(dot, 8), dot),
                            first_dot(shape, minus_sum));
}

/* dot + w * four codes, the broadcast being part of the instruction. Compilers make a load of its
 * own of it, which is as many instructions again: a core that two threads share is bound by these.
 */
static CPU_EXPAND __m512i dot_four(__m512i dot, __m512i w, const int8_t *codes)
{
#ifdef CPU_SANITIZED
    return _mm512_dpbusd_epi32(dot, w, four_codes(codes));
#else
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(dot) : "v"(w), "m"(*(const int8_t(*)[4])codes));
    return dot;
#endif
}

/* dot[p][r] += codes . x over the groups [from, to) of four columns of a block. */
static CPU_EXPAND void dot_groups(const struct shape *shape, const uint8_t *const *codes,
                                  const int8_t *x, uint32_t from, uint32_t to,
                                  __m512i dot[2][CPU_TILE_ROWS_MAX])
{
    const __m512i low = _mm512_set1_epi8(15);

    CPU_UNROLL(8)
    for (uint32_t g = from; g < to; g++) {
        __m512i w[2];

        CPU_UNROLL(2)
        for (uint32_t p = 0; p < shape->panels; p++) {
            if (shape->bits == 8) {
                w[p] = _mm512_load_si512(codes[p] + (size_t)g * 64);
            } else {
                w[p] = _mm512_load_si512(codes[p] + (size_t)(g % 4) * 64);
                w[p] = _mm512_and_si512(g < 4 ? w[p] : _mm512_srli_epi16(w[p], 4), low);
            }
        }
        CPU_UNROLL(12)
        for (uint32_t r = 0; r < shape->rows; r++) {
            const int8_t *codes_of_row = x + (size_t)r * CPU_BLOCK + (size_t)g * 4;

            if (shape->panels == 1) {
                dot[0][r] = dot_four(dot[0][r], w[0], codes_of_row);
            } else {
                const __m512i four = four_codes(codes_of_row);

                dot[0][r] = _mm512_dpbusd_epi32(dot[0][r], w[0], four);
                dot[1][r] = _mm512_dpbusd_epi32(dot[1][r], w[1], four);
            }
        }
    }
}

/* Codes of the rows that a block is multiplied with, and what their sums bring in. */
struct rows {
    const int8_t *high_codes; /* precise only */
    const int8_t *codes;      /* precise: the low ones */
    const int32_t *minus_sums;
};

/* dot[p][r] = codes . x over a block, or over half of one. */
static CPU_EXPAND void dot_block(const struct shape *shape, const uint8_t *const *codes,
                                 const struct rows *rows, uint32_t from, uint32_t to,
                                 __m512i dot[2][CPU_TILE_ROWS_MAX])
{
    CPU_UNROLL(12)
    for (uint32_t r = 0; r < shape->rows; r++) {
        CPU_UNROLL(2)
        for (uint32_t p = 0; p < shape->panels; p++) {
            dot[p][r] =
                shape->precise ? _mm512_setzero_si512() : first_dot(shape, rows->minus_sums[r]);
        }
    }
    if (shape->precise) {
        dot_groups(shape, codes, rows->high_codes, from, to, dot);
        CPU_UNROLL(12)
        for (uint32_t r = 0; r < shape->rows; r++) {
            CPU_UNROLL(2)
            for (uint32_t p = 0; p < shape->panels; p++) {
                dot[p][r] = after_high(shape, dot[p][r], rows->minus_sums[r]);
            }
        }
    }
    dot_groups(shape, codes, rows->codes, from, to, dot);
}

/* The panels after these, to where they cost a few cycles: a tile of rows works on a panel for so
 * long that the processor's own prefetch stops. */
static CPU_EXPAND void prefetch(const struct shape *shape, const struct backend_weight *weight,
                                const uint8_t *codes, uint32_t block_bytes)
{
    const uint8_t *next = codes + shape->panels * weight->panel_bytes;

    CPU_UNROLL(8)
    for (uint32_t i = 0; i < block_bytes; i += 64) {
        _mm_prefetch((const char *)next + i, _MM_HINT_T1);
    }
}

/* The same for scales of a block; those of super blocks are few. */
static CPU_EXPAND void prefetch_scales(const struct shape *shape,
                                       const struct backend_weight *weight, const uint8_t *scales,
                                       uint32_t block)
{
    const uint8_t *next = scales + shape->panels * weight->panel_bytes;

    if (shape->scale == SCALE_HALF_MIN) {
        _mm_prefetch((const char *)next + (size_t)block * 64, _MM_HINT_T1);
    } else if (shape->scale == SCALE_HALF && block % 2 == 0) {
        _mm_prefetch((const char *)next + (size_t)block * 32, _MM_HINT_T1);
    }
}

/* acc += scales * dot (+ minimum * sum) for a block, or for half of one. */
static CPU_EXPAND void add_block(const struct shape *shape, const uint8_t *const *scales,
                                 uint32_t block, uint32_t half, const float *x_scales,
                                 const float *x_sums, __m512i dot[2][CPU_TILE_ROWS_MAX],
                                 __m512 acc[2][CPU_TILE_ROWS_MAX])
{
    CPU_UNROLL(2)
    for (uint32_t p = 0; p < shape->panels; p++) {
        const __m512 scale = load_scale(shape->scale, scales[p], block, half);

        CPU_UNROLL(12)
        for (uint32_t r = 0; r < shape->rows; r++) {
            acc[p][r] = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(x_scales[r])),
                                        _mm512_cvtepi32_ps(dot[p][r]), acc[p][r]);
        }
        if (shape->scale == SCALE_HALF_MIN || shape->scale == SCALE_K) {
            const __m512 minimum = load_minimum(shape->scale, scales[p], block);

            CPU_UNROLL(12)
            for (uint32_t r = 0; r < shape->rows; r++) {
                acc[p][r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x_sums[r]), acc[p][r]);
            }
        }
    }
}

static CPU_EXPAND void multiply(const struct shape shape, const struct backend_weight *weight,
                                uint32_t panel, const struct cpu_tile *tile, float *out,
                                uint32_t stride)
{
    const uint32_t block_bytes = shape.bits == 4 ? NIBBLE_BLOCK_BYTES : BYTE_BLOCK_BYTES;
    const uint32_t halves = shape.scale == SCALE_K6 ? 2 : 1;
    struct rows rows = {
        .high_codes = tile->codes,
        .codes = shape.precise ? tile->low_codes : tile->codes,
        .minus_sums = halves == 2 ? tile->half_sums : tile->code_sums,
    };
    const float *x_scales = tile->scales;
    const float *x_sums = tile->sums;
    const uint8_t *codes[2], *scales[2];
    __m512 acc[2][CPU_TILE_ROWS_MAX];
    __m512i dot[2][CPU_TILE_ROWS_MAX];

    CPU_UNROLL(2)
    for (uint32_t p = 0; p < shape.panels; p++) {
        codes[p] = cpu_weight_panel(weight, panel + p);
        scales[p] = codes[p] + weight->scale_offset;
        CPU_UNROLL(12)
        for (uint32_t r = 0; r < shape.rows; r++) {
            acc[p][r] = _mm512_setzero_ps();
        }
    }
    for (uint32_t b = 0; b < tile->block_count; b++) {
        CPU_UNROLL(2)
        for (uint32_t half = 0; half < halves; half++) {
            dot_block(&shape, codes, &rows, half * 4, halves == 2 ? half * 4 + 4 : 8, dot);
            add_block(&shape, scales, b, half, x_scales, x_sums, dot, acc);
            rows.minus_sums += shape.rows;
        }
        CPU_UNROLL(2)
        for (uint32_t p = 0; p < shape.panels; p++) {
            prefetch(&shape, weight, codes[p], block_bytes);
            prefetch_scales(&shape, weight, scales[p], b);
            codes[p] += block_bytes;
        }
        rows.codes += (size_t)shape.rows * CPU_BLOCK;
        rows.high_codes += (size_t)shape.rows * CPU_BLOCK;
        x_scales += shape.rows;
        x_sums += shape.rows;
    }
    CPU_UNROLL(12)
    for (uint32_t r = 0; r < shape.rows; r++) {
        CPU_UNROLL(2)
        for (uint32_t p = 0; p < shape.panels; p++) {
            _mm512_storeu_ps(out + (size_t)r * stride + (size_t)p * CPU_PANEL_ROWS, acc[p][r]);
        }
    }
}

#define ROWS(bits, shift, scale, precise, panels, rows)                                          \
    case rows:                                                                                   \
        multiply((struct shape){bits, shift, scale, precise, panels, rows}, weight, panel, tile, \
                 out, stride);                                                                   \
        break;

#define LOW_ROWS(bits, shift, scale, precise, panels) \
    ROWS(bits, shift, scale, precise, panels, 1)      \
    ROWS(bits, shift, scale, precise, panels, 2)      \
    ROWS(bits, shift, scale, precise, panels, 3)      \
    ROWS(bits, shift, scale, precise, panels, 4)      \
    ROWS(bits, shift, scale, precise, panels, 5)      \
    ROWS(bits, shift, scale, precise, panels, 6)

/* One panel at any height, two panels up to PAIR_ROWS_MAX rows. */
#define FUNCTIONS(name, bits, shift, scale, precise)                                  \
    static void name##_pair(const struct backend_weight *weight, uint32_t panel,      \
                            const struct cpu_tile *tile, float *out, uint32_t stride) \
    {                                                                                 \
        switch (tile->height) {                                                       \
            LOW_ROWS(bits, shift, scale, precise, 2)                                  \
        }                                                                             \
    }                                                                                 \
    static void name##_one(const struct backend_weight *weight, uint32_t panel,       \
                           const struct cpu_tile *tile, float *out, uint32_t stride)  \
    {                                                                                 \
        switch (tile->height) {                                                       \
            LOW_ROWS(bits, shift, scale, precise, 1)                                  \
            ROWS(bits, shift, scale, precise, 1, 7)                                   \
            ROWS(bits, shift, scale, precise, 1, 8)                                   \
            ROWS(bits, shift, scale, precise, 1, 9)                                   \
            ROWS(bits, shift, scale, precise, 1, 10)                                  \
            ROWS(bits, shift, scale, precise, 1, 11)                                  \
            ROWS(bits, shift, scale, precise, 1, 12)                                  \
        }                                                                             \
    }

#define FORMAT(name, bits, shift, scale)       \
    FUNCTIONS(name, bits, shift, scale, false) \
    FUNCTIONS(name##_precise, bits, shift, scale, true)

FORMAT(q4_0, 4, 3, SCALE_HALF)
FORMAT(q4_1, 4, 0, SCALE_HALF_MIN)
FORMAT(q5_0, 8, 4, SCALE_HALF)
FORMAT(q5_1, 8, 0, SCALE_HALF_MIN)
FORMAT(q8_0, 8, 7, SCALE_HALF)
FORMAT(q4_k, 4, 0, SCALE_K)
FORMAT(q5_k, 8, 0, SCALE_K)
FORMAT(q6_k, 8, 5, SCALE_K6)

struct functions {
    void (*one)(const struct backend_weight *weight, uint32_t panel, const struct cpu_tile *tile,
                float *out, uint32_t stride);
    void (*pair)(const struct backend_weight *weight, uint32_t panel, const struct cpu_tile *tile,
                 float *out, uint32_t stride);
};

#define CHOICE(name)                                                             \
    return precise ? (struct functions){name##_precise_one, name##_precise_pair} \
                   : (struct functions)                                          \
    {                                                                            \
        name##_one, name##_pair                                                  \
    }

static struct functions functions_of(uint32_t dtype, bool precise)
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

void avx512_matmul_codes(const struct backend_weight *weight, uint32_t panel_first,
                         uint32_t panel_count, const struct cpu_tile *tile, float *out)
{
    const struct functions functions = functions_of(weight->dtype, tile->low_codes != NULL);
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;
    uint32_t p = 0;

    if (tile->height <= PAIR_ROWS_MAX) {
        for (; p + 2 <= panel_count; p += 2) {
            functions.pair(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
        }
    }
    for (; p < panel_count; p++) {
        functions.one(weight, panel_first + p, tile, out + (size_t)p * CPU_PANEL_ROWS, stride);
    }
}
