/* Strict reading of one JSON object: each value is taken once, by name, with its type and range.
 *
 * Thread: loop. The first thing that is wrong is kept in status, with a sentence that names the
 * line and the key; what is read behind it is zero. Bytes that are handed out lie in the arena.
 */
#ifndef PERSONAD_SESSION_PORTABLE_JSON_H
#define PERSONAD_SESSION_PORTABLE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"

struct portable_json {
    struct arena *arena; /* borrowed */
    struct error *error; /* borrowed */
    uint64_t line;       /* of the file, for sentences */
    enum status status;
};

/* The caller's: json_decref(). NULL: status says why. */
json_t *portable_json_parse(struct portable_json *json, struct bytes text);

/* Keeps the first failure. */
void portable_json_fail(struct portable_json *json, const char *key, const char *what);
void portable_json_fail_memory(struct portable_json *json);

bool portable_json_has(const json_t *object, const char *key);

/* The value itself: of a list, or of an object that has it. */
uint32_t portable_json_number(struct portable_json *json, const json_t *value, const char *key,
                              uint32_t most);
/* An absent number is `otherwise`. */
uint32_t portable_json_u32(struct portable_json *json, const json_t *object, const char *key,
                           uint32_t most, uint32_t otherwise);
uint64_t portable_json_u64(struct portable_json *json, const json_t *object, const char *key);
bool portable_json_flag(struct portable_json *json, const json_t *object, const char *key);

/* Text or {"base64": ...}; absent: empty. */
struct bytes portable_json_bytes(struct portable_json *json, const json_t *object, const char *key,
                                 size_t most);
/* Text alone. */
struct bytes portable_json_text(struct portable_json *json, const json_t *object, const char *key,
                                size_t most);
struct bytes portable_json_base64(struct portable_json *json, const json_t *object,
                                  const char *key);
struct bytes portable_json_hex(struct portable_json *json, const json_t *object, const char *key);

/* Packed little endian. */
struct bytes portable_json_ids(struct portable_json *json, const json_t *list, const char *key);
struct bytes portable_json_floats(struct portable_json *json, const json_t *list, const char *key);

/* The number of a name. */
uint32_t portable_json_name(struct portable_json *json, const json_t *object, const char *key,
                            const char *(*name_of)(uint32_t number), uint32_t otherwise);

/* Of that kind, or NULL; wanted: it must be there. */
const json_t *portable_json_list(struct portable_json *json, const json_t *object, const char *key,
                                 bool wanted);
const json_t *portable_json_object(struct portable_json *json, const json_t *object,
                                   const char *key, bool wanted);

#endif
