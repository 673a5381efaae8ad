#include "support/reference_forward.h"

#include <math.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"
#include "kernels/steps/math.h"
#include "model/model_file.h"

struct reference_tensor {
    double *values; /* owned; NULL when the file has none */
    uint32_t rows, cols;
    bool quantised;
    bool bf16;
};

struct reference {
    const struct model *model;
    bool rounded;
    struct reference_tensor base[TENSOR_LAYER_FIRST];
    struct reference_tensor (*layers)[TENSOR_ROLE_COUNT]; /* owned */
};

static void *reference_alloc(size_t count, size_t bytes)
{
    void *memory = memory_alloc(count, bytes);

    CHECK(memory != NULL);
    return memory;
}

static void reference_load(const struct model *model, enum tensor_role role, uint32_t layer,
                           struct reference_tensor *out)
{
    const struct model_tensor *tensor = model_file_tensor(model_file(model), role, layer);

    if (tensor == NULL) {
        return;
    }
    out->cols = (uint32_t)tensor->dimensions[0];
    out->rows = (uint32_t)tensor->dimensions[1];
    out->quantised = dtype_block_elements(tensor->dtype) > 1;
    out->bf16 = tensor->dtype == DTYPE_BF16;
    out->values = reference_alloc((size_t)out->rows * out->cols, sizeof(double));
    uint8_t *bytes = reference_alloc(1, tensor->size_bytes);
    float *row = reference_alloc(out->cols, sizeof(float));
    CHECK(model_file_tensor_read(model_file(model), tensor, NULL, bytes) == STATUS_OK);
    for (uint32_t i = 0; i < out->rows; i++) {
        dtype_dequantize_row(tensor->dtype, bytes + i * (tensor->size_bytes / out->rows), out->cols,
                             row);
        for (uint32_t j = 0; j < out->cols; j++) {
            out->values[(size_t)i * out->cols + j] = (double)row[j];
        }
    }
    memory_free(bytes);
    memory_free(row);
}

struct reference *reference_create(const struct model *model, bool rounded)
{
    struct reference *reference = reference_alloc(1, sizeof(*reference));
    const uint32_t layer_count = model_config(model)->layer_count;

    reference->model = model;
    reference->rounded = rounded;
    reference->layers = reference_alloc(layer_count, sizeof(*reference->layers));
    for (int role = 0; role < TENSOR_LAYER_FIRST; role++) {
        reference_load(model, role, 0, &reference->base[role]);
    }
    for (uint32_t layer = 0; layer < layer_count; layer++) {
        for (int role = TENSOR_LAYER_FIRST; role < TENSOR_ROLE_COUNT; role++) {
            reference_load(model, role, layer, &reference->layers[layer][role]);
        }
    }
    return reference;
}

void reference_destroy(struct reference *reference)
{
    if (reference == NULL) {
        return;
    }
    for (int role = 0; role < TENSOR_LAYER_FIRST; role++) {
        memory_free(reference->base[role].values);
    }
    for (uint32_t layer = 0; layer < model_config(reference->model)->layer_count; layer++) {
        for (int role = TENSOR_LAYER_FIRST; role < TENSOR_ROLE_COUNT; role++) {
            memory_free(reference->layers[layer][role].values);
        }
    }
    memory_free(reference->layers);
    memory_free(reference);
}

/* ---- pieces ---- */

static void reference_round_int8(double *x, uint32_t count)
{
    for (uint32_t begin = 0; begin < count; begin += 32) {
        double largest = 0;
        for (uint32_t i = begin; i < begin + 32; i++) {
            largest = fabs(x[i]) > largest ? fabs(x[i]) : largest;
        }
        for (uint32_t i = begin; largest > 0 && i < begin + 32; i++) {
            x[i] = rint(x[i] / (largest / 127)) * (largest / 127);
        }
    }
}

static void reference_round_bf16(double *x, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        x[i] = (double)steps_float_from_bf16(steps_bf16_from_float((float)x[i]));
    }
}

/* out = W x + bias */
static void reference_product(const struct reference *reference,
                              const struct reference_tensor *weight,
                              const struct reference_tensor *bias, const double *x, double *out)
{
    double *input = reference_alloc(weight->cols, sizeof(double));

    memcpy(input, x, weight->cols * sizeof(double));
    if (reference->rounded && weight->quantised) {
        reference_round_int8(input, weight->cols);
    }
    if (reference->rounded && weight->bf16) {
        reference_round_bf16(input, weight->cols);
    }
    for (uint32_t row = 0; row < weight->rows; row++) {
        const double *w = weight->values + (size_t)row * weight->cols;
        double sum = bias == NULL || bias->values == NULL ? 0 : bias->values[row];
        for (uint32_t col = 0; col < weight->cols; col++) {
            sum += w[col] * input[col];
        }
        out[row] = sum;
    }
    memory_free(input);
}

static void reference_norm(const struct reference_tensor *weight, double epsilon, const double *x,
                           double *out)
{
    double sum = 0;

    for (uint32_t i = 0; i < weight->cols; i++) {
        sum += x[i] * x[i];
    }
    for (uint32_t i = 0; i < weight->cols; i++) {
        out[i] = x[i] / sqrt(sum / weight->cols + epsilon) * weight->values[i];
    }
}

static void reference_rotate(const struct model_config *config, uint32_t position,
                             uint32_t head_count, double *x)
{
    const uint32_t pairs = config->rope_pair_count;

    for (uint32_t head = 0; head < head_count; head++, x += config->head_size) {
        for (uint32_t i = 0; i < pairs; i++) {
            const bool adjacent = config->rope_style == ROPE_ADJACENT;
            double *a = x + (adjacent ? 2 * i : i);
            double *b = x + (adjacent ? 2 * i + 1 : i + pairs);
            const double angle = position * config->inverse_frequency[i];
            const double first = *a * cos(angle) - *b * sin(angle);
            *b = *a * sin(angle) + *b * cos(angle);
            *a = first;
        }
    }
}

static void reference_round_half(const struct reference *reference, uint32_t count, double *x)
{
    for (uint32_t i = 0; reference->rounded && i < count; i++) {
        x[i] = (double)steps_float_from_half(steps_half_from_float((float)x[i]));
    }
}

/* One head's query over `count` keys that lie `stride` apart. */
static void reference_attend(const struct model_config *config, const double *q, const double *k,
                             const double *v, uint32_t count, uint32_t stride, double *out)
{
    double *scores = reference_alloc(count, sizeof(double));
    double largest = -INFINITY;
    double sum = 0;

    for (uint32_t t = 0; t < count; t++) {
        for (uint32_t i = 0; i < config->head_size; i++) {
            scores[t] += q[i] * k[(size_t)t * stride + i];
        }
        scores[t] *= (double)config->attention_scale;
        largest = scores[t] > largest ? scores[t] : largest;
    }
    memset(out, 0, config->head_size * sizeof(double));
    for (uint32_t t = 0; t < count; t++) {
        const double weight = exp(scores[t] - largest);
        sum += weight;
        for (uint32_t i = 0; i < config->head_size; i++) {
            out[i] += weight * v[(size_t)t * stride + i];
        }
    }
    for (uint32_t i = 0; i < config->head_size; i++) {
        out[i] /= sum;
    }
    memory_free(scores);
}

/* ---- the pass ---- */

/* One position's state, and the keys and values of one layer. */
struct reference_work {
    double *n, *q, *a, *o, *g, *u;
    double *k, *v; /* [count][kv_head_count * head_size] */
};

static void reference_block(const struct reference *reference, uint32_t layer, uint32_t position,
                            const struct reference_work *work, double *x)
{
    const struct model_config *config = model_config(reference->model);
    const struct reference_tensor *tensors = reference->layers[layer];
    const double epsilon = (double)config->norm_epsilon;
    const uint32_t stride = config->kv_head_count * config->head_size;
    const uint32_t group = config->head_count / config->kv_head_count;
    double *k = work->k + (size_t)position * stride;
    double *v = work->v + (size_t)position * stride;

    reference_norm(&tensors[TENSOR_ATTN_NORM], epsilon, x, work->n);
    reference_product(reference, &tensors[TENSOR_Q], &tensors[TENSOR_Q_BIAS], work->n, work->q);
    reference_product(reference, &tensors[TENSOR_K], &tensors[TENSOR_K_BIAS], work->n, k);
    reference_product(reference, &tensors[TENSOR_V], &tensors[TENSOR_V_BIAS], work->n, v);
    reference_rotate(config, position, config->head_count, work->q);
    reference_rotate(config, position, config->kv_head_count, k);
    reference_round_half(reference, stride, k);
    reference_round_half(reference, stride, v);
    for (uint32_t head = 0; head < config->head_count; head++) {
        const size_t from = (size_t)(head / group) * config->head_size;
        const size_t own = (size_t)head * config->head_size;
        reference_attend(config, work->q + own, work->k + from, work->v + from, position + 1,
                         stride, work->a + own);
    }
    reference_product(reference, &tensors[TENSOR_ATTN_OUT], &tensors[TENSOR_ATTN_OUT_BIAS], work->a,
                      work->o);
    for (uint32_t i = 0; i < config->width; i++) {
        x[i] += work->o[i];
    }
    reference_norm(&tensors[TENSOR_FFN_NORM], epsilon, x, work->n);
    reference_product(reference, &tensors[TENSOR_FFN_GATE], NULL, work->n, work->g);
    reference_product(reference, &tensors[TENSOR_FFN_UP], NULL, work->n, work->u);
    for (uint32_t i = 0; i < config->hidden; i++) {
        work->g[i] = work->g[i] / (1 + exp(-work->g[i])) * work->u[i];
    }
    reference_product(reference, &tensors[TENSOR_FFN_DOWN], NULL, work->g, work->o);
    for (uint32_t i = 0; i < config->width; i++) {
        x[i] += work->o[i];
    }
}

void reference_logits(struct reference *reference, const uint32_t *ids, uint32_t count,
                      double *logits)
{
    const struct model_config *config = model_config(reference->model);
    const struct reference_tensor *table = reference->base;
    const size_t query = (size_t)config->head_count * config->head_size;
    const size_t kv = (size_t)config->kv_head_count * config->head_size;
    const uint32_t width = config->width;
    double *x = reference_alloc((size_t)count * width, sizeof(double));
    double *room = reference_alloc(2 * query + 2 * (size_t)width + 2 * (size_t)config->hidden +
                                       2 * (size_t)count * kv,
                                   sizeof(double));
    struct reference_work work = {.n = room};

    work.o = work.n + width;
    work.q = work.o + width;
    work.a = work.q + query;
    work.g = work.a + query;
    work.u = work.g + config->hidden;
    work.k = work.u + config->hidden;
    work.v = work.k + count * kv;
    for (uint32_t t = 0; t < count; t++) {
        memcpy(x + (size_t)t * width, table[TENSOR_EMBEDDING].values + (size_t)ids[t] * width,
               width * sizeof(double));
    }
    for (uint32_t layer = 0; layer < config->layer_count; layer++) {
        for (uint32_t t = 0; t < count; t++) {
            reference_block(reference, layer, t, &work, x + (size_t)t * width);
        }
    }
    reference_norm(&table[TENSOR_OUTPUT_NORM], (double)config->norm_epsilon,
                   x + (size_t)(count - 1) * width, work.n);
    reference_product(reference, &table[config->tied ? TENSOR_EMBEDDING : TENSOR_OUTPUT], NULL,
                      work.n, logits);
    memory_free(x);
    memory_free(room);
}
