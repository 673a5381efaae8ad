#include "model/architecture.h"

#include <stdio.h>

#include "base/check.h"

const struct tensor_kind tensor_kinds[TENSOR_ROLE_COUNT] = {
    [TENSOR_EMBEDDING] = {"token_embd.weight", EXTENT_VOCABULARY, EXTENT_WIDTH},
    [TENSOR_ROPE_FACTORS] = {"rope_freqs.weight", EXTENT_ONE, EXTENT_ROPE_PAIRS},
    [TENSOR_OUTPUT_NORM] = {"output_norm.weight", EXTENT_ONE, EXTENT_WIDTH},
    [TENSOR_OUTPUT] = {"output.weight", EXTENT_VOCABULARY, EXTENT_WIDTH},
    [TENSOR_ATTN_NORM] = {"attn_norm.weight", EXTENT_ONE, EXTENT_WIDTH},
    [TENSOR_Q] = {"attn_q.weight", EXTENT_QUERY, EXTENT_WIDTH},
    [TENSOR_K] = {"attn_k.weight", EXTENT_KV, EXTENT_WIDTH},
    [TENSOR_V] = {"attn_v.weight", EXTENT_KV, EXTENT_WIDTH},
    [TENSOR_Q_BIAS] = {"attn_q.bias", EXTENT_ONE, EXTENT_QUERY},
    [TENSOR_K_BIAS] = {"attn_k.bias", EXTENT_ONE, EXTENT_KV},
    [TENSOR_V_BIAS] = {"attn_v.bias", EXTENT_ONE, EXTENT_KV},
    [TENSOR_Q_NORM] = {"attn_q_norm.weight", EXTENT_ONE, EXTENT_HEAD},
    [TENSOR_K_NORM] = {"attn_k_norm.weight", EXTENT_ONE, EXTENT_HEAD},
    [TENSOR_ATTN_OUT] = {"attn_output.weight", EXTENT_WIDTH, EXTENT_QUERY},
    [TENSOR_ATTN_OUT_BIAS] = {"attn_output.bias", EXTENT_ONE, EXTENT_WIDTH},
    [TENSOR_FFN_NORM] = {"ffn_norm.weight", EXTENT_ONE, EXTENT_WIDTH},
    [TENSOR_FFN_GATE] = {"ffn_gate.weight", EXTENT_HIDDEN, EXTENT_WIDTH},
    [TENSOR_FFN_UP] = {"ffn_up.weight", EXTENT_HIDDEN, EXTENT_WIDTH},
    [TENSOR_FFN_DOWN] = {"ffn_down.weight", EXTENT_WIDTH, EXTENT_HIDDEN},
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

void architecture_tensor_name(enum tensor_role role, uint32_t layer,
                              char out[TENSOR_NAME_BYTES_MAX])
{
    int size = 0;

    CHECK(role < TENSOR_ROLE_COUNT);
    if (role >= TENSOR_LAYER_FIRST) {
        size = snprintf(out, TENSOR_NAME_BYTES_MAX, "blk.%u.%s", layer, tensor_kinds[role].name);
    } else {
        size = snprintf(out, TENSOR_NAME_BYTES_MAX, "%s", tensor_kinds[role].name);
    }
    CHECK(size > 0);
    CHECK(size < TENSOR_NAME_BYTES_MAX);
}
