/* What a branch holds of the KV pool, and how it meets the tree.
 *
 *   match    what of the known tokens is there already, or is being computed by another branch
 *   open     shares those pages, takes new ones for the rest, announces what it will compute
 *   join     a sibling shares everything at once with the branch that just computes the context
 *   settle   announced pages become READY as steps end
 *   publish  pages of released content enter the tree
 *   close    gives everything back; what was announced and not computed is taken back
 *
 * Nothing is ever written into a page that another may use: full pages are shared as they are, of a
 * partly matching page the first positions are copied. A page's scope is the prompt's while all of
 * it lies in the prompt, below that the session's; scope 0 shares with nobody.
 *
 * Thread: engine. Allocates nothing.
 */
#ifndef PERSONAD_SCHEDULE_SPAN_H
#define PERSONAD_SCHEDULE_SPAN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "schedule/branch_table.h"
#include "schedule/kv_pages.h"
#include "schedule/kv_tree.h"

struct span_match {
    uint32_t *pages;        /* borrowed from the caller: READY full pages */
    uint32_t page_count;    /* how many */
    uint32_t node;          /* the deepest of them, or KV_NODE_NONE */
    uint32_t partial_page;  /* a page whose first partial_count positions match, or KV_PAGE_NONE */
    uint32_t partial_count; /* of the page after the full ones */
    uint32_t wait;          /* the deepest COMPUTING node on the way, or KV_NODE_NONE */
};

/* Looks the known tokens up. match->pages is set by the caller and has room for all of them. */
void span_find(const struct kv_tree *tree, struct branch *branch, struct span_match *match);

/* Shares the matched pages before anything can evict them, and drops them again. */
void span_hold(struct kv_tree *tree, struct kv_pages *pages, const struct span_match *match);
void span_unhold(struct kv_tree *tree, struct kv_pages *pages, const struct span_match *match);

/* New pages that an open needs beside the matched ones: up to the row after the known tokens. */
uint32_t span_new_page_count(const struct branch *branch, const struct span_match *match);

/* Evicts until `count` pages are free. False: there are not so many now; evicted pages that a
 * submitted step names come free when it ends. */
bool span_reserve(struct kv_tree *tree, const struct kv_pages *pages, uint32_t count);

/* The branch has a running slot, the match is held, and the new pages are reserved. Takes the hold
 * over. Sets known_count, kv_planned and kv_done. */
void span_open(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch,
               const struct span_match *match);

/* `leader` computes the last of the same context in the step being planned. A page is reserved. */
void span_join(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch,
               const struct branch *leader);

/* A page more, evicting if need be. AGAIN when there is none. */
MUST_USE enum status span_grow(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch);

/* kv_done has moved. */
void span_settle(struct kv_tree *tree, struct branch *branch);

/* The first content_count positions are context or released content. is_last: the part of a page at
 * the end may enter too, since the branch will write no more. */
void span_publish(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch,
                  uint32_t content_count, bool is_last);

void span_close(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch);

#endif
