/* Token ids in the making: frames (special tokens allowed) and texts (never special), in order.
 *
 * Thread: loop. One encoder serves the whole loop thread: it holds the tokeniser's scratch. Ids go
 * to a growable list that the caller owns. Text is UTF-8 and was checked where it entered.
 */
#ifndef PERSONAD_SESSION_ENCODER_H
#define PERSONAD_SESSION_ENCODER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "session/id_list.h"
#include "text/tokenizer.h"

struct encoder {
    const struct tokenizer *tokenizer; /* borrowed */
    struct tokenizer_scratch *scratch; /* owned */
};

MUST_USE enum status encoder_init(struct encoder *encoder, const struct tokenizer *tokenizer);
void encoder_finish(struct encoder *encoder);

/* Each appends; on failure the list is as it was. LIMIT names TEXT_TOKEN_COUNT_MAX. */
MUST_USE enum status encoder_frame(struct encoder *encoder, struct bytes text, bool at_start,
                                   struct error *error, struct id_list *list);
MUST_USE enum status encoder_text(struct encoder *encoder, struct bytes text, bool at_start,
                                  struct error *error, struct id_list *list);

/* The ids of raw bytes by merges only, for what a cut token still showed. */
MUST_USE enum status encoder_bytes(struct encoder *encoder, struct bytes bytes,
                                   struct id_list *list);

/* What an empty context starts with: BOS where the model wants one, else the end-of-text token. */
uint32_t encoder_start_id(const struct encoder *encoder);

/* Appends the bytes that the ids show. */
MUST_USE enum status encoder_show(const struct encoder *encoder, const uint32_t *ids,
                                  uint32_t count, struct buffer *out);

#endif
