/* persona export SESSION, persona import FILE: a session as a file of JSON lines, or of plain text.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cast.h"
#include "cli.h"
#include "foreign.h"
#include "json.h"

struct options {
    uint64_t node;
    const char *path; /* NULL: standard output or input */
    enum { JSONL, TEXT, SILLYTAVERN, EXOLOOM } format;
};

static bool on_node(void *context, const char *value)
{
    return cli_parse_u64(value, UINT64_MAX, &((struct options *)context)->node);
}

static bool on_output(void *context, const char *value)
{
    ((struct options *)context)->path = strcmp(value, "-") == 0 ? NULL : value;
    return true;
}

static bool on_format(void *context, const char *value)
{
    static const char *const names[] = {"jsonl", "text", "sillytavern", "exoloom"};
    for (int i = JSONL; i <= EXOLOOM; i++) {
        if (strcmp(value, names[i]) == 0) {
            ((struct options *)context)->format = i;
            return true;
        }
    }
    return false;
}

static const struct cli_extra export_extras[] = {
    {"format", "F",
     "jsonl (everything, the default) or exoloom (the tree); of one path: text or sillytavern",
     on_format},
    {"node", "N", "only the path to node N; of one path the default is the session's head",
     on_node},
    {"output", "FILE", "write it there instead of standard output; FILE must not exist", on_output},
    {NULL, NULL, NULL, NULL},
};

/* ---------------------------------------------------------------- export */

static bool on_data(void *context, const void *data, size_t size)
{
    FILE *file = context;
    return fwrite(data, 1, size, file) == size;
}

/* Turns with the names of their speakers in front. */
static int text_print(struct cli *cli, uint64_t session, uint64_t node, FILE *file)
{
    struct node_copies path = {0};
    struct cast cast;
    size_t size = 0;
    if (cast_read(cli, session, &cast) != CLI_OK) {
        return CLI_FAILED;
    }
    const int status = nodes_read_path(cli, session, node, &path, &size);
    for (size_t i = 0; status == CLI_OK && i < path.count; i++) {
        const struct node_copy *copy = &path.list[i];
        if (copy->opens_turn) {
            (void)fprintf(file, "%s%s: ", i == 0 ? "" : "\n",
                          copy->speaker < cast.count ? cast.members[copy->speaker].name : "?");
        }
        (void)fwrite(copy->text, 1, i + 1 < path.count ? path.list[i + 1].parent_byte : size, file);
    }
    (void)fputs(status != CLI_OK || path.count == 0 ? "" : "\n", file);
    nodes_finish(&path);
    return status;
}

static int write_all(struct cli *cli, uint64_t session, const struct options *options, FILE *file)
{
    if (options->format == TEXT) {
        return text_print(cli, session, options->node, file);
    }
    if (options->format == SILLYTAVERN) {
        return foreign_write_chat(cli, session, options->node, file);
    }
    if (options->format == EXOLOOM) {
        return foreign_write_loom(cli, session, options->node, file);
    }
    if (personad_session_export(cli->client, session, options->node, on_data, file) !=
        PERSONAD_OK) {
        return cli_failed(cli);
    }
    return CLI_OK;
}

/* Private like the sessions themselves, and never in the place of another file. */
static FILE *file_create(const char *path)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *made = file < 0 ? NULL : fdopen(file, "w");
    if (made == NULL) {
        cli_complain("%s: %s", path, strerror(errno));
    }
    return made;
}

static int write_file(struct cli *cli, uint64_t session, const struct options *options)
{
    FILE *file = file_create(options->path);
    if (file == NULL) {
        return CLI_FAILED;
    }
    int status = write_all(cli, session, options, file);
    const bool is_bad = fflush(file) != 0 || ferror(file) || fsync(fileno(file)) != 0;
    if (fclose(file) != 0 || is_bad) {
        cli_complain("%s: it could not be written", options->path);
        status = CLI_FAILED;
    }
    if (status != CLI_OK) {
        (void)unlink(options->path);
    }
    return status;
}

static int export_run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {0};
    uint64_t session = 0;
    const int parsed = cli_parse(cli, &command_export, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (argument_count - optind != 1 || !cli_parse_u64(arguments[optind], UINT64_MAX, &session)) {
        cli_complain("name one session by its number; persona tree lists them");
        return CLI_USAGE;
    }
    const int status = cli_connect(cli);
    if (status != CLI_OK) {
        return status;
    }
    return options.path != NULL ? write_file(cli, session, &options)
                                : write_all(cli, session, &options, stdout);
}

const struct cli_command command_export = {
    .name = "export",
    .usage = "[OPTIONS] SESSION",
    .summary = "write a session with everything in it to a file",
    .help =
        "jsonl has all that persona import needs to make the same session again, on any daemon:\n"
        "docs/EXPORT.md describes it. text has the words of one path, sillytavern is a chat file "
        "with\n"
        "the swipes along one path, exoloom a tree whose nodes are cut where others fork off;\n"
        "they lose everything else.",
    .extras = export_extras,
    .run = export_run,
};

/* ---------------------------------------------------------------- import */

static long read_data(void *context, void *data, size_t size)
{
    FILE *file = context;
    const size_t got = fread(data, 1, size, file);
    return got == 0 && ferror(file) ? -1 : (long)got;
}

static int import_file(struct cli *cli, FILE *file)
{
    const struct personad_session *session = NULL;
    if (personad_session_import(cli->client, read_data, file, &session) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    if (cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_u64(&json, "session", session->id);
        json_u64(&json, "nodes", session->node_count);
        json_u64(&json, "head", session->head.node);
        json_text(&json, "label", session->label);
        json_end(&json);
    } else {
        (void)printf("session %" PRIu64 ", %" PRIu64 " nodes\n", session->id, session->node_count);
    }
    return CLI_OK;
}

static const struct cli_extra import_extras[] = {
    {"format", "F", "jsonl (the default), sillytavern (a chat) or exoloom (a tree)", on_format},
    {NULL, NULL, NULL, NULL},
};

/* Another program's file as one of ours, in memory. */
static int import_foreign(struct cli *cli, const struct options *options, FILE *file)
{
    char *lines = NULL;
    size_t size = 0;
    int status =
        foreign_read(cli, options->format == EXOLOOM ? FOREIGN_EXOLOOM : FOREIGN_SILLYTAVERN, file,
                     &lines, &size);
    if (status == CLI_OK) {
        FILE *made = fmemopen(lines, size, "r");
        if (made == NULL) {
            cli_complain("out of memory");
            status = CLI_FAILED;
        } else {
            status = import_file(cli, made);
            (void)fclose(made);
            if (status != CLI_OK && cli->persona == NULL &&
                personad_last_error(cli->client)->code == PERSONAD_NOT_FOUND) {
                cli_complain("--persona NAME says who plays the character of the file; persona "
                             "personas lists who can");
            }
        }
    }
    free(lines);
    return status;
}

static int import_run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {0};
    const int parsed = cli_parse(cli, &command_import, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (argument_count - optind != 1) {
        cli_complain("name one file, or - for standard input");
        return CLI_USAGE;
    }
    if (options.format == TEXT) {
        cli_complain("plain text is written, not read");
        return CLI_USAGE;
    }
    const char *path = arguments[optind];
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (file == NULL) {
        cli_complain("%s: %s", path, strerror(errno));
        return CLI_FAILED;
    }
    int status = cli_connect(cli);
    if (status == CLI_OK) {
        status =
            options.format == JSONL ? import_file(cli, file) : import_foreign(cli, &options, file);
    }
    if (file != stdin) {
        (void)fclose(file);
    }
    return status;
}

const struct cli_command command_import = {
    .name = "import",
    .usage = "[OPTIONS] FILE",
    .summary = "make a session from a file that persona export wrote",
    .help =
        "All of the file becomes a session of yours with new numbers, or nothing does. Under the\n"
        "model that made it, it goes on and verifies; under another one it can be read.\n"
        "sillytavern and exoloom: swipes and branches become siblings, the texts are tokenised\n"
        "here; --persona names who plays the character (default: one of its name; plain).",
    .takes = CLI_TAKES_PERSONA,
    .extras = import_extras,
    .run = import_run,
};
