#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "options.h"
#include "utf8.h"

enum {
    OPTION_COUNT_MAX = 64,
    KEY_ROW = 0x1000, /* getopt keys of option_rows, then of a command's extras */
    KEY_EXTRA = 0x2000,
    KEY_HELP = 0x3000,
    TEXT_BYTES_MAX = 16 * 1024 * 1024,
    COMPLAINT_BYTES_MAX = 1024,
    RESUME_SECONDS_DEFAULT = 60,
    COLUMNS_DEFAULT = 100, /* where nothing says how wide it is */
    COLUMNS_MIN = 21,
};

/* What the daemon says may quote what a model or a peer wrote. */
void cli_complain(const char *format, ...)
{
    char text[COMPLAINT_BYTES_MAX];
    va_list list;
    va_start(list, format);
    const int made = vsnprintf(text, sizeof text, format, list);
    va_end(list);
    const size_t size = made < 0 ? 0 : strnlen(text, sizeof text - 1);
    (void)fputs("persona: ", stderr);
    cli_print_text(stderr, (struct personad_text){text, size});
    (void)fputc('\n', stderr);
}

bool cli_has_extra(const struct cli_command *command, int argument_count, char **arguments)
{
    if (optind >= argument_count) {
        return false;
    }
    cli_complain("'%s' is one argument too many; see persona %s --help", arguments[optind],
                 command->name);
    return true;
}

int cli_failed(struct cli *cli)
{
    cli_complain("%s", personad_last_error(cli->client)->text);
    return CLI_FAILED;
}

bool cli_parse_u64(const char *text, uint64_t max, uint64_t *out)
{
    char *end = NULL;
    errno = 0;
    const uintmax_t number = strtoumax(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number > max) {
        return false;
    }
    *out = number;
    return true;
}

bool cli_parse_float(const char *text, float *out)
{
    char *end = NULL;
    const float number = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(number)) {
        return false;
    }
    *out = number;
    return true;
}

bool cli_parse_double(const char *text, double *out)
{
    char *end = NULL;
    const double number = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(number)) {
        return false;
    }
    *out = number;
    return true;
}

/* ---------------------------------------------------------------- options */

static void option_help(const char *name, const char *value, const char *help)
{
    char left[64];
    (void)snprintf(left, sizeof left, "--%s%s%s", name, value != NULL ? " " : "",
                   value != NULL ? value : "");
    (void)printf("  %-26s %s\n", left, help);
}

static void help_print(const struct cli_command *command)
{
    (void)printf("Usage: persona %s %s\n%s\n", command->name, command->usage, command->summary);
    if (command->help != NULL) {
        (void)printf("\n%s\n", command->help);
    }
    (void)puts("\nOptions:");
    const struct cli_extra *extra = command->extras;
    for (; extra != NULL && extra->name != NULL; extra++) {
        option_help(extra->name, extra->value, extra->help);
    }
    for (int i = 0; i < option_row_count; i++) {
        const struct option_row *row = &option_rows[i];
        if (row->group == 0 || (row->group & command->takes) != 0) {
            option_help(row->name, row->value, row->help);
        }
    }
    option_help("help", NULL, "this page");
}

static void options_make(const struct cli_command *command, struct option *options)
{
    int count = 0;
    for (int i = 0; i < option_row_count; i++) {
        const struct option_row *row = &option_rows[i];
        if (row->group == 0 || (row->group & command->takes) != 0) {
            const int has = row->value != NULL ? required_argument : no_argument;
            options[count++] = (struct option){row->name, has, NULL, KEY_ROW + i};
        }
    }
    const struct cli_extra *extras = command->extras;
    for (int i = 0; extras != NULL && extras[i].name != NULL; i++) {
        const int has = extras[i].value != NULL ? required_argument : no_argument;
        options[count++] = (struct option){extras[i].name, has, NULL, KEY_EXTRA + i};
    }
    options[count++] = (struct option){"help", no_argument, NULL, KEY_HELP};
    options[count] = (struct option){0};
}

static bool option_take(struct cli *cli, const struct cli_command *command, int key, void *context)
{
    const char *value = optarg != NULL ? optarg : "";
    if (key == 'n') {
        key = KEY_ROW;
        while (strcmp(option_rows[key - KEY_ROW].name, "n") != 0) {
            key++;
        }
    }
    if (key >= KEY_EXTRA) {
        const struct cli_extra *extra = &command->extras[key - KEY_EXTRA];
        if (!extra->on_value(context, optarg)) {
            cli_complain("--%s: '%s' is no good value; see persona %s --help", extra->name, value,
                         command->name);
            return false;
        }
        return true;
    }
    const struct option_row *row = &option_rows[key - KEY_ROW];
    if (!option_set(cli, key - KEY_ROW, value)) {
        cli_complain("--%s: '%s' is no good value; see persona %s --help", row->name, value,
                     command->name);
        return false;
    }
    return true;
}

/* Whether something was said of a session that is to be opened. */
static bool opens_session(const struct cli *cli)
{
    return cli->persona != NULL || cli->cast_count > 0 || cli->user != NULL ||
           cli->context_tokens != 0 || cli->no_greeting || cli->group_mode != PERSONAD_SEPARATE;
}

int cli_parse(struct cli *cli, const struct cli_command *command, int argument_count,
              char **arguments, void *context)
{
    struct option options[OPTION_COUNT_MAX];
    options_make(command, options);
    personad_sampler_init(&cli->sampler);
    const char *letters = (command->takes & CLI_TAKES_SIBLINGS) != 0 ? "n:h" : "h";
    int key = 0;
    while ((key = getopt_long(argument_count, arguments, letters, options, NULL)) != -1) {
        if (key == KEY_HELP || key == 'h') {
            help_print(command);
            return -1;
        }
        if (key == '?') {
            cli_complain("see persona %s --help", command->name);
            return CLI_USAGE;
        }
        if (!option_take(cli, command, key, context)) {
            return CLI_USAGE;
        }
    }
    if (cli->session != 0 && opens_session(cli)) {
        cli_complain("--session goes on in a session that is there: leave out --persona, --human, "
                     "--group, --user, --context and --no-greeting, which are for a new one");
        return CLI_USAGE;
    }
    cli->sampler.stops = cli->stops;
    cli->sampler.bias_tokens = cli->bias_tokens;
    cli->sampler.bias_values = cli->bias_values;
    return CLI_OK;
}

/* ---------------------------------------------------------------- the daemon */

static void on_daemon_change(void *context, bool is_back)
{
    const struct cli *cli = context;
    const uint32_t seconds = cli->has_resume ? cli->resume_seconds : RESUME_SECONDS_DEFAULT;
    if (is_back) {
        cli_complain("the daemon is back; going on");
    } else {
        cli_complain("the daemon went away; waiting up to %u s for it to come back", seconds);
    }
}

int cli_connect(struct cli *cli)
{
    struct personad_error error;
    cli->client = personad_connect(cli->socket, &error);
    if (cli->client == NULL) {
        cli_complain(error.code == PERSONAD_NO_DAEMON
                         ? "%s; start personad, or name its socket by --socket or PERSONAD_SOCKET"
                         : "%s",
                     error.text);
        return CLI_FAILED;
    }
    const uint32_t seconds = cli->has_resume ? cli->resume_seconds : RESUME_SECONDS_DEFAULT;
    personad_resume(cli->client, (int)seconds * 1000, on_daemon_change, cli);
    return CLI_OK;
}

void cli_finish(struct cli *cli)
{
    personad_close(cli->client);
    cli->client = NULL;
}

struct personad_open_options cli_open_options(const struct cli *cli)
{
    return (struct personad_open_options){
        .persona_name = cli->persona,
        .user_name = cli->user,
        .has_seed = cli->has_seed,
        .seed = cli->seed,
        .context_tokens = cli->context_tokens,
        .no_greeting = cli->no_greeting,
        .cast = cli->cast,
        .cast_count = cli->cast_count,
        .group_mode = cli->group_mode,
    };
}

bool cli_lacks_session(const struct cli *cli)
{
    if (cli->has_position && cli->session == 0) {
        cli_complain("--at is a place of a session: say which one by --session N");
        return true;
    }
    return false;
}

int cli_session(struct cli *cli, uint64_t *session)
{
    if (cli->session != 0) {
        *session = cli->session;
        return CLI_OK;
    }
    if (cli_lacks_session(cli)) {
        return CLI_USAGE;
    }
    const struct personad_open_options options = cli_open_options(cli);
    const struct personad_session *opened = NULL;
    if (personad_session_open(cli->client, &options, &opened, NULL, NULL) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    *session = opened->id;
    return CLI_OK;
}

struct personad_generation cli_generation(const struct cli *cli, uint64_t session)
{
    return (struct personad_generation){
        .session = session,
        .position = cli->has_position ? &cli->position : NULL,
        .n = cli->n,
        .sampler = &cli->sampler,
        .has_seed = cli->session != 0 && cli->has_seed,
        .seed = cli->seed,
        .has_raw_seed = cli->has_raw_seed,
        .raw_seed = cli->raw_seed,
        .prefix = {cli->prefix, cli->prefix != NULL ? strlen(cli->prefix) : 0},
        .batch = cli->batch,
        .choices = cli->choices,
        .choice_count = cli->choice_count,
        .distinct_first = cli->distinct,
    };
}

/* ---------------------------------------------------------------- text in */

static int input_read(char **text, size_t *size)
{
    size_t capacity = 65536;
    size_t used = 0;
    char *bytes = malloc(capacity);
    while (bytes != NULL) {
        const size_t count = fread(bytes + used, 1, capacity - used, stdin);
        used += count;
        if (used < capacity) {
            break;
        }
        if (capacity >= TEXT_BYTES_MAX) {
            free(bytes);
            cli_complain("standard input holds more than %d bytes", TEXT_BYTES_MAX);
            return CLI_USAGE;
        }
        capacity *= 2;
        char *moved = realloc(bytes, capacity);
        if (moved == NULL) {
            free(bytes);
        }
        bytes = moved;
    }
    if (bytes == NULL || ferror(stdin)) {
        free(bytes);
        cli_complain("standard input could not be read");
        return CLI_FAILED;
    }
    *text = bytes;
    *size = used;
    return CLI_OK;
}

int cli_begin(struct cli *cli, const struct cli_command *command, int argument_count,
              char **arguments, void *context, uint64_t *session)
{
    int status = cli_parse(cli, command, argument_count, arguments, context);
    if (status != CLI_OK) {
        return status;
    }
    if (command->argument_name == NULL && cli_has_extra(command, argument_count, arguments)) {
        return CLI_USAGE;
    }
    const int count = argument_count - optind;
    if (count < command->argument_count_min || count > command->argument_count_max) {
        cli_complain("give %d to %d %s", command->argument_count_min, command->argument_count_max,
                     command->argument_name);
        return CLI_USAGE;
    }
    if (cli->session == 0 && (command->takes & CLI_TAKES_PERSONA) == 0) {
        cli_complain("persona %s needs --session N; persona tree lists them", command->name);
        return CLI_USAGE;
    }
    status = cli_connect(cli);
    return status == CLI_OK ? cli_session(cli, session) : status;
}

struct personad_place cli_place(const struct cli *cli, uint64_t session)
{
    return (struct personad_place){
        .session = session,
        .position = cli->has_position ? &cli->position : NULL,
        .has_speaker = cli->has_speaker,
        .speaker = cli->speaker,
        .continuing = cli->continuing,
    };
}

int cli_text(int argument_count, char **arguments, char **text, size_t *size)
{
    if (argument_count == 0 || (argument_count == 1 && strcmp(arguments[0], "-") == 0)) {
        return input_read(text, size);
    }
    size_t bytes = 1;
    for (int i = 0; i < argument_count; i++) {
        bytes += strlen(arguments[i]) + 1;
    }
    char *joined = malloc(bytes);
    if (joined == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    size_t at = 0;
    for (int i = 0; i < argument_count; i++) {
        if (i > 0) {
            joined[at++] = ' ';
        }
        memcpy(joined + at, arguments[i], strlen(arguments[i]));
        at += strlen(arguments[i]);
    }
    joined[at] = '\0';
    *text = joined;
    *size = at;
    return CLI_OK;
}

/* ---------------------------------------------------------------- text out */

bool cli_has_colour(FILE *file)
{
    const char *off = getenv("NO_COLOR");
    return isatty(fileno(file)) && (off == NULL || off[0] == '\0');
}

size_t cli_columns(FILE *file)
{
    struct winsize size;
    const bool is_terminal = ioctl(fileno(file), TIOCGWINSZ, &size) == 0;
    return is_terminal && size.ws_col >= COLUMNS_MIN ? size.ws_col : COLUMNS_DEFAULT;
}

/* C1 controls and the characters that reorder text could also mislead a reader. */
static bool is_hidden(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point < 0xa0) ||
           (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

static void point_print(FILE *file, const char *text, size_t bytes)
{
    const uint32_t point = utf8_code_point(text, bytes);
    if (!is_hidden(point)) {
        (void)fwrite(text, 1, bytes, file);
    } else if (point < 0x20) {
        (void)fprintf(file, "\xe2\x90%c", (char)(0x80 + point)); /* U+2400 + control */
    } else {
        (void)fputs("\xef\xbf\xbd", file);
    }
}

void cli_print_text(FILE *file, struct personad_text text)
{
    for (size_t at = 0; at < text.size;) {
        const size_t bytes = utf8_sequence_bytes(text.data + at, text.size - at);
        if (bytes == 0) {
            (void)fputs("\xef\xbf\xbd", file);
            at++;
            continue;
        }
        if (text.data[at] == '\n' || text.data[at] == '\t') {
            (void)fputc(text.data[at], file);
        } else {
            point_print(file, text.data + at, bytes);
        }
        at += bytes;
    }
}

size_t cli_print_line(FILE *file, struct personad_text text, size_t columns)
{
    size_t used = 0;
    for (size_t at = 0; at < text.size;) {
        const size_t bytes = utf8_sequence_bytes(text.data + at, text.size - at);
        const size_t wide = bytes == 0 ? 1 : utf8_columns(utf8_code_point(text.data + at, bytes));
        if (used + wide + 1 > columns) {
            (void)fputs("\xe2\x80\xa6", file);
            return used + 1;
        }
        if (bytes == 0) {
            (void)fputs("\xef\xbf\xbd", file);
        } else if (text.data[at] == '\n') {
            (void)fputs("\xe2\x8f\x8e", file);
        } else {
            point_print(file, text.data + at, bytes);
        }
        used += wide;
        at += bytes == 0 ? 1 : bytes;
    }
    return used;
}
