#include "tests/emulator/attention_rig.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/steps/fp8.h"
#include "kernels/steps/math.h"

static float value_of(uint64_t stream, uint64_t index)
{
    uint64_t z = (stream * UINT64_C(0x9e3779b97f4a7c15) + index) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 31)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 29;
    return (float)(int32_t)(z >> 32) * 0x1p-30f;
}

/* The number that a slot holds before its scale, as its bits. */
static uint32_t stored_bits(enum kv_type type, uint32_t content, uint32_t position,
                            uint32_t kv_head, bool is_v, uint32_t d)
{
    const uint64_t stream = ((uint64_t)content << 32 | position) * 64 + kv_head * 2 + is_v;
    const float value = value_of(stream, d);

    switch (type) {
    case KV_TYPE_F16:
        return steps_half_from_float(value);
    case KV_TYPE_BF16:
        return steps_bf16_from_float(value);
    default:
        return steps_fp8_from_float(200 * value);
    }
}

/* From 1 / 150 to 1 / 20, never a power of two. */
static float stored_scale(uint32_t content, uint32_t position, uint32_t kv_head, bool is_v)
{
    const uint64_t stream = ((uint64_t)content << 32 | position) * 64 + kv_head * 2 + is_v;

    return 1.0f / (85.0f + 32.0f * value_of(stream, 1000));
}

float attention_rig_stored(enum kv_type type, uint32_t content, uint32_t position, uint32_t kv_head,
                           bool is_v, uint32_t d)
{
    const uint32_t bits = stored_bits(type, content, position, kv_head, is_v, d);

    switch (type) {
    case KV_TYPE_F16:
        return steps_float_from_half((uint16_t)bits);
    case KV_TYPE_BF16:
        return steps_float_from_bf16((uint16_t)bits);
    default:
        return steps_float_from_fp8((uint8_t)bits) * stored_scale(content, position, kv_head, is_v);
    }
}

float attention_rig_query(uint32_t content, uint32_t position, uint32_t i)
{
    return 1.5f * value_of(((uint64_t)content << 32 | position) + 7777777, i);
}

float attention_rig_asked(enum kv_type type, uint32_t content, uint32_t position, uint32_t i)
{
    const float query = attention_rig_query(content, position, i);

    return type == KV_TYPE_BF16 ? steps_float_from_bf16(steps_bf16_from_float(query))
                                : steps_float_from_half(steps_half_from_float(query));
}

uint64_t attention_rig_row(const struct rig_shape *shape, uint32_t kv_head, uint32_t page,
                           uint32_t slot)
{
    const uint64_t head = (uint64_t)LAYER * shape->kv_head_count + kv_head;
    return (head * PAGE_COUNT + page) * KV_PAGE_TOKEN_COUNT + slot;
}

/* NaNs, infinities and the largest numbers. */
static void poison_row(const struct attention_rig *rig, uint64_t row, uint32_t poison)
{
    static const uint16_t halves[] = {0x7e00, 0x7c00, 0xfc00, 0x7bff, 0xfe01, 0x3c00};
    static const uint16_t bf16[] = {0x7fc0, 0x7f80, 0xff80, 0x7f7f, 0xffc1, 0x3f80};
    static const uint8_t codes[] = {0x7f, 0x7e, 0xff, 0xfe, 0x7f, 0x38};
    static const float scales[] = {NAN, INFINITY, -INFINITY, 3e38f, 0.0f};
    const uint16_t *bad = rig->shape.type == KV_TYPE_F16 ? halves : bf16;

    for (uint32_t d = 0; d < rig->shape.head_size; d++) {
        const uint64_t i = row * rig->shape.head_size + d;
        if (rig->shape.type == KV_TYPE_FP8) {
            rig->k[i] = codes[(i + poison) % 6];
            rig->v[i] = codes[(i / 3 + poison) % 6];
        } else {
            ((uint16_t *)rig->k)[i] = bad[(i + poison) % 6];
            ((uint16_t *)rig->v)[i] = bad[(i / 3 + poison) % 6];
        }
    }
    if (rig->shape.type == KV_TYPE_FP8) {
        rig->k_scales[row] = scales[(row + poison) % 5];
        rig->v_scales[row] = scales[(row / 2 + poison) % 5];
    }
}

void attention_rig_init(struct attention_rig *rig, const struct rig_shape *shape, uint32_t poison)
{
    const uint64_t rows =
        (uint64_t)LAYERS * shape->kv_head_count * PAGE_COUNT * KV_PAGE_TOKEN_COUNT;
    const uint64_t bytes = rows * cuda_kv_row_bytes(shape->type, shape->head_size);

    memset((void *)rig, 0, sizeof *rig);
    rig->shape = *shape;
    rig->shared_bytes_max = 227 * 1024;
    rig->k = (uint8_t *)aligned_alloc(16, bytes);
    rig->v = (uint8_t *)aligned_alloc(16, bytes);
    if (shape->type == KV_TYPE_FP8) {
        rig->k_scales = (float *)aligned_alloc(16, rows * sizeof(float));
        rig->v_scales = (float *)aligned_alloc(16, rows * sizeof(float));
    }
    for (uint64_t row = 0; row < rows; row++) {
        poison_row(rig, row, poison);
    }
}

void attention_rig_finish(struct attention_rig *rig)
{
    free(rig->k);
    free(rig->v);
    free(rig->k_scales);
    free(rig->v_scales);
}

static void write_row(struct attention_rig *rig, uint64_t row, uint32_t content, uint32_t position,
                      uint32_t head)
{
    const enum kv_type type = rig->shape.type;

    for (uint32_t d = 0; d < rig->shape.head_size; d++) {
        const uint64_t i = row * rig->shape.head_size + d;
        const uint32_t k = stored_bits(type, content, position, head, false, d);
        const uint32_t v = stored_bits(type, content, position, head, true, d);
        if (type == KV_TYPE_FP8) {
            rig->k[i] = (uint8_t)k;
            rig->v[i] = (uint8_t)v;
        } else {
            ((uint16_t *)rig->k)[i] = (uint16_t)k;
            ((uint16_t *)rig->v)[i] = (uint16_t)v;
        }
    }
    if (type == KV_TYPE_FP8) {
        rig->k_scales[row] = stored_scale(content, position, head, false);
        rig->v_scales[row] = stored_scale(content, position, head, true);
    }
}

static void write_sequence(struct attention_rig *rig, const struct rig_sequence *sequence)
{
    for (uint32_t position = 0; position < sequence->length; position++) {
        const uint32_t page = sequence->pages[position / KV_PAGE_TOKEN_COUNT];
        for (uint32_t head = 0; head < rig->shape.kv_head_count; head++) {
            write_row(rig,
                      attention_rig_row(&rig->shape, head, page, position % KV_PAGE_TOKEN_COUNT),
                      sequence->content, position, head);
        }
    }
}

/* ---- planning ---- */

/* Rows of two sequences share a block where both see all of it in the same pages. */
static bool joins(const struct rig_query *a, const struct rig_query *b, uint32_t begin)
{
    const uint32_t page = begin / KV_PAGE_TOKEN_COUNT;
    const uint32_t last = begin + ATTENTION_BLOCK_TOKENS - 1;

    if (a->sequence == b->sequence) {
        return b->position >= begin;
    }
    return a->position >= last && b->position >= last &&
           memcmp(&a->sequence->pages[page], &b->sequence->pages[page],
                  ATTENTION_BLOCK_TOKENS / KV_PAGE_TOKEN_COUNT * sizeof(uint32_t)) == 0;
}

static void add_item(struct attention_rig *rig, const struct rig_query *queries, uint32_t begin,
                     const uint32_t *list, uint32_t count)
{
    struct plan *plan = &rig->plan;
    struct plan_item *item = &rig->items[plan->item_count++];

    item->begin = begin;
    item->row_first = plan->item_row_count;
    item->row_count = count;
    item->partial_first = plan->partial_count;
    for (uint32_t j = 0; j < count; j++) {
        const struct plan_row *row = &rig->rows[list[j]];
        const uint32_t past = queries[list[j]].position + 1;
        if (past > item->end) {
            item->end = past;
            item->page_first = row->page_first + begin / KV_PAGE_TOKEN_COUNT;
        }
        rig->item_rows[plan->item_row_count++] = list[j];
        rig->row_partials[row->partial_first + begin / ATTENTION_BLOCK_TOKENS] =
            plan->partial_count++;
    }
    if (item->end > begin + ATTENTION_BLOCK_TOKENS) {
        item->end = begin + ATTENTION_BLOCK_TOKENS;
    }
}

static void plan_block(struct attention_rig *rig, const struct rig_query *queries, uint32_t count,
                       const struct rig_variation *variation, uint32_t begin)
{
    bool done[ROWS_MAX] = {};

    for (uint32_t i = 0; i < count; i++) {
        uint32_t list[ROWS_MAX], list_count = 0;
        if (done[i] || queries[i].position < begin) {
            continue;
        }
        for (uint32_t j = i; j < count && list_count < variation->list_max; j++) {
            if (!done[j] &&
                (j == i || (variation->shared && joins(&queries[i], &queries[j], begin)))) {
                done[j] = true;
                list[list_count++] = j;
            }
        }
        for (uint32_t j = 0; variation->descending && j < list_count / 2; j++) {
            const uint32_t held = list[j];
            list[j] = list[list_count - 1 - j];
            list[list_count - 1 - j] = held;
        }
        add_item(rig, queries, begin, list, list_count);
    }
}

static void make_chains(struct attention_rig *rig)
{
    const struct rig_shape *shape = &rig->shape;
    const struct chain_shape chains = {shape->head_count / shape->kv_head_count,
                                       shape->kv_head_count, shape->head_size > 128 ? 64u : 128u,
                                       1};
    struct chain_planner *planner = NULL;
    struct plan *plan = &rig->plan;

    plan->rows = rig->rows;
    plan->pages = rig->pages;
    plan->items = rig->items;
    plan->item_rows = rig->item_rows;
    plan->row_partials = rig->row_partials;
    assert_int_equal(chain_planner_create(ROWS_MAX, PARTIALS_MAX, &planner), STATUS_OK);
    const struct plan *made = chain_planner_make(planner, plan, &chains, &rig->chain_count);
    if (made != plan) {
        memcpy(rig->rows, made->rows, made->row_count * sizeof rig->rows[0]);
        memcpy(rig->items, made->items, made->item_count * sizeof rig->items[0]);
        memcpy(rig->item_rows, made->item_rows, made->item_row_count * sizeof(uint32_t));
        memcpy(rig->row_partials, made->row_partials, made->row_partial_count * sizeof(uint32_t));
        *plan = *made;
    }
    chain_planner_destroy(planner);
}

void attention_rig_plan(struct attention_rig *rig, const struct rig_query *queries, uint32_t count,
                        const struct rig_variation *variation)
{
    struct plan *plan = &rig->plan;

    memset(plan, 0, sizeof *plan);
    memset(rig->items, 0, sizeof rig->items);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t page_count = queries[i].position / KV_PAGE_TOKEN_COUNT + 1;
        struct plan_row *row = &rig->rows[i];
        memset(row, 0, sizeof *row);
        row->position = queries[i].position;
        row->page_first = plan->page_entry_count;
        row->partial_first = plan->row_partial_count;
        row->partial_count = queries[i].position / ATTENTION_BLOCK_TOKENS + 1;
        memcpy(rig->pages + plan->page_entry_count, queries[i].sequence->pages,
               page_count * sizeof(uint32_t));
        plan->page_entry_count += page_count;
        plan->row_partial_count += row->partial_count;
    }
    for (uint32_t begin = 0; begin < SEQUENCE_PAGES_MAX * KV_PAGE_TOKEN_COUNT;
         begin += ATTENTION_BLOCK_TOKENS) {
        plan_block(rig, queries, count, variation, begin);
    }
    assert_true(plan->partial_count <= PARTIALS_MAX);
    plan->row_count = count;
    rig->chain_count = 0;
    if (variation->chains) {
        make_chains(rig);
    }
}

const struct cuda_plan_view *attention_rig_give_plan(struct attention_rig *rig, struct card *card)
{
    const struct plan *plan = &rig->plan;
    struct cuda_plan_view view = {};

    view.row_count = rig->plan.row_count;
    view.page_entry_count = rig->plan.page_entry_count;
    view.item_count = rig->plan.item_count;
    view.item_row_count = rig->plan.item_row_count;
    view.row_partial_count = rig->plan.row_partial_count;
    view.partial_count = rig->plan.partial_count;
    view.chain_count = rig->chain_count;
    view.rows = card_give<const struct plan_row>(card, rig->rows, plan->row_count);
    view.pages = card_give<const uint32_t>(card, rig->pages, plan->page_entry_count);
    view.items = card_give<const struct plan_item>(card, rig->items, plan->item_count);
    view.item_rows = card_give<const uint32_t>(card, rig->item_rows, plan->item_row_count);
    view.row_partials = card_give<const uint32_t>(card, rig->row_partials, plan->row_partial_count);
    return card_give<const struct cuda_plan_view>(card, &view, 1);
}

void attention_rig_give_pools(struct attention_rig *rig, struct card *card, struct backend_kv *kv)
{
    const struct rig_shape *shape = &rig->shape;
    const uint64_t rows =
        (uint64_t)LAYERS * shape->kv_head_count * PAGE_COUNT * KV_PAGE_TOKEN_COUNT;
    const uint64_t bytes = rows * cuda_kv_row_bytes(shape->type, shape->head_size);

    *kv = {};
    kv->shape = {LAYERS, shape->kv_head_count, shape->head_size, PAGE_COUNT};
    kv->type = shape->type;
    kv->k = (uint8_t *)card_give<const uint8_t>(card, rig->k, bytes);
    kv->v = (uint8_t *)card_give<const uint8_t>(card, rig->v, bytes);
    kv->k_scales = (float *)card_give<const float>(card, rig->k_scales, rows);
    kv->v_scales = (float *)card_give<const float>(card, rig->v_scales, rows);
}

/* ---- running ---- */

void attention_rig_memory_init(struct rig_memory *memory, const struct attention_rig *rig,
                               const struct rig_query *queries)
{
    const struct rig_shape *shape = &rig->shape;
    const uint64_t heads = (uint64_t)PARTIALS_MAX * shape->head_count;
    const uint32_t row_count = rig->plan.row_count;

    memory->row_count = row_count;
    memory->partial_floats = heads * (shape->head_size + 2);

    memory->width = (uint64_t)shape->head_count * shape->head_size;
    memory->q = (float *)malloc(row_count * memory->width * sizeof(float));
    memory->out = (float *)malloc(row_count * memory->width * sizeof(float));
    memory->partials = (float *)malloc(heads * (shape->head_size + 2) * sizeof(float));
    memset(memory->out, 0xff, row_count * memory->width * sizeof(float));
    memset(memory->partials, 0xff, heads * (shape->head_size + 2) * sizeof(float));
    for (uint32_t r = 0; r < row_count; r++) {
        for (uint32_t i = 0; i < memory->width; i++) {
            memory->q[r * memory->width + i] =
                attention_rig_query(queries[r].sequence->content, queries[r].position, i);
        }
    }
}

void attention_rig_give_memory(const struct rig_memory *memory, struct card *card,
                               struct rig_memory *out)
{
    const uint64_t floats = memory->row_count * memory->width;

    *out = *memory;
    out->q = (float *)card_give<const float>(card, memory->q, floats);
    out->out = card_give(card, memory->out, floats);
    out->partials = card_give(card, memory->partials, memory->partial_floats);
}

void attention_rig_memory_finish(struct rig_memory *memory)
{
    free(memory->q);
    free(memory->out);
    free(memory->partials);
}

void attention_rig_run_planned(struct attention_rig *rig, const struct rig_query *queries,
                               const struct emulator_settings *settings, float *out)
{
    struct rig_memory memory, held;
    struct backend backend = {};
    struct backend_buffer q = {}, result = {};
    struct backend_kv kv = {};
    struct cuda_step step = {};
    struct card card;
    struct cuda_op op = {};

    backend.facts.multiprocessor_count = 2;
    backend.facts.shared_bytes_max = rig->shared_bytes_max;
    emulator_configure(settings);
    card_open(&card);
    attention_rig_memory_init(&memory, rig, queries);
    attention_rig_give_memory(&memory, &card, &held);
    attention_rig_give_pools(rig, &card, &kv);
    backend.device = card.device;
    backend.settings.partial_count_max = PARTIALS_MAX;
    backend.partials.data = held.partials;
    q.data = held.q;
    result.data = held.out;
    step.backend = &backend;
    step.most.row_count = rig->plan.row_count;
    step.view = attention_rig_give_plan(rig, &card);
    op.args.attention.q = &q;
    op.args.attention.out = &result;
    op.args.attention.kv = &kv;
    op.args.attention.layer = LAYER;
    op.args.attention.head_count = rig->shape.head_count;
    op.args.attention.kv_head_count = rig->shape.kv_head_count;
    op.args.attention.head_size = rig->shape.head_size;
    op.args.attention.scale = 0.125f;
    if (cuda_attention_run(&step, &op) != STATUS_OK) {
        fail_msg("%s", device_fault_text(card.device));
    }
    card_take(&card);
    card_finish(&card);
    memcpy(out, memory.out, rig->plan.row_count * memory.width * sizeof(float));
    attention_rig_memory_finish(&memory);
}

void attention_rig_run(struct attention_rig *rig, const struct rig_query *queries, uint32_t count,
                       const struct rig_variation *variation, float *out)
{
    attention_rig_plan(rig, queries, count, variation);
    attention_rig_run_planned(rig, queries, &variation->emulator, out);
}

void attention_rig_story_init(struct rig_story *story, struct attention_rig *rig)
{
    story->a = {1, 1040, {}};
    story->b = {1, 530, {}};
    story->c = {3, 70, {}};
    for (uint32_t i = 0; i < SEQUENCE_PAGES_MAX; i++) {
        story->a.pages[i] = (3 + 2 * i) % PAGE_COUNT;
        story->b.pages[i] = i < 32 ? story->a.pages[i] : 150 + i % 4;
        story->c.pages[i] = (140 + 2 * i) % PAGE_COUNT;
    }
    write_sequence(rig, &story->a);
    write_sequence(rig, &story->b);
    write_sequence(rig, &story->c);
}
