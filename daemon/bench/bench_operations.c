/* Each operation is a program of its own that runs it once for each layer loaded, so that no cache
 * holds what the next layer needs; times are the device's own. */
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/bench_plan.h"
#include "bench/bench_table.h"
#include "model/model_file.h"

enum {
    LAYERS_MAX = 4,
    ROWS_MAX = 512,
    RUNS_MIN = 5,
    RUNS_MAX = 200,
    ATTENTION_CONTEXT = 4095,
    ATTENTION_ROWS = 64,
};

static const uint32_t row_counts[] = {1, 4, 16, 64, 256, 512};

enum operation { OP_ATTN_IN, OP_ATTENTION, OP_ATTN_OUT, OP_FFN_IN, OP_FFN_OUT, OP_COPY, OP_COUNT };

static const char *const operation_names[OP_COUNT] = {
    [OP_ATTN_IN] = "attn_in (norm, QKV, rotation, append)",
    [OP_ATTENTION] = "attention",
    [OP_ATTN_OUT] = "attn_out",
    [OP_FFN_IN] = "ffn_in (norm, gate, up, activation)",
    [OP_FFN_OUT] = "ffn_out",
    [OP_COPY] = "kv_copy",
};

struct layer_weights {
    struct backend_weight *q, *k, *v, *o, *gate, *up, *down;
};

struct lab {
    const struct bench_settings *settings;
    const struct model *model;
    struct backend *backend; /* owned; all below dies with it */
    struct backend_kv *kv;
    struct backend_buffer *x, *q, *a, *h, *norm;
    struct layer_weights layers[LAYERS_MAX];
    struct backend_program *programs[OP_COUNT];
    struct bench_plan *plan; /* owned */
    uint32_t layer_count, page_count;
    double kv_token_bytes; /* of the pool's layers */
};

/* ---- making ---- */

static enum status load_weight(struct lab *lab, enum tensor_role role, uint32_t layer, void *room,
                               struct error *error, struct backend_weight **out)
{
    const struct model_file *file = model_file(lab->model);
    const struct model_tensor *tensor = model_file_tensor(file, role, layer);

    CHECK(tensor != NULL);
    TRY(model_file_tensor_read(file, tensor, error, room));
    const struct weight_source source = {
        .name = "a weight",
        .dtype = tensor->dtype,
        .rows = (uint32_t)tensor->dimensions[1],
        .cols = (uint32_t)tensor->dimensions[0],
        .data = room,
        .size_bytes = tensor->size_bytes,
    };
    return lab->settings->ops->weight_load(lab->backend, &source, error, out);
}

static enum status load_layers(struct lab *lab, struct error *error)
{
    const struct model_tensor *largest =
        model_file_tensor(model_file(lab->model), TENSOR_FFN_DOWN, 0);
    void *room = memory_alloc_aligned(64, 1, 2 * largest->size_bytes);
    enum status status = STATUS_OK;

    if (room == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a weight");
    }
    for (uint32_t i = 0; status == STATUS_OK && i < lab->layer_count; i++) {
        struct layer_weights *layer = &lab->layers[i];
        const struct {
            enum tensor_role role;
            struct backend_weight **to;
        } weights[] = {{TENSOR_Q, &layer->q},           {TENSOR_K, &layer->k},
                       {TENSOR_V, &layer->v},           {TENSOR_ATTN_OUT, &layer->o},
                       {TENSOR_FFN_GATE, &layer->gate}, {TENSOR_FFN_UP, &layer->up},
                       {TENSOR_FFN_DOWN, &layer->down}};
        for (size_t j = 0; status == STATUS_OK && j < sizeof weights / sizeof weights[0]; j++) {
            status = load_weight(lab, weights[j].role, i, room, error, weights[j].to);
        }
    }
    memory_free(room);
    return status;
}

/* A buffer of noise between -1 and 1, or of ones. */
static enum status make_buffer(struct lab *lab, uint64_t count, bool noise, struct error *error,
                               struct backend_buffer **out)
{
    float *values = memory_alloc(count, sizeof *values);
    uint32_t state = 12345;

    if (values == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a buffer");
    }
    for (uint64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = noise ? (float)(int32_t)state / 2147483648.0f : 1;
    }
    enum status status = lab->settings->ops->buffer_create(lab->backend, count, error, out);
    if (status == STATUS_OK) {
        status = lab->settings->ops->buffer_write(*out, values, count);
    }
    memory_free(values);
    return status;
}

static enum status record(struct lab *lab, enum operation operation, uint32_t layer,
                          struct error *error)
{
    const struct backend_ops *ops = lab->settings->ops;
    const struct model_config *config = model_config(lab->model);
    const struct layer_weights *weights = &lab->layers[layer];
    struct backend_program *program = lab->programs[operation];
    const struct attn_in_args attn_in = {.x = lab->x,
                                         .q = lab->q,
                                         .kv = lab->kv,
                                         .layer = layer,
                                         .norm = lab->norm,
                                         .epsilon = config->norm_epsilon,
                                         .wq = weights->q,
                                         .wk = weights->k,
                                         .wv = weights->v,
                                         .head_count = config->head_count,
                                         .kv_head_count = config->kv_head_count,
                                         .head_size = config->head_size,
                                         .rope_pair_count = config->rope_pair_count,
                                         .rope_style = config->rope_style,
                                         .inverse_frequency = config->inverse_frequency};
    const struct attention_args attention = {.q = lab->q,
                                             .out = lab->a,
                                             .kv = lab->kv,
                                             .layer = layer,
                                             .head_count = config->head_count,
                                             .kv_head_count = config->kv_head_count,
                                             .head_size = config->head_size,
                                             .scale = config->attention_scale};
    const struct attn_out_args attn_out = {.x = lab->x, .a = lab->a, .wo = weights->o};
    const struct ffn_in_args ffn_in = {.x = lab->x,
                                       .h = lab->h,
                                       .norm = lab->norm,
                                       .epsilon = config->norm_epsilon,
                                       .wg = weights->gate,
                                       .wu = weights->up,
                                       .activation = config->activation};
    const struct ffn_out_args ffn_out = {.x = lab->x, .h = lab->h, .wd = weights->down};
    const struct kv_copy_args kv_copy = {.kv = lab->kv};

    switch (operation) {
    case OP_ATTN_IN:
        return ops->op.attn_in(program, &attn_in, error);
    case OP_ATTENTION:
        return ops->op.attention(program, &attention, error);
    case OP_ATTN_OUT:
        return ops->op.attn_out(program, &attn_out, error);
    case OP_FFN_IN:
        return ops->op.ffn_in(program, &ffn_in, error);
    case OP_FFN_OUT:
        return ops->op.ffn_out(program, &ffn_out, error);
    default: /* all layers at once */
        return layer == 0 ? ops->op.kv_copy(program, &kv_copy, error) : STATUS_OK;
    }
}

static enum status make_programs(struct lab *lab, struct error *error)
{
    const struct backend_ops *ops = lab->settings->ops;

    for (int operation = 0; operation < OP_COUNT; operation++) {
        TRY(ops->program_create(lab->backend, ROWS_MAX, error, &lab->programs[operation]));
        for (uint32_t layer = 0; layer < lab->layer_count; layer++) {
            TRY(record(lab, (enum operation)operation, layer, error));
        }
    }
    /* Only now: all programs are recorded before the first is finished. */
    for (int operation = 0; operation < OP_COUNT; operation++) {
        TRY(ops->program_finish(lab->programs[operation], error));
    }
    return STATUS_OK;
}

static enum status make_lab(struct lab *lab, struct error *error)
{
    const struct backend_ops *ops = lab->settings->ops;
    const struct model_config *config = model_config(lab->model);
    const uint64_t query = (uint64_t)config->head_count * config->head_size;
    const struct backend_settings settings = {
        .thread_count = lab->settings->thread_count,
        .row_count_max = ROWS_MAX,
        .sample_count_max = 1,
        .slot_count = 1,
        .history_tokens_max = ATTENTION_CONTEXT + 1,
        .vocabulary_count = config->vocabulary_count,
        .partial_count_max = ROWS_MAX * (ATTENTION_CONTEXT / ATTENTION_BLOCK_TOKENS + 1),
        .providers = lab->settings->providers,
        .weights_fp8 = lab->settings->weights_fp8,
    };
    struct kv_shape shape = {lab->layer_count, config->kv_head_count, config->head_size, 0};

    TRY(ops->create(&settings, error, &lab->backend));
    const uint64_t page_bytes = ops->kv_page_bytes(lab->backend, &shape);
    const uint64_t fit = lab->settings->memory_bytes / page_bytes;
    const uint32_t wanted = bench_plan_page_count(ATTENTION_ROWS, ATTENTION_CONTEXT, 0);
    lab->page_count = fit < wanted ? (uint32_t)fit : wanted;
    shape.page_count = lab->page_count;
    lab->kv_token_bytes = 4.0 * lab->layer_count * config->kv_head_count * config->head_size;
    TRY(ops->kv_create(lab->backend, &shape, error, &lab->kv));
    TRY(make_buffer(lab, (uint64_t)ROWS_MAX * config->width, true, error, &lab->x));
    TRY(make_buffer(lab, ROWS_MAX * query, true, error, &lab->q));
    TRY(make_buffer(lab, ROWS_MAX * query, true, error, &lab->a));
    TRY(make_buffer(lab, (uint64_t)ROWS_MAX * config->hidden, true, error, &lab->h));
    TRY(make_buffer(lab, config->width, false, error, &lab->norm));
    TRY(load_layers(lab, error));
    TRY(make_programs(lab, error));
    if (bench_plan_create(ROWS_MAX, ATTENTION_CONTEXT, &lab->plan) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory for plans");
    }
    return STATUS_OK;
}

/* ---- timing ---- */

static enum status run_once(struct lab *lab, enum operation operation, const struct plan *plan,
                            struct error *error, double *ms)
{
    const struct backend_ops *ops = lab->settings->ops;
    struct step_result result = {.samples = NULL};
    uint32_t ticket = 0;

    enum status status = ops->step_submit(lab->programs[operation], plan, &ticket);
    if (status == STATUS_OK) {
        status = ops->step_wait(lab->backend, ticket, &result);
    }
    if (status != STATUS_OK) {
        return error_set(error, status, "%s: %s", operation_names[operation], status_name(status));
    }
    *ms = (double)result.elapsed_ns * 1e-6;
    return STATUS_OK;
}

static enum status time_plan(struct lab *lab, enum operation operation, const struct plan *plan,
                             struct error *error, double *ms)
{
    double values[RUNS_MAX];
    double total = 0;
    uint32_t count = 0;

    TRY(run_once(lab, operation, plan, error, ms));
    while (count < RUNS_MAX && (count < RUNS_MIN || total < lab->settings->seconds * 1e3)) {
        TRY(run_once(lab, operation, plan, error, &values[count]));
        total += values[count++];
    }
    *ms = bench_table_median(values, count);
    return STATUS_OK;
}

static double matrix_elements(const struct lab *lab, enum operation operation)
{
    const struct model_config *config = model_config(lab->model);
    const double query = (double)config->head_count * config->head_size;
    const double kv = (double)config->kv_head_count * config->head_size;
    const double elements[OP_COUNT] = {
        [OP_ATTN_IN] = config->width * (query + 2 * kv),
        [OP_ATTN_OUT] = config->width * query,
        [OP_FFN_IN] = 2.0 * config->width * config->hidden,
        [OP_FFN_OUT] = (double)config->width * config->hidden,
    };

    return lab->layer_count * elements[operation];
}

/* Bytes of storage an element of the model's matrices. */
static double element_bytes(const struct lab *lab)
{
    const struct model_tensor *tensor =
        model_file_tensor(model_file(lab->model), TENSOR_FFN_DOWN, 0);

    return bench_element_bytes(lab->settings,
                               (double)tensor->size_bytes /
                                   ((double)tensor->dimensions[0] * (double)tensor->dimensions[1]));
}

static enum status run_matrices(struct lab *lab, enum operation operation, struct error *error)
{
    const double elements = matrix_elements(lab, operation);

    for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        struct bench_line line = {.name = operation_names[operation], .rows = row_counts[i]};
        if (bench_plan_page_count(line.rows, 0, 0) > lab->page_count) {
            bench_table_skip(lab->settings->out, line.name, "its KV does not fit the memory");
            continue;
        }
        const struct plan *plan = bench_plan_decode(lab->plan, line.rows, 0, 0, NULL);
        /* No logits here, and so nothing to draw from. */
        struct plan without = *plan;
        without.logits_row_count = 0;
        without.sample_count = 0;
        TRY(time_plan(lab, operation, &without, error, &line.ms));
        line.bytes = elements * element_bytes(lab);
        line.flops = 2 * elements * line.rows;
        bench_table_line(lab->settings, &line);
    }
    return STATUS_OK;
}

static enum status run_attention(struct lab *lab, uint32_t shared, struct error *error)
{
    const struct model_config *config = model_config(lab->model);
    const uint32_t rows = ATTENTION_ROWS;
    const double positions = shared + (double)rows * (ATTENTION_CONTEXT + 1 - shared);
    struct bench_line line = {.name = shared == 0 ? "attention, 64 x 4096 private"
                                                  : "attention, 64 x 3584 shared + 512",
                              .rows = rows};

    if (bench_plan_page_count(rows, ATTENTION_CONTEXT, shared) > lab->page_count) {
        bench_table_skip(lab->settings->out, line.name, "its KV does not fit the memory");
        return STATUS_OK;
    }
    struct plan plan = *bench_plan_decode(lab->plan, rows, ATTENTION_CONTEXT, shared, NULL);
    plan.logits_row_count = 0;
    plan.sample_count = 0;
    TRY(time_plan(lab, OP_ATTENTION, &plan, error, &line.ms));
    line.bytes = positions * lab->kv_token_bytes;
    line.flops = 4.0 * lab->layer_count * rows * (ATTENTION_CONTEXT + 1.0) * config->head_count *
                 config->head_size;
    bench_table_line(lab->settings, &line);
    return STATUS_OK;
}

/* True keys and values in every page: append for position 0 of each is not enough, so K and V of
 * 512 tokens are computed and spread. */
static enum status fill(struct lab *lab, struct error *error)
{
    const uint32_t from = ATTENTION_BLOCK_TOKENS / KV_PAGE_TOKEN_COUNT;
    uint32_t done = 0;
    double ms = 0;

    if (lab->page_count < from) {
        return STATUS_OK;
    }
    TRY(run_once(lab, OP_ATTN_IN, bench_plan_prefill(lab->plan, 0, ATTENTION_BLOCK_TOKENS, false),
                 error, &ms));
    for (;;) {
        const struct plan *plan = bench_plan_spread(lab->plan, from, lab->page_count, &done);
        if (plan == NULL) {
            return STATUS_OK;
        }
        TRY(run_once(lab, OP_COPY, plan, error, &ms));
    }
}

static enum status run_copy(struct lab *lab, struct error *error)
{
    const uint32_t half = lab->page_count / 2;
    const uint32_t count = half < ROWS_MAX ? half : ROWS_MAX;
    struct bench_line line = {.name = operation_names[OP_COPY], .rows = count};
    uint32_t done = 0;

    if (count == 0) {
        bench_table_skip(lab->settings->out, line.name, "its KV does not fit the memory");
        return STATUS_OK;
    }
    const struct plan *plan = bench_plan_spread(lab->plan, count, 2 * count, &done);
    TRY(time_plan(lab, OP_COPY, plan, error, &line.ms));
    line.bytes = 2.0 * count * KV_PAGE_TOKEN_COUNT * lab->kv_token_bytes;
    bench_table_line(lab->settings, &line);
    return STATUS_OK;
}

static enum status run_lab(struct lab *lab, struct error *error)
{
    TRY(fill(lab, error));
    TRY(run_copy(lab, error));
    TRY(run_matrices(lab, OP_ATTN_IN, error));
    TRY(run_matrices(lab, OP_ATTN_OUT, error));
    TRY(run_matrices(lab, OP_FFN_IN, error));
    TRY(run_matrices(lab, OP_FFN_OUT, error));
    TRY(run_attention(lab, 0, error));
    return run_attention(lab, ATTENTION_CONTEXT + 1 - ATTENTION_BLOCK_TOKENS, error);
}

enum status bench_operations(const struct bench_settings *settings, const struct model *model,
                             struct error *error)
{
    struct lab lab = {.settings = settings, .model = model};
    const uint32_t layers = model_config(model)->layer_count;
    char title[128];

    lab.layer_count = layers < LAYERS_MAX ? layers : LAYERS_MAX;
    enum status status = make_lab(&lab, error);
    if (status == STATUS_OK) {
        (void)snprintf(title, sizeof title, "One operation at a time, %u layers of it a run",
                       lab.layer_count);
        bench_table_head(settings->out, title);
        status = run_lab(&lab, error);
    }
    bench_plan_destroy(lab.plan);
    if (lab.backend != NULL) {
        settings->ops->destroy(lab.backend);
    }
    return status;
}
