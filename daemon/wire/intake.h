/* Frames of a connection to requests that the store executes: order, credits, ids, cancels.
 *
 * Thread: loop. Part of connection.c in all but length: it works on the connection's state and owns
 * nothing.
 */
#ifndef PERSONAD_WIRE_INTAKE_H
#define PERSONAD_WIRE_INTAKE_H

#include <stdbool.h>

#include "wire/connection.h"

/* Executes whole frames of the input, a bounded number. True when one more waits. */
bool intake_requests(struct connection *connection);

/* Executes the cancels by request whose nodes are known by now. */
void intake_cancels(struct connection *connection);

#endif
