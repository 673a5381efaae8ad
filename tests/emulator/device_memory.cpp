#include "tests/emulator/device_memory.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "base/memory.h"

#if defined(__SANITIZE_ADDRESS__)
#define HAS_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_ADDRESS_SANITIZER 1
#endif
#endif
#ifndef HAS_ADDRESS_SANITIZER
#define HAS_ADDRESS_SANITIZER 0
#endif

#if HAS_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

enum { POISON = 0xff };

/* Where programs, heaps, libraries and stacks lie; and what is a number beside padding that holds
 * half of an old address. */
enum { HIGH_WORD_FIRST = 0x5500, HIGH_WORD_LAST = 0x7fff, NUMBER_LAST = 0xffff };

struct device_block {
    struct device_block *next;
    uint8_t *bytes; /* owned: a mapping of mapped_bytes, and a page behind it */
    uint64_t size_bytes, mapped_bytes;
};

static uint64_t page_bytes(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What lies behind the last byte is nobody's. */
static void mark(const struct device_block *block, bool is_used)
{
#if HAS_ADDRESS_SANITIZER
    uint8_t *behind = block->bytes + block->size_bytes;
    const uint64_t count = block->mapped_bytes - block->size_bytes;

    if (is_used) {
        __asan_poison_memory_region(behind, count);
    } else {
        __asan_unpoison_memory_region(behind, count);
    }
#else
    (void)block;
    (void)is_used;
#endif
}

static void reach(const struct device_block *block, int protection)
{
    CHECK(mprotect(block->bytes, block->mapped_bytes, protection) == 0);
}

enum status device_memory_alloc(struct device_memory *memory, uint64_t size_bytes, void **out)
{
    struct device_block *block = (struct device_block *)memory_alloc(1, sizeof(*block));

    if (block == NULL) {
        return STATUS_MEMORY;
    }
    block->size_bytes = size_bytes;
    block->mapped_bytes = (size_bytes / page_bytes() + 1) * page_bytes();
    void *bytes = mmap(NULL, block->mapped_bytes + page_bytes(), PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED) {
        memory_free(block);
        return STATUS_MEMORY;
    }
    block->bytes = (uint8_t *)bytes;
    reach(block, PROT_READ | PROT_WRITE);
    memset(block->bytes, POISON, size_bytes);
    mark(block, true);
    if (memory->open_count == 0) {
        reach(block, PROT_NONE);
    }
    block->next = memory->blocks;
    memory->blocks = block;
    memory->used_bytes += block->mapped_bytes;
    *out = block->bytes;
    return STATUS_OK;
}

void device_memory_free(struct device_memory *memory, void *pointer)
{
    struct device_block **at = &memory->blocks;

    while (*at != NULL && (*at)->bytes != pointer) {
        at = &(*at)->next;
    }
    CHECK(*at != NULL); /* this card's, and not freed before */
    struct device_block *block = *at;
    *at = block->next;
    memory->used_bytes -= block->mapped_bytes;
    mark(block, false);
    CHECK(munmap(block->bytes, block->mapped_bytes + page_bytes()) == 0);
    memory_free(block);
}

void device_memory_open(struct device_memory *memory)
{
    if (memory->open_count++ == 0) {
        for (const struct device_block *block = memory->blocks; block != NULL;
             block = block->next) {
            reach(block, PROT_READ | PROT_WRITE);
        }
    }
}

void device_memory_close(struct device_memory *memory)
{
    CHECK(memory->open_count > 0);
    if (--memory->open_count == 0) {
        for (const struct device_block *block = memory->blocks; block != NULL;
             block = block->next) {
            reach(block, PROT_NONE);
        }
    }
}

static bool is_host(const struct device_memory *memory, uint64_t word)
{
    const uint64_t page = word / page_bytes() * page_bytes();
    unsigned char resident;

    if (word >> 32 < HIGH_WORD_FIRST || word >> 32 > HIGH_WORD_LAST ||
        (uint32_t)word <= NUMBER_LAST) {
        return false;
    }
    for (const struct device_block *block = memory->blocks; block != NULL; block = block->next) {
        if (word - (uint64_t)(uintptr_t)block->bytes <= block->size_bytes) {
            return false; /* its end too */
        }
    }
    return mincore((void *)(uintptr_t)page, 1, &resident) == 0;
}

bool device_memory_finds_host(const struct device_memory *memory, const void *bytes,
                              uint64_t size_bytes)
{
    for (uint64_t at = 0; at + sizeof(uint64_t) <= size_bytes; at += sizeof(uint64_t)) {
        uint64_t word;

        memcpy(&word, (const uint8_t *)bytes + at, sizeof(word));
        if (is_host(memory, word)) {
            return true;
        }
    }
    return false;
}
