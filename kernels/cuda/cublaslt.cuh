/* Products by NVIDIA's cuBLASLt, where the machine has it: nothing here is linked with it.
 *
 * One algorithm computes all numbers of rows of a shape: it is chosen once, by `./dev gpu`, which
 * looks whether a row's bits depend on the others, and stands in the table of providers as the
 * library's own words, which are good for one version of it alone. Algorithms that split K are
 * passed over.
 *
 * Thread: the engine thread. Ownership: what cublaslt_open gives is closed before its device.
 */
#ifndef PERSONAD_KERNELS_CUDA_CUBLASLT_CUH
#define PERSONAD_KERNELS_CUDA_CUBLASLT_CUH

#include "kernels/cuda/cublaslt_api.h"
#include "kernels/cuda/device.h"

enum {
    CUBLASLT_WORKSPACE_BYTES = 32 * 1024 * 1024, /* that an algorithm may want */
    CUBLASLT_CHOICE_COUNT_MAX = 16,
};

struct cublaslt;

/* sums[row][output] = sum over columns of weights[output][column] * activations[row][column], in
 * fp32 from bf16, or f16. No strides: rows follow each other. */
struct cublaslt_product {
    uint32_t outputs;
    uint32_t cols; /* a multiple of 64 */
    uint32_t rows;
    bool is_half; /* f16 */
};

/* libcublasLt.so.13 or .12 as the loader finds it, or the file that $PERSONAD_CUBLASLT names.
 * UNSUPPORTED: there is none, or it does not start. */
MUST_USE enum status cublaslt_open(struct device *device, struct error *error,
                                   struct cublaslt **out);
void cublaslt_close(struct cublaslt *library); /* NULL is fine */

/* 130101: 13.1.1 */
uint32_t cublaslt_version(const struct cublaslt *library);

/* At most `most` algorithms for the product, what the library thinks best first; one_chain: only
 * those that do not split K. */
MUST_USE enum status cublaslt_choose(struct cublaslt *library,
                                     const struct cublaslt_product *product, bool one_chain,
                                     uint32_t most, struct provider_algorithm *algorithms,
                                     uint32_t *out_count);

/* UNSUPPORTED: the algorithm is none of this library for that product, or wants more workspace. */
MUST_USE enum status cublaslt_check(struct cublaslt *library,
                                    const struct cublaslt_product *product,
                                    const struct provider_algorithm *algorithm);

/* Into the device's stream. `workspace` holds CUBLASLT_WORKSPACE_BYTES. DEVICE. */
MUST_USE enum status cublaslt_run(struct cublaslt *library, const struct cublaslt_product *product,
                                  const struct provider_algorithm *algorithm,
                                  const uint16_t *weights, const uint16_t *activations, float *sums,
                                  void *workspace);

#endif
