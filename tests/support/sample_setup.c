#include "tests/support/sample_setup.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/cpu.h"
#include "kernels/steps/masses.h"
#include "kernels/steps/philox.h"

__extension__ typedef unsigned __int128 wide;

static struct backend_settings settings_of(uint32_t vocabulary_count, const char *isa,
                                           uint32_t thread_count)
{
    return (struct backend_settings){
        .thread_count = thread_count,
        .row_count_max = 1,
        .sample_count_max = SETUP_ITEM_COUNT_MAX,
        .slot_count = SETUP_ITEM_COUNT_MAX,
        .history_tokens_max = SETUP_HISTORY_MAX,
        .vocabulary_count = vocabulary_count,
        .partial_count_max = 1,
        .isa = isa,
    };
}

bool sample_setup_has(const char *isa)
{
    const struct backend_settings settings = settings_of(1, isa, 1);
    struct backend *backend = NULL;
    const enum status status = backend_cpu_ops.create(&settings, NULL, &backend);

    backend_cpu_ops.destroy(backend);
    return status == STATUS_OK;
}

void sample_setup_init(struct sample_setup *setup, uint32_t vocabulary_count, const char *isa,
                       uint32_t thread_count)
{
    const struct backend_settings settings = settings_of(vocabulary_count, isa, thread_count);
    const struct backend_ops *ops = &backend_cpu_ops;

    *setup = (struct sample_setup){.vocabulary_count = vocabulary_count};
    assert_int_equal(ops->create(&settings, NULL, &setup->backend), STATUS_OK);
    assert_int_equal(ops->buffer_create(setup->backend,
                                        (uint64_t)SETUP_ITEM_COUNT_MAX * vocabulary_count, NULL,
                                        &setup->logits),
                     STATUS_OK);
    assert_int_equal(ops->program_create(setup->backend, 1, NULL, &setup->program), STATUS_OK);
    const struct sample_args args = {.logits = setup->logits};
    assert_int_equal(ops->op.sample(setup->program, &args, NULL), STATUS_OK);
}

void sample_setup_finish(struct sample_setup *setup)
{
    backend_cpu_ops.destroy(setup->backend);
}

void sample_setup_run(struct sample_setup *setup, const float *logits, uint32_t row_count,
                      const struct plan_sample *samples, uint32_t count,
                      const struct sample_history *histories, struct sample_result *results)
{
    static const uint32_t logits_rows[SETUP_ITEM_COUNT_MAX];
    struct plan_history uploads[SETUP_ITEM_COUNT_MAX];
    struct step_result result;
    uint32_t ticket;

    for (uint32_t i = 0; i < count; i++) {
        const struct sample_history *history = &histories[samples[i].slot];
        uploads[i] = (struct plan_history){.slot = samples[i].slot,
                                           .reset = 1,
                                           .prompt_count = history->prompt_count,
                                           .count = history->count,
                                           .ids = history->ids};
    }
    const struct plan plan = {.logits_row_count = row_count,
                              .logits_rows = logits_rows,
                              .sample_count = count,
                              .samples = samples,
                              .history_count = count,
                              .histories = uploads};
    assert_int_equal(backend_cpu_ops.buffer_write(setup->logits, logits,
                                                  (uint64_t)row_count * setup->vocabulary_count),
                     STATUS_OK);
    assert_int_equal(backend_cpu_ops.step_submit(setup->program, &plan, &ticket), STATUS_OK);
    assert_int_equal(backend_cpu_ops.step_wait(setup->backend, ticket, &result), STATUS_OK);
    memcpy(results, result.samples, count * sizeof *results);
}

/* ---- the plain sampler ---- */

struct plain {
    const struct plan_sample *sample;
    const struct sample_history *history;
    uint32_t count;
    float *z;
};

static int falling(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The values, largest first; freed by the caller. */
static float *sorted(const struct plain *plain)
{
    float *copy = test_malloc(plain->count * sizeof *copy);
    memcpy(copy, plain->z, plain->count * sizeof *copy);
    qsort(copy, plain->count, sizeof *copy, falling);
    return copy;
}

static void keep_from(struct plain *plain, double bound)
{
    for (uint32_t i = 0; i < plain->count; i++) {
        plain->z[i] = (double)plain->z[i] >= bound ? plain->z[i] : -INFINITY;
    }
}

static float plain_max(const struct plain *plain)
{
    float max = -INFINITY;
    for (uint32_t i = 0; i < plain->count; i++) {
        max = plain->z[i] > max ? plain->z[i] : max;
    }
    return max;
}

static void plain_top_p(struct plain *plain, float p)
{
    const float max = plain_max(plain);
    float *values = sorted(plain);
    wide sum = 0, above = 0;

    for (uint32_t i = 0; i < plain->count && max > -INFINITY; i++) {
        sum += steps_mass(values[i], max);
    }
    /* p = m / 2^60 or 0 for the values that the tests use */
    const uint64_t m = (uint64_t)((double)p * 0x1p60);
    for (uint32_t i = 0; i < plain->count && max > -INFINITY && p < 1.0f; i++) {
        above += steps_mass(values[i], max);
        /* the largest value whose masses from above, its own ties counted, reach p * S */
        if ((i + 1 == plain->count || values[i + 1] != values[i]) && above << 60 >= m * sum) {
            keep_from(plain, (double)values[i]);
            break;
        }
    }
    test_free(values);
}

static bool listed(const struct step *step, uint32_t id)
{
    for (uint32_t i = 0; i < step->list_count; i++) {
        if (step->ids[i] == id) {
            return true;
        }
    }
    return false;
}

static void plain_penalties(struct plain *plain, const struct step *step)
{
    const struct sample_history *history = plain->history;

    for (uint32_t id = 0; id < plain->count; id++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < history->count; i++) {
            const bool near = step->count == 0 || history->count - i <= step->count;
            const bool counts = i >= history->prompt_count || (step->flags & 1) != 0;
            n += history->ids[i] == id && near && counts;
        }
        if (n == 0 || listed(step, id) || plain->z[id] == -INFINITY) {
            continue;
        }
        float z = plain->z[id];
        z = z > 0 ? z / step->values[0] : z * step->values[0];
        plain->z[id] = z - ((float)n * step->values[1] + step->values[2]);
    }
}

static void plain_temperature(struct plain *plain, float t)
{
    const float max = plain_max(plain);
    bool found = false;

    for (uint32_t i = 0; i < plain->count; i++) {
        if (t > 0) {
            plain->z[i] = plain->z[i] / t;
        } else {
            plain->z[i] = !found && plain->z[i] == max ? max : -INFINITY;
            found = found || plain->z[i] == max;
        }
    }
}

static void plain_ids(struct plain *plain, const struct step *step)
{
    for (uint32_t id = 0; id < plain->count; id++) {
        const bool early = step->count == UINT32_MAX || plain->sample->index < step->count;
        if (step->type == STEP_MIN_TOKENS && early && listed(step, id)) {
            plain->z[id] = -INFINITY;
        }
        if (step->type == STEP_MASK && (plain->sample->mask[id / 32] >> (id % 32) & 1) == 0) {
            plain->z[id] = -INFINITY;
        }
    }
    for (uint32_t i = 0; step->type == STEP_BIAS && i < step->list_count; i++) {
        plain->z[step->biases[i].token] += step->biases[i].value;
    }
}

static void plain_step(struct plain *plain, const struct step *step)
{
    float *values;

    switch ((enum step_type)step->type) {
    case STEP_PENALTIES:
        plain_penalties(plain, step);
        break;
    case STEP_TOP_K:
        values = sorted(plain);
        if (step->count < plain->count) {
            keep_from(plain, (double)values[step->count - 1]);
        }
        test_free(values);
        break;
    case STEP_TOP_P:
        plain_top_p(plain, step->values[0]);
        break;
    case STEP_MIN_P:
        if (step->values[0] > 0) {
            keep_from(plain, (double)plain_max(plain) + steps_log((double)step->values[0]));
        }
        break;
    case STEP_TEMPERATURE:
        plain_temperature(plain, step->values[0]);
        break;
    case STEP_DISTINCT:
        break; /* how it is drawn, not from what */
    default:
        plain_ids(plain, step);
        break;
    }
}

static void plain_top(const float *logits, uint32_t count, uint32_t wanted, float max, uint64_t sum,
                      struct sample_result *result)
{
    bool *taken = test_calloc(count, sizeof *taken);

    for (uint32_t n = 0; n < wanted && n < count; n++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t i = 0; i < count; i++) {
            if (!taken[i] && (best == UINT32_MAX || logits[i] > logits[best])) {
                best = i;
            }
        }
        taken[best] = true;
        result->top[n] = (struct sample_top){best, steps_logprob(logits[best], max, sum)};
        result->top_count = n + 1;
    }
    test_free(taken);
}

static uint32_t plain_pick(const struct plain *plain, float max, uint64_t left, uint64_t u)
{
    const uint64_t place = (uint64_t)((wide)u * left >> 64);
    uint64_t running = 0;
    uint32_t id = 0;

    while ((running += steps_mass(plain->z[id], max)) <= place) {
        id++;
    }
    return id;
}

/* *left becomes what the token was drawn from. */
static uint32_t plain_draw(struct plain *plain, float max, uint64_t *left)
{
    const struct plan_sample *sample = plain->sample;
    const uint32_t count = sample->steps->count;
    const struct step *last = count > 0 ? &sample->steps->steps[count - 1] : NULL;
    uint32_t alive = 0, id = 0;

    if (last == NULL || last->type != STEP_DISTINCT || sample->index > 0) {
        return plain_pick(plain, max, *left,
                          philox_draw(sample->seed, sample->index, PHILOX_TOKEN, 0));
    }
    for (uint32_t i = 0; i < plain->count; i++) {
        alive += steps_mass(plain->z[i], max) > 0;
    }
    for (uint32_t draw = last->count - last->count % alive; draw <= last->count; draw++) {
        const uint64_t seed = (uint64_t)last->ids[1] << 32 | last->ids[0];

        id = plain_pick(plain, max, *left, philox_draw(seed, 0, PHILOX_DISTINCT, draw));
        if (draw < last->count) {
            *left -= steps_mass(plain->z[id], max);
            plain->z[id] = -INFINITY;
        }
    }
    return id;
}

void sample_setup_plain(const float *logits, uint32_t vocabulary_count,
                        const struct plan_sample *sample, const struct sample_history *history,
                        struct sample_result *result)
{
    struct plain plain = {.sample = sample, .history = history, .count = vocabulary_count};
    uint64_t sum = 0, spread = 0, left = 0;

    memset(result, 0, sizeof *result);
    plain.z = test_malloc(vocabulary_count * sizeof *plain.z);
    memcpy(plain.z, logits, vocabulary_count * sizeof *plain.z);
    const float max = plain_max(&plain) + 0.0f;
    for (uint32_t i = 0; i < vocabulary_count; i++) {
        const uint64_t mass = steps_mass(logits[i], max);
        sum += mass;
        spread += mass == 0 ? 0 : (uint64_t)floor((double)mass * (double)(max - logits[i]));
    }
    result->entropy = steps_entropy(sum, spread);
    plain_top(logits, vocabulary_count, sample->top_count, max, sum, result);
    for (uint32_t i = 0; i < sample->steps->count; i++) {
        plain_step(&plain, &sample->steps->steps[i]);
    }
    const float max_left = plain_max(&plain) + 0.0f;
    if (max_left == -INFINITY) {
        *result = (struct sample_result){.flags = SAMPLE_FLAG_NAN};
        test_free(plain.z);
        return;
    }
    for (uint32_t i = 0; i < vocabulary_count; i++) {
        left += steps_mass(plain.z[i], max_left);
    }
    result->token = plain_draw(&plain, max_left, &left);
    result->logprob = steps_logprob(logits[result->token], max, sum);
    result->logprob_sampler = steps_logprob(plain.z[result->token], max_left, left);
    test_free(plain.z);
}
