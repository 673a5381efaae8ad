/* Cuts text into the pieces inside which BPE merges: the regular expressions that models name.
 *
 * Thread: a pretokenizer is immutable after create; a pretokenizer_match is one thread's. Text is
 * valid UTF-8.
 *
 *   NAME IN THE FILE                      STAGES                       TRAITS
 *   gpt-2, gpt2, phi-2, default, ""       GPT-2's expression
 *   smollm, starcoder, refact             each digit alone, then GPT-2's
 *   llama-bpe, llama3, llama-v3           Llama 3's expression         whole pieces first
 *   qwen2                                 Qwen 2's expression          text in NFC
 *
 * Unicode: letters and numbers are those of Unicode 16 and, for single digits, 17, as the
 * reference knows them, whichever version the PCRE2 at hand has. NFC is utf8proc's.
 */
#ifndef PERSONAD_TEXT_PRETOKENIZER_H
#define PERSONAD_TEXT_PRETOKENIZER_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"

struct pretokenizer;
struct pretokenizer_match;

/* UNSUPPORTED for a name that is not in the table above; the sentence lists those that are. */
MUST_USE enum status pretokenizer_create(struct bytes name, struct error *error,
                                         struct pretokenizer **out);
void pretokenizer_destroy(struct pretokenizer *pretokenizer);

/* A piece that is a token of the vocabulary is that token, whatever the merges say. */
bool pretokenizer_takes_whole(const struct pretokenizer *pretokenizer);

/* Text is brought into NFC before it is cut. */
bool pretokenizer_wants_nfc(const struct pretokenizer *pretokenizer);

/* What matching writes to. */
MUST_USE enum status pretokenizer_match_create(const struct pretokenizer *pretokenizer,
                                               struct pretokenizer_match **out);
void pretokenizer_match_destroy(struct pretokenizer_match *match);

/* Calls on_piece for each piece, in order; together they are the text. Stops at the first status
 * that is not OK and returns it. LIMIT when the expression gives up, MEMORY. */
MUST_USE enum status pretokenizer_split(const struct pretokenizer *pretokenizer,
                                        struct pretokenizer_match *match, struct bytes text,
                                        enum status (*on_piece)(void *context, struct bytes piece),
                                        void *context);

#endif
