#include "bench/bench_products.h"

#include "base/check.h"
#include "base/memory.h"
#include "model/model_file.h"

enum { LAUNCH_COUNT = 5 };

/* The launches of a layer, and that of the logits. */
static const struct {
    const char *name;
    uint32_t part_count;
    enum tensor_role roles[BENCH_PRODUCT_PARTS_MAX];
} launches[LAUNCH_COUNT] = {
    {"q, k, v", 3, {TENSOR_Q, TENSOR_K, TENSOR_V}},
    {"attention output", 1, {TENSOR_ATTN_OUT}},
    {"gate, up", 2, {TENSOR_FFN_GATE, TENSOR_FFN_UP}},
    {"down", 1, {TENSOR_FFN_DOWN}},
    {"logits", 1, {TENSOR_OUTPUT}},
};

/* False where a tensor is missing or the types differ. */
static bool product_make(const struct model_file *file, uint32_t launch, uint32_t layer,
                         struct bench_product *out)
{
    struct bench_product product = {
        .name = launches[launch].name,
        .part_count = launches[launch].part_count,
        .of_samples = launches[launch].roles[0] == TENSOR_OUTPUT,
    };

    for (uint32_t i = 0; i < product.part_count; i++) {
        const struct model_tensor *part = model_file_tensor(file, launches[launch].roles[i], layer);
        if (part == NULL && product.of_samples) {
            part = model_file_tensor(file, TENSOR_EMBEDDING, 0); /* tied */
        }
        if (part == NULL || part->size_bytes == 0 || (i > 0 && part->dtype != product.dtype)) {
            return false;
        }
        product.parts[i] = part;
        product.dtype = part->dtype;
        product.cols = (uint32_t)part->dimensions[0];
        product.outputs += (uint32_t)part->dimensions[1];
    }
    *out = product;
    return true;
}

static bool is_new(const struct bench_product *products, uint32_t count,
                   const struct bench_product *product)
{
    for (uint32_t i = 0; i < count; i++) {
        if (products[i].dtype == product->dtype && products[i].outputs == product->outputs &&
            products[i].cols == product->cols) {
            return false;
        }
    }
    return true;
}

uint32_t bench_products_find(const struct model *model,
                             struct bench_product products[BENCH_PRODUCT_COUNT_MAX])
{
    const struct model_file *file = model_file(model);
    const uint32_t layer_count = model_config(model)->layer_count;
    uint32_t count = 0;

    for (uint32_t layer = 0; layer < layer_count; layer++) {
        for (uint32_t launch = 0; launch < LAUNCH_COUNT; launch++) {
            struct bench_product product;
            if (count < BENCH_PRODUCT_COUNT_MAX && product_make(file, launch, layer, &product) &&
                is_new(products, count, &product)) {
                products[count++] = product;
            }
        }
    }
    return count;
}

enum status bench_product_read(const struct model *model, const struct bench_product *product,
                               struct error *error, struct weight_source *out)
{
    uint64_t size_bytes = 0, at = 0;

    for (uint32_t i = 0; i < product->part_count; i++) {
        size_bytes += product->parts[i]->size_bytes;
    }
    uint8_t *data = memory_alloc_aligned(64, size_bytes, 1);
    if (data == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a matrix of %llu MiB",
                         (unsigned long long)(size_bytes >> 20));
    }
    for (uint32_t i = 0; i < product->part_count; i++) {
        const enum status status =
            model_file_tensor_read(model_file(model), product->parts[i], error, data + at);
        if (status != STATUS_OK) {
            memory_free(data);
            return status;
        }
        at += product->parts[i]->size_bytes;
    }
    *out = (struct weight_source){
        .name = product->name,
        .dtype = product->dtype,
        .rows = product->outputs,
        .cols = product->cols,
        .data = data,
        .size_bytes = size_bytes,
    };
    return STATUS_OK;
}
