/* The card through the CUDA runtime. tests/emulator/device_host.cpp is its twin for the host. */
#include "kernels/cuda/device.h"

#include <cuda_runtime.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

enum {
    FAULT_TEXT_BYTES_MAX = 256,
    ARCHITECTURE_DEPENDENT = 90, /* from here on kernels may begin early */
};

struct device {
    int ordinal;
    struct device_facts facts;
    cudaStream_t stream; /* owned */
    bool after_kernel;   /* what the stream got last is a kernel: the next may begin early */
    char fault[FAULT_TEXT_BYTES_MAX];
};

struct device_event {
    cudaEvent_t event; /* owned */
};

struct device_graph {
    cudaGraphExec_t graph; /* owned */
};

/* The runtime counts a current card for each thread, and the first for those that never said. The
 * main thread opens what the engine thread uses. */
static thread_local int current = -1;

static void enter(const struct device *device)
{
    if (current != device->ordinal && cudaSetDevice(device->ordinal) == cudaSuccess) {
        current = device->ordinal;
    }
}

/* Keeps the first failure: those after it only repeat it. */
static enum status answer(struct device *device, const char *call, cudaError_t result)
{
    if (result == cudaSuccess) {
        return STATUS_OK;
    }
    if (device->fault[0] == '\0' && result != cudaErrorMemoryAllocation) {
        snprintf(device->fault, sizeof(device->fault), "%s: %s (%s)", call,
                 cudaGetErrorString(result), cudaGetErrorName(result));
    }
    (void)cudaGetLastError(); /* one that is not sticky is over */
    return result == cudaErrorMemoryAllocation ? STATUS_MEMORY : STATUS_DEVICE;
}

/* Why the runtime finds no driver that it can use; a machine without one has version 0. */
static enum status tell_driver(cudaError_t result, struct error *error)
{
    int driver = 0, runtime = 0;

    if (result != cudaErrorInsufficientDriver || cudaRuntimeGetVersion(&runtime) != cudaSuccess ||
        cudaDriverGetVersion(&driver) != cudaSuccess) {
        return error_set(error, STATUS_UNSUPPORTED, "the NVIDIA driver does not answer: %s",
                         cudaGetErrorString(result));
    }
    if (driver == 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "there is no NVIDIA driver: install the card's, for CUDA %d.%d or later; "
                         "a container gets it from outside, as by docker run --gpus all",
                         runtime / 1000, runtime % 1000 / 10);
    }
    return error_set(error, STATUS_UNSUPPORTED,
                     "the NVIDIA driver is too old: it serves CUDA %d.%d, and this build needs one "
                     "for CUDA %d.%d or later",
                     driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

enum status device_count(struct error *error, uint32_t *out)
{
    int count = 0;
    const cudaError_t result = cudaGetDeviceCount(&count);

    (void)cudaGetLastError(); /* the next call must not meet it */
    if (result == cudaErrorNoDevice) {
        count = 0;
    } else if (result != cudaSuccess) {
        return tell_driver(result, error);
    }
    *out = (uint32_t)count;
    return STATUS_OK;
}

enum status device_describe(uint32_t ordinal, struct error *error, struct device_facts *out)
{
    struct cudaDeviceProp properties;
    struct device_facts facts = {};
    size_t memory_free = 0, memory = 0;
    uint32_t count = 0;

    TRY(device_count(error, &count));
    if (ordinal >= count) {
        return error_set(error, STATUS_NOT_FOUND, "there is no card %u: the driver shows %u",
                         ordinal, count);
    }
    cudaError_t result = cudaGetDeviceProperties(&properties, (int)ordinal);
    if (result == cudaSuccess) {
        result = cudaSetDevice((int)ordinal);
        current = result == cudaSuccess ? (int)ordinal : -1;
    }
    if (result == cudaSuccess) {
        result = cudaMemGetInfo(&memory_free, &memory);
    }
    if (result != cudaSuccess) {
        return error_set(error, STATUS_DEVICE, "card %u does not answer: %s", ordinal,
                         cudaGetErrorString(result));
    }
    snprintf(facts.name, sizeof(facts.name), "%.*s", DEVICE_NAME_BYTES_MAX - 1, properties.name);
    facts.architecture = (uint32_t)(10 * properties.major + properties.minor);
    facts.multiprocessor_count = (uint32_t)properties.multiProcessorCount;
    facts.shared_bytes_max = (uint32_t)properties.sharedMemPerBlockOptin;
    facts.memory_bytes = memory;
    facts.memory_free_bytes = memory_free;
    *out = facts;
    return STATUS_OK;
}

/* Nothing: that the driver can load it shows that there is code for the card. */
static __global__ void probe(void)
{
}

static enum status check_code(uint32_t ordinal, const struct device_facts *facts,
                              struct error *error)
{
    struct cudaFuncAttributes attributes;
    const cudaError_t result = cudaFuncGetAttributes(&attributes, (const void *)probe);

    (void)cudaGetLastError();
    if (result == cudaErrorNoKernelImageForDevice || result == cudaErrorInvalidDeviceFunction) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "this build has no code for card %u (%s, compute capability %u.%u); it "
                         "has code for " PERSONAD_CUDA_ARCHITECTURES,
                         ordinal, facts->name, facts->architecture / 10, facts->architecture % 10);
    }
    if (result != cudaSuccess) {
        return error_set(error, STATUS_DEVICE, "card %u (%s) cannot be used: %s", ordinal,
                         facts->name, cudaGetErrorString(result));
    }
    return STATUS_OK;
}

enum status device_open(uint32_t ordinal, struct error *error, struct device **out)
{
    struct device_facts facts;
    struct device *device;

    TRY(device_describe(ordinal, error, &facts));
    if (facts.architecture < DEVICE_ARCHITECTURE_MIN) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "card %u (%s) has compute capability %u.%u; at least 8.0 is needed",
                         ordinal, facts.name, facts.architecture / 10, facts.architecture % 10);
    }
    TRY(check_code(ordinal, &facts, error));
    device = (struct device *)memory_alloc(1, sizeof(*device));
    if (device == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a card");
    }
    device->facts = facts;
    device->ordinal = (int)ordinal;
    if (answer(device, "cudaStreamCreate",
               cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking)) != STATUS_OK) {
        (void)error_set(error, STATUS_DEVICE, "card %u cannot be used: %s", ordinal, device->fault);
        memory_free(device);
        return STATUS_DEVICE;
    }
    *out = device;
    return STATUS_OK;
}

void device_close(struct device *device)
{
    if (device != NULL) {
        enter(device);
        (void)cudaStreamSynchronize(device->stream);
        (void)cudaStreamDestroy(device->stream);
        if (device->fault[0] != '\0') {
            /* A fault stays in the context, and so does what it held: only a new one is clean. */
            (void)cudaDeviceReset();
        }
        memory_free(device);
    }
}

const struct device_facts *device_read_facts(const struct device *device)
{
    return &device->facts;
}

uint64_t device_memory_free(const struct device *device)
{
    size_t memory_free = 0, memory = 0;

    enter(device);
    return cudaMemGetInfo(&memory_free, &memory) == cudaSuccess ? memory_free : 0;
}

const char *device_fault_text(const struct device *device)
{
    return device->fault;
}

enum status device_alloc(struct device *device, uint64_t size_bytes, void **out)
{
    enter(device);
    return answer(device, "cudaMalloc", cudaMalloc(out, size_bytes > 0 ? size_bytes : 1));
}

void device_free(struct device *device, void *pointer)
{
    enter(device);
    (void)answer(device, "cudaFree", cudaFree(pointer));
}

enum status device_pinned_alloc(struct device *device, uint64_t size_bytes, void **out)
{
    const size_t size = size_bytes > 0 ? size_bytes : 1;
    void *pointer = NULL;

    enter(device);
    TRY(answer(device, "cudaMallocHost", cudaMallocHost(&pointer, size)));
    memset(pointer, 0, size);
    *out = pointer;
    return STATUS_OK;
}

void device_pinned_free(struct device *device, void *pointer)
{
    enter(device);
    (void)answer(device, "cudaFreeHost", cudaFreeHost(pointer));
}

enum status device_upload(struct device *device, void *to, const void *from, uint64_t size_bytes)
{
    enter(device);
    device->after_kernel = false;
    return answer(device, "upload",
                  cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyHostToDevice, device->stream));
}

enum status device_download(struct device *device, void *to, const void *from, uint64_t size_bytes)
{
    enter(device);
    device->after_kernel = false;
    return answer(device, "download",
                  cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDeviceToHost, device->stream));
}

enum status device_clear(struct device *device, void *to, uint64_t size_bytes)
{
    enter(device);
    device->after_kernel = false;
    return answer(device, "clear", cudaMemsetAsync(to, 0, size_bytes, device->stream));
}

void *device_stream(struct device *device)
{
    enter(device);
    device->after_kernel = false;
    return device->stream;
}

enum status device_fail(struct device *device, const char *what, int answer)
{
    snprintf(device->fault, sizeof(device->fault), "%s: answered %d", what, answer);
    return STATUS_DEVICE;
}

enum status device_wait(struct device *device)
{
    enter(device);
    return answer(device, "wait", cudaStreamSynchronize(device->stream));
}

enum status device_event_create(struct device *device, struct device_event **out)
{
    struct device_event *event = (struct device_event *)memory_alloc(1, sizeof(*event));

    if (event == NULL) {
        return STATUS_MEMORY;
    }
    enter(device);
    const enum status status = answer(
        device, "cudaEventCreate", cudaEventCreateWithFlags(&event->event, cudaEventBlockingSync));
    if (status != STATUS_OK) {
        memory_free(event);
        return status;
    }
    *out = event;
    return STATUS_OK;
}

void device_event_destroy(struct device *device, struct device_event *event)
{
    if (event != NULL) {
        (void)answer(device, "cudaEventDestroy", cudaEventDestroy(event->event));
        memory_free(event);
    }
}

enum status device_event_record(struct device *device, struct device_event *event)
{
    enter(device);
    device->after_kernel = false;
    return answer(device, "cudaEventRecord", cudaEventRecord(event->event, device->stream));
}

enum status device_event_wait(struct device *device, struct device_event *event)
{
    return answer(device, "step", cudaEventSynchronize(event->event));
}

enum status device_event_elapsed(struct device *device, struct device_event *from,
                                 struct device_event *to, uint64_t *out_ns)
{
    float elapsed_ms = 0.0f;

    TRY(answer(device, "cudaEventElapsedTime",
               cudaEventElapsedTime(&elapsed_ms, from->event, to->event)));
    const uint64_t elapsed_ns = (uint64_t)((double)elapsed_ms * 1e6);
    *out_ns = elapsed_ns > 0 ? elapsed_ns : 1;
    return STATUS_OK;
}

enum status device_capture_begin(struct device *device)
{
    enter(device);
    device->after_kernel = false;
    return answer(device, "cudaStreamBeginCapture",
                  cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal));
}

enum status device_capture_end(struct device *device, struct device_graph **out)
{
    struct device_graph *made = (struct device_graph *)memory_alloc(1, sizeof(*made));
    cudaGraph_t graph = NULL;
    enum status status =
        answer(device, "cudaStreamEndCapture", cudaStreamEndCapture(device->stream, &graph));

    device->after_kernel = false;
    if (status == STATUS_OK && made == NULL) {
        status = STATUS_MEMORY;
    }
    if (status == STATUS_OK) {
        status =
            answer(device, "cudaGraphInstantiate", cudaGraphInstantiate(&made->graph, graph, 0));
    }
    if (graph != NULL) {
        (void)answer(device, "cudaGraphDestroy", cudaGraphDestroy(graph));
    }
    if (status != STATUS_OK) {
        memory_free(made);
        return status;
    }
    *out = made;
    /* Its first launch finds it on the card. */
    return answer(device, "cudaGraphUpload", cudaGraphUpload(made->graph, device->stream));
}

enum status device_graph_launch(struct device *device, struct device_graph *graph)
{
    enter(device);
    device->after_kernel = false;
    return answer(device, "cudaGraphLaunch", cudaGraphLaunch(graph->graph, device->stream));
}

void device_graph_destroy(struct device *device, struct device_graph *graph)
{
    if (graph != NULL) {
        (void)answer(device, "cudaGraphExecDestroy", cudaGraphExecDestroy(graph->graph));
        memory_free(graph);
    }
}

enum status device_launch_list(struct device *device, const void *kernel, uint32_t grid_x,
                               uint32_t grid_y, uint32_t threads, uint32_t shared_bytes,
                               uint32_t cluster, void **arguments)
{
    enter(device);
    if (shared_bytes > DEVICE_SHARED_BYTES_FREE) {
        TRY(answer(device, "cudaFuncSetAttribute",
                   cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        (int)shared_bytes)));
    }
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute attributes[2] = {};
    uint32_t count = 0;

    if (device->after_kernel && device->facts.architecture >= ARCHITECTURE_DEPENDENT) {
        attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[count].val.programmaticStreamSerializationAllowed = 1;
        count++;
    }
    if (cluster > 1) {
        attributes[count].id = cudaLaunchAttributeClusterDimension;
        attributes[count].val.clusterDim.x = cluster;
        attributes[count].val.clusterDim.y = 1;
        attributes[count].val.clusterDim.z = 1;
        count++;
    }
    config.gridDim = dim3(grid_x, grid_y, 1);
    config.blockDim = dim3(threads, 1, 1);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = device->stream;
    config.attrs = attributes;
    config.numAttrs = count;
    device->after_kernel = true;
    return answer(device, "launch", cudaLaunchKernelExC(&config, kernel, arguments));
}
