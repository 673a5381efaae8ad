/* `persona`: talk to the daemon from a terminal or a script. One file a command; cli.c has what
 * they share. */
#include <stdio.h>
#include <string.h>

#include "cli.h"

static const struct cli_command *const commands[] = {
    &command_chat,     &command_say,    &command_complete, &command_tree,   &command_tokenize,
    &command_personas, &command_info,   &command_bench,    &command_batch,  &command_backup,
    &command_dist,     &command_score,  &command_compare,  &command_group,  &command_verify,
    &command_walk,     &command_expand, &command_export,   &command_import,
};

static void help_print(FILE *file)
{
    (void)fputs("Usage: persona COMMAND [OPTIONS] [ARGUMENTS]\n"
                "Talks to personad over its Unix socket.\n\nCommands:\n",
                file);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        (void)fprintf(file, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    }
    (void)fputs("\nEvery command takes --socket PATH (else $PERSONAD_SOCKET, else the daemon's "
                "default),\n--json (one object a line) and --help.\n"
                "Exit status: 0 done, 1 the daemon said no, 2 wrong usage.\n",
                file);
}

int main(int argument_count, char **arguments)
{
    const char *name = argument_count > 1 ? arguments[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        help_print(stdout);
        return CLI_OK;
    }
    if (strcmp(name, "--version") == 0) {
        (void)puts("persona " PERSONAD_VERSION);
        return CLI_OK;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            struct cli cli = {.command = name};
            const int status = commands[i]->run(&cli, argument_count - 1, arguments + 1);
            cli_finish(&cli);
            if (fflush(stdout) != 0 || ferror(stdout)) {
                cli_complain("standard output could not be written");
                return CLI_FAILED;
            }
            return status;
        }
    }
    if (name[0] != '\0') {
        cli_complain("'%s' is no command", name);
    }
    help_print(stderr);
    return CLI_USAGE;
}
