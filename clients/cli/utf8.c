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
