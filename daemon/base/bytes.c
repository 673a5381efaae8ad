#include "base/bytes.h"

#include "base/check.h"
#include "base/memory.h"

enum { BUFFER_CAPACITY_MIN = 64 };

bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

uint16_t bytes_load_u16(const uint8_t *from)
{
    return (uint16_t)(from[0] | from[1] << 8);
}

uint32_t bytes_load_u32(const uint8_t *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

uint64_t bytes_load_u64(const uint8_t *from)
{
    return (uint64_t)bytes_load_u32(from) | (uint64_t)bytes_load_u32(from + 4) << 32;
}

void bytes_store_u32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)value;
    to[1] = (uint8_t)(value >> 8);
    to[2] = (uint8_t)(value >> 16);
    to[3] = (uint8_t)(value >> 24);
}

void bytes_store_u64(uint8_t *to, uint64_t value)
{
    bytes_store_u32(to, (uint32_t)value);
    bytes_store_u32(to + 4, (uint32_t)(value >> 32));
}

static bool is_continuation(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

size_t utf8_decode(struct bytes text, uint32_t *code_point)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *at = text.data;
    uint32_t value;
    size_t length;

    if (text.size == 0) {
        return 0;
    }
    if (at[0] < 0x80) {
        *code_point = at[0];
        return 1;
    }
    if ((at[0] & 0xE0) == 0xC0) {
        length = 2;
    } else if ((at[0] & 0xF0) == 0xE0) {
        length = 3;
    } else if (at[0] >= 0xF0 && at[0] <= 0xF4) {
        length = 4;
    } else {
        return 0;
    }
    if (text.size < length) {
        return 0;
    }
    value = at[0] & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if (!is_continuation(at[i])) {
            return 0;
        }
        value = value << 6 | (at[i] & 0x3Fu);
    }
    if (value < least[length] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return 0;
    }
    *code_point = value;
    return length;
}

size_t utf8_valid_prefix_bytes(struct bytes text)
{
    size_t offset = 0;
    uint32_t code_point;

    while (offset < text.size) {
        const size_t length =
            utf8_decode(bytes_of(text.data + offset, text.size - offset), &code_point);

        if (length == 0) {
            break;
        }
        offset += length;
    }
    return offset;
}

bool utf8_is_valid(struct bytes text)
{
    return utf8_valid_prefix_bytes(text) == text.size;
}

size_t utf8_encode(uint32_t code_point, uint8_t out[4])
{
    CHECK(code_point <= 0x10FFFF);
    CHECK(code_point < 0xD800 || code_point > 0xDFFF);
    if (code_point < 0x80) {
        out[0] = (uint8_t)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (uint8_t)(0xC0 | code_point >> 6);
        out[1] = (uint8_t)(0x80 | (code_point & 0x3F));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (uint8_t)(0xE0 | code_point >> 12);
        out[1] = (uint8_t)(0x80 | (code_point >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (code_point & 0x3F));
        return 3;
    }
    out[0] = (uint8_t)(0xF0 | code_point >> 18);
    out[1] = (uint8_t)(0x80 | (code_point >> 12 & 0x3F));
    out[2] = (uint8_t)(0x80 | (code_point >> 6 & 0x3F));
    out[3] = (uint8_t)(0x80 | (code_point & 0x3F));
    return 4;
}

uint64_t bytes_hash(struct bytes view)
{
    uint64_t hash = 0xCBF29CE484222325u;

    for (size_t i = 0; i < view.size; i++) {
        hash = (hash ^ view.data[i]) * 0x100000001B3u;
    }
    return hash;
}

void buffer_init(struct buffer *buffer, size_t bytes_max)
{
    buffer->data = NULL;
    buffer->size = 0;
    buffer->capacity = 0;
    buffer->bytes_max = bytes_max;
}

void buffer_finish(struct buffer *buffer)
{
    memory_free(buffer->data);
    buffer_init(buffer, buffer->bytes_max);
}

enum status buffer_reserve(struct buffer *buffer, size_t extra_bytes)
{
    size_t capacity = buffer->capacity;
    size_t wanted;
    uint8_t *data;

    if (extra_bytes > buffer->bytes_max - buffer->size) {
        return STATUS_LIMIT;
    }
    wanted = buffer->size + extra_bytes;
    if (wanted <= capacity) {
        return STATUS_OK;
    }
    /* Doubling stops at the bound, so a bounded buffer never holds more than it may use. */
    capacity = capacity > buffer->bytes_max / 2 ? buffer->bytes_max : capacity * 2;
    if (capacity < BUFFER_CAPACITY_MIN) {
        capacity = BUFFER_CAPACITY_MIN;
    }
    if (capacity > buffer->bytes_max) {
        capacity = buffer->bytes_max;
    }
    if (capacity < wanted) {
        capacity = wanted;
    }
    data = memory_resize(buffer->data, capacity, 1);
    if (data == NULL) {
        return STATUS_MEMORY;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return STATUS_OK;
}

enum status buffer_append(struct buffer *buffer, struct bytes bytes)
{
    TRY(buffer_reserve(buffer, bytes.size));
    if (bytes.size > 0) {
        memcpy(buffer->data + buffer->size, bytes.data, bytes.size);
        buffer->size += bytes.size;
    }
    return STATUS_OK;
}

enum status buffer_append_text(struct buffer *buffer, const char *text)
{
    return buffer_append(buffer, bytes_of_text(text));
}

void buffer_consume(struct buffer *buffer, size_t count)
{
    CHECK(count <= buffer->size);
    if (count == 0) {
        return;
    }
    buffer->size -= count;
    memmove(buffer->data, buffer->data + count, buffer->size);
}
