/* What the daemon asks of the operating system before it serves: folders, locks, limits, signals.
 *
 * Thread: loop, before the others start.
 */
#ifndef PERSONAD_FOLDER_H
#define PERSONAD_FOLDER_H

#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "session/store.h"

/* umask 077, SIGPIPE and SIGXFSZ ignored, RLIMIT_NOFILE raised to its hard limit. */
void folder_prepare_process(void);

/* Makes the data folder (0700) with its parents and locks it. CONFLICT when another daemon holds
 * it; DENIED when it belongs to another user; IO names the path. lock: a file descriptor for
 * folder_release(). */
MUST_USE enum status folder_prepare_data(const char *path, struct error *error, int *lock);
void folder_release(int lock);

/* Makes the socket's folder with mode 0700 when it is missing, and refuses one that another user
 * owns and could replace the socket in. */
MUST_USE enum status folder_prepare_socket(const char *socket_path, struct error *error);

/* As many connections as the descriptors of this process allow, at most `wanted`. */
uint32_t folder_connection_count_max(uint32_t wanted);

/* Loads every *.json of the folder in name order; path NULL: the cards that ship (installed, else
 * beside the sources). A card that is wrong is an error that names it. */
MUST_USE enum status folder_load_personas(const char *path, struct store *store,
                                          struct error *error);

#endif
