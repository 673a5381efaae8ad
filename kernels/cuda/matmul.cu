/* The matrix product, one block per panel of 16 outputs and up to 8 tiles of 8 rows.
 *
 * Maths and shapes: struct cuda_matmul_args in matmul.cuh.
 * Bound by: memory, the weights once for every 64 rows; from about 64 rows the tensor cores.
 * Launch:   grid = (panels, tiles of rows / TILES), block = a warp per segment of K (and of gate
 * and up), dynamic shared memory = the warps' sums. Order:    a warp is a segment; segments are
 * added from left to right (matmul.cuh). Checked:  tests/emulator/test_matmul.cpp, against double
 * over the bf16 operands, derived bound.
 */
#include "kernels/cuda/matmul.cuh"

#include "base/check.h"

/* As the CPU backend computes it. */
DEVICE_INLINE float silu(float z)
{
    const float e = steps_exp(-fabsf(z));

    return (z >= 0.0f ? z : z * e) / (1.0f + e);
}

/* The segments' sums of output o of tile row n: element (o, n) of the C operand. */
template <int TILES>
DEVICE_INLINE float fold_segments(const float *partials, uint32_t o, uint32_t n)
{
    const uint32_t lane = o % 8 * 4 + n % 8 / 2;
    const uint32_t at = (n / 8 * CUDA_WARP_LANES + lane) * 4 + o / 8 * 2 + n % 2;
    float sum = partials[at];

    for (uint32_t s = 1; s < CUDA_SEGMENT_COUNT; s++) {
        sum += partials[s * TILES * CUDA_WARP_LANES * 4 + at];
    }
    return sum;
}

template <int TILES, uint32_t EPILOGUE>
DEVICE_INLINE void finish_rows(const struct cuda_matmul_part &part, const float *partials,
                               uint32_t output_first, uint32_t row_first, uint32_t row_count)
{
    const uint32_t count = TILES * CUDA_TILE_ROWS * CUDA_PANEL_ROWS;

    for (uint32_t i = PRIM_THREAD; i < count; i += PRIM_THREADS) {
        const uint32_t o = i % CUDA_PANEL_ROWS, n = i / CUDA_PANEL_ROWS;
        const uint32_t output = output_first + o, row = row_first + n;
        float *to = part.out + (uint64_t)row * part.stride + output;
        float sum;

        if (output >= part.weight.rows || row >= row_count) {
            continue;
        }
        sum = fold_segments<TILES>(partials, o, n);
        if (EPILOGUE == CUDA_SWIGLU) {
            const uint32_t half = CUDA_SEGMENT_COUNT * TILES * CUDA_WARP_LANES * 4;

            *to = silu(sum) * fold_segments<TILES>(partials + half, o, n);
        } else if (EPILOGUE == CUDA_ADD) {
            *to += part.bias == NULL ? sum : sum + part.bias[output];
        } else {
            *to = sum;
        }
    }
}

template <int TILES, uint32_t EPILOGUE>
static KERNEL void matmul_kernel(struct cuda_matmul_args args)
{
    SHARED(float, partials);
    const uint32_t warp = PRIM_THREAD / CUDA_WARP_LANES;
    const uint32_t segment = warp % CUDA_SEGMENT_COUNT;
    const uint32_t tile_first = PRIM_BLOCK_Y * TILES;
    uint32_t index = EPILOGUE == CUDA_SWIGLU ? warp / CUDA_SEGMENT_COUNT : 0;
    struct cuda_chain chain;
    float sums[TILES][4] = {};

    prim_depend_wait();
    const uint32_t row_count = args.row_count_at == NULL ? args.row_count : *args.row_count_at;
    const uint32_t tile_count = (row_count + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS;
    if (tile_first >= tile_count) {
        return;
    }
    if (EPILOGUE != CUDA_SWIGLU) {
        while (index + 1 < args.part_count && PRIM_BLOCK_X >= args.parts[index + 1].panel_first) {
            index++;
        }
    }
    const struct cuda_matmul_part &part = args.parts[index];
    const uint32_t units = part.weight.unit_count;

    chain.panel = PRIM_BLOCK_X - (EPILOGUE == CUDA_SWIGLU ? 0 : part.panel_first);
    chain.unit_begin = units * segment / CUDA_SEGMENT_COUNT;
    chain.unit_end = units * (segment + 1) / CUDA_SEGMENT_COUNT;
    chain.tile_count = tile_count - tile_first;
    chain.lane = PRIM_THREAD % CUDA_WARP_LANES;
    chain.activations = (const struct cuda_words *)args.activations +
                        (uint64_t)tile_first * units * 2 * CUDA_WARP_LANES;
    cuda_chain_run_any<TILES>(part.weight, chain, sums);
    for (uint32_t t = 0; t < TILES; t++) {
        float *to = partials + ((warp * TILES + t) * CUDA_WARP_LANES + chain.lane) * 4;

        to[0] = sums[t][0];
        to[1] = sums[t][1];
        to[2] = sums[t][2];
        to[3] = sums[t][3];
    }
    prim_sync();
    finish_rows<TILES, EPILOGUE>(args.parts[EPILOGUE == CUDA_SWIGLU ? 0 : index], partials,
                                 chain.panel * CUDA_PANEL_ROWS, tile_first * CUDA_TILE_ROWS,
                                 row_count);
    prim_depend_launch();
}

template <int TILES, uint32_t EPILOGUE>
static enum status launch(struct device *device, const struct cuda_matmul_args *args,
                          uint32_t panel_count)
{
    const uint32_t tiles = (args->row_count + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS;
    const uint32_t warps = CUDA_SEGMENT_COUNT * (EPILOGUE == CUDA_SWIGLU ? 2 : 1);
    const uint32_t shared_bytes = warps * TILES * CUDA_WARP_LANES * 4 * (uint32_t)sizeof(float);

    return device_launch<matmul_kernel<TILES, EPILOGUE>>(
        device, panel_count, (tiles + TILES - 1) / TILES, warps * CUDA_WARP_LANES, shared_bytes,
        *args);
}

static uint32_t panels_of(const struct cuda_matmul_part *part)
{
    return (part->weight.rows + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS;
}

template <uint32_t EPILOGUE>
static enum status launch_any(struct device *device, struct cuda_matmul_args *args)
{
    uint32_t panels = 0;

    CHECK(args->part_count >= 1 && args->part_count <= CUDA_PART_COUNT_MAX);
    for (uint32_t i = 0; i < args->part_count; i++) {
        CHECK(args->parts[i].weight.unit_count == args->parts[0].weight.unit_count);
        args->parts[i].panel_first = panels;
        panels += panels_of(&args->parts[i]);
    }
    if (EPILOGUE == CUDA_SWIGLU) {
        CHECK(args->part_count == 2 && panels == 2 * panels_of(&args->parts[0]));
        panels /= 2;
    }
    if (args->row_count == 0) {
        return STATUS_OK;
    }
    if (args->row_count <= CUDA_TILE_ROWS) {
        return launch<1, EPILOGUE>(device, args, panels);
    }
    if (args->row_count <= 2 * CUDA_TILE_ROWS) {
        return launch<2, EPILOGUE>(device, args, panels);
    }
    if (args->row_count <= 4 * CUDA_TILE_ROWS) {
        return launch<4, EPILOGUE>(device, args, panels);
    }
    return launch<CUDA_TILE_COUNT_MAX, EPILOGUE>(device, args, panels);
}

enum status cuda_matmul_store(struct device *device, struct cuda_matmul_args *args)
{
    return launch_any<CUDA_STORE>(device, args);
}

enum status cuda_matmul_add(struct device *device, struct cuda_matmul_args *args)
{
    return launch_any<CUDA_ADD>(device, args);
}

enum status cuda_matmul_swiglu(struct device *device, struct cuda_matmul_args *args)
{
    return launch_any<CUDA_SWIGLU>(device, args);
}
