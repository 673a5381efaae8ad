#include "model/hf_tokens.h"

#include <stdio.h>

#include "base/memory.h"
#include "limits.h"
#include "model/hf_ids.h"
#include "model/hf_json.h"
#include "model/hf_split.h"

static const char file_name[] = "tokenizer.json";

static enum status out_of_memory(const struct hf_object *root, struct error *error)
{
    return error_set(error, STATUS_MEMORY, "%s/%s: out of memory", root->folder, root->file);
}

static enum status copy_text(const struct hf_object *root, struct token_table *table,
                             struct bytes text, struct error *error, struct bytes *out)
{
    const void *copy = arena_copy(&table->texts, text.data, text.size);

    if (copy == NULL) {
        return out_of_memory(root, error);
    }
    *out = bytes_of(copy, text.size);
    return STATUS_OK;
}

/* A place in the vocabulary for one token. */
static enum status put_token(const struct hf_object *root, struct token_table *table, json_int_t id,
                             struct bytes text, enum token_type type, struct error *error)
{
    if (id < 0 || id >= table->vocabulary.token_count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s/%s: token '%.*s' has id %lld; the embedding has %u rows", root->folder,
                         root->file, SHOWN(text), (long long)id, table->vocabulary.token_count);
    }
    struct bytes *place = &table->tokens[id];
    if (place->data != NULL && !bytes_equal(*place, text)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s/%s: tokens '%.*s' and '%.*s' both have id %lld", root->folder,
                         root->file, SHOWN(*place), SHOWN(text), (long long)id);
    }
    table->types[id] = (uint8_t)type;
    return place->data != NULL ? STATUS_OK : copy_text(root, table, text, error, place);
}

/* "<0x0A>" */
static bool is_byte_name(struct bytes name)
{
    return name.size == 6 && memcmp(name.data, "<0x", 3) == 0 && name.data[5] == '>';
}

static enum status read_tokens(const struct hf_object *root, const json_t *model,
                               struct token_table *table, struct error *error)
{
    const json_t *tokens = json_object_get(model, "vocab");
    const bool by_bytes = table->vocabulary.kind == VOCABULARY_SPM &&
                          json_is_true(json_object_get(model, "byte_fallback"));
    const char *name = NULL;
    size_t size = 0;
    json_t *id = NULL;

    if (!json_is_object(tokens)) {
        return hf_json_wrong(root, "model.vocab", STATUS_BAD_INPUT, error,
                             "must be an object of tokens and ids");
    }
    json_object_keylen_foreach((json_t *)(uintptr_t)tokens, name, size, id)
    {
        const struct bytes text = bytes_of(name, size);
        if (!json_is_integer(id)) {
            return error_set(error, STATUS_BAD_INPUT, "%s/%s: token '%.*s' has no id", root->folder,
                             root->file, SHOWN(text));
        }
        TRY(put_token(root, table, json_integer_value(id), text,
                      by_bytes && is_byte_name(text) ? TOKEN_BYTE : TOKEN_NORMAL, error));
    }
    return STATUS_OK;
}

static enum status read_added(const struct hf_object *root, struct token_table *table,
                              struct error *error)
{
    const json_t *added = hf_json_field(root, "added_tokens");

    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const json_t *id = json_object_get(token, "id");
        const json_t *content = json_object_get(token, "content");
        const bool special = json_is_true(json_object_get(token, "special"));
        if (!json_is_integer(id) || !json_is_string(content)) {
            return hf_json_wrong(root, "added_tokens", STATUS_BAD_INPUT, error,
                                 "has an entry without id or content");
        }
        TRY(put_token(root, table, json_integer_value(id), hf_json_bytes(content),
                      special ? TOKEN_CONTROL : TOKEN_USER_DEFINED, error));
    }
    return STATUS_OK;
}

/* Rows of the embedding that no token has. */
static enum status fill_holes(const struct hf_object *root, struct token_table *table,
                              struct error *error)
{
    for (uint32_t id = 0; id < table->vocabulary.token_count; id++) {
        char name[32];
        if (table->tokens[id].data != NULL) {
            continue;
        }
        (void)snprintf(name, sizeof name, "[PAD%u]", id);
        table->types[id] = TOKEN_UNUSED;
        TRY(copy_text(root, table, bytes_of_text(name), error, &table->tokens[id]));
    }
    return STATUS_OK;
}

/* "left right", or ["left", "right"]. */
static enum status read_merge(const struct hf_object *root, const json_t *merge,
                              struct token_table *table, struct error *error, struct bytes *out)
{
    const json_t *left = json_array_get(merge, 0);
    const json_t *right = json_array_get(merge, 1);

    if (json_is_string(merge)) {
        return copy_text(root, table, hf_json_bytes(merge), error, out);
    }
    if (json_array_size(merge) != 2 || !json_is_string(left) || !json_is_string(right)) {
        return hf_json_wrong(root, "model.merges", STATUS_BAD_INPUT, error,
                             "has an entry that is not two tokens");
    }
    const size_t left_size = json_string_length(left);
    const size_t right_size = json_string_length(right);
    uint8_t *joined = arena_alloc(&table->texts, 1, left_size + right_size + 1);
    if (joined == NULL) {
        return out_of_memory(root, error);
    }
    memcpy(joined, json_string_value(left), left_size);
    joined[left_size] = ' ';
    memcpy(joined + left_size + 1, json_string_value(right), right_size);
    *out = bytes_of(joined, left_size + right_size + 1);
    return STATUS_OK;
}

static enum status read_merges(const struct hf_object *root, const json_t *model,
                               struct token_table *table, struct error *error)
{
    const json_t *merges = json_object_get(model, "merges");
    const size_t count = json_array_size(merges);

    if (!json_is_array(merges) || count > UINT32_MAX / 2) {
        return hf_json_wrong(root, "model.merges", STATUS_BAD_INPUT, error, "must be a list");
    }
    table->merges = memory_alloc(count, sizeof(*table->merges));
    if (table->merges == NULL) {
        return out_of_memory(root, error);
    }
    for (size_t i = 0; i < count; i++) {
        TRY(read_merge(root, json_array_get(merges, i), table, error, &table->merges[i]));
    }
    table->vocabulary.merges = table->merges;
    table->vocabulary.merge_count = (uint32_t)count;
    return STATUS_OK;
}

/* Features of the model of merges that are not there. */
static enum status check_model(const struct hf_object *root, const json_t *model,
                               struct error *error)
{
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = json_string_value(json_object_get(model, "type"));

    if (!json_is_object(model)) {
        return hf_json_wrong(root, "model", STATUS_BAD_INPUT, error, "is missing");
    }
    if (type != NULL && strcmp(type, "BPE") != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s/%s: key 'model.type' is '%.32s'; 'BPE' is supported", root->folder,
                         root->file, type);
    }
    for (size_t i = 0; i < sizeof affixes / sizeof affixes[0]; i++) {
        if (json_string_length(json_object_get(model, affixes[i])) > 0) {
            return hf_json_wrong(root, affixes[i], STATUS_UNSUPPORTED, error, "is not supported");
        }
    }
    return STATUS_OK;
}

static enum status read_unknown(const struct hf_object *root, const json_t *model,
                                struct token_table *table, struct error *error)
{
    const json_t *name = json_object_get(model, "unk_token");
    uint32_t id = TOKEN_NONE;

    if (json_is_string(name)) {
        id = hf_ids_find(&table->vocabulary, hf_json_bytes(name));
        if (id == TOKEN_NONE) {
            return hf_json_wrong(root, "model.unk_token", STATUS_BAD_INPUT, error,
                                 "is no token of the vocabulary");
        }
        /* Byte-level vocabularies cover every text: there it is a control token like others. */
        if (table->vocabulary.kind == VOCABULARY_SPM) {
            table->types[id] = TOKEN_UNKNOWN;
        }
    }
    table->vocabulary.unknown = id;
    return STATUS_OK;
}

static enum status read_all(const struct hf_files *files, const struct hf_object *root,
                            struct error *error, struct token_table *table)
{
    const json_t *model = json_object_get(root->json, "model");
    struct vocabulary *vocabulary = &table->vocabulary;
    struct hf_split split = {.pre = ""};

    TRY(check_model(root, model, error));
    TRY(hf_split_read(root, error, &split));
    vocabulary->kind = split.kind;
    vocabulary->pre = bytes_of_text(split.pre);
    vocabulary->add_space_prefix = split.add_space_prefix;
    TRY(read_tokens(root, model, table, error));
    TRY(read_added(root, table, error));
    TRY(fill_holes(root, table, error));
    vocabulary->tokens = table->tokens;
    vocabulary->types = table->types;
    TRY(read_merges(root, model, table, error));
    TRY(read_unknown(root, model, table, error));
    return hf_ids_read(files, root, error, table);
}

enum status hf_tokens_read(const struct hf_files *files, uint32_t token_count, struct error *error,
                           struct token_table *out)
{
    struct hf_object root = {NULL, files->folder, file_name, ""};
    struct token_table table = {.vocabulary = {.token_count = token_count}};
    json_t *json = NULL;

    TRY(hf_json_load(files, file_name, error, &json));
    root.json = json;
    arena_init(&table.texts, MODEL_METADATA_BYTES_MAX);
    table.types = memory_alloc(token_count, 1);
    table.tokens = memory_alloc(token_count, sizeof(*table.tokens));
    enum status status = STATUS_OK;
    if (table.types == NULL || table.tokens == NULL) {
        status = out_of_memory(&root, error);
    } else {
        status = read_all(files, &root, error, &table);
    }
    json_decref(json);
    if (status != STATUS_OK) {
        token_table_finish(&table);
        return status;
    }
    *out = table;
    return STATUS_OK;
}
