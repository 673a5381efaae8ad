/* Measures a backend: steps of a whole model of noise, and its operations one by one, as times, as
 * rates, and as shares of two rates of the same device.
 *
 * Thread: one. Every figure is the median of several runs after a warm-up; nothing is estimated. A
 * case that does not fit the memory given is a row that says so.
 */
#ifndef PERSONAD_BENCH_BENCH_H
#define PERSONAD_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/product_trial.h"
#include "model/model.h"

struct bench_settings {
    const struct backend_ops *ops;
    const struct product_trial_ops *trial;  /* of the same device; NULL: the CPU */
    const struct provider_table *providers; /* the backend's setting; NULL: none */
    bool weights_fp8;                       /* the backend's setting */
    uint32_t thread_count;                  /* CPU */
    uint64_t memory_bytes;                  /* of the KV pool, at most */
    uint32_t batch_max;                     /* cases of more branches are left out */
    uint32_t context;                       /* of a private context: 1024 */
    uint32_t shared;                        /* of a shared prefix: 4096 */
    uint32_t prefill;                       /* tokens of the prefill case: 2048 */
    double seconds;                         /* that one case may take, about */
    double copy_gbs;      /* of the device, bytes read and written; 0: not known */
    bool is_json;         /* profiles as JSON, an object a line */
    bool is_best;         /* profiles of each part's fastest time */
    double matmul_tflops; /* of its best bf16 product; 0: not known, no share is printed */
    uint32_t users;       /* replies at once: 1 to BENCH_BRANCH_COUNT_MAX */
    uint32_t tokens;      /* of each */
    double temperature;   /* of each */
    uint32_t rounds;      /* how often, after one that warms up */
    uint32_t step_ms;     /* budget of a step: STEP_BUDGET_MS */
    FILE *out;
};

/* Steps of the whole model: prefill, decode at growing batches, a shared prefix. Prints a table.
 * What create and load answer; DEVICE when a step failed. */
MUST_USE enum status bench_steps(const struct bench_settings *settings, const struct model *model,
                                 struct error *error);

/* Operations one by one, with the weights of the model's first layers. Prints a table. */
MUST_USE enum status bench_operations(const struct bench_settings *settings,
                                      const struct model *model, struct error *error);

/* `users` replies at once of `tokens` tokens, each after a context of its own of `context` tokens,
 * by an engine as the daemon runs it: tokens a second, a line a round. */
MUST_USE enum status bench_replies(const struct bench_settings *settings, const struct model *model,
                                   struct error *error);

/* Each product of a step as it is served, with equal bits for every number of rows, against the
 * fastest way there is. Prints a table. UNSUPPORTED without trials. */
MUST_USE enum status bench_variants(const struct bench_settings *settings,
                                    const struct model *model, struct error *error);

/* Where the time of steps goes: decode of 1, 4, 16 and 64 rows and a prefill of 512, by an engine
 * as the daemon runs it. UNSUPPORTED where the backend keeps no times. */
MUST_USE enum status bench_profile(const struct bench_settings *settings, const struct model *model,
                                   struct error *error);

#endif
