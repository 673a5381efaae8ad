/* Trials of products: product_trial.h over the launches that steps use.
 *
 * A trial has a backend of its own that holds a device and nothing else. Rows of a launch are
 * bounded as in a step, by their bucket, and counted on the card.
 */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/cublaslt.cuh"
#include "kernels/cuda/matmul.cuh"
#include "kernels/product_trial.h"

enum {
    COPY_COUNT_MAX = 8,
    LAUNCH_COUNT = 24, /* of a timed graph, where nothing else is asked for */
    RUN_COUNT = 5,
    COMPARE_BLOCKS = 256,
    COMPARE_THREADS = 256,
};

/* Copies together are at least so large, where they may be: more than a card's cache holds. */
static const uint64_t COPIES_BYTES = UINT64_C(160) << 20;

struct product_trial {
    struct backend backend; /* its device is owned */
    struct backend_weight *weights[COPY_COUNT_MAX];
    uint16_t *plains[COPY_COUNT_MAX]; /* for cuBLASLt, made when it is asked for */
    uint32_t copy_count;
    uint32_t row_count_max, launch_count;
    struct provider_rule rule;
    struct cublaslt *library; /* NULL: not asked for yet, or not to be had */
    bool asked_library;
    float *x;            /* [row_count_max][cols] */
    float *out, *kept;   /* [row_count_max][outputs] */
    uint32_t *counts;    /* [row_count_max + 1]: 0, 1, 2 .. */
    uint32_t *different; /* one */
    uint8_t *activations;
    uint8_t *meeting;
    float *sums;
    void *workspace;
    uint8_t *unpacked; /* NULL: it is not packed */
};

/* ---- life ---- */

static void trial_close(struct product_trial *trial)
{
    struct device *device;

    if (trial == NULL) {
        return;
    }
    device = trial->backend.device;
    for (uint32_t i = 0; i < trial->copy_count; i++) {
        cuda_weight_destroy(trial->weights[i]);
        device_free(device, trial->plains[i]);
    }
    void *const memories[] = {trial->x,         trial->out,         trial->kept,    trial->counts,
                              trial->different, trial->activations, trial->meeting, trial->sums,
                              trial->workspace, trial->unpacked};

    for (void *memory : memories) {
        if (device != NULL) {
            device_free(device, memory);
        }
    }
    cublaslt_close(trial->library);
    device_close(device);
    memory_free(trial);
}

static enum status load_copies(struct product_trial *trial, const struct weight_source *source,
                               struct error *error)
{
    uint64_t bytes = 0;

    do {
        TRY(cuda_weight_create(&trial->backend, source, error, &trial->weights[trial->copy_count]));
        bytes += trial->weights[trial->copy_count]->data_bytes;
        trial->copy_count++;
    } while (trial->copy_count < COPY_COUNT_MAX && bytes < COPIES_BYTES);
    return STATUS_OK;
}

static enum status allocate(struct product_trial *trial)
{
    const struct cuda_weight_view *view = &trial->weights[0]->view;
    const uint64_t rows = trial->row_count_max;
    struct device *device = trial->backend.device;
    const uint64_t meeting_bytes = cuda_meeting_bytes(&trial->backend.facts);

    TRY(device_alloc(device, rows * view->cols * sizeof(float), (void **)&trial->x));
    TRY(device_alloc(device, rows * view->rows * sizeof(float), (void **)&trial->out));
    TRY(device_alloc(device, rows * view->rows * sizeof(float), (void **)&trial->kept));
    TRY(device_alloc(device, (rows + 1) * sizeof(uint32_t), (void **)&trial->counts));
    TRY(device_alloc(device, sizeof(uint32_t), (void **)&trial->different));
    TRY(device_alloc(device, cuda_activation_bytes(trial->row_count_max, view->cols),
                     (void **)&trial->activations));
    if (!cuda_format_is_plain(view->format) &&
        trial->backend.facts.architecture == PROVIDER_WGMMA_ARCHITECTURE) {
        TRY(device_alloc(device, cuda_unpacked_bytes(view), (void **)&trial->unpacked));
    }
    if (trial->backend.facts.architecture < DEVICE_ARCHITECTURE_CLUSTER) {
        TRY(device_alloc(device, meeting_bytes, (void **)&trial->meeting));
        TRY(device_clear(device, trial->meeting, meeting_bytes));
    }
    return STATUS_OK;
}

/* Rows of noise between -1 and 1, and all counts. */
static enum status fill(struct product_trial *trial)
{
    struct device *device = trial->backend.device;
    const uint64_t value_count = (uint64_t)trial->row_count_max * trial->rule.cols;
    float *values = (float *)memory_alloc(value_count, sizeof(*values));
    uint32_t *counts = (uint32_t *)memory_alloc(trial->row_count_max + 1, sizeof(*counts));
    enum status status = STATUS_MEMORY;
    uint32_t state = 12345;

    if (values != NULL && counts != NULL) {
        for (uint64_t i = 0; i < value_count; i++) {
            state = state * 1664525u + 1013904223u;
            values[i] = ((float)(state >> 8) - 8388608.0f) / 8388608.0f;
        }
        for (uint32_t i = 0; i <= trial->row_count_max; i++) {
            counts[i] = i;
        }
        status = device_upload(device, trial->x, values, value_count * sizeof(*values));
        if (status == STATUS_OK) {
            status = device_upload(device, trial->counts, counts,
                                   (trial->row_count_max + 1) * sizeof(*counts));
        }
        const enum status waited = device_wait(device);
        status = status == STATUS_OK ? waited : status;
    }
    memory_free(values);
    memory_free(counts);
    return status;
}

static enum status trial_open(const struct product_trial_settings *settings, struct error *error,
                              struct product_trial **out)
{
    struct product_trial *trial = (struct product_trial *)memory_alloc(1, sizeof(*trial));

    if (trial == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a trial");
    }
    trial->row_count_max = settings->row_count_max;
    trial->launch_count =
        settings->launch_count == 0 ? (uint32_t)LAUNCH_COUNT : settings->launch_count;
    trial->backend.settings.weights_fp8 = settings->weights_fp8;
    enum status status = device_open(settings->device, error, &trial->backend.device);
    if (status == STATUS_OK) {
        trial->backend.facts = *device_read_facts(trial->backend.device);
        status = load_copies(trial, settings->source, error);
    }
    if (status != STATUS_OK) {
        trial_close(trial);
        return status;
    }
    trial->rule.type = trial->weights[0]->view.format;
    trial->rule.outputs = trial->weights[0]->view.rows;
    trial->rule.cols = trial->weights[0]->view.cols;
    status = allocate(trial);
    status = status == STATUS_OK ? fill(trial) : status;
    if (status != STATUS_OK) {
        (void)error_set(error, status, "no room for a trial of %u rows: %s",
                        settings->row_count_max, device_fault_text(trial->backend.device));
        trial_close(trial);
        return status;
    }
    *out = trial;
    return STATUS_OK;
}

static uint32_t trial_describe(const struct product_trial *trial, struct provider_rule *out)
{
    *out = trial->rule;
    return trial->backend.facts.architecture;
}

static const char *trial_fault_text(const struct product_trial *trial)
{
    return device_fault_text(trial->backend.device);
}

/* ---- ways ---- */

static uint32_t bound_of(const struct product_trial *trial, uint32_t row_count)
{
    return bucket_rows(trial->row_count_max, bucket_of(trial->row_count_max, row_count));
}

static struct cublaslt_product library_product(const struct product_trial *trial,
                                               uint32_t row_count)
{
    struct cublaslt_product product = {};

    product.outputs = trial->rule.outputs;
    product.cols = trial->weights[0]->view.unit_count * CUDA_UNIT_COLS;
    product.rows = row_count;
    product.is_half = trial->rule.type == CUDA_F16;
    return product;
}

/* The library, and what it needs; none where the machine has not got it. */
static enum status want_library(struct product_trial *trial)
{
    const struct cublaslt_product product = library_product(trial, 1);
    struct device *device = trial->backend.device;

    if (trial->asked_library || (trial->rule.type != CUDA_BF16 && trial->rule.type != CUDA_F16)) {
        return STATUS_OK;
    }
    trial->asked_library = true;
    if (cublaslt_open(device, NULL, &trial->library) != STATUS_OK) {
        return STATUS_OK;
    }
    TRY(device_alloc(device, CUBLASLT_WORKSPACE_BYTES, &trial->workspace));
    TRY(device_alloc(device, (uint64_t)trial->row_count_max * product.outputs * sizeof(float),
                     (void **)&trial->sums));
    for (uint32_t i = 0; i < trial->copy_count; i++) {
        TRY(device_alloc(device, (uint64_t)product.outputs * product.cols * sizeof(uint16_t),
                         (void **)&trial->plains[i]));
        TRY(cuda_weight_copy_plain(device, &trial->weights[i]->view, trial->plains[i]));
    }
    return device_wait(device);
}

static bool serves_all(const struct product_trial *trial,
                       const struct provider_algorithm *algorithm)
{
    for (uint32_t bucket = 0; bucket < bucket_count(trial->row_count_max); bucket++) {
        const struct cublaslt_product product =
            library_product(trial, bucket_rows(trial->row_count_max, bucket));

        if (cublaslt_check(trial->library, &product, algorithm) != STATUS_OK) {
            return false;
        }
    }
    return true;
}

static enum status library_ways(struct product_trial *trial, uint32_t row_count, uint32_t most,
                                struct product_way *out, uint32_t *count)
{
    struct provider_algorithm found[CUBLASLT_CHOICE_COUNT_MAX];
    const struct cublaslt_product product =
        library_product(trial, row_count == 0 ? trial->row_count_max : bound_of(trial, row_count));
    uint32_t found_count = 0, used = 0;

    TRY(want_library(trial));
    if (trial->library != NULL) {
        TRY(cublaslt_choose(trial->library, &product, row_count == 0, CUBLASLT_CHOICE_COUNT_MAX,
                            found, &found_count));
    }
    for (uint32_t i = 0; i < found_count && used < most; i++) {
        if (row_count == 0 && !serves_all(trial, &found[i])) {
            continue;
        }
        out[used] = {};
        out[used].provider = PROVIDER_CUBLASLT;
        out[used].version = cublaslt_version(trial->library);
        out[used].algorithm = found[i];
        used++;
    }
    *count = used;
    return STATUS_OK;
}

static enum status trial_ways(struct product_trial *trial, enum provider provider,
                              uint32_t row_count, uint32_t most, struct product_way *out,
                              uint32_t *count)
{
    CHECK(row_count <= trial->row_count_max);
    *count = 0;
    if (provider == PROVIDER_CUBLASLT) {
        return library_ways(trial, row_count, most, out, count);
    }
    const bool is_there = provider == PROVIDER_MMA ||
                          (provider == PROVIDER_UNPACKED
                               ? trial->unpacked != NULL
                               : trial->backend.facts.architecture == PROVIDER_WGMMA_ARCHITECTURE);
    if (most > 0 && is_there) {
        out[0] = {};
        out[0].provider = provider;
        *count = 1;
    }
    return STATUS_OK;
}

/* ---- products ---- */

static void args_make(struct product_trial *trial, const struct product_way *way, uint32_t copy,
                      uint32_t row_count, float *out, struct cuda_matmul_args *args)
{
    memset((void *)args, 0, sizeof(*args)); /* what lies between its members too */
    args->part_count = 1;
    args->parts[0].weight = trial->weights[copy]->view;
    args->parts[0].out = out;
    args->parts[0].stride = trial->rule.outputs;
    args->activations = (const uint16_t *)trial->activations;
    args->row_count = bound_of(trial, row_count);
    args->row_count_at = trial->counts + row_count;
    args->meeting = trial->meeting;
    args->provider = way->provider;
    args->unpacked = trial->unpacked;
    args->variant.segment_count = way->segment_count;
    args->variant.tiles_min = way->tiles_min;
    if (cuda_matmul_is_half(args)) {
        args->row_scales =
            (float *)(trial->activations + cuda_row_scales_at(args->row_count, trial->rule.cols));
    }
    if (way->provider != PROVIDER_CUBLASLT) {
        return;
    }
    args->library.library = trial->library;
    args->library.algorithm = &way->algorithm;
    args->library.weights = trial->plains[copy];
    args->library.sums = trial->sums;
    args->library.workspace = trial->workspace;
    args->library.outputs = trial->rule.outputs;
}

/* Rounds rows [first, first + row_count) for the way. */
static enum status round_rows(struct product_trial *trial, const struct cuda_matmul_args *args,
                              uint32_t first)
{
    struct cuda_activation_source source = {};

    source.x = trial->x + (uint64_t)first * trial->rule.cols;
    source.cols = trial->rule.cols;
    source.row_count = args->row_count;
    source.row_count_at = args->row_count_at;
    source.row_scales = const_cast<float *>(args->row_scales);
    source.is_plain = args->provider == PROVIDER_CUBLASLT;
    return cuda_activations_fill(trial->backend.device, &source, (uint16_t *)trial->activations);
}

static enum status multiply(struct product_trial *trial, const struct product_way *way,
                            uint32_t first, uint32_t row_count, float *out)
{
    struct cuda_matmul_args args;

    args_make(trial, way, 0, row_count, out, &args);
    TRY(round_rows(trial, &args, first));
    return cuda_matmul_store(trial->backend.device, &args);
}

static enum status trial_keep(struct product_trial *trial, const struct product_way *way,
                              uint32_t row_count)
{
    CHECK(row_count <= trial->row_count_max);
    for (uint32_t row = 0; row < row_count; row++) {
        TRY(multiply(trial, way, row, 1, trial->kept + (uint64_t)row * trial->rule.outputs));
    }
    return device_wait(trial->backend.device);
}

static KERNEL void compare_kernel(const uint32_t *a, const uint32_t *b, uint64_t count,
                                  uint32_t *different)
{
    uint32_t found = 0;

    prim_depend_wait();
    for (uint64_t i = PRIM_BLOCK_X * (uint64_t)PRIM_THREADS + PRIM_THREAD; i < count;
         i += PRIM_GRID_X * (uint64_t)PRIM_THREADS) {
        found += a[i] != b[i] ? 1 : 0;
    }
    if (found > 0) {
        (void)prim_atomic_add_global(different, found);
    }
    prim_depend_launch();
}

static enum status trial_compare(struct product_trial *trial, const struct product_way *way,
                                 uint32_t row_count, uint64_t *different)
{
    const uint64_t count = (uint64_t)row_count * trial->rule.outputs;
    struct device *device = trial->backend.device;
    uint32_t found = 0;

    CHECK(row_count > 0 && row_count <= trial->row_count_max);
    TRY(device_clear(device, trial->out, count * sizeof(float)));
    TRY(device_clear(device, trial->different, sizeof(uint32_t)));
    TRY(multiply(trial, way, 0, row_count, trial->out));
    TRY(device_launch<compare_kernel>(device, COMPARE_BLOCKS, 1, COMPARE_THREADS, 0,
                                      (const uint32_t *)trial->out, (const uint32_t *)trial->kept,
                                      count, trial->different));
    TRY(device_download(device, &found, trial->different, sizeof(found)));
    TRY(device_wait(device));
    *different = found;
    return STATUS_OK;
}

/* ---- times ---- */

static enum status capture(struct product_trial *trial, const struct product_way *way,
                           uint32_t row_count, struct device_graph **out)
{
    struct device *device = trial->backend.device;
    enum status status = STATUS_OK;

    TRY(device_capture_begin(device));
    for (uint32_t i = 0; i < trial->launch_count && status == STATUS_OK; i++) {
        struct cuda_matmul_args args;

        args_make(trial, way, i % trial->copy_count, row_count, trial->out, &args);
        status = cuda_matmul_store(device, &args);
    }
    const enum status ended = device_capture_end(device, out);
    return status != STATUS_OK ? status : ended;
}

static int compare_times(const void *a, const void *b)
{
    const uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

    return first < second ? -1 : first > second;
}

static enum status measure(struct device *device, struct device_graph *graph, uint32_t launches,
                           struct device_event *begin, struct device_event *end, uint64_t *out_ns)
{
    uint64_t times[RUN_COUNT];

    TRY(device_graph_launch(device, graph)); /* the clocks go up */
    for (uint32_t i = 0; i < RUN_COUNT; i++) {
        TRY(device_event_record(device, begin));
        TRY(device_graph_launch(device, graph));
        TRY(device_event_record(device, end));
        TRY(device_event_wait(device, end));
        TRY(device_event_elapsed(device, begin, end, &times[i]));
    }
    qsort(times, RUN_COUNT, sizeof(times[0]), compare_times);
    *out_ns = times[RUN_COUNT / 2] / launches;
    *out_ns += *out_ns == 0 ? 1 : 0;
    return STATUS_OK;
}

static enum status trial_time(struct product_trial *trial, const struct product_way *way,
                              uint32_t row_count, uint64_t *out_ns)
{
    struct device *device = trial->backend.device;
    struct device_event *begin = NULL, *end = NULL;
    struct device_graph *graph = NULL;
    struct cuda_matmul_args args;

    CHECK(row_count > 0 && row_count <= trial->row_count_max);
    args_make(trial, way, 0, row_count, trial->out, &args);
    TRY(round_rows(trial, &args, 0));
    enum status status = capture(trial, way, row_count, &graph);
    if (status == STATUS_OK) {
        status = device_event_create(device, &begin);
    }
    if (status == STATUS_OK) {
        status = device_event_create(device, &end);
    }
    if (status == STATUS_OK) {
        status = measure(device, graph, trial->launch_count, begin, end, out_ns);
    }
    device_event_destroy(device, begin);
    device_event_destroy(device, end);
    device_graph_destroy(device, graph);
    return status;
}

extern "C" {
const struct product_trial_ops cuda_trial_ops = {
    trial_open, trial_close,   trial_describe, trial_ways,
    trial_keep, trial_compare, trial_time,     trial_fault_text,
};
}
