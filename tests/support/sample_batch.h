/* Batches of random rows, lists of steps and histories, with what the plain sampler draws.
 *
 * Thread: the test's.
 */
#ifndef PERSONAD_TESTS_SUPPORT_SAMPLE_BATCH_H
#define PERSONAD_TESTS_SUPPORT_SAMPLE_BATCH_H

#include "tests/support/sample_setup.h"

enum { SAMPLE_BATCH_ITEMS = 48 };

struct sample_steps_case {
    struct step_list list;
    struct step_bias biases[8];
    uint32_t ids[4];
    uint32_t mask[64];
};

/* A batch of random rows, steps and histories. */
struct sample_batch {
    uint32_t vocabulary_count;
    float *logits;
    struct sample_steps_case cases[SAMPLE_BATCH_ITEMS];
    struct sample_history histories[SAMPLE_BATCH_ITEMS];
    struct plan_sample samples[SAMPLE_BATCH_ITEMS];
    struct sample_result want[SAMPLE_BATCH_ITEMS];
};

struct sample_batch *sample_batch_create(uint32_t vocabulary_count, uint64_t seed);
void sample_batch_destroy(struct sample_batch *batch);

uint64_t sample_batch_random(uint64_t *state);
float sample_batch_between(uint64_t *state, float low, float high);

/* Rows of many shapes: wide, narrow, with ties, with removed tokens, all equal, signed zeros. */
void sample_batch_fill_row(float *z, uint32_t count, uint64_t *seed);

#endif
