/* Rows in, tasks out. */
#include "kernels/cpu/product.h"

#include "base/check.h"

enum {
    /* Below this many floats a second thread's wake-up costs more than it saves. */
    FILL_INLINE_FLOATS = 8192,
    TASKS_A_THREAD = 4, /* enough that a thread which lost its core does not hold up the rest */
    TILES_A_TASK_MIN = 4,
};

struct fill {
    const struct cpu_kernels *kernels;
    const struct cpu_row_source *source;
    struct cpu_rows *rows;
};

/* A whole tile, whose blocks lie row beside row: parts of it would share cache lines. */
static void fill_tile(void *context, uint32_t task, uint32_t worker)
{
    const struct fill *fill = context;
    const struct cpu_row_source *source = fill->source;
    float *normed = fill->rows->rows + (uint64_t)worker * CPU_TILE_ROWS_MAX * fill->rows->cols_max;
    struct cpu_tile_part part = {
        .tile = task,
        .col_count = source->width,
        .stride = source->width,
    };
    struct cpu_tile tile;

    cpu_rows_tile(fill->rows, task, &tile);
    part.x = source->x + (uint64_t)tile.row_first * source->width;
    for (uint32_t r = 0; source->norm != NULL && r < tile.height; r++) {
        const uint32_t row = tile.row_first + r;
        const uint64_t index = source->row_indices == NULL ? row : source->row_indices[row];

        fill->kernels->rms_norm(source->x + index * source->width, source->norm, source->epsilon,
                                source->width, normed + (uint64_t)r * source->width);
        part.x = normed;
    }
    fill->kernels->pack(fill->rows, &part);
}

void cpu_rows_fill(const struct cpu_step *step, const struct cpu_row_source *source,
                   const struct backend_weight *const *weights, uint32_t weight_count)
{
    struct fill fill = {step->backend->kernels, source, step->program->rows};
    struct cpu_row_forms forms = {0};

    CHECK(source->row_indices == NULL || source->norm != NULL);
    for (uint32_t i = 0; i < weight_count; i++) {
        cpu_row_forms_add(&forms, weights[i]);
    }
    cpu_rows_begin(fill.rows, source->row_count, source->width, forms);
    if ((uint64_t)source->row_count * source->width <= FILL_INLINE_FLOATS) {
        for (uint32_t tile = 0; tile < fill.rows->tile_count; tile++) {
            fill_tile(&fill, tile, 0);
        }
        return;
    }
    pool_run(step->backend->pool, fill_tile, &fill, fill.rows->tile_count);
}

bool cpu_hidden_is_packed(const struct cpu_step *step)
{
    return step->op->joined != NULL && step->plan->row_count >= CPU_JOINED_ROWS_MIN;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t tasks_wanted(uint32_t thread_count)
{
    return thread_count == 1 ? 1 : thread_count * TASKS_A_THREAD;
}

/* Whether tiles alone are enough to cut. */
static bool shares_by_tiles(uint32_t tile_count, uint32_t thread_count)
{
    return tile_count / TILES_A_TASK_MIN >= tasks_wanted(thread_count);
}

void cpu_shares_init(struct cpu_shares *shares, uint32_t unit_count, uint32_t tile_count,
                     uint32_t thread_count)
{
    const uint32_t wanted = tasks_wanted(thread_count);

    shares->unit_count = unit_count;
    shares->tile_count = tile_count;
    if (shares_by_tiles(tile_count, thread_count)) {
        shares->unit_share_count = 1;
        shares->tile_share_count = wanted;
        return;
    }
    shares->unit_share_count = smaller(unit_count, wanted);
    shares->tile_share_count = smaller(tile_count, (wanted + unit_count - 1) / unit_count);
}

uint32_t cpu_shares_count(const struct cpu_shares *shares)
{
    return shares->unit_share_count * shares->tile_share_count;
}

void cpu_shares_get(const struct cpu_shares *shares, uint32_t task, struct cpu_share *out)
{
    const uint64_t unit = task / shares->tile_share_count;
    const uint64_t tile = task % shares->tile_share_count;

    out->unit_begin = (uint32_t)(unit * shares->unit_count / shares->unit_share_count);
    out->unit_end = (uint32_t)((unit + 1) * shares->unit_count / shares->unit_share_count);
    out->tile_begin = (uint32_t)(tile * shares->tile_count / shares->tile_share_count);
    out->tile_end = (uint32_t)((tile + 1) * shares->tile_count / shares->tile_share_count);
}

struct add {
    const struct cpu_step *step;
    const struct cpu_rows *rows;
    const struct backend_weight *weight;
    const float *bias;
    float *x;
    struct cpu_shares shares;
};

static void add_group(const struct add *add, uint32_t panel, uint32_t panel_count, uint32_t tile)
{
    float out[CPU_TILE_ROWS_MAX * CPU_PANEL_GROUP * CPU_PANEL_ROWS];
    const uint32_t stride = panel_count * CPU_PANEL_ROWS;
    const uint32_t first = panel * CPU_PANEL_ROWS;
    const uint32_t width = add->weight->rows;
    const uint32_t count = smaller(stride, width - first);
    struct cpu_tile rows;

    cpu_rows_tile(add->rows, tile, &rows);
    add->step->backend->kernels->matmul(add->weight, panel, panel_count, &rows, out);
    for (uint32_t r = 0; r < rows.height; r++) {
        const float *from = out + (uint64_t)r * stride;
        float *x = add->x + (uint64_t)(rows.row_first + r) * width + first;

        for (uint32_t c = 0; c < count; c++) {
            x[c] += add->bias == NULL ? from[c] : from[c] + add->bias[first + c];
        }
    }
}

static void add_task(void *context, uint32_t task, uint32_t worker)
{
    const struct add *add = context;
    struct cpu_share share;

    (void)worker;
    cpu_shares_get(&add->shares, task, &share);
    for (uint32_t p = share.unit_begin; p < share.unit_end; p += CPU_PANEL_GROUP) {
        for (uint32_t t = share.tile_begin; t < share.tile_end; t++) {
            add_group(add, p, smaller(CPU_PANEL_GROUP, share.unit_end - p), t);
        }
    }
}

void cpu_product_add(const struct cpu_step *step, const struct cpu_rows *rows,
                     const struct backend_weight *weight, const float *bias, float *x)
{
    struct add add = {.step = step, .rows = rows, .weight = weight, .bias = bias, .x = x};

    cpu_shares_init(&add.shares, weight->panel_count, rows->tile_count,
                    step->backend->thread_count);
    pool_run(step->backend->pool, add_task, &add, cpu_shares_count(&add.shares));
}

enum status cpu_product_check(struct cpu_rows *packed, const char *what,
                              const struct backend_weight *weight, uint32_t rows, uint32_t cols,
                              struct error *error)
{
    CHECK(weight != NULL);
    if (weight->rows != rows || weight->cols != cols) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s has %u rows of %u columns where the model needs %u of %u", what,
                         weight->rows, weight->cols, rows, cols);
    }
    if (cpu_rows_reserve(packed, cols) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory for the rows of %s", what);
    }
    return STATUS_OK;
}
