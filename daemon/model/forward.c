#include "model/forward.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "model/architecture.h"
#include "model/model_file.h"

/* The tensors of one layer, or those outside layers, on the device. NULL where the file has none.
 */
struct forward_tensors {
    struct backend_weight *weights[TENSOR_ROLE_COUNT];
    struct backend_buffer *vectors[TENSOR_ROLE_COUNT];
};

struct forward {
    const struct model *model;
    const struct backend_ops *ops;
    struct backend *backend;
    struct backend_kv *kv; /* this and all below live in the backend */
    struct backend_program *program;
    struct backend_buffer *x, *q, *a, *h, *logits;
    uint32_t sample_count_max;
    uint32_t page_count;
};

/* What is needed only while a forward is made. */
struct forward_load {
    struct forward *forward;
    const struct forward_settings *settings;
    struct error *error;
    void *bytes;   /* owned: one tensor as stored */
    float *floats; /* owned: one vector */
    uint64_t done_bytes;
    struct forward_tensors base;
    struct forward_tensors *layers; /* owned: [layer_count] */
};

static struct kv_shape forward_kv_shape(const struct model *model, uint32_t page_count)
{
    const struct model_config *config = model_config(model);
    const struct kv_shape shape = {
        .layer_count = config->layer_count,
        .kv_head_count = config->kv_head_count,
        .head_size = config->head_size,
        .page_count = page_count,
    };

    return shape;
}

uint64_t forward_kv_page_bytes(const struct model *model, const struct backend_ops *ops,
                               const struct backend *backend)
{
    const struct kv_shape shape = forward_kv_shape(model, 1);

    return ops->kv_page_bytes(backend, &shape);
}

/* ---- loading ---- */

static bool forward_is_vector(enum tensor_role role)
{
    return tensor_kinds[role].rows == EXTENT_ONE;
}

static enum status forward_load_vector(struct forward_load *load, const struct model_tensor *tensor,
                                       struct backend_buffer **out)
{
    const struct forward *forward = load->forward;
    const uint32_t count = (uint32_t)tensor->dimensions[0];
    struct backend_buffer *buffer = NULL;

    dtype_dequantize_row(tensor->dtype, load->bytes, count, load->floats);
    TRY(forward->ops->buffer_create(forward->backend, count, load->error, &buffer));
    const enum status status = forward->ops->buffer_write(buffer, load->floats, count);
    if (status != STATUS_OK) {
        return error_set(load->error, status, "a weight could not be written to the device");
    }
    *out = buffer;
    return STATUS_OK;
}

static enum status forward_load_matrix(struct forward_load *load, const struct model_tensor *tensor,
                                       const char *name, struct backend_weight **out)
{
    const struct forward *forward = load->forward;
    const struct weight_source source = {
        .name = name,
        .dtype = tensor->dtype,
        .rows = (uint32_t)tensor->dimensions[1],
        .cols = (uint32_t)tensor->dimensions[0],
        .data = load->bytes,
        .size_bytes = tensor->size_bytes,
    };

    return forward->ops->weight_load(forward->backend, &source, load->error, out);
}

static enum status forward_load_tensor(struct forward_load *load, enum tensor_role role,
                                       uint32_t layer, struct forward_tensors *to)
{
    const struct model *model = load->forward->model;
    const struct forward_settings *settings = load->settings;
    const struct model_tensor *tensor = model_file_tensor(model_file(model), role, layer);
    char name[TENSOR_NAME_BYTES_MAX];

    to->weights[role] = NULL;
    to->vectors[role] = NULL;
    /* The factors of rotary positions are inside the inverse frequencies already. */
    if (tensor == NULL || role == TENSOR_ROPE_FACTORS) {
        return STATUS_OK;
    }
    CHECK(architecture_tensor_name(model_file(model)->format->naming, role, layer, name));
    TRY(model_file_tensor_read(model_file(model), tensor, load->error, load->bytes));
    if (forward_is_vector(role)) {
        TRY(forward_load_vector(load, tensor, &to->vectors[role]));
    } else {
        TRY(forward_load_matrix(load, tensor, name, &to->weights[role]));
    }
    load->done_bytes += tensor->size_bytes;
    if (settings->on_progress != NULL) {
        settings->on_progress(settings->context, load->done_bytes,
                              model_config(model)->weight_bytes);
    }
    return STATUS_OK;
}

static enum status forward_load_roles(struct forward_load *load, int from, int to, uint32_t layer,
                                      struct forward_tensors *tensors)
{
    for (int role = from; role < to; role++) {
        TRY(forward_load_tensor(load, role, layer, tensors));
    }
    return STATUS_OK;
}

/* Room for the largest tensor, stored and as floats. */
static enum status forward_load_init(struct forward_load *load)
{
    const struct model_file *file = model_file(load->forward->model);
    uint64_t bytes_max = 0;
    uint64_t vector_max = 0;

    for (uint64_t i = 0; i < model_file_tensor_count(file); i++) {
        const struct model_tensor *tensor = model_file_tensor_at(file, i);
        bytes_max = tensor->size_bytes > bytes_max ? tensor->size_bytes : bytes_max;
        if (tensor->dimensions[1] == 1 && tensor->dimensions[0] > vector_max) {
            vector_max = tensor->dimensions[0];
        }
    }
    load->bytes = memory_alloc_aligned(64, 1, bytes_max);
    load->floats = memory_alloc(vector_max, sizeof(float));
    load->layers =
        memory_alloc(model_config(load->forward->model)->layer_count, sizeof(*load->layers));
    if (load->bytes == NULL || load->floats == NULL || load->layers == NULL) {
        return error_set(load->error, STATUS_MEMORY,
                         "%s: out of memory while its weights are loaded", model_file_name(file));
    }
    return STATUS_OK;
}

static enum status forward_create_buffers(struct forward *forward,
                                          const struct forward_settings *settings,
                                          struct error *error)
{
    const struct model_config *config = model_config(forward->model);
    const uint64_t rows = settings->row_count_max;
    const uint64_t query = (uint64_t)config->head_count * config->head_size;
    const struct {
        struct backend_buffer **buffer;
        uint64_t float_count;
    } buffers[] = {
        {&forward->x, rows * config->width},
        {&forward->q, rows * query},
        {&forward->a, rows * query},
        {&forward->h, rows * config->hidden},
        {&forward->logits, (uint64_t)settings->sample_count_max * config->vocabulary_count},
    };

    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        TRY(forward->ops->buffer_create(forward->backend, buffers[i].float_count, error,
                                        buffers[i].buffer));
    }
    return STATUS_OK;
}

/* ---- the program ---- */

static enum status forward_record_attention(const struct forward_load *load, uint32_t layer)
{
    const struct forward *forward = load->forward;
    const struct model_config *config = model_config(forward->model);
    const struct forward_tensors *tensors = &load->layers[layer];
    const struct attn_in_args in = {
        .x = forward->x,
        .q = forward->q,
        .kv = forward->kv,
        .layer = layer,
        .norm = tensors->vectors[TENSOR_ATTN_NORM],
        .epsilon = config->norm_epsilon,
        .wq = tensors->weights[TENSOR_Q],
        .wk = tensors->weights[TENSOR_K],
        .wv = tensors->weights[TENSOR_V],
        .bq = tensors->vectors[TENSOR_Q_BIAS],
        .bk = tensors->vectors[TENSOR_K_BIAS],
        .bv = tensors->vectors[TENSOR_V_BIAS],
        .q_norm = tensors->vectors[TENSOR_Q_NORM],
        .k_norm = tensors->vectors[TENSOR_K_NORM],
        .head_count = config->head_count,
        .kv_head_count = config->kv_head_count,
        .head_size = config->head_size,
        .rope_pair_count = config->rope_pair_count,
        .rope_style = config->rope_style,
        .inverse_frequency = config->inverse_frequency,
    };
    const struct attention_args attention = {
        .q = forward->q,
        .out = forward->a,
        .kv = forward->kv,
        .layer = layer,
        .head_count = config->head_count,
        .kv_head_count = config->kv_head_count,
        .head_size = config->head_size,
        .scale = config->attention_scale,
    };
    const struct attn_out_args out = {
        .x = forward->x,
        .a = forward->a,
        .wo = tensors->weights[TENSOR_ATTN_OUT],
        .bo = tensors->vectors[TENSOR_ATTN_OUT_BIAS],
    };

    TRY(forward->ops->op.attn_in(forward->program, &in, load->error));
    TRY(forward->ops->op.attention(forward->program, &attention, load->error));
    return forward->ops->op.attn_out(forward->program, &out, load->error);
}

static enum status forward_record_ffn(const struct forward_load *load, uint32_t layer)
{
    const struct forward *forward = load->forward;
    const struct model_config *config = model_config(forward->model);
    const struct forward_tensors *tensors = &load->layers[layer];
    const struct ffn_in_args in = {
        .x = forward->x,
        .h = forward->h,
        .norm = tensors->vectors[TENSOR_FFN_NORM],
        .epsilon = config->norm_epsilon,
        .wg = tensors->weights[TENSOR_FFN_GATE],
        .wu = tensors->weights[TENSOR_FFN_UP],
        .activation = config->activation,
    };
    const struct ffn_out_args out = {
        .x = forward->x,
        .h = forward->h,
        .wd = tensors->weights[TENSOR_FFN_DOWN],
    };

    TRY(forward->ops->op.ffn_in(forward->program, &in, load->error));
    return forward->ops->op.ffn_out(forward->program, &out, load->error);
}

static enum status forward_record_start(const struct forward_load *load)
{
    const struct forward *forward = load->forward;
    const struct kv_copy_args copy = {.kv = forward->kv};
    const struct embed_args embed = {
        .x = forward->x,
        .table = load->base.weights[TENSOR_EMBEDDING],
        .scale = model_config(forward->model)->embedding_scale,
    };

    TRY(forward->ops->op.kv_copy(forward->program, &copy, load->error));
    return forward->ops->op.embed(forward->program, &embed, load->error);
}

static enum status forward_record_end(const struct forward_load *load)
{
    const struct forward *forward = load->forward;
    const struct model_config *config = model_config(forward->model);
    const struct logits_args logits = {
        .x = forward->x,
        .logits = forward->logits,
        .norm = load->base.vectors[TENSOR_OUTPUT_NORM],
        .epsilon = config->norm_epsilon,
        .table = load->base.weights[config->tied ? TENSOR_EMBEDDING : TENSOR_OUTPUT],
    };
    const struct sample_args sample = {.logits = forward->logits};

    TRY(forward->ops->op.logits(forward->program, &logits, load->error));
    return forward->ops->op.sample(forward->program, &sample, load->error);
}

/* The pool and the program over it, but for its end. */
static enum status forward_record(struct forward_load *load, uint32_t page_count)
{
    struct forward *forward = load->forward;
    const struct kv_shape shape = forward_kv_shape(forward->model, page_count);

    TRY(forward->ops->kv_create(forward->backend, &shape, load->error, &forward->kv));
    TRY(forward->ops->program_create(forward->backend, load->settings->row_count_max, load->error,
                                     &forward->program));
    TRY(forward_record_start(load));
    for (uint32_t layer = 0; layer < shape.layer_count; layer++) {
        TRY(forward_record_attention(load, layer));
        TRY(forward_record_ffn(load, layer));
    }
    forward->page_count = page_count;
    return forward_record_end(load);
}

/* On a card the pages take what is left once the rest is there: weights, buffers, and what the
 * operations ask for while they are recorded, which a first program over one page finds out. */
static enum status forward_record_all(struct forward_load *load)
{
    const struct forward *forward = load->forward;
    const struct forward_settings *settings = load->settings;
    const uint64_t page_bytes =
        forward_kv_page_bytes(forward->model, forward->ops, forward->backend);

    if (forward->ops->memory_left(forward->backend) == BACKEND_MEMORY_SHARED) {
        TRY(forward_record(load, settings->page_count));
        return forward->ops->program_finish(forward->program, load->error);
    }
    TRY(forward_record(load, 1));
    const uint64_t recorded = forward->ops->memory_left(forward->backend);
    TRY(forward->ops->program_finish(forward->program, load->error));
    const uint64_t finished = forward->ops->memory_left(forward->backend);
    /* What finishing took it will take once more. */
    const uint64_t again = recorded > finished ? recorded - finished : 0;
    const uint64_t left = finished > again ? finished - again : 0;
    const uint64_t room = left / page_bytes;
    if (room < settings->page_count_min) {
        return error_set(load->error, STATUS_MEMORY,
                         "%llu MiB are left on the card for keys and values; %u pages of %llu KiB "
                         "are the least: raise --gpu-memory or shorten --context",
                         (unsigned long long)(left >> 20), settings->page_count_min,
                         (unsigned long long)(page_bytes >> 10));
    }
    TRY(forward_record(load, room < settings->page_count ? (uint32_t)room : settings->page_count));
    return forward->ops->program_finish(forward->program, load->error);
}

static enum status forward_load_all(struct forward_load *load)
{
    struct forward *forward = load->forward;
    const uint32_t layer_count = model_config(forward->model)->layer_count;

    TRY(forward_load_init(load));
    TRY(forward_create_buffers(forward, load->settings, load->error));
    TRY(forward_load_roles(load, 0, TENSOR_LAYER_FIRST, 0, &load->base));
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        TRY(forward_load_roles(load, TENSOR_LAYER_FIRST, TENSOR_ROLE_COUNT, layer,
                               &load->layers[layer]));
    }
    return forward_record_all(load);
}

enum status forward_create(const struct model *model, const struct backend_ops *ops,
                           struct backend *backend, const struct forward_settings *settings,
                           struct error *error, struct forward **out)
{
    struct forward *forward = memory_alloc(1, sizeof(*forward));

    if (forward == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while the model is loaded");
    }
    forward->model = model;
    forward->ops = ops;
    forward->backend = backend;
    forward->sample_count_max = settings->sample_count_max;
    struct forward_load load = {.forward = forward, .settings = settings, .error = error};
    const enum status status = forward_load_all(&load);
    memory_free(load.bytes);
    memory_free(load.floats);
    memory_free(load.layers);
    if (status != STATUS_OK) {
        forward_destroy(forward);
        return status;
    }
    *out = forward;
    return STATUS_OK;
}

enum status forward_create_program(const struct backend_ops *ops, struct backend *backend,
                                   struct backend_program *program, struct forward **out)
{
    struct forward *forward = memory_alloc(1, sizeof(*forward));

    if (forward == NULL) {
        return STATUS_MEMORY;
    }
    forward->ops = ops;
    forward->backend = backend;
    forward->program = program;
    *out = forward;
    return STATUS_OK;
}

void forward_destroy(struct forward *forward)
{
    memory_free(forward);
}

/* ---- steps ---- */

enum status forward_submit(struct forward *forward, const struct plan *plan, uint32_t *ticket)
{
    return forward->ops->step_submit(forward->program, plan, ticket);
}

enum status forward_wait(struct forward *forward, uint32_t ticket, struct step_result *out)
{
    return forward->ops->step_wait(forward->backend, ticket, out);
}

void forward_rest(struct forward *forward)
{
    if (forward->ops->rest != NULL) {
        forward->ops->rest(forward->backend);
    }
}

uint32_t forward_page_count(const struct forward *forward)
{
    return forward->page_count;
}

uint32_t forward_step_slot_count(const struct forward *forward)
{
    return forward->ops->step_slot_count(forward->backend);
}

bool forward_checks_drafts(const struct forward *forward)
{
    return forward->ops->checks_drafts;
}

const char *forward_fault_text(const struct forward *forward)
{
    return forward->ops->fault_text(forward->backend);
}

enum kv_type forward_kv_type(const struct model *model, const struct backend_ops *ops,
                             bool is_precise)
{
    return model_config(model)->rounds_rows && !is_precise ? ops->kv_type_fast : KV_TYPE_F16;
}

const char *forward_numerics_id(const struct forward *forward)
{
    return forward->ops->numerics_id(forward->backend);
}

enum status forward_logits_read(const struct forward *forward, uint32_t row, float *to)
{
    const uint64_t count = model_config(forward->model)->vocabulary_count;

    CHECK(row < forward->sample_count_max);
    return forward->ops->buffer_read(forward->logits, row * count, to, count);
}

const struct model *forward_model(const struct forward *forward)
{
    return forward->model;
}
