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

static uint64_t less(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t ops_ns(const struct backend_profile *times)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < BACKEND_OP_COUNT; i++) {
        sum += times->ops[i].ns;
    }
    return sum;
}

/* Keeps of each part the fastest: other work that took the processor slowed some part of nearly
 * every step, but hardly ever the same. */
static void case_take_best(const struct bench_profile_case *step, struct bench_profile_case *out)
{
    struct backend_profile *times = &out->times;
    const uint64_t rest_ns =
        less(times->step_ns - ops_ns(times), step->times.step_ns - ops_ns(&step->times));
    const uint64_t plan_ns =
        less(out->wall_ns - times->step_ns, step->wall_ns - step->times.step_ns);

    for (uint32_t i = 0; i < BACKEND_OP_COUNT; i++) {
        if (step->times.ops[i].ns < times->ops[i].ns) {
            times->ops[i] = step->times.ops[i];
        }
    }
    times->step_ns = ops_ns(times) + rest_ns;
    out->wall_ns = times->step_ns + plan_ns;
}

/* Takes the times of one measured step, or of one prompt's steps, into the case. */
static void case_take(const struct bench_settings *settings, const struct bench_profile_case *step,
                      struct bench_profile_case *out)
{
    struct backend_profile *times = &out->times;

    out->taken_count++;
    if (out->taken_count == 1) {
        out->wall_ns = step->wall_ns;
        *times = step->times;
        return;
    }
    if (settings->is_best) {
        case_take_best(step, out);
        return;
    }
    out->wall_ns += step->wall_ns;
    times->step_count += step->times.step_count;
    times->step_ns += step->times.step_ns;
    times->barrier_count += step->times.barrier_count;
    for (uint32_t i = 0; i < BACKEND_OP_COUNT; i++) {
        times->ops[i].run_count += step->times.ops[i].run_count;
        times->ops[i].ns += step->times.ops[i].ns;
        times->ops[i].wait_ns += step->times.ops[i].wait_ns;
        times->ops[i].alone_ns += step->times.ops[i].alone_ns;
    }
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
    uint64_t all_ns = 0;

    for (uint32_t i = 0; i < count; i++) {
        TRY(bench_engine_lend(engine, i, &order, error));
    }
    while (!bench_engine_has_tokens(engine, count, WARM_TOKENS)) {
        TRY(profile_step(profile, error, &ignored_ns));
    }
    while (
        out->taken_count < STEP_COUNT_MIN ||
        (all_ns < enough_ns && !bench_engine_has_tokens(engine, 1, REPLY_TOKENS - WARM_TOKENS))) {
        struct bench_profile_case step = {.wall_ns = 0};

        profile->settings->ops->profile(backend, &step.times);
        TRY(profile_step(profile, error, &step.wall_ns));
        profile->settings->ops->profile(backend, NULL);
        all_ns += step.wall_ns;
        case_take(profile->settings, &step, out);
    }
    return bench_engine_cancel_all(engine, error);
}

static enum status run_prefill(struct profile *profile, struct error *error,
                               struct bench_profile_case *out)
{
    const uint64_t enough_ns = (uint64_t)(profile->settings->seconds * 1e9);
    struct backend *backend = bench_engine_backend(profile->engine);
    const struct bench_branch_order order = {PREFILL_TOKENS, 0, profile->sampler_one};
    uint64_t all_ns = 0;
    uint32_t run_count = 0;

    while (out->taken_count < STEP_COUNT_MIN || all_ns < enough_ns) {
        const bool is_warm = run_count >= WARM_PREFILLS;
        struct bench_profile_case prompt = {.wall_ns = 0};

        run_count++;
        TRY(bench_engine_lend(profile->engine, 0, &order, error));
        if (is_warm) {
            profile->settings->ops->profile(backend, &prompt.times);
        }
        while (bench_engine_alive_count(profile->engine) > 0) {
            TRY(profile_step(profile, error, &prompt.wall_ns));
        }
        profile->settings->ops->profile(backend, NULL);
        if (is_warm) {
            all_ns += prompt.wall_ns;
            case_take(profile->settings, &prompt, out);
        }
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
