/* Log lines to standard error: `2026-01-31T12:00:00.123Z info  wire: connection 7 opened uid=1000`.
 *
 * Thread: any; one line is one write. Never logs text of conversations, prompts or personas above
 * debug. A message past 1023 bytes is cut and ends in "...".
 */
#ifndef PERSONAD_BASE_LOG_H
#define PERSONAD_BASE_LOG_H

#include <stdbool.h>

#include "base/status.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Default LOG_INFO. */
void log_level_set(enum log_level level);

/* "error", "warn", "info", "debug"; BAD_INPUT otherwise. */
MUST_USE enum status log_level_parse(const char *text, enum log_level *out);
bool log_is_on(enum log_level level);

/* area: the module that speaks ("wire", "engine"). The line needs no newline; control characters
 * and malformed UTF-8 are escaped as \xHH.
 */
void log_line(enum log_level level, const char *area, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
