#include "model/config.h"

#include "base/check.h"
#include "kernels/dtype.h"
#include "limits.h"

enum { CONFIG_DTYPE_COUNT = 32 };

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

static enum status config_check_tensor(const struct model_file *file, enum tensor_role role,
                                       uint32_t layer, const struct model_config *config,
                                       struct error *error)
{
    const struct model_tensor *tensor = model_file_tensor(file, role, layer);
    const uint64_t rows = config_extent(config, tensor_kinds[role].rows);
    const uint64_t cols = config_extent(config, tensor_kinds[role].cols);
    char name[TENSOR_NAME_BYTES_MAX];

    CHECK(tensor != NULL);
    CHECK(architecture_tensor_name(file->format->naming, role, layer, name));
    if (dtype_name(tensor->dtype) == NULL) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: tensor '%s' has storage type %u, which is not supported; supported "
                         "are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K and Q6_K",
                         model_file_name(file), name, tensor->dtype);
    }
    if (tensor->dimensions[0] != cols || tensor->dimensions[1] != rows ||
        tensor->dimensions[2] != 1 || tensor->dimensions[3] != 1) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: tensor '%s' has shape [%llu, %llu, %llu, %llu], its metadata asks "
                         "for [%llu, %llu]",
                         model_file_name(file), name, (unsigned long long)tensor->dimensions[0],
                         (unsigned long long)tensor->dimensions[1],
                         (unsigned long long)tensor->dimensions[2],
                         (unsigned long long)tensor->dimensions[3], (unsigned long long)cols,
                         (unsigned long long)rows);
    }
    return STATUS_OK;
}

/* Checks those of a layer, or those outside layers; *found counts them. */
static enum status config_check_roles(const struct model_file *file,
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
        if (model_file_tensor(file, role, layer) != NULL) {
            TRY(config_check_tensor(file, role, layer, config, error));
            (*found)++;
        } else if (need == TENSOR_REQUIRED) {
            char name[TENSOR_NAME_BYTES_MAX];
            CHECK(architecture_tensor_name(file->format->naming, role, layer, name));
            return error_set(error, STATUS_BAD_INPUT, "%s: tensor '%s' is missing",
                             model_file_name(file), name);
        }
    }
    return STATUS_OK;
}

/* For people: the type that the most bytes of the file have. */
static void config_measure(const struct model_file *file, struct model_config *config)
{
    uint64_t bytes[CONFIG_DTYPE_COUNT] = {0};
    uint32_t most = 0;

    for (uint64_t i = 0; i < model_file_tensor_count(file); i++) {
        const struct model_tensor *tensor = model_file_tensor_at(file, i);
        CHECK(tensor->dtype < CONFIG_DTYPE_COUNT);
        config->weight_bytes += tensor->size_bytes;
        bytes[tensor->dtype] += tensor->size_bytes;
        most = bytes[tensor->dtype] > bytes[most] ? tensor->dtype : most;
    }
    config->weights = bytes_of_text(dtype_name(most));
    config->rounds_rows = most != DTYPE_F32 && most != DTYPE_F16;
}

enum status config_check_tensors(const struct model_file *file,
                                 const struct architecture *architecture, struct error *error,
                                 struct model_config *config)
{
    const struct model_tensor *embedding = model_file_tensor(file, TENSOR_EMBEDDING, 0);
    uint64_t found = 0;

    if (embedding != NULL && embedding->dimensions[1] > VOCABULARY_COUNT_MAX) {
        return error_set_limit(error, "VOCABULARY_COUNT_MAX", VOCABULARY_COUNT_MAX,
                               "%s: its vocabulary of %llu tokens is too large",
                               model_file_name(file), (unsigned long long)embedding->dimensions[1]);
    }
    config->vocabulary_count = embedding == NULL ? 0 : (uint32_t)embedding->dimensions[1];
    config->tied = model_file_tensor(file, TENSOR_OUTPUT, 0) == NULL;
    TRY(config_check_roles(file, architecture, 0, false, config, error, &found));
    for (uint32_t layer = 0; layer < config->layer_count; layer++) {
        TRY(config_check_roles(file, architecture, layer, true, config, error, &found));
    }
    /* A tensor that nothing would read means that the numbers would be wrong. */
    for (uint64_t i = 0; found < model_file_tensor_count(file) && i < model_file_tensor_count(file);
         i++) {
        const struct bytes name = model_file_tensor_at(file, i)->name;
        const enum tensor_role role =
            architecture_tensor_role(file->format->naming, name, config->layer_count);
        if (role == TENSOR_ROLE_COUNT || architecture->needs[role] == TENSOR_UNKNOWN) {
            const int shown =
                name.size < TENSOR_NAME_BYTES_MAX ? (int)name.size : TENSOR_NAME_BYTES_MAX;
            return error_set(error, STATUS_UNSUPPORTED,
                             "%s: tensor '%.*s' has no place in the architecture '%s'",
                             model_file_name(file), shown, (const char *)name.data,
                             architecture->name);
        }
    }
    config_measure(file, config);
    return STATUS_OK;
}
