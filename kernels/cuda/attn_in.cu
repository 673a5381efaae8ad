/* Norm, QKV, rotation and KV append: the matrix product into scratch, then a block per row.
 *
 * Maths and shapes: struct attn_in_args in backend.h.
 * Bound by: memory, the weights in the product; the rest 8 bytes a value of q, k and v.
 * Launch:   grid = rows, at most GRID_X_MAX, blocks stride over what is left; a warp per head.
 * Order:    of the product: matmul.cuh; of the rest: attn_in.cuh. No other row is looked at.
 * Checked:  tests/emulator/test_attn_in.cpp, against double; rows alone and in batches by memcmp.
 */
#include "kernels/cuda/attn_in.cuh"

#include "base/check.h"
#include "kernels/cuda/product.cuh"

enum { GRID_X_MAX = 65536, HEAD_SIZE_STEP = 8 };

static uint32_t qkv_width(const struct attn_in_args *args)
{
    return (args->head_count + 2 * args->kv_head_count) * args->head_size;
}

static enum status check_shape(const struct backend_program *program,
                               const struct attn_in_args *args, struct error *error)
{
    const uint32_t width = args->wq->view.cols;

    CHECK(args->x != NULL && args->q != NULL && args->kv != NULL && args->norm != NULL);
    CHECK(args->inverse_frequency != NULL || args->rope_pair_count == 0);
    CHECK(args->kv->shape.head_size == args->head_size);
    CHECK(args->kv->shape.kv_head_count == args->kv_head_count);
    CHECK(args->layer < args->kv->shape.layer_count);
    CHECK((uint64_t)program->row_count_max * args->head_count * args->head_size <=
          args->q->float_count);
    if (args->head_size == 0 || args->head_size % HEAD_SIZE_STEP != 0 ||
        args->head_size > BACKEND_HEAD_SIZE_MAX) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "heads of %u values: the cuda backend needs a multiple of %d, at most %d",
                         args->head_size, HEAD_SIZE_STEP, BACKEND_HEAD_SIZE_MAX);
    }
    if (2 * args->rope_pair_count > args->head_size) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%u rotated pairs do not fit a head of %u values", args->rope_pair_count,
                         args->head_size);
    }
    if (args->norm->float_count != width) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the attention norm has %llu values where the model is %u wide",
                         (unsigned long long)args->norm->float_count, width);
    }
    return STATUS_OK;
}

/* The frequencies on the card, in memory that the program frees with the entry. */
static enum status load_frequencies(struct backend *backend, const struct attn_in_args *args,
                                    struct error *error, struct cuda_op *op)
{
    const uint64_t size_bytes = (uint64_t)args->rope_pair_count * sizeof(double);

    if (device_alloc(backend->device, size_bytes, &op->extra) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY,
                         "no memory on the card for the rotation frequencies of layer %u",
                         args->layer);
    }
    TRY(device_upload(backend->device, op->extra, args->inverse_frequency, size_bytes));
    return device_wait(backend->device);
}

enum status cuda_attn_in(struct backend_program *program, const struct attn_in_args *args,
                         struct error *error)
{
    const struct backend_weight *const weights[] = {args->wq, args->wk, args->wv};
    struct backend *backend = program->backend;
    const uint32_t width = args->wq->view.cols;
    struct cuda_op *op = NULL;

    TRY(check_shape(program, args, error));
    TRY(cuda_product_check(program, "the query matrix", args->wq,
                           args->head_count * args->head_size, width, error));
    TRY(cuda_product_check(program, "the key matrix", args->wk,
                           args->kv_head_count * args->head_size, width, error));
    TRY(cuda_product_check(program, "the value matrix", args->wv,
                           args->kv_head_count * args->head_size, width, error));
    TRY(cuda_product_provide(backend, weights, 3, program->row_count_max, error));
    TRY(cuda_scratch_want(backend, &backend->qkv,
                          (uint64_t)program->row_count_max * qkv_width(args) * sizeof(float),
                          "queries, keys and values", error));
    TRY(cuda_program_push(program, CUDA_OP_attn_in, error, &op));
    op->args.attn_in = *args;
    return load_frequencies(backend, args, error, op);
}

static const float *data_of(const struct backend_buffer *buffer)
{
    return buffer == NULL ? NULL : buffer->data;
}

enum status cuda_attn_in_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct attn_in_args *args = &entry->args.attn_in;
    const uint32_t row_count = step->most.row_count;
    struct attn_in_view view = {};

    TRY(cuda_qkv_product(step, args, (float *)step->backend->qkv.data));
    view.qkv = (const float *)step->backend->qkv.data;
    view.q = args->q->data;
    view.kv = cuda_kv_layer(args->kv, args->layer);
    view.bq = data_of(args->bq);
    view.bk = data_of(args->bk);
    view.bv = data_of(args->bv);
    view.q_norm = data_of(args->q_norm);
    view.k_norm = data_of(args->k_norm);
    view.inverse_frequency = (const double *)entry->extra;
    view.epsilon = args->epsilon;
    view.head_count = args->head_count;
    view.kv_head_count = args->kv_head_count;
    view.head_size = args->head_size;
    view.pair_count = args->rope_pair_count;
    view.rope_style = args->rope_style;
    return device_launch<attn_in_finish_kernel>(
        step->backend->device, row_count < GRID_X_MAX ? row_count : (uint32_t)GRID_X_MAX, 1,
        ATTN_IN_THREADS, attn_in_shared_bytes(args->rope_pair_count), step->view, view);
}
