#include "support/golden_file.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"

enum { GOLDEN_BYTES_MAX = 16 * 1024 * 1024, GOLDEN_HEADER_BYTES = 8 + 32 + 48 + 4 };

static size_t golden_read(const char *path, uint8_t *to)
{
    FILE *stream = fopen(path, "rb");
    size_t size = 0;

    if (stream != NULL) {
        size = fread(to, 1, GOLDEN_BYTES_MAX, stream);
        (void)fclose(stream);
    }
    return size;
}

/* Entries of 4 bytes; everything in the file is aligned to that. */
static const void *golden_take(const uint8_t **at, uint32_t count)
{
    const void *array = *at;

    *at += 4 * (size_t)count;
    return array;
}

static bool golden_take_sequence(const uint8_t **at, const uint8_t *end,
                                 struct golden_sequence *out)
{
    if (end - *at < 12) {
        return false;
    }
    out->count = bytes_load_u32(*at);
    out->first = bytes_load_u32(*at + 4);
    out->greedy = bytes_load_u32(*at + 8);
    *at += 12;
    if (out->first > out->count || out->greedy > out->count) {
        return false;
    }
    const uint32_t scored = out->count - out->first;
    if ((uint64_t)(end - *at) < 4 * (uint64_t)out->count + 20 * (uint64_t)scored) {
        return false;
    }
    out->ids = golden_take(at, out->count);
    out->logprobs = golden_take(at, scored);
    out->logprobs_half = golden_take(at, scored);
    out->best = golden_take(at, scored);
    out->best_logprobs = golden_take(at, scored);
    out->second_logprobs = golden_take(at, scored);
    return true;
}

bool golden_file_open(const char *path, struct golden_file *out)
{
    struct golden_file file = {.bytes = memory_alloc_aligned(64, 1, GOLDEN_BYTES_MAX)};
    const uint8_t *at = file.bytes;
    bool good = false;

    if (at == NULL) {
        return false;
    }
    const uint8_t *end = at + golden_read(path, file.bytes);
    if (end - at >= GOLDEN_HEADER_BYTES && memcmp(at, "PGOLDEN1", 8) == 0) {
        memcpy(file.model_hash, at + 8, sizeof(file.model_hash));
        memcpy(&file.int8, at + 40, sizeof(file.int8));
        memcpy(&file.kv, at + 64, sizeof(file.kv));
        file.sequence_count = bytes_load_u32(at + 88);
        at += GOLDEN_HEADER_BYTES;
        file.sequences = memory_alloc(file.sequence_count, sizeof(*file.sequences));
        good = file.sequences != NULL;
        for (uint32_t i = 0; good && i < file.sequence_count; i++) {
            good = golden_take_sequence(&at, end, &file.sequences[i]);
        }
        good = good && at == end;
    }
    if (!good) {
        golden_file_close(&file);
        return false;
    }
    *out = file;
    return true;
}

void golden_file_close(struct golden_file *file)
{
    memory_free(file->bytes);
    memory_free(file->sequences);
    file->bytes = NULL;
    file->sequences = NULL;
}
