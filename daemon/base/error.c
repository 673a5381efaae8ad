#include "base/error.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

#undef error_set
#undef error_set_limit

/* Sentences quote names from files and peers, so the bytes may be anything: malformed ones become
 * '?', and a character that the bound cut in two is dropped.
 */
static void clean_text(char *text, bool was_cut)
{
    const size_t size = strlen(text);
    size_t offset = 0;

    while (offset < size) {
        offset += utf8_valid_prefix_bytes(bytes_of(text + offset, size - offset));
        if (offset < size) {
            const bool is_lead = ((uint8_t)text[offset] & 0xC0) == 0xC0;
            const bool is_tail = was_cut && size - offset < 4 && is_lead;

            text[offset] = is_tail ? '\0' : '?';
            offset = is_tail ? size : offset + 1;
        }
    }
}

static void set_text(struct error *error, const char *format, va_list arguments)
{
    /* Formatted aside first: the arguments may point into error->text. */
    char text[ERROR_TEXT_BYTES_MAX];
    const int length = vsnprintf(text, sizeof(text), format, arguments);

    CHECK(length >= 0);
    clean_text(text, (size_t)length >= sizeof(text));
    memcpy(error->text, text, sizeof(text));
}

enum status error_set(struct error *error, enum status status, const char *format, ...)
{
    va_list arguments;

    CHECK(status != STATUS_OK);
    if (error == NULL) {
        return status;
    }
    va_start(arguments, format);
    set_text(error, format, arguments);
    va_end(arguments);
    error->status = status;
    error->limit_name = NULL;
    error->limit_value = 0;
    return status;
}

enum status error_set_limit(struct error *error, const char *limit_name, uint64_t limit_value,
                            const char *format, ...)
{
    va_list arguments;

    if (error == NULL) {
        return STATUS_LIMIT;
    }
    va_start(arguments, format);
    set_text(error, format, arguments);
    va_end(arguments);
    error->status = STATUS_LIMIT;
    error->limit_name = limit_name;
    error->limit_value = limit_value;
    return STATUS_LIMIT;
}

void error_prefix(struct error *error, const char *format, ...)
{
    char prefix[ERROR_TEXT_BYTES_MAX];
    char text[2 * ERROR_TEXT_BYTES_MAX + 2];
    va_list arguments;
    int length;

    if (error == NULL) {
        return;
    }
    va_start(arguments, format);
    length = vsnprintf(prefix, sizeof(prefix), format, arguments);
    va_end(arguments);
    CHECK(length >= 0);
    length = snprintf(text, sizeof(text), "%s: %s", prefix, error->text);
    text[ERROR_TEXT_BYTES_MAX - 1] = '\0';
    clean_text(text, length >= ERROR_TEXT_BYTES_MAX);
    memcpy(error->text, text, ERROR_TEXT_BYTES_MAX);
}
