/* Goal: however a stream of bytes is cut into reads, the same frames come out of it.
 * Method: the first byte is the size of a read. Parse the rest at once, then read by read with the
 * buffer that connections use, and demand the same frames; bodies lie inside the bytes given. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "limits.h"
#include "wire/frame.h"

enum { FRAME_COUNT_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

static size_t sizes[FRAME_COUNT_MAX];

static uint32_t parse_whole(struct bytes stream)
{
    uint32_t count = 0;
    size_t at = 0;
    struct frame frame;
    while (count < FRAME_COUNT_MAX &&
           frame_parse(bytes_of(stream.data + at, stream.size - at), &frame) == STATUS_OK) {
        CHECK(frame.body.data >= stream.data);
        CHECK(frame.body.data + frame.body.size <= stream.data + stream.size);
        sizes[count++] = frame.body.size;
        at += frame.size_bytes;
    }
    return count;
}

static uint32_t parse_pieces(struct bytes stream, size_t piece)
{
    struct buffer buffer;
    struct frame frame;
    uint32_t count = 0;
    buffer_init(&buffer, stream.size + 1);
    for (size_t at = 0; at < stream.size; at += piece) {
        const size_t size = stream.size - at < piece ? stream.size - at : piece;
        const enum status status = buffer_append(&buffer, bytes_of(stream.data + at, size));
        CHECK(status == STATUS_OK);
        while (count < FRAME_COUNT_MAX && frame_parse(buffer_bytes(&buffer), &frame) == STATUS_OK) {
            CHECK(frame.body.size == sizes[count]);
            buffer_consume(&buffer, frame.size_bytes);
            count++;
        }
    }
    buffer_finish(&buffer);
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    if (byte_count < 2) {
        return 0;
    }
    const struct bytes stream = bytes_of(bytes + 1, byte_count - 1);
    const uint32_t count = parse_whole(stream);
    CHECK(parse_pieces(stream, (size_t)bytes[0] + 1) == count);
    return 0;
}
