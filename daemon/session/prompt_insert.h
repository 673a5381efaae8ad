/* What a card inserts into conversations, rendered when the session opened: its note and its lore.
 *
 * Thread: loop. Stored with the prompt (docs/JOURNAL.md, "Inserts"), so that placeholders are
 * replaced once. What is read back is checked against the card; entries that the card does not have
 * are left out.
 */
#ifndef PERSONAD_SESSION_PROMPT_INSERT_H
#define PERSONAD_SESSION_PROMPT_INSERT_H

#include "base/bytes.h"
#include "base/status.h"
#include "session/card.h"
#include "session/render.h"

struct prompt_inserts {
    struct buffer stored; /* owned */
    struct bytes note;    /* in `stored`; empty: none */
    struct bytes *lore;   /* owned; [the card's lore_count]; in `stored`; empty: not there */
};

/* LIMIT past TEXT_BYTES_MAX in all, MEMORY. *out is zeroed before. */
MUST_USE enum status prompt_insert_render(struct render *render, const struct card *card,
                                          struct prompt_inserts *out);

/* BAD_INPUT, MEMORY. */
MUST_USE enum status prompt_insert_restore(struct bytes stored, const struct card *card,
                                           struct prompt_inserts *out);
void prompt_insert_finish(struct prompt_inserts *inserts); /* zeroed is fine */

#endif
