/* persona say: one turn of the user, one reply (or n of them). */
#include <stdlib.h>

#include "cast.h"
#include "cli.h"
#include "reply.h"

/* Who speaks, by name. NULL: you, and the first persona. */
struct speakers {
    const char *as, *to;
};

static bool on_as(void *context, const char *value)
{
    ((struct speakers *)context)->as = value;
    return value[0] != '\0';
}

static bool on_to(void *context, const char *value)
{
    ((struct speakers *)context)->to = value;
    return value[0] != '\0';
}

static bool name_find(const struct cast *cast, const char *name, uint32_t *speaker)
{
    const char *rest = NULL;
    if (!cast_find(cast, name, speaker, &rest)) {
        return false;
    }
    if (*rest != '\0') {
        cli_complain("nobody is called '%s'", name);
    }
    return *rest == '\0';
}

static int speakers_find(struct cli *cli, uint64_t session, const struct speakers *speakers,
                         uint32_t *speaker, struct personad_generation *generation)
{
    struct cast cast;
    if (speakers->as == NULL && speakers->to == NULL) {
        return CLI_OK;
    }
    const int status = cast_read(cli, session, &cast);
    if (status != CLI_OK) {
        return status;
    }
    if (speakers->as != NULL && !name_find(&cast, speakers->as, speaker)) {
        return CLI_USAGE;
    }
    generation->has_speaker = speakers->to != NULL;
    return speakers->to == NULL || name_find(&cast, speakers->to, &generation->speaker) ? CLI_OK
                                                                                        : CLI_USAGE;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    struct speakers speakers = {0};
    const int parsed = cli_parse(cli, &command_say, argument_count, arguments, &speakers);
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
    struct personad_generation generation = cli_generation(cli, session);
    uint32_t speaker = 0;
    if (status == CLI_OK) {
        status = speakers_find(cli, session, &speakers, &speaker, &generation);
    }
    if (status == CLI_OK) {
        generation.numbers = cli->json;
        generation.context = cli->json;
        generation.delivery = cli->json || cli->n > 1 ? PERSONAD_FINAL_ONLY : PERSONAD_EACH_TOKEN;
        const struct personad_text said = {text, size};
        const uint64_t request = personad_say(cli->client, said, speaker, &generation);
        status = reply_follow(cli, session, request, cli->n);
    }
    free(text);
    return status;
}

static const struct cli_extra extras[] = {
    {"as", "NAME", "who of the cast says it (default: you)", on_as},
    {"to", "NAME", "who of the cast answers (default: the first persona)", on_to},
    {NULL, NULL, NULL, NULL},
};

const struct cli_command command_say = {
    .name = "say",
    .usage = "[OPTIONS] TEXT...",
    .summary = "say one thing to a persona and print the reply",
    .help = "Without TEXT (or with -) standard input is said. A new session is opened unless\n"
            "--session names one. With --json one object a reply is printed as it finishes.",
    .takes = CLI_TAKES_PERSONA | CLI_TAKES_GENERATION | CLI_TAKES_SESSION | CLI_TAKES_SIBLINGS,
    .extras = extras,
    .run = run,
};
