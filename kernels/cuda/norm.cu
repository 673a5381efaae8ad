/* Activations for the matrix product: RMS norm where asked for, rounding to bf16, or scaling and
 * rounding to f16; a block per row.
 *
 * Maths and shapes: struct cuda_activation_source in matmul.cuh.
 * Bound by: memory, about 10 bytes a value, against 4 flops; f16 reads the row once more.
 * Launch:   grid = row_count, block = BLOCK_THREADS, shared memory = a float per warp.
 * Order:    thread i sums the squares of columns i, i + BLOCK_THREADS ..., lanes fold 16, 8, 4, 2,
 *           1, warps are added from left to right: it depends on the number of columns only. The
 *           largest magnitude has no order; f16 is scaled by a power of two, exactly.
 * Checked:  tests/emulator/test_matmul.cpp, against double, derived bound.
 */
#include "kernels/cuda/matmul.cuh"

enum { BLOCK_THREADS = 128, BLOCK_WARPS = BLOCK_THREADS / CUDA_WARP_LANES };

/* Every thread gets the sum. */
DEVICE_INLINE float sum_of_squares(const float *x, uint32_t cols, float *warp_sums)
{
    float sum = 0.0f;

    for (uint32_t c = PRIM_THREAD; c < cols; c += BLOCK_THREADS) {
        sum = fmaf(x[c], x[c], sum);
    }
    for (uint32_t lanes = CUDA_WARP_LANES / 2; lanes > 0; lanes /= 2) {
        sum += prim_shuffle_xor(sum, lanes);
    }
    if (PRIM_THREAD % CUDA_WARP_LANES == 0) {
        warp_sums[PRIM_THREAD / CUDA_WARP_LANES] = sum;
    }
    prim_sync();
    sum = warp_sums[0];
    for (uint32_t w = 1; w < BLOCK_WARPS; w++) {
        sum += warp_sums[w];
    }
    return sum;
}

/* Every thread gets the largest; a NaN is none. */
DEVICE_INLINE float block_largest(float largest, float *warp_maxima)
{
    for (uint32_t lanes = CUDA_WARP_LANES / 2; lanes > 0; lanes /= 2) {
        const float other = prim_shuffle_xor(largest, lanes);

        largest = other > largest ? other : largest;
    }
    prim_sync(); /* the warps' sums were read */
    if (PRIM_THREAD % CUDA_WARP_LANES == 0) {
        warp_maxima[PRIM_THREAD / CUDA_WARP_LANES] = largest;
    }
    prim_sync();
    for (uint32_t w = 0; w < BLOCK_WARPS; w++) {
        largest = warp_maxima[w] > largest ? warp_maxima[w] : largest;
    }
    return largest;
}

/* Column c of the row, normed if that was asked for. */
DEVICE_INLINE float value_of(const struct cuda_activation_source &source, const float *x,
                             float inverse, uint32_t c)
{
    return source.norm == NULL ? x[c] : x[c] * inverse * source.norm[c];
}

/* Index in the scratch of the pair of columns (col, col + 1), col even, in 32-bit words. */
DEVICE_INLINE uint64_t pair_place(uint32_t row, uint32_t col, uint32_t group_count)
{
    const uint64_t group = (uint64_t)(row / CUDA_TILE_ROWS) * group_count + col / 8;

    return (group * CUDA_TILE_ROWS + row % CUDA_TILE_ROWS) * 4 + col % 8 / 2;
}

static KERNEL void activations_kernel(struct cuda_activation_source source, uint32_t *to)
{
    SHARED(float, warp_sums);
    const uint32_t row = PRIM_BLOCK_X;
    const uint32_t units = (source.cols + CUDA_UNIT_COLS - 1) / CUDA_UNIT_COLS;
    const bool is_half = source.row_scales != NULL;
    float inverse = 1.0f, down = 1.0f;

    prim_depend_launch(); /* the product may fetch weights meanwhile */
    prim_depend_wait();
    if (source.row_count_at != NULL && row >= *source.row_count_at) {
        return;
    }
    const uint32_t index = source.row_indices == NULL ? row : source.row_indices[row];
    const float *x = source.x + (uint64_t)index * source.cols;

    if (source.norm != NULL) {
        const float sum = sum_of_squares(x, source.cols, warp_sums);

        inverse = 1.0f / sqrtf(sum / (float)source.cols + source.epsilon);
    }
    if (is_half) {
        float largest = 0.0f;

        for (uint32_t c = PRIM_THREAD; c < source.cols; c += BLOCK_THREADS) {
            const float magnitude = fabsf(value_of(source, x, inverse, c));

            largest = magnitude > largest ? magnitude : largest;
        }
        largest = block_largest(largest, warp_sums);
        down = cuda_half_down(largest);
        if (PRIM_THREAD == 0) {
            /* An infinity shall be seen, whether rounding keeps it or not. */
            source.row_scales[row] = largest < INFINITY ? cuda_half_up(down) : INFINITY;
        }
    }
    for (uint32_t c = 2 * PRIM_THREAD; c < units * CUDA_UNIT_COLS; c += 2 * BLOCK_THREADS) {
        float pair[2] = {0.0f, 0.0f};

        for (uint32_t i = 0; i < 2 && c + i < source.cols; i++) {
            pair[i] = value_of(source, x, inverse, c + i);
        }
        const uint64_t place = source.is_plain
                                   ? (uint64_t)row * units * (CUDA_UNIT_COLS / 2) + c / 2
                                   : pair_place(row, c, units * 8);

        to[place] = is_half ? prim_pack_half(pair[0] * down, pair[1] * down)
                            : prim_pack_bf16(pair[0], pair[1]);
    }
}

enum status cuda_activations_fill(struct device *device,
                                  const struct cuda_activation_source *source, uint16_t *to)
{
    if (source->row_count == 0) {
        return STATUS_OK;
    }
    return device_launch<activations_kernel>(device, source->row_count, 1, BLOCK_THREADS,
                                             BLOCK_WARPS * (uint32_t)sizeof(float), *source,
                                             (uint32_t *)to);
}
