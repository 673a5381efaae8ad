/* The options that commands share, as one table: name, help, and how a value enters struct cli.
 *
 * Thread: one. on_value answers false for a value that is out of range.
 */
#ifndef PERSONAD_CLIENTS_CLI_OPTIONS_H
#define PERSONAD_CLIENTS_CLI_OPTIONS_H

#include "cli.h"

struct option_row {
    const char *name;
    const char *value; /* placeholder; NULL: a flag */
    int group;         /* CLI_TAKES_*; 0: every command */
    const char *help;
    bool (*on_value)(struct cli *cli, const char *value);
};

extern const struct option_row option_rows[];
extern const int option_row_count;

/* Takes a value for the row and remembers it; NULL: it is a flag. False when it is no good. */
bool option_set(struct cli *cli, int row, const char *value);

#endif
