/* Draws tokens: numbers of the model's row, the steps, masses, one draw in id order. A task is one
 * sample item. */
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/sample.h"
#include "kernels/steps/masses.h"
#include "kernels/steps/philox.h"

struct cpu_sample {
    const struct sample_kernels *kernels;
    uint32_t worker_count;
    struct sample_worker *workers; /* owned: [worker_count] */
};

/* One run of the operation. */
struct sample_run {
    const struct cpu_step *step;
    const struct sample_args *args;
};

/* ---- the scalar passes ---- */

static void scalar_scan(const float *z, uint32_t count, float *block_max, float *max, bool *bad)
{
    float all = -INFINITY;

    *bad = false;
    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        float block = -INFINITY;
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i++) {
            *bad = *bad || !(z[i] < INFINITY);
            block = z[i] > block ? z[i] : block;
        }
        block_max[first / SAMPLE_BLOCK] = block;
        all = block > all ? block : all;
    }
    *max = all + 0.0f; /* -0 is answered as 0 */
}

static void scalar_masses(const float *z, uint32_t count, float max, uint64_t *block_sum,
                          uint64_t *sum, uint64_t *spread, float *weights)
{
    uint64_t all = 0, spreads = 0;

    for (uint32_t first = 0; first < count; first += SAMPLE_BLOCK) {
        uint64_t block = 0;
        for (uint32_t i = first; i < count && i < first + SAMPLE_BLOCK; i++) {
            const uint64_t mass = steps_mass(z[i], max);
            block += mass;
            spreads += steps_spread(mass, z[i], max);
            if (weights != NULL) {
                weights[i] = steps_exp(z[i] - max);
            }
        }
        block_sum[first / SAMPLE_BLOCK] = block;
        all += block;
    }
    *sum = all;
    if (spread != NULL) {
        *spread = spreads;
    }
}

static uint32_t scalar_filter(const float *z, const uint32_t *ids, uint32_t count, float bound,
                              float *z_out, uint32_t *ids_out)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (z[i] >= bound) {
            z_out[kept] = z[i];
            ids_out[kept] = ids == NULL ? i : ids[i];
            kept++;
        }
    }
    return kept;
}

static uint32_t scalar_above(const float *z, const float *weights, uint32_t count, float bound,
                             uint64_t *sum)
{
    uint32_t found = 0;
    uint64_t all = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (z[i] >= bound) {
            all += (uint64_t)(weights[i] * STEPS_MASS_ONE);
            found++;
        }
    }
    *sum = all;
    return found;
}

static void scalar_divide(const float *z, uint32_t count, float t, float *z_out)
{
    for (uint32_t i = 0; i < count; i++) {
        z_out[i] = z[i] / t;
    }
}

const struct sample_kernels sample_kernels_scalar = {
    .scan = scalar_scan,
    .masses = scalar_masses,
    .filter = scalar_filter,
    .above = scalar_above,
    .divide = scalar_divide,
};

/* ---- recording ---- */

static const struct sample_kernels *kernels_of(enum cpu_isa isa)
{
#if defined(__x86_64__)
    if (cpu_isa_is_avx512(isa)) {
        return &sample_kernels_avx512;
    }
    if (isa == CPU_AVX2) {
        return &sample_kernels_avx2;
    }
#elif defined(__aarch64__)
    if (isa != CPU_SCALAR) {
        return &sample_kernels_neon;
    }
#else
    (void)isa;
#endif
    return &sample_kernels_scalar;
}

static void worker_finish(struct sample_worker *worker)
{
    for (uint32_t side = 0; side < 2; side++) {
        memory_free(worker->z[side]);
        memory_free(worker->ids[side]);
    }
    memory_free(worker->weights);
    memory_free(worker->counts);
    memory_free(worker->block_max);
    memory_free(worker->block_sum);
}

static enum status worker_init(struct sample_worker *worker, uint32_t vocabulary_count)
{
    const size_t count = (size_t)vocabulary_count + SAMPLE_SLACK;
    const size_t block_count = (size_t)sample_block_count(vocabulary_count) + SAMPLE_SLACK;
    bool whole = true;

    for (uint32_t side = 0; side < 2; side++) {
        worker->z[side] = memory_alloc_aligned(64, count, sizeof *worker->z[side]);
        worker->ids[side] = memory_alloc_aligned(64, count, sizeof *worker->ids[side]);
        whole = whole && worker->z[side] != NULL && worker->ids[side] != NULL;
    }
    worker->weights = memory_alloc_aligned(64, count, sizeof *worker->weights);
    worker->counts = memory_alloc_aligned(64, count, sizeof *worker->counts);
    worker->block_max = memory_alloc_aligned(64, block_count, sizeof *worker->block_max);
    worker->block_sum = memory_alloc_aligned(64, block_count, sizeof *worker->block_sum);
    whole = whole && worker->weights != NULL && worker->counts != NULL &&
            worker->block_max != NULL && worker->block_sum != NULL;
    return whole ? STATUS_OK : STATUS_MEMORY;
}

void cpu_sample_destroy(struct cpu_sample *sample)
{
    if (sample == NULL) {
        return;
    }
    for (uint32_t i = 0; sample->workers != NULL && i < sample->worker_count; i++) {
        worker_finish(&sample->workers[i]);
    }
    memory_free(sample->workers);
    memory_free(sample);
}

void cpu_sample_rest(const struct backend *backend)
{
    const size_t count = (size_t)backend->settings.vocabulary_count + SAMPLE_SLACK;

    for (uint32_t i = 0; backend->sample != NULL && i < backend->sample->worker_count; i++) {
        const struct sample_worker *worker = &backend->sample->workers[i];

        for (uint32_t side = 0; side < 2; side++) {
            memory_clear(worker->z[side], count, sizeof *worker->z[side]);
            memory_clear(worker->ids[side], count, sizeof *worker->ids[side]);
        }
        memory_clear(worker->weights, count, sizeof *worker->weights);
        memory_clear(worker->counts, count, sizeof *worker->counts);
    }
}

static enum status create_scratch(struct backend *backend)
{
    struct cpu_sample *sample = memory_alloc(1, sizeof *sample);
    enum status status = STATUS_MEMORY;

    if (sample == NULL) {
        return STATUS_MEMORY;
    }
    sample->kernels = kernels_of(backend->isa);
    sample->workers = memory_alloc(backend->thread_count, sizeof *sample->workers);
    if (sample->workers == NULL) {
        goto done;
    }
    sample->worker_count = backend->thread_count;
    for (uint32_t i = 0; i < sample->worker_count; i++) {
        status = worker_init(&sample->workers[i], backend->settings.vocabulary_count);
        if (status != STATUS_OK) {
            goto done;
        }
    }
    backend->sample = sample;
    sample = NULL; /* handed over */
    status = STATUS_OK;
done:
    cpu_sample_destroy(sample);
    return status;
}

enum status cpu_sample(struct backend_program *program, const struct sample_args *args,
                       struct error *error)
{
    struct backend *backend = program->backend;
    struct cpu_op *op = NULL;

    CHECK(backend->settings.vocabulary_count > 0);
    if (backend->sample == NULL && create_scratch(backend) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "no memory to sample from %u tokens",
                         backend->settings.vocabulary_count);
    }
    TRY(cpu_program_push(program, CPU_OP_sample, error, &op));
    op->args.sample = *args;
    return STATUS_OK;
}

/* ---- running ---- */

/* Keeps top[0, count) sorted by (logit descending, id ascending); ids come ascending. */
static void insert_top(struct sample_top *top, uint32_t *count, uint32_t count_max, uint32_t token,
                       float z)
{
    uint32_t at = *count;

    if (at == count_max && !(z > top[at - 1].logprob)) {
        return;
    }
    at -= at == count_max;
    for (; at > 0 && z > top[at - 1].logprob; at--) {
        top[at] = top[at - 1];
    }
    top[at] = (struct sample_top){.token = token, .logprob = z};
    *count += *count < count_max;
}

/* The largest logits; they stand in for the log probabilities until those are known. */
static uint32_t find_top(struct sample_item *item, uint32_t count_max, struct sample_top *top)
{
    const struct sample_row *row = &item->row;
    uint32_t count = 0;
    float bound = -INFINITY;

    count_max = count_max < row->count ? count_max : row->count;
    if (count_max == 0) {
        return 0;
    }
    if (count_max < row->count) {
        bound = sample_steps_kth(item, count_max);
    }
    struct sample_worker *worker = item->worker;
    const uint32_t candidate_count =
        item->kernels->filter(row->z, NULL, row->count, bound, worker->z[1], worker->ids[1]);
    for (uint32_t i = 0; i < candidate_count; i++) {
        insert_top(top, &count, count_max, worker->ids[1][i], worker->z[1][i]);
    }
    return count;
}

/* The candidate that a draw falls on. */
static uint32_t pick(const struct sample_item *item, float max, uint64_t rest)
{
    const uint64_t *block_sum = item->worker->block_sum;
    uint32_t block = 0;

    while (rest >= block_sum[block]) {
        rest -= block_sum[block];
        block++;
    }
    for (uint32_t i = block * SAMPLE_BLOCK; i < item->row.count; i++) {
        const uint64_t mass = steps_mass(item->row.z[i], max);
        if (rest < mass) {
            return i;
        }
        rest -= mass;
    }
    CHECK(false); /* the sum is that of the masses just walked */
    return 0;
}

static const struct step *find_distinct(const struct plan_sample *sample)
{
    const uint32_t count = sample->steps->count;

    if (sample->index > 0 || count == 0 || sample->steps->steps[count - 1].type != STEP_DISTINCT) {
        return NULL;
    }
    return &sample->steps->steps[count - 1];
}

/* Draws one after another, and takes from the row what was drawn before the last. */
static uint32_t pick_distinct(struct sample_item *item, const struct step *step, float max,
                              uint64_t *sum)
{
    const uint64_t seed = (uint64_t)step->ids[1] << 32 | step->ids[0];
    float *z = item->worker->z[item->row.side ^ 1];
    uint32_t alive_count = 0;

    for (uint32_t i = 0; i < item->row.count; i++) {
        z[i] = item->row.z[i];
        alive_count += steps_mass(z[i], max) > 0;
    }
    CHECK(alive_count > 0); /* or nothing would have been left to draw from */
    item->row.z = z;
    for (uint32_t draw = step->count - step->count % alive_count;; draw++) {
        const uint64_t u = philox_draw(seed, 0, PHILOX_DISTINCT, draw);
        const uint32_t at = pick(item, max, steps_draw(u, *sum));
        const uint64_t mass = steps_mass(z[at], max);

        if (draw == step->count) {
            return at;
        }
        z[at] = -INFINITY;
        item->worker->block_sum[at / SAMPLE_BLOCK] -= mass;
        *sum -= mass;
    }
}

/* The candidate that is drawn; *sum becomes what it was drawn from. */
static uint32_t choose(struct sample_item *item, float max, uint64_t *sum)
{
    const struct plan_sample *sample = item->sample;
    const struct step *distinct = find_distinct(sample);

    if (distinct != NULL) {
        return pick_distinct(item, distinct, max, sum);
    }
    return pick(item, max,
                steps_draw(philox_draw(sample->seed, sample->index, PHILOX_TOKEN, 0), *sum));
}

/* What the model's row alone tells; the sum and the maximum that log probabilities are made with.
 */
struct model_row {
    const float *logits;
    float max;
    uint64_t sum;
};

/* false: the row holds a NaN, or nothing. */
static bool measure(struct sample_item *item, const float *logits, struct model_row *model,
                    struct sample_result *result)
{
    const uint32_t asked = item->sample->top_count;
    uint64_t spread;
    bool bad;

    *model = (struct model_row){.logits = logits};
    item->kernels->scan(logits, item->row.count, item->worker->block_max, &model->max, &bad);
    if (bad || model->max == -INFINITY) {
        result->flags = SAMPLE_FLAG_NAN;
        return false;
    }
    item->kernels->masses(logits, item->row.count, model->max, item->worker->block_sum, &model->sum,
                          &spread, NULL);
    result->entropy = steps_entropy(model->sum, spread);
    result->top_count =
        find_top(item, asked < BACKEND_TOP_COUNT_MAX ? asked : BACKEND_TOP_COUNT_MAX, result->top);
    for (uint32_t i = 0; i < result->top_count; i++) {
        result->top[i].logprob = steps_logprob(result->top[i].logprob, model->max, model->sum);
    }
    return true;
}

/* Whether the sample measures a token that is known: which, in *token. */
static bool is_given(const struct sample_item *item, uint32_t *token)
{
    const struct plan_sample *sample = item->sample;

    if ((sample->flags & PLAN_SAMPLE_GIVEN) == 0) {
        return false;
    }
    CHECK(sample->given < item->vocabulary_count || sample->given == PLAN_GIVEN_NONE);
    *token = sample->given;
    return true;
}

static void draw(struct sample_item *item, const struct model_row *model,
                 struct sample_result *result)
{
    struct sample_worker *worker = item->worker;
    uint32_t measured;
    float max;
    bool bad;
    uint64_t sum;

    sample_steps_apply(item);
    item->kernels->scan(item->row.z, item->row.count, worker->block_max, &max, &bad);
    if (bad || max == -INFINITY) {
        *result = (struct sample_result){.flags = SAMPLE_FLAG_NAN};
        return;
    }
    item->kernels->masses(item->row.z, item->row.count, max, worker->block_sum, &sum, NULL, NULL);
    uint32_t at = choose(item, max, &sum);
    result->token = item->row.ids == NULL ? at : item->row.ids[at];
    measured = result->token;
    if (is_given(item, &measured)) {
        at = sample_steps_find(&item->row, measured);
    }
    if (measured != PLAN_GIVEN_NONE) {
        /* A given token that the steps removed has no probability left. */
        const float z = at < item->row.count ? item->row.z[at] : -INFINITY;

        result->logprob = steps_logprob(model->logits[measured], model->max, model->sum);
        result->logprob_sampler = steps_logprob(z, max, sum);
    }
}

static void answer(struct sample_item *item, const float *logits, struct sample_result *result)
{
    struct model_row model;

    if (!measure(item, logits, &model, result)) {
        return;
    }
    if (item->sample->steps != NULL) {
        draw(item, &model, result);
        return;
    }
    CHECK(is_given(item, &result->token));
    if (result->token != PLAN_GIVEN_NONE) {
        result->logprob = steps_logprob(logits[result->token], model.max, model.sum);
    }
}

static void sample_one(void *context, uint32_t index, uint32_t worker)
{
    const struct sample_run *run = context;
    const struct backend *backend = run->step->backend;
    const struct plan_sample *sample = &run->step->plan->samples[index];
    const uint32_t vocabulary_count = backend->settings.vocabulary_count;
    struct sample_result *result = &backend->results[index];

    CHECK(sample->logits_row < run->step->plan->logits_row_count);
    CHECK(sample->slot < backend->settings.slot_count);
    const float *logits = run->args->logits->data + (size_t)sample->logits_row * vocabulary_count;
    const struct cpu_history *history = &backend->histories[sample->slot];
    struct sample_item item = {
        .kernels = backend->sample->kernels,
        .worker = &backend->sample->workers[worker],
        .history = history,
        .history_count = history->count,
        .sample = sample,
        .vocabulary_count = vocabulary_count,
        .row = {.z = logits, .count = vocabulary_count},
    };
    *result = (struct sample_result){0};
    if ((sample->flags & PLAN_SAMPLE_GIVEN) != 0 && sample->history_count < history->count) {
        item.history_count = sample->history_count;
    }
    for (const struct plan_sample *at = sample; (at->flags & PLAN_SAMPLE_DRAFT) != 0; at--) {
        item.history_count += item.history_count < backend->settings.history_tokens_max;
    }
    answer(&item, logits, result);
}

/* A slot's next row may name its token as the last one, and its next penalties count it. A history
 * that is full belongs to a branch that has filled its room: nothing reads it again. */
static void append(struct backend *backend, uint32_t slot, uint32_t token)
{
    struct cpu_history *history = &backend->histories[slot];

    history->last = token;
    if (history->count < backend->settings.history_tokens_max) {
        history->ids[history->count] = token;
        history->count++;
    }
}

/* Drafts lie behind the history's end while the steps of their items look at them. */
static void stage_drafts(struct backend *backend, const struct plan *plan)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < plan->sample_count; i++) {
        const struct plan_sample *sample = &plan->samples[i];
        const struct cpu_history *history = &backend->histories[sample->slot];

        if ((sample->flags & PLAN_SAMPLE_DRAFT) == 0) {
            count = 0;
            continue;
        }
        CHECK(i > 0);
        CHECK(sample[-1].slot == sample->slot);
        CHECK(((sample->flags | sample[-1].flags) & PLAN_SAMPLE_GIVEN) == 0);
        if (history->count + count < backend->settings.history_tokens_max) {
            history->ids[history->count + count] = sample->given;
        }
        count++;
    }
}

void cpu_sample_run(const struct cpu_step *step, const struct sample_args *args)
{
    const struct plan *plan = step->plan;
    struct backend *backend = step->backend;
    struct sample_run run = {.step = step, .args = args};

    CHECK(plan->sample_count <= backend->settings.sample_count_max);
    stage_drafts(backend, plan);
    pool_run(backend->pool, sample_one, &run, plan->sample_count);
    for (uint32_t i = 0; i < plan->sample_count; i++) {
        const bool is_drawn = (plan->samples[i].flags & PLAN_SAMPLE_GIVEN) == 0;
        const bool is_draft = (plan->samples[i].flags & PLAN_SAMPLE_DRAFT) != 0;

        if (is_draft && (backend->results[i - 1].flags != 0 ||
                         backend->results[i - 1].token != plan->samples[i].given)) {
            backend->results[i].flags = SAMPLE_FLAG_DROPPED;
        }
        if (is_drawn && backend->results[i].flags == 0) {
            append(backend, plan->samples[i].slot, backend->results[i].token);
        }
    }
}
