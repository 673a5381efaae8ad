/* Token ids to text, in whole UTF-8 sequences: for Detokenize requests and streams without cues.
 *
 * Thread: one at a time; the tokenizer is borrowed. Bytes that no later token can complete come
 * out as they are.
 */
#ifndef PERSONAD_TEXT_DETOKENIZER_H
#define PERSONAD_TEXT_DETOKENIZER_H

#include "base/bytes.h"
#include "base/status.h"
#include "text/tokenizer.h"

struct detokenizer {
    const struct tokenizer *tokenizer; /* borrowed */
    uint8_t held[4];                   /* an unfinished sequence */
    uint8_t held_size;
};

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer);

/* Appends what the token completes. MEMORY or LIMIT, as buffer_append(); then nothing has changed.
 */
MUST_USE enum status detokenizer_push(struct detokenizer *detokenizer, uint32_t id,
                                      struct buffer *out);

/* The end: appends what is held. */
MUST_USE enum status detokenizer_end(struct detokenizer *detokenizer, struct buffer *out);

#endif
