/* Memory that only the emulated card reaches: whoever touches it from the host, but by an upload or
 * a download, ends with a segmentation fault, as on a card. And the other way round: addresses of
 * the host's memory among what the card is given are found.
 *
 * Thread: the device's. Ownership: the device owns the list; blocks are freed by their address.
 * Format: each block begins a mapping of its own and is followed by a page that nobody reaches; to
 * AddressSanitizer all behind its last byte is poisoned.
 */
#ifndef PERSONAD_TESTS_EMULATOR_DEVICE_MEMORY_H
#define PERSONAD_TESTS_EMULATOR_DEVICE_MEMORY_H

#include <stdint.h>

#include "base/status.h"

struct device_block;

struct device_memory {
    struct device_block *blocks; /* owned */
    uint64_t used_bytes;
    uint32_t open_count;
};

/* Not cleared: filled with 0xff. MEMORY. */
MUST_USE enum status device_memory_alloc(struct device_memory *memory, uint64_t size_bytes,
                                         void **out);
void device_memory_free(struct device_memory *memory, void *pointer);

/* While it is open the card works, or copies. Pairs may lie in each other. */
void device_memory_open(struct device_memory *memory);
void device_memory_close(struct device_memory *memory);

/* Whether a word among the bytes is an address of mapped memory that is not the card's. Words that
 * happen to look like one are as rare as two numbers between 0x5500 and 0x7fff above the rest; an
 * address below the first 64 KiB of 4 GiB, as AddressSanitizer gives some, passes as a number. */
bool device_memory_finds_host(const struct device_memory *memory, const void *bytes,
                              uint64_t size_bytes);

#endif
