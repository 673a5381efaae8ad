#include "model/hf_ids.h"

#include <stdio.h>

#include "base/memory.h"
#include "limits.h"

uint32_t hf_ids_find(const struct vocabulary *vocabulary, struct bytes name)
{
    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        if (bytes_equal(vocabulary->tokens[id], name)) {
            return id;
        }
    }
    return TOKEN_NONE;
}

/* A token named by tokenizer_config.json: a text, or an object around one. */
static enum status named_token(const struct hf_object *config, const char *key,
                               const struct vocabulary *vocabulary, struct error *error,
                               uint32_t *out)
{
    const json_t *value = hf_json_field(config, key);

    if (json_is_object(value)) {
        value = json_object_get(value, "content");
    }
    *out = TOKEN_NONE;
    if (value == NULL) {
        return STATUS_OK;
    }
    if (!json_is_string(value)) {
        return hf_json_wrong(config, key, STATUS_BAD_INPUT, error, "must be a token");
    }
    *out = hf_ids_find(vocabulary, hf_json_bytes(value));
    if (*out == TOKEN_NONE) {
        return hf_json_wrong(config, key, STATUS_BAD_INPUT, error, "is no token of tokenizer.json");
    }
    return STATUS_OK;
}

static enum status check_id(const struct hf_object *config, const char *key, const json_t *value,
                            uint32_t token_count, struct error *error, uint32_t *out)
{
    const json_int_t id = json_integer_value(value);

    if (!json_is_integer(value) || id < 0 || id >= token_count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s/%s: key '%s' must be an id below %u, or a list of such",
                         config->folder, config->file, key, token_count);
    }
    *out = (uint32_t)id;
    return STATUS_OK;
}

static enum status add_end(struct token_table *table, uint32_t id, const struct hf_object *config,
                           struct error *error)
{
    struct vocabulary *vocabulary = &table->vocabulary;

    if (vocabulary->eos == TOKEN_NONE) {
        vocabulary->eos = id;
    }
    for (uint32_t i = 0; i < vocabulary->end_count; i++) {
        if (vocabulary->ends[i] == id) {
            return STATUS_OK;
        }
    }
    if (vocabulary->end_count == VOCABULARY_END_COUNT_MAX) {
        return error_set_limit(error, "VOCABULARY_END_COUNT_MAX", VOCABULARY_END_COUNT_MAX,
                               "%s/%s: names too many tokens that end a text", config->folder,
                               config->file);
    }
    vocabulary->ends[vocabulary->end_count++] = id;
    return STATUS_OK;
}

/* config.json and generation_config.json: a number or a list. */
static enum status read_ends(const struct hf_object *config, struct error *error,
                             struct token_table *table)
{
    const char *key = "eos_token_id";
    const uint32_t count = table->vocabulary.token_count;
    const json_t *value = hf_json_field(config, key);
    uint32_t id = 0;

    if (value == NULL) {
        return STATUS_OK;
    }
    if (!json_is_array(value)) {
        TRY(check_id(config, key, value, count, error, &id));
        return add_end(table, id, config, error);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        TRY(check_id(config, key, json_array_get(value, i), count, error, &id));
        TRY(add_end(table, id, config, error));
    }
    return STATUS_OK;
}

static enum status read_config(const struct hf_object *config, struct error *error,
                               struct token_table *table)
{
    const json_t *bos = hf_json_field(config, "bos_token_id");
    struct vocabulary *vocabulary = &table->vocabulary;

    if (vocabulary->bos == TOKEN_NONE && bos != NULL) {
        TRY(check_id(config, "bos_token_id", bos, vocabulary->token_count, error,
                     &vocabulary->bos));
    }
    return read_ends(config, error, table);
}

/* The first item of the template that a post-processor puts around one text. */
static const json_t *first_special(const json_t *processor)
{
    const json_t *single = json_object_get(processor, "single");
    const json_t *special = json_object_get(json_array_get(single, 0), "SpecialToken");

    return json_object_get(special, "id");
}

/* Whether a text begins with bos: what the post-processor does, unless the configuration says. */
static enum status read_add_bos(const struct hf_object *tokenizer, const struct hf_object *config,
                                struct error *error, struct vocabulary *vocabulary)
{
    const json_t *post = hf_json_field(tokenizer, "post_processor");
    const json_t *list = json_object_get(post, "processors");
    bool adds = false;

    for (size_t i = 0; vocabulary->bos != TOKEN_NONE && i <= json_array_size(list); i++) {
        const json_t *first = first_special(i == 0 ? post : json_array_get(list, i - 1));
        adds = adds || (json_is_string(first) &&
                        bytes_equal(hf_json_bytes(first), vocabulary->tokens[vocabulary->bos]));
    }
    TRY(hf_json_bool(config, "add_bos_token", adds, error, &adds));
    vocabulary->add_bos = adds && vocabulary->bos != TOKEN_NONE;
    return STATUS_OK;
}

static enum status keep_template(const struct hf_object *config, struct bytes text,
                                 struct error *error, struct token_table *table)
{
    const void *copy = arena_copy(&table->texts, text.data, text.size);

    if (copy == NULL) {
        return error_set(error, STATUS_MEMORY, "%s/%s: out of memory", config->folder,
                         config->file);
    }
    table->vocabulary.chat_template = bytes_of(copy, text.size);
    return STATUS_OK;
}

/* A file of its own, one text, or a list of named ones. */
static enum status read_template(const struct hf_files *files, const struct hf_object *config,
                                 struct error *error, struct token_table *table)
{
    const char *file = "chat_template.jinja";
    const json_t *value = hf_json_field(config, "chat_template");
    struct bytes text = bytes_of_text("");

    if (hf_files_has(files, file)) {
        TRY(hf_files_read(files, file, error, &text));
        const enum status status = keep_template(config, text, error, table);
        memory_free((void *)(uintptr_t)text.data);
        return status;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *named = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(named, "name"));
        if (name != NULL && strcmp(name, "default") == 0) {
            value = json_object_get(named, "template");
            break;
        }
    }
    if (json_is_string(value)) {
        text = hf_json_bytes(value);
    }
    return keep_template(config, text, error, table);
}

/* The root of a file that may be absent; *json is the caller's to release. */
static enum status load_optional(const struct hf_files *files, const char *name,
                                 struct error *error, json_t **json, struct hf_object *out)
{
    *out = (struct hf_object){NULL, files->folder, name, ""};
    if (hf_files_has(files, name)) {
        TRY(hf_json_load(files, name, error, json));
        out->json = *json;
    }
    return STATUS_OK;
}

static enum status read_tokenizer_config(const struct hf_files *files,
                                         const struct hf_object *config, struct error *error,
                                         struct token_table *table)
{
    struct vocabulary *vocabulary = &table->vocabulary;

    TRY(named_token(config, "bos_token", vocabulary, error, &vocabulary->bos));
    TRY(named_token(config, "eos_token", vocabulary, error, &vocabulary->eos));
    TRY(named_token(config, "pad_token", vocabulary, error, &vocabulary->pad));
    if (vocabulary->eos != TOKEN_NONE) {
        TRY(add_end(table, vocabulary->eos, config, error));
    }
    return read_template(files, config, error, table);
}

enum status hf_ids_read(const struct hf_files *files, const struct hf_object *tokenizer,
                        struct error *error, struct token_table *table)
{
    static const char *const names[] = {"config.json", "generation_config.json"};
    struct vocabulary *vocabulary = &table->vocabulary;
    struct hf_object config = {.json = NULL};
    struct hf_object other = {.json = NULL};
    json_t *config_json = NULL;
    json_t *other_json = NULL;

    vocabulary->eot = TOKEN_NONE;
    vocabulary->eom = TOKEN_NONE;
    enum status status =
        load_optional(files, "tokenizer_config.json", error, &config_json, &config);
    if (status == STATUS_OK) {
        status = read_tokenizer_config(files, &config, error, table);
    }
    for (size_t i = 0; status == STATUS_OK && i < sizeof names / sizeof names[0]; i++) {
        status = load_optional(files, names[i], error, &other_json, &other);
        if (status == STATUS_OK) {
            status = read_config(&other, error, table);
        }
        json_decref(other_json);
        other_json = NULL;
    }
    if (status == STATUS_OK) {
        status = read_add_bos(tokenizer, &config, error, vocabulary);
    }
    json_decref(config_json);
    return status;
}
