/* The CPU backend: life of a backend and of what is made from it. A program runs to its end inside
 * step_submit, so there is one step in flight and step_wait only hands over its numbers.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/program.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/weight.h"

enum { ALIGNMENT = 64 };

static const char *const isa_texts[] = {
    "scalar", "AVX2", "AVX-512 VNNI", "AVX-512 VNNI, BF16", "NEON", "NEON dotprod", "NEON i8mm"};

static enum status allocate(struct backend *backend)
{
    const struct backend_settings *settings = &backend->settings;
    const size_t row_count = settings->row_count_max;

    TRY(pool_create(settings->thread_count, &backend->pool));
    backend->thread_count = pool_thread_count(backend->pool);
    backend->histories = memory_alloc(settings->slot_count, sizeof(backend->histories[0]));
    backend->history_ids = memory_alloc((size_t)settings->slot_count * settings->history_tokens_max,
                                        sizeof(backend->history_ids[0]));
    backend->tokens = memory_alloc(row_count, sizeof(backend->tokens[0]));
    backend->results = memory_alloc(settings->sample_count_max, sizeof(backend->results[0]));
    backend->row_faults = memory_alloc(row_count, 1);
    backend->worker_faults = memory_alloc(row_count, backend->thread_count);
    if (backend->histories == NULL || backend->history_ids == NULL || backend->tokens == NULL ||
        backend->results == NULL || backend->row_faults == NULL || backend->worker_faults == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < settings->slot_count; i++) {
        backend->histories[i].ids = backend->history_ids + (size_t)i * settings->history_tokens_max;
    }
    return STATUS_OK;
}

static void cpu_destroy(struct backend *backend)
{
    if (backend == NULL) {
        return;
    }
    while (backend->programs != NULL) {
        struct backend_program *program = backend->programs;

        backend->programs = program->next;
        cpu_program_destroy(program);
    }
    while (backend->weights != NULL) {
        struct backend_weight *weight = backend->weights;

        backend->weights = weight->next;
        cpu_weight_destroy(weight);
    }
    panel_store_finish(&backend->panels);
    while (backend->buffers != NULL) {
        struct backend_buffer *buffer = backend->buffers;

        backend->buffers = buffer->next;
        memory_free(buffer->data);
        memory_free(buffer);
    }
    while (backend->kvs != NULL) {
        struct backend_kv *kv = backend->kvs;

        backend->kvs = kv->next;
        memory_free(kv->k);
        memory_free(kv->v);
        memory_free(kv);
    }
    cpu_attention_destroy(backend->attention);
    cpu_sample_destroy(backend->sample);
    pool_destroy(backend->pool);
    memory_free(backend->histories);
    memory_free(backend->history_ids);
    memory_free(backend->tokens);
    memory_free(backend->results);
    memory_free(backend->row_faults);
    memory_free(backend->worker_faults);
    memory_free(backend);
}

static enum status cpu_create(const struct backend_settings *settings, struct error *error,
                              struct backend **out)
{
    struct backend *backend;
    enum cpu_isa isa;

    CHECK(settings->row_count_max > 0 && settings->vocabulary_count > 0);
    if (settings->thread_count > CPU_THREAD_COUNT_MAX) {
        return error_set(error, STATUS_LIMIT, "%u threads are wanted; the most is %d",
                         settings->thread_count, CPU_THREAD_COUNT_MAX);
    }
    if (settings->kv_type != KV_TYPE_F16 && settings->kv_type != KV_TYPE_BF16) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the cpu backend keeps keys and values as f16 or bf16; other types need "
                         "a card");
    }
    if (settings->weights_fp8) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the cpu backend keeps weights as the file has them (as-is) only; "
                         "fp8 weights need a card");
    }
    if (settings->providers != NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "a table of providers says what multiplies on a card: leave it out, or "
                         "use a card");
    }
    TRY(cpu_isa_choose(settings->isa, error, &isa));
    backend = memory_alloc(1, sizeof(*backend));
    if (backend == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for the CPU backend");
    }
    backend->settings = *settings;
    backend->settings.isa = NULL;
    backend->isa = isa;
    backend->kernels = cpu_isa_kernels(isa);
    if (allocate(backend) != STATUS_OK) {
        cpu_destroy(backend);
        return error_set(error, STATUS_MEMORY, "out of memory for the CPU backend");
    }
    backend->settings.thread_count = backend->thread_count;
    snprintf(backend->text, sizeof(backend->text), "cpu: %s, %u thread%s%s", isa_texts[isa],
             backend->thread_count, backend->thread_count == 1 ? "" : "s",
             settings->precise ? ", precise" : "");
    *out = backend;
    return STATUS_OK;
}

static const char *cpu_describe(const struct backend *backend)
{
    return backend->text;
}

static const char *cpu_numerics_id(const struct backend *backend)
{
    const bool is_bf16 = backend->settings.kv_type == KV_TYPE_BF16;

    if (backend->settings.precise) {
        return is_bf16 ? "cpu/1/kv-bf16/x-i16" : "cpu/1/kv-f16/x-i16";
    }
    for (const struct backend_weight *weight = backend->weights; weight != NULL;
         weight = weight->next) {
        if (weight->is_paired) {
            return is_bf16 ? "cpu/1/kv-bf16/x-bf16" : "cpu/1/kv-f16/x-bf16";
        }
    }
    return is_bf16 ? "cpu/1/kv-bf16" : "cpu/1/kv-f16";
}

static uint32_t cpu_step_slot_count(const struct backend *backend)
{
    (void)backend;
    return 1;
}

static enum status cpu_weight_load(struct backend *backend, const struct weight_source *source,
                                   struct error *error, struct backend_weight **out)
{
    struct backend_weight *weight;

    TRY(cpu_weight_create(source, !backend->settings.precise, &backend->panels, backend->pool,
                          error, &weight));
    weight->backend = backend;
    weight->next = backend->weights;
    backend->weights = weight;
    *out = weight;
    return STATUS_OK;
}

static enum status cpu_buffer_create(struct backend *backend, uint64_t float_count,
                                     struct error *error, struct backend_buffer **out)
{
    struct backend_buffer *buffer = memory_alloc(1, sizeof(*buffer));

    if (buffer != NULL) {
        buffer->data = memory_alloc_aligned(ALIGNMENT, float_count, sizeof(buffer->data[0]));
    }
    if (buffer == NULL || buffer->data == NULL) {
        memory_free(buffer);
        return error_set(error, STATUS_MEMORY, "out of memory for a buffer of %llu numbers",
                         (unsigned long long)float_count);
    }
    buffer->float_count = float_count;
    buffer->backend = backend;
    buffer->next = backend->buffers;
    backend->buffers = buffer;
    *out = buffer;
    return STATUS_OK;
}

static enum status cpu_buffer_write(struct backend_buffer *buffer, const float *from,
                                    uint64_t float_count)
{
    CHECK(float_count <= buffer->float_count);
    memcpy(buffer->data, from, float_count * sizeof(from[0]));
    buffer->is_given = true;
    return STATUS_OK;
}

static enum status cpu_buffer_read(const struct backend_buffer *buffer, uint64_t from, float *to,
                                   uint64_t float_count)
{
    CHECK(from <= buffer->float_count);
    CHECK(float_count <= buffer->float_count - from);
    memcpy(to, buffer->data + from, float_count * sizeof(to[0]));
    return STATUS_OK;
}

static const char *cpu_fault_text(const struct backend *backend)
{
    (void)backend;
    return "";
}

static uint64_t cpu_memory_left(const struct backend *backend)
{
    (void)backend;
    return BACKEND_MEMORY_SHARED;
}

static uint64_t cpu_kv_page_bytes(const struct backend *backend, const struct kv_shape *shape)
{
    (void)backend;
    return 2 * sizeof(uint16_t) * cpu_kv_page_halves(shape);
}

static enum status cpu_kv_create(struct backend *backend, const struct kv_shape *shape,
                                 struct error *error, struct backend_kv **out)
{
    const uint64_t page_bytes = sizeof(uint16_t) * cpu_kv_page_halves(shape);
    struct backend_kv *kv = memory_alloc(1, sizeof(*kv));

    if (kv != NULL) {
        kv->k = memory_alloc_huge(shape->page_count, page_bytes);
        kv->v = memory_alloc_huge(shape->page_count, page_bytes);
    }
    if (kv == NULL || kv->k == NULL || kv->v == NULL) {
        if (kv != NULL) {
            memory_free(kv->k);
            memory_free(kv->v);
        }
        memory_free(kv);
        return error_set(error, STATUS_MEMORY,
                         "out of memory for %u pages of keys and values (%llu bytes each); allow "
                         "a smaller cache",
                         shape->page_count, (unsigned long long)(2 * page_bytes));
    }
    kv->shape = *shape;
    kv->is_paired = backend->settings.kv_type == KV_TYPE_BF16;
    kv->backend = backend;
    kv->next = backend->kvs;
    backend->kvs = kv;
    *out = kv;
    return STATUS_OK;
}

static enum status cpu_program_create(struct backend *backend, uint32_t row_count_max,
                                      struct error *error, struct backend_program **out)
{
    struct backend_program *program;

    CHECK(row_count_max > 0 && row_count_max <= backend->settings.row_count_max);
    TRY(cpu_program_make(backend, row_count_max, error, &program));
    program->next = backend->programs;
    backend->programs = program;
    *out = program;
    return STATUS_OK;
}

/* A program is run as it was recorded: only its end is noted. */
static enum status cpu_program_finish(struct backend_program *program, struct error *error)
{
    (void)error;
    program->is_finished = true;
    return STATUS_OK;
}

static enum status cpu_step_submit(struct backend_program *program, const struct plan *plan,
                                   uint32_t *ticket)
{
    struct backend *backend = program->backend;
    const uint64_t begin = pool_now_ns();

    if (backend->in_flight) {
        return STATUS_AGAIN;
    }
    cpu_program_run(program, plan);
    backend->elapsed_ns = pool_now_ns() - begin;
    if (backend->profile != NULL) {
        backend->profile->step_count++;
        backend->profile->step_ns += backend->elapsed_ns;
    }
    backend->in_flight = true;
    backend->ticket_next++;
    *ticket = backend->ticket_next;
    return STATUS_OK;
}

static enum status cpu_step_wait(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    CHECK(backend->in_flight);
    CHECK(ticket == backend->ticket_next);
    backend->in_flight = false;
    out->samples = backend->results;
    out->row_faults = backend->row_faults;
    out->elapsed_ns = backend->elapsed_ns;
    return STATUS_OK;
}

static void cpu_profile(struct backend *backend, struct backend_profile *profile)
{
    CHECK(!backend->in_flight);
    backend->profile = profile;
    pool_time(backend->pool, profile != NULL);
    if (profile != NULL) {
        profile->thread_count = backend->thread_count;
    }
}

/* A step of many rows touches far more of its scratch than of all else that is not a weight or a
 * page: the logits of 64 rows over 49,152 ids are 12 MiB. */
static void cpu_rest(struct backend *backend)
{
    CHECK(!backend->in_flight);
    for (struct backend_buffer *buffer = backend->buffers; buffer != NULL; buffer = buffer->next) {
        if (!buffer->is_given) {
            memory_clear(buffer->data, buffer->float_count, sizeof(buffer->data[0]));
        }
    }
    for (struct backend_program *program = backend->programs; program != NULL;
         program = program->next) {
        cpu_rows_clear(program->rows);
        cpu_rows_clear(program->hidden);
    }
    cpu_attention_rest(backend);
    cpu_sample_rest(backend);
}

#define CPU_OP_ENTRY(op) .op = cpu_##op,

const struct backend_ops backend_cpu_ops = {
    .name = "cpu",
    .create = cpu_create,
    .destroy = cpu_destroy,
    .describe = cpu_describe,
    .numerics_id = cpu_numerics_id,
    .step_slot_count = cpu_step_slot_count,
    .fault_text = cpu_fault_text,
    .weight_load = cpu_weight_load,
    .buffer_create = cpu_buffer_create,
    .buffer_write = cpu_buffer_write,
    .buffer_read = cpu_buffer_read,
    .kv_create = cpu_kv_create,
    .kv_page_bytes = cpu_kv_page_bytes,
    .memory_left = cpu_memory_left,
    .program_create = cpu_program_create,
    .op = {BACKEND_OP_MAP(CPU_OP_ENTRY)},
    .program_finish = cpu_program_finish,
    .step_submit = cpu_step_submit,
    .step_wait = cpu_step_wait,
    .profile = cpu_profile,
    .checks_drafts = true,
    .kv_type_fast = KV_TYPE_BF16,
    .rest = cpu_rest,
};
