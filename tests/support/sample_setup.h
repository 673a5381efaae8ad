/* A CPU backend with one sampling program, and a plain second sampler to compare it with.
 *
 * Thread: the test's. The plain sampler is written from kernels/steps/steps.h: it sorts and walks
 * whole rows, uses 128-bit integers, and shares with the backend only exp, log, masses and Philox.
 */
#ifndef PERSONAD_TESTS_SUPPORT_SAMPLE_SETUP_H
#define PERSONAD_TESTS_SUPPORT_SAMPLE_SETUP_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"

enum { SETUP_ITEM_COUNT_MAX = 64, SETUP_HISTORY_MAX = 96 };

struct sample_setup {
    uint32_t vocabulary_count;
    struct backend *backend;
    struct backend_buffer *logits;
    struct backend_program *program;
};

/* What one slot holds before the step. */
struct sample_history {
    uint32_t prompt_count;
    uint32_t count;
    uint32_t ids[SETUP_HISTORY_MAX];
};

/* isa NULL: the best of this machine. Asserts that it worked. */
void sample_setup_init(struct sample_setup *setup, uint32_t vocabulary_count, const char *isa,
                       uint32_t thread_count);
void sample_setup_finish(struct sample_setup *setup);
bool sample_setup_has(const char *isa);

/* logits: [row_count][vocabulary_count]; histories: [slot], one for each sample item's slot. */
void sample_setup_run(struct sample_setup *setup, const float *logits, uint32_t row_count,
                      const struct plan_sample *samples, uint32_t count,
                      const struct sample_history *histories, struct sample_result *results);

void sample_setup_plain(const float *logits, uint32_t vocabulary_count,
                        const struct plan_sample *sample, const struct sample_history *history,
                        struct sample_result *result);

#endif
