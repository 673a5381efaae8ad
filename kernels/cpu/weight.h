/* Weights as the CPU backend holds them: panels of 16 output rows, one panel after another, so that
 * a vector lane is an output row and a thread streams what it needs in one piece. One copy: the
 * embedding reads its rows back out of the panels, exactly. Missing rows of the last panel are
 * zero.
 *
 * Thread: made and freed by the engine thread, read by all.
 *
 *   floats       [k][16 rows] as stored (4 or 2 bytes)
 *   BF16 pairs   [k / 2][16 rows][2] as stored, an odd last column with zeros beside it
 *   4-bit codes  [block][quarter i][row][j]  low nibble: k = 4i + j, high nibble: k = 16 + 4i + j
 *   8-bit codes  [block][group g][row][j]    k = 4g + j
 *   then, at scale_offset, by the format:
 *     SCALE_HALF      [block] { half scale[16] }
 *     SCALE_HALF_MIN  [block] { half scale[16]; half minimum[16] }
 *     SCALE_K         [8 blocks] { half d[16]; half -dmin[16]; u8 scale[8][16]; u8 minimum[8][16] }
 *     SCALE_K6        [8 blocks] { half d[16]; s8 scale[16 half blocks][16] }
 *
 * A block is 32 consecutive k. Codes are unsigned: value = scale * (code - 2^offset_shift) without
 * a minimum, scale * code + minimum with one. Products of d and small integers are exact in fp32.
 */
#ifndef PERSONAD_KERNELS_CPU_WEIGHT_H
#define PERSONAD_KERNELS_CPU_WEIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "kernels/cpu/panel_store.h"
#include "kernels/cpu/pool.h"

enum {
    CPU_PANEL_ROWS = 16,
    CPU_BLOCK = 32, /* columns that share an activation scale */
    CPU_SUPER_BLOCK = 256,
};

enum cpu_scale { SCALE_NONE, SCALE_HALF, SCALE_HALF_MIN, SCALE_K, SCALE_K6 };

struct cpu_format {
    uint8_t code_bits;    /* 4 or 8; 0: floats */
    uint8_t offset_shift; /* read only where scale is SCALE_HALF or SCALE_K6 */
    enum cpu_scale scale;
};

struct backend_weight {
    struct backend *backend;
    struct backend_weight *next; /* the backend's list */
    uint32_t dtype;
    uint32_t rows;
    uint32_t cols;
    uint32_t panel_count;
    struct cpu_format format;
    bool is_paired;        /* BF16 in pairs of columns, for rows of BF16 (kernels.h) */
    uint64_t panel_bytes;  /* a multiple of 64 */
    uint64_t scale_offset; /* in a panel */
    uint8_t *panels;       /* 64-byte aligned; owned, unless is_stored */
    bool is_stored;        /* in a panel_store, which owns them */
};

static inline const uint8_t *cpu_weight_panel(const struct backend_weight *weight, uint32_t panel)
{
    return weight->panels + panel * weight->panel_bytes;
}

/* Repacks, a panel by one thread of the pool; NULL: by this thread alone. The bytes are the same.
 * with_pairs: BF16 weights are paired, unless one of them is too small for that (rows.h). Small
 * weights go into `store`, which outlives them; NULL: into memory of their own.
 * UNSUPPORTED for a type outside enum dtype or columns that its blocks do not divide;
 * BAD_INPUT when the size does not fit the shape; MEMORY. */
MUST_USE enum status cpu_weight_create(const struct weight_source *source, bool with_pairs,
                                       struct panel_store *store, struct pool *pool,
                                       struct error *error, struct backend_weight **out);
void cpu_weight_destroy(struct backend_weight *weight);

/* How the scalar kernels read a panel. A half block is 16 columns. */
struct cpu_block_scale {
    float scale;
    float minimum; /* 0 for formats without one */
};

uint32_t cpu_weight_code(const struct backend_weight *weight, const uint8_t *panel, uint32_t lane,
                         uint32_t k);
float cpu_weight_float(const struct backend_weight *weight, const uint8_t *panel, uint32_t lane,
                       uint32_t k);
struct cpu_block_scale cpu_weight_scale(const struct backend_weight *weight, const uint8_t *panel,
                                        uint32_t lane, uint32_t half_block);

/* One row, dequantised: bit for bit what dtype_dequantize_row makes of the stored row. */
void cpu_weight_row(const struct backend_weight *weight, uint32_t row, float *out);

#endif
