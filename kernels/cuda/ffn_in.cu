/* h = silu(Wg n) * (Wu n), n = rms_norm(x) * norm.
 *
 * Maths and shapes: struct ffn_in_args in backend.h.
 * Bound by: matmul.cu.
 * Launch:   norm.cu, then matmul.cu with CUDA_SWIGLU: a block makes the same outputs of both.
 * Order:    matmul.cuh; the activation as the CPU backend computes it.
 * Checked:  tests/emulator/test_blocks.cpp, against double.
 */
#include "base/check.h"
#include "kernels/cuda/product.cuh"

enum status cuda_ffn_in(struct backend_program *program, const struct ffn_in_args *args,
                        struct error *error)
{
    const struct backend_weight *const weights[] = {args->wg, args->wu};
    struct cuda_op *entry;

    CHECK(args->x != NULL && args->h != NULL && args->norm != NULL);
    CHECK(args->wg != NULL && args->wu != NULL);
    if (args->activation != ACTIVATION_SILU) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the CUDA backend has no feed-forward activation other than SiLU");
    }
    TRY(cuda_product_check(program, "the feed-forward gate matrix", args->wg, args->wg->view.rows,
                           (uint32_t)args->norm->float_count, error));
    TRY(cuda_product_check(program, "the feed-forward up matrix", args->wu, args->wg->view.rows,
                           args->wg->view.cols, error));
    TRY(cuda_product_provide(program->backend, weights, 2, program->row_count_max, error));
    TRY(cuda_program_push(program, CUDA_OP_ffn_in, error, &entry));
    entry->args.ffn_in = *args;
    return STATUS_OK;
}

enum status cuda_ffn_in_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct ffn_in_args *op = &entry->args.ffn_in;
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};

    source.x = op->x->data;
    source.norm = op->norm->data;
    source.epsilon = op->epsilon;
    source.cols = op->wg->view.cols;
    source.row_count = step->most.row_count;
    source.row_count_at = cuda_row_count_at(step);
    args.part_count = 2;
    args.parts[0].weight = op->wg->view;
    args.parts[0].out = op->h->data;
    args.parts[0].stride = op->wg->view.rows;
    args.parts[1].weight = op->wu->view;
    TRY(cuda_product_begin(step, &source, &args));
    return cuda_matmul_swiglu(step->backend->device, &args);
}
