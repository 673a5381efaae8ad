#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "limits.h"
#include "model/rope.h"

enum { CONFIG_KEY_BYTES_MAX = 128, CONFIG_SIZE_MAX = 1 << 24, CONFIG_DTYPE_COUNT = 32 };

/* Where keys of a family are looked up. */
struct config_keys {
    const struct gguf *gguf;
    const char *prefix;
    struct error *error;
};

static const char *config_key(const struct config_keys *keys, const char *name,
                              char key[CONFIG_KEY_BYTES_MAX])
{
    (void)snprintf(key, CONFIG_KEY_BYTES_MAX, "%s.%s", keys->prefix, name);
    return key;
}

/* A size of at least 1. `absent` 0: the key must be there. */
static enum status config_size(const struct config_keys *keys, const char *name, uint32_t absent,
                               uint32_t size_max, uint32_t *out)
{
    char key[CONFIG_KEY_BYTES_MAX];
    uint32_t value = absent;
    const enum status status =
        gguf_get_u32(keys->gguf, config_key(keys, name, key), keys->error, &value);

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
static enum status config_number(const struct config_keys *keys, const char *name, double absent,
                                 double above, double *out)
{
    char key[CONFIG_KEY_BYTES_MAX];
    double value = absent;
    const enum status status =
        gguf_get_f64(keys->gguf, config_key(keys, name, key), keys->error, &value);

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
static enum status config_refuse(const struct config_keys *keys, const char *name)
{
    char key[CONFIG_KEY_BYTES_MAX];
    uint32_t value = 0;
    const enum status status = gguf_get_u32(keys->gguf, config_key(keys, name, key), NULL, &value);

    if (status == STATUS_NOT_FOUND || (status == STATUS_OK && value == 0)) {
        return STATUS_OK;
    }
    return error_set(keys->error, STATUS_UNSUPPORTED,
                     "%s: key '%s' asks for something that is not supported", gguf_name(keys->gguf),
                     key);
}

static enum status config_heads(const struct config_keys *keys, struct model_config *config)
{
    uint32_t value_size = 0;

    TRY(config_size(keys, "attention.head_count", 0, CONFIG_SIZE_MAX, &config->head_count));
    TRY(config_size(keys, "attention.head_count_kv", config->head_count, config->head_count,
                    &config->kv_head_count));
    const uint32_t usual = config->width / config->head_count;
    TRY(config_size(keys, "attention.key_length", usual, BACKEND_HEAD_SIZE_MAX,
                    &config->head_size));
    TRY(config_size(keys, "attention.value_length", config->head_size, BACKEND_HEAD_SIZE_MAX,
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

enum status config_read(const struct gguf *gguf, const struct architecture *architecture,
                        struct error *error, struct model_config *out)
{
    const struct config_keys keys = {gguf, architecture->name, error};
    struct model_config config = {
        .architecture = architecture->name,
        .rope_style = architecture->rope_style,
        .activation = architecture->activation,
        .embedding_scale = 1,
    };
    uint32_t window = 0;
    uint32_t rope_size = 0;
    double epsilon = 0;

    if (gguf_get_text(gguf, "general.name", NULL, &config.name) != STATUS_OK) {
        config.name = bytes_of_text("");
    }
    TRY(config_refuse(&keys, "expert_count"));
    TRY(config_size(&keys, "block_count", 0, LAYER_COUNT_MAX, &config.layer_count));
    TRY(config_size(&keys, "embedding_length", 0, CONFIG_SIZE_MAX, &config.width));
    TRY(config_size(&keys, "feed_forward_length", 0, CONFIG_SIZE_MAX, &config.hidden));
    TRY(config_size(&keys, "context_length", 0, INT32_MAX, &config.context_token_count));
    TRY(config_heads(&keys, &config));
    TRY(config_number(&keys, "attention.layer_norm_rms_epsilon", 0, 0, &epsilon));
    config.norm_epsilon = (float)epsilon;
    TRY(config_size(&keys, "rope.dimension_count", config.head_size, config.head_size, &rope_size));
    if (rope_size % 2 != 0) {
        return error_set(error, STATUS_BAD_INPUT, "%s: key '%s.rope.dimension_count' is odd",
                         gguf_name(gguf), keys.prefix);
    }
    config.rope_pair_count = rope_size / 2;
    config.attention_scale = 1.0f / sqrtf((float)config.head_size);
    /* Below its window a sliding-window model attends to everything, as we do: so its window is
     * the longest context in which our numbers are right. */
    TRY(config_size(&keys, "attention.sliding_window", config.context_token_count, UINT32_MAX,
                    &window));
    if (window < config.context_token_count) {
        config.context_token_count = window;
    }
    *out = config;
    return STATUS_OK;
}

/* ---- tensors ---- */

const struct gguf_tensor *config_tensor(const struct gguf *gguf, enum tensor_role role,
                                        uint32_t layer)
{
    char name[TENSOR_NAME_BYTES_MAX];

    architecture_tensor_name(role, layer, name);
    return gguf_tensor_find(gguf, name);
}

static uint64_t config_extent(const struct model_config *config, enum tensor_extent extent)
{
    const uint64_t extents[EXTENT_COUNT] = {
        [EXTENT_ONE] = 1,
        [EXTENT_WIDTH] = config->width,
        [EXTENT_VOCABULARY] = config->vocabulary_count,
        [EXTENT_QUERY] = (uint64_t)config->head_count * config->head_size,
        [EXTENT_KV] = (uint64_t)config->kv_head_count * config->head_size,
        [EXTENT_HEAD] = config->head_size,
        [EXTENT_HIDDEN] = config->hidden,
        [EXTENT_ROPE_PAIRS] = config->rope_pair_count,
    };

    CHECK(extent < EXTENT_COUNT);
    return extents[extent];
}

static enum status config_check_tensor(const struct gguf *gguf, enum tensor_role role,
                                       uint32_t layer, const struct model_config *config,
                                       struct error *error)
{
    const struct gguf_tensor *tensor = config_tensor(gguf, role, layer);
    const uint64_t rows = config_extent(config, tensor_kinds[role].rows);
    const uint64_t cols = config_extent(config, tensor_kinds[role].cols);
    char name[TENSOR_NAME_BYTES_MAX];

    CHECK(tensor != NULL);
    architecture_tensor_name(role, layer, name);
    if (dtype_name(tensor->dtype) == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: tensor '%s' has storage type %u, which is not supported; supported "
                         "are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K",
                         gguf_name(gguf), name, tensor->dtype);
    }
    if (tensor->dimensions[0] != cols || tensor->dimensions[1] != rows ||
        tensor->dimensions[2] != 1 || tensor->dimensions[3] != 1) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: tensor '%s' has shape [%llu, %llu, %llu, %llu], its metadata asks "
                         "for [%llu, %llu]",
                         gguf_name(gguf), name, (unsigned long long)tensor->dimensions[0],
                         (unsigned long long)tensor->dimensions[1],
                         (unsigned long long)tensor->dimensions[2],
                         (unsigned long long)tensor->dimensions[3], (unsigned long long)cols,
                         (unsigned long long)rows);
    }
    return STATUS_OK;
}

/* Checks those of a layer, or those outside layers; *found counts them. */
static enum status config_check_roles(const struct gguf *gguf,
                                      const struct architecture *architecture, uint32_t layer,
                                      bool of_layer, const struct model_config *config,
                                      struct error *error, uint64_t *found)
{
    const int from = of_layer ? TENSOR_LAYER_FIRST : 0;
    const int to = of_layer ? TENSOR_ROLE_COUNT : TENSOR_LAYER_FIRST;

    for (int role = from; role < to; role++) {
        const enum tensor_need need = architecture->needs[role];
        if (need == TENSOR_UNKNOWN) {
            continue;
        }
        if (config_tensor(gguf, role, layer) != NULL) {
            TRY(config_check_tensor(gguf, role, layer, config, error));
            (*found)++;
        } else if (need == TENSOR_REQUIRED) {
            char name[TENSOR_NAME_BYTES_MAX];
            architecture_tensor_name(role, layer, name);
            return error_set(error, STATUS_BAD_INPUT, "%s: tensor '%s' is missing", gguf_name(gguf),
                             name);
        }
    }
    return STATUS_OK;
}

/* What follows "blk.N." when N is a layer, else NULL. */
static const char *config_layer_part(const char *name, uint32_t layer_count)
{
    char *end = NULL;

    if (strncmp(name, "blk.", 4) != 0 || name[4] < '0' || name[4] > '9') {
        return NULL;
    }
    const unsigned long layer = strtoul(name + 4, &end, 10);
    return *end == '.' && layer < layer_count ? end + 1 : NULL;
}

static bool config_knows_tensor(const struct architecture *architecture, uint32_t layer_count,
                                struct bytes tensor)
{
    char name[TENSOR_NAME_BYTES_MAX] = "";

    if (tensor.size >= TENSOR_NAME_BYTES_MAX) {
        return false;
    }
    memcpy(name, tensor.data, tensor.size);
    const char *part = config_layer_part(name, layer_count);
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        const char *wanted = role >= TENSOR_LAYER_FIRST ? part : name;
        if (wanted != NULL && strcmp(wanted, tensor_kinds[role].name) == 0) {
            return architecture->needs[role] != TENSOR_UNKNOWN;
        }
    }
    return false;
}

/* For people: the type that the most bytes of the file have. */
static void config_measure(const struct gguf *gguf, struct model_config *config)
{
    uint64_t bytes[CONFIG_DTYPE_COUNT] = {0};
    uint32_t most = 0;

    for (uint64_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(gguf, i);
        CHECK(tensor->dtype < CONFIG_DTYPE_COUNT);
        config->weight_bytes += tensor->size_bytes;
        bytes[tensor->dtype] += tensor->size_bytes;
        most = bytes[tensor->dtype] > bytes[most] ? tensor->dtype : most;
    }
    config->weights = bytes_of_text(dtype_name(most));
}

enum status config_check_tensors(const struct gguf *gguf, const struct architecture *architecture,
                                 struct error *error, struct model_config *config)
{
    const struct gguf_tensor *embedding = config_tensor(gguf, TENSOR_EMBEDDING, 0);
    uint64_t found = 0;

    if (embedding != NULL && embedding->dimensions[1] > VOCABULARY_COUNT_MAX) {
        return error_set_limit(error, "VOCABULARY_COUNT_MAX", VOCABULARY_COUNT_MAX,
                               "%s: its vocabulary of %llu tokens is too large", gguf_name(gguf),
                               (unsigned long long)embedding->dimensions[1]);
    }
    config->vocabulary_count = embedding == NULL ? 0 : (uint32_t)embedding->dimensions[1];
    config->tied = config_tensor(gguf, TENSOR_OUTPUT, 0) == NULL;
    TRY(config_check_roles(gguf, architecture, 0, false, config, error, &found));
    for (uint32_t layer = 0; layer < config->layer_count; layer++) {
        TRY(config_check_roles(gguf, architecture, layer, true, config, error, &found));
    }
    /* A tensor that nothing would read means that the numbers would be wrong. */
    for (uint64_t i = 0; found < gguf_tensor_count(gguf) && i < gguf_tensor_count(gguf); i++) {
        const struct bytes name = gguf_tensor_at(gguf, i)->name;
        if (!config_knows_tensor(architecture, config->layer_count, name)) {
            const int shown =
                name.size < TENSOR_NAME_BYTES_MAX ? (int)name.size : TENSOR_NAME_BYTES_MAX;
            return error_set(error, STATUS_UNSUPPORTED,
                             "%s: tensor '%.*s' has no place in the architecture '%s'",
                             gguf_name(gguf), shown, (const char *)name.data, architecture->name);
        }
    }
    config_measure(gguf, config);
    return STATUS_OK;
}

/* ---- rotary positions ---- */

static enum status config_rope_factor(const struct config_keys *keys, double *out)
{
    char key[CONFIG_KEY_BYTES_MAX];
    struct bytes type = bytes_of_text("");
    double factor = 1;

    const enum status status =
        gguf_get_text(keys->gguf, config_key(keys, "rope.scaling.type", key), keys->error, &type);
    if (status == STATUS_BAD_INPUT) {
        return status;
    }
    if (bytes_equal(type, bytes_of_text("linear"))) {
        TRY(config_number(keys, "rope.scaling.factor", 0, 0, &factor));
    } else if (type.size == 0) {
        TRY(config_number(keys, "rope.scale_linear", 1, 0, &factor)); /* of older files */
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
static enum status config_read_factors(const struct gguf *gguf, struct error *error,
                                       uint32_t pair_count, float *out)
{
    const struct gguf_tensor *tensor = config_tensor(gguf, TENSOR_ROPE_FACTORS, 0);

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

enum status config_read_rope(const struct gguf *gguf, const struct model_config *config,
                             struct error *error, double **out)
{
    const struct config_keys keys = {gguf, config->architecture, error};
    const bool has_factors = config_tensor(gguf, TENSOR_ROPE_FACTORS, 0) != NULL;
    const uint32_t pair_count = config->rope_pair_count;
    float factors[BACKEND_HEAD_SIZE_MAX / 2];
    double base = 0;
    double linear = 1;

    CHECK(pair_count <= BACKEND_HEAD_SIZE_MAX / 2);
    TRY(config_number(&keys, "rope.freq_base", 10000, 1, &base));
    TRY(config_rope_factor(&keys, &linear));
    if (has_factors) {
        TRY(config_read_factors(gguf, error, pair_count, factors));
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
