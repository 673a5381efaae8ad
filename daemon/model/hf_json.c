#include "model/hf_json.h"

#include "base/memory.h"
#include "limits.h"

/* The library does not say in every case that memory was what it lacked. */
static bool is_short_of_memory;

static void *json_allocate(size_t size)
{
    void *block = memory_alloc(1, size);

    is_short_of_memory = is_short_of_memory || block == NULL;
    return block;
}

enum status hf_json_parse(struct bytes text, const char *name, struct error *error, json_t **out)
{
    json_error_t problem;

    json_set_alloc_funcs(json_allocate, memory_free);
    is_short_of_memory = false;
    json_t *root = json_loadb((const char *)text.data, text.size,
                              JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &problem);
    if (root == NULL) {
        if (is_short_of_memory) {
            return error_set(error, STATUS_MEMORY, "%s: out of memory while it is read", name);
        }
        return error_set(error, STATUS_BAD_INPUT, "%s: is not valid JSON: line %d: %s", name,
                         problem.line, problem.text);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return error_set(error, STATUS_BAD_INPUT, "%s: must be a JSON object", name);
    }
    *out = root;
    return STATUS_OK;
}

enum status hf_json_load(const struct hf_files *files, const char *name, struct error *error,
                         json_t **out)
{
    struct bytes text = {NULL, 0};
    char path[ERROR_TEXT_BYTES_MAX];

    TRY(hf_files_read(files, name, error, &text));
    (void)snprintf(path, sizeof path, "%s/%s", files->folder, name);
    const enum status status = hf_json_parse(text, path, error, out);
    memory_free((void *)(uintptr_t)text.data);
    return status;
}

enum status hf_json_wrong(const struct hf_object *object, const char *key, enum status status,
                          struct error *error, const char *rest)
{
    return error_set(error, status, "%s/%s: key '%s%s' %s", object->folder, object->file,
                     object->prefix, key, rest);
}

const json_t *hf_json_field(const struct hf_object *object, const char *key)
{
    const json_t *value = json_object_get(object->json, key);

    return json_is_null(value) ? NULL : value;
}

enum status hf_json_size(const struct hf_object *object, const char *key, uint32_t absent,
                         uint32_t size_max, struct error *error, uint32_t *out)
{
    const json_t *value = hf_json_field(object, key);

    if (value == NULL) {
        if (absent == 0) {
            return hf_json_wrong(object, key, STATUS_NOT_FOUND, error, "is missing");
        }
        *out = absent;
        return STATUS_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 1 ||
        json_integer_value(value) > size_max) {
        return error_set(error, STATUS_BAD_INPUT, "%s/%s: key '%s%s' must be an integer of 1 to %u",
                         object->folder, object->file, object->prefix, key, size_max);
    }
    *out = (uint32_t)json_integer_value(value);
    return STATUS_OK;
}

enum status hf_json_number(const struct hf_object *object, const char *key, double absent,
                           double above, struct error *error, double *out)
{
    const json_t *value = hf_json_field(object, key);

    if (value == NULL) {
        if (absent == 0) {
            return hf_json_wrong(object, key, STATUS_NOT_FOUND, error, "is missing");
        }
        *out = absent;
        return STATUS_OK;
    }
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number > above) || !(number < 1e12)) {
        return error_set(error, STATUS_BAD_INPUT, "%s/%s: key '%s%s' must be a number above %g",
                         object->folder, object->file, object->prefix, key, above);
    }
    *out = number;
    return STATUS_OK;
}

enum status hf_json_bool(const struct hf_object *object, const char *key, bool absent,
                         struct error *error, bool *out)
{
    const json_t *value = hf_json_field(object, key);

    if (value != NULL && !json_is_boolean(value)) {
        return hf_json_wrong(object, key, STATUS_BAD_INPUT, error, "must be true or false");
    }
    *out = value == NULL ? absent : json_is_true(value);
    return STATUS_OK;
}

struct bytes hf_json_bytes(const json_t *string)
{
    return bytes_of(json_string_value(string), json_string_length(string));
}

enum status hf_json_text(const struct hf_object *object, const char *key, struct error *error,
                         struct bytes *out)
{
    const json_t *value = hf_json_field(object, key);

    if (value != NULL && !json_is_string(value)) {
        return hf_json_wrong(object, key, STATUS_BAD_INPUT, error, "must be a text");
    }
    *out = value == NULL ? bytes_of_text("") : hf_json_bytes(value);
    return STATUS_OK;
}

enum status hf_json_inside(const struct hf_object *object, const char *key, const char *prefix,
                           struct error *error, struct hf_object *out)
{
    const json_t *value = hf_json_field(object, key);

    if (value != NULL && !json_is_object(value)) {
        return hf_json_wrong(object, key, STATUS_BAD_INPUT, error, "must be an object");
    }
    *out = (struct hf_object){value, object->folder, object->file, prefix};
    return STATUS_OK;
}
