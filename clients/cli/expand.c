/* persona expand: the tree of what could come next, and one path of it made real. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "expand.h"
#include "json.h"

struct options {
    bool has_least;
    uint64_t depth, width, nodes;
    double least;
    const char *keep;
};

/* Zero would ask for the default. */
static bool on_count(uint64_t *out, const char *value)
{
    return cli_parse_u64(value, UINT32_MAX, out) && *out > 0;
}

static bool on_depth(void *context, const char *value)
{
    return on_count(&((struct options *)context)->depth, value);
}

static bool on_width(void *context, const char *value)
{
    return on_count(&((struct options *)context)->width, value);
}

static bool on_nodes(void *context, const char *value)
{
    return on_count(&((struct options *)context)->nodes, value);
}

static bool on_least(void *context, const char *value)
{
    struct options *options = context;
    options->has_least = true;
    return cli_parse_double(value, &options->least) && options->least >= 0 && options->least <= 1;
}

static bool on_keep(void *context, const char *value)
{
    ((struct options *)context)->keep = value;
    return true;
}

static const struct cli_extra extras[] = {
    {"depth", "N", "tokens of a path, 1 to 256 (default 4)", on_depth},
    {"width", "N", "the likeliest tokens behind a node, 1 to 32 (default 4)", on_width},
    {"least", "P", "leave out what is less likely altogether, 0 to 1 (default 0.01)", on_least},
    {"nodes", "N", "at most so many nodes, 1 to 4096 (default 256)", on_nodes},
    {"keep", "PATH", "make the path, such as 1.2.1, a node of the session", on_keep},
    {NULL, NULL, NULL, NULL},
};

/* On a terminal a line that is overwritten. */
static void on_progress(void *context, const struct personad_expansion *seen)
{
    (void)context;
    if (seen->growing_count > 0) {
        (void)fprintf(stderr, "\r%zu nodes, %" PRIu32 " grow  ", seen->count, seen->growing_count);
    } else {
        (void)fputs("\r                                        \r", stderr);
    }
    (void)fflush(stderr);
}

static int keep(struct cli *cli, const struct expand_shape *shape, const char *path)
{
    const uint32_t number = expand_find(shape, path);
    const struct personad_node *node = NULL;
    if (number == 0) {
        cli_complain("--keep: there is no path '%s' in this expansion", path);
        return CLI_FAILED;
    }
    if (personad_keep(cli->client, shape->id, number, &node) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    if (cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_u64(&json, "kept", node->id);
        json_u64(&json, "session", node->session);
        json_u64(&json, "tokens", node->content_tokens);
        json_end(&json);
    } else {
        (void)printf("kept as node %" PRIu64 " (%" PRIu32 " tokens)\n", node->id,
                     node->content_tokens);
    }
    return CLI_OK;
}

static int expand_run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {0};
    uint64_t session = 0;
    int status = cli_begin(cli, &command_expand, argument_count, arguments, &options, &session);
    if (status != CLI_OK) {
        return status < 0 ? CLI_OK : status;
    }
    const struct personad_expand_options asked = {
        .place = cli_place(cli, session),
        .depth = (uint32_t)options.depth,
        .width = (uint32_t)options.width,
        .node_count = (uint32_t)options.nodes,
        .has_probability_min = options.has_least,
        .probability_min = options.least,
    };
    struct personad_expansion seen;
    struct expand_shape shape = {0};
    if (personad_expand(cli->client, &asked, isatty(STDERR_FILENO) != 0 ? on_progress : NULL, NULL,
                        &seen) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    if (!(cli->json ? expand_print_json(stdout, &seen) : expand_print(stdout, &seen)) ||
        !expand_shape_take(&shape, &seen)) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    status = options.keep != NULL ? keep(cli, &shape, options.keep) : CLI_OK;
    expand_shape_finish(&shape);
    return status;
}

const struct cli_command command_expand = {
    .name = "expand",
    .usage = "[OPTIONS]",
    .summary = "the tree of what could come next at a place, level by level",
    .help = "Each line: how likely the whole path is, how likely the line is behind the one\n"
            "above it, what it says, and its path. Runs without alternatives share a line.\n"
            "Nothing is sampled; --keep makes one path a node, and the head moves to its end.",
    .takes = CLI_TAKES_SESSION | CLI_TAKES_PERSONA | CLI_TAKES_TURN,
    .extras = extras,
    .run = expand_run,
};
