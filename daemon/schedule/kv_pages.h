/* The pool of KV pages: who refers to a page, and when it may be used again.
 *
 * Thread: engine. Everything is allocated in create. A page is
 *
 *   free     in the free list
 *   held     a branch refers to it (page table, or source of a copy); the tree may too
 *   cached   only the KV tree refers to it: can be had by eviction
 *   limbo    nobody refers to it, but a submitted step still names it
 *
 * free + held + cached + limbo is the pool, always (kv_pages_check). Steps are numbered from 1 in
 * the order in which they are submitted; they end in that order.
 */
#ifndef PERSONAD_SCHEDULE_KV_PAGES_H
#define PERSONAD_SCHEDULE_KV_PAGES_H

#include <stdint.h>

#include "base/status.h"

enum { KV_PAGE_NONE = 0xffffffffu };

struct kv_pages;

struct kv_pages_counts {
    uint32_t page_count;
    uint32_t free_count;
    uint32_t held_count;
    uint32_t cached_count;
    uint32_t limbo_count;
};

MUST_USE enum status kv_pages_create(uint32_t page_count, struct kv_pages **out);
void kv_pages_destroy(struct kv_pages *pages);

/* A free page, held once by the caller. AGAIN when none is free. */
MUST_USE enum status kv_pages_take(struct kv_pages *pages, uint32_t *page);

/* A branch's share of a page that somebody refers to already. */
void kv_pages_acquire(struct kv_pages *pages, uint32_t page);
void kv_pages_release(struct kv_pages *pages, uint32_t page);

/* The tree's share; one for each node that names the page. */
void kv_pages_acquire_cached(struct kv_pages *pages, uint32_t page);
void kv_pages_release_cached(struct kv_pages *pages, uint32_t page);

/* Step `step`, about to be submitted, names the page. */
void kv_pages_name(struct kv_pages *pages, uint32_t page, uint64_t step);

/* Step `step` and all before it have ended. */
void kv_pages_complete(struct kv_pages *pages, uint64_t step);

struct kv_pages_counts kv_pages_counts(const struct kv_pages *pages);

/* Counts everything anew and CHECKs it against the running counts. For tests. */
void kv_pages_check(const struct kv_pages *pages);

#endif
