#include "tests/support/sample_batch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

uint64_t sample_batch_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

float sample_batch_between(uint64_t *state, float low, float high)
{
    return low + (float)(sample_batch_random(state) >> 40) * 0x1p-24f * (high - low);
}

void sample_batch_fill_row(float *z, uint32_t count, uint64_t *seed)
{
    const uint32_t kind = (uint32_t)(sample_batch_random(seed) % 7);

    for (uint32_t i = 0; i < count; i++) {
        const float sum = sample_batch_between(seed, -1, 1) + sample_batch_between(seed, -1, 1) +
                          sample_batch_between(seed, -1, 1);
        switch (kind) {
        case 0:
            z[i] = 3 * sum;
            break;
        case 1:
            z[i] = 12 * sum;
            break;
        case 2:
            z[i] = rintf(4 * sum);
            break;
        case 3:
            z[i] = sample_batch_random(seed) % 3 == 0 ? -INFINITY : 5 * sum;
            break;
        case 4:
            z[i] = 0.25f;
            break;
        case 5:
            z[i] = sample_batch_random(seed) % 2 == 0 ? 0.0f : -0.0f;
            break;
        default:
            z[i] = 200 * sum;
            break;
        }
    }
    if (kind == 3) {
        z[sample_batch_random(seed) % count] = 1.0f;
    }
}

static uint32_t fill_biases(struct step_bias *biases, uint32_t vocabulary_count, uint64_t *seed)
{
    uint32_t token = 0, count = 0;

    while (count < 8) {
        token += (uint32_t)(sample_batch_random(seed) % (vocabulary_count / 4 + 1));
        if (token >= vocabulary_count) {
            break;
        }
        biases[count] = (struct step_bias){token, sample_batch_between(seed, -8, 8)};
        biases[count].value = sample_batch_random(seed) % 5 == 0 ? -INFINITY : biases[count].value;
        token++;
        count++;
    }
    return count;
}

static void fill_step(struct sample_steps_case *one, struct step *step, uint32_t vocabulary_count,
                      uint64_t *seed)
{
    static const float ps[] = {1e-9f, 0.1f, 0.5f, 0.9f, 0.95f, 0.999f, 0x1.fffffep-1f, 1.0f};
    static const float temperatures[] = {0.0f, 0.1f, 0.8f, 1.0f, 1.7f, 10.0f};
    uint64_t drawn;
    uint32_t most;

    *step = (struct step){.type = 1 + (uint32_t)(sample_batch_random(seed) % 8)};
    switch ((enum step_type)step->type) {
    case STEP_MIN_TOKENS:
    case STEP_PENALTIES:
        step->count = (uint32_t)(sample_batch_random(seed) % 40);
        step->flags = (uint32_t)(sample_batch_random(seed) % 2);
        step->values[0] = sample_batch_between(seed, 0.7f, 1.6f);
        step->values[1] = sample_batch_between(seed, -1, 1);
        step->values[2] = sample_batch_between(seed, -1, 1);
        step->list_count = (uint32_t)(sample_batch_random(seed) % 3);
        step->ids = one->ids;
        break;
    case STEP_BIAS:
        step->list_count = fill_biases(one->biases, vocabulary_count, seed);
        step->biases = one->biases;
        break;
    case STEP_TOP_K:
        /* One after the other: in one expression it is the compiler's choice which comes first. */
        drawn = sample_batch_random(seed);
        most = sample_batch_random(seed) % 2 == 0 ? 50 : vocabulary_count + 5;
        step->count = 1 + (uint32_t)(drawn % most);
        break;
    case STEP_TOP_P:
    case STEP_MIN_P:
        step->values[0] = ps[sample_batch_random(seed) % 8];
        break;
    case STEP_TEMPERATURE:
        step->values[0] = temperatures[sample_batch_random(seed) % 6];
        break;
    case STEP_MASK:
    case STEP_DISTINCT: /* not among the types drawn above: test_distinct.c adds it */
        break;
    }
}

static void fill_case(struct sample_steps_case *one, uint32_t vocabulary_count, uint64_t *seed)
{
    memset(one, 0, sizeof *one);
    for (uint32_t i = 0; i < 4; i++) {
        one->ids[i] = (uint32_t)(sample_batch_random(seed) % vocabulary_count);
    }
    for (uint32_t i = 0; i < 64; i++) {
        one->mask[i] = (uint32_t)sample_batch_random(seed);
    }
    one->list.count = (uint32_t)(sample_batch_random(seed) % 7);
    for (uint32_t i = 0; i < one->list.count; i++) {
        fill_step(one, &one->list.steps[i], vocabulary_count, seed);
    }
}

struct sample_batch *sample_batch_create(uint32_t vocabulary_count, uint64_t seed)
{
    struct sample_batch *batch = test_calloc(1, sizeof *batch);

    batch->vocabulary_count = vocabulary_count;
    batch->logits = test_malloc((size_t)SAMPLE_BATCH_ITEMS * vocabulary_count * sizeof(float));
    for (uint32_t i = 0; i < SAMPLE_BATCH_ITEMS; i++) {
        struct sample_history *history = &batch->histories[i];
        sample_batch_fill_row(batch->logits + (size_t)i * vocabulary_count, vocabulary_count,
                              &seed);
        fill_case(&batch->cases[i], vocabulary_count, &seed);
        history->count = (uint32_t)(sample_batch_random(&seed) % SETUP_HISTORY_MAX);
        history->prompt_count = (uint32_t)(sample_batch_random(&seed) % (history->count + 1));
        for (uint32_t j = 0; j < history->count; j++) {
            history->ids[j] = (uint32_t)(sample_batch_random(&seed) % vocabulary_count);
        }
        batch->samples[i] = (struct plan_sample){
            .logits_row = i,
            .slot = i,
            .steps = &batch->cases[i].list,
            .mask = batch->cases[i].mask,
            .seed = sample_batch_random(&seed),
            .index = (uint32_t)(sample_batch_random(&seed) % 30),
            .top_count = (uint32_t)(sample_batch_random(&seed) % (BACKEND_TOP_COUNT_MAX + 1)),
        };
        sample_setup_plain(batch->logits + (size_t)i * vocabulary_count, vocabulary_count,
                           &batch->samples[i], &batch->histories[i], &batch->want[i]);
    }
    return batch;
}

void sample_batch_destroy(struct sample_batch *batch)
{
    test_free(batch->logits);
    test_free(batch);
}
