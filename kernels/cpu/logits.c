/* logits[j] = Wout (rms_norm(x[logits_rows[j]]) * norm). Maths and shapes: struct logits_args in
 * backend.h. Only the rows that sample are multiplied: the vocabulary is a large part of the model.
 */
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/product.h"

enum status cpu_logits(struct backend_program *program, const struct logits_args *args,
                       struct error *error)
{
    struct cpu_op *op;

    CHECK(args->x != NULL && args->logits != NULL && args->norm != NULL && args->table != NULL);
    if (args->soft_cap != 0.0f) {
        return error_set(error, STATUS_UNSUPPORTED, "the CPU backend does not cap logits");
    }
    TRY(cpu_product_check(program->rows, "the output matrix", args->table,
                          program->backend->settings.vocabulary_count,
                          (uint32_t)args->norm->float_count, error));
    TRY(cpu_program_push(program, CPU_OP_logits, error, &op));
    op->args.logits = *args;
    return STATUS_OK;
}

struct run {
    const struct cpu_step *step;
    const struct logits_args *args;
    struct cpu_shares shares;
};

static void run_group(const struct run *run, uint32_t panel, uint32_t panel_count, uint32_t tile)
{
    float out[CPU_TILE_ROWS_MAX * CPU_PANEL_GROUP * CPU_PANEL_ROWS];
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;
    const uint32_t first = panel * CPU_PANEL_ROWS;
    const uint32_t vocabulary = run->args->table->rows;
    const uint32_t count = stride < vocabulary - first ? stride : vocabulary - first;
    struct cpu_tile rows;

    cpu_rows_tile(run->step->program->rows, tile, &rows);
    run->step->backend->kernels->matmul(run->args->table, panel, panel_count, &rows, out);
    for (uint32_t r = 0; r < rows.height; r++) {
        memcpy(run->args->logits->data + (uint64_t)(rows.row_first + r) * vocabulary + first,
               out + (uint64_t)r * stride, count * sizeof(out[0]));
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

void cpu_logits_run(const struct cpu_step *step, const struct logits_args *args)
{
    const struct cpu_row_source source = {
        .x = args->x->data,
        .row_indices = step->plan->logits_rows,
        .norm = args->norm->data,
        .epsilon = args->epsilon,
        .width = args->table->cols,
        .row_count = step->plan->logits_row_count,
    };
    struct run run = {.step = step, .args = args};

    if (source.row_count == 0) {
        return;
    }
    CHECK((uint64_t)source.row_count * args->table->rows <= args->logits->float_count);
    cpu_rows_fill(step, &source, &args->table, 1);
    cpu_shares_init(&run.shares, args->table->panel_count, step->program->rows->tile_count,
                    step->backend->thread_count);
    pool_run(step->backend->pool, run_task, &run, cpu_shares_count(&run.shares));
}
