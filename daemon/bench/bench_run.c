#include "bench/bench_run.h"

#include "base/check.h"
#include "base/clock.h"

enum status bench_run_open(struct bench_run *run, const struct bench_settings *settings,
                           const struct model *model, uint32_t row_count_max,
                           uint32_t sample_count_max, uint32_t position_max, uint32_t page_count,
                           struct error *error)
{
    const struct backend_settings backend = {
        .thread_count = settings->thread_count,
        .row_count_max = row_count_max,
        .sample_count_max = sample_count_max,
        .slot_count = sample_count_max,
        .history_tokens_max = position_max + 1,
        .vocabulary_count = model_config(model)->vocabulary_count,
        .partial_count_max = row_count_max * (position_max / ATTENTION_BLOCK_TOKENS + 1),
        .kv_type = forward_kv_type(model, settings->ops, false),
        .providers = settings->providers,
        .weights_fp8 = settings->weights_fp8,
    };

    *run = (struct bench_run){.settings = settings, .model = model, .row_count_max = row_count_max};
    TRY(settings->ops->create(&backend, error, &run->backend));
    const uint64_t page_bytes = forward_kv_page_bytes(model, settings->ops, run->backend);
    const uint64_t pages_that_fit = settings->memory_bytes / page_bytes;
    run->page_count = page_count < pages_that_fit ? page_count : (uint32_t)pages_that_fit;
    const struct forward_settings forward = {
        .row_count_max = row_count_max,
        .sample_count_max = sample_count_max,
        .page_count = run->page_count,
    };
    TRY(forward_create(model, settings->ops, run->backend, &forward, error, &run->forward));
    for (uint32_t i = 0; i < BENCH_PLAN_COUNT; i++) {
        if (bench_plan_create(row_count_max, position_max, &run->plans[i]) != STATUS_OK) {
            return error_set(error, STATUS_MEMORY, "out of memory for plans");
        }
    }
    return STATUS_OK;
}

void bench_run_close(struct bench_run *run)
{
    for (uint32_t i = 0; i < BENCH_PLAN_COUNT; i++) {
        bench_plan_destroy(run->plans[i]);
    }
    forward_destroy(run->forward);
    if (run->backend != NULL) {
        run->settings->ops->destroy(run->backend);
    }
}

static enum status wait_for(struct bench_run *run, uint32_t ticket, uint32_t row_count,
                            struct error *error)
{
    struct step_result result = {.samples = NULL};
    const enum status status = forward_wait(run->forward, ticket, &result);

    if (status != STATUS_OK) {
        return error_set(error, status, "a step failed on the device");
    }
    for (uint32_t i = 0; i < row_count; i++) {
        if (result.row_faults[i] != 0) {
            return error_set(error, STATUS_DEVICE, "row %u of a step held a NaN", i);
        }
    }
    return STATUS_OK;
}

enum status bench_run_all(struct bench_run *run, const struct bench_source *source,
                          struct error *error, double *ms)
{
    const uint32_t slots = forward_step_slot_count(run->forward);
    uint32_t tickets[BENCH_PLAN_COUNT] = {0};
    uint32_t rows[BENCH_PLAN_COUNT] = {0};
    uint32_t submitted = 0;
    uint32_t answered = 0;

    CHECK(slots <= BENCH_PLAN_COUNT);
    const uint64_t begin_ns = clock_monotonic_ns();
    for (;;) {
        const uint32_t place = submitted % slots;
        if (submitted - answered == slots) {
            TRY(wait_for(run, tickets[place], rows[place], error));
            answered++;
        }
        const struct plan *plan = source->make(source->context, run->plans[place], submitted);
        if (plan == NULL) {
            break;
        }
        const enum status status = forward_submit(run->forward, plan, &tickets[place]);
        if (status != STATUS_OK) {
            return error_set(error, status, "a step was refused by the backend: %s",
                             status_name(status));
        }
        rows[place] = plan->row_count;
        submitted++;
    }
    for (; answered < submitted; answered++) {
        TRY(wait_for(run, tickets[answered % slots], rows[answered % slots], error));
    }
    *ms = (double)(clock_monotonic_ns() - begin_ns) * 1e-6;
    return STATUS_OK;
}
