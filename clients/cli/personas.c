/* persona personas: who can be played; --put adds a character card. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "json.h"

struct options {
    const char *card;
    bool is_public;
};

enum { CARD_BYTES_MAX = 1024 * 1024 };

static bool on_put(void *context, const char *value)
{
    ((struct options *)context)->card = value;
    return value[0] != '\0';
}

static bool on_public(void *context, const char *value)
{
    (void)value;
    ((struct options *)context)->is_public = true;
    return true;
}

static const struct cli_extra extras[] = {
    {"put", "CARD.json", "add a persona from a character card (V1, V2 or V3)", on_put},
    {"public", NULL, "with --put: let other users play it", on_public},
    {NULL, NULL, NULL, NULL},
};

static void persona_print(const struct cli *cli, const struct personad_persona *persona)
{
    if (!cli->json) {
        (void)printf("%6" PRIu64 "  ", persona->id);
        cli_print_line(stdout, persona->name, 32);
        (void)printf(" v%u, %.*s%s: ", persona->version, (int)persona->play.size,
                     persona->play.data != NULL ? persona->play.data : "",
                     persona->is_public ? ", public" : "");
        cli_print_line(stdout, persona->description, 60);
        (void)fputc('\n', stdout);
        return;
    }
    struct json json;
    json_start(&json, stdout);
    json_u64(&json, "id", persona->id);
    json_text(&json, "name", persona->name);
    json_u64(&json, "version", persona->version);
    json_u64(&json, "owner_uid", persona->owner_uid);
    json_bool(&json, "public", persona->is_public);
    json_bool(&json, "built_in", persona->built_in);
    json_text(&json, "play", persona->play);
    json_u64(&json, "greetings", persona->greeting_count);
    json_text(&json, "description", persona->description);
    json_end(&json);
}

static int card_put(struct cli *cli, const struct options *options)
{
    FILE *file = fopen(options->card, "rb");
    if (file == NULL) {
        cli_complain("%s: %s", options->card, strerror(errno));
        return CLI_FAILED;
    }
    char *card = malloc(CARD_BYTES_MAX + 1);
    const size_t size = card != NULL ? fread(card, 1, CARD_BYTES_MAX + 1, file) : 0;
    (void)fclose(file);
    int status = CLI_FAILED;
    const struct personad_persona *persona = NULL;
    if (card == NULL || size > CARD_BYTES_MAX) {
        cli_complain("%s: a card may have %d bytes", options->card, CARD_BYTES_MAX);
    } else if (personad_persona_put(cli->client, (struct personad_text){card, size},
                                    options->is_public, &persona) != PERSONAD_OK) {
        (void)cli_failed(cli);
    } else {
        persona_print(cli, persona);
        status = CLI_OK;
    }
    free(card);
    return status;
}

static int personas_print(struct cli *cli)
{
    uint64_t after = 0;
    bool end = false;
    while (!end) {
        const struct personad_persona *personas = NULL;
        size_t count = 0;
        if (personad_persona_list(cli->client, after, &personas, &count, &end) != PERSONAD_OK) {
            return cli_failed(cli);
        }
        for (size_t i = 0; i < count; i++) {
            persona_print(cli, &personas[i]);
            after = personas[i].id;
        }
    }
    return CLI_OK;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {0};
    const int parsed = cli_parse(cli, &command_personas, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (cli_has_extra(&command_personas, argument_count, arguments)) {
        return CLI_USAGE;
    }
    if (options.is_public && options.card == NULL) {
        cli_complain("--public goes with --put CARD.json");
        return CLI_USAGE;
    }
    const int status = cli_connect(cli);
    if (status != CLI_OK) {
        return status;
    }
    return options.card != NULL ? card_put(cli, &options) : personas_print(cli);
}

const struct cli_command command_personas = {
    .name = "personas",
    .usage = "[OPTIONS]",
    .summary = "list who can be played, or add a character card",
    .extras = extras,
    .run = run,
};
