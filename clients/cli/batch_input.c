#include "batch_input.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static uint64_t hash_of(const char *bytes, size_t count)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ (uint8_t)bytes[i]) * 0x100000001b3u;
    }
    return hash;
}

/* ---------------------------------------------------------------- reading */

static int file_read(FILE *file, const char *path, char **out, size_t *count)
{
    size_t used = 0, capacity = 65536;
    char *bytes = malloc(capacity);
    while (bytes != NULL) {
        used += fread(bytes + used, 1, capacity - used, file);
        if (used < capacity || capacity >= BATCH_BYTES_MAX) {
            break;
        }
        capacity *= 2;
        char *moved = realloc(bytes, capacity);
        if (moved == NULL) {
            free(bytes);
        }
        bytes = moved;
    }
    if (bytes == NULL || ferror(file)) {
        cli_complain("%s: %s", path, bytes == NULL ? "out of memory" : strerror(errno));
        free(bytes);
        return CLI_FAILED;
    }
    if (used == BATCH_BYTES_MAX) {
        cli_complain("%s: a batch holds at most %d bytes; split it", path, BATCH_BYTES_MAX);
        free(bytes);
        return CLI_FAILED;
    }
    *out = bytes;
    *count = used;
    return CLI_OK;
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (strchr(" \t\r", text[i]) == NULL) {
            return false;
        }
    }
    return true;
}

static size_t newline_count(const char *bytes, size_t count)
{
    size_t lines = 0;
    for (size_t i = 0; i < count; i++) {
        lines += bytes[i] == '\n' ? 1 : 0;
    }
    return lines;
}

static int lines_split(struct batch_input *input, const char *path)
{
    const size_t most = newline_count(input->bytes, input->byte_count) + 1;
    input->lines = most <= BATCH_LINE_COUNT_MAX ? calloc(most, sizeof *input->lines) : NULL;
    if (input->lines == NULL) {
        cli_complain("%s: out of memory for %zu lines (at most %d)", path, most,
                     BATCH_LINE_COUNT_MAX);
        return CLI_FAILED;
    }
    size_t at = 0;
    while (at < input->byte_count) {
        const char *text = input->bytes + at;
        const char *end = memchr(text, '\n', input->byte_count - at);
        const size_t size = end != NULL ? (size_t)(end - text) : input->byte_count - at;
        input->lines[input->line_count++] =
            (struct batch_line){.text = text, .size = size, .is_done = is_blank(text, size)};
        at += size + 1;
    }
    return CLI_OK;
}

int batch_input_read(struct batch_input *input, const char *path)
{
    *input = (struct batch_input){0};
    const bool is_stdin = strcmp(path, "-") == 0;
    FILE *file = is_stdin ? stdin : fopen(path, "rb");
    if (file == NULL) {
        cli_complain("%s: %s", path, strerror(errno));
        return CLI_FAILED;
    }
    int status = file_read(file, path, &input->bytes, &input->byte_count);
    if (!is_stdin) {
        (void)fclose(file);
    }
    if (status == CLI_OK) {
        input->hash = hash_of(input->bytes, input->byte_count);
        status = lines_split(input, path);
    }
    return status;
}

void batch_input_finish(struct batch_input *input)
{
    free(input->bytes);
    free(input->lines);
}

/* ---------------------------------------------------------------- going on */

/* One whole line of results. False: it belongs to another batch, or is none of ours. */
static bool result_take(struct batch_input *input, const char *text, size_t size,
                        size_t *done_count)
{
    /* Seeds are larger than the integers that the library reads; line numbers are exact as reals.
     */
    json_t *json = json_loadb(text, size, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
    const char *batch = json_string_value(json_object_get(json, "batch"));
    const double line = json_number_value(json_object_get(json, "line"));
    char name[32];
    (void)snprintf(name, sizeof name, "%016" PRIx64, input->hash);
    const bool ours =
        batch != NULL && strcmp(batch, name) == 0 && line >= 1 && line <= (double)input->line_count;
    if (ours) {
        struct batch_line *done = &input->lines[(size_t)line - 1];
        *done_count += done->is_done ? 0 : 1;
        done->is_done = true;
    }
    json_decref(json);
    return ours;
}

int batch_input_resume(struct batch_input *input, const char *path, size_t *done_count)
{
    *done_count = 0;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        if (errno == ENOENT) {
            return CLI_OK;
        }
        cli_complain("%s: %s", path, strerror(errno));
        return CLI_FAILED;
    }
    char *bytes = NULL;
    size_t count = 0;
    int status = file_read(file, path, &bytes, &count);
    (void)fclose(file);
    size_t at = 0;
    while (status == CLI_OK && at < count) {
        const char *end = memchr(bytes + at, '\n', count - at);
        if (end == NULL) {
            break;
        }
        const size_t size = (size_t)(end - bytes) - at;
        if (!result_take(input, bytes + at, size, done_count)) {
            cli_complain("%s holds results of another batch: name another --out", path);
            status = CLI_FAILED;
        }
        at += size + 1;
    }
    if (status == CLI_OK && at < count && truncate(path, (off_t)at) != 0) {
        cli_complain("%s: its last line is cut and cannot be taken off: %s", path, strerror(errno));
        status = CLI_FAILED;
    }
    free(bytes);
    return status;
}

/* ---------------------------------------------------------------- one line */

static bool refuse(char error[BATCH_ERROR_BYTES], const char *format, const char *what)
{
    (void)snprintf(error, BATCH_ERROR_BYTES, format, what);
    return false;
}

static bool turn_add(struct batch_item *item, const json_t *value, char *error)
{
    if (!json_is_string(value)) {
        return refuse(error, "%s must be text", "every turn");
    }
    if (item->turn_count == BATCH_TURN_COUNT_MAX) {
        return refuse(error, "%s", "a line holds at most 1024 turns");
    }
    item->turns[item->turn_count] = json_string_value(value);
    item->turn_sizes[item->turn_count++] = json_string_length(value);
    return true;
}

static bool turns_take(struct batch_item *item, const json_t *value, char *error)
{
    if (!json_is_array(value)) {
        return refuse(error, "\"%s\" must be a list of texts", "turns");
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (!turn_add(item, json_array_get(value, i), error)) {
            return false;
        }
    }
    return true;
}

static bool seed_take(struct batch_item *item, const json_t *value, char *error)
{
    const char *text = json_string_value(value);
    item->has_seed = true;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        item->seed = (uint64_t)json_integer_value(value);
        return true;
    }
    return (text != NULL && cli_parse_u64(text, UINT64_MAX, &item->seed)) ||
           refuse(error, "\"%s\" must be a whole number from 0, above 2^63 as text", "seed");
}

static bool field_take(struct batch_item *item, const char *key, const json_t *value, char *error)
{
    static const char *const names[] = {"id", "persona", "user", "label"};
    const char **const places[] = {&item->id, &item->persona, &item->user, &item->label};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(key, names[i]) == 0) {
            *places[i] = json_string_value(value);
            return *places[i] != NULL || refuse(error, "\"%s\" must be text", names[i]);
        }
    }
    if (strcmp(key, "seed") == 0) {
        return seed_take(item, value, error);
    }
    if (strcmp(key, "text") == 0) {
        return turn_add(item, value, error);
    }
    if (strcmp(key, "turns") == 0) {
        return turns_take(item, value, error);
    }
    return refuse(error,
                  "\"%.40s\" is unknown: a line has id, persona, user, label, seed, text or turns",
                  key);
}

bool batch_item_parse(const struct batch_line *line, struct batch_item *item,
                      char error[BATCH_ERROR_BYTES])
{
    json_error_t where;
    json_t *json = json_loadb(line->text, line->size, JSON_REJECT_DUPLICATES, &where);
    *item = (struct batch_item){.json = json};
    if (json == NULL) {
        return refuse(error, "this is no JSON: %.100s", where.text);
    }
    if (!json_is_object(json)) {
        return refuse(error, "%s", "a line must be one JSON object");
    }
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value)
    {
        if (!field_take(item, key, value, error)) {
            return false;
        }
    }
    return item->turn_count > 0 || refuse(error, "%s", "there is no \"text\" and no \"turns\"");
}

void batch_item_finish(struct batch_item *item)
{
    json_t *json = item->json;
    json_decref(json);
    item->json = NULL;
}
