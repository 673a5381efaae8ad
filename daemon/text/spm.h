/* SentencePiece BPE: pieces with scores, or with merges in order, bytes for what no piece covers.
 *
 * Thread: immutable after create. The vocabulary behind the index is borrowed. Best score joins
 * first, or the earlier merge; there are no cuts, a whole text is one piece. In the text that is
 * encoded, each space has become U+2581, and a leading one is there already (tokenizer.c).
 */
#ifndef PERSONAD_TEXT_SPM_H
#define PERSONAD_TEXT_SPM_H

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "text/merger.h"
#include "text/token_index.h"
#include "text/token_sink.h"

struct spm;

/* BAD_INPUT when the vocabulary has neither scores nor good merges. */
MUST_USE enum status spm_create(const struct token_index *index, struct error *error,
                                struct spm **out);
void spm_destroy(struct spm *spm);

/* Appends the ids of valid UTF-8. A character without a piece becomes its byte tokens; without
 * those, the unknown token, once for each run; without that, nothing. MEMORY, LIMIT. */
MUST_USE enum status spm_encode(const struct spm *spm, struct merger *merger, struct bytes text,
                                struct token_sink *sink);

/* Appends the ids of raw bytes, maybe no UTF-8, spaces as they are, so that what the ids show is
 * the bytes exactly. `room` is overwritten. NOT_FOUND when that takes a byte token that is not
 * there; MEMORY, LIMIT. */
MUST_USE enum status spm_encode_raw(const struct spm *spm, struct merger *merger,
                                    struct bytes bytes, struct buffer *room,
                                    struct token_sink *sink);

#endif
