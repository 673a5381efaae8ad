#include "model/token_table.h"

#include "base/memory.h"

static enum status token_table_read_kind(const struct gguf *gguf, struct error *error,
                                         struct vocabulary *vocabulary)
{
    struct bytes kind = bytes_of_text("");

    TRY(gguf_get_text(gguf, "tokenizer.ggml.model", error, &kind));
    if (bytes_equal(kind, bytes_of_text("gpt2"))) {
        vocabulary->kind = VOCABULARY_BPE;
    } else if (bytes_equal(kind, bytes_of_text("llama"))) {
        vocabulary->kind = VOCABULARY_SPM;
    } else {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: key 'tokenizer.ggml.model' is '%.*s'; 'gpt2' and 'llama' are "
                         "supported",
                         gguf_name(gguf), kind.size < 32 ? (int)kind.size : 32,
                         (const char *)kind.data);
    }
    return STATUS_OK;
}

static enum status token_table_wrong_count(const struct gguf *gguf, const char *key, uint64_t count,
                                           uint32_t wanted, struct error *error)
{
    return error_set(error, STATUS_BAD_INPUT, "%s: key '%s' has %llu entries, %u are needed",
                     gguf_name(gguf), key, (unsigned long long)count, wanted);
}

static enum status token_table_read_types(const struct gguf *gguf, uint32_t token_count,
                                          struct error *error, uint8_t *types)
{
    const char *key = "tokenizer.ggml.token_type";
    const int32_t *values = NULL;
    uint64_t count = 0;

    memset(types, TOKEN_NORMAL, token_count);
    const enum status status = gguf_get_i32_array(gguf, key, error, &values, &count);
    if (status == STATUS_NOT_FOUND) {
        return STATUS_OK;
    }
    TRY(status);
    if (count != token_count) {
        return token_table_wrong_count(gguf, key, count, token_count, error);
    }
    for (uint32_t i = 0; i < token_count; i++) {
        if (values[i] < TOKEN_NORMAL || values[i] > TOKEN_BYTE) {
            return error_set(error, STATUS_BAD_INPUT, "%s: key '%s': token %u has type %d",
                             gguf_name(gguf), key, i, values[i]);
        }
        types[i] = (uint8_t)values[i];
    }
    return STATUS_OK;
}

static enum status token_table_read_merges(const struct gguf *gguf, struct error *error,
                                           struct vocabulary *vocabulary)
{
    uint64_t count = 0;

    TRY(gguf_get_text_array(gguf, "tokenizer.ggml.merges", error, &vocabulary->merges, &count));
    if (count > UINT32_MAX / 2) {
        return token_table_wrong_count(gguf, "tokenizer.ggml.merges", count, UINT32_MAX / 2, error);
    }
    vocabulary->merge_count = (uint32_t)count;
    return STATUS_OK;
}

static enum status token_table_read_scores(const struct gguf *gguf, struct error *error,
                                           struct vocabulary *vocabulary)
{
    const char *key = "tokenizer.ggml.scores";
    uint64_t count = 0;

    TRY(gguf_get_f32_array(gguf, key, error, &vocabulary->scores, &count));
    if (count != vocabulary->token_count) {
        return token_table_wrong_count(gguf, key, count, vocabulary->token_count, error);
    }
    for (uint32_t i = 0; i < vocabulary->token_count; i++) {
        if (vocabulary->scores[i] != vocabulary->scores[i]) {
            return error_set(error, STATUS_BAD_INPUT, "%s: key '%s': the score of token %u is NaN",
                             gguf_name(gguf), key, i);
        }
    }
    return STATUS_OK;
}

/* TOKEN_NONE when the key is absent. */
static enum status token_table_read_id(const struct gguf *gguf, const char *key,
                                       uint32_t token_count, struct error *error, uint32_t *out)
{
    uint32_t id = TOKEN_NONE;
    const enum status status = gguf_get_u32(gguf, key, error, &id);

    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        return status;
    }
    if (id != TOKEN_NONE && id >= token_count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: key '%s' is %u, but there are %u tokens only", gguf_name(gguf), key,
                         id, token_count);
    }
    *out = id;
    return STATUS_OK;
}

static enum status token_table_read_ids(const struct gguf *gguf, struct error *error,
                                        struct vocabulary *vocabulary)
{
    const struct {
        const char *key;
        uint32_t *id;
    } ids[] = {
        {"tokenizer.ggml.bos_token_id", &vocabulary->bos},
        {"tokenizer.ggml.eos_token_id", &vocabulary->eos},
        {"tokenizer.ggml.eot_token_id", &vocabulary->eot},
        {"tokenizer.ggml.eom_token_id", &vocabulary->eom},
        {"tokenizer.ggml.unknown_token_id", &vocabulary->unknown},
        {"tokenizer.ggml.padding_token_id", &vocabulary->pad},
    };

    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        TRY(token_table_read_id(gguf, ids[i].key, vocabulary->token_count, error, ids[i].id));
    }
    return STATUS_OK;
}

/* Files of Llama 3 leave the key out, although the model was trained with a first BOS. */
static bool token_table_usual_bos(const struct vocabulary *vocabulary)
{
    return vocabulary->kind == VOCABULARY_SPM ||
           bytes_equal(vocabulary->pre, bytes_of_text("llama-bpe")) ||
           bytes_equal(vocabulary->pre, bytes_of_text("llama3"));
}

static enum status token_table_read_flags(const struct gguf *gguf, struct error *error,
                                          struct vocabulary *vocabulary)
{
    vocabulary->add_bos = token_table_usual_bos(vocabulary);
    vocabulary->add_space_prefix = vocabulary->kind == VOCABULARY_SPM;
    enum status status =
        gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", error, &vocabulary->add_bos);
    if (status == STATUS_BAD_INPUT) {
        return status;
    }
    status = gguf_get_bool(gguf, "tokenizer.ggml.add_space_prefix", error,
                           &vocabulary->add_space_prefix);
    if (status == STATUS_BAD_INPUT) {
        return status;
    }
    if (vocabulary->bos == TOKEN_NONE) {
        vocabulary->add_bos = false;
    }
    return STATUS_OK;
}

static enum status token_table_fill(const struct gguf *gguf, uint32_t token_count,
                                    struct error *error, struct token_table *table)
{
    struct vocabulary *vocabulary = &table->vocabulary;
    const char *key = "tokenizer.ggml.tokens";
    uint64_t count = 0;

    TRY(token_table_read_kind(gguf, error, vocabulary));
    TRY(gguf_get_text_array(gguf, key, error, &vocabulary->tokens, &count));
    if (count != token_count) {
        return token_table_wrong_count(gguf, key, count, token_count, error);
    }
    vocabulary->token_count = token_count;
    TRY(token_table_read_types(gguf, token_count, error, table->types));
    vocabulary->types = table->types;
    if (vocabulary->kind == VOCABULARY_BPE) {
        TRY(token_table_read_merges(gguf, error, vocabulary));
    } else {
        TRY(token_table_read_scores(gguf, error, vocabulary));
    }
    if (gguf_get_text(gguf, "tokenizer.ggml.pre", NULL, &vocabulary->pre) != STATUS_OK) {
        vocabulary->pre = bytes_of_text("");
    }
    if (gguf_get_text(gguf, "tokenizer.chat_template", NULL, &vocabulary->chat_template) !=
        STATUS_OK) {
        vocabulary->chat_template = bytes_of_text("");
    }
    TRY(token_table_read_ids(gguf, error, vocabulary));
    return token_table_read_flags(gguf, error, vocabulary);
}

enum status token_table_init(const struct gguf *gguf, uint32_t token_count, struct error *error,
                             struct token_table *out)
{
    struct token_table table = {.types = memory_alloc(token_count, 1)};

    if (table.types == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory", gguf_name(gguf));
    }
    const enum status status = token_table_fill(gguf, token_count, error, &table);
    if (status != STATUS_OK) {
        token_table_finish(&table);
        return status;
    }
    *out = table;
    return STATUS_OK;
}

void token_table_finish(struct token_table *table)
{
    memory_free(table->types);
    memory_free(table->tokens);
    memory_free(table->merges);
    arena_finish(&table->texts);
    table->types = NULL;
    table->tokens = NULL;
    table->merges = NULL;
}
