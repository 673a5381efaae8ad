#include "session/id_list.h"

#include <string.h>

#include "base/memory.h"

enum { ID_LIST_CAPACITY_MIN = 16 };

enum status id_list_reserve(struct id_list *list, uint32_t extra)
{
    const uint64_t wanted = (uint64_t)list->count + extra;
    uint64_t capacity = list->capacity;
    uint32_t *ids;

    if (wanted <= capacity) {
        return STATUS_OK;
    }
    capacity = capacity == 0 ? ID_LIST_CAPACITY_MIN : capacity * 2;
    capacity = capacity < wanted ? wanted : capacity;
    if (capacity > UINT32_MAX) {
        return STATUS_MEMORY;
    }
    ids = memory_resize(list->ids, capacity, sizeof(*ids));
    if (ids == NULL) {
        return STATUS_MEMORY;
    }
    list->ids = ids;
    list->capacity = (uint32_t)capacity;
    return STATUS_OK;
}

enum status id_list_append(struct id_list *list, const uint32_t *ids, uint32_t count)
{
    TRY(id_list_reserve(list, count));
    if (count > 0) {
        memcpy(list->ids + list->count, ids, count * sizeof(*ids));
        list->count += count;
    }
    return STATUS_OK;
}

enum status id_list_append_bytes(struct id_list *list, struct bytes bytes)
{
    const size_t count = bytes.size / sizeof(uint32_t);

    if (bytes.size % sizeof(uint32_t) != 0 || count > UINT32_MAX - list->count) {
        return STATUS_BAD_INPUT;
    }
    TRY(id_list_reserve(list, (uint32_t)count));
    if (count > 0) {
        memcpy(list->ids + list->count, bytes.data, bytes.size);
        list->count += (uint32_t)count;
    }
    return STATUS_OK;
}

void id_list_finish(struct id_list *list)
{
    memory_free(list->ids);
    memset(list, 0, sizeof(*list));
}
