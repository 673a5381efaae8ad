/* Goal: what kernels/cuda/cublaslt_api.h says of cuBLASLt is what NVIDIA's header says.
 * Method: compiled, not run, where CUDA's headers have it: numbers and sizes are compared, and each
 * function is called with what the program gives it.
 */
#include <cublasLt.h>

#include "kernels/cuda/cublaslt_api.h"

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #ours " is " #theirs)

SAME(CUBLASLT_COMPUTE_FLOAT, CUBLAS_COMPUTE_32F);
SAME(CUBLASLT_TYPE_FLOAT, CUDA_R_32F);
SAME(CUBLASLT_TYPE_HALF, CUDA_R_16F);
SAME(CUBLASLT_TYPE_BF16, CUDA_R_16BF);
SAME(CUBLASLT_DESC_TRANSPOSE_A, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(CUBLASLT_TRANSPOSED, CUBLAS_OP_T);
SAME(CUBLASLT_PREFERENCE_WORKSPACE_MAX, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(CUBLASLT_CONFIG_SPLIT_K, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
SAME(CUBLASLT_CONFIG_REDUCTION, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
SAME(0, CUBLASLT_REDUCTION_SCHEME_NONE);
SAME(0, CUBLAS_STATUS_SUCCESS);
SAME(sizeof(struct provider_algorithm), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(struct cublaslt_found), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(struct cublaslt_found, workspace_bytes),
     offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(struct cublaslt_found, status), offsetof(cublasLtMatmulHeuristicResult_t, state));

size_t cublaslt_call_all(void *handle, void *stream, const void *memory, void *to, void *workspace);

/* The order of arguments, by their kinds: nothing is cast that a compiler could tell apart. */
size_t cublaslt_call_all(void *handle, void *stream, const void *memory, void *to, void *workspace)
{
    cublasLtMatmulHeuristicResult_t found;
    cublasLtMatmulPreference_t preference;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulDesc_t desc;
    uint64_t limit = 1;
    size_t written = 0;
    int32_t number = 0;
    int count = 0;
    const float one = 1;
    cublasLtHandle_t library = handle;

    (void)cublasLtCreate(&library);
    (void)cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    (void)cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &number, sizeof number);
    (void)cublasLtMatrixLayoutCreate(&a, CUDA_R_16BF, UINT64_C(1), UINT64_C(1), INT64_C(1));
    (void)cublasLtMatrixLayoutCreate(&b, CUDA_R_16BF, UINT64_C(1), UINT64_C(1), INT64_C(1));
    (void)cublasLtMatrixLayoutCreate(&d, CUDA_R_32F, UINT64_C(1), UINT64_C(1), INT64_C(1));
    (void)cublasLtMatmulPreferenceCreate(&preference);
    (void)cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &limit, sizeof limit);
    (void)cublasLtMatmulAlgoGetHeuristic(library, desc, a, b, d, d, preference, 1, &found, &count);
    (void)cublasLtMatmulAlgoConfigGetAttribute(&found.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM,
                                               &number, sizeof number, &written);
    (void)cublasLtMatmulAlgoCheck(library, desc, a, b, d, d, &found.algo, &found);
    (void)cublasLtMatmul(library, desc, &one, memory, a, memory, b, &one, to, d, to, d, &found.algo,
                         workspace, limit, (cudaStream_t)stream);
    (void)cublasLtMatmulPreferenceDestroy(preference);
    (void)cublasLtMatrixLayoutDestroy(a);
    (void)cublasLtMatmulDescDestroy(desc);
    (void)cublasLtDestroy(library);
    return cublasLtGetVersion();
}
