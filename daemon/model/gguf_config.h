/* A GGUF file as a model: its configuration and rotary positions, from its keys.
 *
 * Thread: any, one at a time. Texts in the result are borrowed from the reader.
 */
#ifndef PERSONAD_MODEL_GGUF_CONFIG_H
#define PERSONAD_MODEL_GGUF_CONFIG_H

#include "base/error.h"
#include "base/status.h"
#include "model/gguf.h"
#include "model/model.h"

struct architecture;

/* BAD_INPUT, UNSUPPORTED, NOT_FOUND (a key), MEMORY; the error names the key or the tensor. */
MUST_USE enum status gguf_config_read(const struct gguf *gguf, struct error *error,
                                      const struct architecture **architecture,
                                      struct model_config *out);

/* Inverse frequencies with their scaling applied, rope_pair_count of them; the caller frees them
 * with memory_free. */
MUST_USE enum status gguf_config_read_rope(const struct gguf *gguf,
                                           const struct model_config *config, struct error *error,
                                           double **out);

#endif
