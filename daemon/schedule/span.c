#include "schedule/span.h"

#include "base/check.h"
#include "kernels/backend.h"

enum {
    PAGE = KV_PAGE_TOKEN_COUNT,
    PROMPT_SHARE_COUNT_MIN = 4, /* a shorter prompt is not worth a copy, or waiting for */
};

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Who may find positions [begin, end) of this context; 0: nobody. */
static uint64_t scope_of(const struct branch_spec *spec, uint32_t end)
{
    const struct branch_scope *scope = &spec->scope;

    if (end <= scope->prompt_token_count) {
        return scope->prompt;
    }
    /* Below a prompt that is shared with nobody there is no place to hang anything. */
    if (scope->prompt_token_count > 0 && scope->prompt == 0) {
        return 0;
    }
    return scope->session;
}

/* ---- looking up ---- */

/* The page after the full matches: whose first positions can be copied, or are being computed. */
static void find_partial(const struct kv_tree *tree, struct branch *branch,
                         struct span_match *match, uint32_t parent, uint32_t page_index)
{
    const struct branch_scope *scope = &branch->spec->scope;
    const uint32_t begin = page_index * PAGE;
    const uint32_t count = least(branch_known_count(branch) - begin, PAGE);
    uint32_t ids[PAGE];
    struct kv_key key = {parent, 0, ids, count};

    branch_read_ids(branch, begin, count, ids);
    for (int i = 0; i < 2; i++) {
        uint32_t shared;
        uint32_t computing;
        /* First what the prompt's own nodes have of this page, then the session's. */
        key.scope = i == 0 ? scope->prompt : scope_of(branch->spec, begin + PAGE);
        key.count = count;
        if (i == 0 && (scope->prompt_token_count <= begin ||
                       scope->prompt_token_count < PROMPT_SHARE_COUNT_MIN)) {
            continue;
        }
        if (i == 0) {
            key.count = least(count, scope->prompt_token_count - begin);
        }
        if (key.scope == 0) {
            continue;
        }
        const uint32_t node = kv_tree_find_prefix(tree, &key, &shared, &computing);
        if (computing != KV_NODE_NONE) {
            match->wait = computing;
        }
        if (match->wait == KV_NODE_NONE && shared > match->partial_count) {
            match->partial_count = shared;
            match->partial_page = kv_tree_page(tree, node);
        }
    }
}

void span_find(const struct kv_tree *tree, struct branch *branch, struct span_match *match)
{
    const uint32_t known = branch_known_count(branch);
    uint32_t parent = KV_NODE_NONE;
    uint32_t ids[PAGE];
    uint32_t i = 0;

    match->page_count = 0;
    match->node = KV_NODE_NONE;
    match->partial_page = KV_PAGE_NONE;
    match->partial_count = 0;
    match->wait = KV_NODE_NONE;
    for (; (i + 1) * PAGE <= known; i++) {
        const struct kv_key key = {parent, scope_of(branch->spec, (i + 1) * PAGE), ids, PAGE};
        if (key.scope == 0) {
            break;
        }
        branch_read_ids(branch, i * PAGE, PAGE, ids);
        const uint32_t node = kv_tree_find(tree, &key);
        if (node == KV_NODE_NONE) {
            break;
        }
        if (kv_tree_state(tree, node) == KV_NODE_COMPUTING) {
            match->wait = node;
        } else {
            match->pages[i] = kv_tree_page(tree, node);
            match->page_count = i + 1;
            match->node = node;
        }
        parent = node;
    }
    if (i * PAGE < known) {
        find_partial(tree, branch, match, parent, i);
    }
}

void span_hold(struct kv_tree *tree, struct kv_pages *pages, const struct span_match *match)
{
    for (uint32_t i = 0; i < match->page_count; i++) {
        kv_pages_acquire(pages, match->pages[i]);
    }
    if (match->node != KV_NODE_NONE) {
        kv_tree_pin(tree, match->node);
    }
    if (match->partial_page != KV_PAGE_NONE) {
        kv_pages_acquire(pages, match->partial_page);
    }
}

void span_unhold(struct kv_tree *tree, struct kv_pages *pages, const struct span_match *match)
{
    for (uint32_t i = 0; i < match->page_count; i++) {
        kv_pages_release(pages, match->pages[i]);
    }
    if (match->node != KV_NODE_NONE) {
        kv_tree_unpin(tree, match->node);
    }
    if (match->partial_page != KV_PAGE_NONE) {
        kv_pages_release(pages, match->partial_page);
    }
}

uint32_t span_new_page_count(const struct branch *branch, const struct span_match *match)
{
    return branch_known_count(branch) / PAGE + 1 - match->page_count;
}

/* ---- opening ---- */

bool span_reserve(struct kv_tree *tree, const struct kv_pages *pages, uint32_t count)
{
    while (kv_pages_counts(pages).free_count < count) {
        if (!kv_tree_evict(tree)) {
            return false;
        }
    }
    return true;
}

/* A partial node for positions [16i, end), which others may copy from once they are computed. */
static void announce_partial(struct kv_tree *tree, struct branch *branch, int which, uint32_t end,
                             uint64_t scope)
{
    struct kv_span *span = &branch->span;
    const uint32_t index = end / PAGE;
    uint32_t ids[PAGE];
    const struct kv_key key = {span->cursor, scope, ids, end % PAGE};
    uint32_t shared;
    uint32_t computing;

    /* It hangs below the page before it, which must stand in the tree. */
    if (key.count == 0 || scope == 0 || !span->is_publishing || span->published_count != index) {
        return;
    }
    branch_read_ids(branch, index * PAGE, key.count, ids);
    kv_tree_find_prefix(tree, &key, &shared, &computing);
    if (shared == key.count || computing != KV_NODE_NONE ||
        kv_tree_find(tree, &key) != KV_NODE_NONE) {
        return;
    }
    span->partials[which] = kv_tree_insert(tree, &key, span->pages[index], branch->spec->slot);
    span->partial_ends[which] = end;
}

/* Tells the others which pages this branch is going to compute, so that they wait for them. */
static void announce(struct kv_tree *tree, struct branch *branch)
{
    const struct branch_spec *spec = branch->spec;
    const uint32_t prompt_end = spec->scope.prompt_token_count;
    const uint32_t publish_count = spec->context_token_count + branch->event.released_count;
    struct kv_span *span = &branch->span;
    uint32_t ids[PAGE];

    for (;;) {
        const uint32_t i = span->published_count;
        if (i == prompt_end / PAGE && prompt_end >= PROMPT_SHARE_COUNT_MIN) {
            announce_partial(tree, branch, 0, prompt_end, spec->scope.prompt);
        }
        if ((i + 1) * PAGE > publish_count) {
            break;
        }
        const struct kv_key key = {span->cursor, scope_of(spec, (i + 1) * PAGE), ids, PAGE};
        uint32_t node = KV_NODE_NONE;
        branch_read_ids(branch, i * PAGE, PAGE, ids);
        if (key.scope != 0) {
            node = kv_tree_insert(tree, &key, span->pages[i], spec->slot);
        }
        if (node == KV_NODE_NONE) {
            span->is_publishing = false;
            return;
        }
        span->nodes[i] = node;
        if (span->cursor != KV_NODE_NONE) {
            kv_tree_unpin(tree, span->cursor);
        }
        kv_tree_pin(tree, node);
        span->cursor = node;
        span->published_count++;
    }
    if (spec->context_token_count != prompt_end) {
        announce_partial(tree, branch, 1, spec->context_token_count,
                         scope_of(spec, spec->context_token_count));
    }
}

static void span_reset(struct kv_span *span)
{
    span->partials[0] = KV_NODE_NONE;
    span->partials[1] = KV_NODE_NONE;
    span->page_count = 0;
    span->published_count = 0;
    span->settled_count = 0;
    span->cursor = KV_NODE_NONE;
    span->is_publishing = true;
    span->copy_from = KV_PAGE_NONE;
    span->copy_slots = 0;
    span->copy_to = 0;
}

void span_open(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch,
               const struct span_match *match)
{
    const uint32_t new_count = span_new_page_count(branch, match);
    struct kv_span *span = &branch->span;

    span_reset(span);
    for (uint32_t i = 0; i < match->page_count; i++) {
        span->pages[i] = match->pages[i];
        span->nodes[i] = KV_NODE_NONE;
    }
    for (uint32_t i = match->page_count; i < match->page_count + new_count; i++) {
        CHECK(kv_pages_take(pages, &span->pages[i]) == STATUS_OK);
        span->nodes[i] = KV_NODE_NONE;
    }
    span->page_count = match->page_count + new_count;
    span->published_count = match->page_count;
    span->settled_count = match->page_count;
    span->cursor = match->node;
    if (match->partial_page != KV_PAGE_NONE) {
        span->copy_from = match->partial_page;
        span->copy_slots = match->partial_count;
        span->copy_to = match->page_count;
    }
    branch->known_count = branch_known_count(branch);
    branch->kv_planned = match->page_count * PAGE + match->partial_count;
    branch->kv_done = branch->kv_planned;
    announce(tree, branch);
}

void span_join(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch,
               const struct branch *leader)
{
    const uint32_t context_count = branch->spec->context_token_count;
    const uint32_t shared_count = context_count / PAGE;
    struct kv_span *span = &branch->span;
    uint32_t page;

    CHECK(kv_pages_take(pages, &page) == STATUS_OK);
    span_reset(span);
    for (uint32_t i = 0; i < shared_count; i++) {
        span->pages[i] = leader->span.pages[i];
        span->nodes[i] = KV_NODE_NONE;
        kv_pages_acquire(pages, span->pages[i]);
    }
    span->pages[shared_count] = page;
    span->nodes[shared_count] = KV_NODE_NONE;
    span->page_count = shared_count + 1;
    span->published_count = leader->span.published_count;
    span->settled_count = span->published_count;
    span->is_publishing = leader->span.is_publishing;
    span->cursor = leader->span.cursor;
    if (span->cursor != KV_NODE_NONE && kv_tree_state(tree, span->cursor) == KV_NODE_ORPHAN) {
        span->cursor = KV_NODE_NONE;
        span->is_publishing = false;
    }
    if (span->cursor != KV_NODE_NONE) {
        kv_tree_pin(tree, span->cursor);
    }
    if (context_count % PAGE != 0) {
        span->copy_from = leader->span.pages[shared_count];
        span->copy_slots = context_count % PAGE;
        span->copy_to = shared_count;
        kv_pages_acquire(pages, span->copy_from);
    }
    branch->known_count = context_count;
    branch->kv_planned = context_count;
    branch->kv_done = 0;
}

enum status span_grow(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch)
{
    struct kv_span *span = &branch->span;
    uint32_t page;

    if (!span_reserve(tree, pages, 1)) {
        return STATUS_AGAIN;
    }
    TRY(kv_pages_take(pages, &page));
    span->pages[span->page_count] = page;
    span->nodes[span->page_count] = KV_NODE_NONE;
    span->page_count++;
    return STATUS_OK;
}

/* ---- entering the tree ---- */

void span_settle(struct kv_tree *tree, struct branch *branch)
{
    struct kv_span *span = &branch->span;

    while (span->settled_count < span->published_count &&
           (span->settled_count + 1) * PAGE <= branch->kv_done) {
        const uint32_t node = span->nodes[span->settled_count];
        if (node != KV_NODE_NONE) {
            kv_tree_settle(tree, node, true);
            span->nodes[span->settled_count] = KV_NODE_NONE;
        }
        span->settled_count++;
    }
    for (int i = 0; i < 2; i++) {
        if (span->partials[i] != KV_NODE_NONE && span->partial_ends[i] <= branch->kv_done) {
            kv_tree_settle(tree, span->partials[i], true);
            span->partials[i] = KV_NODE_NONE;
        }
    }
}

/* One full page more below the cursor. False: not now, or never. */
static bool publish_page(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch)
{
    struct kv_span *span = &branch->span;
    const uint32_t i = span->published_count;
    uint32_t ids[PAGE];
    const struct kv_key key = {span->cursor, scope_of(branch->spec, (i + 1) * PAGE), ids, PAGE};
    uint32_t node;

    if (key.scope == 0) {
        span->is_publishing = false;
        return false;
    }
    branch_read_ids(branch, i * PAGE, PAGE, ids);
    node = kv_tree_find(tree, &key);
    if (node == KV_NODE_NONE) {
        node = kv_tree_insert(tree, &key, span->pages[i], KV_OWNER_NONE);
    } else if (kv_tree_state(tree, node) == KV_NODE_COMPUTING) {
        return false; /* another computes the same right now: use its page once it is there */
    } else if (kv_tree_page(tree, node) != span->pages[i]) {
        /* Equal bits: use the tree's page, so that equal paths have equal pages. */
        kv_pages_acquire(pages, kv_tree_page(tree, node));
        kv_pages_release(pages, span->pages[i]);
        span->pages[i] = kv_tree_page(tree, node);
    }
    if (node == KV_NODE_NONE) {
        span->is_publishing = false;
        return false;
    }
    kv_tree_pin(tree, node);
    if (span->cursor != KV_NODE_NONE) {
        kv_tree_unpin(tree, span->cursor);
    }
    span->cursor = node;
    span->published_count++;
    span->settled_count = span->published_count;
    return true;
}

static void publish_partial(struct kv_tree *tree, struct branch *branch, uint32_t end)
{
    const struct kv_span *span = &branch->span;
    uint32_t ids[PAGE];
    const struct kv_key key = {span->cursor, scope_of(branch->spec, end), ids, end % PAGE};
    uint32_t shared;
    uint32_t computing;

    if (key.count == 0 || key.scope == 0) {
        return;
    }
    branch_read_ids(branch, end - key.count, key.count, ids);
    kv_tree_find_prefix(tree, &key, &shared, &computing);
    if (shared < key.count && computing == KV_NODE_NONE &&
        kv_tree_find(tree, &key) == KV_NODE_NONE) {
        (void)kv_tree_insert(tree, &key, span->pages[end / PAGE], KV_OWNER_NONE);
    }
}

void span_publish(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch,
                  uint32_t content_count, bool is_last)
{
    struct kv_span *span = &branch->span;
    uint32_t end = least(content_count, branch->kv_done);

    if (span->copy_from != KV_PAGE_NONE) {
        /* It leaves before any step has made the copy: that page holds nothing. */
        end = least(end, span->copy_to * PAGE);
    }
    if (span->settled_count < span->published_count) {
        return;
    }
    while (span->is_publishing && (span->published_count + 1) * PAGE <= end) {
        if (!publish_page(tree, pages, branch)) {
            return;
        }
    }
    if (is_last && span->is_publishing && span->published_count == end / PAGE) {
        publish_partial(tree, branch, end);
    }
}

void span_close(struct kv_tree *tree, struct kv_pages *pages, struct branch *branch)
{
    struct kv_span *span = &branch->span;

    for (int i = 0; i < 2; i++) {
        if (span->partials[i] != KV_NODE_NONE) {
            kv_tree_settle(tree, span->partials[i], false);
        }
    }
    for (uint32_t i = span->page_count; i > 0; i--) {
        if (span->nodes[i - 1] != KV_NODE_NONE) {
            kv_tree_settle(tree, span->nodes[i - 1], false);
        }
    }
    if (span->cursor != KV_NODE_NONE) {
        kv_tree_unpin(tree, span->cursor);
    }
    for (uint32_t i = 0; i < span->page_count; i++) {
        kv_pages_release(pages, span->pages[i]);
    }
    if (span->copy_from != KV_PAGE_NONE) {
        kv_pages_release(pages, span->copy_from);
    }
    span_reset(span);
    branch->kv_planned = 0;
    branch->kv_done = 0;
}
