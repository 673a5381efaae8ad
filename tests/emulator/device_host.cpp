/* The twin of kernels/cuda/device.cu: the host plays the card.
 *
 * Memory is the host's, so that AddressSanitizer sees every byte out of bounds, and it is filled
 * with NaNs when it is made. Launches run at once, in the emulator. Uploads too, but downloads and
 * event marks only come when they are waited for: who reads answers before is found out.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "kernels/cuda/device.h"
#include "tests/emulator/emulator_fiber.h"

enum { DOWNLOAD_COUNT_MAX = 64, ALIGNMENT = 256, POISON = 0xff };

struct download {
    void *to;
    void *copy; /* owned: what was there when it was asked for */
    uint64_t size_bytes;
};

struct device {
    struct device_facts facts;
    struct download downloads[DOWNLOAD_COUNT_MAX]; /* a ring: numbers landed..asked */
    uint64_t asked_count;
    uint64_t landed_count;
};

struct device_event {
    uint64_t asked_count; /* of the device when it was recorded */
    bool recorded;
};

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
    facts.memory_bytes = UINT64_C(1) << 32;
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
    device->facts = facts;
    *out = device;
    return STATUS_OK;
}

static void land(struct device *device, uint64_t until)
{
    for (; device->landed_count < until; device->landed_count++) {
        struct download *download = &device->downloads[device->landed_count % DOWNLOAD_COUNT_MAX];

        memcpy(download->to, download->copy, download->size_bytes);
        memory_free(download->copy);
    }
}

void device_close(struct device *device)
{
    if (device != NULL) {
        for (; device->landed_count < device->asked_count; device->landed_count++) {
            memory_free(device->downloads[device->landed_count % DOWNLOAD_COUNT_MAX].copy);
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
    (void)device;
    return emulator_fault_text();
}

enum status device_alloc(struct device *device, uint64_t size_bytes, void **out)
{
    void *pointer = memory_alloc_aligned(ALIGNMENT, size_bytes > 0 ? size_bytes : 1, 1);

    (void)device;
    if (pointer == NULL) {
        return STATUS_MEMORY;
    }
    memset(pointer, POISON, size_bytes);
    *out = pointer;
    return STATUS_OK;
}

void device_free(struct device *device, void *pointer)
{
    (void)device;
    memory_free(pointer);
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
    (void)device;
    if (size_bytes > 0) {
        memcpy(to, from, size_bytes);
    }
    return STATUS_OK;
}

enum status device_download(struct device *device, void *to, const void *from, uint64_t size_bytes)
{
    struct download *download = &device->downloads[device->asked_count % DOWNLOAD_COUNT_MAX];

    if (size_bytes == 0) {
        return STATUS_OK;
    }
    CHECK(device->asked_count - device->landed_count < DOWNLOAD_COUNT_MAX);
    void *copy = memory_alloc(size_bytes, 1);
    if (copy == NULL) {
        return STATUS_DEVICE;
    }
    memcpy(copy, from, size_bytes);
    memset(to, POISON, size_bytes);
    download->to = to;
    download->copy = copy;
    download->size_bytes = size_bytes;
    device->asked_count++;
    return STATUS_OK;
}

enum status device_clear(struct device *device, void *to, uint64_t size_bytes)
{
    (void)device;
    if (size_bytes > 0) {
        memset(to, 0, size_bytes);
    }
    return STATUS_OK;
}

enum status device_wait(struct device *device)
{
    land(device, device->asked_count);
    return STATUS_OK;
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
    event->asked_count = device->asked_count;
    event->recorded = true;
    return STATUS_OK;
}

enum status device_event_wait(struct device *device, struct device_event *event)
{
    CHECK(event->recorded);
    land(device, event->asked_count);
    return STATUS_OK;
}

enum status device_event_elapsed(struct device *device, struct device_event *from,
                                 struct device_event *to, uint64_t *out_ns)
{
    CHECK(from->recorded && to->recorded && device->landed_count >= to->asked_count);
    *out_ns = 1;
    return STATUS_OK;
}
