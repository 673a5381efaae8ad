/* Which turns of a long conversation the model still sees.
 *
 * Thread: any, pure. A context is
 *
 *   prompt and inserts | turns first .. turn_count-1 | frame of the turn to be generated
 *
 * room = what the session's context length leaves beside prompt and inserts; reserve = the tokens
 * that the reply may need, at most half of the room. While turns + reserve fit the room nothing
 * moves. Past it whole oldest turns go until half of the room is free (not one turn each time,
 * which would prefill everything every turn). The last turn and the open one stay: if they leave no
 * place for one token, the answer is LIMIT. The cut is stored with the context, and children
 * inherit it, so that their contexts extend their parent's.
 */
#ifndef PERSONAD_SESSION_WINDOW_H
#define PERSONAD_SESSION_WINDOW_H

#include <stdint.h>

#include "base/status.h"

struct window {
    uint32_t room;            /* tokens beside prompt and inserts */
    uint32_t reply_tokens;    /* wanted by the reply */
    uint32_t turn_count;      /* on the path; the last one may be open */
    uint32_t kept_turn_count; /* newest turns that stay whatever happens */
    uint32_t inherited_first; /* the cut of the ancestor's context */
};

/* Tokens of turns first.. with all frames, the frame of the turn to be generated included. Falls as
 * `first` grows. */
struct window_lengths {
    uint64_t (*tokens_from)(void *context, uint32_t first);
    void *context;
};

/* The first turn that stays. LIMIT when what must stay does not fit. */
MUST_USE enum status window_place(const struct window *window, const struct window_lengths *lengths,
                                  uint32_t *first);

#endif
