#include "session/card_settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "limits.h"

static const char where[] = "extensions.personad";

static enum status out_of_memory(struct error *error)
{
    return error_set(error, STATUS_MEMORY, "out of memory while a card was read");
}

static enum status wrong_type(struct error *error, const char *key, const char *wanted)
{
    return error_set(error, STATUS_BAD_INPUT, "the card's field \"%s\" must be %s", key, wanted);
}

static bool is_absent(const json_t *value)
{
    return value == NULL || json_is_null(value);
}

static enum status copy_text(struct card *card, const json_t *value, struct error *error,
                             struct bytes *out)
{
    const size_t size = json_string_length(value);
    const void *copy = arena_copy(&card->arena, json_string_value(value), size);

    if (copy == NULL) {
        return out_of_memory(error);
    }
    *out = bytes_of(copy, size);
    return STATUS_OK;
}

enum status card_read_text(struct card *card, const json_t *object, const char *key,
                           struct error *error, struct bytes *out)
{
    const json_t *value = json_object_get(object, key);

    if (is_absent(value)) {
        *out = bytes_of("", 0);
        return STATUS_OK;
    }
    if (!json_is_string(value)) {
        return wrong_type(error, key, "a string");
    }
    return copy_text(card, value, error, out);
}

enum status card_read_texts(struct card *card, const json_t *object, const char *key,
                            uint32_t count_max, const char *limit_name, struct error *error,
                            const struct bytes **out, uint32_t *count)
{
    const json_t *value = json_object_get(object, key);
    struct bytes *texts;
    size_t size;

    if (is_absent(value)) {
        *out = NULL;
        *count = 0;
        return STATUS_OK;
    }
    if (!json_is_array(value)) {
        return wrong_type(error, key, "an array of strings");
    }
    size = json_array_size(value);
    if (size > count_max) {
        return error_set_limit(error, limit_name, count_max,
                               "the card's field \"%s\" has %zu entries, at most %u are taken", key,
                               size, count_max);
    }
    texts = arena_alloc(&card->arena, size, sizeof(*texts));
    if (texts == NULL) {
        return out_of_memory(error);
    }
    for (size_t i = 0; i < size; i++) {
        const json_t *entry = json_array_get(value, i);

        if (!json_is_string(entry)) {
            return wrong_type(error, key, "an array of strings");
        }
        TRY(copy_text(card, entry, error, &texts[i]));
    }
    *out = texts;
    *count = (uint32_t)size;
    return STATUS_OK;
}

enum status card_check_name(const char *key, struct bytes name, struct error *error)
{
    if (name.size > PERSONA_NAME_BYTES_MAX) {
        return error_set_limit(error, "PERSONA_NAME_BYTES_MAX", PERSONA_NAME_BYTES_MAX,
                               "the field \"%s\" has %zu bytes, at most %u are taken", key,
                               name.size, (unsigned)PERSONA_NAME_BYTES_MAX);
    }
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] < 0x20 || name.data[i] == 0x7f) {
            return error_set(error, STATUS_BAD_INPUT,
                             "the field \"%s\" holds a control character or a line break", key);
        }
    }
    if (name.size > 0 && (name.data[0] == ' ' || name.data[name.size - 1] == ' ')) {
        return error_set(error, STATUS_BAD_INPUT, "the field \"%s\" begins or ends with a blank",
                         key);
    }
    return STATUS_OK;
}

/* ---- values of the sampler ---- */

static enum status read_float(const json_t *value, const char *key, struct error *error, bool *has,
                              float *out)
{
    if (!json_is_number(value)) {
        return wrong_type(error, key, "a number");
    }
    *has = true;
    *out = (float)json_number_value(value);
    return STATUS_OK;
}

static enum status read_count(const json_t *value, const char *key, struct error *error, bool *has,
                              uint32_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > UINT32_MAX) {
        return wrong_type(error, key, "a whole number from 0 to 4294967295");
    }
    *has = true;
    *out = (uint32_t)json_integer_value(value);
    return STATUS_OK;
}

static enum status read_flag(const json_t *value, const char *key, struct error *error, bool *has,
                             bool *out)
{
    CHECK(has != NULL && out != NULL);
    if (!json_is_boolean(value)) {
        return wrong_type(error, key, "true or false");
    }
    *has = true;
    *out = json_is_true(value);
    return STATUS_OK;
}

static int compare_biases(const void *a, const void *b)
{
    const struct step_bias *left = a;
    const struct step_bias *right = b;

    return left->token < right->token ? -1 : left->token > right->token;
}

static enum status read_biases(struct card *card, const json_t *value, struct error *error)
{
    struct step_bias *biases;
    uint32_t count = 0;
    const char *key;
    const json_t *entry;

    if (!json_is_object(value)) {
        return wrong_type(error, "bias", "an object of token id: number");
    }
    if (json_object_size(value) > LOGIT_BIAS_COUNT_MAX) {
        return error_set_limit(error, "LOGIT_BIAS_COUNT_MAX", LOGIT_BIAS_COUNT_MAX,
                               "the card's field \"bias\" has %zu entries, at most %u are taken",
                               json_object_size(value), (unsigned)LOGIT_BIAS_COUNT_MAX);
    }
    biases = arena_alloc(&card->arena, json_object_size(value), sizeof(*biases));
    if (biases == NULL) {
        return out_of_memory(error);
    }
    json_object_foreach((json_t *)value, key, entry)
    {
        char *end = NULL;
        unsigned long long token;

        errno = 0;
        token = strtoull(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || errno != 0 || token >= UINT32_MAX ||
            !json_is_number(entry)) {
            return wrong_type(error, "bias", "an object of token id: number");
        }
        biases[count].token = (uint32_t)token;
        biases[count++].value = (float)json_number_value(entry);
    }
    qsort(biases, count, sizeof(*biases), compare_biases);
    for (uint32_t i = 1; i < count; i++) {
        if (biases[i].token == biases[i - 1].token) {
            return wrong_type(error, "bias", "an object in which no token id is written twice");
        }
    }
    card->sampler.biases = biases;
    card->sampler.bias_count = count;
    return STATUS_OK;
}

static enum status read_sampler_value(struct card *card, const json_t *object, const char *key,
                                      const json_t *value, struct error *error)
{
    struct sampler_settings *s = &card->sampler;
    const struct {
        const char *key;
        bool *has;
        float *number;
        uint32_t *count;
        bool *flag;
    } fields[] = {
        {"temperature", &s->has_temperature, &s->temperature, NULL, NULL},
        {"top_k", &s->has_top_k, NULL, &s->top_k, NULL},
        {"top_p", &s->has_top_p, &s->top_p, NULL, NULL},
        {"min_p", &s->has_min_p, &s->min_p, NULL, NULL},
        {"repetition_penalty", &s->has_repetition_penalty, &s->repetition_penalty, NULL, NULL},
        {"presence_penalty", &s->has_presence_penalty, &s->presence_penalty, NULL, NULL},
        {"frequency_penalty", &s->has_frequency_penalty, &s->frequency_penalty, NULL, NULL},
        {"penalty_range", &s->has_penalty_range, NULL, &s->penalty_range, NULL},
        {"penalize_prompt", &s->has_penalize_prompt, NULL, NULL, &s->penalize_prompt},
        {"max_tokens", &s->has_max_tokens, NULL, &s->max_tokens, NULL},
        {"min_tokens", &s->has_min_tokens, NULL, &s->min_tokens, NULL},
        {"top_count", &s->has_top_count, NULL, &s->top_count, NULL},
        {"ignore_end", &s->has_ignore_end, NULL, NULL, &s->ignore_end},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcmp(fields[i].key, key) != 0) {
            continue;
        }
        if (fields[i].number != NULL) {
            return read_float(value, key, error, fields[i].has, fields[i].number);
        }
        if (fields[i].count != NULL) {
            return read_count(value, key, error, fields[i].has, fields[i].count);
        }
        return read_flag(value, key, error, fields[i].has, fields[i].flag);
    }
    if (strcmp(key, "stop") == 0) {
        return card_read_texts(card, object, key, CUE_COUNT_MAX, "CUE_COUNT_MAX", error, &s->stops,
                               &s->stop_count);
    }
    if (strcmp(key, "bias") == 0) {
        return read_biases(card, value, error);
    }
    return error_set(error, STATUS_BAD_INPUT, "the card's field \"%s.sampler.%s\" is not known",
                     where, key);
}

static enum status read_sampler(struct card *card, const json_t *object, struct error *error)
{
    const char *key;
    const json_t *value;

    if (!json_is_object(object)) {
        return wrong_type(error, "extensions.personad.sampler", "an object");
    }
    json_object_foreach((json_t *)object, key, value)
    {
        if (!json_is_null(value)) {
            TRY(read_sampler_value(card, object, key, value, error));
        }
    }
    return STATUS_OK;
}

/* ---- extensions.personad ---- */

static enum status read_play(struct card *card, const json_t *value, struct error *error)
{
    const enum card_play plays[] = {CARD_PLAY_CHAT, CARD_PLAY_TRANSCRIPT, CARD_PLAY_PLAIN};

    for (size_t i = 0; i < 3 && json_is_string(value); i++) {
        if (strcmp(json_string_value(value), card_play_name(plays[i])) == 0) {
            card->play = plays[i];
            return STATUS_OK;
        }
    }
    return wrong_type(error, "extensions.personad.play", "\"chat\", \"transcript\" or \"plain\"");
}

static enum status read_variables(struct card *card, const json_t *value, struct error *error)
{
    struct render_variable *variables;
    uint32_t count = 0;
    const char *key;
    const json_t *entry;

    if (!json_is_object(value)) {
        return wrong_type(error, "extensions.personad.variables", "an object of name: text");
    }
    if (json_object_size(value) > PERSONA_VARIABLE_COUNT_MAX) {
        return error_set_limit(error, "PERSONA_VARIABLE_COUNT_MAX", PERSONA_VARIABLE_COUNT_MAX,
                               "the card declares %zu variables, at most %u are taken",
                               json_object_size(value), (unsigned)PERSONA_VARIABLE_COUNT_MAX);
    }
    variables = arena_alloc(&card->arena, json_object_size(value), sizeof(*variables));
    if (variables == NULL) {
        return out_of_memory(error);
    }
    json_object_foreach((json_t *)value, key, entry)
    {
        const void *name = arena_copy(&card->arena, key, strlen(key));

        if (name == NULL) {
            return out_of_memory(error);
        }
        variables[count].name = bytes_of(name, strlen(key));
        TRY(card_check_name("extensions.personad.variables", variables[count].name, error));
        if (!json_is_string(entry) || variables[count].name.size == 0) {
            return wrong_type(error, "extensions.personad.variables", "an object of name: text");
        }
        TRY(copy_text(card, entry, error, &variables[count].value));
        count++;
    }
    card->variables = variables;
    card->variable_count = count;
    return STATUS_OK;
}

static enum status read_setting(struct card *card, const json_t *ours, const char *key,
                                const json_t *value, struct error *error)
{
    if (strcmp(key, "play") == 0) {
        return read_play(card, value, error);
    }
    if (strcmp(key, "user") == 0) {
        TRY(card_read_text(card, ours, key, error, &card->user));
        return card_check_name("extensions.personad.user", card->user, error);
    }
    if (strcmp(key, "public") == 0) {
        return read_flag(value, key, error, &card->has_public, &card->is_public);
    }
    if (strcmp(key, "variables") == 0) {
        return read_variables(card, value, error);
    }
    if (strcmp(key, "cues") == 0) {
        return card_read_texts(card, ours, key, CUE_COUNT_MAX, "CUE_COUNT_MAX", error, &card->cues,
                               &card->cue_count);
    }
    if (strcmp(key, "sampler") == 0) {
        return read_sampler(card, value, error);
    }
    return error_set(error, STATUS_BAD_INPUT, "the card's field \"%s.%s\" is not known", where,
                     key);
}

static enum status check_cues(const struct card *card, struct error *error)
{
    for (uint32_t i = 0; i < card->cue_count + card->sampler.stop_count; i++) {
        const bool is_cue = i < card->cue_count;
        const struct bytes text = is_cue ? card->cues[i] : card->sampler.stops[i - card->cue_count];

        if (text.size == 0 || text.size > CUE_BYTES_MAX) {
            return error_set(error, STATUS_BAD_INPUT,
                             "each entry of the card's field \"%s.%s\" has 1 to %u bytes", where,
                             is_cue ? "cues" : "sampler.stop", (unsigned)CUE_BYTES_MAX);
        }
    }
    return STATUS_OK;
}

enum status card_read_settings(struct card *card, const json_t *ours, struct error *error)
{
    const char *key;
    const json_t *value;

    if (!json_is_object(ours)) {
        return wrong_type(error, where, "an object");
    }
    json_object_foreach((json_t *)ours, key, value)
    {
        if (!json_is_null(value)) {
            TRY(read_setting(card, ours, key, value, error));
        }
    }
    return check_cues(card, error);
}
