/* What a card has for the conversation itself: its note (extensions.depth_prompt) and its lore
 * (character_book).
 *
 * Thread: loop. Read as hostile input. Many cards are made carelessly: null counts as absent, and
 * numbers may be written as reals. Keys of lore that are regular expressions are not understood:
 * such an entry is never found by them.
 */
#ifndef PERSONAD_SESSION_CARD_BOOK_H
#define PERSONAD_SESSION_CARD_BOOK_H

#include <jansson.h>

#include "session/card.h"

/* fields: where the card's fields are. BAD_INPUT, LIMIT, MEMORY. */
MUST_USE enum status card_read_book(struct card *card, const json_t *fields, struct error *error);
MUST_USE enum status card_read_note(struct card *card, const json_t *extensions,
                                    struct error *error);

#endif
