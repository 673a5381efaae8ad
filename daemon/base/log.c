#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"

enum {
    LOG_MESSAGE_BYTES_MAX = 1024,
    LOG_LINE_BYTES_MAX = 4 * LOG_MESSAGE_BYTES_MAX + 128, /* every byte escaped, and the head */
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static atomic_int level_on = LOG_INFO;

void log_level_set(enum log_level level)
{
    atomic_store_explicit(&level_on, (int)level, memory_order_relaxed);
}

enum status log_level_parse(const char *text, enum log_level *out)
{
    for (int level = LOG_ERROR; level <= LOG_DEBUG; level++) {
        if (strcmp(text, level_names[level]) == 0) {
            *out = (enum log_level)level;
            return STATUS_OK;
        }
    }
    return STATUS_BAD_INPUT;
}

bool log_is_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&level_on, memory_order_relaxed);
}

static size_t format_head(char *line, enum log_level level, const char *area)
{
    const uint64_t now_us = clock_wall_us();
    const time_t seconds = (time_t)(now_us / 1000000);
    struct tm utc;
    size_t size;
    int length;

    CHECK(gmtime_r(&seconds, &utc) != NULL);
    size = strftime(line, 64, "%Y-%m-%dT%H:%M:%S", &utc);
    length = snprintf(line + size, 64, ".%03uZ %-5s %.32s: ", (unsigned)(now_us / 1000 % 1000),
                      level_names[level], area);
    CHECK(length > 0 && length < 64);
    return size + (size_t)length;
}

/* Control characters and malformed UTF-8 could forge a line or drive a terminal. */
static size_t escape_message(char *out, struct bytes message)
{
    size_t size = 0;
    size_t offset = 0;

    while (offset < message.size) {
        const uint8_t *at = message.data + offset;
        uint32_t code_point = 0;
        const size_t length = utf8_decode(bytes_of(at, message.size - offset), &code_point);
        const size_t count = length == 0 ? 1 : length;
        const bool is_plain =
            length > 0 && code_point >= 0x20 && (code_point < 0x7F || code_point > 0x9F);

        for (size_t i = 0; i < count; i++) {
            if (is_plain) {
                out[size++] = (char)at[i];
            } else {
                size += (size_t)snprintf(out + size, sizeof("\\xHH"), "\\x%02x", at[i]);
            }
        }
        offset += count;
    }
    return size;
}

void log_line(enum log_level level, const char *area, const char *format, ...)
{
    char message[LOG_MESSAGE_BYTES_MAX];
    char line[LOG_LINE_BYTES_MAX];
    va_list arguments;
    size_t size;
    int length;

    if (!log_is_on(level)) {
        return;
    }
    va_start(arguments, format);
    length = vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    CHECK(length >= 0);
    if ((size_t)length >= sizeof(message)) {
        memcpy(message + sizeof(message) - 4, "...", 4);
    }
    size = format_head(line, level, area);
    size += escape_message(line + size, bytes_of_text(message));
    line[size++] = '\n';
    /* A log that cannot be written has nobody to tell. */
    if (write(STDERR_FILENO, line, size) < 0) {
        return;
    }
}
