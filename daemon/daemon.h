/* The daemon: its three threads and their wiring.
 *
 * Thread: daemon_run() is the loop thread; it starts the engine and journal threads and joins them
 * before it returns. Parts are built in the order in which they depend on each other and torn down
 * in reverse.
 */
#ifndef PERSONAD_DAEMON_H
#define PERSONAD_DAEMON_H

#include "base/error.h"
#include "settings.h"

/* Runs until SIGTERM or SIGINT (OK) or a failure that ends it. Prints `personad: ready on SOCKET`
 * once requests can be answered. */
MUST_USE enum status daemon_run(const struct settings *settings, struct error *error);

#endif
