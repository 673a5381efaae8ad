/* Text to token ids and back: byte-level BPE and SentencePiece BPE, from a model's vocabulary.
 *
 * Thread: a tokenizer is immutable after create and may be used from any thread; what varies lies
 * in a `struct tokenizer_scratch`, one a thread (it holds the regular expression's match data and
 * grows as needed up to the bound for TEXT_BYTES_MAX). The vocabulary is borrowed and must outlive
 * it. Text is UTF-8 (callers validate with utf8_is_valid; malformed text answers BAD_INPUT).
 * Special tokens are produced only by tokenizer_encode_special(): control tokens, and user-defined
 * ones that look like markup (begin with '<' or '['). Other user-defined tokens, such as runs of
 * spaces, belong to plain text. A byte that a byte-level vocabulary has no token for is left out,
 * as the reference does.
 * Reference: Hugging Face `tokenizers` byte-level BPE; SentencePiece BPE as in Llama 2.
 * tests/unit/text holds both to fixtures.
 */
#ifndef PERSONAD_TEXT_TOKENIZER_H
#define PERSONAD_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "base/vocabulary.h"

struct tokenizer;
struct tokenizer_scratch;

/* UNSUPPORTED names a pre-tokeniser that is not known. */
MUST_USE enum status tokenizer_create(const struct vocabulary *vocabulary, struct error *error,
                                      struct tokenizer **out);
void tokenizer_destroy(struct tokenizer *tokenizer);

MUST_USE enum status tokenizer_scratch_create(const struct tokenizer *tokenizer,
                                              struct tokenizer_scratch **out);
void tokenizer_scratch_destroy(struct tokenizer_scratch *scratch);

const struct vocabulary *tokenizer_vocabulary(const struct tokenizer *tokenizer);

/* Ids of plain text, appended to ids[*count], at most count_max in all (LIMIT). Never a special
 * token, never BOS; `<|im_end|>` in the text becomes ordinary tokens. at_start: SPM puts its space
 * prefix only at the start of a text that begins a context or follows a special token. */
MUST_USE enum status tokenizer_encode(const struct tokenizer *tokenizer,
                                      struct tokenizer_scratch *scratch, struct bytes text,
                                      bool at_start, uint32_t *ids, uint32_t count_max,
                                      uint32_t *count);

/* The same, but special tokens written out in the text become their ids (longest match first): for
 * frames that templates write, and for the API's explicit flag. */
MUST_USE enum status tokenizer_encode_special(const struct tokenizer *tokenizer,
                                              struct tokenizer_scratch *scratch, struct bytes text,
                                              bool at_start, uint32_t *ids, uint32_t count_max,
                                              uint32_t *count);

/* Ids for raw bytes (maybe no valid UTF-8) by merges only, with no pre-tokeniser and no
 * normalisation: for the bytes that a cut token still showed. Joined bytes of the ids equal the
 * input exactly. NOT_FOUND when the vocabulary has no token for a byte. */
MUST_USE enum status tokenizer_encode_bytes(const struct tokenizer *tokenizer,
                                            struct tokenizer_scratch *scratch, struct bytes bytes,
                                            uint32_t *ids, uint32_t count_max, uint32_t *count);

/* The bytes that token `id` shows (borrowed, alive as long as the tokenizer). Control tokens show
 * nothing; SPM's U+2581 is a space. An id outside the vocabulary shows nothing. */
struct bytes tokenizer_token_bytes(const struct tokenizer *tokenizer, uint32_t id);

/* The token as the vocabulary writes it, for people ("<|im_end|>"). Borrowed. */
struct bytes tokenizer_token_name(const struct tokenizer *tokenizer, uint32_t id);

/* The id of a token written exactly so in the vocabulary, or TOKEN_NONE. */
uint32_t tokenizer_find(const struct tokenizer *tokenizer, struct bytes name);

/* True for end-of-generation ids: eos, eot, eom and control tokens known to end a turn in some
 * template
 * (<|im_end|>, <|eot_id|>, <end_of_turn>, <|endoftext|>, ...). */
bool tokenizer_is_end(const struct tokenizer *tokenizer, uint32_t id);

/* All end-of-generation ids, ascending. Borrowed. */
const uint32_t *tokenizer_end_ids(const struct tokenizer *tokenizer, uint32_t *count);

/* The longest tokenizer_token_bytes() of the vocabulary. */
uint32_t tokenizer_token_bytes_max(const struct tokenizer *tokenizer);

#endif
