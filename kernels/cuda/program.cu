/* Recording grows an array; finishing walks it and captures; a step launches what was captured. */
#include "kernels/cuda/program.cuh"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/plan.cuh"

enum { OP_COUNT_FIRST = 64 };

enum status cuda_program_make(struct backend *backend, uint32_t row_count_max, struct error *error,
                              struct backend_program **out)
{
    struct backend_program *program = (struct backend_program *)memory_alloc(1, sizeof(*program));

    if (program == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a program");
    }
    program->backend = backend;
    program->row_count_max = row_count_max;
    *out = program;
    return STATUS_OK;
}

static void free_graphs(struct backend_program *program)
{
    for (uint32_t bucket = 0; bucket < BUCKET_COUNT_MAX; bucket++) {
        for (uint32_t slot = 0; slot < BACKEND_STEP_SLOT_COUNT; slot++) {
            device_graph_destroy(program->backend->device, program->graphs[bucket][slot]);
            program->graphs[bucket][slot] = NULL;
        }
    }
}

void cuda_program_destroy(struct backend_program *program)
{
    if (program == NULL) {
        return;
    }
    free_graphs(program);
    for (uint32_t i = 0; i < program->op_count; i++) {
        device_free(program->backend->device, program->ops[i].extra);
    }
    memory_free(program->ops);
    memory_free(program);
}

enum status cuda_program_push(struct backend_program *program, enum cuda_op_kind kind,
                              struct error *error, struct cuda_op **out)
{
    if (program->graphs[0][0] != NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "a finished program takes no more operations; record another");
    }
    if (program->op_count == program->op_count_max) {
        const uint32_t count_max =
            program->op_count_max == 0 ? (uint32_t)OP_COUNT_FIRST : 2 * program->op_count_max;
        struct cuda_op *ops =
            (struct cuda_op *)memory_resize(program->ops, count_max, sizeof(ops[0]));

        if (ops == NULL) {
            return error_set(error, STATUS_MEMORY, "out of memory for a program");
        }
        program->ops = ops;
        program->op_count_max = count_max;
    }
    *out = &program->ops[program->op_count];
    memset(*out, 0, sizeof(**out));
    (*out)->kind = kind;
    program->op_count++;
    return STATUS_OK;
}

enum status cuda_scratch_want(struct backend *backend, struct cuda_scratch *scratch,
                              uint64_t size_bytes, const char *what, struct error *error)
{
    void *data = NULL;

    if (size_bytes <= scratch->size_bytes) {
        return STATUS_OK;
    }
    if (backend->has_graphs) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "a program that needs more room for %s (%llu MiB) must be recorded before "
                         "another is finished",
                         what, (unsigned long long)((size_bytes >> 20) + 1));
    }
    /* A step that still uses the old memory ends first. */
    if (device_wait(backend->device) != STATUS_OK) {
        return error_set(error, STATUS_DEVICE, "the card failed: %s",
                         device_fault_text(backend->device));
    }
    device_free(backend->device, scratch->data);
    scratch->data = NULL;
    scratch->size_bytes = 0;
    const enum status status = device_alloc(backend->device, size_bytes, &data);
    if (status != STATUS_OK) {
        return error_set(error, status, "the card has no room for %s (%llu MiB)", what,
                         (unsigned long long)((size_bytes >> 20) + 1));
    }
    scratch->data = data;
    scratch->size_bytes = size_bytes;
    return STATUS_OK;
}

static enum status run_ops(const struct cuda_step *step)
{
    const struct backend_program *program = step->program;

    for (uint32_t i = 0; i < program->op_count; i++) {
        const struct cuda_op *op = &program->ops[i];

        switch (op->kind) {
#define X(name)                           \
    case CUDA_OP_##name:                  \
        TRY(cuda_##name##_run(step, op)); \
        break;
            BACKEND_OP_MAP(X)
#undef X
        }
    }
    return STATUS_OK;
}

/* ---- capturing ---- */

static enum status run_step(const struct cuda_step *step, const struct cuda_slot *slot)
{
    struct backend *backend = step->backend;

    TRY(cuda_plan_begin(step));
    TRY(run_ops(step));
    return device_download(backend->device, slot->answers_host, slot->answers,
                           cuda_answers_bytes(backend));
}

static enum status capture(struct backend_program *program, uint32_t bucket, uint32_t slot_index)
{
    struct backend *backend = program->backend;
    const struct backend_settings *settings = &backend->settings;
    const struct cuda_slot *slot = &backend->slots[slot_index];
    struct device_graph *graph = NULL;
    struct cuda_step step = {};

    step.backend = backend;
    step.program = program;
    step.most.row_count = bucket_rows(program->row_count_max, bucket);
    step.most.logits_row_count = settings->sample_count_max;
    if (bucket + 1 < bucket_count(program->row_count_max) &&
        step.most.row_count < settings->sample_count_max) {
        step.most.logits_row_count = step.most.row_count;
    }
    step.most.sample_count = settings->sample_count_max;
    step.most.partial_count = settings->partial_count_max;
    step.view = (const struct cuda_plan_view *)slot->plan;
    step.tokens = backend->tokens;
    step.logits_rows = backend->logits_rows;
    TRY(device_capture_begin(backend->device));
    const enum status status = run_step(&step, slot);
    const enum status ended = device_capture_end(backend->device, &graph);
    program->graphs[bucket][slot_index] = graph;
    return status != STATUS_OK ? status : ended;
}

enum status cuda_program_finish(struct backend_program *program, struct error *error)
{
    struct backend *backend = program->backend;

    for (uint32_t bucket = 0; bucket < bucket_count(program->row_count_max); bucket++) {
        for (uint32_t slot = 0; slot < BACKEND_STEP_SLOT_COUNT; slot++) {
            const enum status status = capture(program, bucket, slot);
            if (status != STATUS_OK) {
                free_graphs(program);
                return error_set(error, status, "a step of %u rows cannot be captured: %s",
                                 bucket_rows(program->row_count_max, bucket),
                                 status == STATUS_MEMORY ? "out of memory"
                                                         : device_fault_text(backend->device));
            }
        }
    }
    program->chains = cuda_attention_chains(program);
    backend->has_graphs = true;
    return STATUS_OK;
}

/* ---- steps ---- */

/* A row may be wanted several times. */
static uint32_t bucket_for(const struct backend_program *program, const struct plan *plan)
{
    const uint32_t most = program->row_count_max;
    const uint32_t wanted =
        plan->row_count > plan->logits_row_count ? plan->row_count : plan->logits_row_count;

    return bucket_of(most, wanted < most ? wanted : most);
}

enum status cuda_step_submit(struct backend_program *program, const struct plan *plan,
                             uint32_t *ticket)
{
    struct backend *backend = program->backend;
    const uint32_t slot_index = backend->ticket_next % BACKEND_STEP_SLOT_COUNT;
    const uint32_t bucket = bucket_for(program, plan);
    struct cuda_slot *slot = &backend->slots[slot_index];
    uint64_t plan_bytes = 0;
    uint32_t chain_count = 0;

    CHECK(plan->row_count <= program->row_count_max);
    CHECK(plan->sample_count <= backend->settings.sample_count_max);
    CHECK(plan->logits_row_count <= backend->settings.sample_count_max);
    CHECK(plan->partial_count <= backend->settings.partial_count_max);
    CHECK(program->graphs[bucket][slot_index] != NULL); /* it is finished */
    if (slot->in_flight) {
        return STATUS_AGAIN;
    }
    const struct plan *chained =
        chain_planner_make(backend->chains, plan, &program->chains, &chain_count);
    TRY(cuda_plan_pack(backend, slot, chained, chain_count, &plan_bytes));
    TRY(device_event_record(backend->device, slot->begin));
    TRY(device_upload(backend->device, slot->plan, slot->plan_host, plan_bytes));
    TRY(device_graph_launch(backend->device, program->graphs[bucket][slot_index]));
    TRY(device_event_record(backend->device, slot->end));
    slot->in_flight = true;
    *ticket = backend->ticket_next;
    backend->ticket_next++;
    return STATUS_OK;
}

enum status cuda_step_wait(struct backend *backend, uint32_t ticket, struct step_result *out)
{
    struct cuda_slot *slot = &backend->slots[ticket % BACKEND_STEP_SLOT_COUNT];
    uint64_t elapsed_ns = 0;

    CHECK(ticket == backend->ticket_waited && slot->in_flight);
    backend->ticket_waited++;
    slot->in_flight = false;
    TRY(device_event_wait(backend->device, slot->end));
    TRY(device_event_elapsed(backend->device, slot->begin, slot->end, &elapsed_ns));
    out->samples = (const struct sample_result *)slot->answers_host;
    out->row_faults = (const uint8_t *)slot->answers_host + cuda_row_faults_at(backend);
    out->elapsed_ns = elapsed_ns;
    return STATUS_OK;
}
