/* The twin of kernels/cuda/device.cu: the host plays the card.
 *
 * Memory is mapped only while the card works (device_memory.h), and filled with NaNs when it is
 * made; what a kernel or an upload is given must not hold addresses of the host's. Downloads and
 * event marks only come when they are waited for: who reads answers before is found out. Uploads
 * and graphs run when they are given, or, as the emulator's settings have it, not before something
 * waits for them: who changes what a step in flight still reads is found out. A single launch runs
 * at once, behind all that was given before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/device.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/device_stream.h"
#include "tests/emulator/emulator_fiber.h"
#include "tests/emulator/emulator_state.h"

enum {
    WORK_COUNT_MAX = 256,
    NODE_COUNT_FIRST = 16,
    ALIGNMENT = 256,
    GIVEN_WORK_THREADS = 32,
    POISON = 0xff,
    SEARCHED_BYTES_MAX = 1 << 20, /* of an upload: plans are smaller, weights hold no addresses */
};

/* What a stream is given, or a graph holds. */
enum work_kind { WORK_UPLOAD, WORK_DOWNLOAD, WORK_KERNEL, WORK_GRAPH };

struct work {
    enum work_kind kind;
    void *to;
    const void *from;
    uint64_t size_bytes;
    struct emulator_kernel kernel; /* its context is owned */
    struct device_graph *graph;
};

struct device_graph {
    struct work *nodes; /* owned */
    uint32_t node_count, node_count_max;
    struct emulator_kernel *kernels; /* owned: room for a list of all of them */
};

/* A download whose bytes are known but not there yet. */
struct landing {
    void *to;
    void *copy; /* owned */
    uint64_t size_bytes;
    uint64_t work_number;
};

struct device {
    struct device_facts facts;
    struct device_host_stream stream;
    struct work works[WORK_COUNT_MAX]; /* a ring: numbers done..given */
    uint64_t given_count;
    uint64_t done_count;
    struct landing landings[WORK_COUNT_MAX]; /* a ring: numbers landed..left */
    uint64_t left_count;
    uint64_t landed_count;
    struct device_graph *capture; /* NULL: not capturing */
    uint64_t wait_count;          /* marks that were waited for */
    uint64_t wait_fault_at;       /* the one that finds the card gone; 0: none does */
    bool is_lost;
};

struct device_event {
    uint64_t given_count; /* of the device when it was recorded */
    bool recorded;
};

/* Of the one card, however often it is opened. */
static struct device_memory card_memory;

/* Cards opened so far: $PERSONAD_EMULATED_FAULTS speaks of each. */
static uint32_t open_count;

static const char lost_text[] = "the host pulled the card, as PERSONAD_EMULATED_FAULTS wants it";

/* "3,x,0": the first card that is opened falls off the bus when the third step is waited for, the
 * second cannot be opened, the third and all later ones stay. -1: cannot be opened. */
static int64_t planted_fault(uint32_t opened)
{
    const char *plan = getenv("PERSONAD_EMULATED_FAULTS");

    for (uint32_t i = 0; plan != NULL && i < opened; i++) {
        plan = strchr(plan, ',');
        plan = plan != NULL ? plan + 1 : NULL;
    }
    if (plan == NULL) {
        return 0;
    }
    return plan[0] == 'x' ? -1 : strtoll(plan, NULL, 10);
}

static uint64_t memory_bytes(void)
{
    const char *mib = getenv("PERSONAD_EMULATED_MEMORY_MIB");

    return (mib != NULL ? strtoull(mib, NULL, 10) : UINT64_C(4096)) << 20;
}

static enum status lost_or_ok(const struct device *device)
{
    return device->is_lost ? STATUS_DEVICE : STATUS_OK;
}

enum status device_count(struct error *error, uint32_t *out)
{
    (void)error;
    *out = 1;
    return STATUS_OK;
}

enum status device_describe(uint32_t ordinal, struct error *error, struct device_facts *out)
{
    struct device_facts facts = {};

    if (ordinal != 0) {
        return error_set(error, STATUS_NOT_FOUND, "there is no card %u: the host plays one",
                         ordinal);
    }
    snprintf(facts.name, sizeof(facts.name), "emulator");
    facts.architecture = emulator_architecture();
    facts.multiprocessor_count = 4;
    facts.shared_bytes_max = facts.architecture >= 90 ? 227 * 1024 : 163 * 1024;
    facts.memory_bytes = memory_bytes();
    facts.memory_free_bytes = facts.memory_bytes;
    *out = facts;
    return STATUS_OK;
}

enum status device_open(uint32_t ordinal, struct error *error, struct device **out)
{
    struct device_facts facts;

    TRY(device_describe(ordinal, error, &facts));
    struct device *device = (struct device *)memory_alloc(1, sizeof(*device));
    if (device == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a card");
    }
    const int64_t fault = planted_fault(open_count++);
    if (fault < 0) {
        memory_free(device);
        return error_set(error, STATUS_DEVICE, "card %u cannot be used: %s", ordinal, lost_text);
    }
    device->wait_fault_at = (uint64_t)fault;
    device->facts = facts;
    *out = device;
    return STATUS_OK;
}

/* ---- the stream ---- */

static enum status download_leave(struct device *device, const struct work *work)
{
    struct landing *landing = &device->landings[device->left_count % WORK_COUNT_MAX];
    void *copy = memory_alloc(work->size_bytes, 1);

    CHECK(device->left_count - device->landed_count < WORK_COUNT_MAX);
    if (copy == NULL) {
        return STATUS_DEVICE;
    }
    memcpy(copy, work->from, work->size_bytes);
    memset(work->to, POISON, work->size_bytes);
    landing->to = work->to;
    landing->copy = copy;
    landing->size_bytes = work->size_bytes;
    landing->work_number = device->done_count;
    device->left_count++;
    return STATUS_OK;
}

/* Kernels in a row are one list: each but the first depends on the one before. */
static enum status graph_run(struct device *device, const struct device_graph *graph)
{
    for (uint32_t i = 0; i < graph->node_count;) {
        uint32_t count = 0;
        for (; i < graph->node_count && graph->nodes[i].kind == WORK_KERNEL; i++) {
            graph->kernels[count] = graph->nodes[i].kernel;
            graph->kernels[count].depends = count > 0;
            count++;
        }
        TRY(emulator_launch_list(graph->kernels, count));
        if (i < graph->node_count) {
            CHECK(graph->nodes[i].kind == WORK_DOWNLOAD);
            TRY(download_leave(device, &graph->nodes[i]));
            i++;
        }
    }
    return STATUS_OK;
}

static enum status work_do_open(struct device *device, const struct work *work)
{
    switch (work->kind) {
    case WORK_UPLOAD:
        memcpy(work->to, work->from, work->size_bytes);
        return STATUS_OK;
    case WORK_DOWNLOAD:
        return download_leave(device, work);
    case WORK_KERNEL:
        return emulator_launch_list(&work->kernel, 1);
    case WORK_GRAPH:
        return graph_run(device, work->graph);
    }
    return STATUS_DEVICE;
}

static enum status work_do(struct device *device, const struct work *work)
{
    device_memory_open(&card_memory);
    const enum status status = work_do_open(device, work);
    device_memory_close(&card_memory);
    return status;
}

/* The first failure; what was given after it is dropped. */
static enum status stream_run(struct device *device, uint64_t until)
{
    while (device->done_count < until) {
        const enum status status =
            work_do(device, &device->works[device->done_count % WORK_COUNT_MAX]);
        device->done_count++;
        if (status != STATUS_OK) {
            device->done_count = device->given_count;
            return status;
        }
    }
    return STATUS_OK;
}

static void land(struct device *device, uint64_t until)
{
    for (; device->landed_count < device->left_count; device->landed_count++) {
        struct landing *landing = &device->landings[device->landed_count % WORK_COUNT_MAX];

        if (landing->work_number >= until) {
            return;
        }
        memcpy(landing->to, landing->copy, landing->size_bytes);
        memory_free(landing->copy);
    }
}

static enum status stream_give(struct device *device, const struct work *work)
{
    CHECK(device->given_count - device->done_count < WORK_COUNT_MAX);
    device->works[device->given_count % WORK_COUNT_MAX] = *work;
    device->given_count++;
    return emulator_read_settings()->work_comes_late ? STATUS_OK
                                                     : stream_run(device, device->given_count);
}

static enum status capture_add(struct device *device, const struct work *work)
{
    struct device_graph *graph = device->capture;

    if (graph->node_count == graph->node_count_max) {
        const uint32_t count_max =
            graph->node_count_max > 0 ? 2 * graph->node_count_max : (uint32_t)NODE_COUNT_FIRST;
        struct work *nodes =
            (struct work *)memory_resize(graph->nodes, count_max, sizeof(graph->nodes[0]));

        if (nodes == NULL) {
            return STATUS_MEMORY;
        }
        graph->nodes = nodes;
        graph->node_count_max = count_max;
    }
    graph->nodes[graph->node_count] = *work;
    graph->node_count++;
    return STATUS_OK;
}

enum status device_host_check(const void *argument, size_t size_bytes)
{
    if (!device_memory_finds_host(&card_memory, argument, size_bytes)) {
        return STATUS_OK;
    }
    emulator_fault_outside("a kernel is given an address of the host's memory");
    return STATUS_DEVICE;
}

enum status device_host_launch(struct device *device, const struct emulator_kernel *kernel,
                               size_t context_bytes)
{
    if (device->capture == NULL) {
        const struct work now = {WORK_KERNEL, NULL, NULL, 0, *kernel, NULL};

        TRY(stream_run(device, device->given_count));
        return work_do(device, &now);
    }
    void *context = memory_alloc(1, context_bytes);
    struct work work = {};

    if (context == NULL) {
        return STATUS_MEMORY;
    }
    memcpy(context, kernel->context, context_bytes);
    work.kind = WORK_KERNEL;
    work.kernel = *kernel;
    work.kernel.context = context;
    const enum status status = capture_add(device, &work);
    if (status != STATUS_OK) {
        memory_free(context);
    }
    return status;
}

enum status device_capture_begin(struct device *device)
{
    CHECK(device->capture == NULL);
    device->capture = (struct device_graph *)memory_alloc(1, sizeof(*device->capture));
    return device->capture == NULL ? STATUS_MEMORY : STATUS_OK;
}

enum status device_capture_end(struct device *device, struct device_graph **out)
{
    CHECK(device->capture != NULL);
    struct device_graph *graph = device->capture;
    device->capture = NULL;
    graph->kernels =
        (struct emulator_kernel *)memory_alloc(graph->node_count + 1, sizeof(graph->kernels[0]));
    if (graph->kernels == NULL) {
        device_graph_destroy(device, graph);
        return STATUS_MEMORY;
    }
    *out = graph;
    return STATUS_OK;
}

enum status device_graph_launch(struct device *device, struct device_graph *graph)
{
    struct work work = {};

    CHECK(device->capture == NULL);
    work.kind = WORK_GRAPH;
    work.graph = graph;
    return stream_give(device, &work);
}

void device_graph_destroy(struct device *device, struct device_graph *graph)
{
    if (graph == NULL) {
        return;
    }
    (void)stream_run(device, device->given_count);
    for (uint32_t i = 0; i < graph->node_count; i++) {
        memory_free(graph->nodes[i].kernel.context);
    }
    memory_free(graph->nodes);
    memory_free(graph->kernels);
    memory_free(graph);
}

void device_close(struct device *device)
{
    if (device != NULL) {
        (void)stream_run(device, device->given_count);
        for (; device->landed_count < device->left_count; device->landed_count++) {
            memory_free(device->landings[device->landed_count % WORK_COUNT_MAX].copy);
        }
        memory_free(device);
    }
}

const struct device_facts *device_read_facts(const struct device *device)
{
    return &device->facts;
}

const char *device_fault_text(const struct device *device)
{
    return device->is_lost ? lost_text : emulator_fault_text();
}

uint64_t device_memory_free(const struct device *device)
{
    const uint64_t memory = device->facts.memory_bytes;

    return card_memory.used_bytes < memory ? memory - card_memory.used_bytes : 0;
}

enum status device_alloc(struct device *device, uint64_t size_bytes, void **out)
{
    if (size_bytes > device_memory_free(device)) {
        return STATUS_MEMORY;
    }
    return device_memory_alloc(&card_memory, size_bytes, out);
}

void device_free(struct device *device, void *pointer)
{
    if (pointer != NULL) {
        (void)stream_run(device, device->given_count);
        device_memory_free(&card_memory, pointer);
    }
}

enum status device_pinned_alloc(struct device *device, uint64_t size_bytes, void **out)
{
    void *pointer = memory_alloc_aligned(ALIGNMENT, size_bytes > 0 ? size_bytes : 1, 1);

    (void)device;
    if (pointer == NULL) {
        return STATUS_MEMORY;
    }
    *out = pointer;
    return STATUS_OK;
}

void device_pinned_free(struct device *device, void *pointer)
{
    (void)device;
    memory_free(pointer);
}

enum status device_upload(struct device *device, void *to, const void *from, uint64_t size_bytes)
{
    const struct work work = {WORK_UPLOAD, to, from, size_bytes, {}, NULL};

    CHECK(device->capture == NULL);
    if (size_bytes <= SEARCHED_BYTES_MAX &&
        device_memory_finds_host(&card_memory, from, size_bytes)) {
        emulator_fault_outside("an upload holds an address of the host's memory");
        return STATUS_DEVICE;
    }
    return size_bytes == 0 ? STATUS_OK : stream_give(device, &work);
}

enum status device_download(struct device *device, void *to, const void *from, uint64_t size_bytes)
{
    const struct work work = {WORK_DOWNLOAD, to, from, size_bytes, {}, NULL};

    if (size_bytes == 0) {
        return STATUS_OK;
    }
    return device->capture != NULL ? capture_add(device, &work) : stream_give(device, &work);
}

enum status device_clear(struct device *device, void *to, uint64_t size_bytes)
{
    CHECK(device->capture == NULL);
    TRY(stream_run(device, device->given_count));
    device_memory_open(&card_memory);
    memset(to, 0, size_bytes);
    device_memory_close(&card_memory);
    return STATUS_OK;
}

/* What a library has put into the stream: a kernel of one warp, whose first lane does it. */
struct given_work {
    void (*body)(const void *context);
    alignas(16) uint8_t context[DEVICE_STREAM_CONTEXT_BYTES_MAX];
};

static void given_work_run(void *context)
{
    const struct given_work *work = static_cast<const struct given_work *>(context);

    emulator_depend_wait();
    if (emulator_here.thread == 0) {
        work->body(work->context);
    }
}

static int stream_take(void *device, void (*body)(const void *context), const void *context,
                       size_t context_bytes)
{
    struct given_work work = {};
    struct emulator_kernel kernel = {};

    CHECK(context_bytes <= sizeof(work.context));
    work.body = body;
    memcpy(work.context, context, context_bytes);
    kernel.grid_x = kernel.grid_y = 1;
    kernel.threads = GIVEN_WORK_THREADS;
    kernel.body = given_work_run;
    kernel.context = &work;
    return (int)device_host_launch(static_cast<struct device *>(device), &kernel, sizeof(work));
}

void *device_stream(struct device *device)
{
    device->stream.device = device;
    device->stream.give = stream_take;
    return &device->stream;
}

enum status device_fail(struct device *device, const char *what, int answer)
{
    (void)device;
    emulator_fault_set("%s: answered %d", what, answer);
    return STATUS_DEVICE;
}

enum status device_wait(struct device *device)
{
    TRY(stream_run(device, device->given_count));
    land(device, device->given_count);
    return lost_or_ok(device);
}

enum status device_event_create(struct device *device, struct device_event **out)
{
    struct device_event *event = (struct device_event *)memory_alloc(1, sizeof(*event));

    (void)device;
    if (event == NULL) {
        return STATUS_MEMORY;
    }
    *out = event;
    return STATUS_OK;
}

void device_event_destroy(struct device *device, struct device_event *event)
{
    (void)device;
    memory_free(event);
}

enum status device_event_record(struct device *device, struct device_event *event)
{
    CHECK(device->capture == NULL);
    event->given_count = device->given_count;
    event->recorded = true;
    return STATUS_OK;
}

enum status device_event_wait(struct device *device, struct device_event *event)
{
    CHECK(event->recorded);
    device->wait_count++;
    if (device->wait_count == device->wait_fault_at) {
        device->is_lost = true;
    }
    TRY(stream_run(device, event->given_count));
    land(device, event->given_count);
    return lost_or_ok(device);
}

enum status device_event_elapsed(struct device *device, struct device_event *from,
                                 struct device_event *to, uint64_t *out_ns)
{
    CHECK(from->recorded && to->recorded && device->done_count >= to->given_count);
    *out_ns = 1;
    return STATUS_OK;
}
