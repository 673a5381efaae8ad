/* Goal: a model's configuration and vocabulary are what its file says, and a file that we cannot
 * run is refused with a sentence that names the key or tensor and says what is wrong.
 *
 * Method: tiny models, whole or with a few bytes changed in place. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/sha256.h"
#include "kernels/dtype.h"
#include "model/architecture.h"
#include "model/model.h"
#include "support/gguf_writer.h"
#include "support/tiny_model.h"

/* A tiny model whose bytes can be changed. */
struct sample {
    uint8_t *bytes; /* owned */
    size_t size;
};

static struct sample sample_of(const struct tiny_spec *spec)
{
    const struct bytes file = tiny_model_create(spec);
    const struct sample sample = {(uint8_t *)(uintptr_t)file.data, file.size};

    return sample;
}

static struct sample sample_make(void)
{
    const struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 3);

    return sample_of(&spec);
}

static uint8_t *sample_find(const struct sample *sample, const char *text)
{
    uint8_t *at = memmem(sample->bytes, sample->size, text, strlen(text));

    assert_non_null(at);
    return at;
}

/* The u32 or f32 value of a scalar key: after the key comes its type. */
static uint8_t *sample_value(const struct sample *sample, const char *key)
{
    return sample_find(sample, key) + strlen(key) + 4;
}

static struct model *sample_open(const struct sample *sample)
{
    struct error error = {0};
    struct model *model = NULL;

    const enum status status =
        model_open_bytes(bytes_of(sample->bytes, sample->size), "x.gguf", &error, &model);
    if (status != STATUS_OK) {
        print_message("%s\n", error.text);
    }
    assert_int_equal(status, STATUS_OK);
    return model;
}

/* Frees the sample. */
static void sample_refused(struct sample sample, enum status status, const char *word)
{
    struct error error = {0};
    struct model *model = NULL;

    const enum status got =
        model_open_bytes(bytes_of(sample.bytes, sample.size), "x.gguf", &error, &model);
    if (got != status || strstr(error.text, word) == NULL) {
        print_message("wanted '%s', got %s: %s\n", word, status_name(got), error.text);
    }
    assert_int_equal(got, status);
    assert_int_equal(error.status, status);
    assert_non_null(strstr(error.text, "x.gguf"));
    assert_non_null(strstr(error.text, word));
    assert_null(model);
    memory_free(sample.bytes);
}

static struct sample with_u32(const char *key, uint32_t value)
{
    struct sample sample = sample_make();

    bytes_store_u32(sample_value(&sample, key), value);
    return sample;
}

static struct sample with_f32(const char *key, float value)
{
    struct sample sample = sample_make();

    memcpy(sample_value(&sample, key), &value, sizeof(value));
    return sample;
}

/* The first place of a text overwritten by another of the same length. */
static struct sample with_text(const char *from, const char *to)
{
    struct sample sample = sample_make();

    assert_int_equal(strlen(from), strlen(to));
    memcpy(sample_find(&sample, from), to, strlen(to));
    return sample;
}

/* ---- good models ---- */

static void the_configuration_is_what_the_file_says(void **state)
{
    struct sample sample = sample_make();
    struct model *model = sample_open(&sample);
    const struct model_config *config = model_config(model);
    uint8_t hash[SHA256_BYTES];

    (void)state;
    assert_string_equal(config->architecture, "llama");
    assert_true(bytes_equal(config->name, bytes_of_text("tiny")));
    assert_true(bytes_equal(config->weights, bytes_of_text("Q4_1")));
    assert_int_equal(config->layer_count, 2);
    assert_int_equal(config->width, 256);
    assert_int_equal(config->head_count, 4);
    assert_int_equal(config->kv_head_count, 2);
    assert_int_equal(config->head_size, 64);
    assert_int_equal(config->hidden, 512);
    assert_int_equal(config->vocabulary_count, 512);
    assert_int_equal(config->context_token_count, 4096);
    assert_int_equal(config->rope_pair_count, 32);
    assert_int_equal(config->rope_style, ROPE_ADJACENT);
    assert_false(config->tied);
    assert_true(config->norm_epsilon == 1e-5f);
    assert_true(config->attention_scale == 0.125f);
    assert_true(config->inverse_frequency[0] == 1.0);
    sha256_bytes(bytes_of(sample.bytes, sample.size), hash);
    assert_memory_equal(model_hash(model), hash, MODEL_HASH_BYTES);
    model_close(model);
    memory_free(sample.bytes);
}

static void optional_parts_are_seen(void **state)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_SPM, 3);

    (void)state;
    spec.tied = true;
    spec.rope_linear = 4;
    spec.rope_factors = true;
    struct sample sample = sample_of(&spec);
    struct model *model = sample_open(&sample);
    const struct model_config *config = model_config(model);
    assert_true(config->tied);
    /* Linear 4 and factors of 1.5 to 2.5. */
    assert_true(config->inverse_frequency[0] > 1 / (4 * 2.5) - 1e-9);
    assert_true(config->inverse_frequency[0] < 1 / (4 * 1.5) + 1e-9);
    model_close(model);
    memory_free(sample.bytes);
}

static void a_sliding_window_bounds_the_context(void **state)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 3);

    (void)state;
    spec.window = 1000;
    struct sample sample = sample_of(&spec);
    struct model *model = sample_open(&sample);
    assert_int_equal(model_config(model)->context_token_count, 1000);
    model_close(model);
    memory_free(sample.bytes);
}

static void vocabularies_of_both_kinds_are_read(void **state)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q8_0, VOCABULARY_BPE, 3);

    (void)state;
    struct sample sample = sample_of(&spec);
    struct model *model = sample_open(&sample);
    const struct vocabulary *vocabulary = model_vocabulary(model);
    assert_int_equal(vocabulary->kind, VOCABULARY_BPE);
    assert_int_equal(vocabulary->token_count, 512);
    assert_true(vocabulary->merge_count >= 512 - 256 - 3);
    assert_true(bytes_equal(vocabulary->pre, bytes_of_text("smollm")));
    assert_true(bytes_equal(vocabulary->tokens[vocabulary->bos], bytes_of_text("<|im_start|>")));
    assert_int_equal(vocabulary->types[vocabulary->bos], TOKEN_CONTROL);
    assert_null(vocabulary->scores);
    assert_false(vocabulary->add_bos);
    assert_int_equal(vocabulary->eom, TOKEN_NONE);
    assert_true(vocabulary->chat_template.size > 0);
    model_close(model);
    memory_free(sample.bytes);

    spec.tokenizer = VOCABULARY_SPM;
    sample = sample_of(&spec);
    model = sample_open(&sample);
    vocabulary = model_vocabulary(model);
    assert_int_equal(vocabulary->kind, VOCABULARY_SPM);
    assert_int_equal(vocabulary->merge_count, 0);
    assert_non_null(vocabulary->scores);
    assert_true(vocabulary->add_bos);
    assert_true(vocabulary->add_space_prefix);
    assert_int_equal(vocabulary->types[3], TOKEN_BYTE);
    assert_int_equal(vocabulary->types[vocabulary->unknown], TOKEN_UNKNOWN);
    model_close(model);
    memory_free(sample.bytes);
}

/* ---- bad models ---- */

static void other_architectures_are_refused(void **state)
{
    struct sample sample = with_text("general.architecture", "general.architecturx");

    (void)state;
    sample_refused(sample, STATUS_BAD_INPUT, "'general.architecture' is missing");
    sample = sample_make();
    memcpy(sample_find(&sample, "llama"), "gemma", 5);
    sample_refused(sample, STATUS_UNSUPPORTED, "architecture 'gemma' is not supported");
}

static void wrong_keys_are_named(void **state)
{
    (void)state;
    sample_refused(with_text("llama.block_count", "llama.block_counx"), STATUS_BAD_INPUT,
                   "'llama.block_count' is missing");
    sample_refused(with_u32("llama.block_count", 0), STATUS_BAD_INPUT, "'llama.block_count' is 0");
    sample_refused(with_u32("llama.block_count", 100000), STATUS_BAD_INPUT, "llama.block_count");
    sample_refused(with_u32("llama.attention.head_count_kv", 3), STATUS_BAD_INPUT,
                   "4 heads cannot share 3 KV heads");
    sample_refused(with_u32("llama.attention.head_count_kv", 0), STATUS_BAD_INPUT,
                   "'llama.attention.head_count_kv' is 0");
    sample_refused(with_u32("llama.attention.key_length", 512), STATUS_BAD_INPUT, "key_length");
    sample_refused(with_u32("llama.attention.value_length", 32), STATUS_UNSUPPORTED,
                   "keys of 64 and values of 32");
    sample_refused(with_u32("llama.rope.dimension_count", 63), STATUS_BAD_INPUT, "odd");
    sample_refused(with_f32("llama.rope.freq_base", NAN), STATUS_BAD_INPUT,
                   "'llama.rope.freq_base' is nan");
    sample_refused(with_f32("llama.rope.freq_base", 1), STATUS_BAD_INPUT, "freq_base");
    sample_refused(with_f32("layer_norm_rms_epsilon", -1), STATUS_BAD_INPUT, "epsilon");
}

static void unsupported_features_are_named(void **state)
{
    struct tiny_spec spec = tiny_spec_of(DTYPE_Q4_1, VOCABULARY_BPE, 3);

    (void)state;
    spec.rope_linear = 2;
    struct sample sample = sample_of(&spec);
    memcpy(sample_find(&sample, "linear"), "longer", 6);
    sample_refused(sample, STATUS_UNSUPPORTED, "'llama.rope.scaling.type' is 'longer'");
    spec.rope_linear = -2;
    sample_refused(sample_of(&spec), STATUS_BAD_INPUT, "'llama.rope.scaling.factor' is -2");
}

static void missing_and_misshapen_tensors_are_named(void **state)
{
    struct sample sample = with_text("output_norm.weight", "output_norx.weight");

    (void)state;
    sample_refused(sample, STATUS_BAD_INPUT, "'output_norm.weight' is missing");
    sample_refused(with_text("blk.1.attn_q.weight", "blk.1.attn_x.weight"), STATUS_BAD_INPUT,
                   "'blk.1.attn_q.weight' is missing");
    sample_refused(with_u32("llama.feed_forward_length", 256), STATUS_BAD_INPUT,
                   "'blk.0.ffn_gate.weight' has shape [256, 512, 1, 1]");
    /* One layer less than the file has tensors for. */
    sample_refused(with_u32("llama.block_count", 1), STATUS_UNSUPPORTED,
                   "has no place in the architecture");
}

static void an_unknown_weight_type_is_named(void **state)
{
    struct sample sample = sample_make();
    const char *name = "blk.0.attn_q.weight";

    (void)state;
    bytes_store_u32(sample_find(&sample, name) + strlen(name) + 4 + 16, 23);
    sample_refused(sample, STATUS_UNSUPPORTED, "'blk.0.attn_q.weight' has storage type 23");
}

static void wrong_vocabularies_are_named(void **state)
{
    struct sample sample = sample_make();

    (void)state;
    memcpy(sample_find(&sample, "gpt2"), "bert", 4);
    sample_refused(sample, STATUS_UNSUPPORTED, "'tokenizer.ggml.model' is 'bert'");
    sample_refused(with_u32("tokenizer.ggml.eos_token_id", 512), STATUS_BAD_INPUT,
                   "'tokenizer.ggml.eos_token_id' is 512");
    sample_refused(with_text("tokenizer.ggml.merges", "tokenizer.ggml.mergex"), STATUS_BAD_INPUT,
                   "'tokenizer.ggml.merges' is missing");
}

static void running_out_of_memory_is_an_answer(void **state)
{
    struct sample sample = sample_make();
    const int64_t before = memory_live_count();
    bool opened = false;

    (void)state;
    for (int64_t survivors = 0; !opened; survivors++) {
        struct model *model = NULL;
        memory_fault_set(survivors);
        const enum status status =
            model_open_bytes(bytes_of(sample.bytes, sample.size), "x", NULL, &model);
        memory_fault_set(-1);
        opened = status == STATUS_OK;
        assert_true(opened || status == STATUS_MEMORY);
        model_close(model);
        assert_int_equal(memory_live_count(), before);
    }
    memory_free(sample.bytes);
}

static void a_tiny_model_is_the_same_every_time(void **state)
{
    struct sample a = sample_make();
    struct sample b = sample_make();

    (void)state;
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.bytes, b.bytes, a.size);
    memory_free(a.bytes);
    memory_free(b.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_configuration_is_what_the_file_says),
        cmocka_unit_test(optional_parts_are_seen),
        cmocka_unit_test(a_sliding_window_bounds_the_context),
        cmocka_unit_test(vocabularies_of_both_kinds_are_read),
        cmocka_unit_test(other_architectures_are_refused),
        cmocka_unit_test(wrong_keys_are_named),
        cmocka_unit_test(unsupported_features_are_named),
        cmocka_unit_test(missing_and_misshapen_tensors_are_named),
        cmocka_unit_test(an_unknown_weight_type_is_named),
        cmocka_unit_test(wrong_vocabularies_are_named),
        cmocka_unit_test(running_out_of_memory_is_an_answer),
        cmocka_unit_test(a_tiny_model_is_the_same_every_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
