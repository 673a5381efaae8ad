/* Views of bytes, little-endian numbers, UTF-8, and a growable buffer.
 *
 * Thread: any, no shared state. A `struct bytes` borrows. Text in this project is bytes with a
 * length: it may hold NUL, and a model's text may be cut inside a UTF-8 character.
 */
#ifndef PERSONAD_BASE_BYTES_H
#define PERSONAD_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/status.h"

struct bytes {
    const uint8_t *data; /* borrowed; may be NULL when size is 0 */
    size_t size;
};

static inline struct bytes bytes_of(const void *data, size_t size)
{
    struct bytes view = {(const uint8_t *)data, size};
    return view;
}

static inline struct bytes bytes_of_text(const char *text)
{
    return bytes_of(text, strlen(text));
}

bool bytes_equal(struct bytes a, struct bytes b);

/* Little-endian loads and stores on unaligned memory. */
uint16_t bytes_load_u16(const uint8_t *from);
uint32_t bytes_load_u32(const uint8_t *from);
uint64_t bytes_load_u64(const uint8_t *from);
void bytes_store_u32(uint8_t *to, uint32_t value);
void bytes_store_u64(uint8_t *to, uint64_t value);

/* True when the whole view is well-formed UTF-8 (no surrogates, no overlongs, at most U+10FFFF). */
bool utf8_is_valid(struct bytes text);

/* Length of the longest prefix that is whole, well-formed sequences. */
size_t utf8_valid_prefix_bytes(struct bytes text);

/* Decodes one sequence at `text` (well-formed UTF-8 only); returns its length in bytes, 0 if
 * malformed. */
size_t utf8_decode(struct bytes text, uint32_t *code_point);

/* Writes 1 to 4 bytes; returns how many. A surrogate or a number past U+10FFFF is our bug. */
size_t utf8_encode(uint32_t code_point, uint8_t out[4]);

/* FNV-1a 64: for hash tables only, never for identity. */
uint64_t bytes_hash(struct bytes view);

/* A growable byte buffer with a bound. data is owned; init needs no allocation. */
struct buffer {
    uint8_t *data; /* owned */
    size_t size;
    size_t capacity;
    size_t bytes_max;
};

void buffer_init(struct buffer *buffer, size_t bytes_max);
void buffer_finish(struct buffer *buffer);

/* MEMORY or LIMIT; unchanged on failure. */
MUST_USE enum status buffer_reserve(struct buffer *buffer, size_t extra_bytes);
MUST_USE enum status buffer_append(struct buffer *buffer, struct bytes bytes);
MUST_USE enum status buffer_append_text(struct buffer *buffer, const char *text);

/* Drops the first `count` bytes. */
void buffer_consume(struct buffer *buffer, size_t count);

static inline struct bytes buffer_bytes(const struct buffer *buffer)
{
    return bytes_of(buffer->data, buffer->size);
}

#endif
