/* Attention over the plan's items: a task is one item, one KV head and a run of its query rows.
 *
 * K and V of a chunk are converted to float once a task and then serve all its columns (query rows
 * times the heads that share the KV head). Each (row, block) has its own partial, so tasks share
 * nothing that they write; a row of one block is finished on the spot, the others are folded by a
 * second run of the pool, blocks ascending.
 */
#include <stdint.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/cpu.h"

enum { CACHE_LINE_HALVES = 64 / sizeof(uint16_t) };

struct cpu_attention {
    const struct attention_kernels *kernels;
    uint64_t acc_float_count;  /* room in `acc` */
    uint64_t head_float_count; /* room in `max` and in `sum` */
    uint32_t stride_max;

    /* owned */
    float *acc;           /* [partial][head][stride] */
    float *max;           /* [partial][head] */
    float *sum;           /* [partial][head] */
    float *work;          /* [thread][work_float_count(stride_max)]: a worker's chunk */
    uint32_t *item_tasks; /* [partial_count_max + 1]: running count of row runs before each item */
};

/* One run of the operation. */
struct attention_run {
    const struct cpu_step *step;
    const struct attention_args *args;
    struct cpu_attention *attention;
    uint32_t stride;
    uint32_t group;     /* query heads a KV head */
    uint32_t tile_rows; /* query rows a task */
    uint32_t task_count;
};

static uint32_t stride_of(uint32_t head_size)
{
    return (head_size + ATTENTION_LANES - 1) / ATTENTION_LANES * ATTENTION_LANES;
}

/* K, V, products and queries; scores. */
static uint64_t work_float_count(uint32_t stride)
{
    return (uint64_t)stride *
               (2 * ATTENTION_CHUNK_TOKENS + ATTENTION_TILE_MAX + ATTENTION_COLUMN_MAX) +
           (uint64_t)ATTENTION_TILE_MAX * ATTENTION_CHUNK_TOKENS;
}

/* ---- recording ---- */

static const struct attention_kernels *kernels_of(enum cpu_isa isa, bool is_paired)
{
#if defined(__x86_64__)
    if (isa == CPU_AVX512BF16 && is_paired) {
        return &attention_pairs_avx512bf16;
    }
    if (cpu_isa_is_avx512(isa)) {
        return is_paired ? &attention_pairs_avx512 : &attention_kernels_avx512;
    }
    if (isa == CPU_AVX2) {
        return is_paired ? &attention_pairs_avx2 : &attention_kernels_avx2;
    }
#elif defined(__aarch64__)
    if (isa != CPU_SCALAR) {
        return is_paired ? &attention_pairs_neon : &attention_kernels_neon;
    }
#else
    (void)isa;
#endif
    return is_paired ? &attention_pairs_scalar : &attention_kernels_scalar;
}

void cpu_attention_destroy(struct cpu_attention *attention)
{
    if (attention == NULL) {
        return;
    }
    memory_free(attention->acc);
    memory_free(attention->max);
    memory_free(attention->sum);
    memory_free(attention->work);
    memory_free(attention->item_tasks);
    memory_free(attention);
}

void cpu_attention_rest(const struct backend *backend)
{
    const struct cpu_attention *attention = backend->attention;

    if (attention != NULL) {
        memory_clear(attention->acc, attention->acc_float_count, sizeof *attention->acc);
        memory_clear(attention->max, attention->head_float_count, sizeof *attention->max);
        memory_clear(attention->sum, attention->head_float_count, sizeof *attention->sum);
    }
}

static enum status create_scratch(struct backend *backend)
{
    struct cpu_attention *attention = memory_alloc(1, sizeof *attention);

    if (attention == NULL) {
        return STATUS_MEMORY;
    }
    attention->kernels = kernels_of(backend->isa, backend->settings.kv_type == KV_TYPE_BF16);
    attention->item_tasks = memory_alloc((size_t)backend->settings.partial_count_max + 1,
                                         sizeof *attention->item_tasks);
    if (attention->item_tasks == NULL) {
        cpu_attention_destroy(attention);
        return STATUS_MEMORY;
    }
    backend->attention = attention;
    return STATUS_OK;
}

static enum status grow(float **floats, uint64_t float_count)
{
    float *grown = memory_alloc_aligned(64, float_count, sizeof *grown);

    if (grown == NULL) {
        return STATUS_MEMORY;
    }
    memory_free(*floats);
    *floats = grown;
    return STATUS_OK;
}

/* Scratch for the largest shape recorded so far. Room is noted only when all of it is there. */
static enum status reserve(struct backend *backend, const struct attention_args *args)
{
    if (backend->attention == NULL) {
        TRY(create_scratch(backend));
    }
    struct cpu_attention *attention = backend->attention;
    const uint32_t stride = stride_of(args->head_size);
    const uint64_t heads = (uint64_t)backend->settings.partial_count_max * args->head_count;

    if (heads > attention->head_float_count) {
        TRY(grow(&attention->max, heads));
        TRY(grow(&attention->sum, heads));
        attention->head_float_count = heads;
    }
    if (heads * stride > attention->acc_float_count) {
        TRY(grow(&attention->acc, heads * stride));
        attention->acc_float_count = heads * stride;
    }
    if (stride > attention->stride_max) {
        TRY(grow(&attention->work, work_float_count(stride) * backend->thread_count));
        attention->stride_max = stride;
    }
    return STATUS_OK;
}

static enum status check_args(const struct attention_args *args, struct error *error)
{
    if (args->window != 0 || args->soft_cap != 0.0f || args->sinks != NULL ||
        args->page_group != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "attention with a sliding window, a soft cap, sinks or page groups is not "
                         "supported by the cpu backend; choose another model");
    }
    if (args->head_size == 0 || args->head_size > BACKEND_HEAD_SIZE_MAX ||
        args->head_size % 8 != 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "attention heads of size %u are not supported: a multiple of 8, at most "
                         "%d, is",
                         args->head_size, BACKEND_HEAD_SIZE_MAX);
    }
    if (args->kv_head_count == 0 || args->head_count == 0 ||
        args->head_count % args->kv_head_count != 0 ||
        args->head_count / args->kv_head_count > ATTENTION_GROUP_MAX) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%u query heads over %u key heads are not supported: a whole number of "
                         "query heads, at most %d, must share a key head",
                         args->head_count, args->kv_head_count, ATTENTION_GROUP_MAX);
    }
    return STATUS_OK;
}

enum status cpu_attention(struct backend_program *program, const struct attention_args *args,
                          struct error *error)
{
    struct cpu_op *op = NULL;

    TRY(check_args(args, error));
    CHECK(args->kv->shape.head_size == args->head_size);
    CHECK(args->kv->shape.kv_head_count == args->kv_head_count);
    CHECK(args->layer < args->kv->shape.layer_count);
    if (reserve(program->backend, args) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY,
                         "no memory for %u attention partials; lower the context or the batch",
                         program->backend->settings.partial_count_max);
    }
    TRY(cpu_program_push(program, CPU_OP_attention, error, &op));
    op->args.attention = *args;
    return STATUS_OK;
}

/* ---- running ---- */

/* A task's item, in which run of rows, and the columns of one chunk. */
struct attention_task {
    const struct plan_item *item;
    uint32_t row_first; /* in the item's list */
    uint32_t row_count;
    uint32_t kv_head;
    struct attention_chunk chunk;
    float *queries; /* BF16: [row_count][group][stride] */
    struct attention_column columns[ATTENTION_COLUMN_MAX];
};

/* Item i owns tasks [item_tasks[i], item_tasks[i + 1]) of each KV head. */
static void find_item(const struct attention_run *run, uint32_t index, struct attention_task *task)
{
    const uint32_t *starts = run->attention->item_tasks;
    uint32_t low = 0, high = run->step->plan->item_count;

    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (starts[middle] <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    task->item = &run->step->plan->items[low];
    task->row_first = (index - starts[low]) * run->tile_rows;
    const uint32_t left = task->item->row_count - task->row_first;
    task->row_count = left < run->tile_rows ? left : run->tile_rows;
}

static const struct plan_row *task_row(const struct attention_run *run,
                                       const struct attention_task *task, uint32_t j,
                                       uint32_t *row_index)
{
    const struct plan *plan = run->step->plan;
    *row_index = plan->item_rows[task->item->row_first + task->row_first + j];
    CHECK(*row_index < plan->row_count);
    return &plan->rows[*row_index];
}

/* The columns that see positions from `begin` on; answers how many, and the most that one sees. */
static uint32_t gather_columns(const struct attention_run *run, struct attention_task *task,
                               uint32_t begin, uint32_t *visible_max)
{
    const struct attention_args *args = run->args;
    uint32_t count = 0;

    *visible_max = 0;
    for (uint32_t j = 0; j < task->row_count; j++) {
        uint32_t row_index;
        const struct plan_row *row = task_row(run, task, j, &row_index);
        const uint32_t past = row->position + 1;
        const uint32_t end = past < task->item->end ? past : task->item->end;
        if (end <= begin) {
            continue;
        }
        uint32_t visible = end - begin;
        visible = visible < ATTENTION_CHUNK_TOKENS ? visible : ATTENTION_CHUNK_TOKENS;
        *visible_max = visible > *visible_max ? visible : *visible_max;
        for (uint32_t g = 0; g < run->group; g++) {
            const uint32_t head = task->kv_head * run->group + g;
            const uint64_t slot =
                (uint64_t)(task->item->partial_first + task->row_first + j) * args->head_count +
                head;
            const uint64_t query = (uint64_t)row_index * args->head_count + head;
            task->columns[count] = (struct attention_column){
                .q = run->attention->kernels->query == NULL
                         ? args->q->data + query * args->head_size
                         : task->queries + (size_t)(j * run->group + g) * run->stride,
                .acc = run->attention->acc + slot * run->stride,
                .max = run->attention->max + slot,
                .sum = run->attention->sum + slot,
                .visible = visible,
            };
            count++;
        }
    }
    return count;
}

/* The pages of one head in the item's chunk from `begin` on. Of those from visible_max on, which
 * may not be there, the first one stands for each. */
static void find_pages(const struct attention_run *run, const struct plan_item *item,
                       uint32_t kv_head, uint32_t begin, uint32_t visible_max,
                       struct attention_pages *out)
{
    const struct attention_args *args = run->args;
    const uint32_t page_first = item->page_first + (begin - item->begin) / KV_PAGE_TOKEN_COUNT;

    CHECK(visible_max > 0); /* so the first page is always found */
    for (uint32_t quarter = 0; quarter < ATTENTION_CHUNK_TOKENS / KV_PAGE_TOKEN_COUNT; quarter++) {
        if (quarter * KV_PAGE_TOKEN_COUNT >= visible_max) {
            out->k[quarter] = out->k[0];
            out->v[quarter] = out->v[0];
            continue;
        }
        const uint32_t page = run->step->plan->pages[page_first + quarter];
        CHECK(page < args->kv->shape.page_count);
        out->k[quarter] = cpu_kv_k(args->kv, args->layer, kv_head, page);
        out->v[quarter] = cpu_kv_v(args->kv, args->layer, kv_head, page);
    }
}

/* The pages that this worker will read next, as far as that can be told: pages lie anywhere in
 * memory, so the hardware cannot guess them. Of its next task, since workers take turns, unless one
 * is late. The current pages where nothing follows. */
static void find_ahead(const struct attention_run *run, const struct attention_task *task,
                       uint32_t index, uint32_t begin, const struct attention_pages *now,
                       struct attention_pages *out)
{
    const uint32_t kv_head_count = run->args->kv_head_count;
    const uint64_t next = (uint64_t)index + run->step->backend->thread_count;

    if (task->item->end - begin > ATTENTION_CHUNK_TOKENS) {
        begin += ATTENTION_CHUNK_TOKENS;
        find_pages(run, task->item, task->kv_head, begin, task->item->end - begin, out);
    } else if (next < run->task_count) {
        struct attention_task other;
        find_item(run, (uint32_t)next / kv_head_count, &other);
        find_pages(run, other.item, (uint32_t)next % kv_head_count, other.item->begin,
                   other.item->end - other.item->begin, out);
    } else {
        *out = *now;
    }
}

static void prefetch_pages(const struct attention_pages *pages, uint32_t head_size)
{
    for (uint32_t quarter = 0; quarter < ATTENTION_CHUNK_TOKENS / KV_PAGE_TOKEN_COUNT; quarter++) {
        for (uint32_t i = 0; i < head_size * KV_PAGE_TOKEN_COUNT; i += CACHE_LINE_HALVES) {
            __builtin_prefetch(pages->k[quarter] + i, 0, 2);
            __builtin_prefetch(pages->v[quarter] + i, 0, 2);
        }
    }
}

/* Every tile straight from the pages. */
static void attend_pages(const struct attention_run *run, struct attention_task *task,
                         const struct attention_pages *pages, const struct attention_pages *ahead,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i += ATTENTION_TILE_MAX) {
        const uint32_t left = count - i;

        run->attention->kernels->few(&task->chunk, pages, i == 0 ? ahead : NULL, &task->columns[i],
                                     left < ATTENTION_TILE_MAX ? left : ATTENTION_TILE_MAX);
    }
}

static void attend_chunk(const struct attention_run *run, struct attention_task *task,
                         const struct attention_pages *pages, const struct attention_pages *ahead,
                         uint32_t visible_max, uint32_t count)
{
    const struct attention_kernels *kernels = run->attention->kernels;

    if (kernels->load == NULL || (kernels->few != NULL && count <= ATTENTION_TILE_MAX &&
                                  task->chunk.head_size % ATTENTION_CHUNK_TOKENS == 0)) {
        attend_pages(run, task, pages, ahead, count);
        return;
    }
    prefetch_pages(ahead, task->chunk.head_size);
    for (uint32_t first = 0; first < visible_max; first += KV_PAGE_TOKEN_COUNT) {
        const uint32_t quarter = first / KV_PAGE_TOKEN_COUNT;
        const uint32_t left = visible_max - first;

        kernels->load(&task->chunk, quarter,
                      left < KV_PAGE_TOKEN_COUNT ? left : KV_PAGE_TOKEN_COUNT, pages->k[quarter],
                      pages->v[quarter]);
    }
    for (uint32_t i = 0; i < count; i += ATTENTION_TILE_MAX) {
        const uint32_t left = count - i;

        kernels->tile(&task->chunk, &task->columns[i],
                      left < ATTENTION_TILE_MAX ? left : ATTENTION_TILE_MAX);
    }
}

/* Rows that attend to this block only need no second pass. */
static void finish_rows(const struct attention_run *run, const struct attention_task *task)
{
    const struct attention_args *args = run->args;

    for (uint32_t j = 0; j < task->row_count; j++) {
        uint32_t row_index;
        if (task_row(run, task, j, &row_index)->partial_count != 1) {
            continue;
        }
        for (uint32_t g = 0; g < run->group; g++) {
            const uint32_t head = task->kv_head * run->group + g;
            const uint64_t slot =
                (uint64_t)(task->item->partial_first + task->row_first + j) * args->head_count +
                head;
            const uint64_t query = (uint64_t)row_index * args->head_count + head;
            run->attention->kernels->divide(
                run->attention->acc + slot * run->stride, run->attention->sum[slot],
                args->out->data + query * args->head_size, args->head_size);
        }
    }
}

/* The task's queries as BF16 keys are multiplied with. */
static void round_queries(const struct attention_run *run, const struct attention_task *task)
{
    const struct attention_args *args = run->args;
    const float factor = (float)((double)args->scale * 1.4426950408889634); /* log2(e) */

    for (uint32_t j = 0; j < task->row_count; j++) {
        uint32_t row_index;

        task_row(run, task, j, &row_index);
        for (uint32_t g = 0; g < run->group; g++) {
            const uint64_t query =
                (uint64_t)row_index * args->head_count + (uint64_t)task->kv_head * run->group + g;

            run->attention->kernels->query(
                args->q->data + query * args->head_size, factor, args->head_size,
                task->queries + (size_t)(j * run->group + g) * run->stride);
        }
    }
}

static void attend(void *context, uint32_t index, uint32_t worker)
{
    const struct attention_run *run = context;
    const struct attention_args *args = run->args;
    struct attention_task task = {.kv_head = index % args->kv_head_count};
    float *work = run->attention->work + work_float_count(run->attention->stride_max) * worker;
    struct attention_pages pages, ahead;
    uint32_t visible_max = 0;

    find_item(run, index / args->kv_head_count, &task);
    task.chunk = (struct attention_chunk){
        .k = work,
        .v = work + (size_t)ATTENTION_CHUNK_TOKENS * run->stride,
        .products = work + (size_t)2 * ATTENTION_CHUNK_TOKENS * run->stride,
        .scores = work + (size_t)(2 * ATTENTION_CHUNK_TOKENS + ATTENTION_TILE_MAX) * run->stride,
        .head_size = args->head_size,
        .stride = run->stride,
        .scale = args->scale,
        .first = true,
        .is_paired = args->kv->is_paired,
    };
    task.queries = task.chunk.scores + (size_t)ATTENTION_TILE_MAX * ATTENTION_CHUNK_TOKENS;
    if (run->attention->kernels->query != NULL) {
        round_queries(run, &task);
    }
    for (uint32_t begin = task.item->begin; begin < task.item->end;
         begin += ATTENTION_CHUNK_TOKENS) {
        const uint32_t count = gather_columns(run, &task, begin, &visible_max);
        /* The first chunk of an item is seen by every row on its list. */
        CHECK(!task.chunk.first || count == task.row_count * run->group);
        if (count == 0) {
            break; /* an item may reach further than its rows see */
        }
        find_pages(run, task.item, task.kv_head, begin, visible_max, &pages);
        find_ahead(run, &task, index, begin, &pages, &ahead);
        attend_chunk(run, &task, &pages, &ahead, visible_max, count);
        task.chunk.first = false;
    }
    finish_rows(run, &task);
}

/* Blocks of one row, ascending, into the first one's partial, which nobody reads again. */
static void fold_row(void *context, uint32_t row_index, uint32_t worker)
{
    (void)worker;
    const struct attention_run *run = context;
    const struct attention_args *args = run->args;
    const struct cpu_attention *attention = run->attention;
    const struct plan *plan = run->step->plan;
    const struct plan_row *row = &plan->rows[row_index];
    const uint32_t *partials = plan->row_partials + row->partial_first;

    if (row->partial_count <= 1) {
        return;
    }
    for (uint32_t head = 0; head < args->head_count; head++) {
        const uint64_t slot = (uint64_t)partials[0] * args->head_count + head;
        float *acc = attention->acc + slot * run->stride;
        for (uint32_t i = 1; i < row->partial_count; i++) {
            const uint64_t more = (uint64_t)partials[i] * args->head_count + head;
            float a, b;
            attention_factors(args->kv->is_paired, &attention->max[slot], &attention->sum[slot],
                              attention->max[more], attention->sum[more], &a, &b);
            attention->kernels->fold(acc, attention->acc + more * run->stride, a, b, run->stride);
        }
        const uint64_t query = (uint64_t)row_index * args->head_count + head;
        attention->kernels->divide(acc, attention->sum[slot],
                                   args->out->data + query * args->head_size, args->head_size);
    }
}

void cpu_attention_run(const struct cpu_step *step, const struct attention_args *args)
{
    const struct plan *plan = step->plan;
    struct cpu_attention *attention = step->backend->attention;
    struct attention_run run = {
        .step = step,
        .args = args,
        .attention = attention,
        .stride = stride_of(args->head_size),
        .group = args->head_count / args->kv_head_count,
    };
    uint32_t run_count = 0; /* of query rows: a task each and KV head */
    bool folds = false;

    run.tile_rows = ATTENTION_COLUMN_MAX / run.group;
    CHECK(plan->partial_count <= step->backend->settings.partial_count_max);
    CHECK(plan->item_count <= plan->partial_count);
    for (uint32_t i = 0; i < plan->item_count; i++) {
        const struct plan_item *item = &plan->items[i];
        CHECK(item->begin % ATTENTION_BLOCK_TOKENS == 0);
        CHECK(item->end > item->begin);
        CHECK(item->end - item->begin <= ATTENTION_BLOCK_TOKENS);
        CHECK(item->partial_first + item->row_count <= plan->partial_count);
        attention->item_tasks[i] = run_count;
        run_count += (item->row_count + run.tile_rows - 1) / run.tile_rows;
    }
    attention->item_tasks[plan->item_count] = run_count;
    run.task_count = run_count * args->kv_head_count;
    for (uint32_t i = 0; i < plan->row_count; i++) {
        folds = folds || plan->rows[i].partial_count > 1;
    }
    pool_run(step->backend->pool, attend, &run, run.task_count);
    if (folds) {
        pool_run(step->backend->pool, fold_row, &run, plan->row_count);
    }
}
