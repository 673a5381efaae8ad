/* persona backup FILE: a whole copy of the daemon's journal, made while it goes on. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* The daemon has a working directory of its own. */
static bool path_absolute(const char *path, char out[2 * PATH_MAX])
{
    char folder[PATH_MAX];
    if (path[0] == '/') {
        (void)snprintf(out, (size_t)2 * PATH_MAX, "%s", path);
        return strlen(path) < PATH_MAX;
    }
    if (getcwd(folder, sizeof folder) == NULL) {
        return false;
    }
    return snprintf(out, (size_t)2 * PATH_MAX, "%s/%s", folder, path) < 2 * PATH_MAX;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    char path[2 * PATH_MAX];
    const int parsed = cli_parse(cli, &command_backup, argument_count, arguments, NULL);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (argument_count - optind != 1 || !path_absolute(arguments[optind], path)) {
        (void)fprintf(stderr, "persona backup: name one file for the copy\n");
        return CLI_USAGE;
    }
    const int status = cli_connect(cli);
    if (status != CLI_OK) {
        return status;
    }
    if (personad_backup(cli->client, (struct personad_text){path, strlen(path)}) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    return CLI_OK;
}

const struct cli_command command_backup = {
    .name = "backup",
    .usage = "[OPTIONS] FILE",
    .summary = "write a copy of all sessions while the daemon runs",
    .help = "FILE must not exist. Put it into an empty data folder as journal.db to start from it.",
    .run = run,
};
