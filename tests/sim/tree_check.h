/* Whether the daemon has what the naive twin says, and what the twin cannot know before it is
 * looked at: how far a reply has got, and where a cut fell.
 *
 * Thread: one. What differs goes to world_fail().
 */
#ifndef PERSONAD_TESTS_SIM_TREE_CHECK_H
#define PERSONAD_TESTS_SIM_TREE_CHECK_H

#include "sim/tree_model.h"
#include "sim/tree_world.h"

/* One session: every node in its order with all it holds, head and bookmarks. */
void check_session(struct tree_world *world, struct tree_model *model, int session);

/* All of them, and the list of sessions. */
void check_all(struct tree_world *world, struct tree_model *model);

/* What was marked behind the end of a node of a file is at its end; of notes the last one is. */
void check_draw_marks_in(struct tree_model *model, const struct model_node *node);

/* The daemon has been started again: what was shown and not stored comes again. */
void check_restarted(struct tree_model *model);

#endif
