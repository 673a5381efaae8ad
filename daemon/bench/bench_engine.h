/* An engine over the real forward, as the daemon runs it, but for its socket and its journal, and
 * branches of it whose output nobody reads.
 *
 * Thread: one. The engine owns all that it lends to a branch; model and settings are borrowed.
 */
#ifndef PERSONAD_BENCH_BENCH_ENGINE_H
#define PERSONAD_BENCH_BENCH_ENGINE_H

#include "bench/bench.h"
#include "sample/sampler.h"

enum { BENCH_BRANCH_COUNT_MAX = 64 };

struct bench_engine;

struct bench_engine_limits {
    uint32_t context_count; /* tokens of a branch's context, at most */
    uint32_t reply_count;   /* tokens of its reply, at most */
    uint32_t step_ms;       /* budget of a step */
};

/* What a branch is given: tokens before own_first are those of every other one. */
struct bench_branch_order {
    uint32_t context_count;
    uint32_t own_first;
    const struct sampler *sampler; /* borrowed until the branch has ended */
};

/* What create and load answer. */
MUST_USE enum status bench_engine_open(const struct bench_settings *settings,
                                       const struct model *model,
                                       const struct bench_engine_limits *limits,
                                       struct error *error, struct bench_engine **out);
void bench_engine_close(struct bench_engine *engine);

/* Of replies that never end before they have max_tokens. The caller releases it. */
MUST_USE enum status bench_engine_sampler(const struct bench_engine *engine, uint32_t max_tokens,
                                          float temperature, struct error *error,
                                          struct sampler **out);

/* Hands branch `index` to the engine; it must not be alive. What engine_submit answers. */
MUST_USE enum status bench_engine_lend(struct bench_engine *engine, uint32_t index,
                                       const struct bench_branch_order *order, struct error *error);

/* One step and its news. DEVICE, or why a branch failed. */
MUST_USE enum status bench_engine_step(struct bench_engine *engine, struct error *error);

/* Ends what is alive. */
MUST_USE enum status bench_engine_cancel_all(struct bench_engine *engine, struct error *error);

uint32_t bench_engine_sampled_count(const struct bench_engine *engine, uint32_t index);
uint32_t bench_engine_alive_count(const struct bench_engine *engine);
uint64_t bench_engine_step_count(struct bench_engine *engine);

/* Of the first `count` branches, whether each has so many tokens. */
bool bench_engine_has_tokens(const struct bench_engine *engine, uint32_t count, uint32_t tokens);

/* The backend below, for its profile. */
struct backend *bench_engine_backend(const struct bench_engine *engine);

#endif
