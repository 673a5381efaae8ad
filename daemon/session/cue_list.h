/* What ends a reply besides its tokens, as it is stored with every sampled node: names and strings.
 *
 * Thread: loop. Immutable, a counted share of siblings. The stored form is, for each pattern, its
 * kind and its size as u32, then its bytes; the order is that of the indexes which a branch reports
 * as the pattern that matched.
 */
#ifndef PERSONAD_SESSION_CUE_LIST_H
#define PERSONAD_SESSION_CUE_LIST_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/status.h"
#include "text/cue.h"

struct cue_list {
    uint32_t reference_count;
    uint32_t size;
    uint8_t data[];
};

/* The caller owns one share. MEMORY. */
MUST_USE enum status cue_list_create(const struct cue_pattern *patterns, uint32_t count,
                                     struct cue_list **out);

/* From the stored form. MEMORY; BAD_INPUT for what cue_list_create() cannot have made. */
MUST_USE enum status cue_list_parse(struct bytes stored, struct cue_list **out);

/* The automaton that a branch reads with. As cue_set_create(). */
MUST_USE enum status cue_list_compile(const struct cue_list *list, struct error *error,
                                      struct cue_set **out);

struct cue_list *cue_list_acquire(struct cue_list *list);
void cue_list_release(struct cue_list *list); /* NULL is fine */

static inline struct bytes cue_list_bytes(const struct cue_list *list)
{
    return bytes_of(list->data, list->size);
}

#endif
