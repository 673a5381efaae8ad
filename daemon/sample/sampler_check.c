/* Every refusal names the field as people write it, what it was, and what it may be. */
#include <assert.h>
#include <math.h>
#include <stddef.h>

#include "limits.h"
#include "sample/sampler_parts.h"

static_assert((int)SAMPLER_STEP_COUNT_MAX == (int)STEP_COUNT_MAX, "one bound for both sides");

/* A float of the settings, by its place in them, and what it may be. */
struct range {
    const char *name;
    size_t offset;
    float low, high;
    bool low_open, high_open; /* whether the end itself is outside */
};

#define RANGE(field, low, high, low_open, high_open)                                     \
    {                                                                                    \
#field, offsetof(struct sampler_settings, field), low, high, low_open, high_open \
    }

static const struct range ranges[] = {
    RANGE(temperature, 0, 100, false, false),
    RANGE(top_p, 0, 1, true, false),
    RANGE(min_p, 0, 1, false, true),
    RANGE(repetition_penalty, 0.01f, 100, false, false),
    RANGE(presence_penalty, -10, 10, false, false),
    RANGE(frequency_penalty, -10, 10, false, false),
};

static float *field_of(struct sampler_settings *settings, const struct range *range)
{
    return (float *)((char *)settings + range->offset);
}

static enum status check_ranges(struct sampler_settings *settings, struct error *error)
{
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        const struct range *range = &ranges[i];
        float *value = field_of(settings, range);
        const bool low = range->low_open ? *value > range->low : *value >= range->low;
        const bool high = range->high_open ? *value < range->high : *value <= range->high;

        if (!low || !high) { /* so that NaN fails too */
            return error_set(error, STATUS_BAD_INPUT, "%s is %g, but must be %s %g and %s %g",
                             range->name, (double)*value, range->low_open ? "above" : "at least",
                             (double)range->low, range->high_open ? "below" : "at most",
                             (double)range->high);
        }
        *value += 0.0f; /* -0 becomes 0 */
    }
    return STATUS_OK;
}

/* A logit divided by less may overflow, and then nothing is left to compare. */
static const float temperature_min = 0.0001f;

static bool temperature_is_sound(float temperature)
{
    return temperature == 0.0f || (temperature >= temperature_min && temperature <= 100.0f);
}

static enum status check_counts(const struct sampler_settings *settings, struct error *error)
{
    if (settings->max_tokens == 0) {
        return error_set(error, STATUS_BAD_INPUT, "max_tokens is 0, but must be at least 1");
    }
    if (settings->max_tokens > REPLY_TOKEN_COUNT_MAX) {
        return error_set_limit(error, "REPLY_TOKEN_COUNT_MAX", REPLY_TOKEN_COUNT_MAX,
                               "max_tokens is %u, but must be at most %d", settings->max_tokens,
                               REPLY_TOKEN_COUNT_MAX);
    }
    if (settings->min_tokens > settings->max_tokens) {
        return error_set(error, STATUS_BAD_INPUT,
                         "min_tokens is %u, but must be at most max_tokens, which is %u",
                         settings->min_tokens, settings->max_tokens);
    }
    if (settings->top_count > TOP_COUNT_MAX) {
        return error_set_limit(error, "TOP_COUNT_MAX", TOP_COUNT_MAX,
                               "top_count is %u, but must be at most %d", settings->top_count,
                               TOP_COUNT_MAX);
    }
    if (settings->bias_count > LOGIT_BIAS_COUNT_MAX) {
        return error_set_limit(error, "LOGIT_BIAS_COUNT_MAX", LOGIT_BIAS_COUNT_MAX,
                               "%u logit biases were given, but there may be at most %d",
                               settings->bias_count, LOGIT_BIAS_COUNT_MAX);
    }
    if (settings->stop_count > CUE_COUNT_MAX) {
        return error_set_limit(error, "CUE_COUNT_MAX", CUE_COUNT_MAX,
                               "%u stop strings were given, but there may be at most %d",
                               settings->stop_count, CUE_COUNT_MAX);
    }
    return STATUS_OK;
}

static enum status check_stops(const struct sampler_settings *settings, struct error *error)
{
    for (uint32_t i = 0; i < settings->stop_count; i++) {
        const size_t size = settings->stops[i].size;
        if (size == 0) {
            return error_set(error, STATUS_BAD_INPUT, "stop string %u is empty", i);
        }
        if (size > CUE_BYTES_MAX) {
            return error_set_limit(error, "CUE_BYTES_MAX", CUE_BYTES_MAX,
                                   "stop string %u has %zu bytes, but may have at most %d", i, size,
                                   CUE_BYTES_MAX);
        }
    }
    return STATUS_OK;
}

/* Sorted by token by now. */
enum status sampler_check_biases(const struct step_bias *biases, uint32_t count,
                                 uint32_t vocabulary_count, struct error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        const float value = biases[i].value;
        if (biases[i].token >= vocabulary_count) {
            return error_set(error, STATUS_BAD_INPUT,
                             "logit bias: the model has no token %u, its vocabulary has %u",
                             biases[i].token, vocabulary_count);
        }
        if (i > 0 && biases[i].token <= biases[i - 1].token) {
            return error_set(error, STATUS_BAD_INPUT, "logit bias: token %u appears twice",
                             biases[i].token);
        }
        if (value != -INFINITY && !(value >= -100.0f && value <= 100.0f)) {
            return error_set(error, STATUS_BAD_INPUT,
                             "logit bias of token %u is %g, but must be from -100 to 100, or "
                             "-infinity",
                             biases[i].token, (double)value);
        }
    }
    return STATUS_OK;
}

/* At least one token must stay possible at every step. */
static enum status check_choice(const struct step_list *steps, uint32_t vocabulary_count,
                                struct error *error)
{
    uint64_t removed = 0;

    for (uint32_t i = 0; i < steps->count; i++) {
        const struct step *step = &steps->steps[i];
        if (step->type == STEP_MIN_TOKENS) {
            removed += step->list_count;
        }
        for (uint32_t k = 0; step->type == STEP_BIAS && k < step->list_count; k++) {
            removed += step->biases[k].value == -INFINITY;
        }
    }
    if (removed >= vocabulary_count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "logit bias, min_tokens and ignore_end together leave no token of the "
                         "vocabulary's %u",
                         vocabulary_count);
    }
    return STATUS_OK;
}

static enum status check_prescribed(struct bytes bytes, const char *what, struct error *error)
{
    if (bytes.size <= CHOICE_BYTES_MAX) {
        return STATUS_OK;
    }
    return error_set_limit(error, "CHOICE_BYTES_MAX", CHOICE_BYTES_MAX,
                           "%s has %zu bytes, but may have at most %d", what, bytes.size,
                           CHOICE_BYTES_MAX);
}

static enum status check_rule(const struct byte_rule *rule, struct error *error)
{
    if (rule->choice_count > CHOICE_COUNT_MAX) {
        return error_set_limit(error, "CHOICE_COUNT_MAX", CHOICE_COUNT_MAX,
                               "%u choices were given, but there may be at most %d",
                               rule->choice_count, CHOICE_COUNT_MAX);
    }
    TRY(check_prescribed(rule->forced, "what is prescribed in front of a reply", error));
    for (uint32_t i = 0; i < rule->choice_count; i++) {
        if (rule->choices[i].size == 0) {
            return error_set(error, STATUS_BAD_INPUT, "choice %u is empty", i);
        }
        TRY(check_prescribed(rule->choices[i], "a choice", error));
    }
    return STATUS_OK;
}

enum status sampler_check_settings(struct sampler_settings *settings, struct error *error)
{
    TRY(check_ranges(settings, error));
    if (!temperature_is_sound(settings->temperature)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "temperature is %g, but must be 0 (greedy) or at least %g",
                         (double)settings->temperature, (double)temperature_min);
    }
    TRY(check_counts(settings, error));
    TRY(check_rule(&settings->rule, error));
    return check_stops(settings, error);
}

static bool is_within(float value, float low, float high)
{
    return value >= low && value <= high;
}

static bool step_is_sound(const struct step *step)
{
    const float *values = step->values;

    switch (step->type) {
    case STEP_MIN_TOKENS:
    case STEP_BIAS:
    case STEP_MASK:
        return true;
    case STEP_DISTINCT:
        return step->list_count == 2;
    case STEP_PENALTIES:
        return is_within(values[0], 0.01f, 100.0f) && is_within(values[1], -10.0f, 10.0f) &&
               is_within(values[2], -10.0f, 10.0f) && (step->flags & ~STEP_FLAG_PROMPT) == 0;
    case STEP_TOP_K:
        return step->count > 0;
    case STEP_TOP_P:
        return values[0] > 0.0f && values[0] <= 1.0f;
    case STEP_MIN_P:
        return values[0] > 0.0f && values[0] < 1.0f;
    case STEP_TEMPERATURE:
        return temperature_is_sound(values[0]);
    default:
        return false;
    }
}

enum status sampler_check_steps(const struct step_list *steps, uint32_t vocabulary_count,
                                struct error *error)
{
    for (uint32_t i = 0; i < steps->count; i++) {
        const struct step *step = &steps->steps[i];

        if (!step_is_sound(step)) {
            return error_set(error, STATUS_BAD_INPUT, "sampler step %u (type %u) is malformed", i,
                             step->type);
        }
        if (step->type == STEP_BIAS) {
            TRY(sampler_check_biases(step->biases, step->list_count, vocabulary_count, error));
            continue;
        }
        for (uint32_t k = 0; step->type != STEP_DISTINCT && k < step->list_count; k++) {
            if (step->ids[k] >= vocabulary_count) {
                return error_set(error, STATUS_BAD_INPUT,
                                 "sampler step %u names token %u of a vocabulary of %u", i,
                                 step->ids[k], vocabulary_count);
            }
        }
    }
    return check_choice(steps, vocabulary_count, error);
}
