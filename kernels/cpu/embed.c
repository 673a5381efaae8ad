/* x[r] = table[token of row r] * scale. Maths and shapes: struct embed_args in backend.h. The table
 * may be the output matrix: its rows are read back out of the panels, exactly.
 */
#include "base/check.h"
#include "kernels/cpu/product.h"

enum { ROWS_A_TASK = 16 };

enum status cpu_embed(struct backend_program *program, const struct embed_args *args,
                      struct error *error)
{
    struct cpu_op *op;

    CHECK(args->x != NULL && args->table != NULL);
    CHECK((uint64_t)program->row_count_max * args->table->cols <= args->x->float_count);
    TRY(cpu_program_push(program, CPU_OP_embed, error, &op));
    op->args.embed = *args;
    return STATUS_OK;
}

struct run {
    const struct cpu_step *step;
    const struct embed_args *args;
};

static void run_task(void *context, uint32_t task, uint32_t worker)
{
    const struct run *run = context;
    const struct backend_weight *table = run->args->table;
    const uint32_t row_count = run->step->plan->row_count;
    const uint32_t begin = task * ROWS_A_TASK;
    const uint32_t end = begin + ROWS_A_TASK < row_count ? begin + ROWS_A_TASK : row_count;

    (void)worker;
    for (uint32_t row = begin; row < end; row++) {
        const uint32_t token = run->step->backend->tokens[row];
        float *x = run->args->x->data + (uint64_t)row * table->cols;

        CHECK(token < table->rows);
        cpu_weight_row(table, token, x);
        for (uint32_t c = 0; c < table->cols; c++) {
            x[c] *= run->args->scale;
        }
    }
}

void cpu_embed_run(const struct cpu_step *step, const struct embed_args *args)
{
    struct run run = {step, args};

    pool_run(step->backend->pool, run_task, &run,
             (step->plan->row_count + ROWS_A_TASK - 1) / ROWS_A_TASK);
}
