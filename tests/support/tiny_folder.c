#include "support/tiny_folder.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "model/architecture.h"
#include "model/model.h"
#include "model/model_file.h"

enum { PART_COUNT_MAX = 3 };

static const char *const part_names[PART_COUNT_MAX] = {"model-00001-of-00003.safetensors",
                                                       "model-00002-of-00003.safetensors",
                                                       "model-00003-of-00003.safetensors"};

/* One safetensors file while it grows. */
struct part {
    json_t *header;
    struct buffer data;
};

struct maker {
    const struct model *model;
    const struct tiny_folder_spec *spec;
    struct part parts[PART_COUNT_MAX];
    json_t *map;
    uint32_t part_count;
    uint32_t tensor_count;
};

static void add_file(struct tiny_folder *folder, const char *name, struct bytes bytes)
{
    CHECK(folder->count < TINY_FOLDER_FILE_COUNT_MAX);
    CHECK(bytes.data != NULL);
    folder->files[folder->count++] = (struct hf_file){name, bytes};
}

/* Takes the document over. */
static void add_json(struct tiny_folder *folder, const char *name, json_t *json)
{
    CHECK(json != NULL);
    char *text = json_dumps(json, JSON_INDENT(2));
    CHECK(text != NULL);
    const size_t size = strlen(text);
    text[size] = '\n'; /* in the place of its NUL: files end with a line */
    add_file(folder, name, bytes_of(memory_copy_text(text, size + 1), size + 1));
    free(text);
    json_decref(json);
}

/* ---- weights ---- */

static const char *dtype_json(uint32_t dtype)
{
    CHECK(dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16);
    return dtype == DTYPE_F32 ? "F32" : dtype == DTYPE_F16 ? "F16" : "BF16";
}

/* Back to the order in which a head's two halves follow each other. */
static void unturn_rows(const struct model_config *config, const uint8_t *from, uint64_t rows,
                        uint64_t row_bytes, uint8_t *to)
{
    const uint64_t half = config->head_size / 2;

    for (uint64_t row = 0; row < rows; row++) {
        const uint64_t head = row / config->head_size;
        const uint64_t in_head = row % config->head_size;
        const uint64_t turned = head * config->head_size + in_head % half * 2 + in_head / half;
        memcpy(to + row * row_bytes, from + turned * row_bytes, row_bytes);
    }
}

static bool role_turns(enum tensor_role role)
{
    return role == TENSOR_Q || role == TENSOR_K || role == TENSOR_Q_BIAS || role == TENSOR_K_BIAS;
}

static void add_tensor(struct maker *maker, enum tensor_role role, uint32_t layer)
{
    const struct model_config *config = model_config(maker->model);
    const struct model_file *file = model_file(maker->model);
    const struct model_tensor *tensor = model_file_tensor(file, role, layer);
    struct part *part = &maker->parts[maker->tensor_count % maker->part_count];
    char name[TENSOR_NAME_BYTES_MAX];

    if (tensor == NULL) {
        return;
    }
    CHECK(architecture_tensor_name(NAMING_HF, role, layer, name));
    const bool vector = tensor->dimension_count == 1;
    const uint64_t rows = tensor->dimensions[vector ? 0 : 1];
    uint8_t *stored = memory_alloc(1, tensor->size_bytes);
    uint8_t *turned = memory_alloc(1, tensor->size_bytes);
    CHECK(model_file_tensor_read(file, tensor, NULL, stored) == STATUS_OK);
    memcpy(turned, stored, tensor->size_bytes);
    if (role_turns(role) && !maker->spec->rows_as_are) {
        unturn_rows(config, stored, rows, tensor->size_bytes / rows, turned);
    }
    json_t *shape = vector
                        ? json_pack("[I]", (json_int_t)rows)
                        : json_pack("[I,I]", (json_int_t)rows, (json_int_t)tensor->dimensions[0]);
    json_t *about = json_pack("{s:s,s:o,s:[I,I]}", "dtype", dtype_json(tensor->dtype), "shape",
                              shape, "data_offsets", (json_int_t)part->data.size,
                              (json_int_t)(part->data.size + tensor->size_bytes));
    CHECK(json_object_set_new(part->header, name, about) == 0);
    CHECK(json_object_set_new(maker->map, name,
                              json_string(part_names[maker->tensor_count % maker->part_count])) ==
          0);
    CHECK(buffer_append(&part->data, bytes_of(turned, tensor->size_bytes)) == STATUS_OK);
    memory_free(stored);
    memory_free(turned);
    maker->tensor_count++;
}

static struct bytes finish_part(struct part *part)
{
    char *header = json_dumps(part->header, JSON_COMPACT);
    CHECK(header != NULL);
    const size_t header_size = (strlen(header) + 7) / 8 * 8;
    const size_t size = 8 + header_size + part->data.size;
    uint8_t *bytes = memory_alloc(1, size);

    CHECK(bytes != NULL);
    bytes_store_u64(bytes, header_size);
    memset(bytes + 8, ' ', header_size);
    memcpy(bytes + 8, header, strlen(header));
    memcpy(bytes + 8 + header_size, part->data.data, part->data.size);
    free(header);
    json_decref(part->header);
    buffer_finish(&part->data);
    return bytes_of(bytes, size);
}

static void add_weights(struct maker *maker, struct tiny_folder *folder)
{
    maker->part_count = maker->spec->sharded ? PART_COUNT_MAX : 1;
    maker->map = json_object();
    for (uint32_t i = 0; i < maker->part_count; i++) {
        maker->parts[i].header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
        buffer_init(&maker->parts[i].data, SIZE_MAX / 4);
    }
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        const bool of_layer = role >= TENSOR_LAYER_FIRST;
        const uint32_t count = of_layer ? model_config(maker->model)->layer_count : 1;
        for (uint32_t layer = 0; layer < count; layer++) {
            add_tensor(maker, (enum tensor_role)role, layer);
        }
    }
    for (uint32_t i = 0; i < maker->part_count; i++) {
        add_file(folder, maker->spec->sharded ? part_names[i] : "model.safetensors",
                 finish_part(&maker->parts[i]));
    }
    if (maker->spec->sharded) {
        add_json(folder, "model.safetensors.index.json",
                 json_pack("{s:{s:i},s:O}", "metadata", "total_size", 0, "weight_map", maker->map));
    }
    json_decref(maker->map);
}

/* ---- the smaller files ---- */

static void add_configs(const struct model *model, struct tiny_folder *folder)
{
    const struct model_config *config = model_config(model);
    const struct vocabulary *vocabulary = model_vocabulary(model);
    const struct bytes eos = vocabulary->tokens[vocabulary->eos];
    json_t *tokens = json_pack("{s:s%,s:b}", "eos_token", eos.data, eos.size, "add_bos_token",
                               (int)vocabulary->add_bos);

    if (vocabulary->bos != TOKEN_NONE) {
        const struct bytes bos = vocabulary->tokens[vocabulary->bos];
        json_object_set_new(tokens, "bos_token",
                            json_pack("{s:s%}", "content", bos.data, bos.size));
    }
    json_object_set_new(
        tokens, "chat_template",
        json_stringn((const char *)vocabulary->chat_template.data, vocabulary->chat_template.size));
    add_json(folder, "tokenizer_config.json", tokens);
    add_json(folder, "config.json",
             json_pack("{s:[s],s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:b,s:s,s:n}",
                       "architectures", "LlamaForCausalLM", "model_type", "llama",
                       "num_hidden_layers", (int)config->layer_count, "hidden_size",
                       (int)config->width, "intermediate_size", (int)config->hidden,
                       "num_attention_heads", (int)config->head_count, "num_key_value_heads",
                       (int)config->kv_head_count, "head_dim", (int)config->head_size,
                       "max_position_embeddings", (int)config->context_token_count, "vocab_size",
                       (int)config->vocabulary_count, "rms_norm_eps", (double)config->norm_epsilon,
                       "rope_theta", 10000.0, "tie_word_embeddings", (int)config->tied,
                       "hidden_act", "silu", "rope_scaling"));
    add_json(folder, "generation_config.json",
             json_pack("{s:[i,i]}", "eos_token_id", (int)vocabulary->eos,
                       (int)(vocabulary->eot == TOKEN_NONE ? vocabulary->eos : vocabulary->eot)));
}

void tiny_folder_create(struct bytes gguf_file, const struct tiny_folder_spec *spec,
                        struct tiny_folder *out)
{
    struct error error = {.text = ""};
    struct model *model = NULL;

    if (model_open_bytes(gguf_file, "tiny.gguf", &error, &model) != STATUS_OK) {
        (void)fprintf(stderr, "%s\n", error.text);
    }
    CHECK(model != NULL);
    *out = (struct tiny_folder){.count = 0};
    add_file(out, "tokenizer.json",
             tiny_folder_tokenizer(model_vocabulary(model), spec->merge_pairs));
    add_configs(model, out);
    struct maker maker = {.model = model, .spec = spec};
    add_weights(&maker, out);
    model_close(model);
}

void tiny_folder_destroy(struct tiny_folder *folder)
{
    for (uint32_t i = 0; i < folder->count; i++) {
        memory_free((void *)(uintptr_t)folder->files[i].bytes.data);
    }
    folder->count = 0;
}

struct hf_file *tiny_folder_file(struct tiny_folder *folder, const char *name)
{
    for (uint32_t i = 0; i < folder->count; i++) {
        if (strcmp(folder->files[i].name, name) == 0) {
            return &folder->files[i];
        }
    }
    CHECK(false);
    return NULL;
}

void tiny_folder_replace(struct tiny_folder *folder, const char *name, const char *text)
{
    struct hf_file *file = tiny_folder_file(folder, name);

    memory_free((void *)(uintptr_t)file->bytes.data);
    file->bytes = bytes_of(memory_copy_text(text, strlen(text)), strlen(text));
}

void tiny_folder_write(const struct tiny_folder *folder, const char *path)
{
    for (uint32_t i = 0; i < folder->count; i++) {
        char name[1024];
        (void)snprintf(name, sizeof name, "%s/%s", path, folder->files[i].name);
        FILE *file = fopen(name, "wb");
        CHECK(file != NULL);
        CHECK(fwrite(folder->files[i].bytes.data, 1, folder->files[i].bytes.size, file) ==
              folder->files[i].bytes.size);
        CHECK(fclose(file) == 0);
    }
}
