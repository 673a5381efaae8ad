#include "model/hf_split.h"

#include <string.h>

enum { STEP_COUNT_MAX = 8 };

/* As the files write them. */
static const char llama3_expression[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char qwen2_expression[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char spm_space[] = "\xe2\x96\x81";

struct steps {
    const json_t *at[STEP_COUNT_MAX];
    size_t count;
};

static bool text_is(const json_t *object, const char *key, const char *wanted)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text != NULL && strcmp(text, wanted) == 0;
}

/* `absent` where the key is not there. */
static bool flag_of(const json_t *object, const char *key, bool absent)
{
    const json_t *value = json_object_get(object, key);

    return json_is_boolean(value) ? json_is_true(value) : absent;
}

static enum status unknown(const struct hf_object *root, const char *what, struct error *error)
{
    return hf_json_wrong(root, what, STATUS_UNSUPPORTED, error,
                         "is not one that is known; known are those of GPT-2, SmolLM, Llama 3, "
                         "Qwen 2, and SentencePiece's as Llama 2 and Mistral have it");
}

/* The steps of a sequence, or the one that stands alone. */
static enum status list_steps(const struct hf_object *root, const char *key, const char *inner,
                              struct error *error, struct steps *out)
{
    const json_t *value = hf_json_field(root, key);

    out->count = 0;
    if (value == NULL) {
        return STATUS_OK;
    }
    if (!text_is(value, "type", "Sequence")) {
        out->at[out->count++] = value;
        return STATUS_OK;
    }
    const json_t *list = json_object_get(value, inner);
    if (json_array_size(list) > STEP_COUNT_MAX) {
        return unknown(root, key, error);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        out->at[out->count++] = json_array_get(list, i);
    }
    return STATUS_OK;
}

/* The regular expression of a Split that keeps all pieces, NULL for other steps. */
static const char *split_expression(const json_t *step)
{
    const json_t *pattern = json_object_get(step, "pattern");

    if (!text_is(step, "type", "Split") || !text_is(step, "behavior", "Isolated") ||
        flag_of(step, "invert", false)) {
        return NULL;
    }
    return json_string_value(json_object_get(pattern, "Regex"));
}

/* The name for what stands before the last ByteLevel. */
static const char *byte_level_name(const struct steps *steps)
{
    const json_t *last = steps->at[steps->count - 1];
    const bool own_expression = flag_of(last, "use_regex", true);

    if (flag_of(last, "add_prefix_space", true)) {
        return NULL;
    }
    if (own_expression && steps->count == 1) {
        return "gpt-2";
    }
    if (own_expression && steps->count == 2 && text_is(steps->at[0], "type", "Digits") &&
        flag_of(steps->at[0], "individual_digits", false)) {
        return "smollm";
    }
    const char *expression = split_expression(steps->at[0]);
    if (own_expression || steps->count != 2 || expression == NULL) {
        return NULL;
    }
    if (strcmp(expression, llama3_expression) == 0) {
        return "llama-bpe";
    }
    return strcmp(expression, qwen2_expression) == 0 ? "qwen2" : NULL;
}

static enum status read_byte_level(const struct hf_object *root, const struct steps *normal,
                                   const struct steps *pre, struct error *error,
                                   struct hf_split *out)
{
    const json_t *model = json_object_get(root->json, "model");
    const char *name = byte_level_name(pre);

    if (name == NULL) {
        return unknown(root, "pre_tokenizer", error);
    }
    const bool nfc = normal->count == 1 && text_is(normal->at[0], "type", "NFC");
    if (normal->count > 0 && !nfc) {
        return unknown(root, "normalizer", error);
    }
    if (nfc != (strcmp(name, "qwen2") == 0)) {
        return unknown(root, "normalizer", error);
    }
    if (flag_of(model, "ignore_merges", false) != (strcmp(name, "llama-bpe") == 0)) {
        return unknown(root, "model.ignore_merges", error);
    }
    *out = (struct hf_split){VOCABULARY_BPE, name, false};
    return STATUS_OK;
}

/* Spaces become U+2581, with one in front or not, and nothing is cut. */
static enum status read_spaces(const struct hf_object *root, const struct steps *normal,
                               struct error *error, struct hf_split *out)
{
    const json_t *replace = normal->at[normal->count - 1];
    const json_t *pattern = json_object_get(replace, "pattern");
    const bool prefix = normal->count == 2;

    if (normal->count > 2 || !text_is(replace, "type", "Replace") ||
        !text_is(pattern, "String", " ") || !text_is(replace, "content", spm_space)) {
        return unknown(root, "normalizer", error);
    }
    if (prefix && (!text_is(normal->at[0], "type", "Prepend") ||
                   !text_is(normal->at[0], "prepend", spm_space))) {
        return unknown(root, "normalizer", error);
    }
    *out = (struct hf_split){VOCABULARY_SPM, "", prefix};
    return STATUS_OK;
}

static enum status read_metaspace(const struct hf_object *root, const json_t *step,
                                  struct error *error, struct hf_split *out)
{
    const bool never =
        text_is(step, "prepend_scheme", "never") || !flag_of(step, "add_prefix_space", true);

    if (!text_is(step, "replacement", spm_space) || flag_of(step, "split", true)) {
        return unknown(root, "pre_tokenizer", error);
    }
    *out = (struct hf_split){VOCABULARY_SPM, "", !never};
    return STATUS_OK;
}

enum status hf_split_read(const struct hf_object *root, struct error *error, struct hf_split *out)
{
    struct steps normal;
    struct steps pre;

    TRY(list_steps(root, "normalizer", "normalizers", error, &normal));
    TRY(list_steps(root, "pre_tokenizer", "pretokenizers", error, &pre));
    if (pre.count > 0 && text_is(pre.at[pre.count - 1], "type", "ByteLevel")) {
        return read_byte_level(root, &normal, &pre, error, out);
    }
    if (pre.count == 0 && normal.count > 0) {
        return read_spaces(root, &normal, error, out);
    }
    if (pre.count == 1 && normal.count == 0 && text_is(pre.at[0], "type", "Metaspace")) {
        return read_metaspace(root, pre.at[0], error, out);
    }
    return unknown(root, "pre_tokenizer", error);
}
