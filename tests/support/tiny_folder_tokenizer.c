/* tokenizer.json as the reference's own tools write it. */
#include <jansson.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "support/tiny_folder.h"

#define HEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static json_t *text_json(struct bytes text)
{
    json_t *json = json_stringn((const char *)text.data, text.size);

    CHECK(json != NULL);
    return json;
}

static bool pre_is(const struct vocabulary *vocabulary, const char *name)
{
    return bytes_equal(vocabulary->pre, bytes_of_text(name));
}

static json_t *byte_level(bool use_regex)
{
    return json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", (int)use_regex);
}

static json_t *split_by(const char *expression)
{
    json_t *split = json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", "Regex",
                              expression, "behavior", "Isolated", "invert", 0);

    return json_pack("{s:s,s:[o,o]}", "type", "Sequence", "pretokenizers", split,
                     byte_level(false));
}

static json_t *pre_tokenizer(const struct vocabulary *vocabulary)
{
    if (vocabulary->kind == VOCABULARY_SPM) {
        return json_null();
    }
    if (pre_is(vocabulary, "smollm")) {
        return json_pack("{s:s,s:[{s:s,s:b},o]}", "type", "Sequence", "pretokenizers", "type",
                         "Digits", "individual_digits", 1, byte_level(true));
    }
    if (pre_is(vocabulary, "llama-bpe")) {
        return split_by(HEAD "\\p{N}{1,3}" TAIL);
    }
    return pre_is(vocabulary, "qwen2") ? split_by(HEAD "\\p{N}" TAIL) : byte_level(true);
}

static json_t *normalizer(const struct vocabulary *vocabulary)
{
    const char *space = "\xe2\x96\x81";

    if (vocabulary->kind == VOCABULARY_SPM && vocabulary->add_space_prefix) {
        return json_pack("{s:s,s:[{s:s,s:s},{s:s,s:{s:s},s:s}]}", "type", "Sequence", "normalizers",
                         "type", "Prepend", "prepend", space, "type", "Replace", "pattern",
                         "String", " ", "content", space);
    }
    if (vocabulary->kind == VOCABULARY_SPM) {
        return json_pack("{s:s,s:{s:s},s:s}", "type", "Replace", "pattern", "String", " ",
                         "content", space);
    }
    return pre_is(vocabulary, "qwen2") ? json_pack("{s:s}", "type", "NFC") : json_null();
}

static bool is_added(uint8_t type)
{
    return type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED || type == TOKEN_UNKNOWN;
}

/* Holes are tokens that nothing names. */
static json_t *tokens_json(const struct vocabulary *vocabulary)
{
    json_t *tokens = json_object();

    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        const struct bytes name = vocabulary->tokens[id];
        if (vocabulary->types[id] != TOKEN_UNUSED) {
            CHECK(json_object_setn_new(tokens, (const char *)name.data, name.size,
                                       json_integer(id)) == 0);
        }
    }
    return tokens;
}

static json_t *added_json(const struct vocabulary *vocabulary)
{
    json_t *added = json_array();

    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        if (is_added(vocabulary->types[id])) {
            json_t *token = json_pack("{s:i,s:o,s:b,s:b}", "id", (int)id, "content",
                                      text_json(vocabulary->tokens[id]), "special",
                                      vocabulary->types[id] != TOKEN_USER_DEFINED, "normalized",
                                      vocabulary->types[id] == TOKEN_USER_DEFINED);
            CHECK(json_array_append_new(added, token) == 0);
        }
    }
    return added;
}

/* ---- merges ---- */

struct merge {
    struct bytes left, right;
    float score;
    uint32_t left_id, right_id;
};

static json_t *merge_json(struct bytes left, struct bytes right, bool pairs)
{
    uint8_t joined[1024];

    if (pairs) {
        return json_pack("[o,o]", text_json(left), text_json(right));
    }
    CHECK(left.size + 1 + right.size <= sizeof joined);
    memcpy(joined, left.data, left.size);
    joined[left.size] = ' ';
    memcpy(joined + left.size + 1, right.data, right.size);
    return text_json(bytes_of(joined, left.size + 1 + right.size));
}

static int compare_merges(const void *a, const void *b)
{
    const struct merge *x = a;
    const struct merge *y = b;

    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    if (x->left_id != y->left_id) {
        return x->left_id < y->left_id ? -1 : 1;
    }
    return x->right_id < y->right_id ? -1 : x->right_id > y->right_id;
}

static uint32_t find_text(const json_t *ids, const struct vocabulary *vocabulary, struct bytes name)
{
    const json_t *id = json_object_getn(ids, (const char *)name.data, name.size);
    const uint32_t value = id == NULL ? TOKEN_NONE : (uint32_t)json_integer_value(id);

    return value != TOKEN_NONE && vocabulary->types[value] == TOKEN_NORMAL ? value : TOKEN_NONE;
}

/* Every way to make a piece of two others, best score first. */
static json_t *merges_of_scores(const struct vocabulary *vocabulary, bool pairs)
{
    const uint32_t count_max = 65536;
    struct merge *merges = memory_alloc(count_max, sizeof *merges);
    json_t *ids = tokens_json(vocabulary);
    json_t *list = json_array();
    uint32_t count = 0;

    for (uint32_t id = 0; id < vocabulary->token_count; id++) {
        const struct bytes name = vocabulary->tokens[id];
        for (size_t cut = 1; vocabulary->types[id] == TOKEN_NORMAL && cut < name.size; cut++) {
            struct merge merge = {bytes_of(name.data, cut),
                                  bytes_of(name.data + cut, name.size - cut),
                                  vocabulary->scores[id], 0, 0};
            merge.left_id = find_text(ids, vocabulary, merge.left);
            merge.right_id = find_text(ids, vocabulary, merge.right);
            if (merge.left_id != TOKEN_NONE && merge.right_id != TOKEN_NONE) {
                CHECK(count < count_max);
                merges[count++] = merge;
            }
        }
    }
    qsort(merges, count, sizeof *merges, compare_merges);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(json_array_append_new(list, merge_json(merges[i].left, merges[i].right, pairs)) == 0);
    }
    memory_free(merges);
    json_decref(ids);
    return list;
}

static json_t *merges_json(const struct vocabulary *vocabulary, bool pairs)
{
    if (vocabulary->kind == VOCABULARY_SPM) {
        return merges_of_scores(vocabulary, pairs);
    }
    json_t *list = json_array();
    for (uint32_t i = 0; i < vocabulary->merge_count; i++) {
        const struct bytes merge = vocabulary->merges[i];
        const uint8_t *space = memchr(merge.data, ' ', merge.size);
        CHECK(space != NULL);
        const size_t left = (size_t)(space - merge.data);
        CHECK(json_array_append_new(list, merge_json(bytes_of(merge.data, left),
                                                     bytes_of(space + 1, merge.size - left - 1),
                                                     pairs)) == 0);
    }
    return list;
}

static json_t *model_json(const struct vocabulary *vocabulary, bool pairs)
{
    const bool spm = vocabulary->kind == VOCABULARY_SPM;
    json_t *unknown = spm && vocabulary->unknown != TOKEN_NONE
                          ? text_json(vocabulary->tokens[vocabulary->unknown])
                          : json_null();

    return json_pack("{s:s,s:n,s:o,s:s,s:b,s:b,s:o,s:o}", "type", "BPE", "dropout", "unk_token",
                     unknown, "end_of_word_suffix", "", "byte_fallback", (int)spm, "ignore_merges",
                     (int)pre_is(vocabulary, "llama-bpe"), "vocab", tokens_json(vocabulary),
                     "merges", merges_json(vocabulary, pairs));
}

struct bytes tiny_folder_tokenizer(const struct vocabulary *vocabulary, bool merge_pairs)
{
    json_set_alloc_funcs(malloc, free);
    json_t *root = json_pack("{s:s,s:o,s:o,s:o,s:n,s:o}", "version", "1.0", "added_tokens",
                             added_json(vocabulary), "normalizer", normalizer(vocabulary),
                             "pre_tokenizer", pre_tokenizer(vocabulary), "post_processor", "model",
                             model_json(vocabulary, merge_pairs));

    CHECK(root != NULL);
    char *text = json_dumps(root, JSON_COMPACT);
    CHECK(text != NULL);
    const size_t size = strlen(text);
    text[size] = '\n'; /* in the place of its NUL: files end with a line */
    const struct bytes out = bytes_of(memory_copy_text(text, size + 1), size + 1);
    free(text);
    json_decref(root);
    return out;
}
