/* The vocabularies of tiny models: merges learnt from a short text of our own.
 *
 * Thread: any. The table owns its bytes until tiny_tokens_finish().
 */
#ifndef PERSONAD_TESTS_SUPPORT_TINY_TOKENS_H
#define PERSONAD_TESTS_SUPPORT_TINY_TOKENS_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/vocabulary.h"

enum { TINY_TOKEN_COUNT_MAX = 1024, TINY_TOKEN_BYTES_MAX = 64 };

struct tiny_tokens {
    enum vocabulary_kind kind;
    uint32_t count;
    uint32_t merge_count;
    struct bytes tokens[TINY_TOKEN_COUNT_MAX];
    struct bytes merges[TINY_TOKEN_COUNT_MAX];
    int32_t types[TINY_TOKEN_COUNT_MAX];
    float scores[TINY_TOKEN_COUNT_MAX];
    uint32_t bos, eos, eot, unknown, pad; /* or TOKEN_NONE */
    struct buffer text;                   /* where the bytes lie */
};

/* count: tokens in all; what the text does not fill is of type TOKEN_UNUSED. */
struct tiny_tokens *tiny_tokens_create(enum vocabulary_kind kind, uint32_t count);
void tiny_tokens_destroy(struct tiny_tokens *tokens);

#endif
