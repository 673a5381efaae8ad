/* The parts of card.c that read values: texts, lists of texts, and extensions.personad.
 *
 * Thread: loop. Everything read is copied into the card's arena. JSON types stay inside card*.c.
 */
#ifndef PERSONAD_SESSION_CARD_SETTINGS_H
#define PERSONAD_SESSION_CARD_SETTINGS_H

#include <jansson.h>

#include "session/card.h"

/* A string, or "" when the field is absent or null. */
MUST_USE enum status card_read_text(struct card *card, const json_t *object, const char *key,
                                    struct error *error, struct bytes *out);

/* An array of strings; LIMIT past count_max, by the name of its limit. */
MUST_USE enum status card_read_texts(struct card *card, const json_t *object, const char *key,
                                     uint32_t count_max, const char *limit_name,
                                     struct error *error, const struct bytes **out,
                                     uint32_t *count);

/* extensions.personad */
MUST_USE enum status card_read_settings(struct card *card, const json_t *ours, struct error *error);

#endif
