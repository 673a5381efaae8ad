/* persona dist, score, compare and group: what the model thinks at a place. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "cli.h"
#include "json.h"

enum { TOP_DEFAULT = 10, OPTION_COUNT_MAX = 1024, PERSONA_COUNT_MAX = 8, PIECE_COLUMNS = 60 };

/* ---------------------------------------------------------------- dist */

static bool on_top(void *context, const char *value)
{
    return cli_parse_u64(value, 32, context);
}

static const struct cli_extra dist_extras[] = {
    {"top", "N", "so many alternatives, at most 32 (default 10)", on_top},
    {NULL, NULL, NULL, NULL},
};

static void dist_print(const struct cli *cli, const struct personad_distribution *seen)
{
    if (cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_float(&json, "entropy", seen->entropy);
        json_u64(&json, "context_tokens", seen->context_tokens);
        json_ids(&json, "tokens", seen->top_tokens, seen->top_count);
        json_floats(&json, "logprobs", seen->top_logprobs, seen->top_count);
        json_list(&json, "pieces");
        for (size_t i = 0; i < seen->top_count; i++) {
            json_text(&json, NULL, seen->top_pieces[i]);
        }
        json_list_end(&json);
        json_end(&json);
        return;
    }
    (void)printf("entropy %.4f nats after %u tokens\n", (double)seen->entropy,
                 seen->context_tokens);
    for (size_t i = 0; i < seen->top_count; i++) {
        const double logprob = (double)seen->top_logprobs[i];
        (void)printf("%8.4f%%  %9.4f  %8u  ", 100 * exp(logprob), logprob, seen->top_tokens[i]);
        cli_print_line(stdout, seen->top_pieces[i], PIECE_COLUMNS);
        (void)fputc('\n', stdout);
    }
}

static int dist_run(struct cli *cli, int argument_count, char **arguments)
{
    uint64_t top = TOP_DEFAULT;
    uint64_t session = 0;
    const int status = cli_begin(cli, &command_dist, argument_count, arguments, &top, &session);
    if (status != CLI_OK) {
        return status < 0 ? CLI_OK : status;
    }
    const struct personad_place place = cli_place(cli, session);
    struct personad_distribution seen;
    if (personad_distribution(cli->client, &place, (uint32_t)top, NULL, 0, &seen) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    dist_print(cli, &seen);
    return CLI_OK;
}

const struct cli_command command_dist = {
    .name = "dist",
    .usage = "[OPTIONS]",
    .summary = "what the model could say next at a place, with probabilities",
    .help = "Of a new turn, or with --continue of the turn there. --at NODE:OFFSET is a place\n"
            "inside a node.",
    .takes = CLI_TAKES_SESSION | CLI_TAKES_PERSONA | CLI_TAKES_TURN,
    .extras = dist_extras,
    .run = dist_run,
};

/* ---------------------------------------------------------------- score */

static void scored_print(const struct cli *cli, const struct personad_scored *scored,
                         struct personad_text text)
{
    if (cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_text(&json, "option", text);
        json_double(&json, "logprob", scored->logprob);
        json_double(&json, "token_logprob", scored->token_logprob);
        json_double(&json, "share", scored->share);
        json_ids(&json, "tokens", scored->tokens, scored->token_count);
        json_floats(&json, "logprobs", scored->logprobs, scored->token_count);
        json_floats(&json, "entropies", scored->entropies, scored->token_count);
        json_end(&json);
        return;
    }
    (void)printf("%8.4f%%  %10.4f  %9.4f a token  ", 100 * scored->share, scored->logprob,
                 scored->token_logprob);
    cli_print_line(stdout, text, PIECE_COLUMNS);
    (void)fputc('\n', stdout);
}

static int score_run(struct cli *cli, int argument_count, char **arguments)
{
    struct personad_text texts[OPTION_COUNT_MAX];
    const struct personad_scored *scored = NULL;
    uint64_t session = 0;
    const int status = cli_begin(cli, &command_score, argument_count, arguments, NULL, &session);
    if (status != CLI_OK) {
        return status < 0 ? CLI_OK : status;
    }
    const int count = argument_count - optind;
    for (int i = 0; i < count; i++) {
        texts[i] = (struct personad_text){arguments[optind + i], strlen(arguments[optind + i])};
    }
    const struct personad_place place = cli_place(cli, session);
    if (personad_score(cli->client, &place, texts, (size_t)count, &scored) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    for (int i = 0; i < count; i++) {
        scored_print(cli, &scored[i], texts[i]);
    }
    return CLI_OK;
}

const struct cli_command command_score = {
    .name = "score",
    .usage = "[OPTIONS] OPTION...",
    .summary = "how likely each of some continuations is at a place",
    .help = "Prints each option's share of all, the sum of its tokens' log probabilities, and\n"
            "their mean. Nothing is sampled and nothing is stored.",
    .takes = CLI_TAKES_SESSION | CLI_TAKES_PERSONA | CLI_TAKES_TURN,
    .argument_count_min = 1,
    .argument_count_max = OPTION_COUNT_MAX,
    .argument_name = "options to score",
    .run = score_run,
};

/* ---------------------------------------------------------------- compare */

struct compare_options {
    bool has_speaker, divergence;
    uint64_t speaker;
};

static bool on_speaker(void *context, const char *value)
{
    struct compare_options *options = context;
    options->has_speaker = true;
    return cli_parse_u64(value, UINT32_MAX, &options->speaker);
}

static bool on_divergence(void *context, const char *value)
{
    (void)value;
    ((struct compare_options *)context)->divergence = true;
    return true;
}

static const struct cli_extra compare_extras[] = {
    {"speaker", "N", "only what this speaker says", on_speaker},
    {"divergence", NULL, "compare the whole distributions too", on_divergence},
    {NULL, NULL, NULL, NULL},
};

static int persona_find(struct cli *cli, const char *name, uint64_t *out)
{
    const struct personad_persona *persona = NULL;
    if (cli_parse_u64(name, UINT64_MAX, out)) {
        return CLI_OK;
    }
    if (personad_persona_get(cli->client, 0, name, &persona, NULL) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    *out = persona->id;
    return CLI_OK;
}

/* names: those of the personas as they were asked for; of fewer there are numbers alone. */
static void compared_print(const struct cli *cli, const struct personad_comparison *seen,
                           char **names, size_t name_count)
{
    for (size_t i = 0; i < seen->persona_count; i++) {
        const struct personad_compared *one = &seen->personas[i];
        if (cli->json) {
            struct json json;
            json_start(&json, stdout);
            json_u64(&json, "persona", one->persona);
            json_double(&json, "logprob", one->logprob);
            json_double(&json, "ratio", one->ratio);
            json_floats(&json, "logprobs", one->logprobs, seen->token_count);
            json_floats(&json, "entropies", one->entropies, seen->token_count);
            if (one->divergences != NULL) {
                json_floats(&json, "divergences", one->divergences, seen->token_count);
            }
            json_end(&json);
            continue;
        }
        double divergence = 0;
        for (size_t k = 0; one->divergences != NULL && k < seen->token_count; k++) {
            divergence += (double)one->divergences[k];
        }
        (void)printf("%8" PRIu64 "  %12.4f  %9.4f a token  ratio %+.4f", one->persona, one->logprob,
                     one->logprob / (double)seen->token_count, one->ratio);
        if (one->divergences != NULL) {
            (void)printf("  divergence %.4f a token", divergence / (double)seen->token_count);
        }
        if (i < name_count) {
            (void)fputs("  ", stdout);
            (void)cli_print_line(stdout, (struct personad_text){names[i], strlen(names[i])}, 40);
        }
        (void)fputc('\n', stdout);
    }
}

static int compare_run(struct cli *cli, int argument_count, char **arguments)
{
    struct compare_options options = {0};
    uint64_t personas[PERSONA_COUNT_MAX];
    uint64_t session = 0;
    int status = cli_begin(cli, &command_compare, argument_count, arguments, &options, &session);
    if (status != CLI_OK) {
        return status < 0 ? CLI_OK : status;
    }
    const int count = argument_count - optind;
    for (int i = 0; i < count; i++) {
        status = persona_find(cli, arguments[optind + i], &personas[i]);
        if (status != CLI_OK) {
            return status;
        }
    }
    const struct personad_compare_options asked = {
        .session = session,
        .position = cli->has_position ? &cli->position : NULL,
        .personas = personas,
        .persona_count = (size_t)count,
        .has_speaker = options.has_speaker,
        .speaker = (uint32_t)options.speaker,
        .divergence = options.divergence,
    };
    struct personad_comparison seen;
    if (personad_compare(cli->client, &asked, &seen) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    compared_print(cli, &seen, arguments + optind, (size_t)count);
    return CLI_OK;
}

const struct cli_command command_compare = {
    .name = "compare",
    .usage = "[OPTIONS] [PERSONA...]",
    .summary = "how likely what was said is to each of some personas",
    .help = "PERSONA is a name or the id of a version; without one, the persona that is there.\n"
            "The ratio is the log-likelihood of the first one less that of each.",
    .takes = CLI_TAKES_SESSION,
    .argument_count_max = PERSONA_COUNT_MAX,
    .argument_name = "personas to compare",
    .extras = compare_extras,
    .run = compare_run,
};

/* ---------------------------------------------------------------- group */

static void answers_print(const struct cli *cli, const struct personad_answers *answers)
{
    if (cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_text(&json, "text", answers->text);
        json_double(&json, "share", answers->share);
        json_double(&json, "mass", answers->mass);
        json_list(&json, "nodes");
        for (size_t i = 0; i < answers->node_count; i++) {
            json_u64(&json, NULL, answers->nodes[i]);
        }
        json_list_end(&json);
        json_end(&json);
        return;
    }
    (void)printf("%7.2f%%  %6zu  ", 100 * answers->share, answers->node_count);
    if (isnan(answers->mass)) {
        (void)fputs("             ", stdout);
    } else {
        (void)printf("mass %.2e  ", answers->mass);
    }
    cli_print_line(stdout, answers->text, PIECE_COLUMNS);
    (void)fputc('\n', stdout);
}

static int group_run(struct cli *cli, int argument_count, char **arguments)
{
    const struct personad_answers *answers = NULL;
    size_t count = 0;
    double entropy = 0;
    uint64_t session = 0;
    const int status = cli_begin(cli, &command_group, argument_count, arguments, NULL, &session);
    if (status != CLI_OK) {
        return status < 0 ? CLI_OK : status;
    }
    if (personad_group(cli->client, session, cli->has_position ? &cli->position : NULL, &answers,
                       &count, &entropy) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    for (size_t i = 0; i < count; i++) {
        answers_print(cli, &answers[i]);
    }
    if (!cli->json) {
        (void)printf("%zu different, entropy %.4f nats\n", count, entropy);
    }
    return CLI_OK;
}

const struct cli_command command_group = {
    .name = "group",
    .usage = "[OPTIONS]",
    .summary = "which of the answers at a place say the same",
    .help = "The children of the place are grouped; without --at, the siblings of the head.",
    .takes = CLI_TAKES_SESSION,
    .run = group_run,
};
