#include "model/gguf_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "limits.h"
#include "model/architecture.h"
#include "model/config.h"
#include "model/rope.h"

enum { GGUF_CONFIG_KEY_BYTES_MAX = 128 };

static const char rope_factors_name[] = "rope_freqs.weight";

/* Where keys of a family are looked up. */
struct gguf_config_keys {
    const struct gguf *gguf;
    const char *prefix;
    struct error *error;
};

static const char *gguf_config_key(const struct gguf_config_keys *keys, const char *name,
                                   char key[GGUF_CONFIG_KEY_BYTES_MAX])
{
    (void)snprintf(key, GGUF_CONFIG_KEY_BYTES_MAX, "%s.%s", keys->prefix, name);
    return key;
}

/* A size of at least 1. `absent` 0: the key must be there. */
static enum status gguf_config_size(const struct gguf_config_keys *keys, const char *name,
                                    uint32_t absent, uint32_t size_max, uint32_t *out)
{
    char key[GGUF_CONFIG_KEY_BYTES_MAX];
    uint32_t value = absent;
    const enum status status =
        gguf_get_u32(keys->gguf, gguf_config_key(keys, name, key), keys->error, &value);

    if (status != STATUS_OK && (status != STATUS_NOT_FOUND || absent == 0)) {
        return status;
    }
    if (value == 0 || value > size_max) {
        return error_set(keys->error, STATUS_BAD_INPUT, "%s: key '%s' is %u; 1 to %u are good",
                         gguf_name(keys->gguf), key, value, size_max);
    }
    *out = value;
    return STATUS_OK;
}

/* A number above `above`, below 1e12. `absent` 0: the key must be there. */
static enum status gguf_config_number(const struct gguf_config_keys *keys, const char *name,
                                      double absent, double above, double *out)
{
    char key[GGUF_CONFIG_KEY_BYTES_MAX];
    double value = absent;
    const enum status status =
        gguf_get_f64(keys->gguf, gguf_config_key(keys, name, key), keys->error, &value);

    if (status != STATUS_OK && (status != STATUS_NOT_FOUND || absent == 0)) {
        return status;
    }
    if (!(value > above) || !(value < 1e12)) { /* also refuses NaN */
        return error_set(keys->error, STATUS_BAD_INPUT, "%s: key '%s' is %g, it must be above %g",
                         gguf_name(keys->gguf), key, value, above);
    }
    *out = value;
    return STATUS_OK;
}

/* Features that files of this family may announce and that are not there yet. */
static enum status gguf_config_refuse(const struct gguf_config_keys *keys, const char *name)
{
    char key[GGUF_CONFIG_KEY_BYTES_MAX];
    uint32_t value = 0;
    const enum status status =
        gguf_get_u32(keys->gguf, gguf_config_key(keys, name, key), NULL, &value);

    if (status == STATUS_NOT_FOUND || (status == STATUS_OK && value == 0)) {
        return STATUS_OK;
    }
    return error_set(keys->error, STATUS_UNSUPPORTED,
                     "%s: key '%s' asks for something that is not supported", gguf_name(keys->gguf),
                     key);
}

static enum status gguf_config_heads(const struct gguf_config_keys *keys,
                                     struct model_config *config)
{
    uint32_t value_size = 0;

    TRY(gguf_config_size(keys, "attention.head_count", 0, CONFIG_SIZE_MAX, &config->head_count));
    TRY(gguf_config_size(keys, "attention.head_count_kv", config->head_count, config->head_count,
                         &config->kv_head_count));
    const uint32_t usual = config->width / config->head_count;
    TRY(gguf_config_size(keys, "attention.key_length", usual, BACKEND_HEAD_SIZE_MAX,
                         &config->head_size));
    TRY(gguf_config_size(keys, "attention.value_length", config->head_size, BACKEND_HEAD_SIZE_MAX,
                         &value_size));
    if (config->head_count % config->kv_head_count != 0) {
        return error_set(keys->error, STATUS_BAD_INPUT,
                         "%s: %u heads cannot share %u KV heads evenly", gguf_name(keys->gguf),
                         config->head_count, config->kv_head_count);
    }
    if (value_size != config->head_size) {
        return error_set(keys->error, STATUS_UNSUPPORTED,
                         "%s: keys of %u and values of %u elements a head: they must be equal",
                         gguf_name(keys->gguf), config->head_size, value_size);
    }
    return STATUS_OK;
}

static enum status gguf_config_find(const struct gguf *gguf, struct error *error,
                                    const struct architecture **out)
{
    struct bytes name = bytes_of_text("");

    TRY(gguf_get_text(gguf, "general.architecture", error, &name));
    const struct architecture *architecture = architecture_find(name);
    if (architecture == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: the architecture '%.*s' is not supported; supported: %s",
                         gguf_name(gguf), name.size < 32 ? (int)name.size : 32,
                         (const char *)name.data, architecture_list());
    }
    *out = architecture;
    return STATUS_OK;
}

enum status gguf_config_read(const struct gguf *gguf, struct error *error,
                             const struct architecture **architecture, struct model_config *out)
{
    const struct architecture *found = NULL;

    TRY(gguf_config_find(gguf, error, &found));
    const struct gguf_config_keys keys = {gguf, found->name, error};
    struct model_config config = {
        .architecture = found->name,
        .rope_style = found->rope_style,
        .activation = found->activation,
        .embedding_scale = 1,
    };
    uint32_t window = 0;
    uint32_t rope_size = 0;
    double epsilon = 0;

    if (gguf_get_text(gguf, "general.name", NULL, &config.name) != STATUS_OK) {
        config.name = bytes_of_text("");
    }
    TRY(gguf_config_refuse(&keys, "expert_count"));
    TRY(gguf_config_size(&keys, "block_count", 0, LAYER_COUNT_MAX, &config.layer_count));
    TRY(gguf_config_size(&keys, "embedding_length", 0, CONFIG_SIZE_MAX, &config.width));
    TRY(gguf_config_size(&keys, "feed_forward_length", 0, CONFIG_SIZE_MAX, &config.hidden));
    TRY(gguf_config_size(&keys, "context_length", 0, INT32_MAX, &config.context_token_count));
    TRY(gguf_config_heads(&keys, &config));
    TRY(gguf_config_number(&keys, "attention.layer_norm_rms_epsilon", 0, 0, &epsilon));
    config.norm_epsilon = (float)epsilon;
    TRY(gguf_config_size(&keys, "rope.dimension_count", config.head_size, config.head_size,
                         &rope_size));
    if (rope_size % 2 != 0) {
        return error_set(error, STATUS_BAD_INPUT, "%s: key '%s.rope.dimension_count' is odd",
                         gguf_name(gguf), keys.prefix);
    }
    config.rope_pair_count = rope_size / 2;
    config.attention_scale = 1.0f / sqrtf((float)config.head_size);
    /* Below its window a sliding-window model attends to everything, as we do: so its window is
     * the longest context in which our numbers are right. */
    TRY(gguf_config_size(&keys, "attention.sliding_window", config.context_token_count, UINT32_MAX,
                         &window));
    if (window < config.context_token_count) {
        config.context_token_count = window;
    }
    *architecture = found;
    *out = config;
    return STATUS_OK;
}

/* ---- rotary positions ---- */

static enum status gguf_config_rope_factor(const struct gguf_config_keys *keys, double *out)
{
    char key[GGUF_CONFIG_KEY_BYTES_MAX];
    struct bytes type = bytes_of_text("");
    double factor = 1;

    const enum status status = gguf_get_text(
        keys->gguf, gguf_config_key(keys, "rope.scaling.type", key), keys->error, &type);
    if (status == STATUS_BAD_INPUT) {
        return status;
    }
    if (bytes_equal(type, bytes_of_text("linear"))) {
        TRY(gguf_config_number(keys, "rope.scaling.factor", 0, 0, &factor));
    } else if (type.size == 0) {
        TRY(gguf_config_number(keys, "rope.scale_linear", 1, 0, &factor)); /* of older files */
    } else if (!bytes_equal(type, bytes_of_text("none"))) {
        return error_set(keys->error, STATUS_UNSUPPORTED,
                         "%s: key '%s' is '%.*s'; 'none' and 'linear' are supported, and factors "
                         "in rope_freqs.weight",
                         gguf_name(keys->gguf), key, type.size < 32 ? (int)type.size : 32,
                         (const char *)type.data);
    }
    *out = factor;
    return STATUS_OK;
}

/* One factor a pair, as files of the Llama 3.1 kind carry them. */
static enum status gguf_config_read_factors(const struct gguf *gguf, struct error *error,
                                            uint32_t pair_count, float *out)
{
    const struct model_tensor *tensor = gguf_tensor_find(gguf, rope_factors_name);

    CHECK(tensor->dimensions[0] == pair_count);
    if (tensor->dtype != DTYPE_F32) {
        return error_set(error, STATUS_UNSUPPORTED, "%s: tensor 'rope_freqs.weight' must be F32",
                         gguf_name(gguf));
    }
    TRY(gguf_tensor_read(gguf, tensor, error, out));
    for (uint32_t i = 0; i < pair_count; i++) {
        if (!(out[i] > 0) || !(out[i] < 1e12f)) {
            return error_set(error, STATUS_BAD_INPUT,
                             "%s: tensor 'rope_freqs.weight' holds %g; factors are above 0",
                             gguf_name(gguf), (double)out[i]);
        }
    }
    return STATUS_OK;
}

enum status gguf_config_read_rope(const struct gguf *gguf, const struct model_config *config,
                                  struct error *error, double **out)
{
    const struct gguf_config_keys keys = {gguf, config->architecture, error};
    const bool has_factors = gguf_tensor_find(gguf, rope_factors_name) != NULL;
    const uint32_t pair_count = config->rope_pair_count;
    float factors[BACKEND_HEAD_SIZE_MAX / 2];
    double base = 0;
    double linear = 1;

    CHECK(pair_count <= BACKEND_HEAD_SIZE_MAX / 2);
    TRY(gguf_config_number(&keys, "rope.freq_base", 10000, 1, &base));
    TRY(gguf_config_rope_factor(&keys, &linear));
    if (has_factors) {
        TRY(gguf_config_read_factors(gguf, error, pair_count, factors));
    }
    double *inverse_frequency = memory_alloc(pair_count, sizeof(double));
    if (inverse_frequency == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory", gguf_name(gguf));
    }
    rope_inverse_frequencies(base, linear, has_factors ? factors : NULL, pair_count,
                             inverse_frequency);
    *out = inverse_frequency;
    return STATUS_OK;
}

/* ---- as a format ---- */

static const char *gguf_format_name(const void *reader)
{
    return gguf_name(reader);
}

static const struct model_tensor *gguf_format_find(const void *reader, const char *name)
{
    return gguf_tensor_find(reader, name);
}

static uint64_t gguf_format_count(const void *reader)
{
    return gguf_tensor_count(reader);
}

static const struct model_tensor *gguf_format_at(const void *reader, uint64_t index)
{
    return gguf_tensor_at(reader, index);
}

/* Converters have put the rows into the order of the architecture's rope style. */
static enum status gguf_format_read(const void *reader, const struct model_tensor *tensor,
                                    struct error *error, void *to)
{
    return gguf_tensor_read(reader, tensor, error, to);
}

static enum status gguf_format_config(const void *reader, struct error *error,
                                      const struct architecture **architecture,
                                      struct model_config *out)
{
    return gguf_config_read(reader, error, architecture, out);
}

static enum status gguf_format_rope(const void *reader, const struct model_config *config,
                                    struct error *error, double **out)
{
    return gguf_config_read_rope(reader, config, error, out);
}

static enum status gguf_format_tokens(const void *reader, uint32_t token_count, struct error *error,
                                      struct token_table *out)
{
    return token_table_init(reader, token_count, error, out);
}

static enum status gguf_format_hash(void *reader, struct error *error,
                                    uint8_t out[MODEL_HASH_BYTES])
{
    return gguf_hash(reader, error, out);
}

static void gguf_format_close(void *reader)
{
    gguf_close(reader);
}

const struct model_format gguf_format = {
    .name = gguf_format_name,
    .naming = NAMING_GGUF,
    .tensor_find = gguf_format_find,
    .tensor_count = gguf_format_count,
    .tensor_at = gguf_format_at,
    .tensor_read = gguf_format_read,
    .config_read = gguf_format_config,
    .rope_read = gguf_format_rope,
    .tokens_read = gguf_format_tokens,
    .hash = gguf_format_hash,
    .close = gguf_format_close,
};
