/* The vocabulary that a model file holds, as the plain data that a tokeniser is made from.
 *
 * Thread: any, one at a time. Texts of a GGUF file are borrowed from its reader, those of other
 * formats are the table's own; what the table owns is freed by token_table_finish().
 */
#ifndef PERSONAD_MODEL_TOKEN_TABLE_H
#define PERSONAD_MODEL_TOKEN_TABLE_H

#include "base/arena.h"
#include "base/error.h"
#include "base/status.h"
#include "base/vocabulary.h"
#include "model/gguf.h"

struct token_table {
    struct vocabulary vocabulary;
    uint8_t *types; /* owned */
    /* Owned, where the file has no arrays that could be borrowed. */
    struct bytes *tokens;
    struct bytes *merges;
    struct arena texts;
};

/* token_count: as many as the embedding has rows. BAD_INPUT or UNSUPPORTED names the key. */
MUST_USE enum status token_table_init(const struct gguf *gguf, uint32_t token_count,
                                      struct error *error, struct token_table *out);
void token_table_finish(struct token_table *table); /* a zeroed one is fine */

#endif
