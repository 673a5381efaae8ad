/* logits[j] = Wout (rms_norm(x[logits_rows[j]]) * norm).
 *
 * Maths and shapes: struct logits_args in backend.h.
 * Bound by: matmul.cu.
 * Launch:   norm.cu over the rows that sample, then matmul.cu with CUDA_STORE.
 * Order:    matmul.cuh.
 * Checked:  tests/emulator/test_blocks.cpp, against double.
 */
#include "base/check.h"
#include "kernels/cuda/product.cuh"

enum status cuda_logits(struct backend_program *program, const struct logits_args *args,
                        struct error *error)
{
    struct cuda_op *entry;

    CHECK(args->x != NULL && args->logits != NULL && args->norm != NULL && args->table != NULL);
    if (args->soft_cap != 0.0f) {
        return error_set(error, STATUS_UNSUPPORTED, "the CUDA backend does not cap logits");
    }
    TRY(cuda_product_check(program, "the output matrix", args->table,
                           program->backend->settings.vocabulary_count,
                           (uint32_t)args->norm->float_count, error));
    TRY(cuda_product_provide(program->backend, &args->table, 1,
                             program->backend->settings.sample_count_max, error));
    TRY(cuda_program_push(program, CUDA_OP_logits, error, &entry));
    entry->args.logits = *args;
    return STATUS_OK;
}

enum status cuda_logits_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct logits_args *op = &entry->args.logits;
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};

    source.x = op->x->data;
    source.row_indices = step->logits_rows;
    source.norm = op->norm->data;
    source.epsilon = op->epsilon;
    source.cols = op->table->view.cols;
    source.row_count = step->most.logits_row_count;
    source.row_count_at = cuda_logits_row_count_at(step);
    CHECK((uint64_t)source.row_count * op->table->view.rows <= op->logits->float_count);
    args.part_count = 1;
    args.parts[0].weight = op->table->view;
    args.parts[0].out = op->logits->data;
    args.parts[0].stride = op->table->view.rows;
    TRY(cuda_product_begin(step, &source, &args));
    return cuda_matmul_store(step->backend->device, &args);
}
