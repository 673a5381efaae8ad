/* The 68 bytes without a glyph are three runs: 00-20, 7F-A0 and AD. */
#include "text/byte_alphabet.h"

enum {
    MOVED_BASE = 0x100,
    FIRST_RUN_COUNT = 0x21,
    SECOND_RUN_START = 0x7f,
    SECOND_RUN_COUNT = 0xa1 - 0x7f,
    THIRD_RUN_START = 0xad,
    MOVED_COUNT = FIRST_RUN_COUNT + SECOND_RUN_COUNT + 1,
};

uint32_t byte_alphabet_code_point(uint8_t byte)
{
    if (byte < FIRST_RUN_COUNT) {
        return MOVED_BASE + byte;
    }
    if (byte >= SECOND_RUN_START && byte < SECOND_RUN_START + SECOND_RUN_COUNT) {
        return MOVED_BASE + FIRST_RUN_COUNT + (byte - SECOND_RUN_START);
    }
    if (byte == THIRD_RUN_START) {
        return MOVED_BASE + MOVED_COUNT - 1;
    }
    return byte;
}

bool byte_alphabet_byte(uint32_t code_point, uint8_t *byte)
{
    uint32_t moved = code_point - MOVED_BASE;

    if (code_point < MOVED_BASE) {
        *byte = (uint8_t)code_point;
        return byte_alphabet_code_point((uint8_t)code_point) == code_point;
    }
    if (moved >= MOVED_COUNT) {
        return false;
    }
    if (moved < FIRST_RUN_COUNT) {
        *byte = (uint8_t)moved;
    } else if (moved < FIRST_RUN_COUNT + SECOND_RUN_COUNT) {
        *byte = (uint8_t)(SECOND_RUN_START + (moved - FIRST_RUN_COUNT));
    } else {
        *byte = THIRD_RUN_START;
    }
    return true;
}
