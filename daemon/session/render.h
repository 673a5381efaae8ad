/* Placeholders of persona texts: replaced once, when a session opens, and recorded as the result.
 *
 * Thread: loop, pure but for the seed that it draws from. Understood, whatever the case:
 *
 *   {{char}} <BOT>  {{user}} <USER>   the two names
 *   {{NAME}}                          a declared variable
 *   {{original}}                      the daemon's own system prompt, which is empty
 *   {{newline}}                       a line break
 *   {{// ...}} {{comment: ...}} {{hidden_key:...}}   nothing
 *   {{random:a,b}} {{random::a::b}} {{pick:...}}     one of the choices, drawn from the seed
 *   {{roll:d6}} {{roll:6}}            a number from 1, drawn from the seed
 *   {{date}} {{time}}                 in UTC, of the given moment
 *
 * Anything else in braces stays as it is. Values are not searched again, so a name such as
 * "{{char}}" is only text, and the result is bounded by the buffer.
 */
#ifndef PERSONAD_SESSION_RENDER_H
#define PERSONAD_SESSION_RENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct render_variable {
    struct bytes name;
    struct bytes value;
};

struct render {
    struct bytes character;
    struct bytes user;
    const struct render_variable *variables; /* borrowed */
    uint32_t variable_count;
    uint64_t seed;
    uint64_t now_us;     /* since the epoch */
    uint64_t draw_count; /* so far; start at 0 */
};

/* Appends. LIMIT when the buffer's bound is reached, MEMORY. */
MUST_USE enum status render_text(struct render *render, struct bytes text, struct buffer *out);

/* Whether the text names that placeholder. */
bool render_uses(struct bytes text, struct bytes name);

#endif
