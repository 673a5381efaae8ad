#include "utf8.h"

#include <stdbool.h>

uint32_t utf8_code_point(const char *text, size_t bytes)
{
    static const uint8_t lead_mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t value = (uint8_t)text[0] & lead_mask[bytes];
    for (size_t i = 1; i < bytes; i++) {
        value = value << 6 | ((uint8_t)text[i] & 0x3f);
    }
    return value;
}

size_t utf8_lead_bytes(char byte)
{
    const uint8_t lead = (uint8_t)byte;
    if (lead < 0x80) {
        return 1;
    }
    if (lead < 0xc2 || lead > 0xf4) {
        return 0;
    }
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

size_t utf8_sequence_bytes(const char *text, size_t size)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t bytes = size > 0 ? utf8_lead_bytes(text[0]) : 0;
    if (bytes == 0 || bytes > size) {
        return 0;
    }
    for (size_t i = 1; i < bytes; i++) {
        if (((uint8_t)text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    const uint32_t point = utf8_code_point(text, bytes);
    const bool surrogate = point >= 0xd800 && point <= 0xdfff;
    return point < least[bytes] || point > 0x10ffff || surrogate ? 0 : bytes;
}

size_t utf8_whole_bytes(const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        if (utf8_lead_bytes(text[size - back]) > back) {
            return size - back;
        }
    }
    return size;
}

/* Of the scripts that need it, and of pictures; what is missing counts one. */
static const struct range {
    uint32_t first, last;
    size_t columns;
} ranges[] = {
    {0x0300, 0x036f, 0},   {0x1100, 0x115f, 2},   {0x200b, 0x200f, 0},   {0x20d0, 0x20ff, 0},
    {0x2e80, 0x303e, 2},   {0x3041, 0xa4cf, 2},   {0xac00, 0xd7a3, 2},   {0xf900, 0xfaff, 2},
    {0xfe00, 0xfe0f, 0},   {0xfe30, 0xfe6f, 2},   {0xff01, 0xff60, 2},   {0xffe0, 0xffe6, 2},
    {0x1f300, 0x1f64f, 2}, {0x1f680, 0x1f6ff, 2}, {0x1f900, 0x1faff, 2}, {0x20000, 0x3fffd, 2},
};

size_t utf8_columns(uint32_t point)
{
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (point >= ranges[i].first && point <= ranges[i].last) {
            return ranges[i].columns;
        }
    }
    return 1;
}
