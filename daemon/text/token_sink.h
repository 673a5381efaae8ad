/* Where token ids go: the caller's array, from count on.
 *
 * Thread: one at a time; plain data over a borrowed array.
 */
#ifndef PERSONAD_TEXT_TOKEN_SINK_H
#define PERSONAD_TEXT_TOKEN_SINK_H

#include <stdint.h>

#include "base/status.h"

struct token_sink {
    uint32_t *ids; /* borrowed */
    uint32_t count;
    uint32_t count_max;
};

/* LIMIT when the array is full. */
MUST_USE static inline enum status token_sink_push(struct token_sink *sink, uint32_t id)
{
    if (sink->count >= sink->count_max) {
        return STATUS_LIMIT;
    }
    sink->ids[sink->count++] = id;
    return STATUS_OK;
}

#endif
