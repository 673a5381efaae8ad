/* From a sampled token to what the loop sees: output block, text, cues, the decision to stop.
 *
 * Thread: engine. Allocates nothing. Entries of the output block are written once and before the
 * event that tells of them; released counts only grow.
 *
 *   END      an end-of-generation token: stored, shows nothing, never kept
 *   CUE      the text is cut where the cue begins; kept are the whole tokens before the cut
 *   LENGTH, CONTEXT   everything is kept, unless the end of the text turns out to be a cue
 *   CANCELLED, FAILED what was released stays, and nothing else
 */
#ifndef PERSONAD_SCHEDULE_DELIVER_H
#define PERSONAD_SCHEDULE_DELIVER_H

#include <stdint.h>

#include "schedule/branch_table.h"
#include "text/tokenizer.h"

/* A branch was taken in: starts its cue reader and reads resumed tokens again. May finish it. */
void deliver_start(const struct tokenizer *tokenizer, struct branch *branch);

/* One token more. May finish the branch. */
void deliver_token(const struct tokenizer *tokenizer, struct branch *branch,
                   const struct sample_result *result, uint64_t now_ns);

/* The next mark of a look is answered. May finish the branch. */
void deliver_mark(struct branch *branch, const struct sample_result *result, uint64_t now_ns);

/* Ends it for a reason that lies outside its tokens. */
void deliver_cut(struct branch *branch, enum branch_finish finish, enum status status);

#endif
