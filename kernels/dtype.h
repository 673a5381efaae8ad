/* Storage types of weights, numbered as GGUF numbers them, and their sizes.
 *
 * A row of a block type has cols elements in blocks of dtype_block_elements(); cols is a multiple
 * of it. Reads as C11 and C++17.
 */
#ifndef PERSONAD_KERNELS_DTYPE_H
#define PERSONAD_KERNELS_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/* name, number in GGUF, elements a block, bytes a block */
#define DTYPE_MAP(X)      \
    X(F32, 0, 1, 4)       \
    X(F16, 1, 1, 2)       \
    X(Q4_0, 2, 32, 18)    \
    X(Q4_1, 3, 32, 20)    \
    X(Q5_0, 6, 32, 22)    \
    X(Q5_1, 7, 32, 24)    \
    X(Q8_0, 8, 32, 34)    \
    X(Q4_K, 12, 256, 144) \
    X(Q5_K, 13, 256, 176) \
    X(Q6_K, 14, 256, 210) \
    X(BF16, 30, 1, 2)

enum dtype {
#define X(name, number, elements, bytes) DTYPE_##name = (number),
    DTYPE_MAP(X)
#undef X
};

#ifdef __cplusplus
extern "C" {
#endif

/* "Q4_1"; NULL for a number outside the map. */
const char *dtype_name(uint32_t dtype);

/* 0 for a number outside the map. */
uint32_t dtype_block_elements(uint32_t dtype);
uint32_t dtype_block_bytes(uint32_t dtype);

/* Writes cols floats: the value of each element exactly as the `gguf` Python package dequantises
 * it. */
void dtype_dequantize_row(uint32_t dtype, const void *row, uint32_t cols, float *out);

#ifdef __cplusplus
}
#endif

#endif
