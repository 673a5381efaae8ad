#include "options.h"

#include <stdlib.h>
#include <string.h>

enum { RESUME_SECONDS_MAX = 1000000 };

static bool on_resume(struct cli *cli, const char *value)
{
    uint64_t seconds = 0;
    cli->has_resume = cli_parse_u64(value, RESUME_SECONDS_MAX, &seconds);
    cli->resume_seconds = (uint32_t)seconds;
    return cli->has_resume;
}

static bool on_socket(struct cli *cli, const char *value)
{
    cli->socket = value;
    return value[0] != '\0';
}

static bool on_json(struct cli *cli, const char *value)
{
    (void)value;
    cli->json = true;
    return true;
}

static bool cast_add(struct cli *cli, const char *persona, const char *human)
{
    if (cli->cast_count == PERSONAD_CAST_COUNT_MAX) {
        return false;
    }
    cli->cast[cli->cast_count++] =
        (struct personad_cast_entry){.persona_name = persona, .human = human};
    return true;
}

/* The first one is speaker 1. */
static bool on_persona(struct cli *cli, const char *value)
{
    if (cli->persona != NULL) {
        return value[0] != '\0' && cast_add(cli, value, NULL);
    }
    cli->persona = value;
    return value[0] != '\0';
}

static bool on_human(struct cli *cli, const char *value)
{
    return value[0] != '\0' && cast_add(cli, NULL, value);
}

static bool on_group(struct cli *cli, const char *value)
{
    cli->group_mode = strcmp(value, "joint") == 0 ? PERSONAD_JOINT : PERSONAD_SEPARATE;
    return cli->group_mode == PERSONAD_JOINT || strcmp(value, "separate") == 0;
}

static bool on_user(struct cli *cli, const char *value)
{
    cli->user = value;
    return value[0] != '\0';
}

static bool on_seed(struct cli *cli, const char *value)
{
    cli->has_seed = true;
    return cli_parse_u64(value, UINT64_MAX, &cli->seed);
}

static bool on_u32(const char *value, uint32_t *out)
{
    uint64_t number = 0;
    if (!cli_parse_u64(value, UINT32_MAX - 1, &number)) {
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

static bool on_context(struct cli *cli, const char *value)
{
    return on_u32(value, &cli->context_tokens) && cli->context_tokens > 0;
}

static bool on_no_greeting(struct cli *cli, const char *value)
{
    (void)value;
    cli->no_greeting = true;
    return true;
}

static bool on_session(struct cli *cli, const char *value)
{
    return cli_parse_u64(value, UINT64_MAX, &cli->session) && cli->session != 0;
}

bool cli_parse_position(const char *text, struct personad_position *out)
{
    char node[32];
    const char *colon = strchr(text, ':');
    const size_t size = colon != NULL ? (size_t)(colon - text) : strlen(text);
    if (size == 0 || size >= sizeof node) {
        return false;
    }
    memcpy(node, text, size);
    node[size] = '\0';
    out->offset = PERSONAD_END;
    if (!cli_parse_u64(node, UINT64_MAX, &out->node)) {
        return false;
    }
    return colon == NULL || on_u32(colon + 1, &out->offset);
}

static bool on_at(struct cli *cli, const char *value)
{
    cli->has_position = true;
    return cli_parse_position(value, &cli->position);
}

static bool on_speaker(struct cli *cli, const char *value)
{
    cli->has_speaker = true;
    return on_u32(value, &cli->speaker);
}

static bool on_continue(struct cli *cli, const char *value)
{
    (void)value;
    cli->continuing = true;
    return true;
}

static bool on_n(struct cli *cli, const char *value)
{
    return on_u32(value, &cli->n) && cli->n > 0;
}

static bool on_choice(struct cli *cli, const char *value)
{
    if (cli->choice_count >= CLI_CHOICE_COUNT_MAX || value[0] == '\0') {
        return false;
    }
    cli->choices[cli->choice_count++] = (struct personad_text){value, strlen(value)};
    return true;
}

static bool on_distinct(struct cli *cli, const char *value)
{
    (void)value;
    cli->distinct = true;
    return true;
}

static bool on_raw_seed(struct cli *cli, const char *value)
{
    cli->has_raw_seed = true;
    return cli_parse_u64(value, UINT64_MAX, &cli->raw_seed);
}

static bool on_prefix(struct cli *cli, const char *value)
{
    cli->prefix = value;
    return true;
}

static bool on_batch(struct cli *cli, const char *value)
{
    (void)value;
    cli->batch = true;
    return true;
}

static bool on_special(struct cli *cli, const char *value)
{
    (void)value;
    cli->special = true;
    return true;
}

static bool on_temperature(struct cli *cli, const char *value)
{
    return cli_parse_float(value, &cli->sampler.temperature);
}

static bool on_top_p(struct cli *cli, const char *value)
{
    return cli_parse_float(value, &cli->sampler.top_p);
}

static bool on_min_p(struct cli *cli, const char *value)
{
    return cli_parse_float(value, &cli->sampler.min_p);
}

static bool on_repetition(struct cli *cli, const char *value)
{
    return cli_parse_float(value, &cli->sampler.repetition_penalty);
}

static bool on_presence(struct cli *cli, const char *value)
{
    return cli_parse_float(value, &cli->sampler.presence_penalty);
}

static bool on_frequency(struct cli *cli, const char *value)
{
    return cli_parse_float(value, &cli->sampler.frequency_penalty);
}

static bool count_set(const char *value, int64_t *out)
{
    uint64_t number = 0;
    if (!cli_parse_u64(value, UINT32_MAX, &number)) {
        return false;
    }
    *out = (int64_t)number;
    return true;
}

static bool on_top_k(struct cli *cli, const char *value)
{
    return count_set(value, &cli->sampler.top_k);
}

static bool on_range(struct cli *cli, const char *value)
{
    return count_set(value, &cli->sampler.penalty_range);
}

static bool on_max_tokens(struct cli *cli, const char *value)
{
    return count_set(value, &cli->sampler.max_tokens);
}

static bool on_min_tokens(struct cli *cli, const char *value)
{
    return count_set(value, &cli->sampler.min_tokens);
}

static bool on_logprobs(struct cli *cli, const char *value)
{
    return count_set(value, &cli->sampler.top_count);
}

static bool on_penalize_prompt(struct cli *cli, const char *value)
{
    (void)value;
    cli->sampler.penalize_prompt = 1;
    return true;
}

static bool on_ignore_end(struct cli *cli, const char *value)
{
    (void)value;
    cli->sampler.ignore_end = 1;
    return true;
}

static bool on_stop(struct cli *cli, const char *value)
{
    if (cli->sampler.stop_count >= CLI_STOP_COUNT_MAX || value[0] == '\0') {
        return false;
    }
    cli->stops[cli->sampler.stop_count++] = value;
    return true;
}

/* ID=VALUE; "-inf" removes the token. */
static bool on_bias(struct cli *cli, const char *value)
{
    const char *equals = strchr(value, '=');
    char id[16];
    if (equals == NULL || (size_t)(equals - value) >= sizeof id ||
        cli->sampler.bias_count >= CLI_BIAS_COUNT_MAX) {
        return false;
    }
    memcpy(id, value, (size_t)(equals - value));
    id[equals - value] = '\0';
    const size_t at = cli->sampler.bias_count;
    if (!on_u32(id, &cli->bias_tokens[at])) {
        return false;
    }
    char *end = NULL;
    cli->bias_values[at] = strtof(equals + 1, &end);
    cli->sampler.bias_count++;
    return end != equals + 1 && *end == '\0';
}

const struct option_row option_rows[] = {
    {"socket", "PATH", 0, "the daemon's socket", on_socket},
    {"resume", "SECONDS", 0, "wait so long for a daemon that went away (default 60; 0: fail)",
     on_resume},
    {"json", NULL, 0, "one JSON object a line", on_json},
    {"persona", "NAME", CLI_TAKES_PERSONA,
     "who is played (see persona personas); repeatable: all of them", on_persona},
    {"group", "MODE", CLI_TAKES_PERSONA,
     "joint: all personas share one view; separate (default): each its own", on_group},
    {"human", "NAME", CLI_TAKES_PERSONA, "somebody beside you; repeatable", on_human},
    {"user", "NAME", CLI_TAKES_PERSONA, "your name in the conversation", on_user},
    {"seed", "S", CLI_TAKES_PERSONA, "seed of the session; the same seed repeats a run", on_seed},
    {"context", "TOKENS", CLI_TAKES_PERSONA, "context length of the session", on_context},
    {"no-greeting", NULL, CLI_TAKES_PERSONA, "start without the persona's greeting",
     on_no_greeting},
    {"session", "ID", CLI_TAKES_SESSION, "in this session, which is there already", on_session},
    {"at", "NODE[:OFFSET]", CLI_TAKES_SESSION, "at this place of the tree (default: the head)",
     on_at},
    {"speaker", "N", CLI_TAKES_TURN, "whose turn it is (default: the first persona)", on_speaker},
    {"continue", NULL, CLI_TAKES_TURN,
     "inside the turn at the place, not at the start of a new one", on_continue},
    {"n", "N", CLI_TAKES_SIBLINGS, "so many replies, siblings (-n N works too)", on_n},
    {"choice", "TEXT", CLI_TAKES_SIBLINGS, "the reply is this, or another --choice; repeatable",
     on_choice},
    {"distinct", NULL, CLI_TAKES_SIBLINGS, "the replies begin with different tokens", on_distinct},
    {"temperature", "T", CLI_TAKES_GENERATION, "0: always the likeliest token", on_temperature},
    {"top-k", "K", CLI_TAKES_GENERATION, "keep the K likeliest tokens; 0: off", on_top_k},
    {"top-p", "P", CLI_TAKES_GENERATION, "keep the likeliest that make up P; 1: off", on_top_p},
    {"min-p", "P", CLI_TAKES_GENERATION, "keep tokens of at least P times the likeliest; 0: off",
     on_min_p},
    {"repetition-penalty", "X", CLI_TAKES_GENERATION, "1: off", on_repetition},
    {"presence-penalty", "X", CLI_TAKES_GENERATION, "0: off", on_presence},
    {"frequency-penalty", "X", CLI_TAKES_GENERATION, "0: off", on_frequency},
    {"penalty-range", "N", CLI_TAKES_GENERATION, "tokens that penalties look back on; 0: all",
     on_range},
    {"penalize-prompt", NULL, CLI_TAKES_GENERATION, "penalties see the persona's prompt too",
     on_penalize_prompt},
    {"bias", "ID=X", CLI_TAKES_GENERATION, "added to a token's logit; -inf removes it; repeatable",
     on_bias},
    {"stop", "TEXT", CLI_TAKES_GENERATION, "ends the reply before this text; repeatable", on_stop},
    {"max-tokens", "N", CLI_TAKES_GENERATION, "most tokens of a reply", on_max_tokens},
    {"min-tokens", "N", CLI_TAKES_GENERATION, "the model may not end its turn before",
     on_min_tokens},
    {"ignore-end", NULL, CLI_TAKES_GENERATION, "the model may not end its turn at all",
     on_ignore_end},
    {"logprobs", "K", CLI_TAKES_GENERATION, "store K alternatives with each token", on_logprobs},
    {"raw-seed", "S", CLI_TAKES_GENERATION, "the node seed itself; child k gets S + k",
     on_raw_seed},
    {"prefix", "TEXT", CLI_TAKES_GENERATION, "how the reply begins", on_prefix},
    {"batch", NULL, CLI_TAKES_GENERATION, "low priority, behind what people wait for", on_batch},
    {"special", NULL, CLI_TAKES_SPECIAL, "special tokens written in the text become their ids",
     on_special},
};

const int option_row_count = sizeof option_rows / sizeof option_rows[0];
_Static_assert(sizeof option_rows / sizeof option_rows[0] <= CLI_ROW_COUNT_MAX, "cli.h");

bool option_set(struct cli *cli, int row, const char *value)
{
    if (!option_rows[row].on_value(cli, value)) {
        return false;
    }
    const bool is_flag = option_rows[row].value == NULL;
    (void)snprintf(cli->given[row], sizeof cli->given[row], "%s", is_flag ? "on" : value);
    return true;
}
