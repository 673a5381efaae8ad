#include "wire/frame.h"

#include "base/check.h"
#include "limits.h"

enum status frame_parse(struct bytes bytes, struct frame *out)
{
    if (bytes.size < FRAME_HEADER_BYTES) {
        return STATUS_AGAIN;
    }
    const size_t body_bytes = bytes_load_u32(bytes.data);
    /* Before the body is waited for: a bad length must not pin a buffer. */
    if (body_bytes > FRAME_BODY_BYTES_MAX) {
        return STATUS_LIMIT;
    }
    if (bytes.size - FRAME_HEADER_BYTES < body_bytes) {
        return STATUS_AGAIN;
    }
    out->body = bytes_of(bytes.data + FRAME_HEADER_BYTES, body_bytes);
    out->size_bytes = FRAME_HEADER_BYTES + body_bytes;
    return STATUS_OK;
}

void frame_format_header(size_t body_bytes, uint8_t out[FRAME_HEADER_BYTES])
{
    CHECK(body_bytes <= FRAME_BODY_BYTES_MAX);
    bytes_store_u32(out, (uint32_t)body_bytes);
}
