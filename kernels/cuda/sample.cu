/* Sampling: statistics of the model's row, the steps, one draw, the history; a block an item.
 *
 * Maths and shapes: struct sample_args in backend.h, kernels/steps/steps.h.
 * Bound by: reading the row from the second-level cache, 4 * vocabulary bytes a pass. Passes: 1 to
 *           take the row, 1 for its masses; 5 for alternatives; for the draw 1 after any step, and
 *           less than 1 to find the token. Steps: temperature 1, min-p 1, top-k 5, top-p 6, mask 1,
 *           penalties 1; 1 more for a scan after bias, penalties, mask and min-tokens together;
 *           distinct 1 more, and less than 1 a sibling before this one.
 * Launch:   grid = min(items, multiprocessors), a block takes every grid-th item, SAMPLE_THREADS.
 * Order:    integers and comparisons only: equal logits give the CPU's bits.
 * Checked:  tests/emulator/test_sample.cpp, against cpu/sample.c by memcmp.
 */
#include "kernels/cuda/sample.cuh"

#include "kernels/cuda/cuda.cuh"
#include "kernels/steps/mask.h"
#include "kernels/steps/min_p.h"
#include "kernels/steps/min_tokens.h"
#include "kernels/steps/penalties.h"
#include "kernels/steps/philox.h"
#include "kernels/steps/temperature.h"
#include "kernels/steps/top_k.h"
#include "kernels/steps/top_p.h"

struct sample_kernel_args {
    const struct cuda_plan_view *plan;
    const float *logits; /* [logits_row_count][vocabulary_count] */
    float *rows;         /* [blocks][vocabulary_count] */
    uint32_t *counts;    /* [blocks][vocabulary_count]: all 0 between items */
    struct cuda_history *histories;
    uint32_t *history_ids;
    uint32_t vocabulary_count;
    uint32_t history_tokens_max;
};

/* One item. */
struct sample_item {
    const struct sample_kernel_args *args;
    const struct cuda_plan_view *view;
    const struct cuda_plan_sample *sample;
    uint32_t *counts;
    struct sample_row row;
    /* What is known of the row as it is: reading it again costs a pass. The same in all threads. */
    bool is_scanned, is_summed;
    struct sample_scan scan;
    struct sample_sums sums;
};

DEVICE_INLINE struct sample_scan item_scan(struct sample_item *item)
{
    if (!item->is_scanned) {
        item->scan = sample_scan_row(&item->row);
        item->is_scanned = true;
    }
    return item->scan;
}

/* After item_scan. */
DEVICE_INLINE struct sample_sums item_sums(struct sample_item *item)
{
    if (!item->is_summed) {
        item->sums = sample_masses(&item->row, item->scan.max);
        item->is_summed = true;
    }
    return item->sums;
}

/* The row has changed anywhere. */
DEVICE_INLINE void item_forget(struct sample_item *item)
{
    item->is_scanned = false;
    item->is_summed = false;
}

/* Removes what is below a bound that the largest reaches. A row with a NaN may lose it. */
DEVICE_INLINE void item_filter(struct sample_item *item, float bound)
{
    sample_filter(&item->row, bound);
    item->is_scanned = item->is_scanned && !item->scan.bad;
    item->is_summed = false;
}

/* ---- one function a step ---- */

DEVICE_INLINE void apply_min_tokens(struct sample_item *item, const struct cuda_plan_step *step)
{
    const uint32_t *ids = item->view->words + step->list_first;

    if (steps_min_tokens_apply(item->sample->index, step->count)) {
        for (uint32_t i = PRIM_THREAD; i < step->list_count; i += PRIM_THREADS) {
            if (ids[i] < item->row.count) {
                item->row.z[ids[i]] = -INFINITY;
            }
        }
        item_forget(item);
    }
}

DEVICE_INLINE void apply_bias(struct sample_item *item, const struct cuda_plan_step *step)
{
    const uint32_t *pairs = item->view->words + step->list_first;

    for (uint32_t i = PRIM_THREAD; i < step->list_count; i += PRIM_THREADS) {
        const uint32_t token = pairs[2 * i];
        if (token < item->row.count) {
            const float value = steps_float_from_bits(pairs[2 * i + 1]);
            item->row.z[token] = steps_bias(item->row.z[token], value);
        }
    }
    item_forget(item);
}

/* A given token's steps see the history as it was when the token was drawn. */
DEVICE_INLINE uint32_t visible_history(const struct cuda_plan_sample *sample, uint32_t count)
{
    const bool is_cut = (sample->flags & PLAN_SAMPLE_GIVEN) != 0 && sample->history_count < count;

    return is_cut ? sample->history_count : count;
}

DEVICE_INLINE void apply_penalties(struct sample_item *item, const struct cuda_plan_step *step)
{
    const struct sample_kernel_args *args = item->args;
    const struct cuda_history history = args->histories[item->sample->slot];
    const uint32_t history_count = visible_history(item->sample, history.count);
    const uint32_t *ids =
        args->history_ids + (uint64_t)item->sample->slot * args->history_tokens_max;
    const uint32_t *exempt = item->view->words + step->list_first;
    const uint32_t first = steps_penalties_first(history_count, history.prompt_count, step->count,
                                                 (step->flags & STEP_FLAG_PROMPT) != 0);

    for (uint32_t i = first + PRIM_THREAD; i < history_count; i += PRIM_THREADS) {
        if (ids[i] < item->row.count) {
            (void)prim_atomic_add_global(&item->counts[ids[i]], 1);
        }
    }
    prim_sync();
    for (uint32_t i = PRIM_THREAD; i < step->list_count; i += PRIM_THREADS) {
        if (exempt[i] < item->row.count) {
            item->counts[exempt[i]] = 0;
        }
    }
    prim_sync();
    for (uint32_t i = item->row.begin + PRIM_THREAD % 32; i < item->row.end; i += 32) {
        const uint32_t n = item->counts[i];
        if (n > 0) {
            item->row.z[i] = steps_penalties(item->row.z[i], n, step->values[0], step->values[1],
                                             step->values[2]);
            item->counts[i] = 0; /* clean for the next item */
        }
    }
    item_forget(item);
}

DEVICE_INLINE void apply_top_k(struct sample_item *item, const struct cuda_plan_step *step)
{
    const uint64_t target = steps_top_k_target(step->count, item->row.count);

    if (target > 0) {
        item_filter(item, sample_threshold(&item->row, true, 0.0f, target));
    }
}

DEVICE_INLINE void apply_top_p(struct sample_item *item, const struct cuda_plan_step *step)
{
    const struct sample_scan scan = item_scan(item);

    if (scan.max == -INFINITY) {
        return;
    }
    const struct sample_sums sums = item_sums(item);
    const uint64_t target = steps_top_p_target(step->values[0], sums.sum);
    if (target > 0) {
        item_filter(item, sample_threshold(&item->row, false, scan.max, target));
    }
}

DEVICE_INLINE void apply_min_p(struct sample_item *item, const struct cuda_plan_step *step)
{
    const struct sample_scan scan = item_scan(item);

    if (scan.max != -INFINITY) {
        item_filter(item, steps_min_p_bound(scan.max, step->values[0]));
    }
}

/* Leaves the largest logit with the smallest id alone. */
DEVICE_INLINE void keep_largest(const struct sample_row *row, float max)
{
    uint32_t own = UINT32_MAX;

    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end && own == UINT32_MAX; i += 32) {
        own = row->z[i] >= max ? i : own;
    }
    const uint32_t kept = sample_block_min(row, own);
    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        if (i != kept) {
            row->z[i] = -INFINITY;
        }
    }
}

DEVICE_INLINE void apply_temperature(struct sample_item *item, const struct cuda_plan_step *step)
{
    const struct sample_row *row = &item->row;
    const float t = step->values[0];
    const struct sample_scan scan = item_scan(item);

    if (scan.max == -INFINITY) {
        return;
    }
    if (steps_temperature_greedy(scan.max, t)) {
        keep_largest(row, scan.max);
        item_forget(item);
        return;
    }
    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        row->z[i] = steps_temperature(row->z[i], t);
    }
    /* Dividing keeps the order: the largest stays it. */
    item->scan.max = steps_temperature(scan.max, t) + 0.0f;
    item->scan.bad = scan.bad || !(item->scan.max < INFINITY);
    item->is_summed = false;
}

DEVICE_INLINE void apply_mask(struct sample_item *item)
{
    const struct sample_row *row = &item->row;
    const uint32_t *mask = item->view->words + item->sample->mask_first;

    for (uint32_t i = row->begin + PRIM_THREAD % 32; i < row->end; i += 32) {
        if (!steps_mask_keeps(mask, i)) {
            row->z[i] = -INFINITY;
        }
    }
    item_forget(item);
}

DEVICE_INLINE void apply_step(struct sample_item *item, const struct cuda_plan_step *step)
{
    switch ((enum step_type)step->type) {
    case STEP_MIN_TOKENS:
        apply_min_tokens(item, step);
        break;
    case STEP_BIAS:
        apply_bias(item, step);
        break;
    case STEP_PENALTIES:
        apply_penalties(item, step);
        break;
    case STEP_TOP_K:
        apply_top_k(item, step);
        break;
    case STEP_TOP_P:
        apply_top_p(item, step);
        break;
    case STEP_MIN_P:
        apply_min_p(item, step);
        break;
    case STEP_TEMPERATURE:
        apply_temperature(item, step);
        break;
    case STEP_MASK:
        apply_mask(item);
        break;
    case STEP_DISTINCT:
        break; /* changes the draw, not the row */
    }
    prim_sync();
}

/* ---- an item ---- */

/* Everything an item answers that is known before the steps. */
struct model_numbers {
    float max;
    uint64_t sum;
    float entropy;
    uint32_t top_count;
};

/* false: the row holds a NaN, or nothing. */
DEVICE_INLINE bool measure_model(struct sample_item *item, struct model_numbers *out)
{
    const struct sample_row *row = &item->row;
    const uint32_t most = BACKEND_TOP_COUNT_MAX, asked = item->sample->top_count;
    const struct sample_scan scan = item_scan(item);
    uint32_t wanted = asked < most ? asked : most;

    wanted = wanted < row->count ? wanted : row->count;
    if (scan.bad || scan.max == -INFINITY) {
        return false;
    }
    const struct sample_sums sums = item_sums(item);
    out->max = scan.max;
    out->sum = sums.sum;
    out->entropy = steps_entropy(sums.sum, sums.spread);
    out->top_count = wanted;
    if (wanted > 0) {
        sample_find_top(row, wanted);
    }
    return true;
}

/* A history that is full belongs to a branch that has filled its room: nothing reads it again. */
DEVICE_INLINE void append(const struct sample_kernel_args *args, uint32_t slot, uint32_t token)
{
    struct cuda_history *history = &args->histories[slot];

    history->last = token;
    if (history->count < args->history_tokens_max) {
        args->history_ids[(uint64_t)slot * args->history_tokens_max + history->count] = token;
        history->count++;
    }
}

/* Zeros, or the flag alone. */
DEVICE_INLINE void clear_result(struct sample_result *result, uint32_t flags)
{
    prim_sync();
    if (PRIM_THREAD < BACKEND_TOP_COUNT_MAX) {
        result->top[PRIM_THREAD].token = 0;
        result->top[PRIM_THREAD].logprob = 0.0f;
    }
    if (PRIM_THREAD == 0) {
        result->token = 0;
        result->flags = flags;
        result->logprob = 0.0f;
        result->logprob_sampler = 0.0f;
        result->entropy = 0.0f;
        result->top_count = 0;
    }
    prim_sync();
}

/* What the steps leave, and what is drawn from it. */
struct drawn {
    float max;
    uint64_t sum;
    uint32_t token;
};

DEVICE_INLINE bool is_distinct(const struct sample_item *item)
{
    const struct cuda_plan_sample *sample = item->sample;

    return sample->index == 0 && sample->step_count > 0 &&
           item->view->steps[sample->step_first + sample->step_count - 1].type == STEP_DISTINCT;
}

/* Draws one after another, and takes from the row what was drawn before the last. */
DEVICE_INLINE void pick_distinct(struct sample_item *item, struct drawn *out)
{
    const struct cuda_plan_sample *sample = item->sample;
    const struct cuda_plan_step *step =
        &item->view->steps[sample->step_first + sample->step_count - 1];
    const uint32_t *words = item->view->words + step->list_first;
    const uint64_t seed = (uint64_t)words[1] << 32 | words[0];
    const uint32_t last = step->count;

    for (uint32_t i = last - last % sample_count_alive(&item->row, out->max);; i++) {
        const uint64_t random = philox_draw(seed, 0, PHILOX_DISTINCT, i);
        const uint32_t token = sample_pick(&item->row, out->max, steps_draw(random, out->sum));

        if (i == last) {
            out->token = token;
            return;
        }
        const uint64_t mass = steps_mass(item->row.z[token], out->max);
        sample_remove(&item->row, token, mass);
        out->sum -= mass;
    }
}

/* false: nothing that could be drawn from. */
DEVICE_INLINE bool draw(struct sample_item *item, struct drawn *out)
{
    const struct cuda_plan_sample *sample = item->sample;

    for (uint32_t i = 0; i < sample->step_count; i++) {
        apply_step(item, &item->view->steps[sample->step_first + i]);
    }
    const struct sample_scan scan = item_scan(item);
    if (scan.bad || scan.max == -INFINITY) {
        return false;
    }
    const struct sample_sums sums = item_sums(item);

    out->max = scan.max;
    out->sum = sums.sum;
    if (is_distinct(item)) {
        pick_distinct(item, out);
        return true;
    }
    const uint64_t random = philox_draw(sample->seed, sample->index, PHILOX_TOKEN, 0);
    out->token = sample_pick(&item->row, scan.max, steps_draw(random, sums.sum));
    return true;
}

DEVICE_INLINE void answer(struct sample_item *item, const float *logits,
                          struct sample_result *result)
{
    const struct cuda_plan_sample *sample = item->sample;
    const struct sample_row *row = &item->row;
    const bool is_given = (sample->flags & PLAN_SAMPLE_GIVEN) != 0;
    struct model_numbers model;
    struct drawn drawn = {0.0f, 0, sample->given};

    if (!measure_model(item, &model) || (sample->has_steps != 0 && !draw(item, &drawn))) {
        clear_result(result, SAMPLE_FLAG_NAN);
        return;
    }
    clear_result(result, 0);
    if (PRIM_THREAD < model.top_count) {
        const struct sample_top top = row->shared->top[PRIM_THREAD];
        result->top[PRIM_THREAD].token = top.token;
        result->top[PRIM_THREAD].logprob = steps_logprob(top.logprob, model.max, model.sum);
    }
    if (PRIM_THREAD == 0) {
        const uint32_t measured = is_given ? sample->given : drawn.token;

        result->token = drawn.token;
        result->entropy = model.entropy;
        result->top_count = model.top_count;
        if (measured != PLAN_GIVEN_NONE) {
            result->logprob = steps_logprob(logits[measured], model.max, model.sum);
        }
        if (measured != PLAN_GIVEN_NONE && sample->has_steps != 0) {
            result->logprob_sampler = steps_logprob(row->z[measured], drawn.max, drawn.sum);
        }
        if (!is_given) {
            append(item->args, sample->slot, drawn.token);
        }
    }
}

static KERNEL void PRIM_BOUNDS(SAMPLE_THREADS, 1) sample_kernel(struct sample_kernel_args args)
{
    SHARED(struct sample_shared, shared);
    const uint64_t scratch_at = (uint64_t)PRIM_BLOCK_X * args.vocabulary_count;

    prim_depend_wait();
    const struct cuda_plan_view view = *args.plan;
    prim_depend_launch();
    for (uint32_t i = PRIM_BLOCK_X; i < view.sample_count; i += PRIM_GRID_X) {
        const struct cuda_plan_sample *sample = &view.samples[i];
        const float *logits = args.logits + (uint64_t)sample->logits_row * args.vocabulary_count;
        struct sample_item item = {};

        item.args = &args;
        item.view = &view;
        item.sample = sample;
        item.counts = args.counts + scratch_at;
        item.row = sample_row_of(args.rows + scratch_at, args.vocabulary_count, shared);
        item.scan = sample_take_row(&item.row, logits);
        item.is_scanned = true;
        answer(&item, logits, &view.results[i]);
        prim_sync();
    }
}

/* ---- recording and launching ---- */

static uint32_t block_count(const struct backend *backend)
{
    const uint32_t sample_count_max = backend->settings.sample_count_max;
    const uint32_t multiprocessor_count = backend->facts.multiprocessor_count;

    return sample_count_max < multiprocessor_count ? sample_count_max : multiprocessor_count;
}

/* rows, then counts */
static uint64_t scratch_half_bytes(const struct backend *backend)
{
    return (uint64_t)block_count(backend) * backend->settings.vocabulary_count * sizeof(uint32_t);
}

enum status cuda_sample(struct backend_program *program, const struct sample_args *args,
                        struct error *error)
{
    struct backend *backend = program->backend;
    const uint64_t half_bytes = scratch_half_bytes(backend);
    struct cuda_op *op = NULL;

    TRY(cuda_scratch_want(backend, &backend->sampling, 2 * half_bytes, "rows of the sampler",
                          error));
    if (device_clear(backend->device, backend->sampling.data, 2 * half_bytes) != STATUS_OK) {
        return error_set(error, STATUS_DEVICE, "the card failed: %s",
                         device_fault_text(backend->device));
    }
    TRY(cuda_program_push(program, CUDA_OP_sample, error, &op));
    op->args.sample = *args;
    return STATUS_OK;
}

enum status cuda_sample_run(const struct cuda_step *step, const struct cuda_op *entry)
{
    const struct backend *backend = step->backend;
    const uint32_t block_max = block_count(backend);
    struct sample_kernel_args args = {};

    args.plan = step->view;
    args.logits = entry->args.sample.logits->data;
    args.rows = (float *)backend->sampling.data;
    args.counts = (uint32_t *)((uint8_t *)backend->sampling.data + scratch_half_bytes(backend));
    args.histories = backend->histories;
    args.history_ids = backend->history_ids;
    args.vocabulary_count = backend->settings.vocabulary_count;
    args.history_tokens_max = backend->settings.history_tokens_max;
    return device_launch<sample_kernel>(backend->device, block_max, 1, SAMPLE_THREADS,
                                        (uint32_t)sizeof(struct sample_shared), args);
}
