#include "model/hf_folder.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "kernels/dtype.h"
#include "limits.h"
#include "model/architecture.h"
#include "model/hf_config.h"
#include "model/hf_tokens.h"
#include "model/model_file.h"
#include "model/safetensors.h"

static const char single_name[] = "model.safetensors";
static const char index_name[] = "model.safetensors.index.json";

/* All that a model is made from, beside its weights. */
static const char *const text_names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                         "tokenizer_config.json", "chat_template.jinja"};

struct hf_part {
    const char *name; /* borrowed from the index, or single_name */
    struct safetensors file;
    bool open;
};

struct hf_tensor {
    struct model_tensor tensor; /* first: what others hold is a pointer to it */
    uint32_t part;
    uint32_t half_rows; /* of a head whose rows are put side by side; 0: as they lie */
};

struct hf_folder {
    struct hf_files files;
    struct hf_config config;
    json_t *index;             /* owned; NULL: one file */
    struct hf_part *parts;     /* owned, by name */
    struct hf_tensor *tensors; /* owned, by name */
    uint32_t part_count;
    uint64_t tensor_count;
    uint8_t hash[MODEL_HASH_BYTES];
    bool hashed;
};

static enum status out_of_memory(const struct hf_folder *folder, struct error *error)
{
    return error_set(error, STATUS_MEMORY, "%s: out of memory", folder->files.folder);
}

static int compare_bytes(struct bytes a, struct bytes b)
{
    const size_t size = a.size < b.size ? a.size : b.size;
    const int order = size == 0 ? 0 : memcmp(a.data, b.data, size);

    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* ---- which files ---- */

static int compare_part_names(const void *left, const void *right)
{
    const struct hf_part *a = left;
    const struct hf_part *b = right;

    return strcmp(a->name, b->name);
}

/* The distinct names in the index, in order. */
static enum status list_parts(struct hf_folder *folder, const json_t *map, struct error *error)
{
    const char *tensor = NULL;
    json_t *value = NULL;
    uint32_t count = 0;

    if (json_object_size(map) == 0 || json_object_size(map) > MODEL_TENSOR_COUNT_MAX) {
        return error_set(error, STATUS_BAD_INPUT, "%s/%s: weight_map must name 1 to %d tensors",
                         folder->files.folder, index_name, (int)MODEL_TENSOR_COUNT_MAX);
    }
    folder->parts = memory_alloc(json_object_size(map), sizeof(*folder->parts));
    if (folder->parts == NULL) {
        return out_of_memory(folder, error);
    }
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        if (!json_is_string(value) || !hf_files_name_is_plain(hf_json_bytes(value))) {
            return error_set(error, STATUS_BAD_INPUT,
                             "%s/%s: tensor '%.100s' does not name a .safetensors file of this "
                             "folder",
                             folder->files.folder, index_name, tensor);
        }
        folder->parts[count++].name = json_string_value(value);
    }
    qsort(folder->parts, count, sizeof(*folder->parts), compare_part_names);
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(folder->parts[i].name, folder->parts[i - 1].name) != 0) {
            folder->parts[folder->part_count++].name = folder->parts[i].name;
        }
    }
    if (folder->part_count > MODEL_FILE_COUNT_MAX) {
        return error_set_limit(error, "MODEL_FILE_COUNT_MAX", MODEL_FILE_COUNT_MAX,
                               "%s/%s: names %u files, at most %d are read", folder->files.folder,
                               index_name, folder->part_count, (int)MODEL_FILE_COUNT_MAX);
    }
    return STATUS_OK;
}

static enum status find_parts(struct hf_folder *folder, struct error *error)
{
    if (hf_files_has(&folder->files, single_name)) {
        folder->parts = memory_alloc(1, sizeof(*folder->parts));
        if (folder->parts == NULL) {
            return out_of_memory(folder, error);
        }
        folder->parts[0].name = single_name;
        folder->part_count = 1;
        return STATUS_OK;
    }
    if (!hf_files_has(&folder->files, index_name)) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: holds neither %s nor %s; weights in other formats are not read",
                         folder->files.folder, single_name, index_name);
    }
    TRY(hf_json_load(&folder->files, index_name, error, &folder->index));
    return list_parts(folder, json_object_get(folder->index, "weight_map"), error);
}

static enum status open_parts(struct hf_folder *folder, struct error *error)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < folder->part_count; i++) {
        struct hf_part *part = &folder->parts[i];
        struct source source = {.fd = -1};
        TRY(hf_files_open(&folder->files, part->name, error, &source));
        TRY(safetensors_init(&part->file, source, error));
        part->open = true;
        count += part->file.tensor_count;
    }
    if (count > MODEL_TENSOR_COUNT_MAX) {
        return error_set_limit(error, "MODEL_TENSOR_COUNT_MAX", MODEL_TENSOR_COUNT_MAX,
                               "%s: has %llu tensors, at most %d are read", folder->files.folder,
                               (unsigned long long)count, (int)MODEL_TENSOR_COUNT_MAX);
    }
    folder->tensors = memory_alloc(count, sizeof(*folder->tensors));
    return folder->tensors == NULL ? out_of_memory(folder, error) : STATUS_OK;
}

/* ---- tensors ---- */

/* Buffers of training code that carry nothing, and an output matrix that the configuration says is
 * the embedding. */
static bool is_left_out(const struct hf_folder *folder, struct bytes name)
{
    static const char buffer[] = ".rotary_emb.inv_freq";
    const size_t size = sizeof buffer - 1;

    if (name.size > size && memcmp(name.data + name.size - size, buffer, size) == 0) {
        return true;
    }
    return folder->config.model.tied &&
           architecture_tensor_role(NAMING_HF, name, 0) == TENSOR_OUTPUT;
}

/* Half the rows of a head, for a tensor whose rows change places. */
static uint32_t half_rows_of(const struct hf_folder *folder, const struct model_tensor *tensor)
{
    const struct model_config *config = &folder->config.model;
    const enum tensor_role role =
        architecture_tensor_role(NAMING_HF, tensor->name, config->layer_count);
    const uint64_t rows = tensor->dimensions[tensor->dimension_count == 1 ? 0 : 1];
    const bool turned =
        role == TENSOR_Q || role == TENSOR_K || role == TENSOR_Q_BIAS || role == TENSOR_K_BIAS;

    if (!turned || config->rope_style != ROPE_ADJACENT || rows % config->head_size != 0) {
        return 0;
    }
    return config->head_size / 2;
}

/* The index and the files must tell the same. */
static enum status check_place(const struct hf_folder *folder, const struct hf_part *part,
                               struct bytes name, struct error *error)
{
    const json_t *map = json_object_get(folder->index, "weight_map");
    const char *listed =
        json_string_value(json_object_getn(map, (const char *)name.data, name.size));

    if (listed == NULL || strcmp(listed, part->name) != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s/%s: tensor '%.*s' lies in %s, which is not what it says",
                         folder->files.folder, index_name, SHOWN(name), part->name);
    }
    return STATUS_OK;
}

static int compare_tensor_names(const void *left, const void *right)
{
    const struct hf_tensor *a = left;
    const struct hf_tensor *b = right;

    return compare_bytes(a->tensor.name, b->tensor.name);
}

static enum status list_tensors(struct hf_folder *folder, struct error *error)
{
    uint64_t seen = 0;

    for (uint32_t i = 0; i < folder->part_count; i++) {
        const struct hf_part *part = &folder->parts[i];
        for (uint64_t j = 0; j < part->file.tensor_count; j++) {
            const struct model_tensor *tensor = &part->file.tensors[j];
            if (folder->index != NULL) {
                TRY(check_place(folder, part, tensor->name, error));
            }
            seen++;
            if (!is_left_out(folder, tensor->name)) {
                folder->tensors[folder->tensor_count++] =
                    (struct hf_tensor){*tensor, i, half_rows_of(folder, tensor)};
            }
        }
    }
    qsort(folder->tensors, folder->tensor_count, sizeof(*folder->tensors), compare_tensor_names);
    for (uint64_t i = 1; i < folder->tensor_count; i++) {
        if (compare_tensor_names(&folder->tensors[i - 1], &folder->tensors[i]) == 0) {
            return error_set(error, STATUS_BAD_INPUT, "%s: tensor '%.*s' is there twice",
                             folder->files.folder, SHOWN(folder->tensors[i].tensor.name));
        }
    }
    if (folder->index != NULL &&
        seen != json_object_size(json_object_get(folder->index, "weight_map"))) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s/%s: names a tensor that its file does not hold", folder->files.folder,
                         index_name);
    }
    return STATUS_OK;
}

static const struct model_tensor *hf_folder_find(const void *reader, const char *name)
{
    const struct hf_folder *folder = reader;
    const struct hf_tensor wanted = {.tensor = {.name = bytes_of_text(name)}};
    const struct hf_tensor *found = NULL;

    if (folder->tensor_count > 0) {
        found = bsearch(&wanted, folder->tensors, folder->tensor_count, sizeof(wanted),
                        compare_tensor_names);
    }
    return found == NULL ? NULL : &found->tensor;
}

static uint64_t hf_folder_count(const void *reader)
{
    return ((const struct hf_folder *)reader)->tensor_count;
}

static const struct model_tensor *hf_folder_at(const void *reader, uint64_t index)
{
    const struct hf_folder *folder = reader;

    CHECK(index < folder->tensor_count);
    return &folder->tensors[index].tensor;
}

/* Row (j, i) of a head, j a half and i a place in it, goes to (i, j). */
static enum status read_turned(const struct source *source, const struct hf_tensor *tensor,
                               struct error *error, uint8_t *to)
{
    const struct model_tensor *about = &tensor->tensor;
    const uint64_t rows = about->dimensions[about->dimension_count == 1 ? 0 : 1];
    const uint64_t row_bytes = about->size_bytes / rows;
    const uint64_t half = tensor->half_rows;

    for (uint64_t row = 0; row < rows; row++) {
        const uint64_t head = row / (2 * half);
        const uint64_t in_head = row % (2 * half);
        const uint64_t turned = head * 2 * half + in_head % half * 2 + in_head / half;
        TRY(source_read(source, about->offset + row * row_bytes, row_bytes, error,
                        to + turned * row_bytes));
    }
    return STATUS_OK;
}

static enum status hf_folder_read(const void *reader, const struct model_tensor *tensor,
                                  struct error *error, void *to)
{
    const struct hf_folder *folder = reader;
    const struct hf_tensor *held = (const struct hf_tensor *)tensor;
    const struct source *source = &folder->parts[held->part].file.source;

    if (held->half_rows != 0) {
        return read_turned(source, held, error, to);
    }
    return source_read(source, tensor->offset, tensor->size_bytes, error, to);
}

/* ---- as a format ---- */

static const char *hf_folder_name(const void *reader)
{
    return ((const struct hf_folder *)reader)->files.folder;
}

static enum status hf_folder_config(const void *reader, struct error *error,
                                    const struct architecture **architecture,
                                    struct model_config *out)
{
    const struct hf_folder *folder = reader;
    const char *slash = strrchr(folder->files.folder, '/');

    if (!folder->config.model.tied && hf_folder_find(folder, "lm_head.weight") == NULL) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: tensor 'lm_head.weight' is missing, and config.json does not say "
                         "tie_word_embeddings",
                         folder->files.folder);
    }
    *architecture = folder->config.architecture;
    *out = folder->config.model;
    out->name = bytes_of_text(slash == NULL ? folder->files.folder : slash + 1);
    return STATUS_OK;
}

static enum status hf_folder_rope(const void *reader, const struct model_config *config,
                                  struct error *error, double **out)
{
    const struct hf_folder *folder = reader;

    if (hf_config_rope(&folder->config.rope, config->rope_pair_count, out) != STATUS_OK) {
        return out_of_memory(folder, error);
    }
    return STATUS_OK;
}

static enum status hf_folder_tokens(const void *reader, uint32_t token_count, struct error *error,
                                    struct token_table *out)
{
    return hf_tokens_read(&((const struct hf_folder *)reader)->files, token_count, error, out);
}

static enum status hash_file(const struct source *source, const char *name, struct error *error,
                             struct sha256 *all)
{
    uint8_t one[SHA256_BYTES];

    TRY(source_hash(source, error, one));
    sha256_update(all, bytes_of(name, strlen(name) + 1));
    sha256_update(all, bytes_of(one, sizeof one));
    return STATUS_OK;
}

/* Names and digests of all files, in a fixed order: where the folder lies plays no part. */
static enum status hash_all(const struct hf_folder *folder, struct error *error, uint8_t *out)
{
    struct sha256 all;

    sha256_init(&all);
    for (size_t i = 0; i < sizeof text_names / sizeof text_names[0]; i++) {
        struct source source = {.fd = -1};
        if (!hf_files_has(&folder->files, text_names[i])) {
            continue;
        }
        TRY(hf_files_open(&folder->files, text_names[i], error, &source));
        const enum status status = hash_file(&source, text_names[i], error, &all);
        source_close(&source);
        TRY(status);
    }
    for (uint32_t i = 0; i < folder->part_count; i++) {
        TRY(hash_file(&folder->parts[i].file.source, folder->parts[i].name, error, &all));
    }
    sha256_finish(&all, out);
    return STATUS_OK;
}

static enum status hf_folder_hash(void *reader, struct error *error, uint8_t out[MODEL_HASH_BYTES])
{
    struct hf_folder *folder = reader;

    if (!folder->hashed) {
        TRY(hash_all(folder, error, folder->hash));
        folder->hashed = true;
    }
    memcpy(out, folder->hash, MODEL_HASH_BYTES);
    return STATUS_OK;
}

static void hf_folder_close_reader(void *reader)
{
    hf_folder_close(reader);
}

const struct model_format hf_format = {
    .name = hf_folder_name,
    .naming = NAMING_HF,
    .tensor_find = hf_folder_find,
    .tensor_count = hf_folder_count,
    .tensor_at = hf_folder_at,
    .tensor_read = hf_folder_read,
    .config_read = hf_folder_config,
    .rope_read = hf_folder_rope,
    .tokens_read = hf_folder_tokens,
    .hash = hf_folder_hash,
    .close = hf_folder_close_reader,
};

/* ---- open and close ---- */

static enum status read_config(struct hf_folder *folder, struct error *error)
{
    struct hf_object object = {NULL, folder->files.folder, "config.json", ""};
    json_t *root = NULL;

    TRY(hf_json_load(&folder->files, object.file, error, &root));
    object.json = root;
    const enum status status = hf_config_read(&object, error, &folder->config);
    json_decref(root);
    return status;
}

static enum status read_folder(struct hf_folder *folder, struct error *error)
{
    TRY(read_config(folder, error));
    TRY(find_parts(folder, error));
    TRY(open_parts(folder, error));
    return list_tensors(folder, error);
}

enum status hf_folder_open(const char *path, const struct hf_file *memory, uint32_t memory_count,
                           struct error *error, struct hf_folder **out)
{
    struct hf_folder *folder = memory_alloc(1, sizeof(*folder));

    if (folder == NULL || hf_files_init(&folder->files, path, memory, memory_count) != STATUS_OK) {
        hf_folder_close(folder);
        return error_set(error, STATUS_MEMORY, "%s: out of memory", path);
    }
    const enum status status = read_folder(folder, error);
    if (status != STATUS_OK) {
        hf_folder_close(folder);
        return status;
    }
    *out = folder;
    return STATUS_OK;
}

void hf_folder_close(struct hf_folder *folder)
{
    if (folder == NULL) {
        return;
    }
    for (uint32_t i = 0; i < folder->part_count; i++) {
        if (folder->parts[i].open) {
            safetensors_finish(&folder->parts[i].file);
        }
    }
    memory_free(folder->parts);
    memory_free(folder->tensors);
    json_decref(folder->index);
    hf_files_finish(&folder->files);
    memory_free(folder);
}
