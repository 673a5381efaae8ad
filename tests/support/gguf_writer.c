#include "support/gguf_writer.h"

#include "base/check.h"
#include "base/memory.h"
#include "kernels/dtype.h"

enum {
    WRITER_BYTES_MAX = 64 * 1024 * 1024, /* of the header */
    WRITER_TENSOR_COUNT_MAX = 4096,
    WRITER_ALIGNMENT_BYTES = 32,
    WRITER_U32 = 4,
    WRITER_I32 = 5,
    WRITER_F32 = 6,
    WRITER_BOOL = 7,
    WRITER_TEXT = 8,
    WRITER_ARRAY = 9,
};

struct gguf_writer {
    struct buffer keys;
    struct buffer tensors;
    uint64_t key_count;
    uint32_t tensor_count;
    uint64_t data_bytes;
    uint64_t offsets[WRITER_TENSOR_COUNT_MAX]; /* in the data */
    uint64_t sizes[WRITER_TENSOR_COUNT_MAX];
    uint8_t *file; /* owned, once finished */
    uint64_t data_at;
};

struct gguf_writer *gguf_writer_create(void)
{
    struct gguf_writer *writer = memory_alloc(1, sizeof(*writer));

    CHECK(writer != NULL);
    buffer_init(&writer->keys, WRITER_BYTES_MAX);
    buffer_init(&writer->tensors, WRITER_BYTES_MAX);
    return writer;
}

void gguf_writer_destroy(struct gguf_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    buffer_finish(&writer->keys);
    buffer_finish(&writer->tensors);
    memory_free(writer->file);
    memory_free(writer);
}

static void writer_put(struct buffer *to, const void *bytes, size_t size)
{
    CHECK(buffer_append(to, bytes_of(bytes, size)) == STATUS_OK);
}

static void writer_put_u32(struct buffer *to, uint32_t value)
{
    uint8_t bytes[4];

    bytes_store_u32(bytes, value);
    writer_put(to, bytes, sizeof(bytes));
}

static void writer_put_u64(struct buffer *to, uint64_t value)
{
    uint8_t bytes[8];

    bytes_store_u64(bytes, value);
    writer_put(to, bytes, sizeof(bytes));
}

static void writer_put_text(struct buffer *to, struct bytes text)
{
    writer_put_u64(to, text.size);
    writer_put(to, text.data, text.size);
}

static struct buffer *writer_put_key(struct gguf_writer *writer, const char *key, uint32_t type)
{
    CHECK(writer->file == NULL);
    writer->key_count++;
    writer_put_text(&writer->keys, bytes_of_text(key));
    writer_put_u32(&writer->keys, type);
    return &writer->keys;
}

static struct buffer *writer_put_array(struct gguf_writer *writer, const char *key, uint32_t type,
                                       uint64_t count)
{
    struct buffer *to = writer_put_key(writer, key, WRITER_ARRAY);

    writer_put_u32(to, type);
    writer_put_u64(to, count);
    return to;
}

void gguf_writer_add_u32(struct gguf_writer *writer, const char *key, uint32_t value)
{
    writer_put_u32(writer_put_key(writer, key, WRITER_U32), value);
}

void gguf_writer_add_f32(struct gguf_writer *writer, const char *key, float value)
{
    writer_put(writer_put_key(writer, key, WRITER_F32), &value, sizeof(value));
}

void gguf_writer_add_bool(struct gguf_writer *writer, const char *key, bool value)
{
    const uint8_t byte = value ? 1 : 0;

    writer_put(writer_put_key(writer, key, WRITER_BOOL), &byte, 1);
}

void gguf_writer_add_text(struct gguf_writer *writer, const char *key, struct bytes value)
{
    writer_put_text(writer_put_key(writer, key, WRITER_TEXT), value);
}

void gguf_writer_add_text_array(struct gguf_writer *writer, const char *key,
                                const struct bytes *values, uint64_t count)
{
    struct buffer *to = writer_put_array(writer, key, WRITER_TEXT, count);

    for (uint64_t i = 0; i < count; i++) {
        writer_put_text(to, values[i]);
    }
}

void gguf_writer_add_i32_array(struct gguf_writer *writer, const char *key, const int32_t *values,
                               uint64_t count)
{
    writer_put(writer_put_array(writer, key, WRITER_I32, count), values, count * sizeof(*values));
}

void gguf_writer_add_f32_array(struct gguf_writer *writer, const char *key, const float *values,
                               uint64_t count)
{
    writer_put(writer_put_array(writer, key, WRITER_F32, count), values, count * sizeof(*values));
}

uint32_t gguf_writer_add_tensor(struct gguf_writer *writer, struct bytes name, uint32_t dtype,
                                uint64_t cols, uint64_t rows)
{
    const uint32_t index = writer->tensor_count++;
    const uint64_t elements = cols * (rows == 0 ? 1 : rows);

    CHECK(writer->file == NULL);
    CHECK(index < WRITER_TENSOR_COUNT_MAX);
    CHECK(cols % dtype_block_elements(dtype) == 0);
    writer->offsets[index] = writer->data_bytes;
    writer->sizes[index] = elements / dtype_block_elements(dtype) * dtype_block_bytes(dtype);
    writer_put_text(&writer->tensors, name);
    writer_put_u32(&writer->tensors, rows == 0 ? 1 : 2);
    writer_put_u64(&writer->tensors, cols);
    if (rows != 0) {
        writer_put_u64(&writer->tensors, rows);
    }
    writer_put_u32(&writer->tensors, dtype);
    writer_put_u64(&writer->tensors, writer->data_bytes);
    writer->data_bytes += writer->sizes[index];
    writer->data_bytes = (writer->data_bytes + WRITER_ALIGNMENT_BYTES - 1) /
                         WRITER_ALIGNMENT_BYTES * WRITER_ALIGNMENT_BYTES;
    return index;
}

struct bytes gguf_writer_finish(struct gguf_writer *writer)
{
    const uint64_t header_bytes = 24 + writer->keys.size + writer->tensors.size;

    CHECK(writer->file == NULL);
    writer->data_at = (header_bytes + WRITER_ALIGNMENT_BYTES - 1) / WRITER_ALIGNMENT_BYTES *
                      WRITER_ALIGNMENT_BYTES;
    writer->file = memory_alloc_aligned(64, 1, writer->data_at + writer->data_bytes);
    CHECK(writer->file != NULL);
    memcpy(writer->file, "GGUF", 4);
    bytes_store_u32(writer->file + 4, 3);
    bytes_store_u64(writer->file + 8, writer->tensor_count);
    bytes_store_u64(writer->file + 16, writer->key_count);
    memcpy(writer->file + 24, writer->keys.data, writer->keys.size);
    if (writer->tensors.size > 0) {
        memcpy(writer->file + 24 + writer->keys.size, writer->tensors.data, writer->tensors.size);
    }
    return bytes_of(writer->file, writer->data_at + writer->data_bytes);
}

uint8_t *gguf_writer_tensor(struct gguf_writer *writer, uint32_t index, uint64_t *size_bytes)
{
    CHECK(writer->file != NULL);
    CHECK(index < writer->tensor_count);
    *size_bytes = writer->sizes[index];
    return writer->file + writer->data_at + writer->offsets[index];
}
