/* What the subcommands of `persona` share: options, the connection, output for people and for
 * scripts.
 *
 * Thread: one. Exit status of every command: 0 done, 1 the daemon or the system said no, 2 wrong
 * usage.
 */
#ifndef PERSONAD_CLIENTS_CLI_CLI_H
#define PERSONAD_CLIENTS_CLI_CLI_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "personad_client.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

enum {
    CLI_STOP_COUNT_MAX = 64,
    CLI_BIAS_COUNT_MAX = 64,
    CLI_CHOICE_COUNT_MAX = 256,
    CLI_ROW_COUNT_MAX = 64, /* of option_rows */
    CLI_GIVEN_BYTES_MAX = 24
};

/* Options that commands share; each command says which of them it takes. */
struct cli {
    const char *command;
    const char *socket; /* NULL: the default */
    bool has_resume;
    uint32_t resume_seconds; /* how long a daemon that went away is waited for */
    bool json;
    const char *persona;                                      /* NULL: the daemon's default */
    struct personad_cast_entry cast[PERSONAD_CAST_COUNT_MAX]; /* further speakers */
    size_t cast_count;
    int group_mode;   /* enum personad_group_mode */
    const char *user; /* NULL: "User" */
    uint64_t session; /* 0: a new one */
    bool has_position;
    struct personad_position position;
    bool has_speaker, continuing; /* the turn at that place */
    uint32_t speaker;
    uint32_t n;
    bool has_seed, has_raw_seed;
    uint64_t seed, raw_seed;
    uint32_t context_tokens; /* 0: the daemon's */
    const char *prefix;
    bool batch;
    bool special;
    bool no_greeting;
    struct personad_sampler sampler;
    struct personad_text choices[CLI_CHOICE_COUNT_MAX];
    size_t choice_count;
    bool distinct;
    const char *stops[CLI_STOP_COUNT_MAX];
    uint32_t bias_tokens[CLI_BIAS_COUNT_MAX];
    float bias_values[CLI_BIAS_COUNT_MAX];
    char given[CLI_ROW_COUNT_MAX][CLI_GIVEN_BYTES_MAX]; /* by row: its last value, maybe cut; "" */
    personad_client *client;                            /* owned once connected */
};

/* Which groups of options a command takes. */
enum {
    CLI_TAKES_PERSONA = 1,    /* --persona --human --group --user --seed ... */
    CLI_TAKES_GENERATION = 2, /* sampler, --raw-seed --prefix --batch */
    CLI_TAKES_SESSION = 4,    /* --session --at */
    CLI_TAKES_SPECIAL = 8,    /* --special */
    CLI_TAKES_SIBLINGS = 16,  /* -n --choice --distinct */
    CLI_TAKES_TURN = 32,      /* --speaker --continue */
};

/* An option of one command only. value NULL: a flag. on_value gets NULL for flags; false is wrong
 * usage. */
struct cli_extra {
    const char *name, *value, *help;
    bool (*on_value)(void *context, const char *value);
};

struct cli_command {
    const char *name;
    const char *usage;   /* "[OPTIONS] TEXT" */
    const char *summary; /* one line */
    const char *help;    /* more, or NULL */
    int takes;
    int argument_count_min, argument_count_max; /* what is no option, where cli_begin() is used */
    const char *argument_name;                  /* of many; NULL: the command takes none */
    const struct cli_extra *extras;             /* ends with name NULL; or NULL */
    int (*run)(struct cli *cli, int argument_count, char **arguments);
};

extern const struct cli_command command_chat, command_say, command_complete, command_tree,
    command_tokenize, command_personas, command_info, command_bench, command_batch, command_backup,
    command_dist, command_score, command_compare, command_group, command_verify, command_walk,
    command_expand, command_export, command_import;

/* Parses the options of a command; what is left is arguments[optind...]. CLI_OK, CLI_USAGE, or -1
 * when --help was printed. context: for the extras. */
int cli_parse(struct cli *cli, const struct cli_command *command, int argument_count,
              char **arguments, void *context);

/* True, with a complaint, when arguments are left that the command has no use for: CLI_USAGE. */
bool cli_has_extra(const struct cli_command *command, int argument_count, char **arguments);

/* Connects; prints the reason and answers CLI_FAILED when no daemon answers. */
int cli_connect(struct cli *cli);
void cli_finish(struct cli *cli);

/* Prints "persona: TEXT" to standard error, as cli_print_text() does. */
void cli_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Complains about the last failed call and answers CLI_FAILED. */
int cli_failed(struct cli *cli);

/* A new session as the options say. */
struct personad_open_options cli_open_options(const struct cli *cli);

/* True, with a complaint, when a place is named and no session: CLI_USAGE. */
bool cli_lacks_session(const struct cli *cli);

/* Opens a session as the options say, or takes --session. */
int cli_session(struct cli *cli, uint64_t *session);

/* Parses, connects and gets the session, which must be named where no persona can be. CLI_OK, an
 * exit status, or -1 when --help was printed. */
int cli_begin(struct cli *cli, const struct cli_command *command, int argument_count,
              char **arguments, void *context, uint64_t *session);

/* Where the options say; borrows from cli. */
struct personad_place cli_place(const struct cli *cli, uint64_t session);

/* The arguments joined by blanks, or standard input when there are none ("-" too). The caller
 * frees. */
int cli_text(int argument_count, char **arguments, char **text, size_t *size);

/* What the options say of a generation in this session. */
struct personad_generation cli_generation(const struct cli *cli, uint64_t session);

/* Parses whole numbers; false (nothing printed) when it is none or out of range. */
bool cli_parse_u64(const char *text, uint64_t max, uint64_t *out);
bool cli_parse_float(const char *text, float *out);
bool cli_parse_double(const char *text, double *out);

/* NODE or NODE:OFFSET; without OFFSET the end. */
bool cli_parse_position(const char *text, struct personad_position *out);

/* ---------------------------------------------------------------- for people */

/* True when escapes for colour may be written: a terminal, and NO_COLOR is not set. */
bool cli_has_colour(FILE *file);

/* Columns of the terminal that the file is, 100 where it is none. */
size_t cli_columns(FILE *file);

/* Writes model or user text so that it cannot steer a terminal: control bytes but newline and tab
 * become visible, malformed UTF-8 becomes U+FFFD. */
void cli_print_text(FILE *file, struct personad_text text);

/* At most `columns` columns of the text on one line, newlines as a sign; how many it took. */
size_t cli_print_line(FILE *file, struct personad_text text, size_t columns);

#endif
