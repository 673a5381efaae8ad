/* Chains: attention items made anew for a card, so that one block walks a row's blocks in turn and
 * keeps what it has of them, where the step has work enough for all multiprocessors without a
 * block each. No bit depends on it: blocks fold left either way (attention.cuh).
 *
 * Pure but for memory taken in create. Thread: any, one at a time; a planner is used again and
 * again. What make returns is borrowed until the next make.
 *
 * A chain is an item that begins at position 0 and may have more than one block. Its pages are
 * those of one row's page table from there on, and its rows see the same ones as far as each of
 * them sees, or as far as the chain goes. A row has one chain at most:
 *
 *   all its blocks are in it    the row is final: partial_count is 0, the chain writes its output
 *   its first n blocks are      its first partial is the chain's, then one for each block left
 *
 * Chains are as long as items have enough rows for tiles of their own; rows that leave where those
 * part get a chain up to there. What is not worth a chain stays as it was.
 */
#ifndef PERSONAD_KERNELS_CUDA_CHAIN_CUH
#define PERSONAD_KERNELS_CUDA_CHAIN_CUH

#include <stdint.h>

#include "base/status.h"
#include "kernels/backend.h"

struct chain_planner;

/* What decides whether a chain pays. */
struct chain_shape {
    uint32_t group; /* query heads a KV head: columns of a row */
    uint32_t kv_head_count;
    uint32_t tile_columns; /* of a chain; 0: the card or the program has none */
    uint32_t multiprocessor_count;
};

/* For plans of at most so many rows and partials; MEMORY. */
MUST_USE enum status chain_planner_create(uint32_t row_count_max, uint32_t partial_count_max,
                                          struct chain_planner **out);
void chain_planner_destroy(struct chain_planner *planner); /* NULL is fine */

/* The plan with its chains, which are the first *chain_count of its items; rows, item_rows and
 * row_partials go with them, all else is `plan`'s. `plan` itself where nothing is chained. */
const struct plan *chain_planner_make(struct chain_planner *planner, const struct plan *plan,
                                      const struct chain_shape *shape, uint32_t *chain_count);

#endif
