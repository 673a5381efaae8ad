/* x += Wo a + bo. Maths and shapes: struct attn_out_args in backend.h. */
#include "base/check.h"
#include "kernels/cpu/product.h"

enum status cpu_attn_out(struct backend_program *program, const struct attn_out_args *args,
                         struct error *error)
{
    struct cpu_op *op;

    CHECK(args->x != NULL && args->a != NULL && args->wo != NULL);
    TRY(cpu_product_check(program->rows, "the attention output matrix", args->wo, args->wo->rows,
                          args->wo->cols, error));
    TRY(cpu_program_push(program, CPU_OP_attn_out, error, &op));
    op->args.attn_out = *args;
    return STATUS_OK;
}

void cpu_attn_out_run(const struct cpu_step *step, const struct attn_out_args *args)
{
    const struct cpu_row_source source = {
        .x = args->a->data,
        .width = args->wo->cols,
        .row_count = step->plan->row_count,
    };

    if (source.row_count == 0) {
        return;
    }
    cpu_rows_fill(step, &source, &args->wo, 1);
    cpu_product_add(step, step->program->rows, args->wo, args->bo == NULL ? NULL : args->bo->data,
                    args->x->data);
}
