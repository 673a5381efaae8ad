/* persona walk SESSION: every node of a tree, one a line, for scripts. */
#include <inttypes.h>
#include <stdlib.h>

#include "cli.h"
#include "json.h"
#include "utf8.h"

struct options {
    uint64_t from; /* 0: the root */
    bool deleted, numbers;
};

static bool on_from(void *context, const char *value)
{
    return cli_parse_u64(value, UINT64_MAX, &((struct options *)context)->from);
}

static bool on_deleted(void *context, const char *value)
{
    (void)value;
    ((struct options *)context)->deleted = true;
    return true;
}

static bool on_numbers(void *context, const char *value)
{
    (void)value;
    ((struct options *)context)->numbers = true;
    return true;
}

static const struct cli_extra extras[] = {
    {"from", "N", "node N and what is below it; default: everything", on_from},
    {"deleted", NULL, "also what is marked as deleted", on_deleted},
    {"numbers", NULL, "with --json: ids, log probabilities and entropies too", on_numbers},
    {NULL, NULL, NULL, NULL},
};

static const char *origin_name(int origin)
{
    static const char *const names[] = {"sampled", "given", "edited", "imported", "expanded"};
    return origin >= 0 && (size_t)origin < sizeof names / sizeof names[0] ? names[origin]
                                                                          : "unknown";
}

static void node_print_json(const struct personad_node *node, const struct options *options)
{
    struct json json;
    json_start(&json, stdout);
    json_u64(&json, "node", node->id);
    json_u64(&json, "parent", node->parent.node);
    json_u64(&json, "offset", node->parent.offset);
    json_u64(&json, "ordinal", node->ordinal);
    json_u64(&json, "speaker", node->speaker);
    json_text_of(&json, "origin", origin_name(node->origin));
    if (node->original != 0) {
        json_u64(&json, "original", node->original);
    }
    json_bool(&json, "opens_turn", node->opens_turn);
    json_text_of(&json, "finish", personad_finish_name(node->finish));
    json_u64(&json, "content_tokens", node->content_tokens);
    json_u64(&json, "children", node->child_count);
    json_u64(&json, "seed", node->seed);
    if (node->deleted) {
        json_bool(&json, "deleted", true);
    }
    if (node->label.size > 0) {
        json_text(&json, "label", node->label);
    }
    json_text(&json, "text", node->text);
    if (options->numbers) {
        json_ids(&json, "content", node->content, node->content_count);
        json_ids(&json, "tokens", node->numbers.tokens, node->numbers.count);
        json_floats(&json, "logprobs", node->numbers.logprobs, node->numbers.count);
        json_floats(&json, "sampler_logprobs", node->numbers.sampler_logprobs, node->numbers.count);
        json_floats(&json, "entropies", node->numbers.entropies, node->numbers.count);
    }
    json_end(&json);
}

/* On one line, so that bytes come back: what could end it, or steer a terminal, is escaped. */
static void text_print(struct personad_text text)
{
    for (size_t at = 0; at < text.size;) {
        const unsigned char byte = (unsigned char)text.data[at];
        const size_t size = utf8_sequence_bytes(text.data + at, text.size - at);
        if (byte == '\n') {
            (void)fputs("\\n", stdout);
        } else if (byte == '\t') {
            (void)fputs("\\t", stdout);
        } else if (byte == '\\') {
            (void)fputs("\\\\", stdout);
        } else if (size == 0 || byte < 0x20 || byte == 0x7f) {
            (void)printf("\\x%02x", byte);
        } else {
            (void)fwrite(text.data + at, 1, size, stdout);
        }
        at += size > 0 ? size : 1;
    }
}

static void node_print(const struct personad_node *node)
{
    (void)printf("%" PRIu64 "\t%" PRIu64 ":%u\t%u\t%u\t%s%s\t%s\t%u\t", node->id, node->parent.node,
                 node->parent.offset, node->ordinal, node->speaker, origin_name(node->origin),
                 node->deleted ? ",deleted" : "", personad_finish_name(node->finish),
                 node->content_tokens);
    text_print(node->text);
    (void)fputc('\n', stdout);
}

/* All pages of one walk, each printed as it comes. */
static int pages_print(struct cli *cli, struct personad_walk_options *walk,
                       const struct options *options)
{
    bool end = false;
    while (!end) {
        const struct personad_node *nodes = NULL;
        size_t count = 0;
        if (personad_walk(cli->client, walk, &nodes, &count, &end) != PERSONAD_OK) {
            return cli_failed(cli);
        }
        for (size_t i = 0; i < count; i++) {
            if (cli->json) {
                node_print_json(&nodes[i], options);
            } else {
                node_print(&nodes[i]);
            }
        }
        walk->skip += (uint32_t)count;
    }
    return CLI_OK;
}

static int walk_print(struct cli *cli, uint64_t session, const struct options *options)
{
    const struct personad_position from = {options->from, 0};
    struct personad_walk_options walk = {
        .session = session,
        .position = &from,
        .what = PERSONAD_NODE,
        .text = true,
        .content = options->numbers,
        .numbers = options->numbers,
        .deleted = options->deleted,
    };
    const int status = options->from != 0 ? pages_print(cli, &walk, options) : CLI_OK;
    walk.what = PERSONAD_SUBTREE;
    walk.skip = 0;
    return status == CLI_OK ? pages_print(cli, &walk, options) : status;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {0};
    uint64_t session = 0;
    const int parsed = cli_parse(cli, &command_walk, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (argument_count - optind != 1 || !cli_parse_u64(arguments[optind], UINT64_MAX, &session)) {
        cli_complain("name one session by its number; persona tree lists them");
        return CLI_USAGE;
    }
    const int status = cli_connect(cli);
    return status == CLI_OK ? walk_print(cli, session, &options) : status;
}

const struct cli_command command_walk = {
    .name = "walk",
    .usage = "[OPTIONS] SESSION",
    .summary = "print every node of a session's tree, one a line",
    .help =
        "Depth first, siblings in order. Columns, with tabs between them: node, parent:offset,\n"
        "ordinal, speaker, origin, finish, tokens, text. In the text newline, tab, backslash\n"
        "and bytes that are no text are written as \\n, \\t, \\\\ and \\xHH.",
    .extras = extras,
    .run = run,
};
