/* persona verify: nodes computed again and compared bit for bit. */
#include <inttypes.h>
#include <unistd.h>

#include "cli.h"
#include "json.h"

enum { VERIFY_FOREIGN = 3 }; /* exit status: all native ones are equal, some are foreign */

struct options {
    bool all, path;
};

static bool on_all(void *context, const char *value)
{
    (void)value;
    ((struct options *)context)->all = true;
    return true;
}

static bool on_path(void *context, const char *value)
{
    (void)value;
    ((struct options *)context)->path = true;
    return true;
}

static const struct cli_extra extras[] = {
    {"all", NULL, "every sampled node of yours", on_all},
    {"path", NULL, "with NODE: and all nodes above it", on_path},
    {NULL, NULL, NULL, NULL},
};

struct progress {
    const struct cli *cli;
    bool is_shown; /* a line on the terminal is to be overwritten */
};

static void verified_json(const struct personad_verified *node)
{
    struct json json;
    json_start(&json, stdout);
    json_u64(&json, "node", node->node);
    json_u64(&json, "session", node->session);
    json_bool(&json, "foreign", node->is_foreign);
    if (node->error_text.size > 0) {
        json_text(&json, "error", node->error_text);
    } else {
        json_text_of(&json, "number", personad_verified_name(node->number));
        json_u64(&json, "index", node->index);
        json_u64(&json, "stored_bits", node->stored_bits);
        json_u64(&json, "computed_bits", node->computed_bits);
        json_float(&json, "difference_max", node->difference_max);
        json_ids(&json, "other_tokens", node->other_tokens, node->other_token_count);
    }
    json_end(&json);
}

static void verified_print(const struct personad_verified *node)
{
    (void)printf("node %" PRIu64 " of session %" PRIu64 ": ", node->node, node->session);
    if (node->error_text.size > 0) {
        cli_print_text(stdout, node->error_text);
    } else if (node->is_foreign) {
        (void)printf("of another numerics id; log probabilities differ by at most %.3g, the same "
                     "draw picks another token at %zu places",
                     (double)node->difference_max, node->other_token_count);
        for (size_t i = 0; i < node->other_token_count && i < 8; i++) {
            (void)printf("%s%u", i == 0 ? ": " : ", ", node->other_tokens[i]);
        }
    } else {
        (void)printf("DIFFERS, first at token %u in its %s: stored %08x, computed %08x",
                     node->index, personad_verified_name(node->number), node->stored_bits,
                     node->computed_bits);
    }
    (void)fputc('\n', stdout);
}

static void on_progress(void *context, const struct personad_verification *seen)
{
    struct progress *progress = context;
    const uint64_t done =
        seen->equal_count + seen->different_count + seen->foreign_count + seen->failed_count;
    if (progress->is_shown) {
        (void)fputs("\r\033[K", stderr);
    }
    for (size_t i = 0; i < seen->new_count; i++) {
        if (progress->cli->json) {
            verified_json(&seen->nodes[i]);
        } else {
            verified_print(&seen->nodes[i]);
        }
    }
    if (isatty(STDERR_FILENO) != 0) {
        (void)fflush(stdout);
        (void)fprintf(stderr, "%" PRIu64 " of %" PRIu64 " nodes, %" PRIu64 " tokens", done,
                      seen->node_count, seen->token_count);
        progress->is_shown = true;
    }
}

static int summary_print(const struct cli *cli, const struct personad_verification *seen)
{
    if (cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_u64(&json, "nodes", seen->node_count);
        json_u64(&json, "equal", seen->equal_count);
        json_u64(&json, "different", seen->different_count);
        json_u64(&json, "foreign", seen->foreign_count);
        json_u64(&json, "failed", seen->failed_count);
        json_u64(&json, "tokens", seen->token_count);
        json_end(&json);
    } else {
        (void)printf("%" PRIu64 " nodes: %" PRIu64 " equal, %" PRIu64 " different, %" PRIu64
                     " of another numerics id, %" PRIu64 " not computed; %" PRIu64 " tokens\n",
                     seen->node_count, seen->equal_count, seen->different_count,
                     seen->foreign_count, seen->failed_count, seen->token_count);
    }
    if (seen->different_count > 0 || seen->failed_count > 0) {
        return CLI_FAILED;
    }
    return seen->foreign_count > 0 ? VERIFY_FOREIGN : CLI_OK;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {0};
    struct personad_verify_options asked = {0};
    int status = cli_parse(cli, &command_verify, argument_count, arguments, &options);
    if (status != CLI_OK) {
        return status < 0 ? CLI_OK : status;
    }
    if (optind < argument_count) {
        if (!cli_parse_u64(arguments[optind], UINT64_MAX, &asked.node) || asked.node == 0) {
            cli_complain("'%s' is no node's number", arguments[optind]);
            return CLI_USAGE;
        }
        optind++;
    }
    if (cli_has_extra(&command_verify, argument_count, arguments)) {
        return CLI_USAGE;
    }
    if (cli->has_position) {
        cli_complain(
            "persona verify takes a whole NODE, or with --path the way to it, and no --at");
        return CLI_USAGE;
    }
    asked.session = cli->session;
    asked.path = options.path;
    if (options.all + (asked.node != 0) + (asked.session != 0) != 1 ||
        (asked.path && asked.node == 0)) {
        cli_complain("say what to verify: --all, --session N, or [--path] NODE");
        return CLI_USAGE;
    }
    status = cli_connect(cli);
    if (status != CLI_OK) {
        return status;
    }
    struct progress progress = {cli, false};
    struct personad_verification seen = {0};
    const int code = personad_verify(cli->client, &asked, on_progress, &progress, &seen);
    if (progress.is_shown) {
        (void)fputs("\r\033[K", stderr);
    }
    return code != PERSONAD_OK ? cli_failed(cli) : summary_print(cli, &seen);
}

const struct cli_command command_verify = {
    .name = "verify",
    .usage = "[OPTIONS] [NODE]",
    .summary = "compute stored nodes again and compare every bit",
    .help =
        "Runs after all other work of the daemon and reads nothing that is cached.\n"
        "Exit status: 0 all are equal; 1 one differs or could not be computed; 3 all that this\n"
        "numerics id computed are equal, and some are of another one.",
    .takes = CLI_TAKES_SESSION,
    .extras = extras,
    .run = run,
};
