/* Length-prefixed frames. Pure: no I/O, no allocation. Thread: any.
 *
 *   OFFSET  BYTES  MEANING
 *        0      4  body length, little endian, at most FRAME_BODY_BYTES_MAX
 *        4      n  body, one protobuf Request (to the daemon) or Reply (from it)
 */
#ifndef PERSONAD_WIRE_FRAME_H
#define PERSONAD_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

enum { FRAME_HEADER_BYTES = 4 };

struct frame {
    struct bytes body; /* borrowed from the bytes that were parsed */
    size_t size_bytes; /* header and body */
};

/* The first frame of `bytes`. AGAIN: more bytes must come first. LIMIT: its body is longer than
 * FRAME_BODY_BYTES_MAX, which is known as soon as the header is there. */
MUST_USE enum status frame_parse(struct bytes bytes, struct frame *out);

/* body_bytes is at most FRAME_BODY_BYTES_MAX. */
void frame_format_header(size_t body_bytes, uint8_t out[FRAME_HEADER_BYTES]);

#endif
