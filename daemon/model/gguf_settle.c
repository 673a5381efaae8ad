#include <stdlib.h>

#include "model/gguf_inside.h"

enum { GGUF_ALIGNMENT_BYTES_DEFAULT = 32 };

int gguf_compare_names(struct bytes a, struct bytes b)
{
    const size_t size = a.size < b.size ? a.size : b.size;
    const int order = memcmp(a.data, b.data, size);

    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static int gguf_compare_entries(const void *a, const void *b)
{
    return gguf_compare_names(((const struct gguf_entry *)a)->key,
                              ((const struct gguf_entry *)b)->key);
}

static int gguf_compare_tensor_names(const void *a, const void *b)
{
    return gguf_compare_names((*(const struct model_tensor *const *)a)->name,
                              (*(const struct model_tensor *const *)b)->name);
}

static int gguf_compare_tensor_offsets(const void *a, const void *b)
{
    const struct model_tensor *left = *(const struct model_tensor *const *)a;
    const struct model_tensor *right = *(const struct model_tensor *const *)b;

    return (left->offset > right->offset) - (left->offset < right->offset);
}

uint64_t gguf_load_integer(uint32_t type, const uint8_t *from, bool *negative)
{
    uint64_t value = 0;

    switch (type) {
    case GGUF_U8:
    case GGUF_BOOL:
        value = from[0];
        break;
    case GGUF_I8:
        value = (uint64_t)(int8_t)from[0];
        break;
    case GGUF_U16:
        value = bytes_load_u16(from);
        break;
    case GGUF_I16:
        value = (uint64_t)(int16_t)bytes_load_u16(from);
        break;
    case GGUF_U32:
        value = bytes_load_u32(from);
        break;
    case GGUF_I32:
        value = (uint64_t)(int32_t)bytes_load_u32(from);
        break;
    default:
        value = bytes_load_u64(from);
        break;
    }
    *negative = type != GGUF_U64 && value > INT64_MAX;
    return value;
}

bool gguf_type_is_integer(uint32_t type)
{
    return type <= GGUF_I32 || type == GGUF_U64 || type == GGUF_I64;
}

static bool gguf_convert_i32(const struct gguf *gguf, const struct gguf_entry *entry, int32_t *to)
{
    const uint8_t *from = gguf->bytes + entry->value_at;

    for (uint64_t i = 0; i < entry->count; i++) {
        bool negative = false;
        const uint64_t value = gguf_load_integer(entry->element_type, from, &negative);
        const bool fits = negative ? (int64_t)value >= INT32_MIN : value <= INT32_MAX;
        if (!fits) {
            return false;
        }
        to[i] = (int32_t)(int64_t)value;
        from += gguf_type_bytes(entry->element_type);
    }
    return true;
}

static void gguf_convert_text(const struct gguf *gguf, const struct gguf_entry *entry,
                              struct bytes *to)
{
    size_t at = entry->value_at;

    for (uint64_t i = 0; i < entry->count; i++) {
        const uint64_t size = bytes_load_u64(gguf->bytes + at);
        to[i] = bytes_of(gguf->bytes + at + 8, size);
        at += 8 + size;
    }
}

/* Arrays that callers can ask for, aligned; `values` stays NULL for the others. */
static enum status gguf_convert_array(const struct gguf *gguf, struct gguf_entry *entry,
                                      struct error *error)
{
    const bool text = entry->element_type == GGUF_TEXT;
    const bool real = entry->element_type == GGUF_F32;

    if (!text && !real && !gguf_type_is_integer(entry->element_type)) {
        return STATUS_OK;
    }
    void *values = memory_alloc(entry->count, text ? sizeof(struct bytes) : 4);
    if (values == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory for key '%.*s'",
                         gguf->source.name, SHOWN(entry->key));
    }
    bool good = true;
    if (text) {
        gguf_convert_text(gguf, entry, values);
    } else if (real) {
        for (uint64_t i = 0; i < entry->count; i++) {
            const uint32_t bits = bytes_load_u32(gguf->bytes + entry->value_at + 4 * i);
            memcpy((float *)values + i, &bits, 4);
        }
    } else {
        good = gguf_convert_i32(gguf, entry, values);
    }
    if (!good) {
        memory_free(values);
        values = NULL;
    }
    entry->values = values;
    return STATUS_OK;
}

static enum status gguf_settle_entries(struct gguf *gguf, struct error *error)
{
    for (uint64_t i = 0; i < gguf->entry_count; i++) {
        struct gguf_entry *entry = &gguf->entries[i];
        entry->key = bytes_of(gguf->bytes + entry->key_at, entry->key.size);
        if (entry->type == GGUF_ARRAY) {
            TRY(gguf_convert_array(gguf, entry, error));
        }
    }
    qsort(gguf->entries, gguf->entry_count, sizeof(*gguf->entries), gguf_compare_entries);
    for (uint64_t i = 1; i < gguf->entry_count; i++) {
        if (gguf_compare_entries(&gguf->entries[i - 1], &gguf->entries[i]) == 0) {
            return error_set(error, STATUS_BAD_INPUT, "%s: key '%.*s' is there twice",
                             gguf->source.name, SHOWN(gguf->entries[i].key));
        }
    }
    return STATUS_OK;
}

static enum status gguf_alignment(const struct gguf *gguf, struct error *error, uint32_t *out)
{
    uint32_t alignment = GGUF_ALIGNMENT_BYTES_DEFAULT;
    const enum status status = gguf_get_u32(gguf, "general.alignment", error, &alignment);

    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        return status;
    }
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 ||
        alignment > MODEL_ALIGNMENT_BYTES_MAX) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: general.alignment is %u; it must be a power of two up to %d",
                         gguf->source.name, alignment, (int)MODEL_ALIGNMENT_BYTES_MAX);
    }
    *out = alignment;
    return STATUS_OK;
}

/* Relative offsets become absolute; none leaves the file, no two share a byte. */
static enum status gguf_check_offsets(struct gguf *gguf, uint32_t alignment, struct error *error)
{
    const uint64_t size = gguf->source.size;
    const uint64_t start = (gguf->at + alignment - 1) / alignment * alignment;
    const struct model_tensor **sorted = gguf->tensors_by_name;
    uint64_t end = 0;

    for (uint64_t i = 0; i < gguf->tensor_count; i++) {
        struct model_tensor *tensor = &gguf->tensors[i].tensor;
        const bool inside = start <= size && tensor->offset <= size - start &&
                            tensor->size_bytes <= size - start - tensor->offset;
        if (!inside || tensor->offset % alignment != 0) {
            return error_set(error, STATUS_BAD_INPUT, "%s: tensor '%.*s' at offset %llu %s",
                             gguf->source.name, SHOWN(tensor->name),
                             (unsigned long long)tensor->offset,
                             inside ? "is not aligned as the file says"
                                    : "lies outside the file; is the file complete?");
        }
        tensor->offset += start;
    }
    qsort(sorted, gguf->tensor_count, sizeof(*sorted), gguf_compare_tensor_offsets);
    for (uint64_t i = 0; i < gguf->tensor_count; i++) {
        if (i > 0 && (sorted[i]->offset < end || sorted[i]->offset == sorted[i - 1]->offset)) {
            return error_set(error, STATUS_BAD_INPUT, "%s: tensors '%.*s' and '%.*s' overlap",
                             gguf->source.name, SHOWN(sorted[i - 1]->name), SHOWN(sorted[i]->name));
        }
        end = sorted[i]->offset + sorted[i]->size_bytes;
    }
    return STATUS_OK;
}

static enum status gguf_settle_tensors(struct gguf *gguf, struct error *error)
{
    const struct model_tensor **sorted = gguf->tensors_by_name;
    uint32_t alignment = 0;

    TRY(gguf_alignment(gguf, error, &alignment));
    for (uint64_t i = 0; i < gguf->tensor_count; i++) {
        struct gguf_record *record = &gguf->tensors[i];
        record->tensor.name.data = gguf->bytes + record->name_at;
        sorted[i] = &record->tensor;
    }
    TRY(gguf_check_offsets(gguf, alignment, error));
    qsort(sorted, gguf->tensor_count, sizeof(*sorted), gguf_compare_tensor_names);
    for (uint64_t i = 1; i < gguf->tensor_count; i++) {
        if (gguf_compare_tensor_names(&sorted[i - 1], &sorted[i]) == 0) {
            return error_set(error, STATUS_BAD_INPUT, "%s: tensor '%.*s' is there twice",
                             gguf->source.name, SHOWN(sorted[i]->name));
        }
    }
    return STATUS_OK;
}

enum status gguf_settle(struct gguf *gguf, struct error *error)
{
    TRY(gguf_settle_entries(gguf, error));
    return gguf_settle_tensors(gguf, error);
}
