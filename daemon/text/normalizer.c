/* utf8proc decomposes single characters and composes whole texts; the canonical ordering between
 * the two is ours, since utf8proc's is quadratic in a run of marks, and a megabyte of marks is one
 * request. */
#include "text/normalizer.h"

#include <utf8proc.h>

#include "base/check.h"
#include "base/memory.h"

enum {
    /* Every character below U+0300 is its own NFC, whatever stands beside it but these and later
     * ones: no text of smaller bytes changes. */
    FIRST_BYTE_MIN = 0xcc,
    DECOMPOSED_COUNT_MAX = 4, /* of one character, and at most two for each of its bytes */
    SHORT_RUN_COUNT_MAX = 32,
    CLASS_COUNT = 256,
};

static bool may_change(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] >= FIRST_BYTE_MIN) {
            return true;
        }
    }
    return false;
}

static size_t decompose(struct bytes text, utf8proc_int32_t *out, size_t room)
{
    size_t at = 0, count = 0;

    while (at < text.size) {
        uint32_t code_point;
        int boundary = 0;
        utf8proc_ssize_t written;

        at += utf8_decode(bytes_of(text.data + at, text.size - at), &code_point);
        written =
            utf8proc_decompose_char((utf8proc_int32_t)code_point, out + count,
                                    (utf8proc_ssize_t)(room - count), UTF8PROC_COMPOSE, &boundary);
        CHECK(written > 0 && (size_t)written <= room - count);
        count += (size_t)written;
    }
    return count;
}

static uint8_t class_of(utf8proc_int32_t code_point)
{
    return (uint8_t)utf8proc_get_property(code_point)->combining_class;
}

static void order_short_run(utf8proc_int32_t *run, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const utf8proc_int32_t mark = run[i];
        const uint8_t class = class_of(mark);
        size_t at = i;
        while (at > 0 && class_of(run[at - 1]) > class) {
            run[at] = run[at - 1];
            at--;
        }
        run[at] = mark;
    }
}

/* A counting sort, which keeps equals in order as the standard demands. */
static enum status order_long_run(utf8proc_int32_t *run, size_t count)
{
    size_t places[CLASS_COUNT + 1] = {0};
    utf8proc_int32_t *sorted = memory_alloc(count, sizeof *sorted);

    if (sorted == NULL) {
        return STATUS_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        places[class_of(run[i]) + 1]++;
    }
    for (size_t class = 1; class < CLASS_COUNT; class ++) {
        places[class] += places[class - 1];
    }
    for (size_t i = 0; i < count; i++) {
        sorted[places[class_of(run[i])]++] = run[i];
    }
    memcpy(run, sorted, count * sizeof *run);
    memory_free(sorted);
    return STATUS_OK;
}

static enum status order_marks(utf8proc_int32_t *text, size_t count)
{
    size_t start = 0;

    while (start < count) {
        size_t end = start;
        while (end < count && class_of(text[end]) != 0) {
            end++;
        }
        if (end - start > SHORT_RUN_COUNT_MAX) {
            TRY(order_long_run(text + start, end - start));
        } else {
            order_short_run(text + start, end - start);
        }
        start = end + 1;
    }
    return STATUS_OK;
}

static enum status encode(const utf8proc_int32_t *text, size_t count, struct buffer *room)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t encoded[4];
        const size_t size = utf8_encode((uint32_t)text[i], encoded);
        TRY(buffer_append(room, bytes_of(encoded, size)));
    }
    return STATUS_OK;
}

enum status normalizer_compose(struct bytes text, struct buffer *room, struct bytes *out)
{
    const size_t room_count = 2 * text.size + DECOMPOSED_COUNT_MAX;
    utf8proc_int32_t *code_points = NULL;
    utf8proc_ssize_t composed;
    enum status status;
    size_t count;

    if (!may_change(text)) {
        *out = text;
        return STATUS_OK;
    }
    code_points = memory_alloc(room_count, sizeof *code_points);
    if (code_points == NULL) {
        return STATUS_MEMORY;
    }
    count = decompose(text, code_points, room_count);
    status = order_marks(code_points, count);
    if (status != STATUS_OK) {
        goto done;
    }
    composed = utf8proc_normalize_utf32(code_points, (utf8proc_ssize_t)count,
                                        UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    CHECK(composed >= 0 && (size_t)composed <= count);
    room->size = 0;
    status = encode(code_points, (size_t)composed, room);
    if (status == STATUS_OK) {
        *out = buffer_bytes(room);
    }
done:
    memory_free(code_points);
    return status;
}
