/* Personas: immutable versions of cards.
 *
 * Thread: loop. A persona owns its card and lives as long as the store. What it becomes in a
 * session is its prompt (prompt.h).
 */
#ifndef PERSONAD_SESSION_PERSONA_H
#define PERSONAD_SESSION_PERSONA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "session/card.h"
#include "session/request.h"

struct persona {
    uint64_t id;
    uint32_t version; /* 1, 2, ... among the owner's personas of this name */
    uint32_t owner_uid;
    enum visibility visibility;
    bool is_built_in;  /* of a file that is in the folder now */
    bool is_from_file; /* of a file, which may have gone or changed since */
    bool is_deleted;   /* hidden; sessions that play it go on */
    uint64_t created_us;
    struct card *card;       /* owned */
    struct bytes *variables; /* owned; names that its texts use, for views */
    uint32_t variable_count;
};

/* Takes the card over when it succeeds. */
MUST_USE enum status persona_create(struct card *card, struct persona **out);
void persona_destroy(struct persona *persona); /* NULL is fine */

/* Whether that user may open a session with it: it is the user's or public, and not deleted. */
bool persona_is_playable(const struct persona *persona, uint32_t uid);

struct persona_view persona_view_of(const struct persona *persona);

#endif
