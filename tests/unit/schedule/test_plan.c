/* Goal: each row attends to exactly its own past, block by block, through its own pages; blocks
 * that several spans share become one item; limits are kept.
 * Method: random spans that share full blocks, checked row by row against the page tables that were
 * given in. Twins: a page entry, a partial or an item's bound that is changed afterwards must be
 * noticed by the same check.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "schedule/plan.h"

enum { SPAN_PAGES = 160, SPANS = 12, ROWS = 64, BLOCK_PAGES = 32, PAGE = KV_PAGE_TOKEN_COUNT };

struct given {
    uint32_t pages[SPAN_PAGES];
    uint32_t page_count;
    uint32_t first, count; /* positions of its rows */
    uint32_t row_first;
};

static const struct plan_limits limits = {
    .row_count_max = ROWS,
    .span_page_count_max = SPAN_PAGES,
    .span_count_max = SPANS,
    .partial_count_max = 6 * ROWS,
    .sample_count_max = SPANS,
    .history_token_count_max = 100,
};

static uint32_t draw(uint64_t *random, uint32_t bound)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*random >> 33) % bound);
}

static const struct plan_item *item_of(const struct plan *plan, uint32_t partial, uint32_t row)
{
    for (uint32_t i = 0; i < plan->item_count; i++) {
        const struct plan_item *item = &plan->items[i];
        if (partial >= item->partial_first && partial - item->partial_first < item->row_count) {
            return plan->item_rows[item->row_first + partial - item->partial_first] == row ? item
                                                                                           : NULL;
        }
    }
    return NULL;
}

/* The row sees positions 0 .. its own through the pages that its span was given? */
static bool row_is_right(const struct plan *plan, uint32_t r, const struct given *given)
{
    const struct plan_row *row = &plan->rows[r];
    uint32_t position = 0;

    if (row->partial_count != row->position / ATTENTION_BLOCK_TOKENS + 1 ||
        plan->pages[row->page_first + row->position / PAGE] != given->pages[row->position / PAGE]) {
        return false;
    }
    for (uint32_t b = 0; b < row->partial_count; b++) {
        const struct plan_item *item = item_of(plan, plan->row_partials[row->partial_first + b], r);
        if (item == NULL || item->begin != position ||
            item->end > item->begin + ATTENTION_BLOCK_TOKENS) {
            return false;
        }
        for (; position < item->end && position <= row->position; position++) {
            if (plan->pages[item->page_first + (position - item->begin) / PAGE] !=
                given->pages[position / PAGE]) {
                return false;
            }
        }
    }
    return position == row->position + 1;
}

static bool plan_is_right(const struct plan *plan, const struct given *given, uint32_t span_count)
{
    for (uint32_t s = 0; s < span_count; s++) {
        for (uint32_t i = 0; i < given[s].count; i++) {
            const struct plan_row *row = &plan->rows[given[s].row_first + i];
            if (row->position != given[s].first + i ||
                !row_is_right(plan, given[s].row_first + i, &given[s])) {
                return false;
            }
        }
    }
    return true;
}

/* Spans that have some leading blocks in common with the one before. */
static uint32_t spans_make(struct plan_builder *builder, struct given *given, uint64_t *random)
{
    uint32_t span_count = 0;
    uint32_t page_next = 0;

    while (span_count < SPANS) {
        struct given *span = &given[span_count];
        const uint32_t shared = span_count > 0 ? draw(random, 4) * BLOCK_PAGES : 0;
        span->page_count = 1 + draw(random, SPAN_PAGES);
        for (uint32_t i = 0; i < span->page_count; i++) {
            const bool is_shared =
                i < shared && i < given[span_count - (span_count > 0)].page_count;
            span->pages[i] = is_shared ? given[span_count - 1].pages[i] : page_next++;
        }
        span->first = draw(random, span->page_count * PAGE);
        span->count = 1 + draw(random, 9);
        if (span->first + span->count > span->page_count * PAGE) {
            span->count = span->page_count * PAGE - span->first;
        }
        span->count = plan_builder_rows_fit(builder, span->first, span->count);
        if (span->count == 0) {
            break;
        }
        plan_builder_add_span(builder, span->pages, span->page_count);
        for (uint32_t i = 0; i < span->count; i++) {
            const uint32_t row = plan_builder_add_row(builder, i, span->first + i, true);
            span->row_first = i == 0 ? row : span->row_first;
        }
        span_count++;
    }
    return span_count;
}

static void test_rows_attend_to_their_own_past_and_nothing_else(void **state)
{
    struct given *given = memory_alloc(SPANS, sizeof(*given));
    struct plan_builder *builder = NULL;
    uint64_t random = 5;
    uint32_t full_count = 0;

    (void)state;
    assert_int_equal(plan_builder_create(&limits, &builder), STATUS_OK);
    for (int round = 0; round < 300; round++) {
        plan_builder_begin(builder);
        const uint32_t span_count = spans_make(builder, given, &random);
        const struct plan *plan = plan_builder_finish(builder);
        assert_true(span_count > 0);
        assert_true(plan->row_count <= limits.row_count_max);
        assert_true(plan->partial_count <= limits.partial_count_max);
        assert_true(plan_is_right(plan, given, span_count));
        full_count += span_count == SPANS;
    }
    assert_in_range(full_count, 1, 299); /* some plans met a limit, some did not */
    plan_builder_destroy(builder);
    memory_free(given);
}

static void test_a_changed_plan_is_noticed(void **state)
{
    struct given *given = memory_alloc(SPANS, sizeof(*given));
    struct plan_builder *builder = NULL;
    uint64_t random = 6;

    (void)state;
    assert_int_equal(plan_builder_create(&limits, &builder), STATUS_OK);
    for (int kind = 0; kind < 3; kind++) {
        plan_builder_begin(builder);
        const uint32_t span_count = spans_make(builder, given, &random);
        const struct plan *plan = plan_builder_finish(builder);
        assert_true(plan_is_right(plan, given, span_count));
        if (kind == 0) {
            ((uint32_t *)(uintptr_t)plan->pages)[0] += 1;
        } else if (kind == 1) {
            ((uint32_t *)(uintptr_t)plan->row_partials)[0] = plan->row_partials[1];
        } else {
            ((struct plan_item *)(uintptr_t)plan->items)[0].end -= 1;
        }
        assert_false(plan_is_right(plan, given, span_count));
    }
    plan_builder_destroy(builder);
    memory_free(given);
}

static void test_a_block_that_64_branches_share_is_one_item(void **state)
{
    const struct plan_limits wide = {64, SPAN_PAGES, 64, 64 * 3, 64, 100};
    struct plan_builder *builder = NULL;
    uint32_t pages[SPAN_PAGES];

    (void)state;
    assert_int_equal(plan_builder_create(&wide, &builder), STATUS_OK);
    plan_builder_begin(builder);
    for (uint32_t i = 0; i < 64; i++) {
        for (uint32_t p = 0; p < 70; p++) {
            pages[p] = p < 64 ? p : 1000 + i * 10 + p;
        }
        plan_builder_add_span(builder, pages, 70);
        plan_builder_add_row(builder, i, 1100, true);
    }
    const struct plan *plan = plan_builder_finish(builder);
    assert_int_equal(plan->partial_count, 64 * 3);
    assert_int_equal(plan->item_count, 2 + 64);
    assert_int_equal(plan->items[0].row_count, 64);
    assert_int_equal(plan->items[1].row_count, 64);
    plan_builder_destroy(builder);
}

static void test_a_history_that_does_not_fit_is_left_for_the_next_plan(void **state)
{
    struct plan_builder *builder = NULL;

    (void)state;
    assert_int_equal(plan_builder_create(&limits, &builder), STATUS_OK);
    plan_builder_begin(builder);
    assert_non_null(plan_builder_add_history(builder, 0, 0, 60));
    assert_null(plan_builder_add_history(builder, 1, 0, 41));
    assert_non_null(plan_builder_add_history(builder, 1, 5, 40));
    plan_builder_begin(builder);
    assert_non_null(plan_builder_add_history(builder, 1, 0, 100));
    plan_builder_destroy(builder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_attend_to_their_own_past_and_nothing_else),
        cmocka_unit_test(test_a_changed_plan_is_noticed),
        cmocka_unit_test(test_a_block_that_64_branches_share_is_one_item),
        cmocka_unit_test(test_a_history_that_does_not_fit_is_left_for_the_next_plan),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
