#include "model/gguf.h"

#include "model/gguf_inside.h"

/* ---- open and close ---- */

static enum status gguf_read(struct gguf *gguf, struct error *error, struct gguf **out)
{
    enum status status = gguf_walk(gguf, error);

    if (status == STATUS_OK) {
        status = gguf_settle(gguf, error);
    }
    if (status != STATUS_OK) {
        gguf_close(gguf);
        return status;
    }
    *out = gguf;
    return STATUS_OK;
}

static struct gguf *gguf_create(void)
{
    struct gguf *gguf = memory_alloc(1, sizeof(*gguf));

    if (gguf != NULL) {
        gguf->source.fd = -1;
    }
    return gguf;
}

enum status gguf_open(const char *path, struct error *error, struct gguf **out)
{
    struct gguf *gguf = gguf_create();

    if (gguf == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory", path);
    }
    const enum status status = source_open(path, error, &gguf->source);
    if (status != STATUS_OK) {
        gguf_close(gguf);
        return status;
    }
    return gguf_read(gguf, error, out);
}

enum status gguf_open_bytes(struct bytes file, const char *name, struct error *error,
                            struct gguf **out)
{
    struct gguf *gguf = gguf_create();

    if (gguf == NULL || source_open_bytes(file, name, &gguf->source) != STATUS_OK) {
        gguf_close(gguf);
        return error_set(error, STATUS_MEMORY, "%s: out of memory", name);
    }
    gguf->bytes = file.data;
    gguf->loaded_bytes = file.size;
    return gguf_read(gguf, error, out);
}

void gguf_close(struct gguf *gguf)
{
    if (gguf == NULL) {
        return;
    }
    for (uint64_t i = 0; gguf->entries != NULL && i < gguf->entry_count; i++) {
        memory_free(gguf->entries[i].values);
    }
    memory_free(gguf->entries);
    memory_free(gguf->tensors);
    memory_free(gguf->tensors_by_name);
    memory_free(gguf->block);
    source_close(&gguf->source);
    memory_free(gguf);
}

/* ---- metadata ---- */

static const struct gguf_entry *gguf_find(const struct gguf *gguf, const char *key)
{
    const size_t key_size = strlen(key);
    uint64_t from = 0;
    uint64_t to = gguf->entry_count;

    while (from < to) {
        const uint64_t middle = from + (to - from) / 2;
        const struct gguf_entry *entry = &gguf->entries[middle];
        const int order = gguf_compare_names(entry->key, bytes_of(key, key_size));
        if (order == 0) {
            return entry;
        }
        if (order < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return NULL;
}

static enum status gguf_find_required(const struct gguf *gguf, const char *key, struct error *error,
                                      const struct gguf_entry **out)
{
    const struct gguf_entry *entry = gguf_find(gguf, key);

    if (entry == NULL) {
        return error_set(error, STATUS_NOT_FOUND, "%s: key '%s' is missing", gguf->source.name,
                         key);
    }
    *out = entry;
    return STATUS_OK;
}

static enum status gguf_wrong_type(const struct gguf *gguf, const char *key, const char *wanted,
                                   struct error *error)
{
    return error_set(error, STATUS_BAD_INPUT, "%s: key '%s' is not %s", gguf->source.name, key,
                     wanted);
}

enum status gguf_get_u32(const struct gguf *gguf, const char *key, struct error *error,
                         uint32_t *out)
{
    const struct gguf_entry *entry = NULL;
    bool negative = false;

    TRY(gguf_find_required(gguf, key, error, &entry));
    if (!gguf_type_is_integer(entry->type)) {
        return gguf_wrong_type(gguf, key, "an integer", error);
    }
    const uint64_t value = gguf_load_integer(entry->type, gguf->bytes + entry->value_at, &negative);
    if (negative || value > UINT32_MAX) {
        return gguf_wrong_type(gguf, key, "an integer of 0 to 2^32 - 1", error);
    }
    *out = (uint32_t)value;
    return STATUS_OK;
}

enum status gguf_get_f64(const struct gguf *gguf, const char *key, struct error *error, double *out)
{
    const struct gguf_entry *entry = NULL;
    bool negative = false;

    TRY(gguf_find_required(gguf, key, error, &entry));
    const uint8_t *from = gguf->bytes + entry->value_at;
    if (entry->type == GGUF_F32) {
        const uint32_t bits = bytes_load_u32(from);
        float value = 0;
        memcpy(&value, &bits, sizeof(value));
        *out = (double)value;
    } else if (entry->type == GGUF_F64) {
        const uint64_t bits = bytes_load_u64(from);
        memcpy(out, &bits, sizeof(*out));
    } else if (gguf_type_is_integer(entry->type)) {
        const uint64_t value = gguf_load_integer(entry->type, from, &negative);
        *out = negative ? (double)(int64_t)value : (double)value;
    } else {
        return gguf_wrong_type(gguf, key, "a number", error);
    }
    return STATUS_OK;
}

enum status gguf_get_bool(const struct gguf *gguf, const char *key, struct error *error, bool *out)
{
    const struct gguf_entry *entry = NULL;

    TRY(gguf_find_required(gguf, key, error, &entry));
    if (entry->type != GGUF_BOOL || gguf->bytes[entry->value_at] > 1) {
        return gguf_wrong_type(gguf, key, "true or false", error);
    }
    *out = gguf->bytes[entry->value_at] == 1;
    return STATUS_OK;
}

enum status gguf_get_text(const struct gguf *gguf, const char *key, struct error *error,
                          struct bytes *out)
{
    const struct gguf_entry *entry = NULL;

    TRY(gguf_find_required(gguf, key, error, &entry));
    if (entry->type != GGUF_TEXT) {
        return gguf_wrong_type(gguf, key, "a text", error);
    }
    *out = bytes_of(gguf->bytes + entry->value_at, entry->count);
    return STATUS_OK;
}

/* The converted elements of an array. */
static enum status gguf_get_array(const struct gguf *gguf, const char *key, const char *wanted,
                                  bool (*is_wanted)(uint32_t type), struct error *error,
                                  const struct gguf_entry **out)
{
    const struct gguf_entry *entry = NULL;

    TRY(gguf_find_required(gguf, key, error, &entry));
    if (entry->type != GGUF_ARRAY || !is_wanted(entry->element_type) || entry->values == NULL) {
        return gguf_wrong_type(gguf, key, wanted, error);
    }
    *out = entry;
    return STATUS_OK;
}

static bool gguf_type_is_text(uint32_t type)
{
    return type == GGUF_TEXT;
}

static bool gguf_type_is_f32(uint32_t type)
{
    return type == GGUF_F32;
}

enum status gguf_get_text_array(const struct gguf *gguf, const char *key, struct error *error,
                                const struct bytes **out, uint64_t *count)
{
    const struct gguf_entry *entry = NULL;

    TRY(gguf_get_array(gguf, key, "an array of texts", gguf_type_is_text, error, &entry));
    *out = entry->values;
    *count = entry->count;
    return STATUS_OK;
}

enum status gguf_get_i32_array(const struct gguf *gguf, const char *key, struct error *error,
                               const int32_t **out, uint64_t *count)
{
    const struct gguf_entry *entry = NULL;

    TRY(gguf_get_array(gguf, key, "an array of integers of 32 bits", gguf_type_is_integer, error,
                       &entry));
    *out = entry->values;
    *count = entry->count;
    return STATUS_OK;
}

enum status gguf_get_f32_array(const struct gguf *gguf, const char *key, struct error *error,
                               const float **out, uint64_t *count)
{
    const struct gguf_entry *entry = NULL;

    TRY(gguf_get_array(gguf, key, "an array of 32-bit floats", gguf_type_is_f32, error, &entry));
    *out = entry->values;
    *count = entry->count;
    return STATUS_OK;
}

/* ---- tensors ---- */

const struct model_tensor *gguf_tensor_find(const struct gguf *gguf, const char *name)
{
    const struct bytes wanted = bytes_of_text(name);
    uint64_t from = 0;
    uint64_t to = gguf->tensor_count;

    while (from < to) {
        const uint64_t middle = from + (to - from) / 2;
        const int order = gguf_compare_names(gguf->tensors_by_name[middle]->name, wanted);
        if (order == 0) {
            return gguf->tensors_by_name[middle];
        }
        if (order < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return NULL;
}

uint64_t gguf_tensor_count(const struct gguf *gguf)
{
    return gguf->tensor_count;
}

const struct model_tensor *gguf_tensor_at(const struct gguf *gguf, uint64_t index)
{
    CHECK(index < gguf->tensor_count);
    return &gguf->tensors[index].tensor;
}

enum status gguf_tensor_read(const struct gguf *gguf, const struct model_tensor *tensor,
                             struct error *error, void *to)
{
    if (dtype_block_elements(tensor->dtype) == 0) {
        return error_set(error, STATUS_UNSUPPORTED,
                         "%s: tensor '%.*s' has storage type %u, which is not supported",
                         gguf->source.name, SHOWN(tensor->name), tensor->dtype);
    }
    return source_read(&gguf->source, tensor->offset, tensor->size_bytes, error, to);
}

enum status gguf_hash(struct gguf *gguf, struct error *error, uint8_t out[32])
{
    if (!gguf->hashed) {
        TRY(source_hash(&gguf->source, error, gguf->hash));
        gguf->hashed = true;
    }
    memcpy(out, gguf->hash, sizeof(gguf->hash));
    return STATUS_OK;
}

const char *gguf_name(const struct gguf *gguf)
{
    return gguf->source.name;
}
