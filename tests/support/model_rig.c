#include "support/model_rig.h"

#include <stdio.h>

#include "base/check.h"

static void rig_expect(enum status status, const struct error *error)
{
    if (status != STATUS_OK) {
        (void)fprintf(stderr, "rig: %s: %s\n", status_name(status), error->text);
    }
    CHECK(status == STATUS_OK);
}

struct model *rig_model_of(struct bytes file)
{
    struct error error = {0};
    struct model *model = NULL;

    rig_expect(model_open_bytes(file, "tiny.gguf", &error, &model), &error);
    return model;
}

void rig_open(struct rig *rig, struct model *model, const struct rig_settings *settings)
{
    struct error error = {0};
    const uint32_t blocks = settings->position_max / ATTENTION_BLOCK_TOKENS + 1;
    const struct backend_settings backend = {
        .thread_count = settings->thread_count,
        .row_count_max = settings->row_count_max,
        .sample_count_max = settings->sample_count_max,
        .slot_count = 1,
        .history_tokens_max = settings->position_max + 1,
        .vocabulary_count = model_config(model)->vocabulary_count,
        .partial_count_max = settings->row_count_max * blocks,
        .isa = settings->isa,
        .precise = settings->precise,
        .kv_type = settings->kv_type,
        .providers = settings->providers,
        .weights_fp8 = settings->weights_fp8,
    };
    const struct forward_settings forward = {
        .row_count_max = settings->row_count_max,
        .sample_count_max = settings->sample_count_max,
        .page_count = settings->page_count,
    };

    rig->ops = settings->ops == NULL ? &backend_cpu_ops : settings->ops;
    rig->model = model;
    rig->settings = *settings;
    rig_expect(rig->ops->create(&backend, &error, &rig->backend), &error);
    rig_expect(forward_create(model, rig->ops, rig->backend, &forward, &error, &rig->forward),
               &error);
    rig->plan = simple_plan_create(settings->row_count_max, settings->position_max);
    simple_plan_begin(rig->plan);
}

void rig_close(struct rig *rig)
{
    simple_plan_destroy(rig->plan);
    forward_destroy(rig->forward);
    rig->ops->destroy(rig->backend);
    model_close(rig->model);
}

struct step_result rig_run(struct rig *rig)
{
    struct step_result result = {0};
    uint32_t ticket = 0;

    const struct plan *plan = simple_plan_finish(rig->plan);
    CHECK(forward_submit(rig->forward, plan, &ticket) == STATUS_OK);
    CHECK(forward_wait(rig->forward, ticket, &result) == STATUS_OK);
    for (uint32_t i = 0; i < plan->row_count; i++) {
        CHECK(result.row_faults[i] == 0);
    }
    return result;
}

struct plan_sample rig_greedy(void)
{
    static const struct step_list greedy = {
        .count = 1,
        .steps = {{.type = STEP_TEMPERATURE}},
    };
    static const struct plan_sample sample = {.steps = &greedy};

    return sample;
}

void rig_feed(struct rig *rig, const uint32_t *pages, uint32_t position, const uint32_t *ids,
              uint32_t count, uint32_t chunk, float *logits)
{
    const struct plan_sample greedy = rig_greedy();

    for (uint32_t at = 0; at < count; at += chunk) {
        const uint32_t size = count - at < chunk ? count - at : chunk;
        simple_plan_begin(rig->plan);
        const uint32_t row = simple_plan_add(rig->plan, pages, position + at, ids + at, size);
        if (at + size == count) {
            (void)simple_plan_sample(rig->plan, row + size - 1, &greedy);
        }
        (void)rig_run(rig);
    }
    CHECK(forward_logits_read(rig->forward, 0, logits) == STATUS_OK);
}
