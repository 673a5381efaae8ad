/* A real engine over the real forward (bench_engine.h), and the backend's times of its steps.
 * Contexts share their pages up to the last few tokens, so that they are prefilled once; where they
 * are longer than a block of attention, those blocks are read once for all. */
#include "base/check.h"
#include "base/clock.h"
#include "bench/bench.h"
#include "bench/bench_engine.h"
#include "bench/bench_profile_table.h"

enum {
    PREFILL_TOKENS = 512,
    OWN_TOKENS = 8, /* of a context, that no other has */
    REPLY_TOKENS = 1024,
    WARM_TOKENS = 2,   /* of every branch before times are kept */
    WARM_PREFILLS = 6, /* until the engine trusts itself to put a whole prompt into one step */
    STEP_COUNT_MIN = 5,
    BUDGET_MS = 60000,
};

static const uint32_t row_counts[] = {1, 4, 16, 64};

struct profile {
    const struct bench_settings *settings;
    struct bench_engine *engine; /* this and all below owned */
    struct sampler *sampler;     /* of replies that never end */
    struct sampler *sampler_one;
};

/* One step; what it took is added to *wall_ns. */
static enum status profile_step(struct profile *profile, struct error *error, uint64_t *wall_ns)
{
    const uint64_t begin_ns = clock_monotonic_ns();

    TRY(bench_engine_step(profile->engine, error));
    *wall_ns += clock_monotonic_ns() - begin_ns;
    return STATUS_OK;
}

static enum status run_decode(struct profile *profile, uint32_t count, struct error *error,
                              struct bench_profile_case *out)
{
    const uint64_t enough_ns = (uint64_t)(profile->settings->seconds * 1e9);
    struct bench_engine *engine = profile->engine;
    struct backend *backend = bench_engine_backend(engine);
    const uint32_t context = profile->settings->context;
    const struct bench_branch_order order = {context, context - OWN_TOKENS, profile->sampler};
    uint64_t ignored_ns = 0;

    for (uint32_t i = 0; i < count; i++) {
        TRY(bench_engine_lend(engine, i, &order, error));
    }
    while (!bench_engine_has_tokens(engine, count, WARM_TOKENS)) {
        TRY(profile_step(profile, error, &ignored_ns));
    }
    profile->settings->ops->profile(backend, &out->times);
    while (out->times.step_count < STEP_COUNT_MIN ||
           (out->wall_ns < enough_ns &&
            !bench_engine_has_tokens(engine, 1, REPLY_TOKENS - WARM_TOKENS))) {
        TRY(profile_step(profile, error, &out->wall_ns));
    }
    profile->settings->ops->profile(backend, NULL);
    return bench_engine_cancel_all(engine, error);
}

static enum status run_prefill(struct profile *profile, struct error *error,
                               struct bench_profile_case *out)
{
    const uint64_t enough_ns = (uint64_t)(profile->settings->seconds * 1e9);
    struct backend *backend = bench_engine_backend(profile->engine);
    const struct bench_branch_order order = {PREFILL_TOKENS, 0, profile->sampler_one};
    uint64_t ignored_ns = 0;
    uint32_t run_count = 0;

    while (out->times.step_count < STEP_COUNT_MIN || out->wall_ns < enough_ns) {
        const bool is_warm = run_count >= WARM_PREFILLS;
        run_count++;
        TRY(bench_engine_lend(profile->engine, 0, &order, error));
        if (is_warm) {
            profile->settings->ops->profile(backend, &out->times);
        }
        while (bench_engine_alive_count(profile->engine) > 0) {
            TRY(profile_step(profile, error, is_warm ? &out->wall_ns : &ignored_ns));
        }
        profile->settings->ops->profile(backend, NULL);
    }
    return STATUS_OK;
}

static enum status run_cases(struct profile *profile, struct error *error)
{
    const struct bench_settings *settings = profile->settings;
    char name[64];

    for (uint32_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
        if (row_counts[i] <= settings->batch_max) {
            struct bench_profile_case decode = {.name = name, .rows = row_counts[i]};
            (void)snprintf(name, sizeof name, "decode, %u rows, contexts of %u", row_counts[i],
                           settings->context);
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

static enum status profile_open(struct profile *profile, const struct model *model,
                                struct error *error)
{
    const uint32_t context = profile->settings->context;
    const struct bench_engine_limits limits = {
        .context_count = context > PREFILL_TOKENS ? context : PREFILL_TOKENS,
        .reply_count = REPLY_TOKENS,
        .step_ms = BUDGET_MS,
    };
    const float temperature = sampler_settings_default().temperature;

    TRY(bench_engine_open(profile->settings, model, &limits, error, &profile->engine));
    TRY(bench_engine_sampler(profile->engine, REPLY_TOKENS, temperature, error, &profile->sampler));
    return bench_engine_sampler(profile->engine, 1, temperature, error, &profile->sampler_one);
}

enum status bench_profile(const struct bench_settings *settings, const struct model *model,
                          struct error *error)
{
    struct profile profile = {.settings = settings};
    enum status status;

    CHECK(settings->context > OWN_TOKENS);
    if (settings->ops->profile == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the %s backend keeps no times of its operations; --operations measures "
                         "them one by one",
                         settings->ops->name);
    }
    status = profile_open(&profile, model, error);
    if (status == STATUS_OK) {
        bench_profile_head(settings, model, bench_engine_backend(profile.engine));
        status = run_cases(&profile, error);
    }
    bench_engine_close(profile.engine);
    sampler_release(profile.sampler);
    sampler_release(profile.sampler_one);
    return status;
}
