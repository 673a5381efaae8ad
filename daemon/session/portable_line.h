/* JSON lines into a buffer: one object a line, always the same bytes for the same values.
 *
 * Thread: any. Numbers of 64 bits are written as strings, since many readers have doubles only;
 * floats with nine digits, from which their bits come back, and infinities as strings; bytes that
 * are no UTF-8 as {"base64": ...}. The first failure (MEMORY, LIMIT) is kept in status.
 */
#ifndef PERSONAD_SESSION_PORTABLE_LINE_H
#define PERSONAD_SESSION_PORTABLE_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct portable_line {
    struct buffer *out; /* borrowed */
    bool needs_comma;
    enum status status;
};

void portable_line_start(struct portable_line *line, struct buffer *out, const char *record);
MUST_USE enum status portable_line_end(struct portable_line *line);

/* key NULL: an element of the open list. */
void portable_line_list(struct portable_line *line, const char *key);
void portable_line_list_end(struct portable_line *line);
void portable_line_object(struct portable_line *line, const char *key);
void portable_line_object_end(struct portable_line *line);
void portable_line_u32(struct portable_line *line, const char *key, uint32_t value);
void portable_line_u64(struct portable_line *line, const char *key, uint64_t value);
void portable_line_flag(struct portable_line *line, const char *key, bool value); /* if it is set */
void portable_line_text(struct portable_line *line, const char *key, struct bytes text);
void portable_line_base64(struct portable_line *line, const char *key, struct bytes bytes);
void portable_line_hex(struct portable_line *line, const char *key, struct bytes bytes);

/* Packed little endian, as the journal has them. */
void portable_line_ids(struct portable_line *line, const char *key, struct bytes ids);
void portable_line_floats(struct portable_line *line, const char *key, struct bytes floats);

#endif
