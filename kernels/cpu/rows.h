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
 * Thread: prepared by the engine thread; packed by workers, a row by one of them; then read by all.
 */
#ifndef PERSONAD_KERNELS_CPU_ROWS_H
#define PERSONAD_KERNELS_CPU_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum {
    CPU_TILE_ROWS_MAX = 12,
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
    bool with_floats; /* which of the two forms is packed */
    bool with_codes;

    /* owned; all tiles one after another */
    float *values;      /* tile: [k][h] */
    int8_t *codes;      /* tile: [block][h][32]; precise: the high parts */
    int8_t *low_codes;  /* precise: [block][h][32]; else NULL */
    float *scales;      /* tile: [block][h] */
    float *sums;        /* tile: [block][h], scale * (sum of the block's codes) */
    int32_t *code_sums; /* tile: [block][h], minus the sum of the block's (whole) codes */
    int32_t *half_sums; /* tile: [block][2][h], the same of each half block */
    float *rows;        /* [thread][cols_max]: where a worker norms a row before it is packed */
    uint32_t row_count_max;
    uint32_t cols_max;
    uint32_t thread_count;
};

/* The part of `rows` that one tile reads. */
struct cpu_tile {
    uint32_t row_first;
    uint32_t height;
    uint32_t cols;
    uint32_t block_count;
    const float *values;
    const int8_t *codes;
    const int8_t *low_codes; /* NULL: not precise */
    const float *scales;
    const float *sums;
    const int32_t *code_sums;
    const int32_t *half_sums;
};

MUST_USE enum status cpu_rows_create(uint32_t row_count_max, uint32_t thread_count, bool is_precise,
                                     struct cpu_rows **out);
void cpu_rows_destroy(struct cpu_rows *rows);

/* Makes room for rows of `cols` columns; called when an operation is recorded. MEMORY. */
MUST_USE enum status cpu_rows_reserve(struct cpu_rows *rows, uint32_t cols);

/* Starts a new set of rows. */
void cpu_rows_begin(struct cpu_rows *rows, uint32_t row_count, uint32_t cols, bool with_floats,
                    bool with_codes);
void cpu_rows_tile(const struct cpu_rows *rows, uint32_t tile, struct cpu_tile *out);

#endif
