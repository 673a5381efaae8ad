/* Makes the weights, records the program, submits plans. */
#include "support/layer.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "support/random_weight.h"

static const uint32_t page_table[LAYER_PAGE_COUNT] = {3, 0, 6, 1, 7, 2, 5, 4};

uint32_t layer_width(const struct layer_shape *shape)
{
    return shape->head_count * shape->head_size;
}

static struct backend_weight *add_weight(struct layer *layer, uint64_t *state, uint32_t index,
                                         uint32_t rows, uint32_t cols)
{
    const uint32_t dtype = layer->shape.dtype;
    struct weight_source source = random_weight(state, dtype, rows, cols);
    const uint64_t row_bytes = source.size_bytes / rows;
    struct backend_weight *weight;

    CHECK(layer->ops->weight_load(layer->backend, &source, NULL, &weight) == STATUS_OK);
    layer->dense[index] = memory_alloc((size_t)rows * cols, sizeof(float));
    CHECK(layer->dense[index] != NULL);
    for (uint32_t r = 0; r < rows; r++) {
        dtype_dequantize_row(dtype, (const uint8_t *)source.data + r * row_bytes, cols,
                             layer->dense[index] + (size_t)r * cols);
    }
    memory_free((void *)(uintptr_t)source.data);
    return weight;
}

static struct backend_buffer *add_buffer(struct layer *layer, uint64_t count)
{
    struct backend_buffer *buffer;

    CHECK(layer->ops->buffer_create(layer->backend, count, NULL, &buffer) == STATUS_OK);
    return buffer;
}

/* A buffer of random values around `centre`; *copy keeps them. */
static struct backend_buffer *add_vector(struct layer *layer, uint64_t *state, uint32_t count,
                                         float centre, float **copy)
{
    struct backend_buffer *buffer = add_buffer(layer, count);

    *copy = memory_alloc(count, sizeof(float));
    CHECK(*copy != NULL);
    for (uint32_t i = 0; i < count; i++) {
        (*copy)[i] = centre + 0.25f * random_float(state);
    }
    CHECK(layer->ops->buffer_write(buffer, *copy, count) == STATUS_OK);
    return buffer;
}

static void record_attention(struct layer *layer, uint64_t *state)
{
    const struct layer_shape *shape = &layer->shape;
    const uint32_t width = layer_width(shape);
    const uint32_t kv_width = shape->kv_head_count * shape->head_size;
    struct attn_in_args in = {
        .x = layer->x,
        .q = layer->q,
        .kv = layer->kv,
        .layer = 1,
        .epsilon = LAYER_EPSILON,
        .head_count = shape->head_count,
        .kv_head_count = shape->kv_head_count,
        .head_size = shape->head_size,
        .rope_pair_count = shape->rope_pair_count,
        .rope_style = shape->rope_style,
        .inverse_frequency = layer->inverse_frequency,
    };
    struct attn_out_args out = {.x = layer->x, .a = layer->q};

    in.norm = add_vector(layer, state, width, 1.0f, &layer->norms[0]);
    in.wq = add_weight(layer, state, LAYER_WQ, width, width);
    in.wk = add_weight(layer, state, LAYER_WK, kv_width, width);
    in.wv = add_weight(layer, state, LAYER_WV, kv_width, width);
    out.wo = add_weight(layer, state, LAYER_WO, width, width);
    if (shape->biased) {
        in.bq = add_vector(layer, state, width, 0.0f, &layer->biases[0]);
        in.bk = add_vector(layer, state, kv_width, 0.0f, &layer->biases[1]);
        in.bv = add_vector(layer, state, kv_width, 0.0f, &layer->biases[2]);
        out.bo = add_vector(layer, state, width, 0.0f, &layer->biases[3]);
        in.q_norm = add_vector(layer, state, shape->head_size, 1.0f, &layer->head_norms[0]);
        in.k_norm = add_vector(layer, state, shape->head_size, 1.0f, &layer->head_norms[1]);
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct backend_program *program = i == 0 ? layer->until_h : layer->program;

        CHECK(layer->ops->op.attn_in(program, &in, NULL) == STATUS_OK);
        CHECK(layer->ops->op.attn_out(program, &out, NULL) == STATUS_OK);
    }
}

static void record_all(struct layer *layer, uint64_t *state)
{
    const struct layer_shape *shape = &layer->shape;
    const uint32_t width = layer_width(shape);
    struct embed_args embed = {.x = layer->x, .scale = 1.0f};
    struct ffn_in_args in = {.x = layer->x, .h = layer->h, .epsilon = LAYER_EPSILON};
    struct ffn_out_args out = {.x = layer->x, .h = layer->h};
    struct logits_args logits = {.x = layer->x, .logits = layer->logits, .epsilon = LAYER_EPSILON};

    embed.table = add_weight(layer, state, LAYER_TABLE, shape->vocabulary, width);
    CHECK(layer->ops->op.embed(layer->until_h, &embed, NULL) == STATUS_OK);
    CHECK(layer->ops->op.embed(layer->program, &embed, NULL) == STATUS_OK);
    record_attention(layer, state);
    in.norm = add_vector(layer, state, width, 1.0f, &layer->norms[1]);
    in.wg = add_weight(layer, state, LAYER_WG, shape->hidden, width);
    in.wu = add_weight(layer, state, LAYER_WU, shape->hidden, width);
    out.wd = add_weight(layer, state, LAYER_WD, width, shape->hidden);
    logits.norm = add_vector(layer, state, width, 1.0f, &layer->norms[2]);
    logits.table = embed.table;
    CHECK(layer->ops->op.ffn_in(layer->until_h, &in, NULL) == STATUS_OK);
    CHECK(layer->ops->op.ffn_in(layer->program, &in, NULL) == STATUS_OK);
    CHECK(layer->ops->op.ffn_out(layer->program, &out, NULL) == STATUS_OK);
    CHECK(layer->ops->op.logits(layer->program, &logits, NULL) == STATUS_OK);
}

enum status layer_init(struct layer *layer, const struct layer_shape *shape, const char *isa,
                       uint32_t thread_count, uint64_t seed)
{
    const uint32_t rows = LAYER_ROW_COUNT_MAX;
    const struct kv_shape kv = {2, shape->kv_head_count, shape->head_size, LAYER_PAGE_COUNT};
    const struct backend_settings settings = {
        .thread_count = thread_count,
        .row_count_max = rows,
        .sample_count_max = rows,
        .slot_count = 4,
        .history_tokens_max = 16,
        .vocabulary_count = shape->vocabulary,
        .partial_count_max = rows,
        .isa = isa,
        .precise = shape->precise,
    };
    uint64_t state = seed;

    memset(layer, 0, sizeof(*layer));
    layer->ops = &backend_cpu_ops;
    layer->shape = *shape;
    TRY(layer->ops->create(&settings, NULL, &layer->backend));
    CHECK(layer->ops->kv_create(layer->backend, &kv, NULL, &layer->kv) == STATUS_OK);
    CHECK(layer->ops->program_create(layer->backend, rows, NULL, &layer->program) == STATUS_OK);
    CHECK(layer->ops->program_create(layer->backend, rows, NULL, &layer->until_h) == STATUS_OK);
    layer->x = add_buffer(layer, (uint64_t)rows * layer_width(shape));
    layer->q = add_buffer(layer, (uint64_t)rows * layer_width(shape));
    layer->h = add_buffer(layer, (uint64_t)rows * shape->hidden);
    layer->logits = add_buffer(layer, (uint64_t)rows * shape->vocabulary);
    layer->inverse_frequency = memory_alloc(shape->rope_pair_count, sizeof(double));
    CHECK(layer->inverse_frequency != NULL);
    for (uint32_t i = 0; i < shape->rope_pair_count; i++) {
        layer->inverse_frequency[i] = pow(10000.0, -(double)i / shape->rope_pair_count);
    }
    record_all(layer, &state);
    return STATUS_OK;
}

void layer_finish(struct layer *layer)
{
    if (layer->backend == NULL) {
        return;
    }
    layer->ops->destroy(layer->backend);
    for (uint32_t i = 0; i < 8; i++) {
        memory_free(layer->dense[i]);
    }
    for (uint32_t i = 0; i < 3; i++) {
        memory_free(layer->norms[i]);
    }
    for (uint32_t i = 0; i < 4; i++) {
        memory_free(layer->biases[i]);
    }
    memory_free(layer->head_norms[0]);
    memory_free(layer->head_norms[1]);
    memory_free(layer->inverse_frequency);
    memset(layer, 0, sizeof(*layer));
}

void layer_run(struct layer *layer, uint32_t first, uint32_t count, uint8_t *faults)
{
    struct plan_row rows[LAYER_ROW_COUNT_MAX] = {0};
    uint32_t logits_rows[LAYER_ROW_COUNT_MAX];
    struct plan plan = {
        .row_count = count,
        .page_entry_count = LAYER_PAGE_COUNT,
        .logits_row_count = count,
        .rows = rows,
        .pages = page_table,
        .logits_rows = logits_rows,
    };
    struct step_result result;
    uint32_t ticket;

    for (uint32_t i = 0; i < count; i++) {
        rows[i].token = (7 * (first + i) + 1) % layer->shape.vocabulary;
        rows[i].position = 3 * (first + i);
        rows[i].writes_kv = 1;
        logits_rows[i] = i;
    }
    CHECK(layer->ops->step_submit(layer->until_h, &plan, &ticket) == STATUS_OK);
    CHECK(layer->ops->step_wait(layer->backend, ticket, &result) == STATUS_OK);
    CHECK(layer->ops->step_submit(layer->program, &plan, &ticket) == STATUS_OK);
    CHECK(layer->ops->step_wait(layer->backend, ticket, &result) == STATUS_OK);
    if (faults != NULL) {
        memcpy(faults, result.row_faults, count);
    }
}
