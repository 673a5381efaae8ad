#include "bench/bench_engine.h"

#include "base/check.h"
#include "base/memory.h"
#include "bench/bench_run.h"
#include "limits.h"
#include "schedule/engine.h"

enum { SCOPE = 1 };

struct bench_branch {
    struct branch_spec spec;
    struct branch_run run;
    struct branch_output output;
    uint32_t *ids; /* owned */
    uint32_t sampled_count;
    bool is_alive;
};

struct bench_engine {
    struct bench_engine_limits limits;
    struct bench_run run;
    struct tokenizer *tokenizer; /* this and all below owned */
    struct cue_set *cues;
    struct engine *engine;
    struct bench_branch branches[BENCH_BRANCH_COUNT_MAX];
    uint32_t salt;
};

static bool output_make(struct branch_output *output, uint32_t count)
{
    output->token_count_max = count;
    output->text_bytes_max = count * 64;
    output->tokens = memory_alloc(count, sizeof(uint32_t));
    output->logprobs = memory_alloc(count, sizeof(float));
    output->logprobs_sampler = memory_alloc(count, sizeof(float));
    output->entropies = memory_alloc(count, sizeof(float));
    output->text_ends = memory_alloc(count, sizeof(uint32_t));
    output->text = memory_alloc(output->text_bytes_max, 1);
    return output->tokens != NULL && output->logprobs != NULL && output->logprobs_sampler != NULL &&
           output->entropies != NULL && output->text_ends != NULL && output->text != NULL;
}

static void branch_finish(struct bench_branch *branch)
{
    struct branch_output *output = &branch->output;

    memory_free(output->tokens);
    memory_free(output->logprobs);
    memory_free(output->logprobs_sampler);
    memory_free(output->entropies);
    memory_free(output->text_ends);
    memory_free(output->text);
    memory_free(branch->ids);
}

static enum status parts_open(struct bench_engine *bench, const struct bench_settings *settings,
                              const struct model *model, struct error *error)
{
    const struct bench_engine_limits *limits = &bench->limits;
    const uint32_t position_max = limits->context_count + limits->reply_count;
    const uint32_t pages = BENCH_BRANCH_COUNT_MAX * (position_max / KV_PAGE_TOKEN_COUNT + 2);

    TRY(bench_run_open(&bench->run, settings, model, STEP_ROW_COUNT_MAX, BENCH_BRANCH_COUNT_MAX,
                       position_max, pages, error));
    TRY(tokenizer_create(model_vocabulary(model), error, &bench->tokenizer));
    TRY(cue_set_create(NULL, 0, error, &bench->cues));
    for (uint32_t i = 0; i < BENCH_BRANCH_COUNT_MAX; i++) {
        struct bench_branch *branch = &bench->branches[i];
        branch->ids = memory_alloc(limits->context_count, sizeof(uint32_t));
        if (!output_make(&branch->output, limits->reply_count) || branch->ids == NULL) {
            return error_set(error, STATUS_MEMORY, "out of memory for %u branches",
                             (unsigned)BENCH_BRANCH_COUNT_MAX);
        }
    }
    const struct engine_settings engine = {
        .forward = bench->run.forward,
        .tokenizer = bench->tokenizer,
        .page_count = bench->run.page_count,
        .row_count_max = STEP_ROW_COUNT_MAX,
        .running_count_max = BENCH_BRANCH_COUNT_MAX,
        .partial_count_max = STEP_ROW_COUNT_MAX * (position_max / ATTENTION_BLOCK_TOKENS + 1),
        .step_budget_ms = limits->step_ms,
        .context_token_count_max = position_max,
    };
    return engine_create(&engine, error, &bench->engine);
}

enum status bench_engine_open(const struct bench_settings *settings, const struct model *model,
                              const struct bench_engine_limits *limits, struct error *error,
                              struct bench_engine **out)
{
    struct bench_engine *bench = memory_alloc(1, sizeof *bench);

    if (bench == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    bench->limits = *limits;
    const enum status status = parts_open(bench, settings, model, error);
    if (status != STATUS_OK) {
        bench_engine_close(bench);
        return status;
    }
    *out = bench;
    return STATUS_OK;
}

void bench_engine_close(struct bench_engine *engine)
{
    if (engine == NULL) {
        return;
    }
    engine_destroy(engine->engine);
    for (uint32_t i = 0; i < BENCH_BRANCH_COUNT_MAX; i++) {
        branch_finish(&engine->branches[i]);
    }
    cue_set_destroy(engine->cues);
    tokenizer_destroy(engine->tokenizer);
    bench_run_close(&engine->run);
    memory_free(engine);
}

enum status bench_engine_sampler(const struct bench_engine *engine, uint32_t max_tokens,
                                 float temperature, struct error *error, struct sampler **out)
{
    struct sampler_settings settings = sampler_settings_default();
    uint32_t end_count = 0;
    const uint32_t *end_ids = tokenizer_end_ids(engine->tokenizer, &end_count);

    settings.temperature = temperature;
    settings.max_tokens = max_tokens;
    settings.ignore_end = true;
    return sampler_create(&settings, end_ids, end_count,
                          model_config(engine->run.model)->vocabulary_count, error, out);
}

enum status bench_engine_lend(struct bench_engine *engine, uint32_t index,
                              const struct bench_branch_order *order, struct error *error)
{
    struct bench_branch *branch = &engine->branches[index];
    const uint32_t vocabulary_count = model_config(engine->run.model)->vocabulary_count;
    const uint32_t count = order->context_count;

    CHECK(index < BENCH_BRANCH_COUNT_MAX);
    CHECK(!branch->is_alive);
    CHECK(count <= engine->limits.context_count);
    engine->salt++;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t salt = i < order->own_first ? 0 : engine->salt;
        branch->ids[i] =
            (((i + 1) * 2654435761u + salt * 40503u * (i + 3)) >> 8) % vocabulary_count;
    }
    branch->run = (struct branch_run){.ids = branch->ids, .count = count};
    branch->spec = (struct branch_spec){
        .slot = index,
        .session = SCOPE,
        .runs = &branch->run,
        .run_count = 1,
        .context_token_count = count,
        .context_room = engine->limits.context_count + engine->limits.reply_count,
        .scope = {.session = SCOPE},
        .sampler = order->sampler,
        .seed = engine->salt,
        .cues = engine->cues,
        .output = &branch->output,
    };
    branch->sampled_count = 0;
    branch->is_alive = true;
    return engine_submit(engine->engine, &branch->spec, error);
}

enum status bench_engine_step(struct bench_engine *engine, struct error *error)
{
    struct branch_event event;
    uint32_t slot;

    if (engine_step(engine->engine) == STATUS_DEVICE) {
        return error_set(error, STATUS_DEVICE, "a step failed on the device");
    }
    while (engine_event_take(engine->engine, &slot, &event) == STATUS_OK) {
        struct bench_branch *branch = &engine->branches[slot];
        branch->sampled_count = event.sampled_count;
        branch->is_alive = event.finish == FINISH_NONE;
        if (event.finish == FINISH_FAILED) {
            return error_set(error, (enum status)event.status, "a branch failed");
        }
    }
    return STATUS_OK;
}

enum status bench_engine_cancel_all(struct bench_engine *engine, struct error *error)
{
    for (uint32_t i = 0; i < BENCH_BRANCH_COUNT_MAX; i++) {
        if (engine->branches[i].is_alive) {
            TRY(engine_cancel(engine->engine, i));
        }
    }
    while (bench_engine_alive_count(engine) > 0) {
        TRY(bench_engine_step(engine, error));
    }
    return STATUS_OK;
}

uint32_t bench_engine_sampled_count(const struct bench_engine *engine, uint32_t index)
{
    return engine->branches[index].sampled_count;
}

uint32_t bench_engine_alive_count(const struct bench_engine *engine)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < BENCH_BRANCH_COUNT_MAX; i++) {
        count += engine->branches[i].is_alive;
    }
    return count;
}

uint64_t bench_engine_step_count(struct bench_engine *engine)
{
    struct engine_stats stats;

    engine_stats(engine->engine, &stats);
    return stats.step_count;
}

bool bench_engine_has_tokens(const struct bench_engine *engine, uint32_t count, uint32_t tokens)
{
    for (uint32_t i = 0; i < count; i++) {
        if (engine->branches[i].sampled_count < tokens) {
            return false;
        }
    }
    return true;
}

struct backend *bench_engine_backend(const struct bench_engine *engine)
{
    return engine->run.backend;
}
