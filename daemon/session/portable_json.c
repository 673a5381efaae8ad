#include "session/portable_json.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

/* Loop thread only. The library does not say in every case that memory was what it lacked. */
static bool is_short_of_memory;

static void *allocate(size_t size)
{
    void *block = memory_alloc(1, size);

    is_short_of_memory = is_short_of_memory || block == NULL;
    return block;
}

void portable_json_fail(struct portable_json *json, const char *key, const char *what)
{
    if (json->status == STATUS_OK) {
        json->status = error_set(json->error, STATUS_BAD_INPUT, "line %llu of the file: \"%s\" %s",
                                 (unsigned long long)json->line, key, what);
    }
}

void portable_json_fail_memory(struct portable_json *json)
{
    if (json->status != STATUS_OK) {
        return;
    }
    if (json->arena->used_bytes > json->arena->bytes_max / 2) {
        json->status = error_set_limit(json->error, "TREE_BYTES_MAX", json->arena->bytes_max,
                                       "line %llu of the file: the session holds more than can be "
                                       "loaded",
                                       (unsigned long long)json->line);
    } else {
        json->status = error_set(json->error, STATUS_MEMORY, "out of memory for an import");
    }
}

json_t *portable_json_parse(struct portable_json *json, struct bytes text)
{
    const size_t flags = JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL;
    json_error_t problem;
    json_t *root;

    json_set_alloc_funcs(allocate, memory_free);
    is_short_of_memory = false;
    root = json_loadb((const char *)text.data, text.size, flags, &problem);
    if (root == NULL && is_short_of_memory) {
        json->status = error_set(json->error, STATUS_MEMORY, "out of memory for an import");
    } else if (root == NULL) {
        json->status =
            error_set(json->error, STATUS_BAD_INPUT, "line %llu of the file is not valid JSON: %s",
                      (unsigned long long)json->line, problem.text);
    } else if (!json_is_object(root)) {
        json_decref(root);
        root = NULL;
        json->status =
            error_set(json->error, STATUS_BAD_INPUT, "line %llu of the file is not a JSON object",
                      (unsigned long long)json->line);
    }
    return root;
}

bool portable_json_has(const json_t *object, const char *key)
{
    return json_object_get(object, key) != NULL;
}

static bool number_of(const json_t *value, uint32_t most, uint32_t *out)
{
    const json_int_t number = json_integer_value(value);

    if (!json_is_integer(value) || number < 0 || number > most) {
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

uint32_t portable_json_number(struct portable_json *json, const json_t *value, const char *key,
                              uint32_t most)
{
    uint32_t number = 0;

    if (!number_of(value, most, &number)) {
        portable_json_fail(json, key, "is no number in its range");
    }
    return number;
}

uint32_t portable_json_u32(struct portable_json *json, const json_t *object, const char *key,
                           uint32_t most, uint32_t otherwise)
{
    const json_t *value = json_object_get(object, key);

    return value == NULL ? otherwise : portable_json_number(json, value, key, most);
}

uint64_t portable_json_u64(struct portable_json *json, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    const char *digits = json_string_value(value);
    uint64_t number = 0;

    if (value == NULL) {
        return 0;
    }
    for (size_t i = 0; digits != NULL && i < json_string_length(value); i++) {
        const uint64_t digit = (uint64_t)(digits[i] - '0');

        if (digit > 9 || number > (UINT64_MAX - digit) / 10) {
            digits = NULL;
            break;
        }
        number = number * 10 + digit;
    }
    if (digits == NULL || json_string_length(value) == 0) {
        portable_json_fail(json, key, "is no string of digits below 2^64");
        return 0;
    }
    return number;
}

bool portable_json_flag(struct portable_json *json, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (value != NULL && !json_is_boolean(value)) {
        portable_json_fail(json, key, "is neither true nor false");
    }
    return json_is_true(value);
}

/* ---- bytes ---- */

static struct bytes keep(struct portable_json *json, const void *data, size_t size)
{
    void *copy = size > 0 ? arena_copy(json->arena, data, size) : NULL;

    if (size > 0 && copy == NULL) {
        portable_json_fail_memory(json);
        return bytes_of(NULL, 0);
    }
    return bytes_of(copy, size);
}

static struct bytes text_of(struct portable_json *json, const json_t *value, const char *key,
                            size_t most)
{
    if (!json_is_string(value)) {
        portable_json_fail(json, key, "is no text");
        return bytes_of(NULL, 0);
    }
    if (json_string_length(value) > most) {
        portable_json_fail(json, key, "is too long");
        return bytes_of(NULL, 0);
    }
    return keep(json, json_string_value(value), json_string_length(value));
}

struct bytes portable_json_text(struct portable_json *json, const json_t *object, const char *key,
                                size_t most)
{
    const json_t *value = json_object_get(object, key);

    return value == NULL ? bytes_of(NULL, 0) : text_of(json, value, key, most);
}

static int digit_of(char digit)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);

    return found == NULL ? -1 : (int)(found - digits);
}

/* As the writer writes it: with its padding, and nothing but zero in the bits that are left. */
static struct bytes base64_of(struct portable_json *json, const json_t *value, const char *key)
{
    const char *text = json_string_value(value);
    const size_t size = text == NULL ? 1 : json_string_length(value);
    size_t padding = 0;
    uint32_t word = 0;
    uint8_t *data;

    if (size == 0) {
        return bytes_of(NULL, 0);
    }
    while (size % 4 == 0 && padding < 2 && text[size - 1 - padding] == '=') {
        padding++;
    }
    data = size % 4 == 0 ? arena_alloc(json->arena, size / 4, 3) : NULL;
    if (data == NULL && size % 4 == 0) {
        portable_json_fail_memory(json);
        return bytes_of(NULL, 0);
    }
    for (size_t i = 0; i < size && data != NULL; i++) {
        const int digit = i < size - padding ? digit_of(text[i]) : 0;

        word = word << 6 | (uint32_t)(digit & 63);
        data = digit < 0 ? NULL : data;
        if (data != NULL && i % 4 == 3) {
            data[i / 4 * 3] = (uint8_t)(word >> 16);
            data[i / 4 * 3 + 1] = (uint8_t)(word >> 8);
            data[i / 4 * 3 + 2] = (uint8_t)word;
        }
    }
    if (data == NULL || (word & ((UINT32_C(1) << padding * 8) - 1)) != 0) {
        portable_json_fail(json, key, "is no base64");
        return bytes_of(NULL, 0);
    }
    return bytes_of(data, size / 4 * 3 - padding);
}

struct bytes portable_json_base64(struct portable_json *json, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return value == NULL ? bytes_of(NULL, 0) : base64_of(json, value, key);
}

struct bytes portable_json_bytes(struct portable_json *json, const json_t *object, const char *key,
                                 size_t most)
{
    const json_t *value = json_object_get(object, key);
    struct bytes bytes;

    if (!json_is_object(value)) {
        return portable_json_text(json, object, key, most);
    }
    bytes = portable_json_base64(json, value, "base64");
    if (bytes.size > most) {
        portable_json_fail(json, key, "is too long");
    }
    return bytes;
}

static int hex_of(char digit)
{
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

struct bytes portable_json_hex(struct portable_json *json, const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    const char *text = json_string_value(value);
    const size_t size = text == NULL ? 0 : json_string_length(value);
    uint8_t *data = arena_alloc(json->arena, size / 2 + 1, 1);

    if (data == NULL) {
        portable_json_fail_memory(json);
        return bytes_of(NULL, 0);
    }
    for (size_t i = 0; i < size; i++) {
        const int digit = hex_of(text[i]);

        if (digit < 0 || size % 2 != 0) {
            portable_json_fail(json, key, "is no hexadecimal number");
            return bytes_of(NULL, 0);
        }
        data[i / 2] = (uint8_t)(data[i / 2] << 4 | digit);
    }
    if (value != NULL && text == NULL) {
        portable_json_fail(json, key, "is no text");
    }
    return bytes_of(data, size / 2);
}

/* ---- lists ---- */

static struct bytes pack(struct portable_json *json, const json_t *list, const char *key,
                         bool (*bits_of)(const json_t *value, uint32_t *out))
{
    const size_t count = json_array_size(list);
    uint8_t *data = count > 0 ? arena_alloc(json->arena, count, 4) : NULL;

    if (count == 0) {
        return bytes_of(NULL, 0);
    }
    if (data == NULL) {
        portable_json_fail_memory(json);
        return bytes_of(NULL, 0);
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = 0;

        if (!bits_of(json_array_get(list, i), &bits)) {
            portable_json_fail(json, key, "has a member that is no number of its kind");
            return bytes_of(NULL, 0);
        }
        bytes_store_u32(data + 4 * i, bits);
    }
    return bytes_of(data, count * 4);
}

static bool id_bits(const json_t *value, uint32_t *out)
{
    return number_of(value, UINT32_MAX, out);
}

/* Nine digits name one float, and lie far from the middle between two: no double rounding. */
static bool float_bits(const json_t *value, uint32_t *out)
{
    const char *word = json_string_value(value);
    float number = (float)json_number_value(value);

    if (word != NULL && strcmp(word, "inf") == 0) {
        number = INFINITY;
    } else if (word != NULL && strcmp(word, "-inf") == 0) {
        number = -INFINITY;
    } else if (!json_is_number(value) || !isfinite(number)) {
        return false;
    }
    memcpy(out, &number, sizeof(*out));
    return true;
}

struct bytes portable_json_ids(struct portable_json *json, const json_t *list, const char *key)
{
    return pack(json, list, key, id_bits);
}

struct bytes portable_json_floats(struct portable_json *json, const json_t *list, const char *key)
{
    return pack(json, list, key, float_bits);
}

uint32_t portable_json_name(struct portable_json *json, const json_t *object, const char *key,
                            const char *(*name_of)(uint32_t number), uint32_t otherwise)
{
    const json_t *value = json_object_get(object, key);
    const char *name = json_string_value(value);

    if (value == NULL) {
        return otherwise;
    }
    for (uint32_t i = 0; name != NULL && name_of(i) != NULL; i++) {
        if (strcmp(name, name_of(i)) == 0) {
            return i;
        }
    }
    portable_json_fail(json, key, "is no word that is known here");
    return otherwise;
}

const json_t *portable_json_list(struct portable_json *json, const json_t *object, const char *key,
                                 bool wanted)
{
    const json_t *value = json_object_get(object, key);

    if ((value != NULL || wanted) && !json_is_array(value)) {
        portable_json_fail(json, key, "is no list");
        return NULL;
    }
    return value;
}

const json_t *portable_json_object(struct portable_json *json, const json_t *object,
                                   const char *key, bool wanted)
{
    const json_t *value = json_object_get(object, key);

    if ((value != NULL || wanted) && !json_is_object(value)) {
        portable_json_fail(json, key, "is no object");
        return NULL;
    }
    return value;
}
