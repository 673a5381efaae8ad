/* A real engine over the real forward: what the daemon does for a step is done here, but for its
 * socket and its journal. Contexts share their pages up to the last few tokens, so that they are
 * prefilled once; where they are longer than a block of attention, those blocks are read once
 * for all. */
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "bench/bench.h"
#include "bench/bench_profile_table.h"
#include "bench/bench_run.h"
#include "schedule/engine.h"

enum {
    BRANCHES_MAX = 64,
    PREFILL_TOKENS = 512,
    OWN_TOKENS = 8, /* of a context, that no other has */
    REPLY_TOKENS = 1024,
    WARM_TOKENS = 2,   /* of every branch before times are kept */
    WARM_PREFILLS = 6, /* until the engine trusts itself to put a whole prompt into one step */
    STEP_COUNT_MIN = 5,
    BUDGET_MS = 60000,
    SCOPE = 1,
};

static const uint32_t row_counts[] = {1, 4, 16, 64};

struct bench_branch {
    struct branch_spec spec;
    struct branch_run run;
    struct branch_output output;
    uint32_t *ids; /* owned */
    uint32_t sampled_count;
    bool is_alive;
};

struct bench_profile {
    const struct bench_settings *settings;
    struct bench_run run;
    struct tokenizer *tokenizer; /* this and all below owned */
    struct sampler *sampler;     /* of replies that never end */
    struct sampler *sampler_one;
    struct cue_set *cues;
    struct engine *engine;
    struct bench_branch branches[BRANCHES_MAX];
    uint32_t context;
    uint32_t salt;
};

/* ---- making ---- */

static bool output_make(struct branch_output *output)
{
    output->token_count_max = REPLY_TOKENS;
    output->text_bytes_max = REPLY_TOKENS * 64;
    output->tokens = memory_alloc(REPLY_TOKENS, sizeof(uint32_t));
    output->logprobs = memory_alloc(REPLY_TOKENS, sizeof(float));
    output->logprobs_sampler = memory_alloc(REPLY_TOKENS, sizeof(float));
    output->entropies = memory_alloc(REPLY_TOKENS, sizeof(float));
    output->text_ends = memory_alloc(REPLY_TOKENS, sizeof(uint32_t));
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

static enum status sampler_make(const struct bench_profile *profile, uint32_t max_tokens,
                                struct error *error, struct sampler **out)
{
    struct sampler_settings settings = sampler_settings_default();
    uint32_t end_count = 0;
    const uint32_t *end_ids = tokenizer_end_ids(profile->tokenizer, &end_count);

    settings.max_tokens = max_tokens;
    settings.ignore_end = true;
    return sampler_create(&settings, end_ids, end_count,
                          model_config(profile->run.model)->vocabulary_count, error, out);
}

static enum status engine_make(struct bench_profile *profile, struct error *error)
{
    const struct engine_settings engine = {
        .forward = profile->run.forward,
        .tokenizer = profile->tokenizer,
        .page_count = profile->run.page_count,
        .row_count_max = PREFILL_TOKENS,
        .running_count_max = BRANCHES_MAX,
        .partial_count_max =
            PREFILL_TOKENS * ((profile->context + REPLY_TOKENS) / ATTENTION_BLOCK_TOKENS + 1),
        .step_budget_ms = BUDGET_MS,
        .context_token_count_max = profile->context + REPLY_TOKENS,
    };

    return engine_create(&engine, error, &profile->engine);
}

static enum status profile_open(struct bench_profile *profile, const struct model *model,
                                struct error *error)
{
    const uint32_t position_max = profile->context + REPLY_TOKENS;
    const uint32_t pages = BRANCHES_MAX * (REPLY_TOKENS / KV_PAGE_TOKEN_COUNT + 2) +
                           position_max / KV_PAGE_TOKEN_COUNT;

    TRY(bench_run_open(&profile->run, profile->settings, model, PREFILL_TOKENS, BRANCHES_MAX,
                       position_max, pages, error));
    TRY(tokenizer_create(model_vocabulary(model), error, &profile->tokenizer));
    TRY(sampler_make(profile, REPLY_TOKENS, error, &profile->sampler));
    TRY(sampler_make(profile, 1, error, &profile->sampler_one));
    TRY(cue_set_create(NULL, 0, error, &profile->cues));
    for (uint32_t i = 0; i < BRANCHES_MAX; i++) {
        struct bench_branch *branch = &profile->branches[i];
        branch->ids = memory_alloc((size_t)profile->context + PREFILL_TOKENS, sizeof(uint32_t));
        if (!output_make(&branch->output) || branch->ids == NULL) {
            return error_set(error, STATUS_MEMORY, "out of memory for %u branches",
                             (unsigned)BRANCHES_MAX);
        }
    }
    return engine_make(profile, error);
}

static void profile_close(struct bench_profile *profile)
{
    engine_destroy(profile->engine);
    for (uint32_t i = 0; i < BRANCHES_MAX; i++) {
        branch_finish(&profile->branches[i]);
    }
    cue_set_destroy(profile->cues);
    sampler_release(profile->sampler);
    sampler_release(profile->sampler_one);
    tokenizer_destroy(profile->tokenizer);
    bench_run_close(&profile->run);
}

/* ---- running ---- */

/* Tokens before own_first are the same for all. */
static enum status branch_lend(struct bench_profile *profile, uint32_t index, uint32_t count,
                               uint32_t own_first, const struct sampler *sampler,
                               struct error *error)
{
    struct bench_branch *branch = &profile->branches[index];
    const uint32_t vocabulary_count = model_config(profile->run.model)->vocabulary_count;

    profile->salt++;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t salt = i < own_first ? 0 : profile->salt;
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
        .context_room = profile->context + REPLY_TOKENS,
        .scope = {.session = SCOPE},
        .sampler = sampler,
        .seed = profile->salt,
        .cues = profile->cues,
        .output = &branch->output,
    };
    branch->sampled_count = 0;
    branch->is_alive = true;
    return engine_submit(profile->engine, &branch->spec, error);
}

/* One step; what it took is added to *wall_ns. */
static enum status profile_step(struct bench_profile *profile, struct error *error,
                                uint64_t *wall_ns)
{
    const uint64_t begin_ns = clock_monotonic_ns();
    struct branch_event event;
    uint32_t slot;

    if (engine_step(profile->engine) == STATUS_DEVICE) {
        return error_set(error, STATUS_DEVICE, "a step failed on the device");
    }
    *wall_ns += clock_monotonic_ns() - begin_ns;
    while (engine_event_take(profile->engine, &slot, &event) == STATUS_OK) {
        struct bench_branch *branch = &profile->branches[slot];
        branch->sampled_count = event.sampled_count;
        branch->is_alive = event.finish == FINISH_NONE;
        if (event.finish == FINISH_FAILED) {
            return error_set(error, (enum status)event.status, "a branch failed");
        }
    }
    return STATUS_OK;
}

static bool have_tokens(const struct bench_profile *profile, uint32_t count, uint32_t tokens)
{
    for (uint32_t i = 0; i < count; i++) {
        if (profile->branches[i].sampled_count < tokens) {
            return false;
        }
    }
    return true;
}

static bool is_any_alive(const struct bench_profile *profile)
{
    for (uint32_t i = 0; i < BRANCHES_MAX; i++) {
        if (profile->branches[i].is_alive) {
            return true;
        }
    }
    return false;
}

static enum status run_decode(struct bench_profile *profile, uint32_t count, struct error *error,
                              struct bench_profile_case *out)
{
    const uint64_t enough_ns = (uint64_t)(profile->settings->seconds * 1e9);
    struct backend *backend = profile->run.backend;
    uint64_t ignored_ns = 0;

    for (uint32_t i = 0; i < count; i++) {
        TRY(branch_lend(profile, i, profile->context, profile->context - OWN_TOKENS,
                        profile->sampler, error));
    }
    while (!have_tokens(profile, count, WARM_TOKENS)) {
        TRY(profile_step(profile, error, &ignored_ns));
    }
    profile->settings->ops->profile(backend, &out->times);
    while (out->times.step_count < STEP_COUNT_MIN ||
           (out->wall_ns < enough_ns && !have_tokens(profile, 1, REPLY_TOKENS - WARM_TOKENS))) {
        TRY(profile_step(profile, error, &out->wall_ns));
    }
    profile->settings->ops->profile(backend, NULL);
    for (uint32_t i = 0; i < count; i++) {
        TRY(engine_cancel(profile->engine, i));
    }
    while (is_any_alive(profile)) {
        TRY(profile_step(profile, error, &ignored_ns));
    }
    return STATUS_OK;
}

static enum status run_prefill(struct bench_profile *profile, struct error *error,
                               struct bench_profile_case *out)
{
    const uint64_t enough_ns = (uint64_t)(profile->settings->seconds * 1e9);
    uint64_t ignored_ns = 0;
    uint32_t run_count = 0;

    while (out->times.step_count < STEP_COUNT_MIN || out->wall_ns < enough_ns) {
        const bool is_warm = run_count >= WARM_PREFILLS;
        run_count++;
        TRY(branch_lend(profile, 0, PREFILL_TOKENS, 0, profile->sampler_one, error));
        if (is_warm) {
            profile->settings->ops->profile(profile->run.backend, &out->times);
        }
        while (is_any_alive(profile)) {
            TRY(profile_step(profile, error, is_warm ? &out->wall_ns : &ignored_ns));
        }
        profile->settings->ops->profile(profile->run.backend, NULL);
    }
    return STATUS_OK;
}

static enum status run_cases(struct bench_profile *profile, struct error *error)
{
    const struct bench_settings *settings = profile->settings;
    char name[64];

    for (uint32_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        if (row_counts[i] <= settings->batch_max) {
            struct bench_profile_case decode = {.name = name, .rows = row_counts[i]};
            (void)snprintf(name, sizeof name, "decode, %u rows, contexts of %u", row_counts[i],
                           profile->context);
            TRY(run_decode(profile, row_counts[i], error, &decode));
            bench_profile_print(settings, &decode);
        }
    }
    struct bench_profile_case prefill = {.name = name, .rows = PREFILL_TOKENS};
    (void)snprintf(name, sizeof name, "prefill, %u rows", (unsigned)PREFILL_TOKENS);
    TRY(run_prefill(profile, error, &prefill));
    bench_profile_print(settings, &prefill);
    return STATUS_OK;
}

enum status bench_profile(const struct bench_settings *settings, const struct model *model,
                          struct error *error)
{
    struct bench_profile *profile;
    enum status status;

    CHECK(settings->context > OWN_TOKENS);
    if (settings->ops->profile == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the %s backend keeps no times of its operations; --operations measures "
                         "them one by one",
                         settings->ops->name);
    }
    profile = memory_alloc(1, sizeof *profile);
    if (profile == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    profile->settings = settings;
    profile->context = settings->context;
    status = profile_open(profile, model, error);
    if (status == STATUS_OK) {
        bench_profile_head(settings, model, profile->run.backend);
        status = run_cases(profile, error);
    }
    profile_close(profile);
    memory_free(profile);
    return status;
}
