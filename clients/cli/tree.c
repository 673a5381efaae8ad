/* persona tree: a picture of a session's tree, or its nodes as JSON lines. */
#include <inttypes.h>
#include <stdlib.h>

#include "cli.h"
#include "json.h"
#include "outline.h"

enum { CHILDREN_DEFAULT = 12 };

struct options {
    uint64_t children_max;
};

static bool on_children(void *context, const char *value)
{
    return cli_parse_u64(value, UINT32_MAX, &((struct options *)context)->children_max);
}

static const struct cli_extra extras[] = {
    {"children", "N", "show so many branches of a fork; 0: all (default 12)", on_children},
    {NULL, NULL, NULL, NULL},
};

static void node_print(const struct personad_node *node)
{
    struct json json;
    json_start(&json, stdout);
    json_u64(&json, "node", node->id);
    json_u64(&json, "parent", node->parent.node);
    json_u64(&json, "offset", node->parent.offset);
    json_u64(&json, "ordinal", node->ordinal);
    json_u64(&json, "speaker", node->speaker);
    json_bool(&json, "opens_turn", node->opens_turn);
    json_bool(&json, "sampled", node->origin == PERSONAD_SAMPLED);
    json_u64(&json, "seed", node->seed);
    json_u64(&json, "content_tokens", node->content_tokens);
    json_u64(&json, "children", node->child_count);
    json_text_of(&json, "finish", personad_finish_name(node->finish));
    json_text(&json, "text", node->text);
    json_end(&json);
}

static int nodes_print(struct cli *cli)
{
    struct personad_walk_options options = {
        .session = cli->session,
        .position = &cli->position,
        .what = PERSONAD_SUBTREE,
        .text = true,
    };
    bool end = false;
    while (!end) {
        const struct personad_node *nodes = NULL;
        size_t count = 0;
        if (personad_walk(cli->client, &options, &nodes, &count, &end) != PERSONAD_OK) {
            return cli_failed(cli);
        }
        for (size_t i = 0; i < count; i++) {
            node_print(&nodes[i]);
        }
        options.skip += (uint32_t)count;
    }
    return CLI_OK;
}

static int sessions_print(struct cli *cli)
{
    uint64_t after = 0;
    bool end = false;
    while (!end) {
        const struct personad_session *sessions = NULL;
        size_t count = 0;
        if (personad_session_list(cli->client, after, &sessions, &count, &end) != PERSONAD_OK) {
            return cli_failed(cli);
        }
        for (size_t i = 0; i < count; i++) {
            after = sessions[i].id;
            if (cli->json) {
                struct json json;
                json_start(&json, stdout);
                json_u64(&json, "session", sessions[i].id);
                json_u64(&json, "nodes", sessions[i].node_count);
                json_u64(&json, "seed", sessions[i].seed);
                json_u64(&json, "head", sessions[i].head.node);
                json_list(&json, "cast");
                for (size_t k = 0; k < sessions[i].cast_count; k++) {
                    json_text(&json, NULL, sessions[i].cast[k].name);
                }
                json_list_end(&json);
                json_text(&json, "label", sessions[i].label);
                json_end(&json);
                continue;
            }
            (void)printf("%6" PRIu64 "  %6" PRIu64 " nodes  ", sessions[i].id,
                         sessions[i].node_count);
            for (size_t k = 0; k < sessions[i].cast_count; k++) {
                (void)fputs(k > 0 ? ", " : "", stdout);
                cli_print_line(stdout, sessions[i].cast[k].name, 32);
            }
            (void)fputs("  ", stdout);
            cli_print_line(stdout, sessions[i].label, 40);
            (void)fputc('\n', stdout);
        }
    }
    return CLI_OK;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {CHILDREN_DEFAULT};
    const int parsed = cli_parse(cli, &command_tree, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    uint64_t session = 0;
    if (cli->session == 0 && optind < argument_count &&
        cli_parse_u64(arguments[optind], UINT64_MAX, &session) && session > 0) {
        cli->session = session;
        optind++;
    }
    if (cli_has_extra(&command_tree, argument_count, arguments)) {
        return CLI_USAGE;
    }
    if (cli_lacks_session(cli)) {
        return CLI_USAGE;
    }
    const int status = cli_connect(cli);
    if (status != CLI_OK) {
        return status;
    }
    if (cli->session == 0) {
        return sessions_print(cli);
    }
    if (cli->json) {
        return nodes_print(cli);
    }
    return outline_print(cli, cli->session, cli->position.node, (uint32_t)options.children_max,
                         cli_columns(stdout));
}

const struct cli_command command_tree = {
    .name = "tree",
    .usage = "[OPTIONS] [SESSION]",
    .summary = "draw a session's tree; without SESSION, list the sessions",
    .takes = CLI_TAKES_SESSION,
    .extras = extras,
    .run = run,
};
