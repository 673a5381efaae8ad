/* The turns of a rendered sample dialogue (mes_example).
 *
 * Thread: any, pure; borrows the text. A line `<START>` begins a new conversation and is left out.
 * A line that begins with the name of the persona or of the user and a colon begins a turn; lines
 * that follow belong to it. Text before the first such line is left out by the iterator.
 */
#ifndef PERSONAD_SESSION_EXAMPLE_H
#define PERSONAD_SESSION_EXAMPLE_H

#include <stdbool.h>

#include "base/bytes.h"

struct example {
    struct bytes text, character, user;
    size_t at;
};

struct example_turn {
    bool is_persona;
    struct bytes text; /* without the name, trimmed */
};

void example_init(struct example *example, struct bytes text, struct bytes character,
                  struct bytes user);

/* False at the end. Turns without text are left out. */
bool example_next(struct example *example, struct example_turn *turn);

bool example_has_turns(struct bytes text, struct bytes character, struct bytes user);

#endif
