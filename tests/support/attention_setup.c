#include "tests/support/attention_setup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"

struct planned {
    struct plan plan;
    struct plan_row rows[SETUP_ROW_COUNT_MAX];
    uint32_t pages[SETUP_ROW_COUNT_MAX * SETUP_SEQUENCE_PAGES_MAX];
    struct plan_item items[SETUP_PARTIAL_COUNT_MAX];
    uint32_t item_rows[SETUP_PARTIAL_COUNT_MAX];
    uint32_t row_partials[SETUP_PARTIAL_COUNT_MAX];
};

static uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* In (-2, 2), with a few values near zero. */
static float value_of(uint64_t stream, uint64_t index)
{
    const uint64_t bits = mix(mix(stream) + index);
    const float value = (float)(int32_t)(bits >> 32) * 0x1p-30f;
    return bits % 17 == 0 ? value * 0x1p-12f : value;
}

void attention_setup_values(const struct attention_shape *shape, uint32_t content,
                            uint32_t position, uint32_t kv_head, float *k, float *v)
{
    const uint64_t stream = ((uint64_t)content << 32 | position) * 64 + kv_head;

    for (uint32_t d = 0; d < shape->head_size; d++) {
        k[d] = value_of(stream, d);
        v[d] = value_of(stream, 1000 + d);
    }
}

void attention_setup_query(const struct attention_shape *shape, uint32_t content, uint32_t position,
                           float *q)
{
    for (uint32_t i = 0; i < shape->head_count * shape->head_size; i++) {
        q[i] = 1.5f * value_of(((uint64_t)content << 32 | position) + 77, 5000 + i);
    }
}

static struct backend_settings settings_of(const char *isa, uint32_t thread_count,
                                           enum kv_type kv_type)
{
    return (struct backend_settings){
        .thread_count = thread_count,
        .row_count_max = SETUP_ROW_COUNT_MAX,
        .sample_count_max = 1,
        .slot_count = 1,
        .history_tokens_max = 1,
        .vocabulary_count = 1,
        .partial_count_max = SETUP_PARTIAL_COUNT_MAX,
        .kv_type = kv_type,
        .isa = isa,
    };
}

bool attention_setup_has(const char *isa)
{
    const struct backend_settings settings = settings_of(isa, 1, KV_TYPE_F16);
    struct backend *backend = NULL;
    const enum status status = backend_cpu_ops.create(&settings, NULL, &backend);

    backend_cpu_ops.destroy(backend);
    return status == STATUS_OK;
}

static void poison_pages(struct backend_kv *kv, uint32_t poison)
{
    /* Not numbers, infinities, the largest, one. */
    static const uint16_t bad_halves[] = {0x7e00, 0x7c00, 0xfc00, 0x7bff, 0xfe01, 0x3c00};
    static const uint16_t bad_pairs[] = {0x7fc0, 0x7f80, 0xff80, 0x7f7f, 0xffc1, 0x3f80};
    const uint16_t *bad = kv->is_paired ? bad_pairs : bad_halves;
    const uint64_t count = (uint64_t)kv->shape.layer_count * kv->shape.kv_head_count *
                           kv->shape.page_count * kv->shape.head_size * KV_PAGE_TOKEN_COUNT;

    for (uint64_t i = 0; i < count; i++) {
        kv->k[i] = bad[(i + poison) % 6];
        kv->v[i] = bad[(i / 3 + poison) % 6];
    }
}

void attention_setup_init(struct attention_setup *setup, struct attention_shape shape,
                          const char *isa, uint32_t thread_count, uint32_t poison)
{
    const struct backend_settings settings = settings_of(isa, thread_count, shape.kv_type);
    const struct kv_shape kv_shape = {
        .layer_count = SETUP_LAYER + 1,
        .kv_head_count = shape.kv_head_count,
        .head_size = shape.head_size,
        .page_count = SETUP_PAGE_COUNT,
    };
    const uint64_t float_count = (uint64_t)SETUP_ROW_COUNT_MAX * shape.head_count * shape.head_size;

    *setup = (struct attention_setup){.shape = shape};
    const struct backend_ops *ops = &backend_cpu_ops;
    assert_int_equal(ops->create(&settings, NULL, &setup->backend), STATUS_OK);
    assert_int_equal(ops->kv_create(setup->backend, &kv_shape, NULL, &setup->kv), STATUS_OK);
    assert_int_equal(ops->buffer_create(setup->backend, float_count, NULL, &setup->q), STATUS_OK);
    assert_int_equal(ops->buffer_create(setup->backend, float_count, NULL, &setup->out), STATUS_OK);
    assert_int_equal(
        ops->program_create(setup->backend, SETUP_ROW_COUNT_MAX, NULL, &setup->program), STATUS_OK);
    const struct attention_args args = {
        .q = setup->q,
        .out = setup->out,
        .kv = setup->kv,
        .layer = SETUP_LAYER,
        .head_count = shape.head_count,
        .kv_head_count = shape.kv_head_count,
        .head_size = shape.head_size,
        .scale = 0.125f,
    };
    assert_int_equal(ops->op.attention(setup->program, &args, NULL), STATUS_OK);
    poison_pages(setup->kv, poison);
}

void attention_setup_finish(struct attention_setup *setup)
{
    backend_cpu_ops.destroy(setup->backend);
}

void attention_setup_write(struct attention_setup *setup, const struct attention_sequence *sequence,
                           uint32_t from, uint32_t to)
{
    float k[BACKEND_HEAD_SIZE_MAX], v[BACKEND_HEAD_SIZE_MAX];
    uint8_t fault = 0;

    for (uint32_t position = from; position < to; position++) {
        for (uint32_t head = 0; head < setup->shape.kv_head_count; head++) {
            attention_setup_values(&setup->shape, sequence->content, position, head, k, v);
            cpu_kv_append(&cpu_kernels_scalar, setup->kv, SETUP_LAYER, head,
                          sequence->pages[position / KV_PAGE_TOKEN_COUNT],
                          position % KV_PAGE_TOKEN_COUNT, k, v, &fault);
        }
    }
    assert_int_equal(fault, 0);
}

static bool same_block(const struct attention_query *a, const struct attention_query *b,
                       uint32_t begin)
{
    const uint32_t page = begin / KV_PAGE_TOKEN_COUNT;
    const uint32_t last = begin + ATTENTION_BLOCK_TOKENS - 1;

    if (a->sequence == b->sequence) {
        return true;
    }
    return a->position >= last && b->position >= last &&
           memcmp(&a->sequence->pages[page], &b->sequence->pages[page],
                  ATTENTION_BLOCK_TOKENS / KV_PAGE_TOKEN_COUNT * sizeof(uint32_t)) == 0;
}

static void shuffle(uint32_t *list, uint32_t count, uint64_t seed)
{
    for (uint32_t i = count; seed != 0 && i > 1; i--) {
        const uint32_t j = (uint32_t)(mix(seed + i) % i);
        const uint32_t held = list[i - 1];
        list[i - 1] = list[j];
        list[j] = held;
    }
}

/* One item for `list` over the block at `begin`. */
static void add_item(struct planned *planned, const struct attention_query *queries, uint32_t begin,
                     const uint32_t *list, uint32_t count)
{
    struct plan *plan = &planned->plan;
    struct plan_item *item = &planned->items[plan->item_count++];

    *item = (struct plan_item){
        .begin = begin,
        .page_first = planned->rows[list[0]].page_first + begin / KV_PAGE_TOKEN_COUNT,
        .row_first = plan->item_row_count,
        .row_count = count,
        .partial_first = plan->partial_count,
    };
    for (uint32_t j = 0; j < count; j++) {
        const uint32_t past = queries[list[j]].position + 1;
        item->end = past > item->end ? past : item->end;
        planned->item_rows[plan->item_row_count++] = list[j];
        planned
            ->row_partials[planned->rows[list[j]].partial_first + begin / ATTENTION_BLOCK_TOKENS] =
            plan->partial_count++;
    }
    if (item->end > begin + ATTENTION_BLOCK_TOKENS) {
        item->end = begin + ATTENTION_BLOCK_TOKENS;
    }
}

static void plan_block(struct planned *planned, const struct attention_query *queries,
                       uint32_t count, struct attention_grouping grouping, uint32_t begin)
{
    bool done[SETUP_ROW_COUNT_MAX] = {false};

    for (uint32_t i = 0; i < count; i++) {
        uint32_t list[SETUP_ROW_COUNT_MAX];
        uint32_t list_count = 0;
        if (done[i] || queries[i].position < begin) {
            continue;
        }
        for (uint32_t j = i; j < count; j++) {
            const bool joins = j == i || (grouping.shared && queries[j].position >= begin &&
                                          same_block(&queries[i], &queries[j], begin));
            if (!done[j] && joins) {
                done[j] = true;
                list[list_count++] = j;
            }
        }
        shuffle(list, list_count, grouping.order_seed);
        for (uint32_t at = 0; at < list_count; at += grouping.list_max) {
            const uint32_t left = list_count - at;
            add_item(planned, queries, begin, list + at,
                     left < grouping.list_max ? left : grouping.list_max);
        }
    }
}

static void plan_rows(struct planned *planned, const struct attention_query *queries,
                      uint32_t count, struct attention_grouping grouping)
{
    struct plan *plan = &planned->plan;
    uint32_t last = 0;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t position = queries[i].position;
        const uint32_t page_count = position / KV_PAGE_TOKEN_COUNT + 1;
        planned->rows[i] = (struct plan_row){
            .position = position,
            .page_first = plan->page_entry_count,
            .partial_first = plan->row_partial_count,
            .partial_count = position / ATTENTION_BLOCK_TOKENS + 1,
        };
        memcpy(planned->pages + plan->page_entry_count, queries[i].sequence->pages,
               page_count * sizeof(uint32_t));
        plan->page_entry_count += page_count;
        plan->row_partial_count += planned->rows[i].partial_count;
        last = position > last ? position : last;
    }
    for (uint32_t begin = 0; begin <= last; begin += ATTENTION_BLOCK_TOKENS) {
        plan_block(planned, queries, count, grouping, begin);
    }
    /* A list may start with a row whose table ends before the item does. */
    for (uint32_t i = 0; i < plan->item_count; i++) {
        struct plan_item *item = &planned->items[i];
        for (uint32_t j = 0; j < item->row_count; j++) {
            const struct plan_row *row = &planned->rows[planned->item_rows[item->row_first + j]];
            if (row->position + 1 >= item->end) {
                item->page_first = row->page_first + item->begin / KV_PAGE_TOKEN_COUNT;
            }
        }
    }
    assert_true(plan->partial_count <= SETUP_PARTIAL_COUNT_MAX);
    plan->row_count = count;
    plan->rows = planned->rows;
    plan->pages = planned->pages;
    plan->items = planned->items;
    plan->item_rows = planned->item_rows;
    plan->row_partials = planned->row_partials;
}

void attention_setup_run(struct attention_setup *setup, const struct attention_query *queries,
                         uint32_t count, struct attention_grouping grouping, float *out)
{
    struct planned *planned = test_calloc(1, sizeof *planned);
    const uint32_t width = setup->shape.head_count * setup->shape.head_size;
    struct step_result result;
    uint32_t ticket;

    plan_rows(planned, queries, count, grouping);
    for (uint32_t i = 0; i < count; i++) {
        attention_setup_query(&setup->shape, queries[i].sequence->content, queries[i].position,
                              setup->q->data + (size_t)i * width);
    }
    for (uint32_t d = 0; d < setup->shape.head_size && setup->swaps_pairs; d += 2) {
        float *pair = setup->q->data + d;
        const float even = pair[0];

        pair[0] = pair[1];
        pair[1] = even;
    }
    memset(setup->out->data, 0xff, (size_t)count * width * sizeof(float));
    assert_int_equal(backend_cpu_ops.step_submit(setup->program, &planned->plan, &ticket),
                     STATUS_OK);
    assert_int_equal(backend_cpu_ops.step_wait(setup->backend, ticket, &result), STATUS_OK);
    assert_int_equal(backend_cpu_ops.buffer_read(setup->out, 0, out, (uint64_t)count * width),
                     STATUS_OK);
    test_free(planned);
}
