/* Sizes for which a program's graphs are made: a step runs in the smallest that holds its rows.
 *
 * Reads as C11 and as C++. Thread: any; pure functions. A graph's grids are fixed, and its kernels
 * loop to the counts in the plan, so a bucket decides how much of the card is asked for and no bit.
 * Rows 8, 16, 32 and so on by doubling, the last being the program's own bound.
 */
#ifndef PERSONAD_KERNELS_CUDA_BUCKET_H
#define PERSONAD_KERNELS_CUDA_BUCKET_H

#include <stdint.h>

enum {
    BUCKET_ROWS_FIRST = 8, /* N of a tensor-core step: fewer rows cost the same */
    BUCKET_COUNT_MAX = 16,
};

/* How many buckets a program of at most row_count_max rows (at least 1) has. */
static inline uint32_t bucket_count(uint32_t row_count_max)
{
    uint64_t rows = BUCKET_ROWS_FIRST;
    uint32_t count = 1;

    while (rows < row_count_max && count < BUCKET_COUNT_MAX) {
        rows *= 2;
        count++;
    }
    return count;
}

/* The most rows of a bucket. */
static inline uint32_t bucket_rows(uint32_t row_count_max, uint32_t bucket)
{
    const uint64_t rows = (uint64_t)BUCKET_ROWS_FIRST << bucket;

    return rows >= row_count_max || bucket + 1 == bucket_count(row_count_max) ? row_count_max
                                                                              : (uint32_t)rows;
}

/* The smallest that holds row_count rows, which is at most row_count_max; 0 rows fit the first. */
static inline uint32_t bucket_of(uint32_t row_count_max, uint32_t row_count)
{
    uint32_t bucket = 0;

    while (bucket_rows(row_count_max, bucket) < row_count) {
        bucket++;
    }
    return bucket;
}

#endif
