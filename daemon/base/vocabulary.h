/* A model's vocabulary as plain data: what a model file says, what a tokeniser is made from.
 *
 * Thread: any, immutable once made. Everything is borrowed from the owner (the model that was
 * loaded), which outlives tokenisers. It stands in base/ because model/ fills it and text/ reads
 * it.
 */
#ifndef PERSONAD_BASE_VOCABULARY_H
#define PERSONAD_BASE_VOCABULARY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum vocabulary_kind {
    VOCABULARY_BPE, /* byte-level BPE: "gpt2" in GGUF */
    VOCABULARY_SPM, /* SentencePiece BPE with scores and byte fallback: "llama" in GGUF */
};

/* As tokenizer.ggml.token_type counts them. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER_DEFINED = 4,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

enum { TOKEN_NONE = 0xffffffffu, VOCABULARY_END_COUNT_MAX = 32 };

struct vocabulary {
    enum vocabulary_kind kind;
    uint32_t token_count;
    const struct bytes
        *tokens; /* [token_count] as in the file: BPE in the GPT-2 byte alphabet, SPM with U+2581 */
    const uint8_t *types;                    /* [token_count] enum token_type */
    const float *scores;                     /* [token_count] or NULL: then merges say it */
    uint32_t merge_count;                    /* 0 where scores say it */
    const struct bytes *merges;              /* [merge_count] "left right", by rank */
    struct bytes pre;                        /* tokenizer.ggml.pre, "" when absent */
    uint32_t ends[VOCABULARY_END_COUNT_MAX]; /* more ids that end a text */
    uint32_t end_count;
    uint32_t bos, eos, eot, eom, unknown, pad; /* ids or TOKEN_NONE */
    bool add_bos;               /* whether an empty context of this model starts with bos */
    bool add_space_prefix;      /* SPM: text starts with a space; default true */
    struct bytes chat_template; /* Jinja source, "" when absent */
};

#endif
