#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "utf8.h"

static void begin(struct json *json, const char *key)
{
    if (json->needs_comma) {
        (void)fputc(',', json->file);
    }
    json->needs_comma = true;
    if (key != NULL) {
        (void)fprintf(json->file, "\"%s\":", key);
    }
}

static void open_with(struct json *json, const char *key, char bracket)
{
    begin(json, key);
    (void)fputc(bracket, json->file);
    json->needs_comma = false;
}

static void close_with(struct json *json, char bracket)
{
    (void)fputc(bracket, json->file);
    json->needs_comma = true;
}

void json_start(struct json *json, FILE *file)
{
    *json = (struct json){file, false};
    (void)fputc('{', file);
}

void json_end(struct json *json)
{
    (void)fputs("}\n", json->file);
    (void)fflush(json->file);
}

void json_object_start(struct json *json, const char *key)
{
    open_with(json, key, '{');
}

void json_object_end(struct json *json)
{
    close_with(json, '}');
}

void json_list(struct json *json, const char *key)
{
    open_with(json, key, '[');
}

void json_list_end(struct json *json)
{
    close_with(json, ']');
}

void json_u64(struct json *json, const char *key, uint64_t value)
{
    begin(json, key);
    (void)fprintf(json->file, "%" PRIu64, value);
}

static void number(struct json *json, const char *key, double value, int digits)
{
    begin(json, key);
    if (isfinite(value)) {
        (void)fprintf(json->file, "%.*g", digits, value);
    } else {
        (void)fputs("null", json->file);
    }
}

void json_double(struct json *json, const char *key, double value)
{
    number(json, key, value, 17);
}

void json_float(struct json *json, const char *key, float value)
{
    number(json, key, (double)value, 9);
}

void json_null(struct json *json, const char *key)
{
    begin(json, key);
    (void)fputs("null", json->file);
}

void json_bool(struct json *json, const char *key, bool value)
{
    begin(json, key);
    (void)fputs(value ? "true" : "false", json->file);
}

static void escaped(FILE *file, struct personad_text text)
{
    for (size_t at = 0; at < text.size;) {
        const unsigned char byte = (unsigned char)text.data[at];
        const size_t size = utf8_sequence_bytes(text.data + at, text.size - at);
        if (size == 0) {
            (void)fputs("\\ufffd", file);
            at++;
        } else if (byte == '"' || byte == '\\') {
            (void)fprintf(file, "\\%c", byte);
            at++;
        } else if (byte < 0x20 || byte == 0x7f) {
            (void)fprintf(file, "\\u%04x", byte);
            at++;
        } else {
            (void)fwrite(text.data + at, 1, size, file);
            at += size;
        }
    }
}

void json_text(struct json *json, const char *key, struct personad_text text)
{
    begin(json, key);
    (void)fputc('"', json->file);
    escaped(json->file, text);
    (void)fputc('"', json->file);
}

void json_text_of(struct json *json, const char *key, const char *text)
{
    json_text(json, key, (struct personad_text){text, strlen(text)});
}

void json_ids(struct json *json, const char *key, const uint32_t *ids, size_t count)
{
    json_list(json, key);
    for (size_t i = 0; i < count; i++) {
        json_u64(json, NULL, ids[i]);
    }
    json_list_end(json);
}

void json_floats(struct json *json, const char *key, const float *values, size_t count)
{
    json_list(json, key);
    for (size_t i = 0; i < count; i++) {
        json_float(json, NULL, values[i]);
    }
    json_list_end(json);
}
