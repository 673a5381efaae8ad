/* Goal: whatever is chained, each row still attends to exactly its own past, in blocks that ascend,
 * through its own pages; a row has one chain at most; and chains are where they pay, a prefill that
 * fills the card, and not where a step has few rows.
 * Method: random spans that share full blocks and fork, planned as the engine does, checked row by
 * row against the page tables that were given in, before and after; then steps of known shape.
 * Twins: a page, a partial or an item's bound that is changed afterwards must be noticed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
#include <cmocka.h>

#include "base/memory.h"
#include "schedule/plan.h"
}

#include "kernels/cuda/chain.cuh"

enum {
    SPAN_PAGES = 192,
    SPANS = 40,
    ROWS = 700,
    PARTIALS = 6 * ROWS,
    BLOCK_PAGES = ATTENTION_BLOCK_TOKENS / KV_PAGE_TOKEN_COUNT,
    PAGE = KV_PAGE_TOKEN_COUNT,
};

static const struct plan_limits limits = {ROWS, SPAN_PAGES, SPANS, PARTIALS, SPANS, 100};

/* Llama-3.1-8B on a card of 132 multiprocessors, and one that always pays. */
static const struct chain_shape llama = {4, 8, 128, 132};
static const struct chain_shape eager = {4, 8, 128, 0};

struct given {
    uint32_t pages[SPAN_PAGES];
    uint32_t page_count, first, count, row_first;
};

static uint32_t draw(uint64_t *random, uint32_t bound)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((*random >> 33) % bound);
}

/* Which item lists the row, with this partial or, if it is final, as a chain; NULL: none, or two.
 */
static const struct plan_item *item_of(const struct plan *plan, uint32_t chain_count, uint32_t r,
                                       uint32_t index)
{
    const struct plan_row *row = &plan->rows[r];
    const struct plan_item *found = NULL;

    for (uint32_t i = 0; i < plan->item_count; i++) {
        const struct plan_item *item = &plan->items[i];
        for (uint32_t j = 0; j < item->row_count; j++) {
            const bool is_it =
                row->partial_count == 0
                    ? i < chain_count
                    : item->partial_first + j == plan->row_partials[row->partial_first + index];
            if (is_it && plan->item_rows[item->row_first + j] == r) {
                if (found != NULL) {
                    return NULL;
                }
                found = item;
            }
        }
    }
    return found;
}

static bool row_is_right(const struct plan *plan, uint32_t chain_count, uint32_t r,
                         const struct given *given)
{
    const struct plan_row *row = &plan->rows[r];
    const uint32_t count = row->partial_count > 0 ? row->partial_count : 1;
    uint32_t position = 0, listed_count = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct plan_item *item = item_of(plan, chain_count, r, i);
        if (item == NULL || item->begin != position ||
            (item->end > item->begin + ATTENTION_BLOCK_TOKENS &&
             (i > 0 || item >= plan->items + chain_count))) {
            return false;
        }
        for (; position < item->end && position <= row->position; position++) {
            if (plan->pages[item->page_first + (position - item->begin) / PAGE] !=
                given->pages[position / PAGE]) {
                return false;
            }
        }
    }
    for (uint32_t i = 0; i < plan->item_row_count; i++) {
        listed_count += plan->item_rows[i] == r;
    }
    return listed_count == count && position == row->position + 1;
}

static bool plan_is_right(const struct plan *plan, uint32_t chain_count, const struct given *given,
                          uint32_t span_count)
{
    for (uint32_t s = 0; s < span_count; s++) {
        for (uint32_t i = 0; i < given[s].count; i++) {
            if (!row_is_right(plan, chain_count, given[s].row_first + i, &given[s])) {
                return false;
            }
        }
    }
    return true;
}

static void add_span(struct plan_builder *builder, struct given *span)
{
    plan_builder_add_span(builder, span->pages, span->page_count);
    for (uint32_t i = 0; i < span->count; i++) {
        const uint32_t row = plan_builder_add_row(builder, i, span->first + i, true);
        span->row_first = i == 0 ? row : span->row_first;
    }
}

/* A tree of spans: each shares some leading blocks with one before it. */
static uint32_t spans_make(struct plan_builder *builder, struct given *given, uint64_t *random)
{
    uint32_t span_count = 0, page_next = 0;

    while (span_count < SPANS) {
        struct given *span = &given[span_count];
        const struct given *other = span_count > 0 ? &given[draw(random, span_count)] : span;
        const uint32_t shared = span_count > 0 ? draw(random, 5) * BLOCK_PAGES : 0;
        span->page_count = 1 + draw(random, SPAN_PAGES);
        for (uint32_t i = 0; i < span->page_count; i++) {
            span->pages[i] = i < shared && i < other->page_count ? other->pages[i] : page_next++;
        }
        span->first = draw(random, span->page_count * PAGE);
        span->count = 1 + draw(random, draw(random, 3) == 0 ? 200 : 12);
        if (span->first + span->count > span->page_count * PAGE) {
            span->count = span->page_count * PAGE - span->first;
        }
        span->count = plan_builder_rows_fit(builder, span->first, span->count);
        if (span->count == 0) {
            break;
        }
        add_span(builder, span);
        span_count++;
    }
    return span_count;
}

struct setup {
    struct plan_builder *builder;
    struct chain_planner *planner;
    struct given *given;
};

static void setup_init(struct setup *setup)
{
    setup->given = (struct given *)memory_alloc(SPANS, sizeof(struct given));
    assert_int_equal(plan_builder_create(&limits, &setup->builder), STATUS_OK);
    assert_int_equal(chain_planner_create(ROWS, PARTIALS, &setup->planner), STATUS_OK);
    plan_builder_begin(setup->builder);
}

static void setup_finish(struct setup *setup)
{
    plan_builder_destroy(setup->builder);
    chain_planner_destroy(setup->planner);
    memory_free(setup->given);
}

static void test_rows_attend_to_their_own_past_and_nothing_else(void **state)
{
    (void)state;
    struct setup setup;
    uint64_t random = 5;
    uint32_t chains = 0, long_chains = 0, finals = 0, going_on = 0;

    setup_init(&setup);
    for (int round = 0; round < 60; round++) {
        uint32_t chain_count;
        plan_builder_begin(setup.builder);
        const uint32_t span_count = spans_make(setup.builder, setup.given, &random);
        const struct plan *before = plan_builder_finish(setup.builder);
        assert_true(plan_is_right(before, 0, setup.given, span_count));
        const struct plan *plan = chain_planner_make(
            setup.planner, before, round % 4 == 3 ? &llama : &eager, &chain_count);
        assert_true(plan_is_right(plan, chain_count, setup.given, span_count));
        assert_true(plan->partial_count <= before->partial_count);
        chains += chain_count;

        for (uint32_t i = 0; i < chain_count; i++) {
            long_chains += plan->items[i].end > 2 * ATTENTION_BLOCK_TOKENS;
            assert_true(plan->items[i].row_count * 4 > 64);
            assert_true(i == 0 || plan->items[i].end / 512 <= (plan->items[i - 1].end + 511) / 512);
        }
        for (uint32_t r = 0; r < plan->row_count; r++) {
            finals += plan->rows[r].partial_count == 0;
            going_on += plan->rows[r].partial_count > 0 &&
                        plan->rows[r].partial_count < before->rows[r].partial_count;
        }
    }
    assert_true(chains > 100 && long_chains > 20 && finals > 1000 && going_on > 100);
    setup_finish(&setup);
}

static void test_a_changed_plan_is_noticed(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct setup setup;
        uint32_t chain_count;
        setup_init(&setup);
        struct given *span = &setup.given[0];
        *span = {{}, 70, 500, 600, 0};
        for (uint32_t i = 0; i < span->page_count; i++) {
            span->pages[i] = 3 * i;
        }
        add_span(setup.builder, span);
        const struct plan *plan = chain_planner_make(
            setup.planner, plan_builder_finish(setup.builder), &eager, &chain_count);
        assert_int_equal(chain_count, 1);
        assert_true(plan_is_right(plan, chain_count, setup.given, 1));
        struct plan_item *item = (struct plan_item *)(uintptr_t)plan->items;
        struct plan_row *row = (struct plan_row *)(uintptr_t)plan->rows;
        ((uint32_t *)(uintptr_t)plan->pages)[40] += kind == 0;
        item->end -= kind == 1;
        row[3].partial_count += kind == 2;
        ((uint32_t *)(uintptr_t)plan->item_rows)[7] -= kind == 3;
        assert_false(plan_is_right(plan, chain_count, setup.given, 1));
        setup_finish(&setup);
    }
}

/* ---- steps of known shape ---- */

/* `count` spans of `rows` rows from position `first` on, the first `shared` pages in common. */
static const struct plan *step(struct setup *setup, uint32_t count, uint32_t first, uint32_t rows,
                               uint32_t shared)
{
    static struct given span;

    span.first = first;
    span.count = rows;
    span.page_count = (first + rows + PAGE - 1) / PAGE;
    for (uint32_t s = 0; s < count; s++) {
        for (uint32_t i = 0; i < span.page_count; i++) {
            span.pages[i] = i < shared ? i : 1000 * (s + 1) + i;
        }
        add_span(setup->builder, &span);
    }
    return plan_builder_finish(setup->builder);
}

static uint32_t chains_of(uint32_t count, uint32_t first, uint32_t rows, uint32_t shared,
                          const struct chain_shape *shape)
{
    struct setup setup;
    uint32_t chain_count;

    setup_init(&setup);
    const struct plan *plan = step(&setup, count, first, rows, shared);
    const struct plan *made = chain_planner_make(setup.planner, plan, shape, &chain_count);
    assert_int_equal(made != plan, chain_count > 0);
    setup_finish(&setup);
    return chain_count;
}

static void test_chains_are_where_a_step_fills_the_card(void **state)
{
    (void)state;
    const struct chain_shape small = {4, 8, 128, 16}, without = {4, 8, 0, 16};

    /* 512 rows of a prefill are 16 tiles for each of 8 KV heads: nearly one a multiprocessor. */
    assert_int_equal(chains_of(1, 2048, 512, 0, &llama), 1);
    assert_int_equal(chains_of(1, 0, 700, 0, &llama), 1);
    /* 128 rows are a fourth of that, and enough for a smaller card. */
    assert_int_equal(chains_of(1, 2048, 128, 0, &llama), 0);
    assert_int_equal(chains_of(1, 2048, 128, 0, &small), 1);
    assert_int_equal(chains_of(1, 2048, 128, 0, &without), 0);
    /* Decode: 32 branches, alone or over a shared prefix of 2048. */
    assert_int_equal(chains_of(32, 2500, 1, 0, &llama), 0);
    assert_int_equal(chains_of(32, 2500, 1, 128, &llama), 0);
    assert_int_equal(chains_of(1, 2500, 1, 0, &eager), 0);
    /* Short messages of 32 branches behind a shared prefix: one chain over what they share. */
    assert_int_equal(chains_of(32, 2060, 16, 128, &llama), 1);
}

/* Partials that a prefill of Llama-3.1-8B writes and reads in steps of 512 rows, which
 * docs/gpu/README.md tells: in bytes of one layer, 32 heads of 128 sums, a maximum and a sum each,
 * written once and read once. */
static void count_prefill(uint32_t tokens, uint64_t *before, uint64_t *after)
{
    const uint64_t partial_bytes = (uint64_t)32 * (128 + 2) * sizeof(float) * 2;

    *before = *after = 0;
    for (uint32_t first = 0; first < tokens; first += 512) {
        const struct plan_limits wide = {512, 512, 1, 512 * 17, 1, 1};
        struct plan_builder *builder = NULL;
        struct chain_planner *planner = NULL;
        uint32_t chain_count, pages[512];
        for (uint32_t i = 0; i < 512; i++) {
            pages[i] = i;
        }
        assert_int_equal(plan_builder_create(&wide, &builder), STATUS_OK);
        assert_int_equal(chain_planner_create(512, 512 * 17, &planner), STATUS_OK);
        plan_builder_begin(builder);
        plan_builder_add_span(builder, pages, (first + 512) / PAGE);
        for (uint32_t i = 0; i < 512; i++) {
            plan_builder_add_row(builder, i, first + i, true);
        }
        const struct plan *plan = plan_builder_finish(builder);
        *before += plan->row_partial_count * partial_bytes;
        *after += chain_planner_make(planner, plan, &llama, &chain_count)->row_partial_count *
                  partial_bytes;
        plan_builder_destroy(builder);
        chain_planner_destroy(planner);
    }
}

static void test_a_prefill_passes_no_partials_through_memory(void **state)
{
    (void)state;
    uint64_t before, after;

    count_prefill(2048, &before, &after);
    assert_int_equal(before, UINT64_C(170393600)); /* 162.5 MiB */
    assert_int_equal(after, 0);
    count_prefill(8192, &before, &after);
    assert_int_equal(before, UINT64_C(2317352960)); /* 2210 MiB */
    assert_int_equal(after, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_attend_to_their_own_past_and_nothing_else),
        cmocka_unit_test(test_a_changed_plan_is_noticed),
        cmocka_unit_test(test_chains_are_where_a_step_fills_the_card),
        cmocka_unit_test(test_a_prefill_passes_no_partials_through_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
