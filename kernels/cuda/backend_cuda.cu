/* The CUDA backend: life of a backend and of what is made from it. Steps are in program.cu. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/cublaslt.cuh"
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/plan.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/program.cuh"
#include "kernels/cuda/weight.cuh"

/* Of what is free on a card that nobody set a limit for; the rest is the driver's and others'. */
enum { MEMORY_TENTHS = 9 };

static const char *const kv_type_names[] = {"f16", "bf16", "fp8"}; /* by enum kv_type */

static enum status slot_allocate(struct backend *backend, struct cuda_slot *slot)
{
    struct device *device = backend->device;
    TRY(device_pinned_alloc(device, backend->plan_bytes, &slot->plan_host));
    TRY(device_pinned_alloc(device, cuda_answers_bytes(backend), &slot->answers_host));
    TRY(device_alloc(device, backend->plan_bytes, &slot->plan));
    TRY(device_alloc(device, cuda_answers_bytes(backend), &slot->answers));
    TRY(device_event_create(device, &slot->begin));
    return device_event_create(device, &slot->end);
}

static void slot_free(struct backend *backend, struct cuda_slot *slot)
{
    struct device *device = backend->device;

    device_pinned_free(device, slot->plan_host);
    device_pinned_free(device, slot->answers_host);
    device_free(device, slot->plan);
    device_free(device, slot->answers);
    device_event_destroy(device, slot->begin);
    device_event_destroy(device, slot->end);
}

static enum status allocate(struct backend *backend)
{
    const struct backend_settings *settings = &backend->settings;
    struct device *device = backend->device;
    const uint64_t history_bytes = settings->slot_count * (uint64_t)sizeof(struct cuda_history);
    const uint64_t id_count = (uint64_t)settings->slot_count * settings->history_tokens_max;

    TRY(device_alloc(device, history_bytes, (void **)&backend->histories));
    TRY(device_alloc(device, id_count * sizeof(uint32_t), (void **)&backend->history_ids));
    TRY(device_alloc(device, settings->row_count_max * (uint64_t)sizeof(uint32_t),
                     (void **)&backend->tokens));
    TRY(device_alloc(device, settings->sample_count_max * (uint64_t)sizeof(uint32_t),
                     (void **)&backend->logits_rows));
    TRY(chain_planner_create(settings->row_count_max, settings->partial_count_max,
                             &backend->chains));
    TRY(device_clear(device, backend->histories, history_bytes));
    for (uint32_t i = 0; i < BACKEND_STEP_SLOT_COUNT; i++) {
        TRY(slot_allocate(backend, &backend->slots[i]));
    }
    return device_wait(device);
}

static void kv_destroy(struct backend_kv *kv)
{
    struct device *device = kv->backend->device;

    device_free(device, kv->k);
    device_free(device, kv->v);
    device_free(device, kv->k_scales);
    device_free(device, kv->v_scales);
    memory_free(kv);
}

static void free_lists(struct backend *backend)
{
    while (backend->programs != NULL) {
        struct backend_program *program = backend->programs;

        backend->programs = program->next;
        cuda_program_destroy(program);
    }
    while (backend->weights != NULL) {
        struct backend_weight *weight = backend->weights;

        backend->weights = weight->next;
        cuda_weight_destroy(weight);
    }
    while (backend->buffers != NULL) {
        struct backend_buffer *buffer = backend->buffers;

        backend->buffers = buffer->next;
        device_free(backend->device, buffer->data);
        memory_free(buffer);
    }
    while (backend->kvs != NULL) {
        struct backend_kv *kv = backend->kvs;

        backend->kvs = kv->next;
        kv_destroy(kv);
    }
}

/* Freeing waits for the steps in flight. */
static void destroy(struct backend *backend)
{
    if (backend == NULL) {
        return;
    }
    free_lists(backend);
    device_free(backend->device, backend->activations.data);
    device_free(backend->device, backend->meeting.data);
    device_free(backend->device, backend->qkv.data);
    device_free(backend->device, backend->partials.data);
    device_free(backend->device, backend->sampling.data);
    device_free(backend->device, backend->sums.data);
    device_free(backend->device, backend->workspace.data);
    device_free(backend->device, backend->unpacked.data);
    chain_planner_destroy(backend->chains);
    cuda_product_forget(backend);
    cublaslt_close(backend->cublaslt);
    for (uint32_t i = 0; i < BACKEND_STEP_SLOT_COUNT; i++) {
        slot_free(backend, &backend->slots[i]);
    }
    device_free(backend->device, backend->histories);
    device_free(backend->device, backend->history_ids);
    device_free(backend->device, backend->tokens);
    device_free(backend->device, backend->logits_rows);
    device_close(backend->device);
    memory_free(backend);
}

/* An algorithm is good for the version that named it. */
static enum status take_library(struct backend *backend, uint32_t version, struct error *error)
{
    uint32_t found;

    if (backend->cublaslt == NULL) {
        TRY(cublaslt_open(backend->device, error, &backend->cublaslt));
    }
    found = cublaslt_version(backend->cublaslt);
    if (found != version) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the table of providers is for version %u of cuBLASLt, and this machine "
                         "has %u: let ./dev gpu write it anew, or name the other one by "
                         "PERSONAD_CUBLASLT",
                         version, found);
    }
    return STATUS_OK;
}

/* A table is true for the card that it was measured on. */
static enum status take_providers(struct backend *backend, struct error *error)
{
    const struct provider_table *table = backend->settings.providers;

    backend->settings.providers = NULL;
    if (table == NULL) {
        return STATUS_OK;
    }
    if (table->architecture != backend->facts.architecture) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the table of providers is for sm_%u and %s is sm_%u: use the one that "
                         "./dev gpu wrote on such a card, or none",
                         table->architecture, backend->facts.name, backend->facts.architecture);
    }
    backend->providers = *table;
    for (uint32_t i = 0; i < table->rule_count; i++) {
        const struct provider_rule *rule = &table->rules[i];

        if (rule->provider == PROVIDER_CUBLASLT) {
            TRY(take_library(backend, rule->version, error));
        }
    }
    return STATUS_OK;
}

/* What describe() and numerics_id() say. */
static void name_it(struct backend *backend)
{
    const struct device_facts *facts = &backend->facts;
    char by[32] = "", digest[32] = "";

    if (backend->providers.architecture != 0) {
        snprintf(by, sizeof(by), ", providers for %u shapes", backend->providers.rule_count);
        snprintf(digest, sizeof(digest), "/p-%016llx",
                 (unsigned long long)backend->providers.digest);
    }
    snprintf(backend->text, sizeof(backend->text), "cuda: %s, compute capability %u.%u, %llu MiB%s",
             facts->name, facts->architecture / 10, facts->architecture % 10,
             (unsigned long long)(facts->memory_bytes >> 20), by);
    snprintf(backend->numerics, sizeof(backend->numerics), "cuda/3/sm_%u/kv-%s%s%s",
             facts->architecture, kv_type_names[backend->settings.kv_type],
             backend->settings.weights_fp8 ? "/w-fp8" : "", digest);
}

static enum status create(const struct backend_settings *settings, struct error *error,
                          struct backend **out)
{
    struct device *device = NULL;

    CHECK(settings->row_count_max > 0 && settings->vocabulary_count > 0);
    TRY(device_open(settings->device, error, &device));
    struct backend *backend = (struct backend *)memory_alloc(1, sizeof(*backend));
    if (backend == NULL) {
        device_close(device);
        return error_set(error, STATUS_MEMORY, "out of memory for the CUDA backend");
    }
    backend->settings = *settings;
    backend->settings.isa = NULL;
    backend->device = device;
    backend->facts = *device_read_facts(device);
    backend->plan_bytes = cuda_plan_bytes(settings);
    enum status status = take_providers(backend, error);
    if (status != STATUS_OK) {
        destroy(backend);
        return status;
    }
    name_it(backend);
    status = allocate(backend);
    if (status != STATUS_OK) {
        (void)error_set(
            error, status, "%s: no room for the plans of a step (%llu MiB) %s", backend->facts.name,
            (unsigned long long)((2 * backend->plan_bytes >> 20) + 1), device_fault_text(device));
        destroy(backend);
        return status;
    }
    *out = backend;
    return STATUS_OK;
}

/* What the driver says is free counts everybody: others may come and go while we run, and what we
 * cannot have does not help that it was promised. */
static uint64_t memory_left(const struct backend *backend)
{
    const uint64_t found = backend->facts.memory_free_bytes;
    const uint64_t limit = backend->settings.memory_bytes_max != 0
                               ? backend->settings.memory_bytes_max
                               : found / 10 * MEMORY_TENTHS;
    const uint64_t free_bytes = device_memory_free(backend->device);
    const uint64_t used = found > free_bytes ? found - free_bytes : 0;
    const uint64_t left = limit > used ? limit - used : 0;

    return left < free_bytes ? left : free_bytes;
}

static const char *describe(const struct backend *backend)
{
    return backend->text;
}

static const char *numerics_id(const struct backend *backend)
{
    return backend->numerics;
}

static const char *fault_text(const struct backend *backend)
{
    return device_fault_text(backend->device);
}

static uint32_t step_slot_count(const struct backend *backend)
{
    (void)backend;
    return BACKEND_STEP_SLOT_COUNT;
}

static enum status weight_load(struct backend *backend, const struct weight_source *source,
                               struct error *error, struct backend_weight **out)
{
    struct backend_weight *weight = NULL;
    const uint64_t left = memory_left(backend);

    if (left < source->size_bytes) {
        return error_set(error, STATUS_MEMORY,
                         "tensor %s takes %llu KiB, and %llu KiB are left of what may be used of "
                         "%s: raise --gpu-memory, free the card, or choose a smaller model",
                         source->name, (unsigned long long)(source->size_bytes >> 10),
                         (unsigned long long)(left >> 10), backend->facts.name);
    }
    TRY(cuda_weight_create(backend, source, error, &weight));
    weight->next = backend->weights;
    backend->weights = weight;
    *out = weight;
    return STATUS_OK;
}

static enum status buffer_create(struct backend *backend, uint64_t float_count, struct error *error,
                                 struct backend_buffer **out)
{
    struct backend_buffer *buffer = (struct backend_buffer *)memory_alloc(1, sizeof(*buffer));
    const uint64_t size_bytes = float_count * sizeof(buffer->data[0]);
    enum status status = STATUS_MEMORY;

    if (buffer != NULL) {
        status = device_alloc(backend->device, size_bytes, (void **)&buffer->data);
    }
    if (status != STATUS_OK) {
        memory_free(buffer);
        return error_set(error, status, "the card has no room for a buffer of %llu numbers",
                         (unsigned long long)float_count);
    }
    buffer->float_count = float_count;
    buffer->backend = backend;
    buffer->next = backend->buffers;
    backend->buffers = buffer;
    *out = buffer;
    return STATUS_OK;
}

static enum status buffer_write(struct backend_buffer *buffer, const float *from,
                                uint64_t float_count)
{
    struct device *device = buffer->backend->device;

    CHECK(float_count <= buffer->float_count);
    TRY(device_upload(device, buffer->data, from, float_count * sizeof(from[0])));
    return device_wait(device); /* the caller's memory is free again */
}

static enum status buffer_read(const struct backend_buffer *buffer, uint64_t from, float *to,
                               uint64_t float_count)
{
    struct device *device = buffer->backend->device;

    CHECK(from <= buffer->float_count);
    CHECK(float_count <= buffer->float_count - from);
    TRY(device_download(device, to, buffer->data + from, float_count * sizeof(to[0])));
    return device_wait(device);
}

/* Rows of K, or of V, of one page in all layers. */
static uint64_t page_rows(const struct kv_shape *shape)
{
    return (uint64_t)shape->layer_count * shape->kv_head_count * KV_PAGE_TOKEN_COUNT;
}

/* K and V. */
static uint64_t kv_page_bytes(const struct backend *backend, const struct kv_shape *shape)
{
    const enum kv_type type = backend->settings.kv_type;
    const uint64_t scale_bytes = type == KV_TYPE_FP8 ? sizeof(float) : 0;

    return 2 * page_rows(shape) * (cuda_kv_row_bytes(type, shape->head_size) + scale_bytes);
}

static enum status kv_allocate(struct backend_kv *kv)
{
    const uint64_t rows = kv->shape.page_count * page_rows(&kv->shape);
    const uint64_t size_bytes = rows * cuda_kv_row_bytes(kv->type, kv->shape.head_size);
    const uint64_t scale_bytes = rows * sizeof(float);
    struct device *device = kv->backend->device;

    TRY(device_alloc(device, size_bytes, (void **)&kv->k));
    TRY(device_alloc(device, size_bytes, (void **)&kv->v));
    TRY(device_clear(device, kv->k, size_bytes));
    TRY(device_clear(device, kv->v, size_bytes));
    if (kv->type != KV_TYPE_FP8) {
        return STATUS_OK;
    }
    TRY(device_alloc(device, scale_bytes, (void **)&kv->k_scales));
    TRY(device_alloc(device, scale_bytes, (void **)&kv->v_scales));
    TRY(device_clear(device, kv->k_scales, scale_bytes));
    return device_clear(device, kv->v_scales, scale_bytes);
}

static enum status kv_create(struct backend *backend, const struct kv_shape *shape,
                             struct error *error, struct backend_kv **out)
{
    struct backend_kv *kv = (struct backend_kv *)memory_alloc(1, sizeof(*kv));

    if (kv == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for the pool of keys and values");
    }
    kv->backend = backend;
    kv->shape = *shape;
    kv->type = backend->settings.kv_type;
    kv->next = backend->kvs;
    const enum status status = kv_allocate(kv);
    if (status != STATUS_OK) {
        kv_destroy(kv);
        return error_set(error, status,
                         "the card has no room for %u pages of keys and values (%llu bytes each); "
                         "allow a smaller cache",
                         shape->page_count, (unsigned long long)kv_page_bytes(backend, shape));
    }
    backend->kvs = kv;
    *out = kv;
    return STATUS_OK;
}

static enum status program_create(struct backend *backend, uint32_t row_count_max,
                                  struct error *error, struct backend_program **out)
{
    struct backend_program *program = NULL;

    CHECK(row_count_max > 0 && row_count_max <= backend->settings.row_count_max);
    TRY(cuda_program_make(backend, row_count_max, error, &program));
    program->next = backend->programs;
    backend->programs = program;
    *out = program;
    return STATUS_OK;
}

#define CUDA_OP_ENTRY(op) cuda_##op,

extern "C" {
const struct backend_ops backend_cuda_ops = {
    "cuda",
    create,
    destroy,
    describe,
    numerics_id,
    step_slot_count,
    fault_text,
    weight_load,
    buffer_create,
    buffer_write,
    buffer_read,
    kv_create,
    kv_page_bytes,
    memory_left,
    program_create,
    {BACKEND_OP_MAP(CUDA_OP_ENTRY)},
    cuda_program_finish,
    cuda_step_submit,
    cuda_step_wait,
    nullptr,     /* profile: a step is one graph, its kernels are timed by the card's own tools */
    false,       /* checks_drafts */
    KV_TYPE_F16, /* kv_type_fast */
    nullptr,     /* rest: a card's memory is taken for good */
};
}
