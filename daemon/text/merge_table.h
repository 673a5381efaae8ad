/* The merges of a vocabulary as a hash table from (left id, right id) to (rank, id), so that a
 * lookup touches no text.
 *
 * Thread: immutable after init. The vocabulary behind the index is borrowed during init only.
 */
#ifndef PERSONAD_TEXT_MERGE_TABLE_H
#define PERSONAD_TEXT_MERGE_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "text/token_index.h"

struct merge_table {
    struct merge_entry *entries; /* owned; open addressing */
    uint32_t capacity;           /* power of two */
};

/* BAD_INPUT names a merge that is malformed or makes no token of the vocabulary; a merge that makes
 * a token that plain text may not become (token_index.h) is left out. MEMORY. */
MUST_USE enum status merge_table_init(struct merge_table *table, const struct token_index *index,
                                      struct error *error);
void merge_table_finish(struct merge_table *table); /* a zeroed one is fine */

/* False when the two do not merge. */
bool merge_table_find(const struct merge_table *table, uint32_t left, uint32_t right,
                      uint32_t *rank, uint32_t *id);

#endif
