#include "session/portable_line.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void put(struct portable_line *line, const void *data, size_t size)
{
    if (line->status == STATUS_OK) {
        line->status = buffer_append(line->out, bytes_of(data, size));
    }
}

static void put_word(struct portable_line *line, const char *word)
{
    put(line, word, strlen(word));
}

static void begin(struct portable_line *line, const char *key)
{
    if (line->needs_comma) {
        put(line, ",", 1);
    }
    line->needs_comma = true;
    if (key != NULL) {
        put(line, "\"", 1);
        put_word(line, key);
        put(line, "\":", 2);
    }
}

void portable_line_start(struct portable_line *line, struct buffer *out, const char *record)
{
    *line = (struct portable_line){.out = out};
    put(line, "{", 1);
    portable_line_text(line, "record", bytes_of_text(record));
}

enum status portable_line_end(struct portable_line *line)
{
    put(line, "}\n", 2);
    return line->status;
}

static void open_with(struct portable_line *line, const char *key, const char *bracket)
{
    begin(line, key);
    put(line, bracket, 1);
    line->needs_comma = false;
}

static void close_with(struct portable_line *line, const char *bracket)
{
    put(line, bracket, 1);
    line->needs_comma = true;
}

void portable_line_list(struct portable_line *line, const char *key)
{
    open_with(line, key, "[");
}

void portable_line_list_end(struct portable_line *line)
{
    close_with(line, "]");
}

void portable_line_object(struct portable_line *line, const char *key)
{
    open_with(line, key, "{");
}

void portable_line_object_end(struct portable_line *line)
{
    close_with(line, "}");
}

void portable_line_u32(struct portable_line *line, const char *key, uint32_t value)
{
    char text[16];

    begin(line, key);
    put(line, text, (size_t)snprintf(text, sizeof(text), "%u", value));
}

void portable_line_u64(struct portable_line *line, const char *key, uint64_t value)
{
    char text[32];

    begin(line, key);
    put(line, text, (size_t)snprintf(text, sizeof(text), "\"%llu\"", (unsigned long long)value));
}

void portable_line_flag(struct portable_line *line, const char *key, bool value)
{
    if (value) {
        begin(line, key);
        put_word(line, "true");
    }
}

/* ---- bytes ---- */

static void put_escaped(struct portable_line *line, struct bytes text)
{
    size_t from = 0;

    if (text.size == 0) {
        return;
    }
    for (size_t at = 0; at < text.size; at++) {
        const uint8_t byte = text.data[at];
        char escape[8];

        if (byte >= 0x20 && byte != '"' && byte != '\\' && byte != 0x7f) {
            continue;
        }
        put(line, text.data + from, at - from);
        from = at + 1;
        if (byte == '"' || byte == '\\') {
            (void)snprintf(escape, sizeof(escape), "\\%c", byte);
        } else {
            (void)snprintf(escape, sizeof(escape), "\\u%04x", byte);
        }
        put_word(line, escape);
    }
    put(line, text.data + from, text.size - from);
}

void portable_line_base64(struct portable_line *line, const char *key, struct bytes bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    begin(line, key);
    put(line, "\"", 1);
    for (size_t at = 0; at < bytes.size; at += 3) {
        const size_t left = bytes.size - at;
        const uint32_t word = (uint32_t)bytes.data[at] << 16 |
                              (left > 1 ? (uint32_t)bytes.data[at + 1] << 8 : 0) |
                              (left > 2 ? bytes.data[at + 2] : 0);
        char group[4] = {digits[word >> 18], digits[word >> 12 & 63], '=', '='};

        if (left > 1) {
            group[2] = digits[word >> 6 & 63];
        }
        if (left > 2) {
            group[3] = digits[word & 63];
        }
        put(line, group, sizeof(group));
    }
    put(line, "\"", 1);
}

void portable_line_text(struct portable_line *line, const char *key, struct bytes text)
{
    if (!utf8_is_valid(text)) {
        portable_line_object(line, key);
        portable_line_base64(line, "base64", text);
        portable_line_object_end(line);
        return;
    }
    begin(line, key);
    put(line, "\"", 1);
    put_escaped(line, text);
    put(line, "\"", 1);
}

void portable_line_hex(struct portable_line *line, const char *key, struct bytes bytes)
{
    static const char digits[] = "0123456789abcdef";

    begin(line, key);
    put(line, "\"", 1);
    for (size_t i = 0; i < bytes.size; i++) {
        const char pair[2] = {digits[bytes.data[i] >> 4], digits[bytes.data[i] & 15]};

        put(line, pair, sizeof(pair));
    }
    put(line, "\"", 1);
}

/* ---- packed numbers ---- */

void portable_line_ids(struct portable_line *line, const char *key, struct bytes ids)
{
    portable_line_list(line, key);
    for (size_t at = 0; at + 4 <= ids.size; at += 4) {
        portable_line_u32(line, NULL, bytes_load_u32(ids.data + at));
    }
    portable_line_list_end(line);
}

static void put_float(struct portable_line *line, float value)
{
    char text[40];

    begin(line, NULL);
    if (!isfinite(value)) {
        put_word(line, isnan(value) ? "\"nan\"" : value > 0 ? "\"inf\"" : "\"-inf\"");
        return;
    }
    (void)snprintf(text, sizeof(text), "%.9g", (double)value);
    put_word(line, text);
    /* Else a reader would take it for an integer, which has no -0. */
    if (strpbrk(text, ".e") == NULL) {
        put_word(line, ".0");
    }
}

void portable_line_floats(struct portable_line *line, const char *key, struct bytes floats)
{
    portable_line_list(line, key);
    for (size_t at = 0; at + 4 <= floats.size; at += 4) {
        const uint32_t bits = bytes_load_u32(floats.data + at);
        float value;

        memcpy(&value, &bits, sizeof(value));
        put_float(line, value);
    }
    portable_line_list_end(line);
}
