/* The cast of a session: who speaks under which index.
 *
 * Thread: loop. Speaker 0 is the human who opened the session, speaker 1 the persona. A member owns
 * its name; prompts are counted shares. The cast also keeps the frames between its speakers, made
 * once each: they are borrowed by contexts and by branches for as long as the session lives.
 */
#ifndef PERSONAD_SESSION_CAST_H
#define PERSONAD_SESSION_CAST_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "session/encoder.h"
#include "session/prompt.h"

enum { CAST_START = 0xffffffffu, CAST_HUMAN = 0, CAST_PERSONA = 1 };

struct cast_member {
    struct bytes name;     /* owned */
    struct prompt *prompt; /* NULL for a human */
};

/* The frame that closes a turn of `from` (CAST_START: the prompt) and opens one of `to`, as the
 * persona `viewpoint` sees it. */
struct cast_frame {
    uint32_t viewpoint, from, to;
    uint32_t has_insert; /* with the instruction after the history in it */
    uint32_t count;
    uint32_t *ids; /* owned */
};

struct cast {
    struct cast_member *members; /* owned */
    uint32_t count;
    struct cast_frame **frames; /* owned; each stays where it is */
    uint32_t frame_count, frame_capacity;
};

/* Appends a member; takes the prompt's share over when it succeeds. LIMIT, MEMORY. */
MUST_USE enum status cast_add(struct cast *cast, struct bytes name, struct prompt *prompt,
                              struct error *error);

/* release is called for each prompt. */
void cast_finish(struct cast *cast, void (*release)(void *context, struct prompt *prompt),
                 void *context);

/* Through whose eyes the context of a reply by `speaker` is made: a persona's own, a human's by the
 * first persona. CAST_START when the cast has no persona. */
uint32_t cast_viewpoint(const struct cast *cast, uint32_t speaker);

/* The first persona, or CAST_START. */
uint32_t cast_first_persona(const struct cast *cast);

MUST_USE enum status cast_frame_find(struct cast *cast, struct encoder *encoder, uint32_t viewpoint,
                                     uint32_t from, uint32_t to, bool has_insert,
                                     struct error *error, const struct cast_frame **out);

/* The blank in front of text that enters as a turn of `speaker` after `from`. */
struct bytes cast_lead(const struct cast *cast, uint32_t from, uint32_t speaker);

#endif
