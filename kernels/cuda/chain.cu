/* Chains are paths through a tree: the item of a block follows the item of the block before it that
 * all its rows have. An item has many rows when they fill more than one short tile. A row's chain
 * goes down while items have many; a row that ends there goes on with others', of which it sees
 * nothing more, so that a prefill is one chain though its rows end in several blocks.
 */
#include "kernels/cuda/chain.cuh"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/attention_chunk.cuh"

enum { NONE = 0x7fffffff, QUARTERS = 4 };

/* What is known of an item of the plan as it came. */
struct item_note {
    uint32_t parent;      /* of the block before; NONE: not known yet, or there is none */
    uint32_t heir;        /* the first item with many rows that follows; NONE */
    uint32_t chain_rows;  /* rows whose chain ends here */
    uint32_t chain_first; /* of them, in `listed` */
    bool is_mixed;        /* rows come from several items, or through one that does */
    bool is_chained;
};

struct chain_planner {
    uint32_t row_count_max, partial_count_max;
    struct plan plan;
    /* owned */
    struct item_note *notes; /* [partial_count_max] */
    uint32_t *partial_items; /* [partial_count_max]: the item of a partial as it came */
    uint32_t *ends;          /* [row_count_max]: the item where a row's chain ends, or NONE */
    uint32_t *listed;        /* [row_count_max]: rows by the end of their chain */
    struct plan_row *rows;   /* [row_count_max] */
    struct plan_item *items; /* [partial_count_max] */
    uint32_t *item_rows;     /* [partial_count_max] */
    uint32_t *row_partials;  /* [partial_count_max] */
};

enum status chain_planner_create(uint32_t row_count_max, uint32_t partial_count_max,
                                 struct chain_planner **out)
{
    struct chain_planner *planner = (struct chain_planner *)memory_alloc(1, sizeof(*planner));

    if (planner == NULL) {
        return STATUS_MEMORY;
    }
    planner->row_count_max = row_count_max;
    planner->partial_count_max = partial_count_max;
#define ALLOCATE(type, name, count) \
    planner->name = (type *)memory_alloc((count) > 0 ? (count) : 1, sizeof(type))
    ALLOCATE(struct item_note, notes, partial_count_max);
    ALLOCATE(uint32_t, partial_items, partial_count_max);
    ALLOCATE(uint32_t, ends, row_count_max);
    ALLOCATE(uint32_t, listed, row_count_max);
    ALLOCATE(struct plan_row, rows, row_count_max);
    ALLOCATE(struct plan_item, items, partial_count_max);
    ALLOCATE(uint32_t, item_rows, partial_count_max);
    ALLOCATE(uint32_t, row_partials, partial_count_max);
#undef ALLOCATE
    if (planner->notes == NULL || planner->partial_items == NULL || planner->ends == NULL ||
        planner->listed == NULL || planner->rows == NULL || planner->items == NULL ||
        planner->item_rows == NULL || planner->row_partials == NULL) {
        chain_planner_destroy(planner);
        return STATUS_MEMORY;
    }
    *out = planner;
    return STATUS_OK;
}

void chain_planner_destroy(struct chain_planner *planner)
{
    if (planner == NULL) {
        return;
    }
    memory_free(planner->notes);
    memory_free(planner->partial_items);
    memory_free(planner->ends);
    memory_free(planner->listed);
    memory_free(planner->rows);
    memory_free(planner->items);
    memory_free(planner->item_rows);
    memory_free(planner->row_partials);
    memory_free(planner);
}

/* ---- which rows go with which chain ---- */

static bool has_many(const struct plan_item *item, const struct chain_shape *shape)
{
    return (uint64_t)item->row_count * shape->group > ATTENTION_TILE_COLUMNS;
}

static uint32_t block_of(const struct plan_item *item)
{
    return item->begin / ATTENTION_BLOCK_TOKENS;
}

static uint32_t item_at(const struct chain_planner *planner, const struct plan *plan,
                        const struct plan_row *row, uint32_t block)
{
    return planner->partial_items[plan->row_partials[row->partial_first + block]];
}

static void note_items(struct chain_planner *planner, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->item_count; i++) {
        const struct plan_item *item = &plan->items[i];
        const struct item_note note = {NONE, NONE, 0, 0, false, false};

        planner->notes[i] = note;
        for (uint32_t j = 0; j < item->row_count; j++) {
            planner->partial_items[item->partial_first + j] = i;
        }
    }
    for (uint32_t r = 0; r < plan->row_count; r++) {
        const struct plan_row *row = &plan->rows[r];

        for (uint32_t block = 1; block < row->partial_count; block++) {
            const uint32_t parent = item_at(planner, plan, row, block - 1);
            struct item_note *note = &planner->notes[item_at(planner, plan, row, block)];

            note->is_mixed = note->is_mixed || (note->parent != NONE && note->parent != parent);
            note->parent = parent;
        }
    }
}

static void note_heirs(struct chain_planner *planner, const struct plan *plan,
                       const struct chain_shape *shape)
{
    for (uint32_t i = 0; i < plan->item_count; i++) {
        const struct item_note *note = &planner->notes[i];

        if (note->parent != NONE && !note->is_mixed && has_many(&plan->items[i], shape) &&
            planner->notes[note->parent].heir == NONE) {
            planner->notes[note->parent].heir = i;
        }
    }
}

/* The item at which the row's chain ends; NONE where not even the first block has many rows. */
static uint32_t end_of(const struct chain_planner *planner, const struct plan *plan,
                       const struct plan_row *row, const struct chain_shape *shape)
{
    uint32_t end = NONE, block = 0;

    for (; block < row->partial_count; block++) {
        const uint32_t item = item_at(planner, plan, row, block);

        if (planner->notes[item].is_mixed || !has_many(&plan->items[item], shape)) {
            break;
        }
        end = item;
    }
    if (end != NONE && block == row->partial_count) {
        while (planner->notes[end].heir != NONE) {
            end = planner->notes[end].heir;
        }
    }
    return end;
}

static void list_rows(struct chain_planner *planner, const struct plan *plan,
                      const struct chain_shape *shape)
{
    uint32_t first = 0;

    for (uint32_t r = 0; r < plan->row_count; r++) {
        planner->ends[r] = end_of(planner, plan, &plan->rows[r], shape);
        if (planner->ends[r] != NONE) {
            planner->notes[planner->ends[r]].chain_rows++;
        }
    }
    for (uint32_t i = 0; i < plan->item_count; i++) {
        planner->notes[i].chain_first = first;
        first += planner->notes[i].chain_rows;
        planner->notes[i].chain_rows = 0;
    }
    for (uint32_t r = 0; r < plan->row_count; r++) {
        if (planner->ends[r] != NONE) {
            struct item_note *note = &planner->notes[planner->ends[r]];

            planner->listed[note->chain_first + note->chain_rows++] = r;
        }
    }
}

/* ---- which chains pay ---- */

/* All (tile, block, KV head) of the plan, in quarters of a tall tile's: of short tiles a
 * multiprocessor runs several at once. */
static uint64_t work_of(const struct plan *plan, const struct chain_shape *shape)
{
    uint64_t work = 0;

    for (uint32_t i = 0; i < plan->item_count; i++) {
        const uint64_t columns = (uint64_t)plan->items[i].row_count * shape->group;

        work += columns <= ATTENTION_TILE_COLUMNS
                    ? 1
                    : QUARTERS * ((columns + shape->tile_columns - 1) / shape->tile_columns);
    }
    return work * shape->kv_head_count;
}

/* A chain lasts as long as it has blocks, the others meanwhile share what is left: it pays where it
 * is at most a third longer than what each multiprocessor has to do. One that writes no row's
 * output saves nothing over a lone block's partial. */
static void choose(struct chain_planner *planner, const struct plan *plan,
                   const struct chain_shape *shape)
{
    const uint64_t work = work_of(plan, shape);

    for (uint32_t i = 0; i < plan->item_count; i++) {
        struct item_note *note = &planner->notes[i];
        const uint32_t blocks = block_of(&plan->items[i]) + 1;
        const bool pays = (uint64_t)blocks * 3 * QUARTERS * shape->multiprocessor_count <= work * 4;
        bool saves = blocks > 1;

        for (uint32_t j = 0; j < note->chain_rows && !saves; j++) {
            saves = plan->rows[planner->listed[note->chain_first + j]].partial_count == 1;
        }
        note->is_chained =
            saves && pays && (uint64_t)note->chain_rows * shape->group > ATTENTION_TILE_COLUMNS;
    }
}

/* How many of the row's blocks are in its chain. */
static uint32_t chained_blocks(const struct chain_planner *planner, const struct plan *plan,
                               uint32_t row)
{
    const uint32_t end = planner->ends[row];

    if (end == NONE || !planner->notes[end].is_chained) {
        return 0;
    }
    const uint32_t blocks = block_of(&plan->items[end]) + 1;
    return blocks < plan->rows[row].partial_count ? blocks : plan->rows[row].partial_count;
}

/* ---- the plan made anew ---- */

static void make_rows(struct chain_planner *planner, const struct plan *plan)
{
    uint32_t first = 0;

    for (uint32_t r = 0; r < plan->row_count; r++) {
        const uint32_t blocks = chained_blocks(planner, plan, r);
        struct plan_row *row = &planner->rows[r];

        *row = plan->rows[r];
        row->partial_first = first;
        if (blocks > 0) {
            row->partial_count -= blocks;
            row->partial_count += row->partial_count > 0 ? 1 : 0;
        }
        first += row->partial_count;
    }
    planner->plan.row_partial_count = first;
}

/* A row more at the end of the last item; `index`: which of the row's partials it is. */
static void add_row(struct chain_planner *planner, uint32_t r, uint32_t index)
{
    struct plan *plan = &planner->plan;
    const struct plan_row *row = &planner->rows[r];

    planner->items[plan->item_count - 1].row_count++;
    planner->item_rows[plan->item_row_count] = r;
    if (index < row->partial_count) {
        planner->row_partials[row->partial_first + index] = plan->partial_count;
    }
    plan->item_row_count++;
    plan->partial_count++;
}

static struct plan_item *add_item(struct chain_planner *planner, const struct plan_item *from)
{
    struct plan *plan = &planner->plan;
    struct plan_item *item = &planner->items[plan->item_count++];

    *item = *from;
    item->row_first = plan->item_row_count;
    item->row_count = 0;
    item->partial_first = plan->partial_count;
    return item;
}

/* The longest first: they are dealt out in order. A final row has a place in the numbering of
 * partials and none in memory. */
static uint32_t make_chains(struct chain_planner *planner, const struct plan *plan)
{
    uint32_t count = 0, longest = 0;

    for (uint32_t i = 0; i < plan->item_count; i++) {
        const uint32_t block = block_of(&plan->items[i]);
        longest = planner->notes[i].is_chained && block > longest ? block : longest;
    }
    for (uint32_t block = longest + 1; block-- > 0;) {
        for (uint32_t i = 0; i < plan->item_count; i++) {
            const struct item_note *note = &planner->notes[i];
            if (!note->is_chained || block_of(&plan->items[i]) != block) {
                continue;
            }
            struct plan_item *item = add_item(planner, &plan->items[i]);
            uint32_t farthest = planner->listed[note->chain_first];
            for (uint32_t j = 0; j < note->chain_rows; j++) {
                const uint32_t r = planner->listed[note->chain_first + j];
                farthest = plan->rows[r].position > plan->rows[farthest].position ? r : farthest;
                add_row(planner, r, 0);
            }
            item->begin = 0;
            item->page_first = plan->rows[farthest].page_first;
            count++;
        }
    }
    return count;
}

static void make_items(struct chain_planner *planner, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->item_count; i++) {
        const struct plan_item *from = &plan->items[i];
        const uint32_t block = block_of(from);
        bool is_there = false;

        for (uint32_t j = 0; j < from->row_count; j++) {
            const uint32_t r = plan->item_rows[from->row_first + j];
            const uint32_t blocks = chained_blocks(planner, plan, r);

            if (block < blocks) {
                continue;
            }
            if (!is_there) {
                add_item(planner, from);
                is_there = true;
            }
            add_row(planner, r, blocks > 0 ? block - blocks + 1 : block);
        }
    }
}

static bool is_chained(const struct chain_planner *planner, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->item_count; i++) {
        if (planner->notes[i].is_chained) {
            return true;
        }
    }
    return false;
}

static bool may_chain(const struct plan *plan, const struct chain_shape *shape)
{
    if (shape->tile_columns == 0) {
        return false;
    }
    for (uint32_t i = 0; i < plan->item_count; i++) {
        if (plan->items[i].begin == 0 && has_many(&plan->items[i], shape)) {
            return true;
        }
    }
    return false;
}

const struct plan *chain_planner_make(struct chain_planner *planner, const struct plan *plan,
                                      const struct chain_shape *shape, uint32_t *chain_count)
{
    *chain_count = 0;
    if (!may_chain(plan, shape)) {
        return plan;
    }
    CHECK(plan->row_count <= planner->row_count_max);
    CHECK(plan->partial_count <= planner->partial_count_max);
    CHECK(plan->item_row_count == plan->partial_count);
    CHECK(plan->row_partial_count == plan->partial_count);
    CHECK(plan->item_count <= plan->partial_count);
    note_items(planner, plan);
    note_heirs(planner, plan, shape);
    list_rows(planner, plan, shape);
    choose(planner, plan, shape);
    if (!is_chained(planner, plan)) {
        return plan;
    }
    planner->plan = *plan;
    planner->plan.rows = planner->rows;
    planner->plan.items = planner->items;
    planner->plan.item_rows = planner->item_rows;
    planner->plan.row_partials = planner->row_partials;
    planner->plan.item_count = planner->plan.item_row_count = planner->plan.partial_count = 0;
    make_rows(planner, plan);
    *chain_count = make_chains(planner, plan);
    make_items(planner, plan);
    return &planner->plan;
}
