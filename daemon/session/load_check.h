/* Whether a tree that was read can be computed on: its tokens are the model's, its texts are what
 * its tokens show.
 *
 * Thread: loop. Of sessions that this model made; those of another one are only read.
 */
#ifndef PERSONAD_SESSION_LOAD_CHECK_H
#define PERSONAD_SESSION_LOAD_CHECK_H

#include "session/state.h"

/* The prompts of its cast. */
bool load_check_prompts(const struct store *store, const struct session *session);

/* A node, once its context is there. */
bool load_check_node(const struct store *store, const struct node *node);

#endif
