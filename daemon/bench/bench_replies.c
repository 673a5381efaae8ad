/* Many replies at once by an engine alone (bench_engine.h). All begin together, each with a context
 * of its own, as clients of a daemon would; the first round of replies warms up and is not told. */
#include <inttypes.h>

#include "base/clock.h"
#include "bench/bench.h"
#include "bench/bench_engine.h"

struct round {
    uint64_t begin_ns, end_ns;
    uint64_t steady_begin_ns, steady_end_ns; /* all branches have a token, and none has ended */
    uint64_t steady_token_count;
    uint64_t step_count;
};

static uint64_t token_count(const struct bench_engine *engine, uint32_t users)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < users; i++) {
        count += bench_engine_sampled_count(engine, i);
    }
    return count;
}

/* After a step: it belongs to the steady time if that had begun before it. */
static void note_steady(const struct bench_settings *settings, const struct bench_engine *engine,
                        uint64_t *begin_count, struct round *round)
{
    const uint32_t users = settings->users;

    if (round->steady_begin_ns == 0) {
        if (bench_engine_has_tokens(engine, users, 1)) {
            round->steady_begin_ns = clock_monotonic_ns();
            round->steady_end_ns = round->steady_begin_ns;
            *begin_count = token_count(engine, users);
        }
    } else if (bench_engine_alive_count(engine) == users) {
        round->steady_end_ns = clock_monotonic_ns();
        round->steady_token_count = token_count(engine, users) - *begin_count;
    }
}

static enum status run_round(const struct bench_settings *settings, struct bench_engine *engine,
                             const struct sampler *sampler, struct error *error, struct round *out)
{
    const struct bench_branch_order order = {settings->context, 0, sampler};
    const uint64_t steps_before = bench_engine_step_count(engine);
    struct round round = {.begin_ns = clock_monotonic_ns()};
    uint64_t begin_count = 0;

    for (uint32_t i = 0; i < settings->users; i++) {
        TRY(bench_engine_lend(engine, i, &order, error));
    }
    while (bench_engine_alive_count(engine) > 0) {
        TRY(bench_engine_step(engine, error));
        note_steady(settings, engine, &begin_count, &round);
    }
    round.end_ns = clock_monotonic_ns();
    round.step_count = bench_engine_step_count(engine) - steps_before;
    *out = round;
    return STATUS_OK;
}

static void print_round(const struct bench_settings *settings, const struct round *round)
{
    const double seconds = (double)(round->end_ns - round->begin_ns) * 1e-9;
    const double tokens = (double)settings->users * settings->tokens;
    const uint64_t steady_ns = round->steady_end_ns - round->steady_begin_ns;
    const double steady =
        steady_ns == 0 ? 0 : (double)round->steady_token_count / ((double)steady_ns * 1e-9);

    if (settings->is_json) {
        (void)fprintf(settings->out,
                      "{\"users\": %u, \"tokens\": %.0f, \"context\": %u, \"seconds\": %.4f, "
                      "\"tokens_per_second\": %.2f, \"steady_tokens_per_second\": %.2f, "
                      "\"steps\": %" PRIu64 "}\n",
                      settings->users, tokens, settings->context, seconds, tokens / seconds, steady,
                      round->step_count);
    } else {
        (void)fprintf(
            settings->out,
            "%u replies of %u tokens after %u: %.3f s, %.1f tokens/s; %.1f while all were "
            "generating; %" PRIu64 " steps\n",
            settings->users, settings->tokens, settings->context, seconds, tokens / seconds, steady,
            round->step_count);
    }
    (void)fflush(settings->out);
}

static enum status run_rounds(const struct bench_settings *settings, struct bench_engine *engine,
                              struct error *error)
{
    struct sampler *sampler = NULL;
    struct round round;

    TRY(bench_engine_sampler(engine, settings->tokens, (float)settings->temperature, error,
                             &sampler));
    enum status status = run_round(settings, engine, sampler, error, &round);
    for (uint32_t i = 0; i < settings->rounds && status == STATUS_OK; i++) {
        status = run_round(settings, engine, sampler, error, &round);
        if (status == STATUS_OK) {
            print_round(settings, &round);
        }
    }
    sampler_release(sampler);
    return status;
}

enum status bench_replies(const struct bench_settings *settings, const struct model *model,
                          struct error *error)
{
    const struct bench_engine_limits limits = {
        .context_count = settings->context,
        .reply_count = settings->tokens,
        .step_ms = settings->step_ms,
    };
    struct bench_engine *engine = NULL;

    TRY(bench_engine_open(settings, model, &limits, error, &engine));
    const enum status status = run_rounds(settings, engine, error);
    bench_engine_close(engine);
    return status;
}
