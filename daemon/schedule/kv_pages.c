#include "schedule/kv_pages.h"

#include <stdbool.h>

#include "base/check.h"
#include "base/memory.h"

struct kv_page {
    uint32_t held;   /* shares of branches */
    uint32_t cached; /* shares of tree nodes */
    uint64_t step;   /* the last submitted step that names it */
};

struct kv_pages {
    struct kv_page *pages; /* owned, [page_count] */
    uint32_t *free;        /* owned, a stack: the page that was used last is warm */
    uint32_t *limbo;       /* owned, oldest first */
    struct kv_pages_counts counts;
    uint64_t completed_step;
};

enum status kv_pages_create(uint32_t page_count, struct kv_pages **out)
{
    struct kv_pages *pages = memory_alloc(1, sizeof(*pages));
    enum status status = STATUS_MEMORY;

    CHECK(page_count > 0);
    if (pages == NULL) {
        return STATUS_MEMORY;
    }
    pages->pages = memory_alloc(page_count, sizeof(*pages->pages));
    pages->free = memory_alloc(page_count, sizeof(*pages->free));
    pages->limbo = memory_alloc(page_count, sizeof(*pages->limbo));
    if (pages->pages == NULL || pages->free == NULL || pages->limbo == NULL) {
        goto done;
    }
    for (uint32_t i = 0; i < page_count; i++) {
        pages->free[i] = page_count - 1 - i;
    }
    pages->counts.page_count = page_count;
    pages->counts.free_count = page_count;
    *out = pages;
    pages = NULL; /* handed over */
    status = STATUS_OK;
done:
    kv_pages_destroy(pages);
    return status;
}

void kv_pages_destroy(struct kv_pages *pages)
{
    if (pages == NULL) {
        return;
    }
    memory_free(pages->pages);
    memory_free(pages->free);
    memory_free(pages->limbo);
    memory_free(pages);
}

static struct kv_page *page_at(const struct kv_pages *pages, uint32_t page)
{
    CHECK(page < pages->counts.page_count);
    return &pages->pages[page];
}

enum status kv_pages_take(struct kv_pages *pages, uint32_t *page)
{
    uint32_t taken;

    if (pages->counts.free_count == 0) {
        return STATUS_AGAIN;
    }
    taken = pages->free[--pages->counts.free_count];
    CHECK(pages->pages[taken].held == 0);
    CHECK(pages->pages[taken].cached == 0);
    CHECK(pages->pages[taken].step <= pages->completed_step);
    pages->pages[taken].held = 1;
    pages->counts.held_count++;
    *page = taken;
    return STATUS_OK;
}

/* The last share is gone. */
static void retire(struct kv_pages *pages, uint32_t page)
{
    if (pages->pages[page].step > pages->completed_step) {
        pages->limbo[pages->counts.limbo_count++] = page;
    } else {
        pages->free[pages->counts.free_count++] = page;
    }
}

void kv_pages_acquire(struct kv_pages *pages, uint32_t page)
{
    struct kv_page *entry = page_at(pages, page);

    CHECK(entry->held + entry->cached > 0);
    if (entry->held == 0) {
        pages->counts.cached_count--;
        pages->counts.held_count++;
    }
    entry->held++;
}

void kv_pages_release(struct kv_pages *pages, uint32_t page)
{
    struct kv_page *entry = page_at(pages, page);

    CHECK(entry->held > 0);
    entry->held--;
    if (entry->held > 0) {
        return;
    }
    pages->counts.held_count--;
    if (entry->cached > 0) {
        pages->counts.cached_count++;
    } else {
        retire(pages, page);
    }
}

void kv_pages_acquire_cached(struct kv_pages *pages, uint32_t page)
{
    struct kv_page *entry = page_at(pages, page);

    /* The tree takes over what a branch has computed or shares it with itself, never a free page.
     */
    CHECK(entry->held + entry->cached > 0);
    entry->cached++;
}

void kv_pages_release_cached(struct kv_pages *pages, uint32_t page)
{
    struct kv_page *entry = page_at(pages, page);

    CHECK(entry->cached > 0);
    entry->cached--;
    if (entry->held == 0 && entry->cached == 0) {
        pages->counts.cached_count--;
        retire(pages, page);
    }
}

void kv_pages_name(struct kv_pages *pages, uint32_t page, uint64_t step)
{
    struct kv_page *entry = page_at(pages, page);

    CHECK(entry->held > 0);
    entry->step = step;
}

void kv_pages_complete(struct kv_pages *pages, uint64_t step)
{
    uint32_t kept = 0;

    if (step > pages->completed_step) {
        pages->completed_step = step;
    }
    for (uint32_t i = 0; i < pages->counts.limbo_count; i++) {
        const uint32_t page = pages->limbo[i];
        if (pages->pages[page].step <= pages->completed_step) {
            pages->free[pages->counts.free_count++] = page;
        } else {
            pages->limbo[kept++] = page;
        }
    }
    pages->counts.limbo_count = kept;
}

struct kv_pages_counts kv_pages_counts(const struct kv_pages *pages)
{
    return pages->counts;
}

void kv_pages_check(const struct kv_pages *pages)
{
    const struct kv_pages_counts *counts = &pages->counts;
    uint32_t held = 0;
    uint32_t cached = 0;

    for (uint32_t i = 0; i < counts->page_count; i++) {
        held += pages->pages[i].held > 0;
        cached += pages->pages[i].held == 0 && pages->pages[i].cached > 0;
    }
    CHECK(held == counts->held_count);
    CHECK(cached == counts->cached_count);
    CHECK(counts->free_count + counts->limbo_count + held + cached == counts->page_count);
    for (uint32_t i = 0; i < counts->free_count; i++) {
        const struct kv_page *entry = page_at(pages, pages->free[i]);
        CHECK(entry->held + entry->cached == 0);
        CHECK(entry->step <= pages->completed_step);
    }
}
