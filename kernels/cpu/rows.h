/* The activations that a matrix product reads: rows of floats and, for quantised weights, the same
 * rows in blocks of 32 as int8, or as two int8 that make 16 bits. Laid out in tiles of a few rows
 * so that a kernel reaches all rows of its tile from one pointer.
 *
 * Quantising (defines the bits): amax = largest |x| of the block. amax below 2^-80: scale and codes
 * 0. A NaN or an infinity in the block: scale NaN, codes 0. Else scale = amax / 127 and code =
 * x * (127 / amax) rounded to nearest, ties to even.
 *
 * Precise (backend settings): the same with 32512 in the place of 127. A code is 255 * high + low
 * with high and low in [-127, 127], of which there is one way only (255 * 127 + 127 = 32512), so
 * that its products are those of two int8 codes.
 *
 * Rounding to BF16, for paired weights: to nearest, ties to even; what is then smaller than 2^-56
 * is 0. As no such weight is smaller either, all products are multiples of 2^-126, and so is every
 * sum of them, however it was rounded: none is a denormal, which dot products of BF16 would drop.
 *
 * Thread: prepared by the engine thread; packed by workers, a row by one of them; then read by all.
 */
#ifndef PERSONAD_KERNELS_CPU_ROWS_H
#define PERSONAD_KERNELS_CPU_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct backend_weight;

enum {
    CPU_TILE_ROWS_MAX = 12,
    CPU_BF16_MIN_BITS = (127 - 56) << 7, /* 2^-56 */
    CPU_BF16_MAX_BITS = 0x7f7f,          /* the largest finite one */
    CPU_CODE_MAX = 127,
    CPU_CODE_RADIX = 255, /* of precise codes */
    CPU_PRECISE_CODE_MAX = CPU_CODE_RADIX * CPU_CODE_MAX + CPU_CODE_MAX,
};

/* tile t starts at row t * tile_rows; the last may be lower. h is the tile's own height. */
struct cpu_rows {
    uint32_t row_count;
    uint32_t cols;
    uint32_t block_count; /* cols / 32, rounded up */
    uint32_t tile_rows;
    uint32_t tile_count;
    bool is_precise;
    bool with_words;  /* paired rows are words of two BF16: what the instruction set takes */
    bool with_floats; /* which forms are packed */
    bool with_pairs;
    bool with_codes;
    bool with_halves; /* half_sums beside codes */

    /* owned; all tiles one after another */
    float *values;      /* tile: [k][h] */
    float *paired;      /* tile: [k rounded up to even][h], rounded to BF16 */
    uint32_t *words;    /* the same memory; tile: [k / 2][h], the even column in the low half */
    int8_t *codes;      /* tile: [block][h][32]; precise: the high parts */
    int8_t *low_codes;  /* precise: [block][h][32]; else NULL */
    float *scales;      /* tile: [block][h] */
    float *sums;        /* tile: [block][h], scale * (sum of the block's codes) */
    int32_t *code_sums; /* tile: [block][h], minus the sum of the block's (whole) codes */
    int32_t *half_sums; /* tile: [block][2][h], the same of each half block */
    float *rows; /* [thread][CPU_TILE_ROWS_MAX][cols_max]: a worker's normed rows of a tile */
    uint32_t row_count_max;
    uint32_t cols_max;
    uint32_t thread_count;
};

/* Floats to be packed: some columns of all rows of one tile. */
struct cpu_tile_part {
    uint32_t tile;
    uint32_t col_first; /* a multiple of 32 */
    uint32_t col_count; /* a multiple of 32, or up to the last column */
    const float *x;     /* column col_first + c of the tile's row r: x[r * stride + c] */
    size_t stride;
};

/* The part of `rows` that one tile reads. */
struct cpu_tile {
    uint32_t row_first;
    uint32_t height;
    uint32_t cols;
    uint32_t block_count;
    const float *values;
    const float *paired;
    const uint32_t *words;
    const int8_t *codes;
    const int8_t *low_codes; /* NULL: not precise */
    const float *scales;
    const float *sums;
    const int32_t *code_sums;
    const int32_t *half_sums;
};

/* with_words: struct cpu_kernels has it. */
MUST_USE enum status cpu_rows_create(uint32_t row_count_max, uint32_t thread_count, bool is_precise,
                                     bool with_words, struct cpu_rows **out);
void cpu_rows_destroy(struct cpu_rows *rows);

/* Between steps: what the last one has packed is forgotten, and its memory given back. */
void cpu_rows_clear(struct cpu_rows *rows);

/* Makes room for rows of `cols` columns; called when an operation is recorded. MEMORY. */
MUST_USE enum status cpu_rows_reserve(struct cpu_rows *rows, uint32_t cols);

/* Starts a new set of rows. */
struct cpu_row_forms {
    bool with_floats, with_pairs, with_codes, with_halves;
};

/* Also what `weight` reads. */
void cpu_row_forms_add(struct cpu_row_forms *forms, const struct backend_weight *weight);

void cpu_rows_begin(struct cpu_rows *rows, uint32_t row_count, uint32_t cols,
                    struct cpu_row_forms forms);
void cpu_rows_tile(const struct cpu_rows *rows, uint32_t tile, struct cpu_tile *out);

#endif
