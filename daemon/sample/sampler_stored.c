/* The stored form, little endian, versions 1 and 2:
 *
 *   u32 version
 *   f32 temperature  u32 top_k  f32 top_p  f32 min_p
 *   f32 repetition, presence, frequency penalty  u32 penalty range
 *   u32 max_tokens  u32 min_tokens  u32 top_count  u32 flags (1 penalize_prompt, 2 ignore_end)
 *   u32 biases, each u32 token and f32 value
 *   u32 stops, each u32 bytes and the bytes
 *   version 2 alone: u32 bytes of what is prescribed in front, and they; u32 choices, each u32
 * bytes and the bytes; u32 1 if distinct, u32 its index, u64 its group's seed u32 steps, each u32
 * type, u32 count, u32 flags, 3 x f32 value, u32 entries of its list, and the list: of STEP_BIAS
 * u32 token and f32 value, of others u32 id
 *
 * Version 2 is written only where it has something to say.
 *
 * Zeros are stored positive, biases sorted by token, so that equal settings have equal bytes. */
#include <string.h>

#include "base/check.h"
#include "sample/sampler_parts.h"

enum {
    FLAG_PENALIZE_PROMPT = 1,
    FLAG_IGNORE_END = 2,
    BIAS_BYTES = 8, /* stored */
};

static enum status put_u32(struct buffer *out, uint32_t value)
{
    uint8_t stored[4];

    bytes_store_u32(stored, value);
    return buffer_append(out, bytes_of(stored, sizeof stored));
}

static enum status put_f32(struct buffer *out, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return put_u32(out, bits);
}

static enum status put_biases(struct buffer *out, const struct step_bias *biases, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        TRY(put_u32(out, biases[i].token));
        TRY(put_f32(out, biases[i].value));
    }
    return STATUS_OK;
}

static enum status put_settings(struct buffer *out, const struct sampler_settings *settings)
{
    TRY(put_f32(out, settings->temperature));
    TRY(put_u32(out, settings->top_k));
    TRY(put_f32(out, settings->top_p));
    TRY(put_f32(out, settings->min_p));
    TRY(put_f32(out, settings->repetition_penalty));
    TRY(put_f32(out, settings->presence_penalty));
    TRY(put_f32(out, settings->frequency_penalty));
    TRY(put_u32(out, settings->penalty_range));
    TRY(put_u32(out, settings->max_tokens));
    TRY(put_u32(out, settings->min_tokens));
    TRY(put_u32(out, settings->top_count));
    TRY(put_u32(out, (settings->penalize_prompt ? FLAG_PENALIZE_PROMPT : 0) |
                         (settings->ignore_end ? FLAG_IGNORE_END : 0)));
    TRY(put_u32(out, settings->bias_count));
    TRY(put_biases(out, settings->biases, settings->bias_count));
    TRY(put_u32(out, settings->stop_count));
    for (uint32_t i = 0; i < settings->stop_count; i++) {
        TRY(put_u32(out, (uint32_t)settings->stops[i].size));
        TRY(buffer_append(out, settings->stops[i]));
    }
    return STATUS_OK;
}

static enum status put_bytes(struct buffer *out, struct bytes bytes)
{
    TRY(put_u32(out, (uint32_t)bytes.size));
    return buffer_append(out, bytes);
}

static enum status put_extras(struct buffer *out, const struct sampler_settings *settings)
{
    TRY(put_bytes(out, settings->rule.forced));
    TRY(put_u32(out, settings->rule.choice_count));
    for (uint32_t i = 0; i < settings->rule.choice_count; i++) {
        TRY(put_bytes(out, settings->rule.choices[i]));
    }
    TRY(put_u32(out, settings->has_distinct));
    TRY(put_u32(out, settings->distinct_index));
    TRY(put_u32(out, (uint32_t)settings->distinct_seed));
    return put_u32(out, (uint32_t)(settings->distinct_seed >> 32));
}

static enum status put_step(struct buffer *out, const struct step *step)
{
    TRY(put_u32(out, step->type));
    TRY(put_u32(out, step->count));
    TRY(put_u32(out, step->flags));
    for (uint32_t i = 0; i < 3; i++) {
        TRY(put_f32(out, step->values[i]));
    }
    TRY(put_u32(out, step->list_count));
    if (step->type == STEP_BIAS) {
        return put_biases(out, step->biases, step->list_count);
    }
    for (uint32_t i = 0; i < step->list_count; i++) {
        TRY(put_u32(out, step->ids[i]));
    }
    return STATUS_OK;
}

static enum status put_sampler(struct buffer *out, const struct sampler *sampler)
{
    TRY(put_u32(out, sampler->version));
    TRY(put_settings(out, &sampler->settings));
    if (sampler->version == SAMPLER_VERSION) {
        TRY(put_extras(out, &sampler->settings));
    }
    TRY(put_u32(out, sampler->steps.count));
    for (uint32_t i = 0; i < sampler->steps.count; i++) {
        TRY(put_step(out, &sampler->steps.steps[i]));
    }
    return STATUS_OK;
}

enum status sampler_format(const struct sampler *sampler, struct buffer *out)
{
    const size_t size = out->size;
    const enum status status = put_sampler(out, sampler);

    if (status != STATUS_OK) {
        out->size = size; /* nothing or all */
    }
    return status;
}

/* Reads past the end give zeros and are reported once, at the end. */
struct reader {
    struct bytes rest;
    bool failed;
};

static uint32_t take_u32(struct reader *reader)
{
    uint32_t value;

    if (reader->rest.size < 4) {
        reader->failed = true;
        return 0;
    }
    value = bytes_load_u32(reader->rest.data);
    reader->rest = bytes_of(reader->rest.data + 4, reader->rest.size - 4);
    return value;
}

static float take_f32(struct reader *reader)
{
    const uint32_t bits = take_u32(reader);
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A count of entries that the rest can hold, each of at least `bytes`. */
static uint32_t take_count(struct reader *reader, size_t bytes)
{
    const uint32_t count = take_u32(reader);

    if (count > reader->rest.size / bytes) {
        reader->failed = true;
        return 0;
    }
    return count;
}

static struct step_bias *take_biases(struct reader *reader, struct sampler_block *block,
                                     uint32_t count)
{
    struct step_bias *biases = sampler_block_take(block, count, sizeof *biases);

    for (uint32_t i = 0; i < count; i++) {
        biases[i].token = take_u32(reader);
        biases[i].value = take_f32(reader);
    }
    return biases;
}

static void take_settings(struct reader *reader, struct sampler_block *block,
                          struct sampler_settings *settings)
{
    struct bytes *stops;
    uint32_t flags;

    *settings = sampler_settings_default();
    settings->temperature = take_f32(reader);
    settings->top_k = take_u32(reader);
    settings->top_p = take_f32(reader);
    settings->min_p = take_f32(reader);
    settings->repetition_penalty = take_f32(reader);
    settings->presence_penalty = take_f32(reader);
    settings->frequency_penalty = take_f32(reader);
    settings->penalty_range = take_u32(reader);
    settings->max_tokens = take_u32(reader);
    settings->min_tokens = take_u32(reader);
    settings->top_count = take_u32(reader);
    flags = take_u32(reader);
    settings->penalize_prompt = (flags & FLAG_PENALIZE_PROMPT) != 0;
    settings->ignore_end = (flags & FLAG_IGNORE_END) != 0;
    reader->failed |= flags > (FLAG_PENALIZE_PROMPT | FLAG_IGNORE_END);
    settings->bias_count = take_count(reader, BIAS_BYTES);
    settings->biases = take_biases(reader, block, settings->bias_count);
    settings->stop_count = take_count(reader, 4);
    stops = sampler_block_take(block, settings->stop_count, sizeof *stops);
    for (uint32_t i = 0; i < settings->stop_count; i++) {
        const uint32_t size = take_count(reader, 1);
        uint8_t *copy = sampler_block_take(block, size, 1);
        memcpy(copy, reader->rest.data, size);
        reader->rest = bytes_of(reader->rest.data + size, reader->rest.size - size);
        stops[i] = bytes_of(copy, size);
    }
    settings->stops = stops;
}

static struct bytes take_bytes(struct reader *reader, struct sampler_block *block)
{
    const uint32_t size = take_count(reader, 1);
    uint8_t *copy = sampler_block_take(block, size, 1);

    if (size > 0) {
        memcpy(copy, reader->rest.data, size);
    }
    reader->rest = bytes_of(reader->rest.data + size, reader->rest.size - size);
    return bytes_of(copy, size);
}

static void take_extras(struct reader *reader, struct sampler_block *block,
                        struct sampler_settings *settings)
{
    struct bytes *choices;
    uint32_t distinct;

    settings->rule.forced = take_bytes(reader, block);
    settings->rule.choice_count = take_count(reader, 4);
    choices = sampler_block_take(block, settings->rule.choice_count, sizeof *choices);
    for (uint32_t i = 0; i < settings->rule.choice_count; i++) {
        choices[i] = take_bytes(reader, block);
    }
    settings->rule.choices = choices;
    distinct = take_u32(reader);
    reader->failed |= distinct > 1;
    settings->has_distinct = distinct == 1;
    settings->distinct_index = take_u32(reader);
    settings->distinct_seed = take_u32(reader);
    settings->distinct_seed |= (uint64_t)take_u32(reader) << 32;
}

static void take_step(struct reader *reader, struct sampler_block *block, struct step *step)
{
    uint32_t *ids;

    step->type = take_u32(reader);
    step->count = take_u32(reader);
    step->flags = take_u32(reader);
    for (uint32_t i = 0; i < 3; i++) {
        step->values[i] = take_f32(reader);
    }
    step->list_count = take_count(reader, step->type == STEP_BIAS ? BIAS_BYTES : 4);
    if (step->type == STEP_BIAS) {
        step->biases = take_biases(reader, block, step->list_count);
        return;
    }
    ids = sampler_block_take(block, step->list_count, sizeof *ids);
    for (uint32_t i = 0; i < step->list_count; i++) {
        ids[i] = take_u32(reader);
    }
    step->ids = step->list_count > 0 ? ids : NULL;
}

static void take_steps(struct reader *reader, struct sampler_block *block, struct step_list *steps)
{
    steps->count = take_u32(reader);
    if (steps->count > STEP_COUNT_MAX) {
        reader->failed = true;
        steps->count = 0;
    }
    for (uint32_t i = 0; i < steps->count; i++) {
        take_step(reader, block, &steps->steps[i]);
    }
}

static enum status check_parsed(struct sampler *sampler, uint32_t vocabulary_count,
                                struct error *error)
{
    struct sampler_settings *settings = &sampler->settings;

    TRY(sampler_check_settings(settings, error));
    TRY(sampler_check_biases(settings->biases, settings->bias_count, vocabulary_count, error));
    return sampler_check_steps(&sampler->steps, vocabulary_count, error);
}

enum status sampler_parse(struct bytes stored, uint32_t vocabulary_count, struct error *error,
                          struct sampler **out)
{
    struct reader reader = {stored, false};
    const uint32_t version = take_u32(&reader);
    struct sampler_block block;
    struct sampler *sampler;
    enum status status;

    if (!reader.failed && (version < SAMPLER_VERSION_PLAIN || version > SAMPLER_VERSION)) {
        return error_set(
            error, STATUS_UNSUPPORTED,
            "sampler steps of version %u are stored, this program knows versions up to %d", version,
            SAMPLER_VERSION);
    }
    /* No stored byte becomes more than eight: a stop's view is the largest, 24 for 4. */
    sampler = sampler_allocate(stored.size, 0, 0, &block);
    if (sampler == NULL) {
        return STATUS_MEMORY;
    }
    sampler->version = version;
    take_settings(&reader, &block, &sampler->settings);
    if (version == SAMPLER_VERSION) {
        take_extras(&reader, &block, &sampler->settings);
    }
    take_steps(&reader, &block, &sampler->steps);
    status = reader.failed || reader.rest.size > 0
                 ? error_set(error, STATUS_BAD_INPUT, "stored sampler steps are malformed")
                 : check_parsed(sampler, vocabulary_count, error);
    if (status != STATUS_OK) {
        sampler_release(sampler);
        return status;
    }
    *out = sampler;
    return STATUS_OK;
}
