/* A growable list of token ids.
 *
 * Thread: one at a time. A zeroed list is empty; finish frees it.
 */
#ifndef PERSONAD_SESSION_ID_LIST_H
#define PERSONAD_SESSION_ID_LIST_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/status.h"

struct id_list {
    uint32_t *ids; /* owned */
    uint32_t count;
    uint32_t capacity;
};

/* Room for `extra` more. MEMORY. */
MUST_USE enum status id_list_reserve(struct id_list *list, uint32_t extra);
MUST_USE enum status id_list_append(struct id_list *list, const uint32_t *ids, uint32_t count);

/* Little endian u32 from the journal. BAD_INPUT when the bytes are no whole number of them. */
MUST_USE enum status id_list_append_bytes(struct id_list *list, struct bytes bytes);
void id_list_finish(struct id_list *list);

#endif
