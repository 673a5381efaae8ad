/* Prompts: what a persona becomes in a session, as ids.
 *
 * Thread: loop. A prompt is a persona rendered with the names and variables of a session. Sessions
 * of one owner (of a public persona: all sessions) that render to the same ids share one, and by
 * its scope the KV of it, so that text is tokenised and prefilled once. Counted shares.
 *
 * The prompt of a persona:
 *
 *   chat        system block of: system_prompt, description, personality, scenario;
 *               then the sample dialogue as turns
 *   transcript  the same text as preamble; then the sample dialogue as lines "NAME: ..."
 *   plain       the same text and nothing else; empty for the persona `plain`
 *
 * A joint prompt has the texts of several personas: one system block with all preambles, then all
 * sample dialogues. It belongs to the first of them.
 *
 * A sample dialogue whose lines name no speaker is added to the system text. The
 * post_history_instructions stand between the last turn and the reply.
 */
#ifndef PERSONAD_SESSION_PROMPT_H
#define PERSONAD_SESSION_PROMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/sha256.h"
#include "base/status.h"
#include "session/encoder.h"
#include "session/persona.h"
#include "session/prompt_insert.h"
#include "session/template.h"

struct prompt_greeting {
    uint32_t *ids; /* owned by the prompt */
    uint32_t count;
};

struct prompt {
    uint64_t scope;                /* names what may share its KV; not 0 */
    const struct persona *persona; /* borrowed, lives as long as the store */
    uint32_t reference_count;
    struct template template;
    struct template_end end; /* of the last turn in the prompt: START, or of the sample dialogue */
    bool is_open;            /* the prompt left a user turn open */
    struct id_list ids;      /* owned */
    struct prompt_greeting *greetings; /* owned; [persona's greeting_count] */
    struct buffer post_history;        /* owned; rendered text */
    struct prompt_inserts inserts;     /* owned */
    struct buffer names;               /* owned; character, then user */
    struct bytes character, user;
    uint8_t digest[SHA256_BYTES]; /* its name in the journal, once it was recorded or restored */
};

struct prompt_values {
    struct bytes user;
    const struct variable *variables;
    uint32_t variable_count;
    uint64_t seed;   /* for random placeholders */
    uint64_t now_us; /* for dates */
};

/* What a joint prompt is made of: a persona's texts, rendered. */
struct prompt_texts {
    struct buffer system, examples;
};

/* Renders and tokenises. BAD_INPUT names a variable that the persona does not have; LIMIT. texts
 * (NULL: not wanted) is the caller's to finish when it succeeds. */
MUST_USE enum status prompt_create(const struct persona *persona, const struct template *model,
                                   struct encoder *encoder, const struct prompt_values *values,
                                   struct error *error, struct prompt_texts *texts,
                                   struct prompt **out);

/* One persona of a joint prompt; all borrowed. */
struct prompt_part {
    const struct prompt *prompt; /* its own */
    struct bytes system, examples;
};

/* All parts play in the same format, which is not plain. is_named: the sample dialogues name who
 * speaks. owner_uid: who may share it, where a part is private. */
MUST_USE enum status prompt_join(const struct prompt_part *parts, uint32_t count, bool is_named,
                                 uint32_t owner_uid, struct encoder *encoder, struct error *error,
                                 struct prompt **out);

/* As it was recorded; nothing is rendered again. BAD_INPUT for what cannot have been recorded. */
struct journal_prompt;
MUST_USE enum status prompt_restore(const struct persona *persona, const struct template *model,
                                    const struct journal_prompt *row, struct error *error,
                                    struct prompt **out);
/* Names what may share its KV, by what it is and whose. prompt_restore() takes the recorded one. */
void prompt_set_scope(struct prompt *prompt);
void prompt_set_joint_scope(struct prompt *prompt, uint32_t owner_uid); /* of a session */
void prompt_destroy(struct prompt *prompt);                             /* NULL is fine */

/* Whether it hides nothing: no text of the card is in it. */
bool prompt_is_bare(const struct prompt *prompt);

#endif
