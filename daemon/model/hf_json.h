/* JSON files of a model, and their fields with the sentence that says what is wrong with one.
 *
 * Thread: one at a time, and not while another thread reads JSON (the library's allocator is one
 * for the process). What a field gives is borrowed from the document.
 */
#ifndef PERSONAD_MODEL_HF_JSON_H
#define PERSONAD_MODEL_HF_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "model/hf_files.h"

/* An object of a document and how errors call it. */
struct hf_object {
    const json_t *json; /* NULL: absent, as if it were empty */
    const char *folder;
    const char *file;
    const char *prefix; /* of its keys: "rope_scaling.", or "" */
};

/* Parses a document whose root is an object; doubled keys are refused. The caller releases it with
 * json_decref(). `name` is what errors call it. BAD_INPUT, MEMORY. */
MUST_USE enum status hf_json_parse(struct bytes text, const char *name, struct error *error,
                                   json_t **out);

/* Reads and parses a file of the folder. NOT_FOUND when it is not there. */
MUST_USE enum status hf_json_load(const struct hf_files *files, const char *name,
                                  struct error *error, json_t **out);

/* Fills the error: "FOLDER/FILE: key 'PREFIXkey' " and the rest. Returns the status. */
enum status hf_json_wrong(const struct hf_object *object, const char *key, enum status status,
                          struct error *error, const char *rest);

/* The field, NULL when it is absent or null. */
const json_t *hf_json_field(const struct hf_object *object, const char *key);

/* An integer of 1 to size_max. `absent` 0: it must be there (NOT_FOUND). */
MUST_USE enum status hf_json_size(const struct hf_object *object, const char *key, uint32_t absent,
                                  uint32_t size_max, struct error *error, uint32_t *out);

/* A number above `above` and below 1e12. `absent` 0: it must be there. */
MUST_USE enum status hf_json_number(const struct hf_object *object, const char *key, double absent,
                                    double above, struct error *error, double *out);
MUST_USE enum status hf_json_bool(const struct hf_object *object, const char *key, bool absent,
                                  struct error *error, bool *out);

/* "" when absent. */
MUST_USE enum status hf_json_text(const struct hf_object *object, const char *key,
                                  struct error *error, struct bytes *out);

/* An object inside: json is NULL when it is absent. */
MUST_USE enum status hf_json_inside(const struct hf_object *object, const char *key,
                                    const char *prefix, struct error *error, struct hf_object *out);

/* The text of a string. */
struct bytes hf_json_bytes(const json_t *string);

#endif
