/* x += Wd h.
 *
 * Maths and shapes: struct ffn_out_args in backend.h.
 * Bound by: matmul.cu.
 * Launch:   norm.cu (rounding only), then matmul.cu with CUDA_ADD.
 * Order:    matmul.cuh.
 * Checked:  tests/emulator/test_blocks.cpp, against double.
 */
#include "base/check.h"
#include "kernels/cuda/product.cuh"

enum status cuda_ffn_out(struct backend_program *program, const struct ffn_out_args *args,
                         struct error *error)
{
    struct cuda_op *entry;

    CHECK(args->x != NULL && args->h != NULL && args->wd != NULL);
    TRY(cuda_product_check(program, "the feed-forward output matrix", args->wd, args->wd->view.rows,
                           args->wd->view.cols, error));
    TRY(cuda_product_provide(program->backend, &args->wd, 1, program->row_count_max, error));
    TRY(cuda_program_push(program, CUDA_OP_ffn_out, error, &entry));
    entry->args.ffn_out = *args;
    return STATUS_OK;
}

enum status cuda_ffn_out_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct ffn_out_args *args = &entry->args.ffn_out;

    return cuda_product_add(step, args->wd, NULL, args->h, args->x);
}
