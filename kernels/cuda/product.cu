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
#include "base/memory.h"
#include "kernels/cuda/cublaslt.cuh"

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

/* ---- what cuBLASLt needs ---- */

/* The one algorithm must serve every launch that may come. */
static enum status check_algorithm(struct backend *backend, const struct provider_rule *rule,
                                   const struct cublaslt_product *most, struct error *error)
{
    struct cublaslt_product product = *most;

    for (uint32_t bucket = 0; bucket < bucket_count(most->rows); bucket++) {
        product.rows = bucket_rows(most->rows, bucket);
        if (product.rows >= rule->rows_min &&
            cublaslt_check(backend->cublaslt, &product, &rule->algorithm) != STATUS_OK) {
            return error_set(error, STATUS_UNSUPPORTED,
                             "cuBLASLt has no such algorithm for %s %u %u by %u rows as the table "
                             "of providers names: let ./dev gpu write it anew",
                             provider_type_name(rule->type), rule->outputs, rule->cols,
                             product.rows);
        }
    }
    return STATUS_OK;
}

static struct cuda_plain *find_plain(const struct backend *backend,
                                     const struct cuda_weight_view *first)
{
    struct cuda_plain *plain = backend->plains;

    while (plain != NULL && plain->first->view.codes != first->codes) {
        plain = plain->next;
    }
    return plain;
}

static enum status want_plain(struct backend *backend, const struct backend_weight *const *weights,
                              uint32_t weight_count, const struct cublaslt_product *product,
                              struct error *error)
{
    const uint64_t size_bytes = (uint64_t)product->outputs * product->cols * sizeof(uint16_t);
    struct cuda_plain *plain = find_plain(backend, &weights[0]->view);
    uint64_t at = 0;

    if (plain != NULL) {
        return STATUS_OK;
    }
    plain = (struct cuda_plain *)memory_alloc(1, sizeof(*plain));
    if (plain == NULL ||
        device_alloc(backend->device, size_bytes, (void **)&plain->data) != STATUS_OK) {
        memory_free(plain);
        return error_set(error, STATUS_MEMORY,
                         "the card has no room for the copy of a matrix (%llu MiB) that cublaslt "
                         "wants: use a table of providers without it, or a smaller model",
                         (unsigned long long)((size_bytes >> 20) + 1));
    }
    plain->first = weights[0];
    plain->next = backend->plains;
    backend->plains = plain;
    for (uint32_t i = 0; i < weight_count; i++) {
        if (cuda_weight_copy_plain(backend->device, &weights[i]->view, plain->data + at) !=
            STATUS_OK) {
            return error_set(error, STATUS_DEVICE, "the card failed: %s",
                             device_fault_text(backend->device));
        }
        at += (uint64_t)weights[i]->view.rows * product->cols;
    }
    return STATUS_OK;
}

void cuda_product_forget(struct backend *backend)
{
    while (backend->plains != NULL) {
        struct cuda_plain *plain = backend->plains;

        backend->plains = plain->next;
        device_free(backend->device, plain->data);
        memory_free(plain);
    }
}

/* One place for all matrices: launches follow each other. */
static enum status want_unpacked(struct backend *backend,
                                 const struct backend_weight *const *weights, uint32_t weight_count,
                                 struct error *error)
{
    uint64_t size_bytes = 0;

    for (uint32_t i = 0; i < weight_count; i++) {
        size_bytes += cuda_unpacked_bytes(&weights[i]->view);
    }
    return cuda_scratch_want(backend, &backend->unpacked, size_bytes, "unpacked matrices", error);
}

enum status cuda_product_provide(struct backend *backend,
                                 const struct backend_weight *const *weights, uint32_t weight_count,
                                 uint32_t row_count_max, struct error *error)
{
    struct cublaslt_product product = {};
    struct cuda_matmul_args args = {};

    args.part_count = weight_count;
    args.row_count = row_count_max;
    for (uint32_t i = 0; i < weight_count; i++) {
        args.parts[i].weight = weights[i]->view;
        product.outputs += weights[i]->view.rows;
    }
    const struct provider_rule *rule = cuda_matmul_rule(&backend->providers, &args);
    if (rule != NULL && rule->provider == PROVIDER_UNPACKED) {
        return want_unpacked(backend, weights, weight_count, error);
    }
    if (rule == NULL || rule->provider != PROVIDER_CUBLASLT) {
        return STATUS_OK;
    }
    product.cols = weights[0]->view.unit_count * CUDA_UNIT_COLS;
    product.rows = row_count_max;
    product.is_half = cuda_matmul_is_half(&args);
    TRY(check_algorithm(backend, rule, &product, error));
    TRY(cuda_scratch_want(backend, &backend->workspace, CUBLASLT_WORKSPACE_BYTES,
                          "the workspace of cuBLASLt", error));
    TRY(cuda_scratch_want(backend, &backend->sums,
                          (uint64_t)row_count_max * product.outputs * sizeof(float),
                          "sums of cuBLASLt", error));
    return want_plain(backend, weights, weight_count, &product, error);
}

/* ---- launches ---- */

/* Whom the table names, and what they need; recorders have seen to it. */
static void take_provider(const struct backend *backend, struct cuda_matmul_args *args)
{
    const struct provider_rule *rule = cuda_matmul_rule(&backend->providers, args);

    args->provider = rule == NULL ? PROVIDER_MMA : rule->provider;
    args->unpacked = (uint8_t *)backend->unpacked.data;
    if (args->provider == PROVIDER_CUBLASLT) {
        const struct cuda_plain *plain = find_plain(backend, &args->parts[0].weight);

        CHECK(plain != NULL);
        args->library.library = backend->cublaslt;
        args->library.algorithm = &rule->algorithm;
        args->library.weights = plain->data;
        args->library.sums = (float *)backend->sums.data;
        args->library.workspace = backend->workspace.data;
        args->library.outputs = rule->outputs;
    }
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
    take_provider(backend, args);
    source->is_plain = args->provider == PROVIDER_CUBLASLT;
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
