/* Recording grows an array; a step walks it and launches. */
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

void cuda_program_destroy(struct backend_program *program)
{
    if (program == NULL) {
        return;
    }
    for (uint32_t i = 0; i < program->op_count; i++) {
        device_free(program->backend->device, program->ops[i].extra);
    }
    memory_free(program->ops);
    memory_free(program);
}

enum status cuda_program_push(struct backend_program *program, enum cuda_op_kind kind,
                              struct error *error, struct cuda_op **out)
{
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

static enum status download_answers(struct backend *backend, struct cuda_slot *slot,
                                    const struct plan *plan)
{
    TRY(device_download(backend->device, slot->results_host, slot->results,
                        plan->sample_count * sizeof(slot->results[0])));
    TRY(device_download(backend->device, slot->row_faults_host, slot->row_faults,
                        plan->row_count * sizeof(slot->row_faults[0])));
    return device_event_record(backend->device, slot->end);
}

enum status cuda_step_submit(struct backend_program *program, const struct plan *plan,
                             uint32_t *ticket)
{
    struct backend *backend = program->backend;
    struct cuda_slot *slot = &backend->slots[backend->ticket_next % BACKEND_STEP_SLOT_COUNT];
    struct cuda_step step = {backend, program, plan, {}};

    CHECK(plan->row_count <= program->row_count_max);
    CHECK(plan->sample_count <= backend->settings.sample_count_max);
    CHECK(plan->logits_row_count <= backend->settings.sample_count_max);
    CHECK(plan->partial_count <= backend->settings.partial_count_max);
    if (slot->in_flight) {
        return STATUS_AGAIN;
    }
    TRY(device_event_record(backend->device, slot->begin));
    TRY(cuda_plan_start(backend, slot, plan, &step.view));
    TRY(run_ops(&step));
    TRY(download_answers(backend, slot, plan));
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
    out->samples = slot->results_host;
    out->row_faults = slot->row_faults_host;
    out->elapsed_ns = elapsed_ns;
    return STATUS_OK;
}
