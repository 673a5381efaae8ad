/* A failure as people read it: a status and one sentence that names what was wrong and what to do.
 *
 * Thread: any; the struct belongs to the caller. Functions take `struct error *error` as the
 * parameter before their out parameters; NULL is allowed and means that nobody reads the sentence.
 * On success the struct is left alone.
 */
#ifndef PERSONAD_BASE_ERROR_H
#define PERSONAD_BASE_ERROR_H

#include <stdint.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ERROR_TEXT_BYTES_MAX = 512 };

struct error {
    enum status status;
    char text[ERROR_TEXT_BYTES_MAX]; /* UTF-8, NUL-terminated, cut at a character boundary */
    const char *limit_name;          /* static: the name in limits.h that was hit, or NULL */
    uint64_t limit_value;            /* its value, when limit_name is set */
};

/* Fills the error and returns the status, so that callers can write `return error_set(...)`. */
enum status error_set(struct error *error, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for STATUS_LIMIT, naming the limit. */
enum status error_set_limit(struct error *error, const char *limit_name, uint64_t limit_value,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Puts "prefix: " before the present text. */
void error_prefix(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* clang's analyzer sees one file at a time: tell it that these never come back with OK. */
#ifdef __clang_analyzer__
#define error_set(error, status, ...) ((void)(error_set)(error, status, __VA_ARGS__), (status))
#define error_set_limit(error, ...) ((void)(error_set_limit)(error, __VA_ARGS__), STATUS_LIMIT)
#endif

#ifdef __cplusplus
}
#endif

#endif
