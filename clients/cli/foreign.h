/* Sessions in the formats of other programs, as far as these can hold them.
 *
 * Thread: one. In: a file of theirs becomes lines of docs/EXPORT.md whose texts have no tokens yet.
 * Out: what a walk shows of one path. What is lost is said on standard error.
 *
 *   sillytavern   a chat file (JSON lines), swipes as siblings along the path; in and out
 *   exoloom       a tree (JSON), schemaVersion 1; in and out
 */
#ifndef PERSONAD_CLIENTS_CLI_FOREIGN_H
#define PERSONAD_CLIENTS_CLI_FOREIGN_H

#include "cast.h"
#include "cli.h"
#include "nodes.h"

enum foreign_format { FOREIGN_SILLYTAVERN, FOREIGN_EXOLOOM };

/* Reads the whole file. The lines are *out, the caller's to free. CLI_FAILED after a complaint. */
int foreign_read(const struct cli *cli, enum foreign_format format, FILE *file, char **out,
                 size_t *size);

/* node 0: the session's head. */
int foreign_write_chat(struct cli *cli, uint64_t session, uint64_t node, FILE *file);

/* The whole tree, also what is deleted; of a node, the nodes of the path to it. */
int foreign_write_loom(struct cli *cli, uint64_t session, uint64_t node, FILE *file);

/* Behind so many bytes of a node's text. */
struct foreign_place {
    size_t node; /* index + 1; 0: the root */
    size_t byte;
};

/* What a tree of exoloom can hold of a session. */
struct foreign_tree {
    char title[320];
    uint64_t created_us;
    const struct cast *cast;         /* borrowed */
    const struct node_copies *nodes; /* borrowed */
    struct foreign_place *marks;     /* bookmarks; whose they are is up to who fills this in */
    size_t mark_count;
};

/* Writes the file alone. CLI_FAILED after a complaint. */
int foreign_print_loom(const struct foreign_tree *tree, FILE *file);

#endif
