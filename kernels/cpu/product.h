/* What the matrix operations share: filling the rows, and cutting (output units x row tiles) into
 * tasks. A unit is a panel, or the panels of a head. Thread: begun by the engine thread, run by
 * workers.
 */
#ifndef PERSONAD_KERNELS_CPU_PRODUCT_H
#define PERSONAD_KERNELS_CPU_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"

enum {
    CPU_PANEL_GROUP = 4,     /* panels that a task multiplies at a time */
    CPU_JOINED_ROWS_MIN = 4, /* of fewer, a group has too few blocks to quantise side by side */
};

/* Where an operation's input rows come from. */
struct cpu_row_source {
    const float *x;              /* [.., width] */
    const float *norm;           /* [width], or NULL: taken as they are */
    const uint32_t *row_indices; /* of x, beside a norm; NULL: 0, 1, 2, .. */
    float epsilon;
    uint32_t width;
    uint32_t row_count;
};

/* Norms and packs all rows into step->program->rows, in the forms that the weights read. */
void cpu_rows_fill(const struct cpu_step *step, const struct cpu_row_source *source,
                   const struct backend_weight *const *weights, uint32_t weight_count);

/* Whether this ffn_in or ffn_out hands over, or takes, h as packed rows. */
bool cpu_hidden_is_packed(const struct cpu_step *step);

struct cpu_shares {
    uint32_t unit_count;
    uint32_t unit_share_count;
    uint32_t tile_count;
    uint32_t tile_share_count;
};

/* [unit_begin, unit_end) x [tile_begin, tile_end). */
struct cpu_share {
    uint32_t unit_begin, unit_end;
    uint32_t tile_begin, tile_end;
};

/* Of few rows each task gets neighbouring units, so that a thread streams its weights in one piece;
 * of many, neighbouring tiles and all units, so that rows stay with a core from one operation to
 * the next where a step keeps its workers apart (pool.h). */
void cpu_shares_init(struct cpu_shares *shares, uint32_t unit_count, uint32_t tile_count,
                     uint32_t thread_count);
uint32_t cpu_shares_count(const struct cpu_shares *shares);
void cpu_shares_get(const struct cpu_shares *shares, uint32_t task, struct cpu_share *out);

/* x[r][c] += (W row)[c] + bias[c] for every packed row r: attn_out and ffn_out. */
void cpu_product_add(const struct cpu_step *step, const struct cpu_rows *rows,
                     const struct backend_weight *weight, const float *bias, float *x);

/* For recorders: UNSUPPORTED, naming `what`, unless the weight takes `cols` inputs, for which
 * `packed` gets room. */
MUST_USE enum status cpu_product_check(struct cpu_rows *packed, const char *what,
                                       const struct backend_weight *weight, uint32_t rows,
                                       uint32_t cols, struct error *error);

#endif
