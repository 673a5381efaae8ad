/* Goal: a Hugging Face folder that is wrong is refused with a sentence that names the file and the
 * key or tensor and says what is wrong; none makes the reader touch what is not its own; and where
 * memory is short at any place the answer is a status.
 *
 * Method: a small good folder, of which one file is replaced or a text in one is changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "model/model.h"
#include "support/tiny_folder.h"
#include "support/tiny_model.h"

static struct bytes good_file;

static void make_good(struct tiny_folder *folder, bool sharded)
{
    const struct tiny_folder_spec spec = {.sharded = sharded};

    tiny_folder_create(good_file, &spec, folder);
}

static enum status open_folder(const struct tiny_folder *folder, struct error *error)
{
    struct model *model = NULL;
    const enum status status =
        model_open_files(folder->files, folder->count, "here/tiny", error, &model);

    model_close(model);
    return status;
}

/* Destroys the folder. */
static void assert_refused(struct tiny_folder *folder, enum status status, const char *file,
                           const char *words)
{
    struct error error = {.text = ""};
    const enum status got = open_folder(folder, &error);

    if (got != status || strstr(error.text, words) == NULL || strstr(error.text, file) == NULL) {
        print_message("wanted '%s' '%s', got %s: %s\n", file, words, status_name(got), error.text);
    }
    assert_int_equal(got, status);
    assert_non_null(strstr(error.text, words));
    assert_non_null(strstr(error.text, file));
    tiny_folder_destroy(folder);
}

/* The first `from` in a text file becomes `to`. */
static void change(struct tiny_folder *folder, const char *file, const char *from, const char *to)
{
    struct hf_file *held = tiny_folder_file(folder, file);
    const size_t from_size = strlen(from);
    const size_t to_size = strlen(to);
    const uint8_t *old = held->bytes.data;
    const uint8_t *at = memmem(old, held->bytes.size, from, from_size);

    assert_non_null(at);
    const size_t before = (size_t)(at - old);
    const size_t size = held->bytes.size - from_size + to_size;
    uint8_t *bytes = memory_alloc(1, size);
    assert_non_null(bytes);
    memcpy(bytes, old, before);
    memcpy(bytes + before, to, to_size);
    memcpy(bytes + before + to_size, at + from_size, size - before - to_size);
    memory_free((void *)(uintptr_t)old);
    held->bytes = bytes_of(bytes, size);
}

static void drop(struct tiny_folder *folder, const char *file)
{
    tiny_folder_file(folder, file)->name = "elsewhere";
}

struct hostile {
    const char *file, *from, *to;
    enum status status;
    const char *words;
};

static void assert_all_refused(const struct hostile *cases, size_t count, bool sharded)
{
    for (size_t i = 0; i < count; i++) {
        struct tiny_folder folder;
        make_good(&folder, sharded);
        change(&folder, cases[i].file, cases[i].from, cases[i].to);
        assert_refused(&folder, cases[i].status, sharded ? "here/tiny" : cases[i].file,
                       cases[i].words);
    }
}

static void a_wrong_config_is_refused(void **state)
{
    const char *file = "config.json";
    const struct hostile cases[] = {
        {file, "\"llama\"", "\"gemma2\"", STATUS_UNSUPPORTED, "model_type is 'gemma2'"},
        {file, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", STATUS_BAD_INPUT,
         "'num_hidden_layers' must be an integer of 1"},
        {file, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.5", STATUS_BAD_INPUT,
         "'num_hidden_layers' must be an integer"},
        {file, "\"num_hidden_layers\"", "\"num_hidden_lairs\"", STATUS_BAD_INPUT,
         "'num_hidden_layers' is missing"},
        {file, "\"head_dim\": 64", "\"head_dim\": 63", STATUS_BAD_INPUT, "heads of 63 elements"},
        {file, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", STATUS_BAD_INPUT,
         "'num_key_value_heads' does not divide"},
        {file, "\"silu\"", "\"gelu\"", STATUS_UNSUPPORTED, "'hidden_act' is not 'silu'"},
        {file, "\"hidden_act\": \"silu\"", "\"mlp_bias\": true", STATUS_UNSUPPORTED, "'mlp_bias'"},
        {file, "\"hidden_act\": \"silu\"", "\"quantization_config\": {}", STATUS_UNSUPPORTED,
         "'quantization_config'"},
        {file, "\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\"}",
         STATUS_UNSUPPORTED, "scaled by 'yarn'"},
        {file, "\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"llama3\"}",
         STATUS_BAD_INPUT, "'rope_scaling.factor' is missing"},
        {file, "\"rope_scaling\": null", "\"rope_scaling\": 7", STATUS_BAD_INPUT,
         "'rope_scaling' must be an object"},
        {file, "\"rope_theta\": 10000.0", "\"rope_theta\": -1", STATUS_BAD_INPUT, "'rope_theta'"},
        {file, "\"rope_scaling\"", "\"model_type\"", STATUS_BAD_INPUT, "not valid JSON"},
        {file, "{", "[", STATUS_BAD_INPUT, "not valid JSON"},
    };

    struct tiny_folder folder;

    (void)state;
    assert_all_refused(cases, sizeof cases / sizeof cases[0], false);
    make_good(&folder, false);
    change(&folder, file, "\"head_dim\": 64", "\"head_dim\": 32");
    assert_refused(&folder, STATUS_BAD_INPUT, "q_proj.weight", "has shape [256, 256, 1, 1]");
}

static void a_wrong_tokenizer_is_refused(void **state)
{
    const char *file = "tokenizer.json";
    const struct hostile cases[] = {
        {file, "\"type\":\"BPE\"", "\"type\":\"Unigram\"", STATUS_UNSUPPORTED,
         "'model.type' is 'Unigram'"},
        {file, "\"vocab\"", "\"words\"", STATUS_BAD_INPUT, "'model.vocab' must be"},
        {file, "\"merges\"", "\"joins\"", STATUS_BAD_INPUT, "'model.merges' must be"},
        {file, "\"merges\":[", "\"merges\":[7,", STATUS_BAD_INPUT, "'model.merges' has an entry"},
        {file, "\"Digits\"", "\"Whitespace\"", STATUS_UNSUPPORTED, "'pre_tokenizer' is not one"},
        {file, "\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", STATUS_UNSUPPORTED,
         "'normalizer' is not one"},
        {file, "\"end_of_word_suffix\":\"\"", "\"end_of_word_suffix\":\"</w>\"", STATUS_UNSUPPORTED,
         "'end_of_word_suffix' is not supported"},
        {file, "\"vocab\":{", "\"vocab\":{\"xyzzy\":7,", STATUS_BAD_INPUT, "both have id 7"},
        {file, "\"vocab\":{", "\"vocab\":{\"xyzzy\":512,", STATUS_BAD_INPUT,
         "token 'xyzzy' has id 512; the embedding has 512 rows"},
        {file, "\"vocab\":{", "\"vocab\":{\"xyzzy\":-1,", STATUS_BAD_INPUT, "has id -1"},
        {file, "\"vocab\":{", "\"vocab\":{\"xyzzy\":\"7\",", STATUS_BAD_INPUT, "has no id"},
        {file, "\"content\"", "\"contents\"", STATUS_BAD_INPUT, "'added_tokens' has an entry"},
        {"generation_config.json", "eos_token_id\": [", "eos_token_id\": [9999,", STATUS_BAD_INPUT,
         "'eos_token_id' must be an id below 512"},
        {"tokenizer_config.json", "\"eos_token\": \"", "\"eos_token\": \"xyzzy", STATUS_BAD_INPUT,
         "'eos_token' is no token"},
        {"tokenizer_config.json", "\"add_bos_token\": ", "\"add_bos_token\": 7, \"x\": ",
         STATUS_BAD_INPUT, "'add_bos_token' must be true or false"},
    };

    (void)state;
    assert_all_refused(cases, sizeof cases / sizeof cases[0], false);
}

static void a_wrong_header_is_refused(void **state)
{
    const char *file = "model.safetensors";
    const struct hostile cases[] = {
        {file, "\"dtype\":\"F16\"", "\"dtype\":\"I64\"", STATUS_UNSUPPORTED, "dtype 'I64'"},
        {file, "\"dtype\":\"F16\"", "\"dtipe\":\"F16\"", STATUS_BAD_INPUT, "has no dtype"},
        {file, "\"dtype\":\"F16\"", "\"dtype\":\"F32\"", STATUS_BAD_INPUT, "needs another number"},
        {file, "\"shape\":[512,256]", "\"shape\":[512,257]", STATUS_BAD_INPUT,
         "needs another number"},
        {file, "\"shape\":[512,256]", "\"shape\":[131072]", STATUS_BAD_INPUT, "tensor 'model.e"},
        {file, "\"shape\":[512,256]", "\"shape\":[512,  0]", STATUS_BAD_INPUT, "not above 0"},
        {file, "\"shape\":[512,256]", "\"shape\":[512,\"6\"]", STATUS_BAD_INPUT, "not above 0"},
        {file, "\"data_offsets\":[0,", "\"data_offsets\":[2,", STATUS_BAD_INPUT, "another number"},
        {file, "\"data_offsets\":[0,262144]", "\"data_offsets\":[2,262146]", STATUS_BAD_INPUT,
         "has a gap before it"},
        {file, "\"data_offsets\":[262144,", "\"data_offsets\":[-1    ,", STATUS_BAD_INPUT,
         "lies outside the file"},
        {file, "model.norm.weight", "model.gnome.weigh", STATUS_UNSUPPORTED, "has no place in"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct tiny_folder folder;
        make_good(&folder, false);
        change(&folder, file, cases[i].from, cases[i].to);
        /* The header's length is what it was: what became longer takes from the padding. */
        struct hf_file *held = tiny_folder_file(&folder, file);
        const uint64_t grown = strlen(cases[i].to) - strlen(cases[i].from);
        uint8_t *bytes = (uint8_t *)(uintptr_t)held->bytes.data;
        bytes_store_u64(bytes, bytes_load_u64(bytes) + grown);
        const bool unplaced = cases[i].status == STATUS_UNSUPPORTED && strstr(cases[i].to, "gnome");
        if (unplaced) {
            /* The tensor that it was is missing too, and that is found first. */
            assert_refused(&folder, STATUS_BAD_INPUT, "here/tiny",
                           "'model.norm.weight' is missing");
            continue;
        }
        assert_refused(&folder, cases[i].status, strstr(cases[i].words, "tensor") ? "here" : file,
                       cases[i].words);
    }
}

static void a_wrong_length_is_refused(void **state)
{
    const char *file = "model.safetensors";
    struct tiny_folder folder;
    struct hf_file *held = NULL;

    (void)state;
    make_good(&folder, false);
    tiny_folder_file(&folder, file)->bytes.size -= 1;
    assert_refused(&folder, STATUS_BAD_INPUT, file, "is the file complete?");
    make_good(&folder, false);
    tiny_folder_file(&folder, file)->bytes.size = 7;
    assert_refused(&folder, STATUS_BAD_INPUT, file, "too short");
    make_good(&folder, false);
    held = tiny_folder_file(&folder, file);
    bytes_store_u64((uint8_t *)(uintptr_t)held->bytes.data, UINT64_MAX);
    assert_refused(&folder, STATUS_BAD_INPUT, file, "claims 18446744073709551615 bytes");
    make_good(&folder, false);
    held = tiny_folder_file(&folder, file);
    bytes_store_u64((uint8_t *)(uintptr_t)held->bytes.data, held->bytes.size - 8);
    assert_refused(&folder, STATUS_BAD_INPUT, file, "not valid JSON");
}

/* As deep as a document's limit and deeper: an answer, no overflow of the stack. */
static void deep_documents_are_refused(void **state)
{
    enum { DEPTH = 200000 };
    char *deep = memory_alloc(1, DEPTH + 32);
    struct tiny_folder folder;

    (void)state;
    assert_non_null(deep);
    memcpy(deep, "{\"a\":", 5);
    memset(deep + 5, '[', DEPTH);
    make_good(&folder, false);
    tiny_folder_replace(&folder, "config.json", deep);
    memory_free(deep);
    assert_refused(&folder, STATUS_BAD_INPUT, "config.json", "maximum parsing depth");
}

static void a_wrong_index_is_refused(void **state)
{
    const char *file = "model.safetensors.index.json";
    const char *part = "\"model-00001-of-00003.safetensors\"";
    const struct hostile cases[] = {
        {file, part, "\"../model-00001-of-00003.safetensors\"", STATUS_BAD_INPUT,
         "does not name a .safetensors file of this folder"},
        {file, part, "\"/etc/x.safetensors\"", STATUS_BAD_INPUT, "does not name a"},
        {file, part, "\"x/y.safetensors\"", STATUS_BAD_INPUT, "does not name a"},
        {file, part, "\"config.json\"", STATUS_BAD_INPUT, "does not name a"},
        {file, part, "\".safetensors\"", STATUS_BAD_INPUT, "does not name a"},
        {file, part, "7", STATUS_BAD_INPUT, "does not name a"},
        {file, part, "\"gone.safetensors\"", STATUS_BAD_INPUT, "holds no gone.safetensors"},
        {file, part, "\"model-00002-of-00003.safetensors\"", STATUS_BAD_INPUT, "not what it says"},
        {file, "\"weight_map\": {", "\"weight_map\": {\"x\": \"model-00001-of-00003.safetensors\",",
         STATUS_BAD_INPUT, "names a tensor that its file does not hold"},
        {file, "weight_map", "weight_cap", STATUS_BAD_INPUT, "weight_map must name"},
    };

    (void)state;
    assert_all_refused(cases, sizeof cases / sizeof cases[0], true);
}

static void missing_files_are_named(void **state)
{
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors"};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tiny_folder folder;
        make_good(&folder, false);
        drop(&folder, names[i]);
        assert_refused(&folder, STATUS_BAD_INPUT, "here/tiny", names[i]);
    }
    for (int i = 0; i < 2; i++) {
        static const char *const spare[] = {"generation_config.json", "tokenizer_config.json"};
        struct error error = {.text = ""};
        struct tiny_folder folder;
        make_good(&folder, false);
        drop(&folder, spare[i]);
        assert_int_equal(open_folder(&folder, &error), STATUS_OK);
        tiny_folder_destroy(&folder);
    }
}

/* An output matrix is needed, unless the configuration says that the embedding is it. */
static void ties_are_what_the_configuration_says(void **state)
{
    struct error error = {.text = ""};
    struct tiny_folder folder;

    (void)state;
    make_good(&folder, false);
    change(&folder, "config.json", "\"tie_word_embeddings\": false",
           "\"tie_word_embeddings\": true");
    assert_int_equal(open_folder(&folder, &error), STATUS_OK);
    change(&folder, "model.safetensors", "lm_head.weight", "lm_tail.weight");
    assert_refused(&folder, STATUS_UNSUPPORTED, "here/tiny", "'lm_tail.weight' has no place");
    make_good(&folder, false);
    change(&folder, "model.safetensors", "lm_head.weight", "lm_tail.weight");
    assert_refused(&folder, STATUS_BAD_INPUT, "here/tiny", "'lm_head.weight' is missing");
}

static void no_allocation_that_fails_does_harm(void **state)
{
    const int64_t before = memory_live_count();
    struct tiny_folder folder;
    int64_t survivors = 0;
    enum status status = STATUS_MEMORY;

    (void)state;
    make_good(&folder, true);
    const int64_t with_folder = memory_live_count();
    /* Thousands of allocations, nearly all of them the JSON library's: most are skipped. */
    for (; status != STATUS_OK; survivors += 1 + survivors / 16) {
        struct error error = {.text = ""};
        memory_fault_set(survivors);
        status = open_folder(&folder, &error);
        memory_fault_set(-1);
        assert_true(status == STATUS_OK || status == STATUS_MEMORY);
        assert_int_equal(memory_live_count(), with_folder);
    }
    assert_true(survivors > 1000);
    tiny_folder_destroy(&folder);
    assert_int_equal(memory_live_count(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_config_is_refused),
        cmocka_unit_test(a_wrong_tokenizer_is_refused),
        cmocka_unit_test(a_wrong_header_is_refused),
        cmocka_unit_test(a_wrong_length_is_refused),
        cmocka_unit_test(deep_documents_are_refused),
        cmocka_unit_test(a_wrong_index_is_refused),
        cmocka_unit_test(missing_files_are_named),
        cmocka_unit_test(ties_are_what_the_configuration_says),
        cmocka_unit_test(no_allocation_that_fails_does_harm),
    };
    const struct tiny_spec tiny = tiny_spec_of(DTYPE_F16, VOCABULARY_BPE, 7);

    good_file = tiny_model_create(&tiny);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    memory_free((void *)(uintptr_t)good_file.data);
    return failed;
}
