/* Holds back the bytes of a UTF-8 sequence until it is whole, one byte after another.
 *
 * Thread: one at a time; plain data. A sequence that can no longer be completed is given up: its
 * bytes are nobody's to hold (model text is raw bytes), and the byte that broke it starts anew.
 */
#ifndef PERSONAD_TEXT_UTF8_HOLD_H
#define PERSONAD_TEXT_UTF8_HOLD_H

#include <stdint.h>

/* Takes one byte after `size` held ones; the answer is how many are held now, the last ones seen:
 * 0 when a sequence is whole or the byte is none's. held has room for 4. */
uint8_t utf8_hold_push(uint8_t held[4], uint8_t size, uint8_t byte);

#endif
