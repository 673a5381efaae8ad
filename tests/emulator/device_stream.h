/* What device_stream() gives where the host plays the card: how a library gets work into it.
 *
 * Thread: the caller's. Ownership: the device's. Reads as C and as C++.
 */
#ifndef PERSONAD_TESTS_EMULATOR_DEVICE_STREAM_H
#define PERSONAD_TESTS_EMULATOR_DEVICE_STREAM_H

#include <stddef.h>

enum { DEVICE_STREAM_CONTEXT_BYTES_MAX = 128 };

struct device_host_stream {
    void *device;
    /* Runs body(copy of *context) in the order of the stream, or captures it. 0: done. */
    int (*give)(void *device, void (*body)(const void *context), const void *context,
                size_t context_bytes);
};

#endif
