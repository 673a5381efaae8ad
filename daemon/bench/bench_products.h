/* The matrix products of a model's steps: which matrices are multiplied at once, each shape once.
 *
 * Thread: any, no state.
 */
#ifndef PERSONAD_BENCH_BENCH_PRODUCTS_H
#define PERSONAD_BENCH_BENCH_PRODUCTS_H

#include "base/error.h"
#include "base/status.h"
#include "kernels/backend.h"
#include "model/model.h"
#include "model/tensor.h"

enum { BENCH_PRODUCT_COUNT_MAX = 16, BENCH_PRODUCT_PARTS_MAX = 3 };

struct bench_product {
    const char *name;                                          /* "q, k, v" */
    const struct model_tensor *parts[BENCH_PRODUCT_PARTS_MAX]; /* borrowed from the model */
    uint32_t part_count;
    uint32_t dtype, outputs, cols; /* outputs of all parts */
    bool of_samples;               /* its rows are those that are sampled */
};

/* Those whose parts are of one type: others are never but mma's. Gives how many. */
uint32_t bench_products_find(const struct model *model,
                             struct bench_product products[BENCH_PRODUCT_COUNT_MAX]);

/* The parts as one matrix; free out->data with memory_free(). */
MUST_USE enum status bench_product_read(const struct model *model,
                                        const struct bench_product *product, struct error *error,
                                        struct weight_source *out);

#endif
