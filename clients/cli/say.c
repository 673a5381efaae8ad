/* persona say: one turn of the user, one reply (or n of them). */
#include <stdlib.h>

#include "cli.h"
#include "reply.h"

static int run(struct cli *cli, int argument_count, char **arguments)
{
    const int parsed = cli_parse(cli, &command_say, argument_count, arguments, NULL);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    char *text = NULL;
    size_t size = 0;
    int status = cli_text(argument_count - optind, arguments + optind, &text, &size);
    uint64_t session = 0;
    if (status == CLI_OK) {
        status = cli_connect(cli);
    }
    if (status == CLI_OK) {
        status = cli_session(cli, &session);
    }
    if (status == CLI_OK) {
        struct personad_generation generation = cli_generation(cli, session);
        generation.numbers = cli->json;
        generation.context = cli->json;
        generation.delivery = cli->json || cli->n > 1 ? PERSONAD_FINAL_ONLY : PERSONAD_EACH_TOKEN;
        const struct personad_text said = {text, size};
        const uint64_t request = personad_say(cli->client, said, 0, &generation);
        status = reply_follow(cli, session, request, cli->n);
    }
    free(text);
    return status;
}

const struct cli_command command_say = {
    .name = "say",
    .usage = "[OPTIONS] TEXT...",
    .summary = "say one thing to a persona and print the reply",
    .help = "Without TEXT (or with -) standard input is said. A new session is opened unless\n"
            "--session names one. With --json one object a reply is printed as it finishes.",
    .takes = CLI_TAKES_PERSONA | CLI_TAKES_GENERATION | CLI_TAKES_SESSION | CLI_TAKES_SIBLINGS,
    .run = run,
};
