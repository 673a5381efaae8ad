/* Bytes that a text is prescribed to have.
 *
 * Thread: any; a plain struct. The text begins with `forced`; and where there are choices, forced +
 * one of them is all of it. What follows from that for tokens is in text/byte_mask.h.
 */
#ifndef PERSONAD_BASE_BYTE_RULE_H
#define PERSONAD_BASE_BYTE_RULE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

struct byte_rule {
    struct bytes forced;
    const struct bytes *choices; /* borrowed; none of them empty */
    uint32_t choice_count;       /* 0: free after `forced` */
};

static inline bool byte_rule_is_empty(const struct byte_rule *rule)
{
    return rule->forced.size == 0 && rule->choice_count == 0;
}

#endif
