/* A model's files as the rest of model/ sees them, whichever format they are in.
 *
 * Thread: any, one at a time. The file owns its reader; what it hands out is borrowed until
 * model_file_close(). Formats: GGUF (gguf.h) and Hugging Face folders with safetensors
 * (hf_folder.h); every entry of a format is required.
 */
#ifndef PERSONAD_MODEL_MODEL_FILE_H
#define PERSONAD_MODEL_MODEL_FILE_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "model/architecture.h"
#include "model/model.h"
#include "model/tensor.h"
#include "model/token_table.h"

struct model_format {
    /* Of the file or folder, for errors. */
    const char *(*name)(const void *reader);

    enum tensor_naming naming;
    const struct model_tensor *(*tensor_find)(const void *reader, const char *name); /* or NULL */
    uint64_t (*tensor_count)(const void *reader);
    const struct model_tensor *(*tensor_at)(const void *reader, uint64_t index);

    /* size_bytes into `to`, rows in the order that the architecture's rope style asks for. */
    enum status (*tensor_read)(const void *reader, const struct model_tensor *tensor,
                               struct error *error, void *to);

    /* What stands outside the tensors. BAD_INPUT, UNSUPPORTED, NOT_FOUND (a key), MEMORY; the error
     * names the key. */
    enum status (*config_read)(const void *reader, struct error *error,
                               const struct architecture **architecture, struct model_config *out);

    /* Inverse frequencies with their scaling applied, rope_pair_count of them; the caller frees
     * them with memory_free. */
    enum status (*rope_read)(const void *reader, const struct model_config *config,
                             struct error *error, double **out);

    /* token_count: as many as the embedding has rows. */
    enum status (*tokens_read)(const void *reader, uint32_t token_count, struct error *error,
                               struct token_table *out);

    /* SHA-256 of all that the model is made from. */
    enum status (*hash)(void *reader, struct error *error, uint8_t out[MODEL_HASH_BYTES]);
    void (*close)(void *reader);
};

struct model_file {
    const struct model_format *format;
    void *reader; /* owned */
};

extern const struct model_format gguf_format; /* reader: struct gguf */

/* The tensor of a role, NULL when the model has none. */
const struct model_tensor *model_file_tensor(const struct model_file *file, enum tensor_role role,
                                             uint32_t layer);

const char *model_file_name(const struct model_file *file);
MUST_USE enum status model_file_tensor_read(const struct model_file *file,
                                            const struct model_tensor *tensor, struct error *error,
                                            void *to);
uint64_t model_file_tensor_count(const struct model_file *file);
const struct model_tensor *model_file_tensor_at(const struct model_file *file, uint64_t index);

/* A model of these files, which it takes over, also when it fails; see model_open(). */
MUST_USE enum status model_open_file(struct model_file file, struct error *error,
                                     struct model **out);
void model_file_close(struct model_file *file); /* a zeroed one is fine */

#endif
