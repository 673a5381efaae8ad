/* Distribution: what the model would say next at a position.
 *
 * Thread: loop. One look whose marks all stand at the last token of the context.
 */
#ifndef PERSONAD_SESSION_DISTRIBUTION_H
#define PERSONAD_SESSION_DISTRIBUTION_H

#include "session/request.h"

struct store;

void distribution_execute(struct store *store, const struct request *request, struct reply_to to);

#endif
