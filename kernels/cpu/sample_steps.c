/* The sampler's steps over a row of candidates, in the order of the list. */
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/sample.h"
#include "kernels/steps/mask.h"
#include "kernels/steps/masses.h"
#include "kernels/steps/min_p.h"
#include "kernels/steps/min_tokens.h"
#include "kernels/steps/order.h"
#include "kernels/steps/penalties.h"
#include "kernels/steps/temperature.h"
#include "kernels/steps/top_k.h"
#include "kernels/steps/top_p.h"

#define REACH 32.0f /* a candidate further below the largest has mass 0 */

enum {
    SHORT_ROW = 256, /* candidates that are cut without narrowing first */
    NARROW_MAX = 16,
};

/* The row's logits for writing; the model's own are shared by siblings. */
static float *own(struct sample_item *item)
{
    struct sample_row *row = &item->row;
    float *z = item->worker->z[row->side];

    if (row->z != z) {
        memcpy(z, row->z, row->count * sizeof *z);
        row->z = z;
    }
    return z;
}

/* The candidates with z >= bound, on the worker's other side. */
static struct sample_row filtered(const struct sample_item *item, float bound)
{
    const uint32_t side = item->row.side ^ 1;
    struct sample_row row = {
        .z = item->worker->z[side],
        .ids = item->worker->ids[side],
        .side = side,
    };
    row.count = item->kernels->filter(item->row.z, item->row.ids, item->row.count, bound,
                                      item->worker->z[side], item->worker->ids[side]);
    return row;
}

uint32_t sample_steps_find(const struct sample_row *row, uint32_t id)
{
    uint32_t low = 0, high = row->count;

    if (row->ids == NULL) {
        return id < row->count ? id : row->count;
    }
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (row->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < row->count && row->ids[low] == id ? low : row->count;
}

static float largest(const struct sample_item *item)
{
    float max;
    bool bad;
    item->kernels->scan(item->row.z, item->row.count, item->worker->block_max, &max, &bad);
    return max;
}

/* steps/order.h over an array; weights NULL: each counts 1. */
static float threshold(const float *z, const float *weights, uint32_t count, uint64_t target)
{
    uint64_t bins[STEPS_DIGIT_COUNT];
    uint64_t above = 0;
    uint32_t prefix = 0;

    for (uint32_t level = 0; level < STEPS_DIGIT_LEVELS; level++) {
        memset(bins, 0, sizeof bins);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t key = steps_key_from_float(z[i]);
            if (steps_digit_matches(key, prefix, level)) {
                bins[steps_digit(key, level)] +=
                    weights == NULL ? 1 : (uint64_t)(weights[i] * STEPS_MASS_ONE);
            }
        }
        steps_digit_find(bins, target, level, &prefix, &above);
    }
    return steps_float_from_key(prefix);
}

float sample_steps_kth(struct sample_item *item, uint32_t count)
{
    struct sample_row *row = &item->row;
    const uint32_t block_count = sample_block_count(row->count);

    CHECK(count > 0);
    CHECK(count < row->count);
    if (count > block_count) {
        return threshold(row->z, NULL, row->count, count);
    }
    /* `count` blocks hold a value of at least this, so the threshold is no lower. */
    (void)largest(item);
    const float bound = threshold(item->worker->block_max, NULL, block_count, count);
    const struct sample_row candidates = filtered(item, bound);
    return threshold(candidates.z, NULL, candidates.count, count);
}

/* ---- one function a step ---- */

static void min_tokens(struct sample_item *item, const struct step *step)
{
    if (!steps_min_tokens_apply(item->sample->index, step->count)) {
        return;
    }
    float *z = own(item);
    for (uint32_t i = 0; i < step->list_count; i++) {
        const uint32_t at = sample_steps_find(&item->row, step->ids[i]);
        if (at < item->row.count) {
            z[at] = -INFINITY;
        }
    }
}

static void bias(struct sample_item *item, const struct step *step)
{
    float *z = own(item);

    for (uint32_t i = 0; i < step->list_count; i++) {
        const uint32_t at = sample_steps_find(&item->row, step->biases[i].token);
        if (at < item->row.count) {
            z[at] = steps_bias(z[at], step->biases[i].value);
        }
    }
}

static void penalties(struct sample_item *item, const struct step *step)
{
    const struct cpu_history *history = item->history;
    uint32_t *counts = item->worker->counts;
    float *z = own(item);
    const uint32_t history_count = item->history_count;
    const uint32_t first = steps_penalties_first(history_count, history->prompt_count, step->count,
                                                 (step->flags & STEP_FLAG_PROMPT) != 0);

    for (uint32_t i = first; i < history_count; i++) {
        if (history->ids[i] < item->vocabulary_count) {
            counts[history->ids[i]]++;
        }
    }
    for (uint32_t i = 0; i < step->list_count; i++) {
        if (step->ids[i] < item->vocabulary_count) {
            counts[step->ids[i]] = 0; /* exempt */
        }
    }
    for (uint32_t i = first; i < history_count; i++) {
        const uint32_t id = history->ids[i];
        const uint32_t at = sample_steps_find(&item->row, id);
        if (id < item->vocabulary_count && counts[id] > 0) {
            if (at < item->row.count) {
                z[at] = steps_penalties(z[at], counts[id], step->values[0], step->values[1],
                                        step->values[2]);
            }
            counts[id] = 0; /* once a token, and clean for the next item */
        }
    }
}

static void top_k(struct sample_item *item, const struct step *step)
{
    const uint64_t target = steps_top_k_target(step->count, item->row.count);

    if (target > 0) {
        item->row = filtered(item, sample_steps_kth(item, (uint32_t)target));
    }
}

/* A bracket of values around top-p's threshold: candidates >= low reach the target, those >= high
 * do not. */
struct bracket {
    float low;
    float high;
    uint64_t high_sum; /* masses of candidates >= high */
};

/* Halves the bracket until few candidates are inside. Long rows are cut so before digits are
 * counted, one candidate at a time. */
static struct bracket narrow(const struct sample_item *item, float max, uint64_t target)
{
    struct bracket bracket = {.low = max - REACH, .high = INFINITY};
    uint32_t low_count = item->row.count, high_count = 0;
    float high = max;

    for (uint32_t i = 0; i < NARROW_MAX && low_count - high_count > SHORT_ROW; i++) {
        const float middle = bracket.low + (high - bracket.low) * 0.5f;
        uint64_t sum;
        if (!(middle > bracket.low) || !(middle < high)) {
            break;
        }
        const uint32_t count =
            item->kernels->above(item->row.z, item->worker->weights, item->row.count, middle, &sum);
        if (sum >= target) {
            bracket.low = middle;
            low_count = count;
        } else {
            bracket.high = middle;
            bracket.high_sum = sum;
            high = middle;
            high_count = count;
        }
    }
    return bracket;
}

/* The row is at least as long as the bracket; its masses add up to the target or more. */
static void top_p_cut(struct sample_item *item, float max, uint64_t target)
{
    struct sample_worker *worker = item->worker;
    struct bracket bracket = {.low = -INFINITY, .high = INFINITY};
    float *z = worker->z[item->row.side ^ 1];
    float *weights = worker->weights;
    uint32_t count = 0;
    uint64_t sum;

    if (item->row.count > SHORT_ROW) {
        bracket = narrow(item, max, target);
        item->row = filtered(item, bracket.low);
        z = worker->z[item->row.side ^ 1];
        item->kernels->masses(item->row.z, item->row.count, max, worker->block_sum, &sum, NULL,
                              weights);
    }
    for (uint32_t i = 0; i < item->row.count; i++) {
        if (item->row.z[i] < bracket.high) {
            z[count] = item->row.z[i];
            weights[count] = weights[i];
            count++;
        }
    }
    item->row = filtered(item, threshold(z, weights, count, target - bracket.high_sum));
}

static void top_p(struct sample_item *item, const struct step *step)
{
    const float max = largest(item);
    uint64_t sum;

    if (max == -INFINITY) {
        return;
    }
    item->kernels->masses(item->row.z, item->row.count, max, item->worker->block_sum, &sum, NULL,
                          item->worker->weights);
    const uint64_t target = steps_top_p_target(step->values[0], sum);
    if (target > 0) {
        top_p_cut(item, max, target);
    }
}

static void min_p(struct sample_item *item, const struct step *step)
{
    const float max = largest(item);

    if (max != -INFINITY) {
        item->row = filtered(item, steps_min_p_bound(max, step->values[0]));
    }
}

static void temperature(struct sample_item *item, const struct step *step)
{
    const float t = step->values[0];
    const float max = largest(item);
    float *z = item->worker->z[item->row.side];

    if (max == -INFINITY) {
        return;
    }
    if (steps_temperature_greedy(max, t)) {
        item->row = filtered(item, max);
        item->row.count = 1;
        return;
    }
    item->kernels->divide(item->row.z, item->row.count, t, z);
    item->row.z = z;
}

static void mask(struct sample_item *item)
{
    const uint32_t *set = item->sample->mask;
    const uint32_t side = item->row.side ^ 1;
    float *z = item->worker->z[side];
    uint32_t *ids = item->worker->ids[side];
    uint32_t count = 0;

    CHECK(set != NULL);
    for (uint32_t i = 0; i < item->row.count; i++) {
        const uint32_t id = item->row.ids == NULL ? i : item->row.ids[i];
        if (steps_mask_keeps(set, id)) {
            z[count] = item->row.z[i];
            ids[count] = id;
            count++;
        }
    }
    item->row = (struct sample_row){.z = z, .ids = ids, .count = count, .side = side};
}

void sample_steps_apply(struct sample_item *item)
{
    const struct step_list *list = item->sample->steps;

    CHECK(list->count <= STEP_COUNT_MAX);
    for (uint32_t i = 0; i < list->count; i++) {
        const struct step *step = &list->steps[i];
        switch ((enum step_type)step->type) {
        case STEP_MIN_TOKENS:
            min_tokens(item, step);
            break;
        case STEP_BIAS:
            bias(item, step);
            break;
        case STEP_PENALTIES:
            penalties(item, step);
            break;
        case STEP_TOP_K:
            top_k(item, step);
            break;
        case STEP_TOP_P:
            top_p(item, step);
            break;
        case STEP_MIN_P:
            min_p(item, step);
            break;
        case STEP_TEMPERATURE:
            temperature(item, step);
            break;
        case STEP_MASK:
            mask(item);
            break;
        case STEP_DISTINCT:
            break; /* changes the draw, not the row */
        }
    }
}
