/* What tokenizer.json does to a text before it merges, recognised by its parts: the normaliser and
 * the pre-tokeniser become the names that text/ knows.
 *
 * Thread: any, pure. Known:
 *
 *   PRE-TOKENISER                              NORMALISER          KIND  NAME
 *   ByteLevel, its own expression              none                BPE   gpt-2
 *   each digit alone, then ByteLevel           none                BPE   smollm
 *   Llama 3's expression, then ByteLevel       none                BPE   llama-bpe (whole pieces)
 *   Qwen 2's expression, then ByteLevel        NFC                 BPE   qwen2
 *   none                                       [U+2581] spaces     SPM   (space in front or not)
 *   Metaspace without splits                   none                SPM   (space in front or not)
 */
#ifndef PERSONAD_MODEL_HF_SPLIT_H
#define PERSONAD_MODEL_HF_SPLIT_H

#include <stdbool.h>

#include "base/error.h"
#include "base/status.h"
#include "base/vocabulary.h"
#include "model/hf_json.h"

struct hf_split {
    enum vocabulary_kind kind;
    const char *pre; /* static; "" for SPM */
    bool add_space_prefix;
};

/* `root` is the whole of tokenizer.json. UNSUPPORTED says what is not known. */
MUST_USE enum status hf_split_read(const struct hf_object *root, struct error *error,
                                   struct hf_split *out);

#endif
