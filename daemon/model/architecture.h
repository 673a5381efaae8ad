/* The families of models as data: which keys and tensors a file of a family has, in which shapes,
 * and how its blocks differ. A new family is a row here and, if it needs one, an operation.
 *
 * Thread: any, constant. Tensor names follow
 * github.com/ggml-org/ggml/blob/master/docs/gguf.md.
 */
#ifndef PERSONAD_MODEL_ARCHITECTURE_H
#define PERSONAD_MODEL_ARCHITECTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "kernels/backend.h"

/* What a tensor is for. Those from TENSOR_LAYER_FIRST on exist once a layer. */
enum tensor_role {
    TENSOR_EMBEDDING,
    TENSOR_ROPE_FACTORS,
    TENSOR_OUTPUT_NORM,
    TENSOR_OUTPUT,
    TENSOR_ATTN_NORM,
    TENSOR_Q,
    TENSOR_K,
    TENSOR_V,
    TENSOR_Q_BIAS,
    TENSOR_K_BIAS,
    TENSOR_V_BIAS,
    TENSOR_Q_NORM,
    TENSOR_K_NORM,
    TENSOR_ATTN_OUT,
    TENSOR_ATTN_OUT_BIAS,
    TENSOR_FFN_NORM,
    TENSOR_FFN_GATE,
    TENSOR_FFN_UP,
    TENSOR_FFN_DOWN,
    TENSOR_ROLE_COUNT,
    TENSOR_LAYER_FIRST = TENSOR_ATTN_NORM,
};

enum tensor_need {
    TENSOR_UNKNOWN,  /* the family has none: a file with one is not of this family */
    TENSOR_OPTIONAL, /* used when it is there */
    TENSOR_REQUIRED,
};

/* Sizes that shapes are made of. */
enum tensor_extent {
    EXTENT_ONE, /* a vector has this for rows */
    EXTENT_WIDTH,
    EXTENT_VOCABULARY,
    EXTENT_QUERY, /* head_count * head_size */
    EXTENT_KV,    /* kv_head_count * head_size */
    EXTENT_HEAD,  /* head_size */
    EXTENT_HIDDEN,
    EXTENT_ROPE_PAIRS,
    EXTENT_COUNT,
};

/* How the tensors of a format are called. */
enum tensor_naming {
    NAMING_GGUF,
    NAMING_HF, /* Hugging Face transformers */
    NAMING_COUNT,
};

/* The same for every family. */
struct tensor_kind {
    const char *names[NAMING_COUNT]; /* after the layer's prefix; NULL: the format has none */
    enum tensor_extent rows, cols;
};

extern const struct tensor_kind tensor_kinds[TENSOR_ROLE_COUNT];

struct architecture {
    const char *name; /* general.architecture, and the prefix of its keys */
    enum rope_style rope_style;
    enum activation activation;
    enum tensor_need needs[TENSOR_ROLE_COUNT];
};

/* NULL when there is no such row. */
const struct architecture *architecture_find(struct bytes name);

/* "llama, ..." for sentences. Static. */
const char *architecture_list(void);

enum { TENSOR_NAME_BYTES_MAX = 64 };

/* Writes the tensor's name; `layer` counts for a layer's only. False when the format has none. */
bool architecture_tensor_name(enum tensor_naming naming, enum tensor_role role, uint32_t layer,
                              char out[TENSOR_NAME_BYTES_MAX]);

/* The role that a name of this format stands for, TENSOR_ROLE_COUNT for none that a model of
 * layer_count layers could have. */
enum tensor_role architecture_tensor_role(enum tensor_naming naming, struct bytes name,
                                          uint32_t layer_count);

#endif
