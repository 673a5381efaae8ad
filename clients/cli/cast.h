/* Who is in a session's cast, by name.
 *
 * Thread: one.
 */
#ifndef PERSONAD_CLIENTS_CLI_CAST_H
#define PERSONAD_CLIENTS_CLI_CAST_H

#include "cli.h"

struct cast_member {
    char name[260];
    bool is_human;
};

struct cast {
    struct cast_member members[PERSONAD_CAST_COUNT_MAX]; /* by speaker */
    size_t count;
};

void cast_take(struct cast *cast, const struct personad_session *session);

/* Asks the daemon; valid until the next call. NULL after a complaint. */
const struct personad_session *cast_session(struct cli *cli, uint64_t session);

/* The same, and keeps its cast. CLI_FAILED after a complaint. */
int cast_read(struct cli *cli, uint64_t session, struct cast *out);

/* The speaker whose name the text begins with, the longest such name, or its number; *rest is what
 * follows behind the blanks. Of equal names the one that joined last. False, after a complaint. */
bool cast_find(const struct cast *cast, const char *text, uint32_t *speaker, const char **rest);

#endif
