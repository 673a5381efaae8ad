#include "bench/random_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "kernels/steps/math.h"
#include "limits.h"
#include "model/config.h"
#include "model/model_file.h"
#include "model/rope.h"

enum {
    /* Of the noise that tensors are cut from: larger than any cache of a CPU core, and no multiple
     * of a row. */
    POOL_ELEMENT_COUNT = 4 * 1024 * 1024,
    TENSOR_COUNT_MAX = LAYER_COUNT_MAX * TENSOR_ROLE_COUNT,
    CONTEXT_COUNT = 131072,
};

static const struct random_shape shapes[] = {
    {"8b", "Llama-3.1-8B", 32, 4096, 32, 8, 128, 14336, 128256, 500000},
    {"1b", "Llama-3.2-1B", 16, 2048, 32, 8, 64, 8192, 128256, 500000},
    {"135m", "SmolLM2-135M", 30, 576, 9, 3, 64, 1536, 49152, 10000},
    {"tiny", "two small layers", 2, 256, 4, 2, 64, 512, 1024, 10000},
};

struct random_tensor {
    struct model_tensor tensor;
    char name[TENSOR_NAME_BYTES_MAX];
};

struct random_reader {
    struct model_config config;
    const struct architecture *architecture;
    double rope_base;
    uint8_t *pool;                 /* owned: POOL_ELEMENT_COUNT elements of the matrices' type */
    struct random_tensor *tensors; /* owned */
    uint32_t tensor_count;
};

const struct random_shape *random_shape_find(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (strcmp(shapes[i].name, name) == 0) {
            return &shapes[i];
        }
    }
    return NULL;
}

const char *random_shape_list(void)
{
    return "8b, 1b, 135m, tiny";
}

/* ---- noise ---- */

static uint64_t random_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void put_half(uint8_t *to, float value)
{
    const uint16_t bits = steps_half_from_float(value);

    memcpy(to, &bits, sizeof bits);
}

static void put_float(uint32_t dtype, float value, uint8_t *to)
{
    uint32_t bits = 0;

    memcpy(&bits, &value, sizeof bits);
    if (dtype == DTYPE_F32) {
        memcpy(to, &bits, sizeof bits);
    } else if (dtype == DTYPE_F16) {
        put_half(to, value);
    } else {
        const uint16_t high = (uint16_t)(bits >> 16);
        memcpy(to, &high, sizeof high);
    }
}

/* A block of random codes under a scale that gives the deviation. */
static void put_block(uint64_t *state, uint32_t dtype, float sigma, uint8_t *to)
{
    const uint32_t bytes = dtype_block_bytes(dtype);
    const uint32_t head = dtype == DTYPE_Q4_1 ? 4 : 2;
    const float deviation = dtype == DTYPE_Q8_0 ? 73.9f : 4.61f;
    /* Codes of Q4_0 and Q8_0 have a mean beside zero; signs of the scale even it out. */
    const float scale = sigma / deviation * ((random_next(state) & 1) == 0 ? 1.0f : -1.0f);

    for (uint32_t i = head; i < bytes; i++) {
        to[i] = (uint8_t)(random_next(state) >> 56);
    }
    put_half(to, scale);
    if (dtype == DTYPE_Q4_1) {
        put_half(to + 2, -7.5f * scale);
    }
}

static enum status make_pool(struct random_reader *reader, uint32_t dtype, float sigma)
{
    const uint32_t elements = dtype_block_elements(dtype);
    const uint32_t bytes = dtype_block_bytes(dtype);
    const float half_width = sigma * 1.7320508f;
    uint64_t state = 20240229;

    reader->pool = memory_alloc(POOL_ELEMENT_COUNT / elements, bytes);
    if (reader->pool == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0; i < POOL_ELEMENT_COUNT / elements; i++) {
        uint8_t *to = reader->pool + (size_t)i * bytes;
        if (elements == 1) {
            const float even = (float)(int32_t)(random_next(&state) >> 32) / 2147483648.0f;
            put_float(dtype, half_width * even, to);
        } else {
            put_block(&state, dtype, sigma, to);
        }
    }
    return STATUS_OK;
}

/* ---- as a format ---- */

static const char *random_name(const void *reader)
{
    (void)reader;
    return "noise";
}

static const struct model_tensor *random_find(const void *reader, const char *name)
{
    const struct random_reader *random = reader;

    for (uint32_t i = 0; i < random->tensor_count; i++) {
        if (strcmp(random->tensors[i].name, name) == 0) {
            return &random->tensors[i].tensor;
        }
    }
    return NULL;
}

static uint64_t random_count(const void *reader)
{
    return ((const struct random_reader *)reader)->tensor_count;
}

static const struct model_tensor *random_at(const void *reader, uint64_t index)
{
    return &((const struct random_reader *)reader)->tensors[index].tensor;
}

/* Matrices are cut from the pool, each from a place of its own; norms are 1. */
static enum status random_read(const void *reader, const struct model_tensor *tensor,
                               struct error *error, void *to)
{
    const struct random_reader *random = reader;
    const float one = 1;
    uint8_t *bytes = to;

    (void)error;
    if (tensor->dimension_count == 1) {
        for (uint64_t i = 0; i < tensor->dimensions[0]; i++) {
            memcpy(bytes + i * sizeof one, &one, sizeof one);
        }
        return STATUS_OK;
    }
    const uint64_t block = dtype_block_bytes(tensor->dtype);
    const uint64_t pool_bytes = POOL_ELEMENT_COUNT / dtype_block_elements(tensor->dtype) * block;
    uint64_t at = tensor->offset * 7919 % (pool_bytes / block) * block;
    for (uint64_t done = 0; done < tensor->size_bytes;) {
        const uint64_t left = tensor->size_bytes - done;
        const uint64_t size = left < pool_bytes - at ? left : pool_bytes - at;
        memcpy(bytes + done, random->pool + at, size);
        done += size;
        at = 0;
    }
    return STATUS_OK;
}

static enum status random_config(const void *reader, struct error *error,
                                 const struct architecture **architecture, struct model_config *out)
{
    const struct random_reader *random = reader;

    (void)error;
    *architecture = random->architecture;
    *out = random->config;
    return STATUS_OK;
}

static enum status random_rope(const void *reader, const struct model_config *config,
                               struct error *error, double **out)
{
    const struct random_reader *random = reader;
    double *frequencies = memory_alloc(config->rope_pair_count, sizeof *frequencies);

    if (frequencies == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    rope_inverse_frequencies(random->rope_base, 1, NULL, config->rope_pair_count, frequencies);
    *out = frequencies;
    return STATUS_OK;
}

static enum status random_tokens(const void *reader, uint32_t token_count, struct error *error,
                                 struct token_table *out)
{
    struct token_table table = {.types = memory_alloc(token_count, 1),
                                .tokens = memory_alloc(token_count, sizeof(struct bytes))};

    (void)reader;
    if (table.types == NULL || table.tokens == NULL) {
        token_table_finish(&table);
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    for (uint32_t i = 0; i < token_count; i++) {
        table.types[i] = TOKEN_NORMAL;
        table.tokens[i] = bytes_of_text("x");
    }
    table.vocabulary = (struct vocabulary){
        .kind = VOCABULARY_BPE,
        .token_count = token_count,
        .tokens = table.tokens,
        .types = table.types,
        .bos = TOKEN_NONE,
        .eos = TOKEN_NONE,
        .eot = TOKEN_NONE,
        .eom = TOKEN_NONE,
        .unknown = TOKEN_NONE,
        .pad = TOKEN_NONE,
    };
    *out = table;
    return STATUS_OK;
}

static enum status random_hash(void *reader, struct error *error, uint8_t out[MODEL_HASH_BYTES])
{
    (void)reader;
    (void)error;
    memset(out, 0, MODEL_HASH_BYTES);
    return STATUS_OK;
}

static void random_close(void *reader)
{
    struct random_reader *random = reader;

    memory_free(random->pool);
    memory_free(random->tensors);
    memory_free(random);
}

static const struct model_format random_format = {
    .name = random_name,
    .naming = NAMING_GGUF,
    .tensor_find = random_find,
    .tensor_count = random_count,
    .tensor_at = random_at,
    .tensor_read = random_read,
    .config_read = random_config,
    .rope_read = random_rope,
    .tokens_read = random_tokens,
    .hash = random_hash,
    .close = random_close,
};

/* ---- open ---- */

static void add_tensor(struct random_reader *reader, enum tensor_role role, uint32_t layer,
                       uint32_t dtype, uint64_t cols, uint64_t rows)
{
    struct random_tensor *place = &reader->tensors[reader->tensor_count++];
    struct model_tensor *tensor = &place->tensor;

    CHECK(architecture_tensor_name(NAMING_GGUF, role, layer, place->name));
    tensor->name = bytes_of_text(place->name);
    tensor->dtype = dtype;
    tensor->dimension_count = rows == 1 ? 1 : 2;
    tensor->dimensions[0] = cols;
    tensor->dimensions[1] = rows;
    tensor->dimensions[2] = 1;
    tensor->dimensions[3] = 1;
    tensor->offset = reader->tensor_count; /* what its place in the pool follows from */
    tensor->size_bytes = cols / dtype_block_elements(dtype) * dtype_block_bytes(dtype) * rows;
}

static void add_layer(struct random_reader *reader, uint32_t layer, uint32_t dtype)
{
    const struct model_config *config = &reader->config;
    const uint64_t width = config->width;
    const uint64_t query = (uint64_t)config->head_count * config->head_size;
    const uint64_t kv = (uint64_t)config->kv_head_count * config->head_size;

    add_tensor(reader, TENSOR_ATTN_NORM, layer, DTYPE_F32, width, 1);
    add_tensor(reader, TENSOR_Q, layer, dtype, width, query);
    add_tensor(reader, TENSOR_K, layer, dtype, width, kv);
    add_tensor(reader, TENSOR_V, layer, dtype, width, kv);
    add_tensor(reader, TENSOR_ATTN_OUT, layer, dtype, query, width);
    add_tensor(reader, TENSOR_FFN_NORM, layer, DTYPE_F32, width, 1);
    add_tensor(reader, TENSOR_FFN_GATE, layer, dtype, width, config->hidden);
    add_tensor(reader, TENSOR_FFN_UP, layer, dtype, width, config->hidden);
    add_tensor(reader, TENSOR_FFN_DOWN, layer, dtype, config->hidden, width);
}

static void describe(const struct random_shape *shape, uint32_t layer_count,
                     struct random_reader *reader)
{
    const struct architecture *architecture = architecture_find(bytes_of_text("llama"));

    reader->architecture = architecture;
    reader->rope_base = shape->rope_base;
    reader->config = (struct model_config){
        .architecture = architecture->name,
        .name = bytes_of_text(shape->about),
        .layer_count = layer_count == 0 ? shape->layer_count : layer_count,
        .width = shape->width,
        .head_count = shape->head_count,
        .kv_head_count = shape->kv_head_count,
        .head_size = shape->head_size,
        .hidden = shape->hidden,
        .context_token_count = CONTEXT_COUNT,
        .norm_epsilon = 1e-5f,
        .attention_scale = 1 / sqrtf((float)shape->head_size),
        .embedding_scale = 1,
        .activation = architecture->activation,
        .rope_style = architecture->rope_style,
        .rope_pair_count = shape->head_size / 2,
    };
}

enum status random_model_open(const struct random_shape *shape, uint32_t dtype,
                              uint32_t layer_count, struct error *error, struct model **out)
{
    if (dtype != DTYPE_F32 && dtype != DTYPE_F16 && dtype != DTYPE_BF16 && dtype != DTYPE_Q8_0 &&
        dtype != DTYPE_Q4_0 && dtype != DTYPE_Q4_1) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "noise comes as F32, F16, BF16, Q8_0, Q4_0 and Q4_1 only");
    }
    struct random_reader *reader = memory_alloc(1, sizeof *reader);
    if (reader == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    describe(shape, layer_count, reader);
    reader->tensors = memory_alloc(TENSOR_COUNT_MAX, sizeof *reader->tensors);
    if (reader->tensors == NULL ||
        make_pool(reader, dtype, 1 / sqrtf((float)shape->width)) != STATUS_OK) {
        random_close(reader);
        return error_set(error, STATUS_MEMORY, "out of memory");
    }
    add_tensor(reader, TENSOR_EMBEDDING, 0, dtype, shape->width, shape->vocabulary_count);
    add_tensor(reader, TENSOR_OUTPUT_NORM, 0, DTYPE_F32, shape->width, 1);
    add_tensor(reader, TENSOR_OUTPUT, 0, dtype, shape->width, shape->vocabulary_count);
    for (uint32_t layer = 0; layer < reader->config.layer_count; layer++) {
        add_layer(reader, layer, dtype);
    }
    return model_open_file((struct model_file){&random_format, reader}, error, out);
}
