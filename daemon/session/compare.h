/* Compare: what was said on a path, as several personas see it.
 *
 * Thread: loop. One look a persona along the context of the path's end, its marks at every token of
 * content. Another persona than the cast's takes the place of the one that speaks or listens at the
 * position, with the session's names and no variables.
 */
#ifndef PERSONAD_SESSION_COMPARE_H
#define PERSONAD_SESSION_COMPARE_H

#include "session/request.h"

struct store;

void compare_execute(struct store *store, const struct request *request, struct reply_to to);

#endif
