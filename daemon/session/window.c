#include "session/window.h"

#include "base/check.h"

enum status window_place(const struct window *window, const struct window_lengths *lengths,
                         uint32_t *first)
{
    const uint32_t half = window->room / 2;
    const uint32_t reserve = window->reply_tokens < half ? window->reply_tokens : half;
    uint32_t at = window->inherited_first;
    uint32_t last;

    CHECK(window->kept_turn_count <= window->turn_count);
    last = window->turn_count - window->kept_turn_count;
    if (at > last) {
        at = last; /* the ancestor lies before turns that have to stay */
    }
    if (lengths->tokens_from(lengths->context, at) + reserve > window->room) {
        while (at < last && lengths->tokens_from(lengths->context, at) > window->room - half) {
            at++;
        }
    }
    if (lengths->tokens_from(lengths->context, at) + 1 > window->room) {
        return STATUS_LIMIT;
    }
    *first = at;
    return STATUS_OK;
}
