#include "model/architecture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

const struct tensor_kind tensor_kinds[TENSOR_ROLE_COUNT] = {
    [TENSOR_EMBEDDING] = {{"token_embd.weight", "model.embed_tokens.weight"},
                          EXTENT_VOCABULARY,
                          EXTENT_WIDTH},
    [TENSOR_ROPE_FACTORS] = {{"rope_freqs.weight", NULL}, EXTENT_ONE, EXTENT_ROPE_PAIRS},
    [TENSOR_OUTPUT_NORM] = {{"output_norm.weight", "model.norm.weight"}, EXTENT_ONE, EXTENT_WIDTH},
    [TENSOR_OUTPUT] = {{"output.weight", "lm_head.weight"}, EXTENT_VOCABULARY, EXTENT_WIDTH},
    [TENSOR_ATTN_NORM] = {{"attn_norm.weight", "input_layernorm.weight"}, EXTENT_ONE, EXTENT_WIDTH},
    [TENSOR_Q] = {{"attn_q.weight", "self_attn.q_proj.weight"}, EXTENT_QUERY, EXTENT_WIDTH},
    [TENSOR_K] = {{"attn_k.weight", "self_attn.k_proj.weight"}, EXTENT_KV, EXTENT_WIDTH},
    [TENSOR_V] = {{"attn_v.weight", "self_attn.v_proj.weight"}, EXTENT_KV, EXTENT_WIDTH},
    [TENSOR_Q_BIAS] = {{"attn_q.bias", "self_attn.q_proj.bias"}, EXTENT_ONE, EXTENT_QUERY},
    [TENSOR_K_BIAS] = {{"attn_k.bias", "self_attn.k_proj.bias"}, EXTENT_ONE, EXTENT_KV},
    [TENSOR_V_BIAS] = {{"attn_v.bias", "self_attn.v_proj.bias"}, EXTENT_ONE, EXTENT_KV},
    [TENSOR_Q_NORM] = {{"attn_q_norm.weight", "self_attn.q_norm.weight"}, EXTENT_ONE, EXTENT_HEAD},
    [TENSOR_K_NORM] = {{"attn_k_norm.weight", "self_attn.k_norm.weight"}, EXTENT_ONE, EXTENT_HEAD},
    [TENSOR_ATTN_OUT] = {{"attn_output.weight", "self_attn.o_proj.weight"},
                         EXTENT_WIDTH,
                         EXTENT_QUERY},
    [TENSOR_ATTN_OUT_BIAS] = {{"attn_output.bias", "self_attn.o_proj.bias"},
                              EXTENT_ONE,
                              EXTENT_WIDTH},
    [TENSOR_FFN_NORM] = {{"ffn_norm.weight", "post_attention_layernorm.weight"},
                         EXTENT_ONE,
                         EXTENT_WIDTH},
    [TENSOR_FFN_GATE] = {{"ffn_gate.weight", "mlp.gate_proj.weight"}, EXTENT_HIDDEN, EXTENT_WIDTH},
    [TENSOR_FFN_UP] = {{"ffn_up.weight", "mlp.up_proj.weight"}, EXTENT_HIDDEN, EXTENT_WIDTH},
    [TENSOR_FFN_DOWN] = {{"ffn_down.weight", "mlp.down_proj.weight"}, EXTENT_WIDTH, EXTENT_HIDDEN},
};

static const struct architecture architectures[] = {
    {
        /* SmolLM2, Llama 2, Llama 3.x, Mistral, TinyLlama. Converters permute q and k so that the
         * rotated pairs lie side by side. */
        .name = "llama",
        .rope_style = ROPE_ADJACENT,
        .activation = ACTIVATION_SILU,
        .needs =
            {
                [TENSOR_EMBEDDING] = TENSOR_REQUIRED,
                [TENSOR_ROPE_FACTORS] = TENSOR_OPTIONAL,
                [TENSOR_OUTPUT_NORM] = TENSOR_REQUIRED,
                [TENSOR_OUTPUT] = TENSOR_OPTIONAL,
                [TENSOR_ATTN_NORM] = TENSOR_REQUIRED,
                [TENSOR_Q] = TENSOR_REQUIRED,
                [TENSOR_K] = TENSOR_REQUIRED,
                [TENSOR_V] = TENSOR_REQUIRED,
                [TENSOR_Q_BIAS] = TENSOR_OPTIONAL,
                [TENSOR_K_BIAS] = TENSOR_OPTIONAL,
                [TENSOR_V_BIAS] = TENSOR_OPTIONAL,
                [TENSOR_ATTN_OUT] = TENSOR_REQUIRED,
                [TENSOR_ATTN_OUT_BIAS] = TENSOR_OPTIONAL,
                [TENSOR_FFN_NORM] = TENSOR_REQUIRED,
                [TENSOR_FFN_GATE] = TENSOR_REQUIRED,
                [TENSOR_FFN_UP] = TENSOR_REQUIRED,
                [TENSOR_FFN_DOWN] = TENSOR_REQUIRED,
            },
    },
};

enum { ARCHITECTURE_COUNT = sizeof(architectures) / sizeof(architectures[0]) };

const struct architecture *architecture_find(struct bytes name)
{
    for (size_t i = 0; i < ARCHITECTURE_COUNT; i++) {
        if (bytes_equal(name, bytes_of_text(architectures[i].name))) {
            return &architectures[i];
        }
    }
    return NULL;
}

const char *architecture_list(void)
{
    return "llama";
}

static const char *const layer_prefixes[NAMING_COUNT] = {
    [NAMING_GGUF] = "blk.",
    [NAMING_HF] = "model.layers.",
};

bool architecture_tensor_name(enum tensor_naming naming, enum tensor_role role, uint32_t layer,
                              char out[TENSOR_NAME_BYTES_MAX])
{
    CHECK(role < TENSOR_ROLE_COUNT);
    CHECK(naming < NAMING_COUNT);

    const char *name = tensor_kinds[role].names[naming];
    int size = 0;
    if (name == NULL) {
        return false;
    }
    if (role >= TENSOR_LAYER_FIRST) {
        size = snprintf(out, TENSOR_NAME_BYTES_MAX, "%s%u.%s", layer_prefixes[naming], layer, name);
    } else {
        size = snprintf(out, TENSOR_NAME_BYTES_MAX, "%s", name);
    }
    CHECK(size > 0);
    CHECK(size < TENSOR_NAME_BYTES_MAX);
    return true;
}

/* What follows the layer's prefix when its number is a layer, else NULL. */
static const char *architecture_layer_part(enum tensor_naming naming, const char *name,
                                           uint32_t layer_count)
{
    const char *prefix = layer_prefixes[naming];
    const size_t prefix_size = strlen(prefix);
    char *end = NULL;

    if (strncmp(name, prefix, prefix_size) != 0 || name[prefix_size] < '0' ||
        name[prefix_size] > '9') {
        return NULL;
    }
    const unsigned long layer = strtoul(name + prefix_size, &end, 10);
    return *end == '.' && layer < layer_count ? end + 1 : NULL;
}

enum tensor_role architecture_tensor_role(enum tensor_naming naming, struct bytes name,
                                          uint32_t layer_count)
{
    char text[TENSOR_NAME_BYTES_MAX] = "";

    if (name.size >= TENSOR_NAME_BYTES_MAX) {
        return TENSOR_ROLE_COUNT;
    }
    memcpy(text, name.data, name.size);
    const char *part = architecture_layer_part(naming, text, layer_count);
    for (int role = 0; role < TENSOR_ROLE_COUNT; role++) {
        const char *known = tensor_kinds[role].names[naming];
        const char *wanted = role >= TENSOR_LAYER_FIRST ? part : text;
        if (wanted != NULL && known != NULL && strcmp(wanted, known) == 0) {
            return (enum tensor_role)role;
        }
    }
    return TENSOR_ROLE_COUNT;
}
