/* Where small weights lie: one after another in large blocks, so that huge pages hold them. A model
 * has hundreds of matrices below the size of a huge page, and a step reads all of them: in small
 * pages, page walks take a large part of that time.
 *
 * Thread: one at a time. Takes are never given back one by one: weights live as long as the
 * backend.
 */
#ifndef PERSONAD_KERNELS_CPU_PANEL_STORE_H
#define PERSONAD_KERNELS_CPU_PANEL_STORE_H

#include <stdint.h>

#include "base/memory.h"

enum { PANEL_STORE_BYTES_MAX = MEMORY_HUGE_BYTES }; /* of one take; more fills pages of its own */

struct panel_store_block;

/* Zeroed is empty. */
struct panel_store {
    struct panel_store_block *blocks; /* owned, newest first */
};

void panel_store_finish(struct panel_store *store);

/* `bytes`, at most PANEL_STORE_BYTES_MAX, zeroed and 64-byte aligned, until finish; NULL when there
 * is no memory. */
uint8_t *panel_store_take(struct panel_store *store, uint64_t bytes);

#endif
