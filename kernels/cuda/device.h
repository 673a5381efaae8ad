/* The card: every call of the CUDA runtime goes through here, and every launch.
 *
 * Thread: the engine thread. Ownership: what is made from a device dies with it or before it; the
 * caller frees allocations. All work goes to one stream, in the order of the calls: a launch sees
 * what an upload before it brought. Uploads and downloads must be given pinned memory to be
 * asynchronous; it stays unchanged until device_wait, or an event recorded after them, has come.
 *
 * A kernel that follows another at once begins early where the card can (sm_90 on): it must come to
 * prim_depend_wait in every thread before it touches what the one before does.
 *
 * Read by the host compiler too (tests/emulator): then memory is the host's, but out of its reach,
 * and filled with NaNs when it is made, and a launch runs in the emulator before it returns, one of
 * a graph at the latest when the stream is waited for.
 *
 * A failed call of the runtime answers DEVICE (MEMORY where memory ran out) and leaves a sentence
 * in device_fault_text(). After DEVICE nothing more can be expected of the device: close it.
 */
#ifndef PERSONAD_KERNELS_CUDA_DEVICE_H
#define PERSONAD_KERNELS_CUDA_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"

enum {
    DEVICE_NAME_BYTES_MAX = 128,
    DEVICE_ARCHITECTURE_MIN = 80, /* compute capability 8.0 */
    DEVICE_ARCHITECTURE_CLUSTER = 90,
    DEVICE_CLUSTER_BLOCKS_MAX = 4,        /* that are asked for here */
    DEVICE_SHARED_BYTES_FREE = 48 * 1024, /* more must be asked for a kernel */
};

struct device;       /* a card, its context and its stream */
struct device_event; /* a point in the stream */
struct device_graph; /* captured work */

/* What a card is. */
struct device_facts {
    char name[DEVICE_NAME_BYTES_MAX];
    uint32_t architecture; /* 80, 89, 90, 100 */
    uint32_t multiprocessor_count;
    uint32_t shared_bytes_max; /* of one block */
    uint64_t memory_bytes;
    uint64_t memory_free_bytes; /* when asked */
};

/* How many cards the driver shows. UNSUPPORTED: no driver, or one that is too old. */
MUST_USE enum status device_count(struct error *error, uint32_t *out);

/* NOT_FOUND: no card of that number. */
MUST_USE enum status device_describe(uint32_t ordinal, struct error *error,
                                     struct device_facts *out);

/* UNSUPPORTED: a card below DEVICE_ARCHITECTURE_MIN, or none at all. */
MUST_USE enum status device_open(uint32_t ordinal, struct error *error, struct device **out);
void device_close(struct device *device); /* waits for the stream; NULL is fine */

/* As found when it was opened. */
const struct device_facts *device_read_facts(const struct device *device);

/* Free on the card now, whoever took the rest. */
uint64_t device_memory_free(const struct device *device);

/* The runtime's words for the last failure, "" if there was none. Borrowed. */
const char *device_fault_text(const struct device *device);

/* Memory of the card, aligned to 256 bytes, not cleared. 0 bytes give a valid pointer. MEMORY.
 * Freeing waits for all that was given to the card. */
MUST_USE enum status device_alloc(struct device *device, uint64_t size_bytes, void **out);
void device_free(struct device *device, void *pointer); /* NULL is fine */

/* Pinned memory of the host, cleared. MEMORY. */
MUST_USE enum status device_pinned_alloc(struct device *device, uint64_t size_bytes, void **out);
void device_pinned_free(struct device *device, void *pointer); /* NULL is fine */

/* In the order of the stream. 0 bytes are fine. */
MUST_USE enum status device_upload(struct device *device, void *to, const void *from,
                                   uint64_t size_bytes);
MUST_USE enum status device_download(struct device *device, void *to, const void *from,
                                     uint64_t size_bytes);
MUST_USE enum status device_clear(struct device *device, void *to, uint64_t size_bytes); /* zeros */

/* The stream, made current, for a library that gives it work of its own (tests/emulator has its
 * word for what it is on the host): what is given here afterwards begins once that is done. And
 * what such a library answered, as the device's fault: DEVICE. */
void *device_stream(struct device *device);
enum status device_fail(struct device *device, const char *what, int answer);

/* Until all work given so far is done. */
MUST_USE enum status device_wait(struct device *device);

MUST_USE enum status device_event_create(struct device *device, struct device_event **out);
void device_event_destroy(struct device *device, struct device_event *event); /* NULL is fine */

/* Marks this point of the stream. */
MUST_USE enum status device_event_record(struct device *device, struct device_event *event);
/* Until the stream has passed the mark. */
MUST_USE enum status device_event_wait(struct device *device, struct device_event *event);
/* Between two marks that were passed, at least 1. */
MUST_USE enum status device_event_elapsed(struct device *device, struct device_event *from,
                                          struct device_event *to, uint64_t *out_ns);

/* ---- graphs ----
 * Between begin and end, launches and downloads are captured instead of done, with their arguments:
 * each device_graph_launch does them all, in order, with the same addresses and whatever these hold
 * then. Nothing else may be called between begin and end. A failed end leaves nothing captured. */
MUST_USE enum status device_capture_begin(struct device *device);
MUST_USE enum status device_capture_end(struct device *device, struct device_graph **out);
MUST_USE enum status device_graph_launch(struct device *device, struct device_graph *graph);
/* After a wait for all its launches; NULL is fine. */
void device_graph_destroy(struct device *device, struct device_graph *graph);

/* ---- launches ---- */

#ifdef __CUDACC__

/* What device_launch comes to: the addresses of the arguments, as the runtime wants them. */
MUST_USE enum status device_launch_list(struct device *device, const void *kernel, uint32_t grid_x,
                                        uint32_t grid_y, uint32_t threads, uint32_t shared_bytes,
                                        uint32_t cluster, void **arguments);

#else

#include <type_traits>

/* tidy: allow include: without a card the host runs the kernels in the emulator */
#include "tests/emulator/emulator.h"

/* DEVICE: there are addresses of the host's memory among an argument's bytes. */
MUST_USE enum status device_host_check(const void *argument, size_t size_bytes);

/* A launch now, or a copy of it in the graph that is being captured. */
MUST_USE enum status device_host_launch(struct device *device, const struct emulator_kernel *kernel,
                                        size_t context_bytes);

#endif

/* Keeps a parameter's type from being taken from the argument. */
template <typename T> struct device_exact {
    typedef T type; /* tidy: allow typedef: a member type is how C++ names a result */
};

/* Arguments have become what the kernel's parameters are. */
template <typename... Parameters>
static inline enum status device_launch_exact(struct device *device, void (*kernel)(Parameters...),
                                              uint32_t grid_x, uint32_t grid_y, uint32_t threads,
                                              uint32_t shared_bytes, uint32_t cluster,
                                              typename device_exact<Parameters>::type... arguments)
{
#ifdef __CUDACC__
    void *list[] = {(void *)&arguments..., nullptr};

    return device_launch_list(device, (const void *)kernel, grid_x, grid_y, threads, shared_bytes,
                              cluster, list);
#else
    auto body = [=]() { kernel(arguments...); };
    const struct emulator_kernel launch = {
        grid_x,
        grid_y,
        threads,
        shared_bytes,
        [](void *context) { (*static_cast<decltype(body) *>(context))(); },
        &body,
        false,
        cluster};

    static_assert(std::is_trivially_copyable<decltype(body)>::value, "a graph keeps its bytes");
    enum status checks[] = {STATUS_OK, device_host_check(&arguments, sizeof(arguments))...};
    for (enum status status : checks) {
        TRY(status);
    }
    return device_host_launch(device, &launch, sizeof(body));
#endif
}

/* device_launch<kernel>(device, grid_x, grid_y, threads, shared_bytes, arguments...): runs the
 * kernel on a grid of blocks of `threads` threads in one dimension, with dynamic shared memory.
 * Arguments convert as in a call. A grid without blocks is nothing to do. */
template <auto kernel, typename... Arguments>
MUST_USE static inline enum status device_launch(struct device *device, uint32_t grid_x,
                                                 uint32_t grid_y, uint32_t threads,
                                                 uint32_t shared_bytes, Arguments... arguments)
{
    if (grid_x == 0 || grid_y == 0) {
        return STATUS_OK;
    }
    return device_launch_exact(device, kernel, grid_x, grid_y, threads, shared_bytes, 1,
                               arguments...);
}

/* The same on cards from DEVICE_ARCHITECTURE_CLUSTER on, `cluster` blocks next to each other in x
 * running together; it divides grid_x. */
template <auto kernel, typename... Arguments>
MUST_USE static inline enum status
device_launch_cluster(struct device *device, uint32_t cluster, uint32_t grid_x, uint32_t grid_y,
                      uint32_t threads, uint32_t shared_bytes, Arguments... arguments)
{
    if (grid_x == 0 || grid_y == 0) {
        return STATUS_OK;
    }
    return device_launch_exact(device, kernel, grid_x, grid_y, threads, shared_bytes, cluster,
                               arguments...);
}

#endif
