/* JSON lines to a file: one object a line, nothing kept in memory.
 *
 * Thread: one. Floats are printed with nine significant digits, so that their 32 bits can be read
 * back; infinities and NaN, which JSON lacks, are printed as null. Text that is no UTF-8 gets
 * U+FFFD where it is malformed. 64-bit numbers are printed in full. No name is one of jansson's,
 * which would call ours.
 */
#ifndef PERSONAD_CLIENTS_CLI_JSON_H
#define PERSONAD_CLIENTS_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "personad_client.h"

struct json {
    FILE *file;
    bool needs_comma;
};

void json_start(struct json *json, FILE *file); /* { */
void json_end(struct json *json);               /* } newline, flushed */

/* key NULL: an element of the open list. */
void json_object_start(struct json *json, const char *key);
void json_object_end(struct json *json);
void json_list(struct json *json, const char *key);
void json_list_end(struct json *json);
void json_u64(struct json *json, const char *key, uint64_t value);
void json_double(struct json *json, const char *key, double value);
void json_float(struct json *json, const char *key, float value);
void json_null(struct json *json, const char *key);
void json_bool(struct json *json, const char *key, bool value);
void json_text(struct json *json, const char *key, struct personad_text text);
void json_text_of(struct json *json, const char *key, const char *text);
void json_ids(struct json *json, const char *key, const uint32_t *ids, size_t count);
void json_floats(struct json *json, const char *key, const float *values, size_t count);

#endif
