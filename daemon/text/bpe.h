/* Byte-level BPE: the merges of a vocabulary, and their use on one piece of text.
 *
 * Thread: immutable after create. The vocabulary behind the index is borrowed. Pieces are what a
 * pre-tokeniser cut (pretokenizer.h); this module knows nothing of it.
 */
#ifndef PERSONAD_TEXT_BPE_H
#define PERSONAD_TEXT_BPE_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "text/merger.h"
#include "text/token_index.h"
#include "text/token_sink.h"

struct bpe;

/* BAD_INPUT names a merge that is malformed or makes no token of the vocabulary. A merge that makes
 * a token that plain text may not become (token_index.h) is left out. */
MUST_USE enum status bpe_create(const struct token_index *index, struct error *error,
                                struct bpe **out);
void bpe_destroy(struct bpe *bpe);

/* Appends the piece's ids. A byte that the vocabulary has no token for is left out, as the
 * reference does. whole_first: a piece that is a token is taken at once, whatever the merges say.
 * MEMORY, LIMIT. */
MUST_USE enum status bpe_encode(const struct bpe *bpe, struct merger *merger, struct bytes piece,
                                bool whole_first, struct token_sink *sink);

/* True when every byte has a token, so that bpe_encode() loses nothing. */
bool bpe_covers(const struct bpe *bpe, struct bytes piece);

#endif
