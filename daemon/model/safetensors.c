#include "model/safetensors.h"

#include <stdlib.h>

#include "base/memory.h"
#include "kernels/dtype.h"
#include "limits.h"
#include "model/hf_json.h"

enum {
    LENGTH_BYTES = 8,
    DIMENSION_COUNT_MAX = 4,
    NAMES_BYTES_MAX = 2 * SAFETENSORS_HEADER_BYTES_MAX,
};

static const struct {
    const char *name;
    uint32_t dtype;
} dtypes[] = {{"F32", DTYPE_F32}, {"F16", DTYPE_F16}, {"BF16", DTYPE_BF16}};

enum { KNOWN_COUNT = sizeof(dtypes) / sizeof(dtypes[0]) };

static enum status wrong(const struct safetensors *file, struct bytes name, enum status status,
                         struct error *error, const char *rest)
{
    return error_set(error, status, "%s: tensor '%.*s' %s", file->source.name, SHOWN(name), rest);
}

static enum status read_dtype(const struct safetensors *file, const json_t *json,
                              struct model_tensor *tensor, struct error *error)
{
    const char *text = json_string_value(json_object_get(json, "dtype"));

    if (text == NULL) {
        return wrong(file, tensor->name, STATUS_BAD_INPUT, error, "has no dtype");
    }
    for (int i = 0; i < KNOWN_COUNT; i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            tensor->dtype = dtypes[i].dtype;
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_UNSUPPORTED,
                     "%s: tensor '%.*s' has dtype '%.16s'; F32, F16 and BF16 are supported",
                     file->source.name, SHOWN(tensor->name), text);
}

/* Rows first in the file, columns first in ours. *elements: their product, below 2^63. */
static enum status read_shape(const struct safetensors *file, const json_t *json,
                              struct model_tensor *tensor, struct error *error, uint64_t *elements)
{
    const json_t *shape = json_object_get(json, "shape");
    const size_t count = json_array_size(shape);
    uint64_t product = 1;

    if (!json_is_array(shape) || count > DIMENSION_COUNT_MAX) {
        return wrong(file, tensor->name, STATUS_BAD_INPUT, error,
                     "needs a shape of at most 4 dimensions");
    }
    for (size_t i = 0; i < DIMENSION_COUNT_MAX; i++) {
        tensor->dimensions[i] = 1;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(shape, i);
        const json_int_t size = json_is_integer(value) ? json_integer_value(value) : 0;
        if (size < 1 || (uint64_t)size > INT64_MAX / product) {
            return wrong(file, tensor->name, STATUS_BAD_INPUT, error,
                         "has a shape whose sizes are not above 0, or too large together");
        }
        tensor->dimensions[count - 1 - i] = (uint64_t)size;
        product *= (uint64_t)size;
    }
    tensor->dimension_count = count == 0 ? 1 : (uint32_t)count;
    *elements = product;
    return STATUS_OK;
}

static enum status read_offsets(const struct safetensors *file, const json_t *json,
                                uint64_t data_start, uint64_t elements, struct model_tensor *tensor,
                                struct error *error)
{
    const json_t *offsets = json_object_get(json, "data_offsets");
    const json_t *first = json_array_get(offsets, 0);
    const json_t *second = json_array_get(offsets, 1);
    const uint64_t data_bytes = file->source.size - data_start;

    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second)) {
        return wrong(file, tensor->name, STATUS_BAD_INPUT, error,
                     "needs data_offsets of two integers");
    }
    const json_int_t from = json_integer_value(first);
    const json_int_t to = json_integer_value(second);
    if (from < 0 || to < from || (uint64_t)to > data_bytes) {
        return wrong(file, tensor->name, STATUS_BAD_INPUT, error,
                     "lies outside the file; is the file complete?");
    }
    if ((uint64_t)(to - from) / dtype_block_bytes(tensor->dtype) != elements ||
        (uint64_t)(to - from) % dtype_block_bytes(tensor->dtype) != 0) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: tensor '%.*s' has %llu bytes; its shape of %llu elements of %s needs "
                         "another number",
                         file->source.name, SHOWN(tensor->name), (unsigned long long)(to - from),
                         (unsigned long long)elements, dtype_name(tensor->dtype));
    }
    tensor->offset = data_start + (uint64_t)from;
    tensor->size_bytes = (uint64_t)(to - from);
    return STATUS_OK;
}

/* Printable, so that it can stand in a sentence, and copied, since the document goes. */
static enum status read_name(struct safetensors *file, const char *name, size_t size,
                             struct model_tensor *tensor, struct error *error)
{
    bool good = size > 0 && size <= MODEL_NAME_BYTES_MAX;

    for (size_t i = 0; good && i < size; i++) {
        good = (uint8_t)name[i] >= 0x20 && (uint8_t)name[i] <= 0x7e;
    }
    if (!good) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: a tensor's name is not 1 to %d printable characters",
                         file->source.name, (int)MODEL_NAME_BYTES_MAX);
    }
    const char *copy = arena_copy(&file->names, name, size);
    if (copy == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory", file->source.name);
    }
    tensor->name = bytes_of(copy, size);
    return STATUS_OK;
}

static enum status read_tensors(struct safetensors *file, json_t *root, uint64_t data_start,
                                struct error *error)
{
    const char *name = NULL;
    size_t size = 0;
    json_t *json = NULL;

    if (json_object_size(root) > MODEL_TENSOR_COUNT_MAX) {
        return error_set_limit(error, "MODEL_TENSOR_COUNT_MAX", MODEL_TENSOR_COUNT_MAX,
                               "%s: has %zu tensors, at most %d are read", file->source.name,
                               json_object_size(root), (int)MODEL_TENSOR_COUNT_MAX);
    }
    file->tensors = memory_alloc(json_object_size(root), sizeof(*file->tensors));
    if (file->tensors == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory", file->source.name);
    }
    json_object_keylen_foreach(root, name, size, json)
    {
        struct model_tensor *tensor = &file->tensors[file->tensor_count];
        uint64_t elements = 0;
        if (strcmp(name, "__metadata__") == 0) {
            continue;
        }
        TRY(read_name(file, name, size, tensor, error));
        if (!json_is_object(json)) {
            return wrong(file, tensor->name, STATUS_BAD_INPUT, error, "is not an object");
        }
        TRY(read_dtype(file, json, tensor, error));
        TRY(read_shape(file, json, tensor, error, &elements));
        TRY(read_offsets(file, json, data_start, elements, tensor, error));
        file->tensor_count++;
    }
    return STATUS_OK;
}

static int compare_offsets(const void *left, const void *right)
{
    const struct model_tensor *a = left;
    const struct model_tensor *b = right;

    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* Tensors fill the file: a gap could hide what another reader sees, an overlap is a lie. */
static enum status check_layout(const struct safetensors *file, uint64_t data_start,
                                struct error *error)
{
    uint64_t end = data_start;

    qsort(file->tensors, file->tensor_count, sizeof(*file->tensors), compare_offsets);
    for (uint64_t i = 0; i < file->tensor_count; i++) {
        const struct model_tensor *tensor = &file->tensors[i];
        if (tensor->offset != end) {
            return wrong(file, tensor->name, STATUS_BAD_INPUT, error,
                         tensor->offset < end ? "overlaps another" : "has a gap before it");
        }
        end = tensor->offset + tensor->size_bytes;
    }
    if (end != file->source.size) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: has %llu bytes, its tensors end at %llu; is the file complete?",
                         file->source.name, (unsigned long long)file->source.size,
                         (unsigned long long)end);
    }
    return STATUS_OK;
}

static enum status read_header(struct safetensors *file, struct error *error, json_t **out,
                               uint64_t *data_start)
{
    const struct source *source = &file->source;
    uint8_t length[LENGTH_BYTES];

    if (source->size < LENGTH_BYTES) {
        return error_set(error, STATUS_BAD_INPUT, "%s: is too short for a safetensors file",
                         source->name);
    }
    TRY(source_read(source, 0, LENGTH_BYTES, error, length));
    const uint64_t size = bytes_load_u64(length);
    if (size > source->size - LENGTH_BYTES) {
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: its header claims %llu bytes, the file has %llu; is it a complete "
                         "safetensors file?",
                         source->name, (unsigned long long)size, (unsigned long long)source->size);
    }
    if (size > SAFETENSORS_HEADER_BYTES_MAX) {
        return error_set_limit(error, "SAFETENSORS_HEADER_BYTES_MAX", SAFETENSORS_HEADER_BYTES_MAX,
                               "%s: its header is larger than %d bytes", source->name,
                               (int)SAFETENSORS_HEADER_BYTES_MAX);
    }
    uint8_t *text = memory_alloc(size, 1);
    if (text == NULL) {
        return error_set(error, STATUS_MEMORY, "%s: out of memory", source->name);
    }
    enum status status = source_read(source, LENGTH_BYTES, size, error, text);
    if (status == STATUS_OK) {
        status = hf_json_parse(bytes_of(text, size), source->name, error, out);
    }
    memory_free(text);
    *data_start = LENGTH_BYTES + size;
    return status;
}

enum status safetensors_init(struct safetensors *file, struct source source, struct error *error)
{
    uint64_t data_start = 0;
    json_t *root = NULL;

    *file = (struct safetensors){.source = source};
    arena_init(&file->names, NAMES_BYTES_MAX);
    enum status status = read_header(file, error, &root, &data_start);
    if (status == STATUS_OK) {
        status = read_tensors(file, root, data_start, error);
    }
    if (status == STATUS_OK) {
        status = check_layout(file, data_start, error);
    }
    json_decref(root);
    if (status != STATUS_OK) {
        safetensors_finish(file);
    }
    return status;
}

void safetensors_finish(struct safetensors *file)
{
    memory_free(file->tensors);
    arena_finish(&file->names);
    source_close(&file->source);
    file->tensors = NULL;
    file->tensor_count = 0;
}
