#include "schedule/plan.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"

enum { BLOCK_PAGES = ATTENTION_BLOCK_TOKENS / KV_PAGE_TOKEN_COUNT };

struct plan_span {
    uint32_t page_first;
    uint32_t page_count;
    uint32_t row_first;
    uint32_t row_count;
};

/* Open addressing over full blocks; an entry of an older plan counts as empty. */
struct block_entry {
    uint64_t plan_number;
    uint32_t item;
};

struct plan_builder {
    struct plan plan;
    struct plan_limits limits;
    /* owned */
    struct plan_row *rows;
    uint32_t *pages;
    struct plan_item *items;
    uint32_t *item_rows;
    uint32_t *row_partials;
    uint32_t *logits_rows;
    struct plan_sample *samples;
    struct plan_history *histories;
    uint32_t *history_ids;
    struct plan_kv_copy *copies;
    struct plan_span *spans;
    struct block_entry *blocks;
    uint32_t block_mask;
    uint32_t span_count;
    uint32_t history_id_count;
    uint64_t plan_number;
};

static uint32_t block_count_at(uint32_t position)
{
    return position / ATTENTION_BLOCK_TOKENS + 1;
}

static bool has_all(const struct plan_builder *builder)
{
    return builder->rows != NULL && builder->pages != NULL && builder->items != NULL &&
           builder->item_rows != NULL && builder->row_partials != NULL &&
           builder->logits_rows != NULL && builder->samples != NULL && builder->histories != NULL &&
           builder->history_ids != NULL && builder->copies != NULL && builder->spans != NULL &&
           builder->blocks != NULL;
}

enum status plan_builder_create(const struct plan_limits *limits, struct plan_builder **out)
{
    struct plan_builder *builder = memory_alloc(1, sizeof(*builder));
    uint32_t block_count = 16;

    CHECK(limits->row_count_max > 0);
    CHECK(limits->sample_count_max > 0);
    if (builder == NULL) {
        return STATUS_MEMORY;
    }
    while (block_count < 2 * limits->partial_count_max) {
        block_count *= 2;
    }
    builder->limits = *limits;
    builder->block_mask = block_count - 1;
    builder->rows = memory_alloc(limits->row_count_max, sizeof(*builder->rows));
    builder->pages = memory_alloc((size_t)limits->span_count_max * limits->span_page_count_max,
                                  sizeof(*builder->pages));
    builder->items = memory_alloc(limits->partial_count_max, sizeof(*builder->items));
    builder->item_rows = memory_alloc(limits->partial_count_max, sizeof(uint32_t));
    builder->row_partials = memory_alloc(limits->partial_count_max, sizeof(uint32_t));
    builder->logits_rows = memory_alloc(limits->sample_count_max, sizeof(uint32_t));
    builder->samples = memory_alloc(limits->sample_count_max, sizeof(*builder->samples));
    builder->histories = memory_alloc(limits->sample_count_max, sizeof(*builder->histories));
    builder->history_ids = memory_alloc(limits->history_token_count_max, sizeof(uint32_t));
    builder->copies = memory_alloc(limits->sample_count_max, sizeof(*builder->copies));
    builder->spans = memory_alloc(limits->span_count_max, sizeof(*builder->spans));
    builder->blocks = memory_alloc(block_count, sizeof(*builder->blocks));
    if (!has_all(builder)) {
        plan_builder_destroy(builder);
        return STATUS_MEMORY;
    }
    builder->plan.rows = builder->rows;
    builder->plan.pages = builder->pages;
    builder->plan.items = builder->items;
    builder->plan.item_rows = builder->item_rows;
    builder->plan.row_partials = builder->row_partials;
    builder->plan.logits_rows = builder->logits_rows;
    builder->plan.samples = builder->samples;
    builder->plan.histories = builder->histories;
    builder->plan.kv_copies = builder->copies;
    *out = builder;
    return STATUS_OK;
}

void plan_builder_destroy(struct plan_builder *builder)
{
    if (builder == NULL) {
        return;
    }
    memory_free(builder->rows);
    memory_free(builder->pages);
    memory_free(builder->items);
    memory_free(builder->item_rows);
    memory_free(builder->row_partials);
    memory_free(builder->logits_rows);
    memory_free(builder->samples);
    memory_free(builder->histories);
    memory_free(builder->history_ids);
    memory_free(builder->copies);
    memory_free(builder->spans);
    memory_free(builder->blocks);
    memory_free(builder);
}

void plan_builder_begin(struct plan_builder *builder)
{
    struct plan *plan = &builder->plan;

    plan->row_count = 0;
    plan->page_entry_count = 0;
    plan->item_count = 0;
    plan->item_row_count = 0;
    plan->row_partial_count = 0;
    plan->partial_count = 0;
    plan->logits_row_count = 0;
    plan->sample_count = 0;
    plan->history_count = 0;
    plan->kv_copy_count = 0;
    builder->span_count = 0;
    builder->history_id_count = 0;
    builder->plan_number++;
}

uint32_t plan_builder_rows_fit(const struct plan_builder *builder, uint32_t position,
                               uint32_t count)
{
    uint32_t partials = builder->limits.partial_count_max - builder->plan.partial_count;
    uint32_t rows = builder->limits.row_count_max - builder->plan.row_count;
    uint32_t fit = 0;

    if (builder->span_count == builder->limits.span_count_max) {
        return 0;
    }
    while (fit < count && fit < rows && partials >= block_count_at(position + fit)) {
        partials -= block_count_at(position + fit);
        fit++;
    }
    return fit;
}

uint32_t plan_builder_add_span(struct plan_builder *builder, const uint32_t *pages,
                               uint32_t page_count)
{
    struct plan *plan = &builder->plan;
    struct plan_span *span = &builder->spans[builder->span_count];

    CHECK(builder->span_count < builder->limits.span_count_max);
    CHECK(page_count <= builder->limits.span_page_count_max);
    span->page_first = plan->page_entry_count;
    span->page_count = page_count;
    span->row_first = plan->row_count;
    span->row_count = 0;
    memcpy(&builder->pages[span->page_first], pages, page_count * sizeof(uint32_t));
    plan->page_entry_count += page_count;
    builder->span_count++;
    return span->page_first;
}

uint32_t plan_builder_add_row(struct plan_builder *builder, uint32_t token, uint32_t position,
                              bool writes_kv)
{
    struct plan *plan = &builder->plan;
    struct plan_span *span = &builder->spans[builder->span_count - 1];
    struct plan_row *row = &builder->rows[plan->row_count];

    CHECK(builder->span_count > 0);
    CHECK(plan->row_count < builder->limits.row_count_max);
    CHECK(position / KV_PAGE_TOKEN_COUNT < span->page_count);
    CHECK(span->row_count == 0 || row[-1].position + 1 == position);
    memset(row, 0, sizeof(*row));
    row->token = token;
    row->position = position;
    row->page_first = span->page_first;
    row->partial_first = plan->row_partial_count;
    row->partial_count = block_count_at(position);
    row->writes_kv = writes_kv;
    plan->row_partial_count += row->partial_count;
    plan->partial_count = plan->row_partial_count;
    CHECK(plan->partial_count <= builder->limits.partial_count_max);
    span->row_count++;
    return plan->row_count++;
}

uint32_t plan_builder_add_logits(struct plan_builder *builder, uint32_t row)
{
    struct plan *plan = &builder->plan;

    CHECK(row < plan->row_count);
    CHECK(plan->logits_row_count < builder->limits.sample_count_max);
    builder->logits_rows[plan->logits_row_count] = row;
    return plan->logits_row_count++;
}

uint32_t plan_builder_add_sample(struct plan_builder *builder, const struct plan_sample *sample)
{
    struct plan *plan = &builder->plan;

    CHECK(sample->logits_row < plan->logits_row_count);
    CHECK(plan->sample_count < builder->limits.sample_count_max);
    builder->samples[plan->sample_count] = *sample;
    return plan->sample_count++;
}

uint32_t *plan_builder_add_history(struct plan_builder *builder, uint32_t slot,
                                   uint32_t prompt_count, uint32_t count)
{
    struct plan *plan = &builder->plan;
    uint32_t *ids = &builder->history_ids[builder->history_id_count];
    struct plan_history *history;

    CHECK(plan->history_count < builder->limits.sample_count_max);
    CHECK(prompt_count <= count);
    if (count > builder->limits.history_token_count_max - builder->history_id_count) {
        return NULL;
    }
    history = &builder->histories[plan->history_count++];
    history->slot = slot;
    history->reset = 1;
    history->prompt_count = prompt_count;
    history->count = count;
    history->ids = ids;
    builder->history_id_count += count;
    return ids;
}

void plan_builder_add_copy(struct plan_builder *builder, uint32_t from, uint32_t to,
                           uint32_t slot_count)
{
    struct plan *plan = &builder->plan;
    struct plan_kv_copy *copy = &builder->copies[plan->kv_copy_count];

    CHECK(plan->kv_copy_count < builder->limits.sample_count_max);
    CHECK(slot_count > 0);
    CHECK(slot_count <= KV_PAGE_TOKEN_COUNT);
    CHECK(from != to);
    copy->from = from;
    copy->to = to;
    copy->slot_count = slot_count;
    plan->kv_copy_count++;
}

/* ---- items ---- */

/* An item without rows so far; page_first relative to the span that made it. */
static uint32_t item_add(struct plan_builder *builder, const struct plan_span *span, uint32_t block,
                         uint32_t end)
{
    struct plan_item *item = &builder->items[builder->plan.item_count];

    item->begin = block * ATTENTION_BLOCK_TOKENS;
    item->end = end;
    item->page_first = span->page_first + block * BLOCK_PAGES;
    item->row_first = 0;
    item->row_count = 0;
    item->partial_first = 0;
    return builder->plan.item_count++;
}

/* The item of a block whose pages are all there: the one that another span made, or a new one. */
static uint32_t item_of_full_block(struct plan_builder *builder, const struct plan_span *span,
                                   uint32_t block)
{
    const uint32_t *pages = &builder->pages[span->page_first + block * BLOCK_PAGES];
    const uint32_t begin = block * ATTENTION_BLOCK_TOKENS;
    uint32_t at = (pages[BLOCK_PAGES - 1] * 0x9e3779b1u + block * 0x85ebca6bu) >> 7;

    for (;; at++) {
        struct block_entry *entry = &builder->blocks[at & builder->block_mask];
        if (entry->plan_number != builder->plan_number) {
            entry->plan_number = builder->plan_number;
            entry->item = item_add(builder, span, block, begin + ATTENTION_BLOCK_TOKENS);
            return entry->item;
        }
        const struct plan_item *item = &builder->items[entry->item];
        if (item->begin == begin &&
            memcmp(&builder->pages[item->page_first], pages, BLOCK_PAGES * sizeof(uint32_t)) == 0) {
            return entry->item;
        }
    }
}

/* Writes the item of each (row, block) of the span into row_partials, for the time being. */
static void span_items(struct plan_builder *builder, const struct plan_span *span)
{
    const struct plan_row *rows = &builder->rows[span->row_first];
    const uint32_t position_last = rows[span->row_count - 1].position;

    for (uint32_t block = 0; block < block_count_at(position_last); block++) {
        const uint32_t begin = block * ATTENTION_BLOCK_TOKENS;
        uint32_t item;
        if ((block + 1) * BLOCK_PAGES <= span->page_count) {
            item = item_of_full_block(builder, span, block);
        } else {
            item = item_add(builder, span, block, position_last + 1);
        }
        for (uint32_t r = 0; r < span->row_count; r++) {
            if (rows[r].position >= begin) {
                builder->row_partials[rows[r].partial_first + block] = item;
                builder->items[item].row_count++;
            }
        }
    }
}

const struct plan *plan_builder_finish(struct plan_builder *builder)
{
    struct plan *plan = &builder->plan;
    uint32_t first = 0;

    for (uint32_t i = 0; i < builder->span_count; i++) {
        if (builder->spans[i].row_count > 0) {
            span_items(builder, &builder->spans[i]);
        }
    }
    for (uint32_t i = 0; i < plan->item_count; i++) {
        struct plan_item *item = &builder->items[i];
        item->row_first = first;
        item->partial_first = first;
        first += item->row_count;
        item->row_count = 0;
    }
    plan->item_row_count = first;
    for (uint32_t r = 0; r < plan->row_count; r++) {
        const struct plan_row *row = &builder->rows[r];
        for (uint32_t block = 0; block < row->partial_count; block++) {
            uint32_t *partial = &builder->row_partials[row->partial_first + block];
            struct plan_item *item = &builder->items[*partial];
            builder->item_rows[item->row_first + item->row_count] = r;
            *partial = item->partial_first + item->row_count;
            item->row_count++;
        }
    }
    CHECK(first == plan->partial_count);
    return plan;
}
