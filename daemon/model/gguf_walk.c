#include "model/gguf_inside.h"

enum {
    GGUF_LOAD_BYTES_MIN = 64 * 1024,
    GGUF_DIMENSION_COUNT_MAX = 4,
    GGUF_ENTRY_BYTES_MIN = 8 + 4 + 1,
    GGUF_TENSOR_BYTES_MIN = 8 + 4 + 8 + 4 + 8,
};

static const uint8_t type_bytes[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
    [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
};

uint32_t gguf_type_bytes(uint32_t type)
{
    return type < GGUF_TYPE_COUNT ? type_bytes[type] : 0;
}

static enum status gguf_memory(const struct gguf *gguf, struct error *error)
{
    return error_set(error, STATUS_MEMORY, "%s: out of memory while its header is read",
                     gguf->source.name);
}

/* Makes the next `count` bytes of the header readable. */
static enum status gguf_need(struct gguf *gguf, uint64_t count, struct error *error)
{
    const uint64_t size = gguf->source.size;

    CHECK(gguf->at <= gguf->loaded_bytes);
    if (count <= gguf->loaded_bytes - gguf->at) {
        return STATUS_OK;
    }
    if (count > size - gguf->at) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: is cut short: its header needs %llu bytes at offset %zu, the file "
                         "has %llu",
                         gguf->source.name, (unsigned long long)count, gguf->at,
                         (unsigned long long)size);
    }
    if (count > MODEL_METADATA_BYTES_MAX || gguf->at > MODEL_METADATA_BYTES_MAX - count) {
        return error_set_limit(error, "MODEL_METADATA_BYTES_MAX", MODEL_METADATA_BYTES_MAX,
                               "%s: its header is larger than %d bytes", gguf->source.name,
                               (int)MODEL_METADATA_BYTES_MAX);
    }
    /* Memory is borrowed whole, so only a file comes here. */
    CHECK(gguf->source.fd >= 0);
    uint64_t want = gguf->at + count;
    if (want < 2 * (uint64_t)gguf->loaded_bytes) {
        want = 2 * (uint64_t)gguf->loaded_bytes;
    }
    want = want < GGUF_LOAD_BYTES_MIN ? GGUF_LOAD_BYTES_MIN : want;
    want = want > size ? size : want;
    uint8_t *block = memory_resize(gguf->block, want, 1);
    if (block == NULL) {
        return gguf_memory(gguf, error);
    }
    gguf->block = block;
    gguf->bytes = block;
    TRY(source_read(&gguf->source, gguf->loaded_bytes, want - gguf->loaded_bytes, error,
                    block + gguf->loaded_bytes));
    gguf->loaded_bytes = want;
    return STATUS_OK;
}

static enum status gguf_take_u32(struct gguf *gguf, struct error *error, uint32_t *out)
{
    TRY(gguf_need(gguf, 4, error));
    *out = bytes_load_u32(gguf->bytes + gguf->at);
    gguf->at += 4;
    return STATUS_OK;
}

static enum status gguf_take_u64(struct gguf *gguf, struct error *error, uint64_t *out)
{
    TRY(gguf_need(gguf, 8, error));
    *out = bytes_load_u64(gguf->bytes + gguf->at);
    gguf->at += 8;
    return STATUS_OK;
}

/* A length and its bytes. */
static enum status gguf_take_text(struct gguf *gguf, struct error *error, size_t *text_at,
                                  uint64_t *size)
{
    uint64_t count = 0;

    TRY(gguf_take_u64(gguf, error, &count));
    TRY(gguf_need(gguf, count, error));
    *text_at = gguf->at;
    *size = count;
    gguf->at += count;
    return STATUS_OK;
}

/* A key or a tensor's name: printable, so that it can stand in a sentence. */
static enum status gguf_take_name(struct gguf *gguf, const char *what, uint64_t index,
                                  struct error *error, size_t *name_at, size_t *size)
{
    uint64_t count = 0;

    TRY(gguf_take_text(gguf, error, name_at, &count));
    bool good = count > 0 && count <= MODEL_NAME_BYTES_MAX;
    for (uint64_t i = 0; good && i < count; i++) {
        const uint8_t byte = gguf->bytes[*name_at + i];
        good = byte >= 0x20 && byte <= 0x7e;
    }
    if (!good) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: the name of %s number %llu is not 1 to %d printable characters",
                         gguf->source.name, what, (unsigned long long)index,
                         (int)MODEL_NAME_BYTES_MAX);
    }
    *size = count;
    return STATUS_OK;
}

static struct bytes gguf_entry_key(const struct gguf *gguf, const struct gguf_entry *entry)
{
    return bytes_of(gguf->bytes + entry->key_at, entry->key.size);
}

static enum status gguf_walk_array(struct gguf *gguf, struct gguf_entry *entry, struct error *error)
{
    TRY(gguf_take_u32(gguf, error, &entry->element_type));
    TRY(gguf_take_u64(gguf, error, &entry->count));
    const struct bytes key = gguf_entry_key(gguf, entry);
    if (entry->element_type >= GGUF_TYPE_COUNT || entry->element_type == GGUF_ARRAY) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: key '%.*s' is an array of elements of type %u, which is not known",
                         gguf->source.name, SHOWN(key), entry->element_type);
    }
    const bool text = entry->element_type == GGUF_TEXT;
    const uint64_t element_bytes = text ? 8 : gguf_type_bytes(entry->element_type);
    if (entry->count > (gguf->source.size - gguf->at) / element_bytes) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: key '%.*s' claims %llu elements, more than the file can hold",
                         gguf->source.name, SHOWN(key), (unsigned long long)entry->count);
    }
    entry->value_at = gguf->at;
    if (!text) {
        TRY(gguf_need(gguf, entry->count * element_bytes, error));
        gguf->at += entry->count * element_bytes;
        return STATUS_OK;
    }
    for (uint64_t i = 0; i < entry->count; i++) {
        size_t text_at = 0;
        uint64_t size = 0;
        TRY(gguf_take_text(gguf, error, &text_at, &size));
    }
    return STATUS_OK;
}

static enum status gguf_walk_entry(struct gguf *gguf, uint64_t index, struct error *error)
{
    struct gguf_entry *entry = &gguf->entries[index];

    TRY(gguf_take_name(gguf, "key", index, error, &entry->key_at, &entry->key.size));
    TRY(gguf_take_u32(gguf, error, &entry->type));
    if (entry->type >= GGUF_TYPE_COUNT) {
        const struct bytes key = gguf_entry_key(gguf, entry);
        return error_set(error, STATUS_BAD_INPUT, "%s: key '%.*s' has type %u, which is not known",
                         gguf->source.name, SHOWN(key), entry->type);
    }
    if (entry->type == GGUF_ARRAY) {
        return gguf_walk_array(gguf, entry, error);
    }
    if (entry->type == GGUF_TEXT) {
        return gguf_take_text(gguf, error, &entry->value_at, &entry->count);
    }
    TRY(gguf_need(gguf, gguf_type_bytes(entry->type), error));
    entry->value_at = gguf->at;
    gguf->at += gguf_type_bytes(entry->type);
    return STATUS_OK;
}

/* The bytes that the elements take; 0 for a type that is not in the map. */
static enum status gguf_tensor_measure(const struct gguf *gguf, struct model_tensor *tensor,
                                       struct bytes name, struct error *error)
{
    const uint32_t block_elements = dtype_block_elements(tensor->dtype);
    uint64_t rows = 1;

    tensor->size_bytes = 0;
    if (block_elements == 0) {
        return STATUS_OK;
    }
    if (tensor->dimensions[0] % block_elements != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: tensor '%.*s' has rows of %llu elements; its type %s needs a "
                         "multiple of %u",
                         gguf->source.name, SHOWN(name), (unsigned long long)tensor->dimensions[0],
                         dtype_name(tensor->dtype), block_elements);
    }
    const uint64_t row_blocks = tensor->dimensions[0] / block_elements;
    const uint64_t row_blocks_max = gguf->source.size / dtype_block_bytes(tensor->dtype);
    for (uint32_t i = 1; i < GGUF_DIMENSION_COUNT_MAX; i++) {
        rows *= tensor->dimensions[i]; /* the product was checked */
    }
    if (rows > row_blocks_max / row_blocks) {
        return error_set(error, STATUS_BAD_INPUT, "%s: tensor '%.*s' is larger than the file",
                         gguf->source.name, SHOWN(name));
    }
    tensor->size_bytes = rows * row_blocks * dtype_block_bytes(tensor->dtype);
    return STATUS_OK;
}

static enum status gguf_walk_tensor(struct gguf *gguf, uint64_t index, struct error *error)
{
    struct model_tensor *tensor = &gguf->tensors[index].tensor;
    size_t *name_at = &gguf->tensors[index].name_at;
    uint64_t elements = 1;
    bool good = true;

    TRY(gguf_take_name(gguf, "tensor", index, error, name_at, &tensor->name.size));
    TRY(gguf_take_u32(gguf, error, &tensor->dimension_count));
    good = tensor->dimension_count >= 1 && tensor->dimension_count <= GGUF_DIMENSION_COUNT_MAX;
    for (uint32_t i = 0; i < GGUF_DIMENSION_COUNT_MAX; i++) {
        tensor->dimensions[i] = 1;
        if (good && i < tensor->dimension_count) {
            TRY(gguf_take_u64(gguf, error, &tensor->dimensions[i]));
            good = tensor->dimensions[i] > 0 && tensor->dimensions[i] <= INT64_MAX / elements;
            elements = good ? elements * tensor->dimensions[i] : 1;
        }
    }
    const struct bytes name = bytes_of(gguf->bytes + *name_at, tensor->name.size);
    if (!good) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: tensor '%.*s' needs 1 to %d dimensions, none of them 0, whose "
                         "product fits 63 bits",
                         gguf->source.name, SHOWN(name), (int)GGUF_DIMENSION_COUNT_MAX);
    }
    TRY(gguf_take_u32(gguf, error, &tensor->dtype));
    TRY(gguf_take_u64(gguf, error, &tensor->offset));
    return gguf_tensor_measure(gguf, tensor, name, error);
}

/* A count is believed only as far as the rest of the file could hold it. */
static enum status gguf_check_count(const struct gguf *gguf, const char *what, uint64_t count,
                                    uint64_t bytes_min, const char *limit, uint32_t count_max,
                                    struct error *error)
{
    if (count > (gguf->source.size - gguf->at) / bytes_min) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: claims %llu %ss, more than the file can hold", gguf->source.name,
                         (unsigned long long)count, what);
    }
    if (count > count_max) {
        return error_set_limit(error, limit, count_max, "%s: has %llu %ss, at most %u are read",
                               gguf->source.name, (unsigned long long)count, what, count_max);
    }
    return STATUS_OK;
}

static enum status gguf_walk_start(struct gguf *gguf, struct error *error)
{
    uint32_t version = 0;

    if (gguf->source.size < 4) {
        return error_set(error, STATUS_BAD_INPUT, "%s: is too short for a GGUF file",
                         gguf->source.name);
    }
    TRY(gguf_need(gguf, 4, error));
    if (memcmp(gguf->bytes, "GGUF", 4) != 0) {
        return error_set(error, STATUS_BAD_INPUT, "%s: is not a GGUF file", gguf->source.name);
    }
    gguf->at = 4;
    TRY(gguf_take_u32(gguf, error, &version));
    if (version != 2 && version != 3) {
        const bool swapped = (version & 0xffff) == 0;
        return error_set(error, STATUS_UNSUPPORTED, "%s: %s; versions 2 and 3 are read",
                         gguf->source.name,
                         swapped ? "is a big-endian GGUF file" : "is GGUF of another version");
    }
    TRY(gguf_take_u64(gguf, error, &gguf->tensor_count));
    TRY(gguf_take_u64(gguf, error, &gguf->entry_count));
    TRY(gguf_check_count(gguf, "key", gguf->entry_count, GGUF_ENTRY_BYTES_MIN,
                         "MODEL_KEY_COUNT_MAX", MODEL_KEY_COUNT_MAX, error));
    return gguf_check_count(gguf, "tensor", gguf->tensor_count, GGUF_TENSOR_BYTES_MIN,
                            "MODEL_TENSOR_COUNT_MAX", MODEL_TENSOR_COUNT_MAX, error);
}

/* What was read ahead of the header's end, up to half of the block, is not kept. */
static void gguf_trim(struct gguf *gguf)
{
    uint8_t *block = gguf->block == NULL ? NULL : memory_resize(gguf->block, gguf->at, 1);

    if (block != NULL) {
        gguf->block = block;
        gguf->bytes = block;
        gguf->loaded_bytes = gguf->at;
    }
}

enum status gguf_walk(struct gguf *gguf, struct error *error)
{
    TRY(gguf_walk_start(gguf, error));
    gguf->entries = memory_alloc(gguf->entry_count, sizeof(*gguf->entries));
    gguf->tensors = memory_alloc(gguf->tensor_count, sizeof(*gguf->tensors));
    gguf->tensors_by_name = memory_alloc(gguf->tensor_count, sizeof(*gguf->tensors_by_name));
    if (gguf->entries == NULL || gguf->tensors == NULL || gguf->tensors_by_name == NULL) {
        return gguf_memory(gguf, error);
    }
    for (uint64_t i = 0; i < gguf->entry_count; i++) {
        TRY(gguf_walk_entry(gguf, i, error));
    }
    for (uint64_t i = 0; i < gguf->tensor_count; i++) {
        TRY(gguf_walk_tensor(gguf, i, error));
    }
    gguf_trim(gguf);
    return STATUS_OK;
}
