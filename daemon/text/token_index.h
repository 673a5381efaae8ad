/* From a token's written form to its id.
 *
 * Thread: any once built. The vocabulary is borrowed and outlives the index. Where a vocabulary
 * writes two tokens alike, the lower id is found.
 */
#ifndef PERSONAD_TEXT_TOKEN_INDEX_H
#define PERSONAD_TEXT_TOKEN_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"
#include "base/vocabulary.h"

struct token_index {
    const struct vocabulary *vocabulary; /* borrowed */
    uint32_t *ids;                       /* owned; open addressing, TOKEN_NONE is free */
    uint32_t capacity;                   /* power of two, at least twice the tokens */
};

/* MEMORY. On failure the index is as finish leaves it. */
MUST_USE enum status token_index_init(struct token_index *index,
                                      const struct vocabulary *vocabulary);

/* A zeroed or finished index is fine. */
void token_index_finish(struct token_index *index);

/* TOKEN_NONE when no token is written so. */
uint32_t token_index_find(const struct token_index *index, struct bytes name);

/* The same, but only tokens that plain text may become. */
uint32_t token_index_find_text(const struct token_index *index, struct bytes name);

/* What plain text may become: normal tokens, and user-defined ones unless they look like markup
 * (begin with '<' or '['), since files do not say which of those a template gives a meaning to. */
bool token_index_is_text(const struct vocabulary *vocabulary, uint32_t id);

#endif
