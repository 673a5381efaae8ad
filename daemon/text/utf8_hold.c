/* The second byte of a sequence decides overlongs, surrogates and the end of Unicode; the lead byte
 * alone decides the length. */
#include "text/utf8_hold.h"

#include <stdbool.h>

static uint8_t sequence_bytes(uint8_t lead)
{
    if (lead >= 0xc2 && lead <= 0xdf) {
        return 2;
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        return 3;
    }
    return lead >= 0xf0 && lead <= 0xf4 ? 4 : 1;
}

static bool follows(uint8_t lead, uint8_t index, uint8_t byte)
{
    uint8_t low = 0x80, high = 0xbf;

    if (index == 1) {
        low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : low;
        high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : high;
    }
    return byte >= low && byte <= high;
}

uint8_t utf8_hold_push(uint8_t held[4], uint8_t size, uint8_t byte)
{
    if (size > 0 && follows(held[0], size, byte)) {
        held[size] = byte;
        return size + 1 == sequence_bytes(held[0]) ? 0 : (uint8_t)(size + 1);
    }
    held[0] = byte;
    return sequence_bytes(byte) > 1 ? 1 : 0;
}
