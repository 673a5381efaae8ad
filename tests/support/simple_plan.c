#include "support/simple_plan.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"

struct simple_plan {
    struct plan plan;
    uint32_t row_count_max;
    uint32_t block_count_max; /* of a row */
    uint32_t page_count_max;  /* of a span */
    struct plan_row *rows;
    uint32_t *pages;
    struct plan_item *items;
    uint32_t *item_rows;
    uint32_t *row_partials;
    uint32_t *logits_rows;
    struct plan_sample *samples;
};

static void *simple_alloc(size_t count, size_t bytes)
{
    void *memory = memory_alloc(count, bytes);

    CHECK(memory != NULL);
    return memory;
}

struct simple_plan *simple_plan_create(uint32_t row_count_max, uint32_t position_max)
{
    struct simple_plan *plan = simple_alloc(1, sizeof(*plan));
    const uint32_t blocks = position_max / ATTENTION_BLOCK_TOKENS + 1;

    plan->row_count_max = row_count_max;
    plan->block_count_max = blocks;
    plan->page_count_max = position_max / KV_PAGE_TOKEN_COUNT + 1;
    plan->rows = simple_alloc(row_count_max, sizeof(*plan->rows));
    plan->pages = simple_alloc((size_t)row_count_max * plan->page_count_max, sizeof(uint32_t));
    plan->items = simple_alloc((size_t)row_count_max * blocks, sizeof(*plan->items));
    plan->item_rows = simple_alloc((size_t)row_count_max * blocks, sizeof(uint32_t));
    plan->row_partials = simple_alloc((size_t)row_count_max * blocks, sizeof(uint32_t));
    plan->logits_rows = simple_alloc(row_count_max, sizeof(uint32_t));
    plan->samples = simple_alloc(row_count_max, sizeof(*plan->samples));
    return plan;
}

void simple_plan_destroy(struct simple_plan *plan)
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
    memory_free(plan);
}

void simple_plan_begin(struct simple_plan *plan)
{
    memset(&plan->plan, 0, sizeof(plan->plan));
}

/* One item: the rows among [row_first, row_first + count) that reach block `block`. */
static void simple_plan_add_item(struct simple_plan *plan, uint32_t block, uint32_t page_first,
                                 uint32_t row_first, uint32_t count)
{
    struct plan_item *item = &plan->items[plan->plan.item_count++];
    const uint32_t last = plan->rows[row_first + count - 1].position;

    item->begin = block * ATTENTION_BLOCK_TOKENS;
    item->end = item->begin + ATTENTION_BLOCK_TOKENS;
    item->end = item->end > last + 1 ? last + 1 : item->end;
    item->page_first = page_first + item->begin / KV_PAGE_TOKEN_COUNT;
    item->row_first = plan->plan.item_row_count;
    item->row_count = 0;
    item->partial_first = plan->plan.partial_count;
    for (uint32_t row = row_first; row < row_first + count; row++) {
        if (plan->rows[row].position >= item->begin) {
            plan->item_rows[plan->plan.item_row_count++] = row;
            plan->row_partials[plan->rows[row].partial_first + block] = plan->plan.partial_count++;
            item->row_count++;
        }
    }
}

uint32_t simple_plan_add(struct simple_plan *plan, const uint32_t *pages, uint32_t position,
                         const uint32_t *ids, uint32_t count)
{
    const uint32_t row_first = plan->plan.row_count;
    const uint32_t page_first = plan->plan.page_entry_count;
    const uint32_t last = position + count - 1;
    const uint32_t page_count = last / KV_PAGE_TOKEN_COUNT + 1;

    CHECK(count > 0);
    CHECK(row_first + count <= plan->row_count_max);
    CHECK(page_count <= plan->page_count_max);
    memcpy(plan->pages + page_first, pages, page_count * sizeof(*pages));
    plan->plan.page_entry_count += page_count;
    for (uint32_t i = 0; i < count; i++) {
        struct plan_row *row = &plan->rows[row_first + i];
        memset(row, 0, sizeof(*row));
        row->token = ids[i];
        row->position = position + i;
        row->page_first = page_first;
        row->partial_first = plan->plan.row_partial_count;
        row->partial_count = (position + i) / ATTENTION_BLOCK_TOKENS + 1;
        row->writes_kv = 1;
        plan->plan.row_partial_count += row->partial_count;
    }
    plan->plan.row_count += count;
    for (uint32_t block = 0; block <= last / ATTENTION_BLOCK_TOKENS; block++) {
        simple_plan_add_item(plan, block, page_first, row_first, count);
    }
    return row_first;
}

uint32_t simple_plan_sample(struct simple_plan *plan, uint32_t row,
                            const struct plan_sample *sample)
{
    const uint32_t index = plan->plan.sample_count++;

    CHECK(index < plan->row_count_max);
    plan->logits_rows[plan->plan.logits_row_count++] = row;
    plan->samples[index] = *sample;
    plan->samples[index].logits_row = index;
    return index;
}

const struct plan *simple_plan_finish(struct simple_plan *plan)
{
    plan->plan.rows = plan->rows;
    plan->plan.pages = plan->pages;
    plan->plan.items = plan->items;
    plan->plan.item_rows = plan->item_rows;
    plan->plan.row_partials = plan->row_partials;
    plan->plan.logits_rows = plan->logits_rows;
    plan->plan.samples = plan->samples;
    return &plan->plan;
}
