/* The alphabet in which byte-level vocabularies are written: each byte as one visible code point.
 *
 * Thread: any; pure. Bytes that print in Latin-1 (! to ~, ¡ to ¬, ® to ÿ) stand for themselves.
 * The other 68, in ascending order, are U+0100 and up: a space is U+0120, a newline U+010A.
 */
#ifndef PERSONAD_TEXT_BYTE_ALPHABET_H
#define PERSONAD_TEXT_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stdint.h>

/* The code point that writes this byte. */
uint32_t byte_alphabet_code_point(uint8_t byte);

/* The byte that this code point writes; false when it writes none. */
bool byte_alphabet_byte(uint32_t code_point, uint8_t *byte);

#endif
