/* Whether a tree that was read can be computed on: its tokens are the model's, its texts are what
 * its tokens show.
 *
 * Thread: loop. Of sessions that this model made; those of another one are only read.
 */
#ifndef PERSONAD_SESSION_LOAD_CHECK_H
#define PERSONAD_SESSION_LOAD_CHECK_H

#include "session/state.h"

/* NULL: all is well. Else the node that cannot be, or the root for the cast's prompts. */
struct node *load_check(const struct store *store, struct session *session);

#endif
