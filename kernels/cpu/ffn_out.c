/* x += Wd h. Maths and shapes: struct ffn_out_args in backend.h. */
#include "base/check.h"
#include "kernels/cpu/product.h"

/* The operation before, if it makes this h. */
static struct cpu_op *find_maker(struct backend_program *program, const struct ffn_out_args *args)
{
    struct cpu_op *last = program->op_count == 0 ? NULL : &program->ops[program->op_count - 1];

    return last != NULL && last->kind == CPU_OP_ffn_in && last->args.ffn_in.h == args->h &&
                   last->args.ffn_in.wg->rows == args->wd->cols
               ? last
               : NULL;
}

enum status cpu_ffn_out(struct backend_program *program, const struct ffn_out_args *args,
                        struct error *error)
{
    const struct backend_weight *joined = NULL;
    struct cpu_op *maker, *op;

    CHECK(args->x != NULL && args->h != NULL && args->wd != NULL);
    TRY(cpu_product_check(program->rows, "the feed-forward output matrix", args->wd, args->wd->rows,
                          args->wd->cols, error));
    maker = find_maker(program, args);
    if (maker != NULL) {
        TRY(cpu_product_check(program->hidden, "the feed-forward output matrix", args->wd,
                              args->wd->rows, args->wd->cols, error));
        joined = args->wd;
        maker->joined = joined;
    }
    TRY(cpu_program_push(program, CPU_OP_ffn_out, error, &op));
    op->args.ffn_out = *args;
    op->joined = joined;
    return STATUS_OK;
}

void cpu_ffn_out_run(const struct cpu_step *step, const struct ffn_out_args *args)
{
    const struct cpu_row_source source = {
        .x = args->h->data,
        .width = args->wd->cols,
        .row_count = step->plan->row_count,
    };
    const struct cpu_rows *rows = step->program->hidden;

    if (source.row_count == 0) {
        return;
    }
    if (!cpu_hidden_is_packed(step)) {
        cpu_rows_fill(step, &source, &args->wd, 1);
        rows = step->program->rows;
    }
    cpu_product_add(step, rows, args->wd, NULL, args->x->data);
}
