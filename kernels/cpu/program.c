/* Recording grows an array; running walks it. */
#include "kernels/cpu/program.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/rows.h"
#include "kernels/steps/math.h"

enum { OP_COUNT_FIRST = 64 };

enum status cpu_program_make(struct backend *backend, uint32_t row_count_max, struct error *error,
                             struct backend_program **out)
{
    const struct backend_settings *settings = &backend->settings;
    const bool with_words = backend->kernels->with_words;
    /* The output matrix may be given more rows than the layers: one a sample item. */
    const uint32_t sample_count = settings->sample_count_max;
    const uint32_t packed_max = row_count_max > sample_count ? row_count_max : sample_count;
    struct backend_program *program = memory_alloc(1, sizeof(*program));

    if (program == NULL ||
        cpu_rows_create(packed_max, backend->thread_count, settings->precise, with_words,
                        &program->rows) != STATUS_OK ||
        cpu_rows_create(row_count_max, backend->thread_count, settings->precise, with_words,
                        &program->hidden) != STATUS_OK) {
        cpu_program_destroy(program);
        return error_set(error, STATUS_MEMORY, "out of memory for a program");
    }
    program->backend = backend;
    program->row_count_max = row_count_max;
    *out = program;
    return STATUS_OK;
}

void cpu_program_destroy(struct backend_program *program)
{
    if (program == NULL) {
        return;
    }
    for (uint32_t i = 0; i < program->angles_count; i++) {
        memory_free(program->angles[i].cosines);
        memory_free(program->angles[i].sines);
    }
    cpu_rows_destroy(program->rows);
    cpu_rows_destroy(program->hidden);
    memory_free(program->ops);
    memory_free(program);
}

enum status cpu_program_push(struct backend_program *program, enum cpu_op_kind kind,
                             struct error *error, struct cpu_op **out)
{
    if (program->is_finished) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "a finished program takes no more operations; record another");
    }
    if (program->op_count == program->op_count_max) {
        const uint32_t count_max =
            program->op_count_max == 0 ? OP_COUNT_FIRST : 2 * program->op_count_max;
        struct cpu_op *ops = memory_resize(program->ops, count_max, sizeof(ops[0]));

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

enum status cpu_angles_create(struct backend_program *program, const double *inverse_frequency,
                              uint32_t pair_count, struct error *error)
{
    struct cpu_angles *angles = &program->angles[program->angles_count];
    const size_t count = (size_t)program->row_count_max * pair_count;

    CHECK(program->angles_count < CPU_ANGLE_TABLE_COUNT_MAX);
    angles->inverse_frequency = inverse_frequency;
    angles->pair_count = pair_count;
    angles->cosines = memory_alloc_aligned(64, count, sizeof(angles->cosines[0]));
    angles->sines = memory_alloc_aligned(64, count, sizeof(angles->sines[0]));
    if (angles->cosines == NULL || angles->sines == NULL) {
        memory_free(angles->cosines);
        memory_free(angles->sines);
        return error_set(error, STATUS_MEMORY, "out of memory for the rotation angles");
    }
    program->angles_count++;
    return STATUS_OK;
}

static void fill_angles(const struct cpu_angles *angles, const struct plan *plan)
{
    for (uint32_t row = 0; row < plan->row_count; row++) {
        const uint64_t at = (uint64_t)row * angles->pair_count;

        for (uint32_t i = 0; i < angles->pair_count; i++) {
            steps_sincos((double)plan->rows[row].position * angles->inverse_frequency[i],
                         &angles->sines[at + i], &angles->cosines[at + i]);
        }
    }
}

static void apply_histories(struct backend *backend, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->history_count; i++) {
        const struct plan_history *from = &plan->histories[i];
        struct cpu_history *history;

        CHECK(from->slot < backend->settings.slot_count);
        history = &backend->histories[from->slot];
        if (from->reset != 0) {
            history->count = 0;
            history->prompt_count = from->prompt_count;
            history->last = 0;
        }
        CHECK(from->count <= backend->settings.history_tokens_max - history->count);
        if (from->count > 0) {
            memcpy(history->ids + history->count, from->ids, from->count * sizeof(from->ids[0]));
            history->count += from->count;
            history->last = from->ids[from->count - 1];
        }
    }
}

static void resolve_tokens(struct backend *backend, const struct plan *plan)
{
    for (uint32_t row = 0; row < plan->row_count; row++) {
        uint32_t token = plan->rows[row].token;

        if ((token & PLAN_TOKEN_LAST) != 0) {
            const uint32_t slot = token & ~(uint32_t)PLAN_TOKEN_LAST;

            CHECK(slot < backend->settings.slot_count);
            token = backend->histories[slot].last;
        }
        backend->tokens[row] = token;
    }
}

static void gather_faults(struct backend *backend, const struct plan *plan)
{
    for (uint32_t row = 0; row < plan->row_count; row++) {
        uint8_t fault = 0;

        for (uint32_t worker = 0; worker < backend->thread_count; worker++) {
            fault |= backend->worker_faults[(size_t)worker * backend->settings.row_count_max + row];
        }
        backend->row_faults[row] = fault;
    }
}

static void run_op(const struct cpu_step *step)
{
    switch (step->op->kind) {
#define X(name)                                       \
    case CPU_OP_##name:                               \
        cpu_##name##_run(step, &step->op->args.name); \
        break;
        BACKEND_OP_MAP(X)
#undef X
    }
}

static void run_op_timed(const struct cpu_step *step)
{
    struct backend_profile *profile = step->backend->profile;
    struct backend_op_time *time = &profile->ops[step->op->kind];
    const uint32_t thread_count = step->backend->thread_count;
    const struct pool_times before = pool_times(step->backend->pool);
    const uint64_t begin_ns = pool_now_ns();

    run_op(step);
    const uint64_t ns = pool_now_ns() - begin_ns;
    const struct pool_times after = pool_times(step->backend->pool);
    const uint64_t shared_ns = after.run_ns - before.run_ns;
    const uint64_t busy_ns = (after.busy_ns - before.busy_ns) / thread_count;

    time->run_count++;
    time->ns += ns;
    time->wait_ns += shared_ns > busy_ns ? shared_ns - busy_ns : 0;
    time->alone_ns += thread_count > 1 && ns > shared_ns ? ns - shared_ns : 0;
    profile->barrier_count += after.run_count - before.run_count;
}

void cpu_program_run(struct backend_program *program, const struct plan *plan)
{
    struct backend *backend = program->backend;
    struct cpu_step step = {backend, program, plan, NULL};

    CHECK(plan->row_count <= program->row_count_max);
    CHECK(plan->sample_count <= backend->settings.sample_count_max);
    apply_histories(backend, plan);
    resolve_tokens(backend, plan);
    memset(backend->worker_faults, 0,
           (size_t)backend->thread_count * backend->settings.row_count_max);
    for (uint32_t i = 0; i < program->angles_count; i++) {
        fill_angles(&program->angles[i], plan);
    }
    /* One tile of rows is read by all workers alike; then weights are better read side by side. */
    pool_keep_apart(backend->pool, plan->row_count > CPU_TILE_ROWS_MAX);
    for (uint32_t i = 0; i < program->op_count; i++) {
        step.op = &program->ops[i];
        if (backend->profile != NULL) {
            run_op_timed(&step);
        } else {
            run_op(&step);
        }
    }
    gather_faults(backend, plan);
}
