/* A model file opened and understood: configuration, vocabulary, fingerprint. No weight is read
 * here; forward_create() reads them.
 *
 * Thread: any, immutable once open; the functions that read tensor bytes are for one thread at a
 * time. All that it hands out is borrowed and lives until model_close(). Which architectures there
 * are is a table of data (architecture.c): keys, tensor names, rope style, what must be there.
 */
#ifndef PERSONAD_MODEL_MODEL_H
#define PERSONAD_MODEL_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "base/vocabulary.h"
#include "kernels/backend.h"

struct model;
struct hf_file;      /* hf_files.h */
struct model_file;   /* model_file.h */
struct architecture; /* architecture.h */

enum { MODEL_HASH_BYTES = 32 };

/* What the file says, checked against the tensors that it holds. */
struct model_config {
    const char *architecture; /* "llama"; static */
    struct bytes name;        /* general.name, "" when absent */
    struct bytes weights;     /* the type most weights have, for people: "Q4_1" */
    bool rounds_rows;         /* products by that type round what it is multiplied with */
    uint32_t layer_count;
    uint32_t width; /* of the residual stream */
    uint32_t head_count;
    uint32_t kv_head_count;
    uint32_t head_size;
    uint32_t hidden; /* of the feed-forward block */
    uint32_t vocabulary_count;
    uint32_t context_token_count; /* positions that it was trained for */
    float norm_epsilon;
    float attention_scale;
    float embedding_scale;
    enum activation activation;
    bool tied; /* the embedding is the output matrix too */
    enum rope_style rope_style;
    uint32_t rope_pair_count;        /* rotated pairs a head; the rest passes */
    const double *inverse_frequency; /* [rope_pair_count], scaling factors applied */
    uint64_t weight_bytes;           /* of all tensors, as stored */
};

/* Opens a GGUF file, or a folder in the layout of Hugging Face (hf_folder.h), checks metadata,
 * vocabulary, names and shapes of all tensors, and hashes it. UNSUPPORTED names an architecture,
 * weight type or rope scaling that is not known; BAD_INPUT names the key or tensor that is missing
 * or wrong; IO the file. */
MUST_USE enum status model_open(const char *path, struct error *error, struct model **out);

/* The same over a GGUF file in memory (borrowed, must outlive the model): for tests, fuzzing. */
MUST_USE enum status model_open_bytes(struct bytes file, const char *name, struct error *error,
                                      struct model **out);

/* The same over the files of a folder in memory (borrowed, must outlive the model). */
MUST_USE enum status model_open_files(const struct hf_file *files, uint32_t count, const char *name,
                                      struct error *error, struct model **out);
void model_close(struct model *model); /* NULL is fine */

const struct model_config *model_config(const struct model *model);
const struct vocabulary *model_vocabulary(const struct model *model);

/* SHA-256 of the file or of all files: the model fingerprint that nodes are stored with. */
const uint8_t *model_hash(const struct model *model);

/* For forward.c. */
const struct model_file *model_file(const struct model *model);
const struct architecture *model_architecture(const struct model *model);

#endif
