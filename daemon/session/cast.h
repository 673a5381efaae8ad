/* The cast of a session: who speaks under which index.
 *
 * Thread: loop. Speaker 0 is the human who opened the session, speaker 1 the persona; further
 * humans and personas follow and never go. A member owns its name; prompts are counted shares.
 *
 * A persona sees its own turns on its side of the conversation, and all others on the user's. What
 * another version of it said, a persona of the same name, counts as its own: so a persona may be
 * replaced in mid conversation. Among more than two names the others' turns are named.
 *
 * In a joint cast all of them share one view: one prompt with the preambles of all personas in
 * front, the turns of all personas on the model's side and those of all humans on the user's, and
 * everybody named. A persona that joins makes another joint prompt; the older ones stay for the
 * contexts that have them.
 *
 * The cast also keeps the frames between its speakers, made once each. They are for copying: they
 * go when the cast changes.
 */
#ifndef PERSONAD_SESSION_CAST_H
#define PERSONAD_SESSION_CAST_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "session/encoder.h"
#include "session/prompt.h"
#include "session/request.h"

enum { CAST_START = 0xffffffffu, CAST_HUMAN = 0, CAST_PERSONA = 1 };

struct cast_member {
    struct bytes name;             /* owned */
    struct prompt *prompt;         /* NULL for a human */
    struct bytes system, examples; /* owned; of a joint cast's personas: their texts, rendered */
};

struct cast_joint {
    struct prompt *prompt;
    uint32_t member_count; /* of the cast, when it was made */
};

/* The frame that closes a turn of `from` (CAST_START: the prompt) and opens one of `to`, as the
 * persona `viewpoint` sees it. */
struct cast_frame {
    uint32_t viewpoint, from, to;
    uint32_t count;
    uint32_t *ids; /* owned */
};

struct cast {
    struct cast_member *members; /* owned */
    uint32_t count;
    bool is_group; /* more than two different names */
    enum group_mode mode;
    struct cast_joint *joints; /* owned; the last one is in use */
    uint32_t joint_count;
    struct cast_frame **frames; /* owned */
    uint32_t frame_count, frame_capacity;
};

/* Appends a member; takes the prompt's share over when it succeeds. LIMIT, MEMORY. */
MUST_USE enum status cast_add(struct cast *cast, struct bytes name, struct prompt *prompt,
                              struct error *error);

/* The texts of a persona that has none yet. Copied. MEMORY. */
MUST_USE enum status cast_keep_texts(struct cast_member *member, struct bytes system,
                                     struct bytes examples, struct error *error);

/* A joint prompt for the cast as it is; takes the share over when it succeeds. MEMORY. */
MUST_USE enum status cast_add_joint(struct cast *cast, struct prompt *prompt, uint32_t member_count,
                                    struct error *error);

/* CONFLICT where a name means somebody else already: a human's is no other member's. Personas may
 * share one, as versions of one character. */
MUST_USE enum status cast_check_name(const struct cast *cast, struct bytes name, bool is_human,
                                     struct error *error);

/* The cast owns the name that it gets, the caller the one that comes back. */
void cast_swap_name(struct cast *cast, uint32_t speaker, struct bytes *name);

/* Takes the last members away, which nothing names yet. */
void cast_cut(struct cast *cast, uint32_t count,
              void (*release)(void *context, struct prompt *prompt), void *context);

/* release is called for each prompt. */
void cast_finish(struct cast *cast, void (*release)(void *context, struct prompt *prompt),
                 void *context);

/* Through whose eyes the context of a reply by `speaker` is made: a persona's own, a human's by the
 * first persona. CAST_START when the cast has no persona. */
uint32_t cast_viewpoint(const struct cast *cast, uint32_t speaker);

/* The prompt that stands in front of a context: that persona's own, or the joint one. */
const struct prompt *cast_prompt(const struct cast *cast, uint32_t viewpoint);

/* The first persona, or CAST_START. */
uint32_t cast_first_persona(const struct cast *cast);

/* *out is valid until the cast changes. */
MUST_USE enum status cast_frame_find(struct cast *cast, struct encoder *encoder, uint32_t viewpoint,
                                     uint32_t from, uint32_t to, struct error *error,
                                     const struct cast_frame **out);

/* One end of a frame, as the persona `viewpoint` sees it. */
struct template_end cast_end(const struct cast *cast, uint32_t viewpoint, uint32_t speaker);

/* The blank in front of text that enters as a turn of `speaker` after `from`. */
struct bytes cast_lead(const struct cast *cast, uint32_t from, uint32_t speaker);

#endif
