/* persona complete: plain text in, its continuation out; no template, no cues. */
#include <stdlib.h>

#include "cli.h"
#include "reply.h"

struct options {
    bool has_at_byte;
    uint64_t at_byte;
};

static bool on_at_byte(void *context, const char *value)
{
    struct options *options = context;
    options->has_at_byte = true;
    return cli_parse_u64(value, UINT32_MAX, &options->at_byte);
}

static const struct cli_extra extras[] = {
    {"at-byte", "N", "behind so many bytes of the text of the node at the place, maybe in a token",
     on_at_byte},
    {NULL, NULL, NULL, NULL},
};

static int continue_text(struct cli *cli, const struct options *options, struct personad_text text)
{
    uint64_t session = 0;
    if (cli->persona == NULL) {
        cli->persona = "plain";
    }
    int status = cli_session(cli, &session);
    if (status != CLI_OK) {
        return status;
    }
    const struct personad_append_options given = {
        .session = session,
        .position = cli->has_position ? &cli->position : NULL,
        .text = text,
        .special = cli->special,
        .continuing = options->has_at_byte,
        .has_at_byte = options->has_at_byte,
        .at_byte = (uint32_t)options->at_byte,
    };
    struct personad_generation generation = cli_generation(cli, session);
    struct personad_position place = cli->position;
    if (text.size > 0) {
        const struct personad_node *node = NULL;
        if (personad_append(cli->client, &given, &node) != PERSONAD_OK) {
            return cli_failed(cli);
        }
        place = (struct personad_position){node->id, PERSONAD_END};
        generation.position = &place;
    } else {
        generation.has_at_byte = options->has_at_byte;
        generation.at_byte = (uint32_t)options->at_byte;
    }
    generation.numbers = cli->json;
    generation.context = cli->json;
    generation.delivery = cli->json || cli->n > 1 ? PERSONAD_FINAL_ONLY : PERSONAD_EACH_TOKEN;
    const uint64_t request = personad_generate(cli->client, options->has_at_byte, &generation);
    return reply_follow(cli, session, request, cli->n);
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {0};
    const int parsed = cli_parse(cli, &command_complete, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (options.has_at_byte && cli->session == 0) {
        cli_complain("--at-byte needs --session, and mostly --at: a node whose text goes on");
        return CLI_USAGE;
    }
    char *text = NULL;
    size_t size = 0;
    int status = cli_text(argument_count - optind, arguments + optind, &text, &size);
    if (status == CLI_OK) {
        status = cli_connect(cli);
    }
    if (status == CLI_OK) {
        status = continue_text(cli, &options, (struct personad_text){text, size});
    }
    free(text);
    return status;
}

const struct cli_command command_complete = {
    .name = "complete",
    .usage = "[OPTIONS] TEXT...",
    .summary = "continue plain text, with no template and no cues",
    .help =
        "Without TEXT (or with -) standard input is continued; an empty text starts from nothing.\n"
        "With --json one object a child is printed as it finishes: session, node, ordinal, seed,\n"
        "prompt_tokens, tokens, logprobs, entropies, top, text, finish.",
    .takes = CLI_TAKES_PERSONA | CLI_TAKES_GENERATION | CLI_TAKES_SESSION | CLI_TAKES_SPECIAL |
             CLI_TAKES_SIBLINGS,
    .extras = extras,
    .run = run,
};
