/* Norm, QKV, rotation and KV append. Maths and shapes: struct attn_in_args in backend.h.
 *
 * A unit of work is one head of Q, K or V (or as many heads as fill whole panels), so that a head
 * is normed, rotated and stored by the worker that multiplied it, with no barrier in between.
 */
#include <string.h>

#include "base/check.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/rows_scalar.h"

enum {
    HEAD_SIZE_STEP = 8,
    CACHE_LINE_BYTES = 64,
    UNIT_FLOATS_MAX = 2 * BACKEND_HEAD_SIZE_MAX, /* two heads where one is no whole panels */
};

enum part { PART_Q, PART_K, PART_V };

static enum status check_shape(const struct attn_in_args *args, struct error *error)
{
    if (args->head_size == 0 || args->head_size % HEAD_SIZE_STEP != 0 ||
        args->head_size > BACKEND_HEAD_SIZE_MAX) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "heads of %u values: the CPU backend needs a multiple of %d, at most %d",
                         args->head_size, HEAD_SIZE_STEP, BACKEND_HEAD_SIZE_MAX);
    }
    if (2 * args->rope_pair_count > args->head_size) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%u rotated pairs do not fit a head of %u values", args->rope_pair_count,
                         args->head_size);
    }
    return STATUS_OK;
}

/* The program's table for this set of frequencies, made at its first use. */
static enum status add_angles(struct backend_program *program, const struct attn_in_args *args,
                              struct error *error)
{
    for (uint32_t i = 0; i < program->angles_count; i++) {
        if (program->angles[i].inverse_frequency == args->inverse_frequency &&
            program->angles[i].pair_count == args->rope_pair_count) {
            return STATUS_OK;
        }
    }
    if (program->angles_count == CPU_ANGLE_TABLE_COUNT_MAX) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "more than %d different sets of rotation frequencies",
                         CPU_ANGLE_TABLE_COUNT_MAX);
    }
    return cpu_angles_create(program, args->inverse_frequency, args->rope_pair_count, error);
}

enum status cpu_attn_in(struct backend_program *program, const struct attn_in_args *args,
                        struct error *error)
{
    const uint32_t width = args->wq->cols;
    struct cpu_op *op;

    CHECK(args->x != NULL && args->q != NULL && args->kv != NULL && args->norm != NULL);
    CHECK(args->inverse_frequency != NULL || args->rope_pair_count == 0);
    CHECK(args->kv->shape.head_size == args->head_size);
    CHECK(args->kv->shape.kv_head_count == args->kv_head_count);
    CHECK(args->layer < args->kv->shape.layer_count);
    TRY(check_shape(args, error));
    TRY(cpu_product_check(program->rows, "the query matrix", args->wq,
                          args->head_count * args->head_size, width, error));
    TRY(cpu_product_check(program->rows, "the key matrix", args->wk,
                          args->kv_head_count * args->head_size, width, error));
    TRY(cpu_product_check(program->rows, "the value matrix", args->wv,
                          args->kv_head_count * args->head_size, width, error));
    if (args->norm->float_count != width) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "the attention norm has %llu values where the model is %u wide",
                         (unsigned long long)args->norm->float_count, width);
    }
    TRY(add_angles(program, args, error));
    TRY(cpu_program_push(program, CPU_OP_attn_in, error, &op));
    op->args.attn_in = *args;
    return STATUS_OK;
}

struct run {
    const struct cpu_step *step;
    const struct attn_in_args *args;
    const struct cpu_angles *angles;
    uint32_t heads_a_unit;
    uint32_t kv_unit_count; /* these come first: K and V of a head are twice the work of a Q */
    struct cpu_shares shares;
};

/* One part (Q, K or V) as far as it matters to a head. */
struct part_view {
    const struct backend_weight *weight;
    const float *bias;
    const float *head_norm;
};

static void view_part(const struct attn_in_args *args, enum part part, struct part_view *out)
{
    const struct backend_buffer *const biases[] = {args->bq, args->bk, args->bv};
    const struct backend_weight *const weights[] = {args->wq, args->wk, args->wv};
    const struct backend_buffer *const norms[] = {args->q_norm, args->k_norm, NULL};

    out->weight = weights[part];
    out->bias = biases[part] == NULL ? NULL : biases[part]->data;
    out->head_norm = norms[part] == NULL ? NULL : norms[part]->data;
}

/* Bias, norm and rotation of one head of one row, in place. */
static void finish_head(const struct run *run, const struct part_view *view, enum part part,
                        uint32_t head, uint32_t row, float *values)
{
    const struct attn_in_args *args = run->args;
    const struct cpu_kernels *kernels = run->step->backend->kernels;
    const uint32_t size = args->head_size;
    const uint64_t angle = (uint64_t)row * args->rope_pair_count;

    if (view->bias != NULL) {
        for (uint32_t i = 0; i < size; i++) {
            values[i] += view->bias[(uint64_t)head * size + i];
        }
    }
    if (view->head_norm != NULL) {
        float normed[BACKEND_HEAD_SIZE_MAX];

        kernels->rms_norm(values, view->head_norm, args->epsilon, size, normed);
        memcpy(values, normed, size * sizeof(values[0]));
    }
    if (part != PART_V) {
        kernels->rotate(values, run->angles->cosines + angle, run->angles->sines + angle,
                        args->rope_pair_count, args->rope_style);
    }
}

static void multiply(const struct run *run, const struct part_view *view, uint32_t head_first,
                     uint32_t head_count, const struct cpu_tile *rows, float *out)
{
    const uint32_t first = head_first * run->args->head_size / CPU_PANEL_ROWS;
    const uint32_t floats = head_count * run->args->head_size;

    run->step->backend->kernels->matmul(view->weight, first,
                                        (floats + CPU_PANEL_ROWS - 1) / CPU_PANEL_ROWS, rows, out);
}

static uint32_t stride_of(const struct run *run, uint32_t head_count)
{
    const uint32_t floats = head_count * run->args->head_size;

    return (floats + CPU_PANEL_ROWS - 1) / CPU_PANEL_ROWS * CPU_PANEL_ROWS;
}

static void run_q(const struct run *run, uint32_t head_first, uint32_t head_count,
                  const struct cpu_tile *rows)
{
    const struct attn_in_args *args = run->args;
    const uint32_t stride = stride_of(run, head_count);
    float out[CPU_TILE_ROWS_MAX * UNIT_FLOATS_MAX];
    struct part_view view;

    view_part(args, PART_Q, &view);
    multiply(run, &view, head_first, head_count, rows, out);
    for (uint32_t r = 0; r < rows->height; r++) {
        const uint32_t row = rows->row_first + r;
        float *values = out + (uint64_t)r * stride;

        for (uint32_t h = 0; h < head_count; h++) {
            finish_head(run, &view, PART_Q, head_first + h, row,
                        values + (size_t)h * args->head_size);
        }
        memcpy(args->q->data + ((uint64_t)row * args->head_count + head_first) * args->head_size,
               values, (size_t)head_count * args->head_size * sizeof(values[0]));
    }
}

static uint32_t page_of(const struct plan *plan, uint32_t row)
{
    const struct plan_row *at = &plan->rows[row];

    return plan->pages[at->page_first + at->position / KV_PAGE_TOKEN_COUNT];
}

/* Asks for the lines that a head's keys and values of these rows go to, while they are computed: of
 * many branches they lie in no cache, a line for each two dimensions of a key. */
static void prefetch_head(const struct run *run, uint32_t head, const struct cpu_tile *rows)
{
    const struct plan *plan = run->step->plan;
    const size_t k_bytes = (size_t)run->args->head_size * KV_PAGE_TOKEN_COUNT * sizeof(uint16_t);
    /* A line of values is a position's, or a pair of positions'. */
    const size_t v_slots = run->args->kv->is_paired ? 2 : 1;
    const size_t v_bytes = v_slots * run->args->head_size * sizeof(uint16_t);
    uint32_t last_page = UINT32_MAX;

    for (uint32_t r = 0; r < rows->height; r++) {
        const struct plan_row *at = &plan->rows[rows->row_first + r];
        uint32_t page;

        if (at->writes_kv == 0) {
            continue;
        }
        page = page_of(plan, rows->row_first + r);
        if (page != last_page) {
            const uint16_t *k = cpu_kv_k(run->args->kv, run->args->layer, head, page);

            for (size_t i = 0; i < k_bytes; i += CACHE_LINE_BYTES) {
                __builtin_prefetch((const char *)k + i, 1, 2);
            }
        }
        last_page = page;
        const char *v = (const char *)(cpu_kv_v(run->args->kv, run->args->layer, head, page) +
                                       (size_t)(at->position % KV_PAGE_TOKEN_COUNT) / v_slots *
                                           v_slots * run->args->head_size);
        for (size_t i = 0; i < v_bytes; i += CACHE_LINE_BYTES) {
            __builtin_prefetch(v + i, 1, 2);
        }
    }
}

static void append_head(const struct run *run, uint32_t head, uint32_t row, uint32_t worker,
                        const float *k, const float *v)
{
    const struct backend *backend = run->step->backend;
    const struct plan *plan = run->step->plan;
    const struct plan_row *at = &plan->rows[row];
    uint8_t *faults = backend->worker_faults + (uint64_t)worker * backend->settings.row_count_max;

    if (at->writes_kv == 0) {
        return;
    }
    cpu_kv_append(backend->kernels, run->args->kv, run->args->layer, head, page_of(plan, row),
                  at->position % KV_PAGE_TOKEN_COUNT, k, v, &faults[row]);
}

static void run_kv(const struct run *run, uint32_t head_first, uint32_t head_count,
                   const struct cpu_tile *rows, uint32_t worker)
{
    const uint32_t size = run->args->head_size;
    const uint32_t stride = stride_of(run, head_count);
    float k[CPU_TILE_ROWS_MAX * UNIT_FLOATS_MAX], v[CPU_TILE_ROWS_MAX * UNIT_FLOATS_MAX];
    struct part_view k_view, v_view;

    view_part(run->args, PART_K, &k_view);
    view_part(run->args, PART_V, &v_view);
    for (uint32_t h = 0; h < head_count; h++) {
        prefetch_head(run, head_first + h, rows);
    }
    multiply(run, &k_view, head_first, head_count, rows, k);
    multiply(run, &v_view, head_first, head_count, rows, v);
    for (uint32_t r = 0; r < rows->height; r++) {
        const uint32_t row = rows->row_first + r;

        for (uint32_t h = 0; h < head_count; h++) {
            float *k_head = k + (uint64_t)r * stride + (uint64_t)h * size;
            float *v_head = v + (uint64_t)r * stride + (uint64_t)h * size;

            finish_head(run, &k_view, PART_K, head_first + h, row, k_head);
            finish_head(run, &v_view, PART_V, head_first + h, row, v_head);
            append_head(run, head_first + h, row, worker, k_head, v_head);
        }
    }
}

static void run_unit(const struct run *run, uint32_t unit, const struct cpu_tile *rows,
                     uint32_t worker)
{
    const bool is_q = unit >= run->kv_unit_count;
    const uint32_t head_count = is_q ? run->args->head_count : run->args->kv_head_count;
    const uint32_t head_first = (is_q ? unit - run->kv_unit_count : unit) * run->heads_a_unit;
    const uint32_t left = head_count - head_first;
    const uint32_t count = left < run->heads_a_unit ? left : run->heads_a_unit;

    if (is_q) {
        run_q(run, head_first, count, rows);
    } else {
        run_kv(run, head_first, count, rows, worker);
    }
}

static void run_task(void *context, uint32_t task, uint32_t worker)
{
    const struct run *run = context;
    struct cpu_share share;

    cpu_shares_get(&run->shares, task, &share);
    for (uint32_t u = share.unit_begin; u < share.unit_end; u++) {
        for (uint32_t t = share.tile_begin; t < share.tile_end; t++) {
            struct cpu_tile rows;

            cpu_rows_tile(run->step->program->rows, t, &rows);
            run_unit(run, u, &rows, worker);
        }
    }
}

static const struct cpu_angles *find_angles(const struct cpu_step *step,
                                            const struct attn_in_args *args)
{
    const struct backend_program *program = step->program;

    for (uint32_t i = 0; i < program->angles_count; i++) {
        if (program->angles[i].inverse_frequency == args->inverse_frequency &&
            program->angles[i].pair_count == args->rope_pair_count) {
            return &program->angles[i];
        }
    }
    CHECK(!"angles are made when the operation is recorded");
    return NULL;
}

void cpu_attn_in_run(const struct cpu_step *step, const struct attn_in_args *args)
{
    const struct backend_weight *const weights[] = {args->wq, args->wk, args->wv};
    const struct cpu_row_source source = {
        .x = args->x->data,
        .norm = args->norm->data,
        .epsilon = args->epsilon,
        .width = args->wq->cols,
        .row_count = step->plan->row_count,
    };
    struct run run = {.step = step, .args = args};
    uint32_t q_unit_count;

    if (source.row_count == 0) {
        return;
    }
    run.angles = find_angles(step, args);
    run.heads_a_unit = args->head_size % CPU_PANEL_ROWS == 0 ? 1 : 2;
    run.kv_unit_count = (args->kv_head_count + run.heads_a_unit - 1) / run.heads_a_unit;
    q_unit_count = (args->head_count + run.heads_a_unit - 1) / run.heads_a_unit;
    cpu_rows_fill(step, &source, weights, 3);
    cpu_shares_init(&run.shares, run.kv_unit_count + q_unit_count, step->program->rows->tile_count,
                    step->backend->thread_count);
    pool_run(step->backend->pool, run_task, &run, cpu_shares_count(&run.shares));
}
