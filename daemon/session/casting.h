/* Who joins a session's cast: humans and versions of personas, when it opens or later.
 *
 * Thread: loop. Prompts are made here. Nobody leaves a cast, since nodes name their speakers.
 */
#ifndef PERSONAD_SESSION_CASTING_H
#define PERSONAD_SESSION_CASTING_H

#include "session/state.h"

struct casting {
    struct store *store;
    struct session *session;
    struct error *error;
};

/* The human, then the first persona. BAD_INPUT, LIMIT where its prompt does not fit the session. */
MUST_USE enum status casting_first(const struct casting *casting,
                                   const struct request_session_open *open,
                                   const struct persona *persona);

/* Once all that join at a time are there: the joint prompt, where the cast is joint and a persona
 * is new. CONFLICT where personas do not play alike. */
MUST_USE enum status casting_join(const struct casting *casting);

/* A persona as the next speaker, with a prompt of its own. */
MUST_USE enum status casting_add_persona(const struct casting *casting,
                                         const struct persona *persona,
                                         const struct variable *variables, uint32_t variable_count);

/* What a persona becomes in this session, for its human. The share is the caller's. */
MUST_USE enum status casting_make_prompt(const struct casting *casting,
                                         const struct persona *persona, struct prompt **out);

/* The same speaker as another cast has. */
MUST_USE enum status casting_add_copy(const struct casting *casting,
                                      const struct cast_member *member);

/* Further ones. CONFLICT for a name that is taken; is_repeatable: who is there already is left as
 * it is. What was added before a failure stays: casting_cut(). */
MUST_USE enum status casting_add(const struct casting *casting,
                                 const struct request_member *members, uint32_t count,
                                 bool is_repeatable);
void casting_cut(const struct casting *casting, uint32_t count);

/* A human behind speaker 0 who has said nothing gets another name. CONFLICT, BAD_INPUT. */
MUST_USE enum status casting_check_rename(const struct casting *casting, uint32_t speaker,
                                          struct bytes name);

#endif
