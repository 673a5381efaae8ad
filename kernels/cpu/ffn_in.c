/* h = activation(Wg n) * (Wu n). Maths and shapes: struct ffn_in_args in backend.h.
 *
 * Gate and up of the same output panels are made by one task and meet while they are in the cache.
 * There h is packed as well, where an ffn_out reads it next: a unit of work is as many
 * panels as make a block of it.
 */
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/product.h"

enum {
    GROUP_FLOATS = CPU_TILE_ROWS_MAX * CPU_PANEL_GROUP * CPU_PANEL_ROWS,
    UNIT_PANELS = CPU_BLOCK / CPU_PANEL_ROWS,
};

_Static_assert(CPU_PANEL_GROUP % UNIT_PANELS == 0, "groups begin where blocks do");

enum status cpu_ffn_in(struct backend_program *program, const struct ffn_in_args *args,
                       struct error *error)
{
    struct cpu_op *op;

    CHECK(args->x != NULL && args->h != NULL && args->norm != NULL);
    CHECK(args->wg != NULL && args->wu != NULL);
    if (args->activation != ACTIVATION_SILU) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the CPU backend has no feed-forward activation other than SiLU");
    }
    TRY(cpu_product_check(program->rows, "the feed-forward gate matrix", args->wg, args->wg->rows,
                          (uint32_t)args->norm->float_count, error));
    TRY(cpu_product_check(program->rows, "the feed-forward up matrix", args->wu, args->wg->rows,
                          args->wg->cols, error));
    TRY(cpu_program_push(program, CPU_OP_ffn_in, error, &op));
    op->args.ffn_in = *args;
    return STATUS_OK;
}

struct run {
    const struct cpu_step *step;
    const struct ffn_in_args *args;
    bool is_packed; /* h */
    struct cpu_shares shares;
};

static void store_floats(const struct run *run, const struct cpu_tile *rows,
                         const struct cpu_tile_part *part)
{
    const uint32_t hidden = run->args->wg->rows;

    for (uint32_t r = 0; r < rows->height; r++) {
        memcpy(run->args->h->data + (uint64_t)(rows->row_first + r) * hidden + part->col_first,
               part->x + r * part->stride, part->col_count * sizeof(part->x[0]));
    }
}

static void run_group(const struct run *run, uint32_t panel, uint32_t panel_count, uint32_t tile)
{
    const struct cpu_kernels *kernels = run->step->backend->kernels;
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;
    const uint32_t first = panel * CPU_PANEL_ROWS;
    const uint32_t left = run->args->wg->rows - first;
    float gate[GROUP_FLOATS], up[GROUP_FLOATS];
    struct cpu_tile rows;

    cpu_rows_tile(run->step->program->rows, tile, &rows);
    kernels->matmul(run->args->wg, panel, panel_count, &rows, gate);
    kernels->matmul(run->args->wu, panel, panel_count, &rows, up);
    kernels->silu_multiply(gate, up, rows.height * stride);
    const struct cpu_tile_part part = {
        .tile = tile,
        .col_first = first,
        .col_count = stride < left ? stride : left,
        .x = gate,
        .stride = stride,
    };
    if (run->is_packed) {
        kernels->pack(run->step->program->hidden, &part);
    } else {
        store_floats(run, &rows, &part);
    }
}

static void run_task(void *context, uint32_t task, uint32_t worker)
{
    const struct run *run = context;
    const uint32_t panel_count = run->args->wg->panel_count;
    struct cpu_share share;
    uint32_t end;

    (void)worker;
    cpu_shares_get(&run->shares, task, &share);
    end = share.unit_end * UNIT_PANELS < panel_count ? share.unit_end * UNIT_PANELS : panel_count;
    for (uint32_t p = share.unit_begin * UNIT_PANELS; p < end; p += CPU_PANEL_GROUP) {
        for (uint32_t t = share.tile_begin; t < share.tile_end; t++) {
            run_group(run, p, end - p < CPU_PANEL_GROUP ? end - p : CPU_PANEL_GROUP, t);
        }
    }
}

/* The rows of h get the tiles that those of n have. */
static void begin_hidden(const struct cpu_step *step, const struct backend_weight *weight)
{
    struct cpu_row_forms forms = {0};

    cpu_row_forms_add(&forms, weight);
    cpu_rows_begin(step->program->hidden, step->plan->row_count, weight->cols, forms);
}

void cpu_ffn_in_run(const struct cpu_step *step, const struct ffn_in_args *args)
{
    const struct backend_weight *const weights[] = {args->wg, args->wu};
    const struct cpu_row_source source = {
        .x = args->x->data,
        .norm = args->norm->data,
        .epsilon = args->epsilon,
        .width = args->wg->cols,
        .row_count = step->plan->row_count,
    };
    struct run run = {.step = step, .args = args, .is_packed = cpu_hidden_is_packed(step)};

    if (source.row_count == 0) {
        return;
    }
    cpu_rows_fill(step, &source, weights, 2);
    if (run.is_packed) {
        begin_hidden(step, step->op->joined);
    }
    cpu_shares_init(&run.shares, (args->wg->panel_count + UNIT_PANELS - 1) / UNIT_PANELS,
                    step->program->rows->tile_count, step->backend->thread_count);
    pool_run(step->backend->pool, run_task, &run, cpu_shares_count(&run.shares));
}
