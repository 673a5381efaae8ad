/* h = activation(Wg n) * (Wu n). Maths and shapes: struct ffn_in_args in backend.h.
 *
 * Gate and up of the same output panels are made by one task and meet while they are in the cache.
 */
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/product.h"

enum { GROUP_FLOATS = CPU_TILE_ROWS_MAX * CPU_PANEL_GROUP * CPU_PANEL_ROWS };

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
    TRY(cpu_product_check(program, "the feed-forward gate matrix", args->wg, args->wg->rows,
                          (uint32_t)args->norm->float_count, error));
    TRY(cpu_product_check(program, "the feed-forward up matrix", args->wu, args->wg->rows,
                          args->wg->cols, error));
    TRY(cpu_program_push(program, CPU_OP_ffn_in, error, &op));
    op->args.ffn_in = *args;
    return STATUS_OK;
}

struct run {
    const struct cpu_step *step;
    const struct ffn_in_args *args;
    struct cpu_shares shares;
};

static void run_group(const struct run *run, uint32_t panel, uint32_t panel_count, uint32_t tile)
{
    const struct cpu_kernels *kernels = run->step->backend->kernels;
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;
    const uint32_t first = panel * CPU_PANEL_ROWS;
    const uint32_t hidden = run->args->wg->rows;
    const uint32_t count = stride < hidden - first ? stride : hidden - first;
    float gate[GROUP_FLOATS], up[GROUP_FLOATS];
    struct cpu_tile rows;

    cpu_rows_tile(run->step->program->rows, tile, &rows);
    kernels->matmul(run->args->wg, panel, panel_count, &rows, gate);
    kernels->matmul(run->args->wu, panel, panel_count, &rows, up);
    kernels->silu_multiply(gate, up, rows.height * stride);
    for (uint32_t r = 0; r < rows.height; r++) {
        memcpy(run->args->h->data + (uint64_t)(rows.row_first + r) * hidden + first,
               gate + (uint64_t)r * stride, count * sizeof(gate[0]));
    }
}

static void run_task(void *context, uint32_t task, uint32_t worker)
{
    const struct run *run = context;
    struct cpu_share share;

    (void)worker;
    cpu_shares_get(&run->shares, task, &share);
    for (uint32_t p = share.unit_begin; p < share.unit_end; p += CPU_PANEL_GROUP) {
        const uint32_t left = share.unit_end - p;

        for (uint32_t t = share.tile_begin; t < share.tile_end; t++) {
            run_group(run, p, left < CPU_PANEL_GROUP ? left : CPU_PANEL_GROUP, t);
        }
    }
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
    struct run run = {.step = step, .args = args};

    if (source.row_count == 0) {
        return;
    }
    cpu_rows_fill(step, &source, weights, 2);
    cpu_shares_init(&run.shares, args->wg->panel_count, step->program->rows->tile_count,
                    step->backend->thread_count);
    pool_run(step->backend->pool, run_task, &run, cpu_shares_count(&run.shares));
}
