/* Group: which of n answers say the same, with their probabilities. Nothing is computed: sampled
 * nodes store what is needed.
 *
 * Thread: loop. Answers once, before it returns.
 */
#ifndef PERSONAD_SESSION_GROUP_H
#define PERSONAD_SESSION_GROUP_H

#include "base/bytes.h"
#include "session/request.h"

struct store;

/* Appends the text with ASCII letters in lower case, runs of blanks as one space, and no blanks or
 * ASCII punctuation at either end. MEMORY, LIMIT of the buffer. */
MUST_USE enum status group_fold(struct bytes text, struct buffer *out);

void group_execute(struct store *store, const struct request *request, struct reply_to to);

#endif
