/* What is called of NVIDIA's cuBLASLt, which is opened at run time: its functions, and the numbers
 * of its header that they take. They are the same in versions 12 and 13; where a header is found,
 * the test cuda_cublaslt_api compares them with it.
 *
 * Thread: pure declarations. Reads as C11 and as C++17. Statuses are 0 for success.
 */
#ifndef PERSONAD_KERNELS_CUDA_CUBLASLT_API_H
#define PERSONAD_KERNELS_CUDA_CUBLASLT_API_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/provider_table.h"

enum {
    CUBLASLT_COMPUTE_FLOAT = 68, /* fp32 sums */
    CUBLASLT_TYPE_FLOAT = 0,
    CUBLASLT_TYPE_HALF = 2,
    CUBLASLT_TYPE_BF16 = 14,

    CUBLASLT_DESC_TRANSPOSE_A = 3, /* int32: CUBLASLT_TRANSPOSED */
    CUBLASLT_TRANSPOSED = 1,
    CUBLASLT_PREFERENCE_WORKSPACE_MAX = 1, /* uint64 */
    CUBLASLT_CONFIG_SPLIT_K = 2,           /* int32 */
    CUBLASLT_CONFIG_REDUCTION = 3,         /* uint32: 0, none */
};

struct cublaslt_found {
    struct provider_algorithm algorithm;
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
};

/* Handles and descriptions are pointers to what only the library knows. */
#define CUBLASLT_FUNCTION_MAP(X)                                                                   \
    X(size_t, GetVersion, (void))                                                                  \
    X(int, Create, (void **handle))                                                                \
    X(int, Destroy, (void *handle))                                                                \
    X(int, MatmulDescCreate, (void **description, int compute, int scale))                         \
    X(int, MatmulDescDestroy, (void *description))                                                 \
    X(int, MatmulDescSetAttribute, (void *description, int which, const void *value, size_t size)) \
    X(int, MatrixLayoutCreate,                                                                     \
      (void **layout, int type, uint64_t rows, uint64_t cols, int64_t stride))                     \
    X(int, MatrixLayoutDestroy, (void *layout))                                                    \
    X(int, MatmulPreferenceCreate, (void **preference))                                            \
    X(int, MatmulPreferenceDestroy, (void *preference))                                            \
    X(int, MatmulPreferenceSetAttribute,                                                           \
      (void *preference, int which, const void *value, size_t size))                               \
    X(int, MatmulAlgoGetHeuristic,                                                                 \
      (void *handle, void *description, void *a, void *b, void *c, void *d, void *preference,      \
       int wanted, struct cublaslt_found *found, int *count))                                      \
    X(int, MatmulAlgoConfigGetAttribute,                                                           \
      (const struct provider_algorithm *algorithm, int which, void *value, size_t size,            \
       size_t *written))                                                                           \
    X(int, MatmulAlgoCheck,                                                                        \
      (void *handle, void *description, void *a, void *b, void *c, void *d,                        \
       const struct provider_algorithm *algorithm, struct cublaslt_found *found))                  \
    X(int, Matmul,                                                                                 \
      (void *handle, void *description, const void *alpha, const void *a, void *a_layout,          \
       const void *b, void *b_layout, const void *beta, const void *c, void *c_layout, void *d,    \
       void *d_layout, const struct provider_algorithm *algorithm, void *workspace,                \
       size_t workspace_bytes, void *stream))

#endif
