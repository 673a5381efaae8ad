/* The merge loop that both tokenisers share: the best neighbouring pair joins, until none can.
 *
 * Thread: one at a time; a merger belongs to one scratch and keeps its memory between texts. Time
 * is O(n log n) in the symbols, whatever the text: a megabyte of one letter is not special.
 *
 * Best is the lowest rank, then the leftmost pair. Who may join, and with which rank, is the
 * rules' business (bpe.c, spm.c).
 */
#ifndef PERSONAD_TEXT_MERGER_H
#define PERSONAD_TEXT_MERGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

enum { MERGER_NONE = 0xffffffffu };

/* A run of the text that is one symbol by now. */
struct merge_symbol {
    uint32_t offset;   /* in the text */
    uint32_t size;     /* bytes; 0 once it was joined to its left neighbour */
    uint32_t id;       /* token, or TOKEN_NONE */
    uint32_t previous; /* index, or MERGER_NONE */
    uint32_t next;     /* index, or MERGER_NONE */
};

struct merge_pair {
    uint64_t order; /* rank in the high half, index of the left symbol in the low: a total order */
    uint32_t size;  /* of both when the pair was seen; another size now means that it is stale */
    uint32_t id;    /* of what they become */
};

struct merge_rules {
    const void *context;
    /* False when the two never join. */
    bool (*find)(const void *context, struct bytes text, const struct merge_symbol *left,
                 const struct merge_symbol *right, uint32_t *rank, uint32_t *id);
};

struct merger {
    struct merge_symbol *symbols; /* owned */
    struct merge_pair *heap;      /* owned; room for two pairs a symbol */
    uint32_t symbol_count;
    uint32_t symbol_capacity;
    uint32_t heap_count;
};

void merger_init(struct merger *merger);
void merger_finish(struct merger *merger);

/* Drops all symbols and makes room for `symbol_count_max` new ones. MEMORY. */
MUST_USE enum status merger_clear(struct merger *merger, uint32_t symbol_count_max);

/* Appends a symbol, at most as many as merger_clear() made room for. */
void merger_push(struct merger *merger, uint32_t offset, uint32_t size, uint32_t id);

/* Joins until no pair can. What is left: from symbol 0 on along `next`. */
void merger_run(struct merger *merger, const struct merge_rules *rules, struct bytes text);

#endif
