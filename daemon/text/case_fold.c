#include "text/case_fold.h"

#include <utf8proc.h>

enum status case_fold(struct bytes text, struct buffer *out)
{
    for (size_t at = 0; at < text.size;) {
        utf8proc_int32_t point = -1;
        uint8_t encoded[4];
        const utf8proc_ssize_t size =
            utf8proc_iterate(text.data + at, (utf8proc_ssize_t)(text.size - at), &point);

        if (size <= 0) {
            TRY(buffer_append(out, bytes_of(text.data + at, 1)));
            at++;
            continue;
        }
        TRY(buffer_append(out, bytes_of(encoded, (size_t)utf8proc_encode_char(
                                                     utf8proc_tolower(point), encoded))));
        at += (size_t)size;
    }
    return STATUS_OK;
}
