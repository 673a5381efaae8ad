/* Sessions in the formats of other programs, as far as these can hold them.
 *
 * Thread: one. In: a file of theirs becomes lines of docs/EXPORT.md whose texts have no tokens yet.
 * Out: what a walk shows of one path. What is lost is said on standard error.
 *
 *   sillytavern   a chat file (JSON lines), swipes as siblings along the path; in and out
 *   exoloom       a tree, schemaVersion 1; in
 */
#ifndef PERSONAD_CLIENTS_CLI_FOREIGN_H
#define PERSONAD_CLIENTS_CLI_FOREIGN_H

#include "cli.h"

enum foreign_format { FOREIGN_SILLYTAVERN, FOREIGN_EXOLOOM };

/* Reads the whole file. The lines are *out, the caller's to free. CLI_FAILED after a complaint. */
int foreign_read(const struct cli *cli, enum foreign_format format, FILE *file, char **out,
                 size_t *size);

/* node 0: the session's head. */
int foreign_write_chat(struct cli *cli, uint64_t session, uint64_t node, FILE *file);

#endif
