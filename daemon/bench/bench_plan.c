#include "bench/bench_plan.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"

struct bench_plan {
    struct plan plan;
    uint32_t row_count_max;
    uint32_t block_count_max; /* of a row */
    uint32_t page_count_max;  /* of a row */
    struct plan_row *rows;    /* this and all below owned */
    uint32_t *pages;
    struct plan_item *items;
    uint32_t *item_rows;
    uint32_t *row_partials;
    uint32_t *logits_rows;
    struct plan_sample *samples;
    struct plan_kv_copy *copies;
};

/* The token at a position of the text that is prefilled. */
static uint32_t bench_token(uint32_t position)
{
    return (position * 2654435761u >> 8) % 512;
}

static uint32_t ceil_of(uint32_t count, uint32_t unit)
{
    return (count + unit - 1) / unit;
}

enum status bench_plan_create(uint32_t row_count_max, uint32_t position_max,
                              struct bench_plan **out)
{
    const uint32_t blocks = position_max / ATTENTION_BLOCK_TOKENS + 1;
    const uint32_t pages = position_max / KV_PAGE_TOKEN_COUNT + 1;
    const size_t pairs = (size_t)row_count_max * blocks;
    struct bench_plan *plan = memory_alloc(1, sizeof *plan);

    if (plan == NULL) {
        return STATUS_MEMORY;
    }
    plan->row_count_max = row_count_max;
    plan->block_count_max = blocks;
    plan->page_count_max = pages;
    plan->rows = memory_alloc(row_count_max, sizeof *plan->rows);
    plan->pages = memory_alloc((size_t)row_count_max * pages, sizeof *plan->pages);
    plan->items = memory_alloc(pairs, sizeof *plan->items);
    plan->item_rows = memory_alloc(pairs, sizeof *plan->item_rows);
    plan->row_partials = memory_alloc(pairs, sizeof *plan->row_partials);
    plan->logits_rows = memory_alloc(row_count_max, sizeof *plan->logits_rows);
    plan->samples = memory_alloc(row_count_max, sizeof *plan->samples);
    plan->copies = memory_alloc(row_count_max, sizeof *plan->copies);
    if (plan->rows == NULL || plan->pages == NULL || plan->items == NULL ||
        plan->item_rows == NULL || plan->row_partials == NULL || plan->logits_rows == NULL ||
        plan->samples == NULL || plan->copies == NULL) {
        bench_plan_destroy(plan);
        return STATUS_MEMORY;
    }
    *out = plan;
    return STATUS_OK;
}

void bench_plan_destroy(struct bench_plan *plan)
{
    if (plan == NULL) {
        return;
    }
    memory_free(plan->rows);
    memory_free(plan->pages);
    memory_free(plan->items);
    memory_free(plan->item_rows);
    memory_free(plan->row_partials);
    memory_free(plan->logits_rows);
    memory_free(plan->samples);
    memory_free(plan->copies);
    memory_free(plan);
}

static void begin(struct bench_plan *plan)
{
    plan->plan = (struct plan){
        .rows = plan->rows,
        .pages = plan->pages,
        .items = plan->items,
        .item_rows = plan->item_rows,
        .row_partials = plan->row_partials,
        .logits_rows = plan->logits_rows,
        .samples = plan->samples,
        .kv_copies = plan->copies,
    };
}

static void add_row(struct bench_plan *plan, uint32_t token, uint32_t position, uint32_t page_first)
{
    struct plan *out = &plan->plan;

    CHECK(out->row_count < plan->row_count_max);
    CHECK(position / ATTENTION_BLOCK_TOKENS < plan->block_count_max);
    plan->rows[out->row_count++] = (struct plan_row){
        .token = token,
        .position = position,
        .page_first = page_first,
        .partial_first = out->row_partial_count,
        .partial_count = position / ATTENTION_BLOCK_TOKENS + 1,
        .writes_kv = 1,
    };
    out->row_partial_count += position / ATTENTION_BLOCK_TOKENS + 1;
}

/* One block for the rows among [first, first + count) that reach it. */
static void add_item(struct bench_plan *plan, uint32_t block, uint32_t page_first, uint32_t first,
                     uint32_t count)
{
    struct plan *out = &plan->plan;
    struct plan_item *item = &plan->items[out->item_count++];
    const uint32_t last = plan->rows[first + count - 1].position;
    const uint32_t full = (block + 1) * ATTENTION_BLOCK_TOKENS;

    *item = (struct plan_item){
        .begin = block * ATTENTION_BLOCK_TOKENS,
        .end = full > last + 1 ? last + 1 : full,
        .page_first = page_first + block * (ATTENTION_BLOCK_TOKENS / KV_PAGE_TOKEN_COUNT),
        .row_first = out->item_row_count,
        .partial_first = out->partial_count,
    };
    for (uint32_t row = first; row < first + count; row++) {
        if (plan->rows[row].position >= item->begin) {
            plan->item_rows[out->item_row_count++] = row;
            plan->row_partials[plan->rows[row].partial_first + block] = out->partial_count++;
            item->row_count++;
        }
    }
}

static void add_sample(struct bench_plan *plan, uint32_t row, const struct step_list *steps)
{
    struct plan *out = &plan->plan;

    plan->logits_rows[out->logits_row_count] = row;
    plan->samples[out->sample_count++] = (struct plan_sample){
        .logits_row = out->logits_row_count,
        .slot = out->logits_row_count,
        .steps = steps,
        .seed = row + UINT64_C(1),
        .flags = PLAN_SAMPLE_GIVEN, /* draws as well, but no history grows */
        .given = steps == NULL ? PLAN_GIVEN_NONE : 0,
    };
    out->logits_row_count++;
}

uint32_t bench_plan_page_count(uint32_t count, uint32_t context, uint32_t shared_count)
{
    const uint32_t shared = shared_count / KV_PAGE_TOKEN_COUNT;

    return shared + count * (ceil_of(context + 1, KV_PAGE_TOKEN_COUNT) - shared);
}

const struct plan *bench_plan_decode(struct bench_plan *plan, uint32_t count, uint32_t context,
                                     uint32_t shared_count, const struct step_list *steps)
{
    const uint32_t pages = ceil_of(context + 1, KV_PAGE_TOKEN_COUNT);
    const uint32_t shared = shared_count / KV_PAGE_TOKEN_COUNT;
    const uint32_t shared_blocks = shared_count / ATTENTION_BLOCK_TOKENS;

    CHECK(shared_count % ATTENTION_BLOCK_TOKENS == 0);
    CHECK(shared_count <= context);
    CHECK(pages <= plan->page_count_max);
    begin(plan);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *table = plan->pages + plan->plan.page_entry_count;
        for (uint32_t page = 0; page < pages; page++) {
            table[page] = page < shared ? page : shared + i * (pages - shared) + page - shared;
        }
        add_row(plan, (i * 31 + 7) % 512, context, plan->plan.page_entry_count);
        plan->plan.page_entry_count += pages;
        add_sample(plan, i, steps);
    }
    for (uint32_t block = 0; block < shared_blocks; block++) {
        add_item(plan, block, 0, 0, count);
    }
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t block = shared_blocks; block <= context / ATTENTION_BLOCK_TOKENS; block++) {
            add_item(plan, block, plan->rows[i].page_first, i, 1);
        }
    }
    return &plan->plan;
}

const struct plan *bench_plan_prefill(struct bench_plan *plan, uint32_t position, uint32_t count,
                                      bool last)
{
    const uint32_t pages = ceil_of(position + count, KV_PAGE_TOKEN_COUNT);

    CHECK(pages <= plan->page_count_max);
    begin(plan);
    for (uint32_t page = 0; page < pages; page++) {
        plan->pages[page] = page;
    }
    plan->plan.page_entry_count = pages;
    for (uint32_t i = 0; i < count; i++) {
        add_row(plan, bench_token(position + i), position + i, 0);
    }
    for (uint32_t block = 0; block <= (position + count - 1) / ATTENTION_BLOCK_TOKENS; block++) {
        add_item(plan, block, 0, 0, count);
    }
    if (last) {
        add_sample(plan, count - 1, NULL);
    }
    return &plan->plan;
}

const struct plan *bench_plan_spread(struct bench_plan *plan, uint32_t from_count,
                                     uint32_t to_count, uint32_t *done)
{
    begin(plan);
    *done = *done < from_count ? from_count : *done;
    while (*done < to_count && plan->plan.kv_copy_count < plan->row_count_max) {
        plan->copies[plan->plan.kv_copy_count++] = (struct plan_kv_copy){
            .from = *done % from_count,
            .to = *done,
            .slot_count = KV_PAGE_TOKEN_COUNT,
        };
        (*done)++;
    }
    if (plan->plan.kv_copy_count == 0) {
        return NULL;
    }
    /* A step has a row: this one stores again what is there. */
    plan->pages[0] = 0;
    plan->plan.page_entry_count = 1;
    add_row(plan, bench_token(0), 0, 0);
    add_item(plan, 0, 0, 0, 1);
    return &plan->plan;
}
