/* A libcublasLt for tests: the same names, arguments checked, and sums that a test can foretell.
 *
 * Its algorithms are (FAKE_MAGIC, kind) and zeros:
 *
 *   FAKE_CHAIN   columns ascending in double, rounded once
 *   FAKE_SPLIT   two halves of the columns, each so, added in float
 *   FAKE_MOODY   the chain for up to 16 rows, an eighth more for others: a row's bits hang on
 * others FAKE_SMALL   the chain, for up to 16 rows only
 *
 * Whatever is asked for that no caller should ask for is refused with INVALID_VALUE. A heuristic
 * answers with all of them, the worst first. The test reads fake_cublaslt_count by dlsym.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cublaslt_api.h"
#include "kernels/steps/math.h"
#include "tests/emulator/device_stream.h"
#include "tests/emulator/fake_cublaslt.h"

enum { GOOD = 0, NOT_INITIALISED = 1, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };

#define X(result, name, parameters) result cublasLt##name parameters;
CUBLASLT_FUNCTION_MAP(X)
#undef X

extern uint64_t fake_cublaslt_count;
uint64_t fake_cublaslt_count; /* products that ran */

struct layout {
    int type;
    uint64_t rows, cols;
    int64_t stride;
};

struct description {
    int compute, scale;
    int32_t transposed_a;
};

/* A product on its way. */
struct product {
    const uint16_t *a, *b;
    float *d;
    uint64_t outputs, cols, rows;
    bool is_half;
    uint64_t kind;
};

size_t cublasLtGetVersion(void)
{
    const char *version = getenv("PERSONAD_FAKE_CUBLASLT_VERSION");

    return version != NULL ? strtoul(version, NULL, 10) : FAKE_VERSION;
}

int cublasLtCreate(void **handle)
{
    *handle = malloc(1);
    return *handle == NULL ? NOT_INITIALISED : GOOD;
}

int cublasLtDestroy(void *handle)
{
    free(handle);
    return GOOD;
}

int cublasLtMatmulDescCreate(void **description, int compute, int scale)
{
    struct description *made = calloc(1, sizeof *made);

    if (made == NULL || compute != CUBLASLT_COMPUTE_FLOAT || scale != CUBLASLT_TYPE_FLOAT) {
        free(made);
        return INVALID_VALUE;
    }
    *description = made;
    return GOOD;
}

int cublasLtMatmulDescDestroy(void *description)
{
    free(description);
    return GOOD;
}

int cublasLtMatmulDescSetAttribute(void *description, int which, const void *value, size_t size)
{
    struct description *made = description;

    if (which != CUBLASLT_DESC_TRANSPOSE_A || size != sizeof made->transposed_a) {
        return INVALID_VALUE;
    }
    memcpy(&made->transposed_a, value, size);
    return GOOD;
}

int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t cols,
                               int64_t stride)
{
    struct layout *made = calloc(1, sizeof *made);

    if (made == NULL || rows == 0 || cols == 0 || stride < (int64_t)rows) {
        free(made);
        return INVALID_VALUE;
    }
    *made = (struct layout){type, rows, cols, stride};
    *layout = made;
    return GOOD;
}

int cublasLtMatrixLayoutDestroy(void *layout)
{
    free(layout);
    return GOOD;
}

int cublasLtMatmulPreferenceCreate(void **preference)
{
    *preference = calloc(1, sizeof(uint64_t));
    return *preference == NULL ? NOT_INITIALISED : GOOD;
}

int cublasLtMatmulPreferenceDestroy(void *preference)
{
    free(preference);
    return GOOD;
}

int cublasLtMatmulPreferenceSetAttribute(void *preference, int which, const void *value,
                                         size_t size)
{
    if (which != CUBLASLT_PREFERENCE_WORKSPACE_MAX || size != sizeof(uint64_t)) {
        return INVALID_VALUE;
    }
    memcpy(preference, value, size);
    return GOOD;
}

int cublasLtMatmulAlgoConfigGetAttribute(const struct provider_algorithm *algorithm, int which,
                                         void *value, size_t size, size_t *written)
{
    const uint32_t is_split = algorithm->words[1] == FAKE_SPLIT;
    const uint32_t number = which == CUBLASLT_CONFIG_SPLIT_K ? 1 + is_split : is_split;

    if ((which != CUBLASLT_CONFIG_SPLIT_K && which != CUBLASLT_CONFIG_REDUCTION) ||
        size != sizeof number) {
        return INVALID_VALUE;
    }
    memcpy(value, &number, size);
    *written = size;
    return GOOD;
}

/* What every product here is: W transposed, bf16 or f16, rows next to each other, into floats. */
static bool fits(const struct description *description, const struct layout *a,
                 const struct layout *b, const struct layout *c, const struct layout *d)
{
    return description->transposed_a == CUBLASLT_TRANSPOSED && a->type == b->type &&
           (a->type == CUBLASLT_TYPE_BF16 || a->type == CUBLASLT_TYPE_HALF) &&
           d->type == CUBLASLT_TYPE_FLOAT && memcmp(c, d, sizeof *c) == 0 && a->rows == b->rows &&
           a->cols == d->rows && b->cols == d->cols && a->stride == (int64_t)a->rows &&
           b->stride == (int64_t)b->rows && d->stride == (int64_t)d->rows && a->rows % 64 == 0;
}

static bool serves(const struct provider_algorithm *algorithm, uint64_t rows)
{
    bool known = algorithm->words[0] == FAKE_MAGIC && algorithm->words[1] < FAKE_KIND_COUNT;

    for (int i = 2; i < PROVIDER_ALGORITHM_WORDS; i++) {
        known = known && algorithm->words[i] == 0;
    }
    return known && (algorithm->words[1] != FAKE_SMALL || rows <= FAKE_SMALL_ROWS);
}

int cublasLtMatmulAlgoCheck(void *handle, void *description, void *a, void *b, void *c, void *d,
                            const struct provider_algorithm *algorithm,
                            struct cublaslt_found *found)
{
    const struct layout *rows = b;

    if (handle == NULL || !fits(description, a, b, c, d)) {
        return INVALID_VALUE;
    }
    if (!serves(algorithm, rows->cols)) {
        return NOT_SUPPORTED;
    }
    *found = (struct cublaslt_found){.algorithm = *algorithm, .workspace_bytes = FAKE_WORKSPACE};
    return GOOD;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *description, void *a, void *b, void *c,
                                   void *d, void *preference, int wanted,
                                   struct cublaslt_found *found, int *count)
{
    static const uint64_t kinds[] = {FAKE_SPLIT, FAKE_MOODY, FAKE_SMALL, FAKE_CHAIN};
    uint64_t workspace_bytes;

    memcpy(&workspace_bytes, preference, sizeof workspace_bytes);
    if (handle == NULL || workspace_bytes < FAKE_WORKSPACE || !fits(description, a, b, c, d)) {
        return INVALID_VALUE;
    }
    *count = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && *count < wanted; i++) {
        const struct provider_algorithm algorithm = {{FAKE_MAGIC, kinds[i]}};
        const int status =
            cublasLtMatmulAlgoCheck(handle, description, a, b, c, d, &algorithm, &found[*count]);
        *count += status == GOOD;
    }
    return GOOD;
}

static double number_of(uint16_t bits, bool is_half)
{
    return (double)(is_half ? steps_float_from_half(bits) : steps_float_from_bf16(bits));
}

static float sum_of(const struct product *product, const uint16_t *a, const uint16_t *b,
                    uint64_t begin, uint64_t end)
{
    double sum = 0.0;

    for (uint64_t k = begin; k < end; k++) {
        sum += number_of(a[k], product->is_half) * number_of(b[k], product->is_half);
    }
    return (float)sum;
}

static void product_run(const void *context)
{
    const struct product *product = context;
    const uint64_t cols = product->cols;
    const bool in_halves = product->kind == FAKE_SPLIT;
    const bool is_moody = product->kind == FAKE_MOODY && product->rows > FAKE_SMALL_ROWS;

    for (uint64_t row = 0; row < product->rows; row++) {
        for (uint64_t output = 0; output < product->outputs; output++) {
            const uint16_t *a = product->a + output * cols, *b = product->b + row * cols;
            const uint64_t middle = in_halves ? cols / 2 : cols;
            float sum = sum_of(product, a, b, 0, middle);

            sum = in_halves ? sum + sum_of(product, a, b, middle, cols) : sum;
            sum = is_moody ? sum * 1.125f : sum;
            product->d[row * product->outputs + output] = sum;
        }
    }
    fake_cublaslt_count++;
}

static bool is_aligned(const void *pointer)
{
    return pointer != NULL && (uintptr_t)pointer % 16 == 0;
}

int cublasLtMatmul(void *handle, void *description, const void *alpha, const void *a,
                   void *a_layout, const void *b, void *b_layout, const void *beta, const void *c,
                   void *c_layout, void *d, void *d_layout,
                   const struct provider_algorithm *algorithm, void *workspace,
                   size_t workspace_bytes, void *stream)
{
    const struct layout *weights = a_layout, *rows = b_layout;
    const struct device_host_stream *to = stream;
    float one, zero;

    memcpy(&one, alpha, sizeof one);
    memcpy(&zero, beta, sizeof zero);
    if (handle == NULL || stream == NULL || one != 1.0f || zero != 0.0f || c != d ||
        !is_aligned(a) || !is_aligned(b) || !is_aligned(d) || !is_aligned(workspace) ||
        workspace_bytes < FAKE_WORKSPACE ||
        !fits(description, a_layout, b_layout, c_layout, d_layout)) {
        return INVALID_VALUE;
    }
    if (!serves(algorithm, rows->cols)) {
        return NOT_SUPPORTED;
    }
    const struct product product = {
        .a = a,
        .b = b,
        .d = d,
        .outputs = weights->cols,
        .cols = weights->rows,
        .rows = rows->cols,
        .is_half = weights->type == CUBLASLT_TYPE_HALF,
        .kind = algorithm->words[1],
    };
    return to->give(to->device, product_run, &product, sizeof product);
}
