#include "support/tiny_model.h"

#include <math.h>
#include <stdio.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "kernels/steps/math.h"
#include "support/gguf_writer.h"
#include "support/tiny_tokens.h"

/* How strongly a matrix acts: the standard deviation of an output for inputs of 1. */
static const float tiny_gain_embedding = 1.0f;
static const float tiny_gain_query = 1.7f;
static const float tiny_gain_value = 1.5f;
static const float tiny_gain_attention_out = 2.0f;
static const float tiny_gain_gate = 2.0f;
static const float tiny_gain_up = 1.0f;
static const float tiny_gain_down = 1.5f;
static const float tiny_gain_output = 3.0f;

static const char tiny_template[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/* ---- numbers from a seed ---- */

static uint64_t tiny_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15u;
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* Even in [-1, 1). */
static float tiny_next_even(uint64_t *state)
{
    return (float)((int32_t)(tiny_next(state) >> 40) - (1 << 23)) / (float)(1 << 23);
}

static void tiny_fill_random(uint64_t *state, uint8_t *to, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        to[i] = (uint8_t)(tiny_next(state) >> 56);
    }
}

static void tiny_put_half(uint8_t *to, float value)
{
    const uint16_t bits = steps_half_from_float(value);

    memcpy(to, &bits, sizeof(bits));
}

/* ---- blocks ---- */

/* Levels of a type's integers, and their middle. */
struct tiny_levels {
    float middle;
    float deviation;
};

static struct tiny_levels tiny_levels_of(uint32_t bits)
{
    const float count = (float)(1u << bits);
    const struct tiny_levels levels = {(count - 1) / 2, sqrtf((count * count - 1) / 12)};

    return levels;
}

/* Eight scales and equal mins of six bits, upper half of the range, as the K types pack them. */
static void tiny_put_scales(uint64_t *state, uint8_t to[12])
{
    uint8_t scale[8];

    for (int i = 0; i < 8; i++) {
        scale[i] = (uint8_t)(32 + (tiny_next(state) >> 59));
    }
    for (int i = 0; i < 4; i++) {
        const uint8_t high = (uint8_t)(scale[i + 4] >> 4);
        to[i] = (uint8_t)(scale[i] | (high << 6));
        to[i + 4] = to[i];
        to[i + 8] = (uint8_t)((scale[i + 4] & 15) | ((scale[i + 4] & 15) << 4));
    }
}

static void tiny_fill_block_k(uint64_t *state, uint32_t dtype, float sigma, uint8_t *block)
{
    const float scale_middle = 47.5f;
    const struct tiny_levels levels =
        tiny_levels_of(dtype == DTYPE_Q4_K ? 4 : (dtype == DTYPE_Q5_K ? 5 : 6));
    const float step = sigma / levels.deviation / scale_middle;

    if (dtype == DTYPE_Q6_K) {
        for (int i = 0; i < 16; i++) {
            const int magnitude = 32 + (int)(tiny_next(state) >> 59);
            block[192 + i] = (uint8_t)(int8_t)(tiny_next(state) & 1 ? -magnitude : magnitude);
        }
        tiny_put_half(block + 208, step);
        return;
    }
    tiny_put_half(block, step);
    tiny_put_half(block + 2, step * levels.middle);
    tiny_put_scales(state, block + 4);
}

/* Random integers under a scale of about the right size: any bytes are good blocks. */
static void tiny_fill_block(uint64_t *state, uint32_t dtype, float sigma, uint8_t *block)
{
    const float wobble = 1.0f + 0.25f * tiny_next_even(state);
    const bool has_min = dtype == DTYPE_Q4_1 || dtype == DTYPE_Q5_1;
    uint32_t bits = 4;

    tiny_fill_random(state, block, dtype_block_bytes(dtype));
    switch (dtype) {
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
    case DTYPE_Q6_K:
        tiny_fill_block_k(state, dtype, sigma * wobble, block);
        return;
    case DTYPE_Q8_0:
        bits = 8;
        break;
    case DTYPE_Q5_0:
    case DTYPE_Q5_1:
        bits = 5;
        break;
    default:
        break;
    }
    const struct tiny_levels levels = tiny_levels_of(bits);
    float step = sigma * wobble / levels.deviation;
    /* Types without a minimum have integers whose mean is not zero; signs even that out, else every
     * output would follow the sum of the inputs. */
    if (!has_min && (tiny_next(state) & 1) != 0) {
        step = -step;
    }
    tiny_put_half(block, step);
    if (has_min) {
        tiny_put_half(block + 2, -step * levels.middle);
    }
}

static void tiny_fill_float(uint32_t dtype, float value, uint8_t *to)
{
    uint32_t bits = 0;

    memcpy(&bits, &value, sizeof(bits));
    if (dtype == DTYPE_F32) {
        memcpy(to, &bits, sizeof(bits));
    } else if (dtype == DTYPE_F16) {
        tiny_put_half(to, value);
    } else {
        const uint16_t high = (uint16_t)(bits >> 16);
        memcpy(to, &high, sizeof(high));
    }
}

static void tiny_fill_row(uint64_t *state, uint32_t dtype, float sigma, uint32_t cols, uint8_t *to)
{
    const uint32_t elements = dtype_block_elements(dtype);

    for (uint32_t i = 0; i < cols; i += elements, to += dtype_block_bytes(dtype)) {
        if (elements == 1) {
            tiny_fill_float(dtype, sigma * sqrtf(3.0f) * tiny_next_even(state), to);
        } else {
            tiny_fill_block(state, dtype, sigma, to);
        }
    }
}

/* ---- the file ---- */

struct tiny_tensor {
    uint32_t index;
    uint32_t dtype;
    uint32_t cols;
    uint32_t rows;
    float middle; /* of a vector */
    float sigma;
    bool is_output;
};

enum { TINY_TENSOR_COUNT_MAX = 1024 };

struct tiny_maker {
    const struct tiny_spec *spec;
    struct gguf_writer *writer;
    const struct tiny_tokens *tokens;
    struct tiny_tensor tensors[TINY_TENSOR_COUNT_MAX];
    uint32_t tensor_count;
};

static struct tiny_tensor *maker_add(struct tiny_maker *maker, const char *name, uint32_t dtype,
                                     uint32_t cols, uint32_t rows)
{
    struct tiny_tensor *tensor = &maker->tensors[maker->tensor_count++];

    CHECK(maker->tensor_count <= TINY_TENSOR_COUNT_MAX);
    tensor->index = gguf_writer_add_tensor(maker->writer, bytes_of_text(name), dtype, cols, rows);
    tensor->dtype = dtype;
    tensor->cols = cols;
    tensor->rows = rows;
    return tensor;
}

static void maker_add_matrix(struct tiny_maker *maker, int layer, const char *part, uint32_t cols,
                             uint32_t rows, float gain)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "blk.%d.%s.weight", layer, part);
    maker_add(maker, name, maker->spec->dtype, cols, rows)->sigma = gain / sqrtf((float)cols);
}

static void maker_add_vector(struct tiny_maker *maker, int layer, const char *part, uint32_t cols,
                             float middle, float sigma)
{
    char name[64];

    (void)snprintf(name, sizeof(name), "blk.%d.%s", layer, part);
    struct tiny_tensor *tensor = maker_add(maker, name, DTYPE_F32, cols, 0);
    tensor->middle = middle;
    tensor->sigma = sigma;
}

static void maker_add_layer(struct tiny_maker *maker, int layer)
{
    const struct tiny_spec *spec = maker->spec;
    const uint32_t query = spec->head_count * spec->head_size;
    const uint32_t kv = spec->kv_head_count * spec->head_size;

    maker_add_vector(maker, layer, "attn_norm.weight", spec->width, 1.0f, 0.1f);
    maker_add_matrix(maker, layer, "attn_q", spec->width, query, tiny_gain_query);
    maker_add_matrix(maker, layer, "attn_k", spec->width, kv, tiny_gain_query);
    maker_add_matrix(maker, layer, "attn_v", spec->width, kv, tiny_gain_value);
    maker_add_matrix(maker, layer, "attn_output", query, spec->width, tiny_gain_attention_out);
    if (spec->biases) {
        maker_add_vector(maker, layer, "attn_q.bias", query, 0, 0.3f);
        maker_add_vector(maker, layer, "attn_k.bias", kv, 0, 0.3f);
        maker_add_vector(maker, layer, "attn_v.bias", kv, 0, 0.3f);
        maker_add_vector(maker, layer, "attn_output.bias", spec->width, 0, 0.3f);
    }
    maker_add_vector(maker, layer, "ffn_norm.weight", spec->width, 1.0f, 0.1f);
    maker_add_matrix(maker, layer, "ffn_gate", spec->width, spec->hidden, tiny_gain_gate);
    maker_add_matrix(maker, layer, "ffn_up", spec->width, spec->hidden, tiny_gain_up);
    maker_add_matrix(maker, layer, "ffn_down", spec->hidden, spec->width, tiny_gain_down);
}

static void maker_add_tensors(struct tiny_maker *maker)
{
    const struct tiny_spec *spec = maker->spec;

    struct tiny_tensor *embedding =
        maker_add(maker, "token_embd.weight", spec->dtype, spec->width, spec->vocabulary_count);
    embedding->sigma = tiny_gain_embedding;
    if (spec->tied) {
        /* The embedding as output gives logits of its own size times the root of the width. */
        embedding->sigma = tiny_gain_output / sqrtf((float)spec->width);
    }
    for (uint32_t layer = 0; layer < spec->layer_count; layer++) {
        maker_add_layer(maker, (int)layer);
    }
    struct tiny_tensor *norm = maker_add(maker, "output_norm.weight", DTYPE_F32, spec->width, 0);
    norm->middle = 1;
    norm->sigma = 0.1f;
    if (!spec->tied) {
        struct tiny_tensor *output =
            maker_add(maker, "output.weight", spec->dtype, spec->width, spec->vocabulary_count);
        output->sigma = tiny_gain_output / sqrtf((float)spec->width);
        output->is_output = true;
    }
    if (spec->rope_factors) {
        struct tiny_tensor *factors =
            maker_add(maker, "rope_freqs.weight", DTYPE_F32, spec->head_size / 2, 0);
        factors->middle = 2.0f;
        factors->sigma = 0.5f;
    }
}

static void maker_add_keys(struct tiny_maker *maker)
{
    const struct tiny_spec *spec = maker->spec;
    struct gguf_writer *writer = maker->writer;

    gguf_writer_add_text(writer, "general.architecture", bytes_of_text("llama"));
    gguf_writer_add_text(writer, "general.name", bytes_of_text("tiny"));
    gguf_writer_add_u32(writer, "llama.block_count", spec->layer_count);
    gguf_writer_add_u32(writer, "llama.context_length", spec->context_token_count);
    gguf_writer_add_u32(writer, "llama.embedding_length", spec->width);
    gguf_writer_add_u32(writer, "llama.feed_forward_length", spec->hidden);
    gguf_writer_add_u32(writer, "llama.attention.head_count", spec->head_count);
    gguf_writer_add_u32(writer, "llama.attention.head_count_kv", spec->kv_head_count);
    gguf_writer_add_u32(writer, "llama.attention.key_length", spec->head_size);
    gguf_writer_add_u32(writer, "llama.attention.value_length", spec->head_size);
    gguf_writer_add_u32(writer, "llama.rope.dimension_count", spec->head_size);
    gguf_writer_add_f32(writer, "llama.rope.freq_base", 10000.0f);
    gguf_writer_add_f32(writer, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    if (spec->window != 0) {
        gguf_writer_add_u32(writer, "llama.attention.sliding_window", spec->window);
    }
    if (spec->rope_linear != 0) {
        gguf_writer_add_text(writer, "llama.rope.scaling.type", bytes_of_text("linear"));
        gguf_writer_add_f32(writer, "llama.rope.scaling.factor", spec->rope_linear);
    }
}

static void maker_add_id(struct gguf_writer *writer, const char *key, uint32_t id)
{
    if (id != TOKEN_NONE) {
        gguf_writer_add_u32(writer, key, id);
    }
}

static void maker_add_tokens(struct tiny_maker *maker)
{
    struct gguf_writer *writer = maker->writer;
    const struct tiny_tokens *tokens = maker->tokens;
    const bool bpe = tokens->kind == VOCABULARY_BPE;

    gguf_writer_add_text(writer, "tokenizer.ggml.model", bytes_of_text(bpe ? "gpt2" : "llama"));
    gguf_writer_add_text(writer, "tokenizer.ggml.pre", bytes_of_text(bpe ? "smollm" : "default"));
    gguf_writer_add_text_array(writer, "tokenizer.ggml.tokens", tokens->tokens, tokens->count);
    gguf_writer_add_i32_array(writer, "tokenizer.ggml.token_type", tokens->types, tokens->count);
    if (bpe) {
        gguf_writer_add_text_array(writer, "tokenizer.ggml.merges", tokens->merges,
                                   tokens->merge_count);
    } else {
        gguf_writer_add_f32_array(writer, "tokenizer.ggml.scores", tokens->scores, tokens->count);
    }
    maker_add_id(writer, "tokenizer.ggml.bos_token_id", tokens->bos);
    maker_add_id(writer, "tokenizer.ggml.eos_token_id", tokens->eos);
    maker_add_id(writer, "tokenizer.ggml.eot_token_id", tokens->eot);
    maker_add_id(writer, "tokenizer.ggml.unknown_token_id", tokens->unknown);
    maker_add_id(writer, "tokenizer.ggml.padding_token_id", tokens->pad);
    gguf_writer_add_bool(writer, "tokenizer.ggml.add_bos_token", !bpe);
    gguf_writer_add_bool(writer, "tokenizer.ggml.add_space_prefix", !bpe);
    gguf_writer_add_text(writer, "tokenizer.chat_template", bytes_of_text(tiny_template));
}

/* A control token's output row of zeros has the mean logit, which few texts ever draw. */
static bool maker_is_mute(const struct tiny_maker *maker, const struct tiny_tensor *tensor,
                          uint32_t row)
{
    const int32_t type = tensor->is_output ? maker->tokens->types[row] : TOKEN_NORMAL;

    return type == TOKEN_CONTROL || type == TOKEN_UNKNOWN || type == TOKEN_UNUSED;
}

static void maker_fill(struct tiny_maker *maker, const struct tiny_tensor *tensor)
{
    uint64_t state = maker->spec->seed * 0x9e3779b97f4a7c15u + tensor->index;
    uint64_t size = 0;
    uint8_t *to = gguf_writer_tensor(maker->writer, tensor->index, &size);

    if (tensor->rows == 0) {
        for (uint32_t i = 0; i < tensor->cols; i++) {
            const float value = tensor->middle + tensor->sigma * tiny_next_even(&state);
            memcpy(to + 4 * (size_t)i, &value, sizeof(value));
        }
        return;
    }
    const uint64_t row_bytes = size / tensor->rows;
    for (uint32_t row = 0; row < tensor->rows; row++) {
        uint8_t *row_to = to + row * row_bytes;
        tiny_fill_row(&state, tensor->dtype, tensor->sigma, tensor->cols, row_to);
        if (maker_is_mute(maker, tensor, row)) {
            memset(row_to, 0, row_bytes);
        }
    }
}

struct tiny_spec tiny_spec_of(uint32_t dtype, enum vocabulary_kind tokenizer, uint64_t seed)
{
    const struct tiny_spec spec = {
        .dtype = dtype,
        .tokenizer = tokenizer,
        .seed = seed,
        .layer_count = 2,
        .width = 256,
        .head_count = 4,
        .kv_head_count = 2,
        .head_size = 64,
        .hidden = 512,
        .vocabulary_count = 512,
        .context_token_count = 4096,
    };

    return spec;
}

struct bytes tiny_model_create(const struct tiny_spec *spec)
{
    struct tiny_maker *maker = memory_alloc(1, sizeof(*maker));
    struct tiny_tokens *tokens = tiny_tokens_create(spec->tokenizer, spec->vocabulary_count);

    CHECK(maker != NULL);
    maker->spec = spec;
    maker->tokens = tokens;
    maker->writer = gguf_writer_create();
    maker_add_keys(maker);
    maker_add_tokens(maker);
    maker_add_tensors(maker);
    const struct bytes file = gguf_writer_finish(maker->writer);
    for (uint32_t i = 0; i < maker->tensor_count; i++) {
        maker_fill(maker, &maker->tensors[i]);
    }
    uint8_t *copy = memory_alloc_aligned(64, 1, file.size);
    CHECK(copy != NULL);
    memcpy(copy, file.data, file.size);
    gguf_writer_destroy(maker->writer);
    tiny_tokens_destroy(tokens);
    memory_free(maker);
    return bytes_of(copy, file.size);
}
