/* The library is opened once in a process and never closed: it may keep threads and memory of its
 * own. Handles go with their device. */
#include "kernels/cuda/cublaslt.cuh"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"

struct functions {
#define X(result, name, parameters) result(*name) parameters;
    CUBLASLT_FUNCTION_MAP(X)
#undef X
};

struct cublaslt {
    struct functions call;
    struct device *device;
    void *handle;
    uint32_t version;
};

/* What a product is to the library, by columns: D[outputs, rows] = W^T[outputs, cols] A[cols,
 * rows].
 */
struct description {
    void *product;
    void *weights, *activations, *sums;
};

/* ---- opening ---- */

static enum status library_load(struct error *error, void **out)
{
    const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    const char *named = getenv("PERSONAD_CUBLASLT");
    void *library = NULL;

    if (named != NULL && named[0] != '\0') {
        library = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            return error_set(error, STATUS_UNSUPPORTED, "PERSONAD_CUBLASLT: %s", dlerror());
        }
        *out = library;
        return STATUS_OK;
    }
    for (const char *name : names) {
        library = library == NULL ? dlopen(name, RTLD_NOW | RTLD_LOCAL) : library;
    }
    if (library == NULL) {
        return error_set(
            error, STATUS_UNSUPPORTED,
            "there is neither libcublasLt.so.13 nor libcublasLt.so.12 on this machine: "
            "install NVIDIA's cuBLAS, name the file by PERSONAD_CUBLASLT, or use a "
            "table of providers without cublaslt");
    }
    *out = library;
    return STATUS_OK;
}

static enum status functions_find(void *library, struct error *error, struct functions *out)
{
    void *found;

#define X(result, name, parameters)                                \
    found = dlsym(library, "cublasLt" #name);                      \
    if (found == NULL) {                                           \
        return error_set(error, STATUS_UNSUPPORTED,                \
                         "the libcublasLt of this machine has no " \
                         "cublasLt" #name);                        \
    }                                                              \
    memcpy(&out->name, &found, sizeof(found));
    CUBLASLT_FUNCTION_MAP(X)
#undef X
    return STATUS_OK;
}

enum status cublaslt_open(struct device *device, struct error *error, struct cublaslt **out)
{
    struct functions call;
    void *library = NULL;

    TRY(library_load(error, &library));
    TRY(functions_find(library, error, &call));
    struct cublaslt *made = (struct cublaslt *)memory_alloc(1, sizeof(*made));
    if (made == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for cuBLASLt");
    }
    made->call = call;
    made->device = device;
    made->version = (uint32_t)call.GetVersion();
    (void)device_stream(device); /* the handle is for the card that is current */
    const int status = call.Create(&made->handle);
    if (status != 0) {
        memory_free(made);
        return error_set(error, STATUS_UNSUPPORTED, "cuBLASLt does not start on this card: %d",
                         status);
    }
    *out = made;
    return STATUS_OK;
}

void cublaslt_close(struct cublaslt *library)
{
    if (library != NULL) {
        (void)device_stream(library->device);
        (void)library->call.Destroy(library->handle);
        memory_free(library);
    }
}

uint32_t cublaslt_version(const struct cublaslt *library)
{
    return library->version;
}

/* ---- descriptions ---- */

static void description_free(struct cublaslt *library, struct description *description)
{
    void *const layouts[] = {description->weights, description->activations, description->sums};

    if (description->product != NULL) {
        (void)library->call.MatmulDescDestroy(description->product);
    }
    for (void *layout : layouts) {
        if (layout != NULL) {
            (void)library->call.MatrixLayoutDestroy(layout);
        }
    }
}

static enum status answer(struct cublaslt *library, const char *what, int status)
{
    return status == 0 ? STATUS_OK : device_fail(library->device, what, status);
}

static enum status description_fill(struct cublaslt *library,
                                    const struct cublaslt_product *product, struct description *out)
{
    const struct functions *call = &library->call;
    const int type = product->is_half ? CUBLASLT_TYPE_HALF : CUBLASLT_TYPE_BF16;
    const int32_t transposed = CUBLASLT_TRANSPOSED;
    const uint64_t cols = product->cols, outputs = product->outputs, rows = product->rows;

    TRY(answer(library, "cublasLtMatmulDescCreate",
               call->MatmulDescCreate(&out->product, CUBLASLT_COMPUTE_FLOAT, CUBLASLT_TYPE_FLOAT)));
    TRY(answer(library, "cublasLtMatmulDescSetAttribute",
               call->MatmulDescSetAttribute(out->product, CUBLASLT_DESC_TRANSPOSE_A, &transposed,
                                            sizeof(transposed))));
    TRY(answer(library, "cublasLtMatrixLayoutCreate",
               call->MatrixLayoutCreate(&out->weights, type, cols, outputs, (int64_t)cols)));
    TRY(answer(library, "cublasLtMatrixLayoutCreate",
               call->MatrixLayoutCreate(&out->activations, type, cols, rows, (int64_t)cols)));
    return answer(
        library, "cublasLtMatrixLayoutCreate",
        call->MatrixLayoutCreate(&out->sums, CUBLASLT_TYPE_FLOAT, outputs, rows, (int64_t)outputs));
}

/* ---- choosing ---- */

static bool is_one_chain(const struct cublaslt *library, const struct provider_algorithm *algorithm)
{
    int32_t splits = 0;
    uint32_t reduction = 1;
    size_t written = 0;

    return library->call.MatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_CONFIG_SPLIT_K, &splits,
                                                      sizeof(splits), &written) == 0 &&
           library->call.MatmulAlgoConfigGetAttribute(algorithm, CUBLASLT_CONFIG_REDUCTION,
                                                      &reduction, sizeof(reduction),
                                                      &written) == 0 &&
           splits <= 1 && reduction == 0;
}

static enum status ask(struct cublaslt *library, const struct description *description,
                       void *preference, bool one_chain, uint32_t most,
                       struct provider_algorithm *algorithms, uint32_t *out_count)
{
    const uint64_t workspace_bytes = CUBLASLT_WORKSPACE_BYTES;
    struct cublaslt_found found[CUBLASLT_CHOICE_COUNT_MAX];
    uint32_t count = 0;
    int found_count = 0;

    TRY(answer(
        library, "cublasLtMatmulPreferenceSetAttribute",
        library->call.MatmulPreferenceSetAttribute(preference, CUBLASLT_PREFERENCE_WORKSPACE_MAX,
                                                   &workspace_bytes, sizeof(workspace_bytes))));
    const int status = library->call.MatmulAlgoGetHeuristic(
        library->handle, description->product, description->weights, description->activations,
        description->sums, description->sums, preference, CUBLASLT_CHOICE_COUNT_MAX, found,
        &found_count);
    for (int i = 0; status == 0 && i < found_count && count < most; i++) {
        if (found[i].status == 0 && (!one_chain || is_one_chain(library, &found[i].algorithm))) {
            algorithms[count++] = found[i].algorithm;
        }
    }
    *out_count = count; /* none where it knows no way, whatever it calls that */
    return STATUS_OK;
}

enum status cublaslt_choose(struct cublaslt *library, const struct cublaslt_product *product,
                            bool one_chain, uint32_t most, struct provider_algorithm *algorithms,
                            uint32_t *out_count)
{
    struct description description = {};
    void *preference = NULL;
    enum status status;

    (void)device_stream(library->device);
    status = description_fill(library, product, &description);
    if (status == STATUS_OK) {
        status = answer(library, "cublasLtMatmulPreferenceCreate",
                        library->call.MatmulPreferenceCreate(&preference));
    }
    if (status == STATUS_OK) {
        status = ask(library, &description, preference, one_chain, most, algorithms, out_count);
        (void)library->call.MatmulPreferenceDestroy(preference);
    }
    description_free(library, &description);
    return status;
}

enum status cublaslt_check(struct cublaslt *library, const struct cublaslt_product *product,
                           const struct provider_algorithm *algorithm)
{
    struct description description = {};
    struct cublaslt_found found = {};
    enum status status;

    (void)device_stream(library->device);
    status = description_fill(library, product, &description);
    if (status == STATUS_OK &&
        (library->call.MatmulAlgoCheck(library->handle, description.product, description.weights,
                                       description.activations, description.sums, description.sums,
                                       algorithm, &found) != 0 ||
         found.workspace_bytes > CUBLASLT_WORKSPACE_BYTES)) {
        status = STATUS_UNSUPPORTED;
    }
    description_free(library, &description);
    return status;
}

/* ---- products ---- */

enum status cublaslt_run(struct cublaslt *library, const struct cublaslt_product *product,
                         const struct provider_algorithm *algorithm, const uint16_t *weights,
                         const uint16_t *activations, float *sums, void *workspace)
{
    const float one = 1.0f, zero = 0.0f;
    struct description description = {};
    enum status status = description_fill(library, product, &description);

    if (status == STATUS_OK) {
        status = answer(library, "cublasLtMatmul",
                        library->call.Matmul(
                            library->handle, description.product, &one, weights,
                            description.weights, activations, description.activations, &zero, sums,
                            description.sums, sums, description.sums, algorithm, workspace,
                            CUBLASLT_WORKSPACE_BYTES, device_stream(library->device)));
    }
    description_free(library, &description);
    return status;
}
