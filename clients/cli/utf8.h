/* UTF-8 at the edge of a terminal. Thread: any, no state.
 */
#ifndef PERSONAD_CLIENTS_CLI_UTF8_H
#define PERSONAD_CLIENTS_CLI_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the sequence that this byte leads; 0: it leads none. */
size_t utf8_lead_bytes(char byte);

/* Length of the well-formed sequence at `text`; 0 when it is malformed or cut off. */
size_t utf8_sequence_bytes(const char *text, size_t size);

/* So many of the bytes that the last sequence among them is not cut; at most 3 fewer. */
size_t utf8_whole_bytes(const char *text, size_t size);

/* The code point of a well-formed sequence of that length. */
uint32_t utf8_code_point(const char *text, size_t bytes);

/* Columns that a terminal takes for it: 0 for what joins the character before, 2 for wide ones. */
size_t utf8_columns(uint32_t point);

#endif
