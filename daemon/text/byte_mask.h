/* Which tokens may come next when the bytes of the text are prescribed.
 *
 * Thread: immutable after create; any. The vocabulary is sorted by the bytes that its tokens show,
 * so the tokens that begin a text are found by narrowing one range a byte, and those that a text
 * begins are one range. Tokens that show nothing are in no set.
 *
 * A mask is a bit set of the vocabulary, as STEP_MASK reads it (kernels/steps/mask.h). What it
 * allows is a function of the prescribed bytes and of the bytes that were written so far alone, so
 * a node is computed again without it being stored.
 */
#ifndef PERSONAD_TEXT_BYTE_MASK_H
#define PERSONAD_TEXT_BYTE_MASK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/byte_rule.h"
#include "base/bytes.h"
#include "base/status.h"
#include "text/tokenizer.h"

struct byte_mask;

/* The tokenizer is borrowed. MEMORY. */
MUST_USE enum status byte_mask_create(const struct tokenizer *tokenizer, struct byte_mask **out);
void byte_mask_destroy(struct byte_mask *mask); /* NULL is fine */

/* Words of one bit set. */
uint32_t byte_mask_word_count(const struct byte_mask *mask);

/* Adds the tokens whose bytes are a beginning of `rest`, or all of it. */
void byte_mask_allow_within(const struct byte_mask *mask, struct bytes rest, uint32_t *words);

/* Adds the tokens whose bytes begin with `rest` and go on. `rest` is not empty. */
void byte_mask_allow_beyond(const struct byte_mask *mask, struct bytes rest, uint32_t *words);

/* Whether it prescribes nothing to what comes after so many bytes. */
bool byte_rule_is_spent(const struct byte_rule *rule, size_t text_bytes);

/* The set after `text`. True: it prescribes nothing (any more), and the words are untouched. The
 * end tokens are allowed where a choice is written whole and a longer one is possible too. */
bool byte_rule_fill(const struct byte_rule *rule, const struct byte_mask *mask, struct bytes text,
                    uint32_t *words);

/* The text is one of the choices, and none of them goes on from there: generation ends. */
bool byte_rule_is_done(const struct byte_rule *rule, struct bytes text);

#endif
