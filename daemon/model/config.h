/* A model's configuration from its metadata, and the check of its tensors against it.
 *
 * Thread: any, one at a time. Texts in the result are borrowed from the GGUF reader.
 */
#ifndef PERSONAD_MODEL_CONFIG_H
#define PERSONAD_MODEL_CONFIG_H

#include "base/error.h"
#include "base/status.h"
#include "model/architecture.h"
#include "model/gguf.h"
#include "model/model.h"

/* Reads the keys. BAD_INPUT, UNSUPPORTED, NOT_FOUND (a key), MEMORY; the error names the key or the
 * tensor. */
MUST_USE enum status config_read(const struct gguf *gguf, const struct architecture *architecture,
                                 struct error *error, struct model_config *out);

/* Every tensor that the family needs is there with its shape and a type that can be read, and none
 * that it does not know. Fills in the numbers that follow from the tensors. */
MUST_USE enum status config_check_tensors(const struct gguf *gguf,
                                          const struct architecture *architecture,
                                          struct error *error, struct model_config *config);

/* Inverse frequencies with their scaling applied, rope_pair_count of them; the caller frees them
 * with memory_free. */
MUST_USE enum status config_read_rope(const struct gguf *gguf, const struct model_config *config,
                                      struct error *error, double **out);

/* The tensor of a role, NULL when the file has none. */
const struct gguf_tensor *config_tensor(const struct gguf *gguf, enum tensor_role role,
                                        uint32_t layer);

#endif
