/* config.json of a Hugging Face folder: sizes, rotary positions, end ids.
 *
 * Thread: any, one at a time; plain data, nothing is borrowed from the document.
 *
 * Known: model_type "llama" and "mistral" (the same arithmetic). Rotary scaling: none, "linear" and
 * "llama3". What would change the numbers and is not known answers UNSUPPORTED by name.
 */
#ifndef PERSONAD_MODEL_HF_CONFIG_H
#define PERSONAD_MODEL_HF_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "model/architecture.h"
#include "model/hf_json.h"
#include "model/model.h"

/* Rotary positions. factor 1: as they are; original_token_count 0: every frequency is divided by
 * the factor, else those of wavelengths that are long beside it (Llama 3.1). */
struct hf_rope {
    double base;
    double factor;
    double low_frequency_factor, high_frequency_factor;
    double original_token_count;
};

struct hf_config {
    const struct architecture *architecture;
    struct model_config model; /* names are ""; what follows from tensors is open */
    struct hf_rope rope;
};

/* BAD_INPUT, UNSUPPORTED, NOT_FOUND (a key); the error names the key. */
MUST_USE enum status hf_config_read(const struct hf_object *object, struct error *error,
                                    struct hf_config *out);

/* Inverse frequencies, rope_pair_count of them; the caller frees them with memory_free. MEMORY. */
MUST_USE enum status hf_config_rope(const struct hf_rope *rope, uint32_t pair_count, double **out);

#endif
