#include "model/hf_config.h"

#include <math.h>

#include "base/check.h"
#include "base/memory.h"
#include "limits.h"
#include "model/config.h"
#include "model/rope.h"

static enum status find_architecture(const struct hf_object *object, struct error *error,
                                     const struct architecture **out)
{
    struct bytes type = bytes_of_text("");
    const struct bytes mistral = bytes_of_text("mistral");

    TRY(hf_json_text(object, "model_type", error, &type));
    /* Mistral's blocks are Llama's; its window is a number of the configuration. */
    *out = architecture_find(bytes_equal(type, mistral) ? bytes_of_text("llama") : type);
    if (*out == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s/%s: model_type is '%.*s'; 'llama' and 'mistral' are supported",
                         object->folder, object->file, SHOWN(type));
    }
    return STATUS_OK;
}

/* What would change the numbers and nobody here computes. */
static enum status refuse_unknown(const struct hf_object *object, struct error *error)
{
    static const char *const must_be_absent[] = {"quantization_config", "num_local_experts",
                                                 "layer_types", "attn_logit_softcapping"};
    static const char *const must_be_false[] = {"mlp_bias", "use_sliding_window"};
    struct bytes activation = bytes_of_text("");

    for (size_t i = 0; i < sizeof must_be_absent / sizeof must_be_absent[0]; i++) {
        if (hf_json_field(object, must_be_absent[i]) != NULL) {
            return hf_json_wrong(object, must_be_absent[i], STATUS_UNSUPPORTED, error,
                                 "asks for something that is not supported");
        }
    }
    for (size_t i = 0; i < sizeof must_be_false / sizeof must_be_false[0]; i++) {
        bool value = false;
        TRY(hf_json_bool(object, must_be_false[i], false, error, &value));
        if (value) {
            return hf_json_wrong(object, must_be_false[i], STATUS_UNSUPPORTED, error,
                                 "is true, which is not supported");
        }
    }
    TRY(hf_json_text(object, "hidden_act", error, &activation));
    if (activation.size > 0 && !bytes_equal(activation, bytes_of_text("silu")) &&
        !bytes_equal(activation, bytes_of_text("swish"))) {
        return hf_json_wrong(object, "hidden_act", STATUS_UNSUPPORTED, error,
                             "is not 'silu', the one activation of this family");
    }
    return STATUS_OK;
}

static enum status read_heads(const struct hf_object *object, struct error *error,
                              struct model_config *config)
{
    TRY(hf_json_size(object, "num_attention_heads", 0, CONFIG_SIZE_MAX, error,
                     &config->head_count));
    TRY(hf_json_size(object, "num_key_value_heads", config->head_count, config->head_count, error,
                     &config->kv_head_count));
    const uint32_t usual = config->width / config->head_count;
    TRY(hf_json_size(object, "head_dim", usual, BACKEND_HEAD_SIZE_MAX, error, &config->head_size));
    if (config->head_count % config->kv_head_count != 0) {
        return hf_json_wrong(object, "num_key_value_heads", STATUS_BAD_INPUT, error,
                             "does not divide the number of heads evenly");
    }
    if (config->head_size == 0 || config->head_size > BACKEND_HEAD_SIZE_MAX ||
        config->head_size % 2 != 0) {
        return error_set(
            error, STATUS_BAD_INPUT, "%s/%s: heads of %u elements; an even number up to %d is good",
            object->folder, object->file, config->head_size, (int)BACKEND_HEAD_SIZE_MAX);
    }
    config->rope_pair_count = config->head_size / 2;
    config->attention_scale = 1.0f / sqrtf((float)config->head_size);
    return STATUS_OK;
}

static enum status read_scaling(const struct hf_object *scaling, struct error *error,
                                struct hf_rope *rope)
{
    struct bytes type = bytes_of_text("");
    double partial = 1;

    TRY(hf_json_text(scaling, "rope_type", error, &type));
    if (type.size == 0) {
        TRY(hf_json_text(scaling, "type", error, &type)); /* of older files */
    }
    TRY(hf_json_number(scaling, "partial_rotary_factor", 1, 0, error, &partial));
    if (partial != 1) {
        return hf_json_wrong(scaling, "partial_rotary_factor", STATUS_UNSUPPORTED, error,
                             "is not 1");
    }
    if (type.size == 0 || bytes_equal(type, bytes_of_text("default"))) {
        return STATUS_OK;
    }
    if (bytes_equal(type, bytes_of_text("linear"))) {
        return hf_json_number(scaling, "factor", 0, 0, error, &rope->factor);
    }
    if (!bytes_equal(type, bytes_of_text("llama3"))) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s/%s: rotary positions are scaled by '%.*s'; 'linear' and 'llama3' are "
                         "supported",
                         scaling->folder, scaling->file, SHOWN(type));
    }
    TRY(hf_json_number(scaling, "factor", 0, 0, error, &rope->factor));
    TRY(hf_json_number(scaling, "low_freq_factor", 0, 0, error, &rope->low_frequency_factor));
    TRY(hf_json_number(scaling, "high_freq_factor", 0, rope->low_frequency_factor, error,
                       &rope->high_frequency_factor));
    return hf_json_number(scaling, "original_max_position_embeddings", 0, 0, error,
                          &rope->original_token_count);
}

/* Newer files keep all of it in rope_parameters. */
static enum status read_rope(const struct hf_object *object, struct error *error,
                             struct hf_rope *rope)
{
    struct hf_object newer = {.json = NULL};
    struct hf_object scaling = {.json = NULL};

    rope->factor = 1;
    TRY(hf_json_inside(object, "rope_parameters", "rope_parameters.", error, &newer));
    TRY(hf_json_inside(object, "rope_scaling", "rope_scaling.", error, &scaling));
    TRY(hf_json_number(object, "rope_theta", 10000, 1, error, &rope->base));
    TRY(hf_json_number(&newer, "rope_theta", rope->base, 1, error, &rope->base));
    return read_scaling(newer.json != NULL ? &newer : &scaling, error, rope);
}

enum status hf_config_read(const struct hf_object *object, struct error *error,
                           struct hf_config *out)
{
    struct hf_config config = {.architecture = NULL};
    struct model_config *model = &config.model;
    uint32_t window = 0;
    double epsilon = 0;

    TRY(find_architecture(object, error, &config.architecture));
    TRY(refuse_unknown(object, error));
    model->architecture = config.architecture->name;
    model->rope_style = config.architecture->rope_style;
    model->activation = config.architecture->activation;
    model->embedding_scale = 1;
    model->name = bytes_of_text("");
    TRY(hf_json_size(object, "num_hidden_layers", 0, LAYER_COUNT_MAX, error, &model->layer_count));
    TRY(hf_json_size(object, "hidden_size", 0, CONFIG_SIZE_MAX, error, &model->width));
    TRY(hf_json_size(object, "intermediate_size", 0, CONFIG_SIZE_MAX, error, &model->hidden));
    TRY(hf_json_size(object, "max_position_embeddings", 0, INT32_MAX, error,
                     &model->context_token_count));
    TRY(hf_json_number(object, "rms_norm_eps", 1e-6, 0, error, &epsilon));
    model->norm_epsilon = (float)epsilon;
    TRY(hf_json_bool(object, "tie_word_embeddings", false, error, &model->tied));
    TRY(read_heads(object, error, model));
    /* Below its window a sliding-window model attends to everything, as we do: so its window is
     * the longest context in which our numbers are right. */
    TRY(hf_json_size(object, "sliding_window", model->context_token_count, INT32_MAX, error,
                     &window));
    model->context_token_count =
        window < model->context_token_count ? window : model->context_token_count;
    TRY(read_rope(object, error, &config.rope));
    *out = config;
    return STATUS_OK;
}

/* Llama 3.1: waves that are short beside the original context stay, long ones are stretched by the
 * factor, and between the two the stretch goes over smoothly. In float, as files of other formats
 * carry these numbers. */
static void scale_llama3(const struct hf_rope *rope, uint32_t pair_count, const double *frequencies,
                         float *factors)
{
    const double two_pi = 6.283185307179586;
    const double long_wave = rope->original_token_count / rope->low_frequency_factor;
    const double short_wave = rope->original_token_count / rope->high_frequency_factor;

    for (uint32_t i = 0; i < pair_count; i++) {
        const double wave = two_pi / frequencies[i];
        double factor = 1;
        if (wave > long_wave) {
            factor = rope->factor;
        } else if (wave >= short_wave) {
            const double smooth = (rope->original_token_count / wave - rope->low_frequency_factor) /
                                  (rope->high_frequency_factor - rope->low_frequency_factor);
            factor = 1 / ((1 - smooth) / rope->factor + smooth);
        }
        factors[i] = (float)factor;
    }
}

enum status hf_config_rope(const struct hf_rope *rope, uint32_t pair_count, double **out)
{
    const bool by_wave = rope->original_token_count > 0;
    float factors[BACKEND_HEAD_SIZE_MAX / 2];

    CHECK(pair_count <= BACKEND_HEAD_SIZE_MAX / 2);
    double *frequencies = memory_alloc(pair_count, sizeof(double));
    if (frequencies == NULL) {
        return STATUS_MEMORY;
    }
    rope_inverse_frequencies(rope->base, by_wave ? 1 : rope->factor, NULL, pair_count, frequencies);
    if (by_wave) {
        scale_llama3(rope, pair_count, frequencies, factors);
        rope_inverse_frequencies(rope->base, 1, factors, pair_count, frequencies);
    }
    *out = frequencies;
    return STATUS_OK;
}
