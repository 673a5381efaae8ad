/* x += Wd h. Maths and shapes: struct ffn_out_args in backend.h. */
#include "base/check.h"
#include "kernels/cpu/product.h"

enum status cpu_ffn_out(struct backend_program *program, const struct ffn_out_args *args,
                        struct error *error)
{
    struct cpu_op *op;

    CHECK(args->x != NULL && args->h != NULL && args->wd != NULL);
    TRY(cpu_product_check(program, "the feed-forward output matrix", args->wd, args->wd->rows,
                          args->wd->cols, error));
    TRY(cpu_program_push(program, CPU_OP_ffn_out, error, &op));
    op->args.ffn_out = *args;
    return STATUS_OK;
}

void cpu_ffn_out_run(const struct cpu_step *step, const struct ffn_out_args *args)
{
    const struct cpu_row_source source = {
        .x = args->h->data,
        .width = args->wd->cols,
        .row_count = step->plan->row_count,
    };

    if (source.row_count == 0) {
        return;
    }
    cpu_rows_fill(step, &source, &args->wd, 1);
    cpu_product_add(step, args->wd, NULL, args->x->data);
}
