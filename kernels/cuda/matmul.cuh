/* The matrix product of every operation: out = W a for any number of rows, by mma.sync.
 *
 * Thread: host functions on the engine thread; they only launch. Activations pass through one
 * scratch of the backend (backend->activations) in bf16, laid out so that a 16-byte load of a lane
 * is its part of the B operand of two tensor-core steps:
 *
 *   [tile of 8 rows][chunk of 32 columns][lane] 8 bf16; lane l holds row l / 4 of the tile, its
 *   element e is column 16 * (e / 4) + 8 * (e / 2 % 2) + 2 * (l % 4) + e % 2 of the chunk
 *
 * Order: K is cut into CUDA_SEGMENT_COUNT segments of whole units of 64 columns, segment s being
 * units [n s / S, n (s + 1) / S). Each is one ascending chain of k16 steps from zero; segments are
 * added from left to right in fp32. A row is a column of the B operand, so no other row of a tile,
 * and no number of tiles, changes its bits.
 */
#ifndef PERSONAD_KERNELS_CUDA_MATMUL_CUH
#define PERSONAD_KERNELS_CUDA_MATMUL_CUH

#include <stdint.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"
#include "kernels/cuda/weight.cuh"
#include "kernels/steps/math.h"

enum {
    CUDA_TILE_ROWS = 8, /* N of a tensor-core step */
    CUDA_CHUNK_COLS = 32,
    CUDA_TILE_COUNT_MAX = 8, /* tiles that one block holds */
    CUDA_PART_COUNT_MAX = 3,
    CUDA_WARP_LANES = 32,
};

enum cuda_epilogue {
    CUDA_STORE,  /* out = sum */
    CUDA_ADD,    /* out += sum + bias */
    CUDA_SWIGLU, /* out = silu(sum of part 0) * sum of part 1 */
};

/* One of the matrices that share a launch. Its output o of row r goes to out[r * stride + o]. */
struct cuda_matmul_part {
    struct cuda_weight_view weight;
    float *out;
    const float *bias; /* NULL: none. Read by CUDA_ADD only */
    uint32_t stride;
    uint32_t panel_first; /* in the grid */
};

struct cuda_matmul_args {
    struct cuda_matmul_part parts[CUDA_PART_COUNT_MAX];
    const uint16_t *activations;
    uint32_t part_count;
    uint32_t row_count;           /* at most; it sizes the grid */
    const uint32_t *row_count_at; /* the card's: how many there are; NULL: row_count */
};

/* Bytes of scratch for row_count rows of cols columns. */
static inline uint64_t cuda_activation_bytes(uint32_t row_count, uint32_t cols)
{
    const uint64_t tiles = (row_count + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS;
    const uint64_t units = (cols + CUDA_UNIT_COLS - 1) / CUDA_UNIT_COLS;

    return tiles * CUDA_TILE_ROWS * units * CUDA_UNIT_COLS * sizeof(uint16_t);
}

/* What becomes activations: rows of x, normed if norm is not NULL, rounded to bf16. */
struct cuda_activation_source {
    const float *x;              /* [..][cols] */
    const uint32_t *row_indices; /* [row_count], or NULL: 0, 1, 2 .. */
    const float *norm;           /* [cols], or NULL */
    float epsilon;
    uint32_t cols;
    uint32_t row_count;           /* at most; it sizes the grid */
    const uint32_t *row_count_at; /* the card's: how many there are; NULL: row_count */
};

/* norm.cu: fills `to`, which holds cuda_activation_bytes(). */
MUST_USE enum status cuda_activations_fill(struct device *device,
                                           const struct cuda_activation_source *source,
                                           uint16_t *to);

/* matmul.cu: launches; row_count 0 is fine. Parts of CUDA_SWIGLU are gate and up. */
MUST_USE enum status cuda_matmul_store(struct device *device, struct cuda_matmul_args *args);
MUST_USE enum status cuda_matmul_add(struct device *device, struct cuda_matmul_args *args);
MUST_USE enum status cuda_matmul_swiglu(struct device *device, struct cuda_matmul_args *args);

struct alignas(16) cuda_words {
    uint32_t at[4];
};

DEVICE_INLINE uint32_t cuda_pack_bf16(float low, float high)
{
    return steps_bf16_from_float(low) | (uint32_t)steps_bf16_from_float(high) << 16;
}

/* The A operand of one step out of `words`, the codes of the load that holds it. */
template <uint32_t FORMAT>
DEVICE_INLINE void cuda_weight_fragment(const struct cuda_words &words, uint32_t step,
                                        const struct cuda_scale scales[2], uint32_t a[4])
{
    for (uint32_t i = 0; i < 4; i++) {
        const struct cuda_scale &scale = scales[i % 2];
        uint32_t low, high;

        if (FORMAT == CUDA_BF16) {
            a[i] = words.at[i];
            continue;
        }
        if (FORMAT == CUDA_Q4_0 || FORMAT == CUDA_Q4_1 || FORMAT == CUDA_Q4_K) {
            low = words.at[step] >> (8 * i) & 15u;
            high = words.at[step] >> (8 * i + 4) & 15u;
        } else {
            const uint32_t word = words.at[step % 2 * 2 + i / 2];

            low = word >> (16 * (i % 2)) & 255u;
            high = word >> (16 * (i % 2) + 8) & 255u;
        }
        a[i] = cuda_pack_bf16(cuda_weight_value<FORMAT>(low, scale),
                              cuda_weight_value<FORMAT>(high, scale));
    }
}

/* What a warp multiplies: a panel, units [begin, end), tiles from `activations` on. */
struct cuda_chain {
    uint32_t panel;
    uint32_t unit_begin;
    uint32_t unit_end;
    uint32_t tile_count; /* that exist; the others multiply zeros */
    uint32_t lane;
    const struct cuda_words *activations; /* of the first tile, chunk 0, lane 0 */
};

template <int TILES>
DEVICE_INLINE void cuda_chain_rows(const struct cuda_chain &chain, uint32_t chunk,
                                   uint32_t chunk_count, struct cuda_words b[TILES])
{
    PRIM_UNROLL
    for (uint32_t t = 0; t < TILES; t++) {
        if (t < chain.tile_count) {
            b[t] = chain.activations[((uint64_t)t * chunk_count + chunk) * CUDA_WARP_LANES +
                                     chain.lane];
        } else {
            b[t] = {{0, 0, 0, 0}};
        }
    }
}

template <uint32_t FORMAT, int TILES>
DEVICE_INLINE void cuda_chain_unit(const struct cuda_weight_view &view,
                                   const struct cuda_chain &chain, uint32_t unit,
                                   float sums[TILES][4])
{
    const uint32_t loads = cuda_unit_load_count(FORMAT);
    const struct cuda_words *codes =
        (const struct cuda_words *)view.codes +
        ((uint64_t)chain.panel * view.unit_count + unit) * loads * CUDA_WARP_LANES + chain.lane;
    struct cuda_words words[4], b[TILES];

    PRIM_UNROLL
    for (uint32_t i = 0; i < loads; i++) {
        words[i] = codes[i * CUDA_WARP_LANES];
    }
    PRIM_UNROLL
    for (uint32_t step = 0; step < CUDA_UNIT_STEPS; step++) {
        const struct cuda_scale scales[2] = {
            cuda_weight_scale<FORMAT>(view, chain.panel, unit, step, chain.lane / 4),
            cuda_weight_scale<FORMAT>(view, chain.panel, unit, step, chain.lane / 4 + 8),
        };
        uint32_t a[4];

        if (step % 2 == 0) {
            cuda_chain_rows<TILES>(chain, unit * 2 + step / 2, view.unit_count * 2, b);
        }
        cuda_weight_fragment<FORMAT>(words[step * loads / CUDA_UNIT_STEPS], step, scales, a);
        PRIM_UNROLL
        for (uint32_t t = 0; t < TILES; t++) {
            prim_mma_bf16(sums[t], a, b[t].at + step % 2 * 2);
        }
    }
}

template <uint32_t FORMAT, int TILES>
DEVICE_INLINE void cuda_chain_run(const struct cuda_weight_view &view,
                                  const struct cuda_chain &chain, float sums[TILES][4])
{
    for (uint32_t unit = chain.unit_begin; unit < chain.unit_end; unit++) {
        cuda_chain_unit<FORMAT, TILES>(view, chain, unit, sums);
    }
}

template <int TILES>
DEVICE_INLINE void cuda_chain_run_any(const struct cuda_weight_view &view,
                                      const struct cuda_chain &chain, float sums[TILES][4])
{
    switch (view.format) {
    case CUDA_Q4_0:
        cuda_chain_run<CUDA_Q4_0, TILES>(view, chain, sums);
        break;
    case CUDA_Q4_1:
        cuda_chain_run<CUDA_Q4_1, TILES>(view, chain, sums);
        break;
    case CUDA_Q8_0:
        cuda_chain_run<CUDA_Q8_0, TILES>(view, chain, sums);
        break;
    case CUDA_Q4_K:
        cuda_chain_run<CUDA_Q4_K, TILES>(view, chain, sums);
        break;
    case CUDA_Q5_K:
        cuda_chain_run<CUDA_Q5_K, TILES>(view, chain, sums);
        break;
    case CUDA_Q6_K:
        cuda_chain_run<CUDA_Q6_K, TILES>(view, chain, sums);
        break;
    default:
        cuda_chain_run<CUDA_BF16, TILES>(view, chain, sums);
        break;
    }
}

#endif
