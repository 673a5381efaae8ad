#include "session/cue_list.h"

#include <string.h>

#include "base/memory.h"
#include "limits.h"

enum { PATTERN_HEAD_BYTES = 8 };

static struct cue_list *create(size_t size)
{
    struct cue_list *list = memory_alloc(1, sizeof(*list) + size);

    if (list != NULL) {
        list->reference_count = 1;
        list->size = (uint32_t)size;
    }
    return list;
}

enum status cue_list_create(const struct cue_pattern *patterns, uint32_t count,
                            struct cue_list **out)
{
    size_t size = 0;
    struct cue_list *list;

    for (uint32_t i = 0; i < count; i++) {
        size += PATTERN_HEAD_BYTES + patterns[i].text.size;
    }
    list = create(size);
    if (list == NULL) {
        return STATUS_MEMORY;
    }
    for (uint32_t i = 0, at = 0; i < count; i++) {
        const struct bytes text = patterns[i].text;

        bytes_store_u32(list->data + at, (uint32_t)patterns[i].kind);
        bytes_store_u32(list->data + at + 4, (uint32_t)text.size);
        if (text.size > 0) {
            memcpy(list->data + at + PATTERN_HEAD_BYTES, text.data, text.size);
        }
        at += PATTERN_HEAD_BYTES + (uint32_t)text.size;
    }
    *out = list;
    return STATUS_OK;
}

/* Reads the pattern at *at and moves behind it. */
static enum status next(struct bytes stored, size_t *at, struct cue_pattern *out)
{
    const size_t left = stored.size - *at;
    uint32_t kind;
    uint32_t size;

    if (left < PATTERN_HEAD_BYTES) {
        return STATUS_BAD_INPUT;
    }
    kind = bytes_load_u32(stored.data + *at);
    size = bytes_load_u32(stored.data + *at + 4);
    if (kind > CUE_SPEAKER || size > left - PATTERN_HEAD_BYTES) {
        return STATUS_BAD_INPUT;
    }
    *out = (struct cue_pattern){(enum cue_kind)kind,
                                bytes_of(stored.data + *at + PATTERN_HEAD_BYTES, size)};
    *at += PATTERN_HEAD_BYTES + size;
    return STATUS_OK;
}

enum status cue_list_parse(struct bytes stored, struct cue_list **out)
{
    struct cue_pattern pattern;
    struct cue_list *list;

    for (size_t at = 0; at < stored.size;) {
        TRY(next(stored, &at, &pattern));
    }
    list = create(stored.size);
    if (list == NULL) {
        return STATUS_MEMORY;
    }
    if (stored.size > 0) {
        memcpy(list->data, stored.data, stored.size);
    }
    *out = list;
    return STATUS_OK;
}

enum status cue_list_compile(const struct cue_list *list, struct error *error, struct cue_set **out)
{
    struct cue_pattern patterns[CUE_PATTERN_COUNT_MAX];
    uint32_t count = 0;

    for (size_t at = 0; at < list->size; count++) {
        if (count == CUE_PATTERN_COUNT_MAX) {
            return error_set_limit(error, "CUE_PATTERN_COUNT_MAX", CUE_PATTERN_COUNT_MAX,
                                   "a reply has more than %u names, cues and stop strings",
                                   (unsigned)CUE_PATTERN_COUNT_MAX);
        }
        TRY(next(cue_list_bytes(list), &at, &patterns[count]));
    }
    return cue_set_create(patterns, count, error, out);
}

struct cue_list *cue_list_acquire(struct cue_list *list)
{
    list->reference_count++;
    return list;
}

void cue_list_release(struct cue_list *list)
{
    if (list != NULL && --list->reference_count == 0) {
        memory_free(list);
    }
}
