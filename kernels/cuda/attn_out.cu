/* x += Wo a + bo.
 *
 * Maths and shapes: struct attn_out_args in backend.h.
 * Bound by: matmul.cu.
 * Launch:   norm.cu (rounding only), then matmul.cu with CUDA_ADD.
 * Order:    matmul.cuh; the bias is added to the product, the sum of both to x.
 * Checked:  tests/emulator/test_blocks.cpp, against double.
 */
#include "base/check.h"
#include "kernels/cuda/product.cuh"

enum status cuda_attn_out(struct backend_program *program, const struct attn_out_args *args,
                          struct error *error)
{
    struct cuda_op *entry;

    CHECK(args->x != NULL && args->a != NULL && args->wo != NULL);
    TRY(cuda_product_check(program, "the attention output matrix", args->wo, args->wo->view.rows,
                           args->wo->view.cols, error));
    TRY(cuda_product_provide(program->backend, &args->wo, 1, program->row_count_max, error));
    TRY(cuda_program_push(program, CUDA_OP_attn_out, error, &entry));
    entry->args.attn_out = *args;
    return STATUS_OK;
}

enum status cuda_attn_out_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct attn_out_args *args = &entry->args.attn_out;

    return cuda_product_add(step, args->wo, args->bo, args->a, args->x);
}
