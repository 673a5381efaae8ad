/* persona tokenize: text to token ids. */
#include <stdlib.h>

#include "cli.h"
#include "json.h"

static int tokens_print(struct cli *cli, struct personad_text text)
{
    const uint32_t *tokens = NULL;
    const struct personad_text *pieces = NULL;
    size_t count = 0;
    if (personad_tokenize(cli->client, text, cli->special, &tokens, &count, &pieces) !=
        PERSONAD_OK) {
        return cli_failed(cli);
    }
    if (cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_ids(&json, "tokens", tokens, count);
        json_list(&json, "pieces");
        for (size_t i = 0; i < count; i++) {
            json_text(&json, NULL, pieces[i]);
        }
        json_list_end(&json);
        json_end(&json);
        return CLI_OK;
    }
    for (size_t i = 0; i < count; i++) {
        (void)printf("%8u  ", tokens[i]);
        cli_print_line(stdout, pieces[i], 64);
        (void)fputc('\n', stdout);
    }
    return CLI_OK;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    const int parsed = cli_parse(cli, &command_tokenize, argument_count, arguments, NULL);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    char *text = NULL;
    size_t size = 0;
    int status = cli_text(argument_count - optind, arguments + optind, &text, &size);
    if (status == CLI_OK) {
        status = cli_connect(cli);
    }
    if (status == CLI_OK) {
        status = tokens_print(cli, (struct personad_text){text, size});
    }
    free(text);
    return status;
}

const struct cli_command command_tokenize = {
    .name = "tokenize",
    .usage = "[OPTIONS] TEXT...",
    .summary = "print the token ids of a text",
    .help = "Without TEXT (or with -) standard input is tokenised.",
    .takes = CLI_TAKES_SPECIAL,
    .run = run,
};
