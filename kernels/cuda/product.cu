/* The matrix operations' common part: checks, activations, products into x and into q, k and v.
 *
 * Maths and shapes: product.cuh.
 * Bound by: matmul.cu.
 * Launch:   norm.cu, then matmul.cu.
 * Order:    matmul.cuh.
 * Checked:  tests/emulator/test_matmul.cpp.
 */
#include "kernels/cuda/product.cuh"

#include "base/check.h"

/* Counts are zero before the first launch, and every launch leaves them so. */
static enum status want_meeting(struct backend *backend, struct error *error)
{
    const uint64_t size_bytes = cuda_meeting_bytes(&backend->facts);

    if (backend->facts.architecture >= DEVICE_ARCHITECTURE_CLUSTER ||
        size_bytes <= backend->meeting.size_bytes) {
        return STATUS_OK;
    }
    TRY(cuda_scratch_want(backend, &backend->meeting, size_bytes, "sums of split products", error));
    if (device_clear(backend->device, backend->meeting.data, size_bytes) != STATUS_OK) {
        return error_set(error, STATUS_DEVICE, "the card failed: %s",
                         device_fault_text(backend->device));
    }
    return STATUS_OK;
}

enum status cuda_product_check(struct backend_program *program, const char *what,
                               const struct backend_weight *weight, uint32_t rows, uint32_t cols,
                               struct error *error)
{
    struct backend *backend = program->backend;
    const uint32_t row_count = program->row_count_max > backend->settings.sample_count_max
                                   ? program->row_count_max
                                   : backend->settings.sample_count_max;

    CHECK(weight != NULL);
    if (weight->view.rows != rows || weight->view.cols != cols) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s has %u rows of %u columns where the model needs %u of %u", what,
                         weight->view.rows, weight->view.cols, rows, cols);
    }
    TRY(want_meeting(backend, error));
    return cuda_scratch_want(backend, &backend->activations, cuda_activation_bytes(row_count, cols),
                             "activations", error);
}

enum status cuda_product_begin(const struct cuda_step *step, struct cuda_activation_source *source,
                               struct cuda_matmul_args *args)
{
    struct backend *backend = step->backend;
    uint8_t *scratch = (uint8_t *)backend->activations.data;

    CHECK(cuda_activation_bytes(source->row_count, source->cols) <=
          backend->activations.size_bytes);
    if (cuda_matmul_is_half(args)) {
        source->row_scales =
            (float *)(scratch + cuda_row_scales_at(source->row_count, source->cols));
    }
    args->activations = (const uint16_t *)scratch;
    args->row_scales = source->row_scales;
    args->meeting = (uint8_t *)backend->meeting.data;
    args->row_count = source->row_count;
    args->row_count_at = source->row_count_at;
    args->provider = cuda_matmul_provider(&backend->providers, args);
    return cuda_activations_fill(backend->device, source, (uint16_t *)scratch);
}

enum status cuda_product_add(const struct cuda_step *step, const struct backend_weight *weight,
                             const struct backend_buffer *bias, const struct backend_buffer *from,
                             struct backend_buffer *x)
{
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};

    source.x = from->data;
    source.cols = weight->view.cols;
    source.row_count = step->most.row_count;
    source.row_count_at = cuda_row_count_at(step);
    args.part_count = 1;
    args.parts[0].weight = weight->view;
    args.parts[0].out = x->data;
    args.parts[0].stride = weight->view.rows;
    args.parts[0].bias = bias == NULL ? NULL : bias->data;
    TRY(cuda_product_begin(step, &source, &args));
    return cuda_matmul_add(step->backend->device, &args);
}

enum status cuda_qkv_product(const struct cuda_step *step, const struct attn_in_args *op,
                             float *qkv)
{
    const struct backend_weight *const weights[] = {op->wq, op->wk, op->wv};
    struct cuda_activation_source source = {};
    struct cuda_matmul_args args = {};
    uint32_t first = 0;

    source.x = op->x->data;
    source.norm = op->norm->data;
    source.epsilon = op->epsilon;
    source.cols = op->wq->view.cols;
    source.row_count = step->most.row_count;
    source.row_count_at = cuda_row_count_at(step);
    args.part_count = 3;
    for (uint32_t i = 0; i < 3; i++) {
        args.parts[i].weight = weights[i]->view;
        args.parts[i].out = qkv + first;
        args.parts[i].stride = (op->head_count + 2 * op->kv_head_count) * op->head_size;
        first += weights[i]->view.rows;
    }
    TRY(cuda_product_begin(step, &source, &args));
    return cuda_matmul_store(step->backend->device, &args);
}
