/* The matrix product of every operation: out = W a for any number of rows, by mma.sync.
 *
 * Thread: host functions on the engine thread; they only launch. Activations pass through one
 * scratch of the backend (backend->activations) in bf16, laid out in the 8 x 8 matrices that
 * ldmatrix and the descriptors of wgmma know:
 *
 *   [tile of 8 rows][group of 8 columns][row of the tile][column of the group]
 *
 * Where all matrices of a launch are F16 they are f16 instead: a row is multiplied with the power
 * of two that brings its largest magnitude to [2^14, 2^15), so that no row overflows and small ones
 * keep their bits; its inverse stands in row_scales and multiplies the outputs, both exactly.
 *
 * Order, the same for every number of rows: K is cut into S = cuda_segment_count() segments at
 * multiples of CUDA_SEGMENT_UNITS units (cuda_segment_begin). Each is one ascending chain of k16
 * steps from zero; segments are added from left to right in fp32. A row is a column of the B
 * operand, so no other row of a tile, and no number of tiles, changes its bits.
 */
#ifndef PERSONAD_KERNELS_CUDA_MATMUL_CUH
#define PERSONAD_KERNELS_CUDA_MATMUL_CUH

#include <stdint.h>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"
#include "kernels/cuda/weight.cuh"
#include "kernels/provider_table.h"
#include "kernels/steps/math.h"

enum {
    CUDA_TILE_ROWS = 8,          /* N of a tensor-core step */
    CUDA_TILE_UNIT_BYTES = 1024, /* of a tile's activations in a unit of columns */
    CUDA_PART_COUNT_MAX = 3,
    CUDA_WARP_LANES = 32,
    CUDA_SEGMENT_UNITS = 4, /* segments are whole groups of as many units */
    CUDA_SEGMENT_COUNT_MAX = 4,
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
    uint32_t block_first; /* in the grid; set by the launch */
};

/* How a launch cuts its work; set by the launch. */
struct cuda_matmul_shape {
    uint32_t epilogue;
    uint32_t slot_count;    /* panels of a block; a warp copies one */
    uint32_t row_warps;     /* warps next to each other over rows */
    uint32_t stage_units;   /* units of columns that are copied at once: 1, 2, 4 */
    uint32_t stage_count;   /* on their way, and one being used */
    uint32_t segment_count; /* S */
    uint32_t rank_count;    /* blocks that have a segment each; or 1 for all segments. wgmma.cu:
                               blocks that share their rows */
    uint32_t slot_bytes;    /* of a panel in a stage */
    uint32_t stage_bytes;
    uint32_t sums_offset;     /* of the warps' sums in shared memory; wgmma.cu: of its barriers */
    uint32_t meeting_sums_at; /* in `meeting` */
};

/* What PROVIDER_CUBLASLT needs beside the rest; nothing here is allocated by a launch. */
struct cuda_library_product {
    struct cublaslt *library;
    const struct provider_algorithm *algorithm;
    const uint16_t *weights; /* cuda_weight_copy_plain of all parts, one after the other */
    float *sums;             /* [row_count][outputs] */
    void *workspace;         /* [CUBLASLT_WORKSPACE_BYTES] */
    uint32_t outputs;        /* of all parts */
    uint32_t reserved;
};

/* For trials (trial.cu) alone: another cut than a step's. Zeros: a step's. */
struct cuda_matmul_variant {
    uint32_t segment_count; /* other bits */
    uint32_t tiles_min;     /* the same bits */
};

struct cuda_matmul_args {
    struct cuda_matmul_part parts[CUDA_PART_COUNT_MAX];
    const uint16_t *activations;
    const float *row_scales; /* [row_count]: activations are f16; NULL: bf16 */
    /* Where ranks meet without clusters: cuda_meeting_bytes(), zeros when it is made. NULL: they
     * are those of a cluster, or there are none. */
    uint8_t *meeting;
    uint32_t part_count;
    uint32_t row_count;           /* at most; it sizes the grid */
    const uint32_t *row_count_at; /* the card's: how many there are; NULL: row_count */
    enum provider provider;
    struct cuda_matmul_shape shape;
    struct cuda_library_product library;
    struct cuda_matmul_variant variant;
    /* PROVIDER_UNPACKED: cuda_unpacked_bytes() of all parts together; its own for one launch. */
    uint8_t *unpacked;
    uint32_t weights_are_new; /* by the kernel before this one: not to be read before its end */
    uint32_t reserved;
};

/* Bytes of scratch for row_count rows of cols columns: the numbers, then a scale each. */
static inline uint64_t cuda_row_scales_at(uint32_t row_count, uint32_t cols)
{
    const uint64_t tiles = (row_count + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS;
    const uint64_t units = (cols + CUDA_UNIT_COLS - 1) / CUDA_UNIT_COLS;

    return tiles * units * CUDA_TILE_UNIT_BYTES;
}

static inline uint64_t cuda_activation_bytes(uint32_t row_count, uint32_t cols)
{
    return cuda_row_scales_at(row_count, cols) + (uint64_t)row_count * sizeof(float);
}

/* Bytes of a matrix that is unpacked to panels of bf16. */
static inline uint64_t cuda_unpacked_bytes(const struct cuda_weight_view *view)
{
    const uint64_t panels = (view->rows + CUDA_PANEL_ROWS - 1) / CUDA_PANEL_ROWS;

    return panels * view->unit_count * CUDA_UNIT_STEPS * CUDA_LOAD_BYTES;
}

/* What the backend's table says of a launch; NULL: mma. Parts of several types are mma's. */
static inline const struct provider_rule *cuda_matmul_rule(const struct provider_table *table,
                                                           const struct cuda_matmul_args *args)
{
    const uint32_t format = args->parts[0].weight.format;
    uint32_t outputs = 0;

    for (uint32_t i = 0; i < args->part_count; i++) {
        if (args->parts[i].weight.format != format) {
            return NULL;
        }
        outputs += args->parts[i].weight.rows;
    }
    return provider_table_find(table, format, outputs, args->parts[0].weight.cols, args->row_count);
}

/* Whether a launch wants f16 activations: all of its parts are F16. */
static inline bool cuda_matmul_is_half(const struct cuda_matmul_args *args)
{
    bool is_half = true;

    for (uint32_t i = 0; i < args->part_count; i++) {
        is_half = is_half && args->parts[i].weight.format == CUDA_F16;
    }
    return is_half;
}

/* A power of two: 2^14 <= largest * cuda_half_down(largest) < 2^15; 2^126 where that is too small
 * for it, 1 where `largest` is infinite. And its inverse. */
STEPS_FUNCTION float cuda_half_down(float largest)
{
    const uint32_t stored = steps_bits_from_float(largest) >> 23;

    if (stored == 255) {
        return 1.0f;
    }
    return steps_float_from_bits((stored < 15 ? 253 : 127 + 14 + 127 - stored) << 23);
}

STEPS_FUNCTION float cuda_half_up(float down)
{
    return steps_float_from_bits((254 << 23) - steps_bits_from_float(down));
}

/* What becomes activations: rows of x, normed if norm is not NULL, rounded to bf16 or f16. */
struct cuda_activation_source {
    const float *x;              /* [..][cols] */
    const uint32_t *row_indices; /* [row_count], or NULL: 0, 1, 2 .. */
    const float *norm;           /* [cols], or NULL */
    float epsilon;
    uint32_t cols;
    uint32_t row_count;           /* at most; it sizes the grid */
    const uint32_t *row_count_at; /* the card's: how many there are; NULL: row_count */
    float *row_scales;            /* [row_count]: f16 is wanted, and these; NULL: bf16 */
    uint32_t is_plain;            /* [row][columns, whole units] is wanted, for PROVIDER_CUBLASLT */
    uint32_t reserved;
};

/* norm.cu: fills `to`, which holds cuda_activation_bytes(). */
MUST_USE enum status cuda_activations_fill(struct device *device,
                                           const struct cuda_activation_source *source,
                                           uint16_t *to);

/* matmul.cu: what args.meeting takes on this card. */
uint64_t cuda_meeting_bytes(const struct device_facts *facts);

/* matmul.cu: launches; row_count 0 is fine. Parts of CUDA_SWIGLU are gate and up. */
MUST_USE enum status cuda_matmul_store(struct device *device, struct cuda_matmul_args *args);
MUST_USE enum status cuda_matmul_add(struct device *device, struct cuda_matmul_args *args);
MUST_USE enum status cuda_matmul_swiglu(struct device *device, struct cuda_matmul_args *args);

/* ---- the order ---- */

/* Multiprocessors of the usual card of an architecture: the card at hand must not decide bits,
 * since the numerics id names its architecture only. */
static inline uint32_t cuda_nominal_multiprocessors(uint32_t architecture)
{
    return architecture < 86 ? 108 : architecture < 90 ? 128 : architecture < 100 ? 132 : 148;
}

/* Bits of a stored code. */
STEPS_FUNCTION uint32_t cuda_format_bits(uint32_t format)
{
    return cuda_format_is_plain(format) ? 16 : cuda_unit_load_count(format) == 1 ? 4 : 8;
}

/* S for matrices of together `rows` outputs and unit_count units of columns, whose least code has
 * `bits` bits. 1 where blocks of 32 outputs fill the card; 4-bit codes take more work to unpack for
 * the bytes that they are, so they are given more warps. */
static inline uint32_t cuda_segment_count(uint32_t rows, uint32_t unit_count, uint32_t bits,
                                          uint32_t architecture)
{
    const uint32_t fill = cuda_nominal_multiprocessors(architecture);
    const uint32_t groups = (unit_count + CUDA_SEGMENT_UNITS - 1) / CUDA_SEGMENT_UNITS;
    const uint64_t blocks = rows / 32;
    uint32_t count = bits > 4 ? 1 : 2;

    while (count < CUDA_SEGMENT_COUNT_MAX && blocks * count < (bits > 4 ? fill : 4 * fill)) {
        count *= 2;
    }
    while (count > groups) {
        count /= 2;
    }
    return count;
}

/* The first unit of a segment; of segment S: unit_count. */
STEPS_FUNCTION uint32_t cuda_segment_begin(uint32_t segment, uint32_t segment_count,
                                           uint32_t unit_count)
{
    const uint32_t groups = (unit_count + CUDA_SEGMENT_UNITS - 1) / CUDA_SEGMENT_UNITS;
    const uint32_t unit = groups * segment / segment_count * CUDA_SEGMENT_UNITS;

    return unit < unit_count ? unit : unit_count;
}

#endif
