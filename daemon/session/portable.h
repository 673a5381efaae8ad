/* A session on its way out of the store or into it, and the words of its file (docs/EXPORT.md).
 *
 * Thread: loop. The rows of the tree are those of the journal. On the way in their ids are the
 * numbers of the file (nodes from 1, in order; a context's is that of the first node that has it)
 * until portable_renumber().
 */
#ifndef PERSONAD_SESSION_PORTABLE_H
#define PERSONAD_SESSION_PORTABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "journal/rows.h"
#include "limits.h"
#include "session/position.h"

enum { PORTABLE_VERSION = 1 };

struct portable_member {
    struct bytes name;
    bool is_persona;
    bool is_hidden;                /* another's persona: no card, and on the way out no prompt */
    struct bytes persona_name;     /* of a persona */
    struct bytes card;             /* empty: the persona is found by its name */
    struct bytes system, examples; /* of a joint cast's persona */
    bool has_prompt;               /* else it is rendered anew */
    struct journal_prompt prompt;
};

/* What all personas of a joint cast see, from when it had so many members. */
struct portable_joint {
    uint32_t member_count;
    struct journal_prompt prompt;
};

/* The prompt of a context: a member's, or a joint one. */
enum { PORTABLE_JOINT = 0x80, PORTABLE_NO_PROMPT = 0xff };

struct portable {
    struct rows_tree *tree; /* owned, and its arena all bytes that were read */
    uint64_t seed, created_us;
    uint32_t context_tokens;
    bool has_seed;
    struct bytes label;
    struct position head;
    struct portable_member members[SESSION_CAST_COUNT_MAX];
    uint32_t member_count;
    bool is_joint;
    struct portable_joint joints[SESSION_CAST_COUNT_MAX];
    uint32_t joint_count;
    uint8_t *context_prompts; /* owned, [tree->context_count] on the way in: index, and
                               * PORTABLE_JOINT for one of the joints */
};

void portable_finish(struct portable *portable); /* a zeroed one is fine */

/* Numbers become ids: node 1 gets first_node, and so on. Once. */
void portable_renumber(struct portable *portable, uint64_t session, uint64_t first_node);

/* Names in files; the numbers are those of the enums. NULL past the last one. */
const char *portable_origin_name(uint32_t origin);
const char *portable_finish_name(uint32_t finish);
const char *portable_side_name(uint32_t side);
const char *portable_format_name(uint32_t format);
const char *portable_segment_name(uint32_t kind);

#endif
