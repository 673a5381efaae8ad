/* Settings in, steps out. The stored form is sampler_stored.c, the ranges are sampler_check.c. */
#include "sample/sampler.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"
#include "sample/sampler_parts.h"

enum {
    ALWAYS = 0xffffffff,
    LIST_ALIGNMENT = 8,
    ENTRY_BYTES = 8,                     /* of a bias; an id takes half */
    LIST_COUNT_MAX = STEP_COUNT_MAX + 3, /* each may lose LIST_ALIGNMENT to padding */
};

struct sampler_settings sampler_settings_default(void)
{
    return (struct sampler_settings){
        .has_temperature = true,
        .has_top_k = true,
        .has_top_p = true,
        .has_min_p = true,
        .has_repetition_penalty = true,
        .has_presence_penalty = true,
        .has_frequency_penalty = true,
        .has_penalty_range = true,
        .has_penalize_prompt = true,
        .has_max_tokens = true,
        .has_min_tokens = true,
        .has_top_count = true,
        .has_ignore_end = true,
        .temperature = 0.8f,
        .top_k = 40,
        .top_p = 0.95f,
        .min_p = 0.05f,
        .repetition_penalty = 1.0f,
        .penalty_range = 64,
        .max_tokens = REPLY_TOKEN_COUNT_DEFAULT,
    };
}

#define MERGE(field)               \
    if (over->has_##field) {       \
        base->has_##field = true;  \
        base->field = over->field; \
    }

void sampler_settings_merge(struct sampler_settings *base, const struct sampler_settings *over)
{
    MERGE(temperature)
    MERGE(top_k)
    MERGE(top_p)
    MERGE(min_p)
    MERGE(repetition_penalty)
    MERGE(presence_penalty)
    MERGE(frequency_penalty)
    MERGE(penalty_range)
    MERGE(penalize_prompt)
    MERGE(max_tokens)
    MERGE(min_tokens)
    MERGE(top_count)
    MERGE(ignore_end)
    if (over->bias_count > 0) {
        base->bias_count = over->bias_count;
        base->biases = over->biases;
    }
    if (over->stop_count > 0) {
        base->stop_count = over->stop_count;
        base->stops = over->stops;
    }
    if (!byte_rule_is_empty(&over->rule)) {
        base->rule = over->rule;
    }
    if (over->has_distinct) {
        base->has_distinct = true;
        base->distinct_index = over->distinct_index;
        base->distinct_seed = over->distinct_seed;
    }
}

void *sampler_block_take(struct sampler_block *block, size_t count, size_t bytes)
{
    void *taken = block->data + block->used;

    block->used += (count * bytes + LIST_ALIGNMENT - 1) / LIST_ALIGNMENT * LIST_ALIGNMENT;
    CHECK(block->used <= block->size);
    return taken;
}

struct sampler *sampler_allocate(size_t entry_count, size_t stop_count, size_t stop_bytes,
                                 struct sampler_block *block)
{
    struct sampler *sampler = memory_alloc(1, sizeof *sampler);

    if (sampler == NULL) {
        return NULL;
    }
    sampler->version = SAMPLER_VERSION_PLAIN;
    sampler->reference_count = 1;
    block->used = 0;
    block->size = entry_count * ENTRY_BYTES + stop_count * sizeof(struct bytes) + stop_bytes +
                  (size_t)LIST_COUNT_MAX * LIST_ALIGNMENT;
    block->data = memory_alloc(1, block->size);
    sampler->lists = block->data;
    if (block->data == NULL) {
        memory_free(sampler);
        return NULL;
    }
    return sampler;
}

static int compare_biases(const void *left, const void *right)
{
    const struct step_bias *a = left, *b = right;

    return a->token < b->token ? -1 : a->token > b->token;
}

static struct bytes copy_bytes(struct sampler_block *block, struct bytes bytes)
{
    uint8_t *copy = sampler_block_take(block, bytes.size, 1);

    if (bytes.size > 0) {
        memcpy(copy, bytes.data, bytes.size);
    }
    return bytes_of(copy, bytes.size);
}

static void copy_rule(struct byte_rule *rule, struct sampler_block *block)
{
    struct bytes *choices = sampler_block_take(block, rule->choice_count, sizeof *choices);

    for (uint32_t i = 0; i < rule->choice_count; i++) {
        choices[i] = copy_bytes(block, rule->choices[i]);
    }
    rule->choices = choices;
    rule->forced = copy_bytes(block, rule->forced);
}

static void copy_lists(struct sampler *sampler, struct sampler_block *block)
{
    struct sampler_settings *settings = &sampler->settings;
    struct step_bias *biases = sampler_block_take(block, settings->bias_count, sizeof *biases);
    struct bytes *stops = sampler_block_take(block, settings->stop_count, sizeof *stops);

    for (uint32_t i = 0; i < settings->bias_count; i++) {
        biases[i] = settings->biases[i];
        biases[i].value += 0.0f;
    }
    qsort(biases, settings->bias_count, sizeof *biases, compare_biases);
    for (uint32_t i = 0; i < settings->stop_count; i++) {
        const struct bytes stop = settings->stops[i];
        uint8_t *copy = block->data + block->used;
        CHECK(stop.size <= block->size - block->used);
        memcpy(copy, stop.data, stop.size);
        block->used += stop.size;
        stops[i] = bytes_of(copy, stop.size);
    }
    block->used += (LIST_ALIGNMENT - block->used % LIST_ALIGNMENT) % LIST_ALIGNMENT;
    settings->biases = biases;
    settings->stops = stops;
    copy_rule(&settings->rule, block);
}

static struct step *add_step(struct step_list *list, enum step_type type)
{
    struct step *step = &list->steps[list->count++];

    CHECK(list->count <= STEP_COUNT_MAX);
    step->type = (uint32_t)type;
    return step;
}

static void add_distinct(struct sampler *sampler, struct sampler_block *block)
{
    const struct sampler_settings *settings = &sampler->settings;
    uint32_t *seed = sampler_block_take(block, 2, sizeof *seed);
    struct step *step = add_step(&sampler->steps, STEP_DISTINCT);

    seed[0] = (uint32_t)settings->distinct_seed;
    seed[1] = (uint32_t)(settings->distinct_seed >> 32);
    step->count = settings->distinct_index;
    step->ids = seed;
    step->list_count = 2;
}

/* Steps that look at what was generated so far. */
static void add_history_steps(struct sampler *sampler, const uint32_t *end_ids, uint32_t end_count)
{
    const struct sampler_settings *settings = &sampler->settings;
    struct step *step;

    if ((settings->min_tokens > 0 || settings->ignore_end) && end_count > 0) {
        step = add_step(&sampler->steps, STEP_MIN_TOKENS);
        step->count = settings->ignore_end ? ALWAYS : settings->min_tokens;
        step->ids = end_ids;
        step->list_count = end_count;
    }
    if (settings->bias_count > 0) {
        step = add_step(&sampler->steps, STEP_BIAS);
        step->biases = settings->biases;
        step->list_count = settings->bias_count;
    }
    if (settings->repetition_penalty != 1.0f || settings->presence_penalty != 0.0f ||
        settings->frequency_penalty != 0.0f) {
        step = add_step(&sampler->steps, STEP_PENALTIES);
        step->count = settings->penalty_range;
        step->flags = settings->penalize_prompt ? STEP_FLAG_PROMPT : 0;
        step->values[0] = settings->repetition_penalty;
        step->values[1] = settings->frequency_penalty;
        step->values[2] = settings->presence_penalty;
        step->ids = end_ids;
        step->list_count = end_count;
    }
}

static void add_steps(struct sampler *sampler, const uint32_t *end_ids, uint32_t end_count,
                      uint32_t vocabulary_count)
{
    const struct sampler_settings *settings = &sampler->settings;
    const bool greedy = settings->temperature == 0.0f;
    struct step_list *list = &sampler->steps;

    if (!byte_rule_is_empty(&settings->rule)) {
        add_step(list, STEP_MASK);
    }
    add_history_steps(sampler, end_ids, end_count);
    if (!greedy && settings->top_k > 0 && settings->top_k < vocabulary_count) {
        add_step(list, STEP_TOP_K)->count = settings->top_k;
    }
    if (!greedy && settings->top_p < 1.0f) {
        add_step(list, STEP_TOP_P)->values[0] = settings->top_p;
    }
    if (!greedy && settings->min_p > 0.0f) {
        add_step(list, STEP_MIN_P)->values[0] = settings->min_p;
    }
    if (settings->temperature != 1.0f) {
        add_step(list, STEP_TEMPERATURE)->values[0] = settings->temperature;
    }
}

/* Each string is padded in the block. */
static size_t rule_bytes(const struct byte_rule *rule)
{
    size_t bytes = rule->forced.size + LIST_ALIGNMENT;

    for (uint32_t i = 0; i < rule->choice_count; i++) {
        bytes += rule->choices[i].size + LIST_ALIGNMENT;
    }
    return bytes + 4 * (size_t)LIST_ALIGNMENT;
}

enum status sampler_create(const struct sampler_settings *settings, const uint32_t *end_ids,
                           uint32_t end_count, uint32_t vocabulary_count, struct error *error,
                           struct sampler **out)
{
    struct sampler_settings complete = sampler_settings_default();
    struct sampler *sampler;
    struct sampler_block block;
    size_t stop_bytes = 0;
    uint32_t *ends;
    enum status status;

    sampler_settings_merge(&complete, settings);
    TRY(sampler_check_settings(&complete, error));
    for (uint32_t i = 0; i < complete.stop_count; i++) {
        stop_bytes += complete.stops[i].size;
    }
    stop_bytes += rule_bytes(&complete.rule);
    sampler = sampler_allocate((size_t)complete.bias_count + end_count + 1,
                               (size_t)complete.stop_count + complete.rule.choice_count, stop_bytes,
                               &block);
    if (sampler == NULL) {
        return STATUS_MEMORY;
    }
    sampler->settings = complete;
    if (complete.has_distinct || !byte_rule_is_empty(&complete.rule)) {
        sampler->version = SAMPLER_VERSION;
    }
    copy_lists(sampler, &block);
    ends = sampler_block_take(&block, end_count, sizeof *ends);
    for (uint32_t i = 0; i < end_count; i++) {
        ends[i] = end_ids[i];
    }
    status = sampler_check_biases(sampler->settings.biases, complete.bias_count, vocabulary_count,
                                  error);
    if (status == STATUS_OK) {
        add_steps(sampler, ends, end_count, vocabulary_count);
        if (complete.has_distinct) {
            add_distinct(sampler, &block);
        }
        status = sampler_check_steps(&sampler->steps, vocabulary_count, error);
    }
    if (status != STATUS_OK) {
        sampler_release(sampler);
        return status;
    }
    *out = sampler;
    return STATUS_OK;
}

enum status sampler_create_distinct(const struct sampler *from, uint64_t seed, uint32_t index,
                                    const uint32_t *end_ids, uint32_t end_count,
                                    uint32_t vocabulary_count, struct sampler **out)
{
    struct sampler_settings settings = from->settings;

    settings.has_distinct = true;
    settings.distinct_seed = seed;
    settings.distinct_index = index;
    return sampler_create(&settings, end_ids, end_count, vocabulary_count, NULL, out);
}

struct sampler *sampler_acquire(struct sampler *sampler)
{
    sampler->reference_count++;
    return sampler;
}

void sampler_release(struct sampler *sampler)
{
    if (sampler == NULL) {
        return;
    }
    CHECK(sampler->reference_count > 0);
    if (--sampler->reference_count > 0) {
        return;
    }
    memory_free(sampler->lists);
    memory_free(sampler);
}
