/* Goal: attention on the card is right, and a row's bits depend on its own past only: not on the
 * rows around it, shared or private pages, lists, schedules, when copies land, or what a page held
 * before.
 * Method: compare with double precision within a bound that is worked out below; then compare bits
 * with each row computed alone, for several ways of making items, three schedules, copies landing
 * early and late, and differently poisoned pages. Twins break it (one bit of one key, blocks folded
 * backwards, a NaN that is seen, a barrier or a wait too little) and must be caught.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include <cmocka.h>
}

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/prim.cuh"
#include "kernels/steps/math.h"

/* The same kernels with one thing left out, chosen by `planted_bug`. */
enum planted_bug { PLANTED_NONE, PLANTED_NO_BARRIER, PLANTED_LAX_WAIT };
static enum planted_bug planted_bug;
static uint32_t planted_barrier; /* which of a thread's barriers; counted from 0 */
static uint32_t planted_count[EMULATOR_BLOCK_THREADS_MAX];

static void planted_sync(void)
{
    const uint32_t at = planted_count[PRIM_THREAD]++;
    if (planted_bug != PLANTED_NO_BARRIER || at != planted_barrier) {
        prim_sync();
    }
}

template <int pending> static void planted_copy_wait(void)
{
    emulator_copy_wait(planted_bug == PLANTED_LAX_WAIT ? pending + 1 : pending);
}

namespace planted
{
#define prim_sync planted_sync
#define prim_copy_wait planted_copy_wait
#include "kernels/cuda/attention.cuh"
#undef prim_sync
#undef prim_copy_wait
} // namespace planted

enum {
    PAGE_COUNT = 160,
    SEQUENCE_PAGES_MAX = 80,
    ROWS_MAX = 48,
    PARTIALS_MAX = 160,
    LAYERS = 2,
    LAYER = 1,
    WIDTH_MAX = 16 * 64,
};

struct shape {
    uint32_t head_count, kv_head_count, head_size;
};

struct sequence {
    uint32_t content, length;
    uint32_t pages[SEQUENCE_PAGES_MAX];
};

struct query {
    const struct sequence *sequence;
    uint32_t position;
};

/* How one run differs from another without a difference in its answers. */
struct variation {
    bool shared; /* rows that see the same pages of a block share an item */
    uint32_t list_max;
    bool descending; /* order inside a list */
    uint32_t poison;
    struct emulator_settings emulator;
};

struct scene {
    struct shape shape;
    uint16_t *k, *v; /* [layer][kv_head][page][16][head_size] */
    struct plan plan;
    struct plan_row rows[ROWS_MAX];
    uint32_t pages[ROWS_MAX * SEQUENCE_PAGES_MAX];
    struct plan_item items[PARTIALS_MAX];
    uint32_t item_rows[PARTIALS_MAX];
    uint32_t row_partials[PARTIALS_MAX];
};

static const struct variation plain = {false, 1, false, 0, {EMULATOR_ASCENDING, 1, false, 90}};

static float value_of(uint64_t stream, uint64_t index)
{
    uint64_t z = (stream * UINT64_C(0x9e3779b97f4a7c15) + index) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 31)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 29;
    return (float)(int32_t)(z >> 32) * 0x1p-30f;
}

static uint16_t stored_value(uint32_t content, uint32_t position, uint32_t kv_head, bool is_v,
                             uint32_t d)
{
    const uint64_t stream = ((uint64_t)content << 32 | position) * 64 + kv_head * 2 + is_v;
    return steps_half_from_float(value_of(stream, d));
}

static float query_value(uint32_t content, uint32_t position, uint32_t i)
{
    return 1.5f * value_of(((uint64_t)content << 32 | position) + 7777777, i);
}

static uint64_t place_of(const struct shape *shape, uint32_t kv_head, uint32_t page, uint32_t slot)
{
    const uint64_t head = (uint64_t)LAYER * shape->kv_head_count + kv_head;
    return ((head * PAGE_COUNT + page) * KV_PAGE_TOKEN_COUNT + slot) * shape->head_size;
}

static void scene_init(struct scene *scene, const struct shape *shape, uint32_t poison)
{
    static const uint16_t bad[] = {0x7e00, 0x7c00, 0xfc00, 0x7bff, 0xfe01, 0x3c00};
    const uint64_t count = (uint64_t)LAYERS * shape->kv_head_count * PAGE_COUNT *
                           KV_PAGE_TOKEN_COUNT * shape->head_size;

    memset(scene, 0, sizeof *scene);
    scene->shape = *shape;
    scene->k = (uint16_t *)aligned_alloc(16, count * sizeof(uint16_t));
    scene->v = (uint16_t *)aligned_alloc(16, count * sizeof(uint16_t));
    for (uint64_t i = 0; i < count; i++) {
        scene->k[i] = bad[(i + poison) % 6];
        scene->v[i] = bad[(i / 3 + poison) % 6];
    }
}

static void scene_finish(struct scene *scene)
{
    free(scene->k);
    free(scene->v);
}

static void write_sequence(struct scene *scene, const struct sequence *sequence)
{
    for (uint32_t position = 0; position < sequence->length; position++) {
        const uint32_t page = sequence->pages[position / KV_PAGE_TOKEN_COUNT];
        for (uint32_t head = 0; head < scene->shape.kv_head_count; head++) {
            const uint64_t at = place_of(&scene->shape, head, page, position % KV_PAGE_TOKEN_COUNT);
            for (uint32_t d = 0; d < scene->shape.head_size; d++) {
                scene->k[at + d] = stored_value(sequence->content, position, head, false, d);
                scene->v[at + d] = stored_value(sequence->content, position, head, true, d);
            }
        }
    }
}

/* ---- planning ---- */

static bool joins(const struct query *a, const struct query *b, uint32_t begin)
{
    return b->position >= begin && a->sequence == b->sequence;
}

static void add_item(struct scene *scene, const struct query *queries, uint32_t begin,
                     const uint32_t *list, uint32_t count)
{
    struct plan *plan = &scene->plan;
    struct plan_item *item = &scene->items[plan->item_count++];

    item->begin = begin;
    item->row_first = plan->item_row_count;
    item->row_count = count;
    item->partial_first = plan->partial_count;
    for (uint32_t j = 0; j < count; j++) {
        const struct plan_row *row = &scene->rows[list[j]];
        const uint32_t past = queries[list[j]].position + 1;
        if (past > item->end) {
            item->end = past;
            item->page_first = row->page_first + begin / KV_PAGE_TOKEN_COUNT;
        }
        scene->item_rows[plan->item_row_count++] = list[j];
        scene->row_partials[row->partial_first + begin / ATTENTION_BLOCK_TOKENS] =
            plan->partial_count++;
    }
    if (item->end > begin + ATTENTION_BLOCK_TOKENS) {
        item->end = begin + ATTENTION_BLOCK_TOKENS;
    }
}

static void plan_block(struct scene *scene, const struct query *queries, uint32_t count,
                       const struct variation *variation, uint32_t begin)
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
        add_item(scene, queries, begin, list, list_count);
    }
}

static void plan_queries(struct scene *scene, const struct query *queries, uint32_t count,
                         const struct variation *variation)
{
    struct plan *plan = &scene->plan;

    memset(plan, 0, sizeof *plan);
    memset(scene->items, 0, sizeof scene->items);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t page_count = queries[i].position / KV_PAGE_TOKEN_COUNT + 1;
        struct plan_row *row = &scene->rows[i];
        memset(row, 0, sizeof *row);
        row->position = queries[i].position;
        row->page_first = plan->page_entry_count;
        row->partial_first = plan->row_partial_count;
        row->partial_count = queries[i].position / ATTENTION_BLOCK_TOKENS + 1;
        memcpy(scene->pages + plan->page_entry_count, queries[i].sequence->pages,
               page_count * sizeof(uint32_t));
        plan->page_entry_count += page_count;
        plan->row_partial_count += row->partial_count;
    }
    for (uint32_t begin = 0; begin < SEQUENCE_PAGES_MAX * KV_PAGE_TOKEN_COUNT;
         begin += ATTENTION_BLOCK_TOKENS) {
        plan_block(scene, queries, count, variation, begin);
    }
    assert_true(plan->partial_count <= PARTIALS_MAX);
    plan->row_count = count;
}

static struct cuda_plan_view view_of(const struct scene *scene)
{
    struct cuda_plan_view view = {};

    view.row_count = scene->plan.row_count;
    view.page_entry_count = scene->plan.page_entry_count;
    view.item_count = scene->plan.item_count;
    view.item_row_count = scene->plan.item_row_count;
    view.row_partial_count = scene->plan.row_partial_count;
    view.partial_count = scene->plan.partial_count;
    view.rows = scene->rows;
    view.pages = scene->pages;
    view.items = scene->items;
    view.item_rows = scene->item_rows;
    view.row_partials = scene->row_partials;
    return view;
}

/* ---- running ---- */

struct memory {
    float *q, *out, *partials;
    uint64_t width;
};

static void memory_init(struct memory *memory, const struct scene *scene,
                        const struct query *queries)
{
    const struct shape *shape = &scene->shape;
    const uint64_t heads = (uint64_t)PARTIALS_MAX * shape->head_count;
    const uint32_t row_count = scene->plan.row_count;

    memory->width = (uint64_t)shape->head_count * shape->head_size;
    memory->q = (float *)malloc(row_count * memory->width * sizeof(float));
    memory->out = (float *)malloc(row_count * memory->width * sizeof(float));
    memory->partials = (float *)malloc(heads * (shape->head_size + 2) * sizeof(float));
    memset(memory->out, 0xff, row_count * memory->width * sizeof(float));
    memset(memory->partials, 0xff, heads * (shape->head_size + 2) * sizeof(float));
    for (uint32_t r = 0; r < row_count; r++) {
        for (uint32_t i = 0; i < memory->width; i++) {
            memory->q[r * memory->width + i] =
                query_value(queries[r].sequence->content, queries[r].position, i);
        }
    }
}

static void memory_finish(struct memory *memory)
{
    free(memory->q);
    free(memory->out);
    free(memory->partials);
}

/* Runs the planned scene by the backend's own launcher. out: [count][head_count * head_size] */
static void run_planned(struct scene *scene, const struct query *queries,
                        const struct emulator_settings *settings, float *out)
{
    struct memory memory;
    struct backend backend = {};
    struct backend_buffer q = {}, result = {};
    struct backend_kv kv = {};
    struct cuda_step step = {};
    struct cuda_op op = {};

    memory_init(&memory, scene, queries);
    backend.settings.partial_count_max = PARTIALS_MAX;
    backend.partials.data = memory.partials;
    q.data = memory.q;
    result.data = memory.out;
    kv.shape = {LAYERS, scene->shape.kv_head_count, scene->shape.head_size, PAGE_COUNT};
    kv.k = scene->k;
    kv.v = scene->v;
    step.backend = &backend;
    step.plan = &scene->plan;
    step.view = view_of(scene);
    op.args.attention.q = &q;
    op.args.attention.out = &result;
    op.args.attention.kv = &kv;
    op.args.attention.layer = LAYER;
    op.args.attention.head_count = scene->shape.head_count;
    op.args.attention.kv_head_count = scene->shape.kv_head_count;
    op.args.attention.head_size = scene->shape.head_size;
    op.args.attention.scale = 0.125f;
    emulator_configure(settings);
    assert_int_equal(cuda_attention_run(&step, &op), STATUS_OK);
    assert_string_equal(emulator_fault_text(), "");
    memcpy(out, memory.out, scene->plan.row_count * memory.width * sizeof(float));
    memory_finish(&memory);
}

static void run(struct scene *scene, const struct query *queries, uint32_t count,
                const struct variation *variation, float *out)
{
    plan_queries(scene, queries, count, variation);
    run_planned(scene, queries, &variation->emulator, out);
}

/* Three sequences; b begins with a's pages. */
struct story {
    struct sequence a, b, c;
};

static void story_init(struct story *story, struct scene *scene)
{
    story->a = {1, 1040, {}};
    story->b = {1, 530, {}};
    story->c = {3, 70, {}};
    for (uint32_t i = 0; i < SEQUENCE_PAGES_MAX; i++) {
        story->a.pages[i] = (3 + 2 * i) % PAGE_COUNT;
        story->b.pages[i] = i < 32 ? story->a.pages[i] : 150 + i % 4;
        story->c.pages[i] = (140 + 2 * i) % PAGE_COUNT;
    }
    write_sequence(scene, &story->a);
    write_sequence(scene, &story->b);
    write_sequence(scene, &story->c);
}

static const struct shape shapes[] = {
    {3, 1, 64}, {4, 2, 80}, {2, 2, 96}, {2, 1, 128}, {1, 1, 256}, {16, 1, 64},
};

/* ---- against double ---- */

struct exact {
    double out[BACKEND_HEAD_SIZE_MAX], bound[BACKEND_HEAD_SIZE_MAX];
};

/* With u = 2^-23 and M = sum |q k|: a tensor-core step cuts at most 18 terms and 2 sums, each by
 * less than u M, so a score is off by 20 u M D / 16; the prescaling adds 3 u of it. A weight's
 * relative error is log(2) times twice that, 4 u of exp2, 2^-11 of the rounding to half (2^-25
 * absolute below 2^-14). A product of four steps adds 80 u, each fold 4 u. All of it twice, in
 * numerator and denominator. */
static void exact_head(const struct shape *shape, const struct query *query, uint32_t head,
                       struct exact *exact)
{
    static double weights[SEQUENCE_PAGES_MAX * KV_PAGE_TOKEN_COUNT];
    const uint32_t content = query->sequence->content;
    const uint32_t kv_head = head / (shape->head_count / shape->kv_head_count);
    double max = -INFINITY, sum = 0, score_error = 0;

    for (uint32_t j = 0; j <= query->position; j++) {
        double dot = 0, magnitude = 0;
        for (uint32_t d = 0; d < shape->head_size; d++) {
            const float q = query_value(content, query->position, head * shape->head_size + d);
            const double product =
                (double)steps_float_from_half(steps_half_from_float(q)) *
                steps_float_from_half(stored_value(content, j, kv_head, false, d));
            dot += product;
            magnitude += fabs(product);
        }
        weights[j] = dot * 0.125;
        max = fmax(max, weights[j]);
        score_error =
            fmax(score_error, (20.0 * shape->head_size / 16 + 6) * 0x1p-23 * magnitude * 0.125);
    }
    for (uint32_t j = 0; j <= query->position; j++) {
        weights[j] = exp(weights[j] - max);
        sum += weights[j];
    }
    const uint32_t folds = query->position / ATTENTION_CHUNK_TOKENS + 2;
    const double relative = 2 * (2 * score_error + (84 + 4 * folds) * 0x1p-23 + 0x1p-11);
    memset(exact, 0, sizeof *exact);
    for (uint32_t j = 0; j <= query->position; j++) {
        for (uint32_t d = 0; d < shape->head_size; d++) {
            const double value = steps_float_from_half(stored_value(content, j, kv_head, true, d));
            exact->out[d] += weights[j] / sum * value;
            exact->bound[d] += (weights[j] / sum * relative + 0x1p-24 / sum) * fabs(value);
        }
    }
}

static void test_output_is_within_the_derived_bound_of_double(void **state)
{
    (void)state;
    static float out[4 * WIDTH_MAX];
    double worst = 0;

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct variation variation = {
            true, ROWS_MAX, false, 2, {EMULATOR_SHUFFLED, 5, false, s % 2 == 0 ? 80u : 90u}};
        struct scene scene;
        struct story story;
        struct exact want;
        scene_init(&scene, &shapes[s], 0);
        story_init(&story, &scene);
        const struct query queries[] = {
            {&story.a, 77}, {&story.a, 1030}, {&story.c, 0}, {&story.b, 525}};
        run(&scene, queries, 4, &variation, out);
        for (uint32_t i = 0; i < 4; i++) {
            for (uint32_t head = 0; head < shapes[s].head_count; head += 1 + head) {
                const float *got =
                    out + ((size_t)i * shapes[s].head_count + head) * shapes[s].head_size;
                exact_head(&shapes[s], &queries[i], head, &want);
                for (uint32_t d = 0; d < shapes[s].head_size; d++) {
                    const double error = fabs(got[d] - want.out[d]);
                    assert_true(error <= want.bound[d]);
                    worst = fmax(worst, error / want.bound[d]);
                }
            }
        }
        scene_finish(&scene);
    }
    print_message("largest error is %.3f of the bound\n", worst);
    assert_true(worst > 0);
}

/* ---- bits ---- */

static const struct variation variations[] = {
    {true, ROWS_MAX, false, 1, {EMULATOR_ASCENDING, 1, true, 90}},
    {true, ROWS_MAX, true, 2, {EMULATOR_DESCENDING, 1, false, 90}},
    {true, 3, false, 3, {EMULATOR_SHUFFLED, 11, true, 90}},
    {false, 1, false, 4, {EMULATOR_SHUFFLED, 12, false, 90}},
};

enum { STORY_ROWS = 9 };

static void story_queries(const struct story *story, struct query *queries)
{
    const struct query all[STORY_ROWS] = {
        {&story->a, 1030}, {&story->b, 525}, {&story->c, 0},   {&story->a, 15}, {&story->a, 16},
        {&story->c, 69},   {&story->a, 511}, {&story->b, 512}, {&story->a, 63},
    };
    memcpy(queries, all, sizeof all);
}

/* Each row in a plan of its own. */
static void run_alone(const struct shape *shape, float *out)
{
    struct scene scene;
    struct story story;
    struct query queries[STORY_ROWS];

    scene_init(&scene, shape, 0);
    story_init(&story, &scene);
    story_queries(&story, queries);
    for (uint32_t i = 0; i < STORY_ROWS; i++) {
        run(&scene, &queries[i], 1, &plain, out + (size_t)i * shape->head_count * shape->head_size);
    }
    scene_finish(&scene);
}

static void test_a_row_has_the_same_bits_alone_and_in_every_batch(void **state)
{
    (void)state;
    static float want[STORY_ROWS * WIDTH_MAX], got[STORY_ROWS * WIDTH_MAX];

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const size_t bytes =
            (size_t)STORY_ROWS * shapes[s].head_count * shapes[s].head_size * sizeof(float);
        run_alone(&shapes[s], want);
        /* All of them for one shape, every other one for the rest. */
        for (size_t i = s % 2; i < sizeof variations / sizeof *variations; i += s == 0 ? 1 : 2) {
            struct scene scene;
            struct story story;
            struct query queries[STORY_ROWS];
            scene_init(&scene, &shapes[s], variations[i].poison);
            story_init(&story, &scene);
            story_queries(&story, queries);
            run(&scene, queries, STORY_ROWS, &variations[i], got);
            assert_memory_equal(got, want, bytes);
            scene_finish(&scene);
        }
    }
}

static void test_a_tall_prefill_equals_its_rows_alone(void **state)
{
    (void)state;
    enum { COUNT = 45 };
    static float want[WIDTH_MAX], got[COUNT * WIDTH_MAX];
    const struct shape shape = {3, 1, 64};
    struct variation tall = variations[1];
    struct scene scene;
    struct story story;
    struct query queries[COUNT];

    scene_init(&scene, &shape, 5);
    story_init(&story, &scene);
    for (uint32_t i = 0; i < COUNT; i++) {
        queries[i] = {&story.a, 90 + i};
    }
    run(&scene, queries, COUNT, &tall, got);
    assert_int_equal(scene.plan.item_count, 1);
    for (uint32_t i = 0; i < COUNT; i += 11) {
        run(&scene, &queries[i], 1, &plain, want);
        assert_memory_equal(got + (size_t)i * 192, want, 192 * sizeof(float));
    }
    scene_finish(&scene);
}

/* ---- twins ---- */

static void test_one_bit_of_one_key_or_a_backward_fold_is_caught(void **state)
{
    (void)state;
    static float want[WIDTH_MAX], got[WIDTH_MAX];
    const struct shape shape = {3, 1, 64};
    struct scene scene;
    struct story story;

    scene_init(&scene, &shape, 0);
    story_init(&story, &scene);
    const struct query query = {&story.a, 1030};
    run(&scene, &query, 1, &plain, want);
    const uint64_t at = place_of(&shape, 0, story.a.pages[64], 3);
    scene.k[at] ^= 0x200;
    run(&scene, &query, 1, &plain, got);
    assert_memory_not_equal(got, want, sizeof(float) * 192);
    scene.k[at] ^= 0x200;
    const uint32_t first = scene.row_partials[0];
    scene.row_partials[0] = scene.row_partials[2];
    scene.row_partials[2] = first;
    run_planned(&scene, &query, &plain.emulator, got);
    assert_memory_not_equal(got, want, sizeof(float) * 192);
    scene_finish(&scene);
}

static void test_a_nan_that_is_seen_is_seen(void **state)
{
    (void)state;
    static float out[2 * WIDTH_MAX];
    const struct shape shape = {3, 1, 64};
    struct scene scene;
    struct story story;

    scene_init(&scene, &shape, 0);
    story_init(&story, &scene);
    scene.v[place_of(&shape, 0, story.c.pages[1], 4)] = 0x7e00;
    const struct query queries[] = {{&story.c, 19}, {&story.c, 20}};
    run(&scene, &queries[0], 1, &plain, out);
    assert_false(isnan(out[0]));
    run(&scene, &queries[1], 1, &plain, out);
    assert_true(isnan(out[0]));
    scene_finish(&scene);
}

/* Whether the kernel with the bug gives `want`, under one schedule. */
static bool planted_equals(struct scene *scene, const struct query *queries,
                           const struct emulator_settings *settings, const float *want)
{
    struct memory memory;
    planted::attention_view view = {};
    const uint64_t heads = (uint64_t)PARTIALS_MAX * scene->shape.head_count;

    memory_init(&memory, scene, queries);
    const uint64_t layer = place_of(&scene->shape, 0, 0, 0);
    view.q = memory.q;
    view.out = memory.out;
    view.k = scene->k + layer;
    view.v = scene->v + layer;
    view.acc = memory.partials;
    view.max = view.acc + heads * scene->shape.head_size;
    view.sum = view.max + heads;
    view.scale_log2 = 0.125f * 1.44269504f;
    view.head_count = scene->shape.head_count;
    view.kv_head_count = scene->shape.kv_head_count;
    view.head_size = scene->shape.head_size;
    view.page_count = PAGE_COUNT;
    memset(planted_count, 0, sizeof planted_count);
    emulator_configure(settings);
    enum status status = device_launch<planted::attention_kernel<64>>(
        NULL, 1, 1, planted::ATTENTION_THREADS, planted::attention_shared_bytes(64), view_of(scene),
        view);
    if (status == STATUS_OK) {
        status = device_launch<planted::attention_fold_kernel<64>>(
            NULL, scene->plan.row_count, view.head_count, 64, 0, view_of(scene), view);
    }
    const bool equal =
        status == STATUS_OK &&
        memcmp(memory.out, want, scene->plan.row_count * memory.width * sizeof(float)) == 0;
    memory_finish(&memory);
    return equal;
}

static bool planted_is_caught(struct scene *scene, const struct query *queries, const float *want)
{
    for (uint32_t i = 0; i < 6; i++) {
        const struct emulator_settings settings = {(enum emulator_schedule)(i % 3), 3, i >= 3, 90};
        if (!planted_equals(scene, queries, &settings, want)) {
            return true;
        }
    }
    return false;
}

static void test_a_barrier_or_a_wait_too_little_is_caught(void **state)
{
    (void)state;
    enum { COUNT = 30, BARRIERS = 14 };
    static float want[COUNT * 192];
    const struct shape shape = {3, 1, 64};
    struct scene scene;
    struct story story;
    struct query queries[COUNT];

    scene_init(&scene, &shape, 0);
    story_init(&story, &scene);
    for (uint32_t i = 0; i < COUNT; i++) {
        queries[i] = {&story.a, 150 + i};
    }
    run(&scene, queries, COUNT, &variations[0], want);
    planted_bug = PLANTED_NONE;
    assert_false(planted_is_caught(&scene, queries, want));
    planted_bug = PLANTED_LAX_WAIT;
    assert_true(planted_is_caught(&scene, queries, want));
    planted_bug = PLANTED_NO_BARRIER;
    /* Without the first the queries' addresses are poison, and the process ends. */
    for (planted_barrier = 1; planted_barrier < BARRIERS; planted_barrier++) {
        assert_true(planted_is_caught(&scene, queries, want));
    }
    planted_bug = PLANTED_NONE;
    scene_finish(&scene);
}

/* One block walks all items; the search takes 32 at a time. */
static void test_one_block_finds_every_tile_of_many_items(void **state)
{
    (void)state;
    enum { COUNT = 45 };
    static float want[COUNT * 192];
    const struct shape shape = {3, 1, 64};
    struct scene scene;
    struct story story;
    struct query queries[COUNT];

    scene_init(&scene, &shape, 0);
    story_init(&story, &scene);
    for (uint32_t i = 0; i < COUNT; i++) {
        queries[i] = {&story.a, i == 40 ? 600 : 3 * i};
    }
    run(&scene, queries, COUNT, &variations[1], want);
    assert_int_equal(scene.plan.item_count, 2);
    plan_queries(&scene, queries, COUNT, &plain);
    assert_int_equal(scene.plan.item_count, COUNT + 1);
    planted_bug = PLANTED_NONE;
    assert_true(planted_equals(&scene, queries, &plain.emulator, want));
    scene_finish(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_is_within_the_derived_bound_of_double),
        cmocka_unit_test(test_a_row_has_the_same_bits_alone_and_in_every_batch),
        cmocka_unit_test(test_a_tall_prefill_equals_its_rows_alone),
        cmocka_unit_test(test_one_bit_of_one_key_or_a_backward_fold_is_caught),
        cmocka_unit_test(test_a_nan_that_is_seen_is_seen),
        cmocka_unit_test(test_one_block_finds_every_tile_of_many_items),
        cmocka_unit_test(test_a_barrier_or_a_wait_too_little_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
