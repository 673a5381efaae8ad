/* Edit: a sibling of a node with other bytes in a range of its text.
 *
 * Thread: loop. Nothing changes in place: the node stays, and the edited one hangs beside it,
 * given, with origin EDITED and the id of its original. Only what is new is tokenised: the
 * replacement with the bytes of tokens that the range cuts; all other tokens are kept. With `carry`
 * the path below is attached again, as given nodes that name their originals.
 */
#ifndef PERSONAD_SESSION_EDIT_H
#define PERSONAD_SESSION_EDIT_H

#include "session/state.h"

void edit_execute(struct store *store, const struct request *request, struct reply_to to);

#endif
