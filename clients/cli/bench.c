/* persona bench: N users hold M turns each at once, over one connection or several, each of which
 * has a thread. */
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "json.h"

enum {
    USER_COUNT_MAX = 4096,
    CONNECTION_COUNT_MAX = 256,
    WORD_COUNT_MAX = 100000,
    GAP_COUNT_MAX = 1 << 24,
    STEADY_NS_MIN = 100 * 1000 * 1000,
};

struct options {
    uint64_t users, turns, words, tokens, connections;
    bool free_length;
};

struct user {
    uint64_t session;
    uint64_t request;
    uint64_t turn;
    uint64_t sent_ns, first_ns, last_ns;
    uint64_t turn_tokens;
};

struct bench {
    struct cli *cli;
    const struct options *options;
    struct user *users; /* owned */
    double *first_ms;   /* owned: [users * turns] */
    double *gap_ms;     /* owned: grows to GAP_COUNT_MAX */
    size_t first_count, gap_count, gap_capacity;
    uint64_t token_count, reply_count;
    uint64_t begin_ns, end_ns;
    pthread_mutex_t lock;              /* of all counts, once the lines run */
    pthread_barrier_t prepared, begun; /* of the lines and the one who measures */
    /* steady: from when every user of turn 0 has a token to when the first of them ends */
    size_t started_count;
    uint64_t steady_begin_ns, steady_end_ns, steady_tokens;
    struct personad_stats before, after;
};

/* A connection and its users. */
struct line {
    struct bench *bench;
    struct cli cli; /* a copy, with a client of its own */
    pthread_t thread;
    size_t first, end; /* users */
    int status;
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Some words that differ between users and turns, so that nothing is shared by accident. */
static char *words_make(uint64_t user, uint64_t turn, uint64_t count, size_t *size)
{
    static const char *const words[] = {"lamp", "harbour", "seven", "quiet", "door",  "letter",
                                        "rain", "morning", "bread", "clock", "north", "paper"};
    const size_t word_count = sizeof words / sizeof words[0];
    const size_t capacity = count * 16 + 64;
    char *text = malloc(capacity);
    if (text == NULL) {
        return NULL;
    }
    size_t at = (size_t)snprintf(text, capacity, "%" PRIu64 " of %" PRIu64 ":", turn + 1, user + 1);
    uint64_t state = user * 7919 + turn * 104729 + 12345;
    for (uint64_t i = 0; i < count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        at += (size_t)snprintf(text + at, capacity - at, " %s", words[(state >> 33) % word_count]);
    }
    *size = at;
    return text;
}

static int turn_send(struct line *line, size_t at)
{
    const struct bench *bench = line->bench;
    struct user *user = &bench->users[at];
    struct cli *cli = &line->cli;
    size_t size = 0;
    char *words = words_make(at, user->turn, bench->options->words, &size);
    if (words == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    const struct personad_text text = {words, size};
    struct personad_generation generation = cli_generation(cli, user->session);
    generation.n = 1;
    user->sent_ns = now_ns();
    user->first_ns = 0;
    user->turn_tokens = 0;
    if (cli->persona != NULL && strcmp(cli->persona, "plain") != 0) {
        user->request = personad_say(cli->client, text, 0, &generation);
    } else {
        const struct personad_append_options given = {.session = user->session, .text = text};
        const struct personad_node *node = NULL;
        if (personad_append(cli->client, &given, &node) != PERSONAD_OK) {
            free(words);
            return cli_failed(cli);
        }
        const struct personad_position place = {node->id, PERSONAD_END};
        generation.position = &place;
        user->request = personad_generate(cli->client, false, &generation);
    }
    free(words);
    return user->request == 0 ? cli_failed(cli) : CLI_OK;
}

static bool gap_add(struct bench *bench, double ms)
{
    if (bench->gap_count == bench->gap_capacity) {
        const size_t capacity = bench->gap_capacity == 0 ? 4096 : bench->gap_capacity * 2;
        double *moved =
            capacity > GAP_COUNT_MAX ? NULL : realloc(bench->gap_ms, capacity * sizeof *moved);
        if (moved == NULL) {
            return false; /* percentiles are of what was kept */
        }
        bench->gap_ms = moved;
        bench->gap_capacity = capacity;
    }
    bench->gap_ms[bench->gap_count++] = ms;
    return true;
}

static void tokens_count(struct bench *bench, struct user *user, uint32_t count)
{
    const uint64_t now = now_ns();
    if (user->first_ns == 0) {
        user->first_ns = now;
        bench->first_ms[bench->first_count++] = (double)(now - user->sent_ns) * 1e-6;
        if (user->turn == 0 && ++bench->started_count == bench->options->users) {
            bench->steady_begin_ns = now;
        }
    } else {
        (void)gap_add(bench, (double)(now - user->last_ns) * 1e-6 / (count > 0 ? count : 1));
        if (bench->steady_begin_ns != 0 && bench->steady_end_ns == 0) {
            bench->steady_tokens += count;
        }
    }
    user->last_ns = now;
    user->turn_tokens += count;
}

static void finished_count(struct bench *bench, const struct user *user,
                           const struct personad_event *event)
{
    if (bench->steady_begin_ns != 0 && bench->steady_end_ns == 0) {
        bench->steady_end_ns = now_ns();
    }
    bench->token_count +=
        event->nodes[0].numbers.count > 0 ? event->nodes[0].numbers.count : user->turn_tokens;
    bench->reply_count++;
}

/* *done counts the users whose last turn ended. */
static int event_take(struct line *line, const struct personad_event *event, size_t *done)
{
    struct bench *bench = line->bench;
    size_t at = line->first;
    while (at < line->end && bench->users[at].request != event->request) {
        at++;
    }
    if (at == line->end) {
        return CLI_OK;
    }
    struct user *user = &bench->users[at];
    if (event->type == PERSONAD_EVENT_ERROR) {
        cli_complain("%s", event->error.text);
        return CLI_FAILED;
    }
    (void)pthread_mutex_lock(&bench->lock);
    if (event->type == PERSONAD_EVENT_TOKENS) {
        tokens_count(bench, user, event->token_count);
    } else if (event->type == PERSONAD_EVENT_FINISHED) {
        finished_count(bench, user, event);
    }
    (void)pthread_mutex_unlock(&bench->lock);
    if (!event->last) {
        return CLI_OK;
    }
    if (++user->turn == bench->options->turns) {
        (*done)++;
        return CLI_OK;
    }
    return turn_send(line, at);
}

static int line_turns(struct line *line)
{
    size_t done = 0;
    for (size_t i = line->first; i < line->end; i++) {
        if (turn_send(line, i) != CLI_OK) {
            return CLI_FAILED;
        }
    }
    while (done < line->end - line->first) {
        const struct personad_event *event = NULL;
        const int code = personad_next(line->cli.client, -1, &event);
        if (code == PERSONAD_AGAIN) {
            continue; /* stopped and resumed */
        }
        if (code != PERSONAD_OK) {
            return cli_failed(&line->cli);
        }
        if (event_take(line, event, &done) != CLI_OK) {
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

static void *line_main(void *context)
{
    struct line *line = context;
    struct bench *bench = line->bench;
    line->status = cli_connect(&line->cli);
    for (size_t i = line->first; i < line->end && line->status == CLI_OK; i++) {
        line->status = cli_session(&line->cli, &bench->users[i].session);
    }
    (void)pthread_barrier_wait(&bench->prepared);
    (void)pthread_barrier_wait(&bench->begun);
    if (line->status == CLI_OK) {
        line->status = line_turns(line);
    }
    cli_finish(&line->cli);
    return NULL;
}

/* Starts the lines and waits for their end. */
static int lines_run(struct bench *bench, struct line *lines, size_t count)
{
    const size_t users = bench->options->users;
    struct cli *cli = bench->cli;
    int status = CLI_OK;
    (void)pthread_mutex_init(&bench->lock, NULL);
    (void)pthread_barrier_init(&bench->prepared, NULL, (unsigned)count + 1);
    (void)pthread_barrier_init(&bench->begun, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        lines[i] = (struct line){.bench = bench, .cli = *cli};
        lines[i].cli.client = NULL;
        lines[i].first = users * i / count;
        lines[i].end = users * (i + 1) / count;
        if (pthread_create(&lines[i].thread, NULL, line_main, &lines[i]) != 0) {
            /* Those that run wait for this one for ever. */
            cli_complain("only %zu of %zu threads could be started", i, count);
            exit(CLI_FAILED);
        }
    }
    (void)pthread_barrier_wait(&bench->prepared);
    if (personad_stats(cli->client, &bench->before) != PERSONAD_OK) {
        status = cli_failed(cli);
    }
    bench->begin_ns = now_ns();
    (void)pthread_barrier_wait(&bench->begun);
    for (size_t i = 0; i < count; i++) {
        (void)pthread_join(lines[i].thread, NULL);
        status = status == CLI_OK ? lines[i].status : status;
    }
    bench->end_ns = now_ns();
    (void)pthread_barrier_destroy(&bench->prepared);
    (void)pthread_barrier_destroy(&bench->begun);
    (void)pthread_mutex_destroy(&bench->lock);
    return status;
}

static int users_run(struct bench *bench)
{
    struct cli *cli = bench->cli;
    const uint64_t users = bench->options->users;
    const uint64_t wanted = bench->options->connections;
    const size_t count = wanted < users ? wanted : users;
    struct line *lines = calloc(count, sizeof *lines);
    if (lines == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    const int status = lines_run(bench, lines, count);
    free(lines);
    if (status != CLI_OK) {
        return status;
    }
    return personad_stats(cli->client, &bench->after) == PERSONAD_OK ? CLI_OK : cli_failed(cli);
}

/* ---------------------------------------------------------------- results */

static int by_value(const void *a, const void *b)
{
    const double left = *(const double *)a;
    const double right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static double percentile(const double *sorted, size_t count, double share)
{
    if (count == 0) {
        return 0;
    }
    const size_t at = (size_t)(share * (double)(count - 1) + 0.5);
    return sorted[at < count ? at : count - 1];
}

/* NaN when all were generating for too short a time to tell. */
static double steady_rate(const struct bench *bench)
{
    if (bench->steady_end_ns < bench->steady_begin_ns + STEADY_NS_MIN) {
        return NAN;
    }
    return (double)bench->steady_tokens /
           ((double)(bench->steady_end_ns - bench->steady_begin_ns) * 1e-9);
}

static void results_print_json(const struct bench *bench, double seconds)
{
    static const double shares[] = {0.5, 0.9, 0.99};
    static const char *const names[] = {"p50", "p90", "p99"};
    struct json json;
    json_start(&json, stdout);
    json_u64(&json, "users", bench->options->users);
    json_u64(&json, "turns", bench->options->turns);
    json_u64(&json, "replies", bench->reply_count);
    json_u64(&json, "tokens", bench->token_count);
    json_double(&json, "seconds", seconds);
    json_double(&json, "tokens_per_second", (double)bench->token_count / seconds);
    json_double(&json, "steady_tokens_per_second", steady_rate(bench));
    json_object_start(&json, "first_token_ms");
    for (size_t i = 0; i < 3; i++) {
        json_double(&json, names[i], percentile(bench->first_ms, bench->first_count, shares[i]));
    }
    json_object_end(&json);
    json_object_start(&json, "inter_token_ms");
    for (size_t i = 0; i < 3; i++) {
        json_double(&json, names[i], percentile(bench->gap_ms, bench->gap_count, shares[i]));
    }
    json_object_end(&json);
    json_u64(&json, "context_tokens",
             bench->after.context_token_count - bench->before.context_token_count);
    json_u64(&json, "context_computed",
             bench->after.context_computed_count - bench->before.context_computed_count);
    json_u64(&json, "context_cached",
             bench->after.context_cached_count - bench->before.context_cached_count);
    json_u64(&json, "steps", bench->after.step_count - bench->before.step_count);
    json_double(&json, "step_seconds",
                (double)(bench->after.step_ns - bench->before.step_ns) * 1e-9);
    json_u64(&json, "memory_bytes", bench->after.memory_bytes);
    json_u64(&json, "drafted", bench->after.drafted_count - bench->before.drafted_count);
    json_u64(&json, "accepted", bench->after.accepted_count - bench->before.accepted_count);
    json_end(&json);
}

static void results_print(const struct bench *bench, double seconds)
{
    (void)printf("%" PRIu64 " users, %" PRIu64 " turns: %" PRIu64 " replies, %" PRIu64
                 " tokens in %.2f s\n",
                 bench->options->users, bench->options->turns, bench->reply_count,
                 bench->token_count, seconds);
    (void)printf("%-28s %10.1f tokens/s\n", "all together", (double)bench->token_count / seconds);
    if (isnan(steady_rate(bench))) {
        (void)printf("%-28s %10s\n", "while all were generating", "too short to tell");
    } else {
        (void)printf("%-28s %10.1f tokens/s\n", "while all were generating", steady_rate(bench));
    }
    (void)printf("%-28s %10.1f / %.1f / %.1f ms\n", "first token, p50 / p90 / p99",
                 percentile(bench->first_ms, bench->first_count, 0.5),
                 percentile(bench->first_ms, bench->first_count, 0.9),
                 percentile(bench->first_ms, bench->first_count, 0.99));
    (void)printf("%-28s %10.2f / %.2f / %.2f ms\n", "between tokens",
                 percentile(bench->gap_ms, bench->gap_count, 0.5),
                 percentile(bench->gap_ms, bench->gap_count, 0.9),
                 percentile(bench->gap_ms, bench->gap_count, 0.99));
    (void)printf("%-28s %10" PRIu64 " asked for, %" PRIu64 " computed\n", "context tokens",
                 bench->after.context_token_count - bench->before.context_token_count,
                 bench->after.context_computed_count - bench->before.context_computed_count);
    (void)printf("%-28s %10" PRIu64 " guessed, %" PRIu64 " of them right\n", "next tokens",
                 bench->after.drafted_count - bench->before.drafted_count,
                 bench->after.accepted_count - bench->before.accepted_count);
}

static bool on_users(void *context, const char *value)
{
    struct options *options = context;
    return cli_parse_u64(value, USER_COUNT_MAX, &options->users) && options->users > 0;
}

static bool on_turns(void *context, const char *value)
{
    struct options *options = context;
    return cli_parse_u64(value, 10000, &options->turns) && options->turns > 0;
}

static bool on_words(void *context, const char *value)
{
    return cli_parse_u64(value, WORD_COUNT_MAX, &((struct options *)context)->words);
}

static bool on_tokens(void *context, const char *value)
{
    struct options *options = context;
    return cli_parse_u64(value, 32768, &options->tokens) && options->tokens > 0;
}

static bool on_connections(void *context, const char *value)
{
    struct options *options = context;
    return cli_parse_u64(value, CONNECTION_COUNT_MAX, &options->connections) &&
           options->connections > 0;
}

static bool on_free_length(void *context, const char *value)
{
    (void)value;
    ((struct options *)context)->free_length = true;
    return true;
}

static const struct cli_extra extras[] = {
    {"users", "N", "so many at once (default 1)", on_users},
    {"turns", "M", "each so many turns (default 1)", on_turns},
    {"words", "W", "length of what a user says, in words (default 32)", on_words},
    {"tokens", "R", "length of a reply, in tokens (default 64)", on_tokens},
    {"connections", "C", "users share so many connections (default 1)", on_connections},
    {"free-length", NULL, "replies may end by themselves before that", on_free_length},
    {NULL, NULL, NULL, NULL},
};

/* Becomes personad-bench: the one beside this program, else the first on the PATH. */
static int kernel_bench(char **arguments)
{
    static char program[] = "personad-bench";
    char beside[4096];

    arguments[0] = program;
    const ssize_t size = readlink("/proc/self/exe", beside, sizeof beside - sizeof program);
    if (size > 0) {
        beside[size] = '\0';
        char *slash = strrchr(beside, '/');
        memcpy(slash + 1, program, sizeof program);
        (void)execv(beside, arguments);
    }
    (void)execvp(program, arguments);
    (void)fprintf(stderr,
                  "persona: %s is neither beside this program nor on the PATH; it is built and "
                  "installed with personad\n",
                  program);
    return CLI_FAILED;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    if (argument_count > 1 && strcmp(arguments[1], "--kernel") == 0) {
        return kernel_bench(arguments + 1);
    }
    if (argument_count > 1 &&
        (strcmp(arguments[1], "--profile") == 0 || strcmp(arguments[1], "--engine") == 0)) {
        return kernel_bench(arguments); /* which knows these options itself */
    }
    struct options options = {1, 1, 32, 64, 1, false};
    const int parsed = cli_parse(cli, &command_bench, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (cli_has_extra(&command_bench, argument_count, arguments)) {
        return CLI_USAGE;
    }
    if (cli->persona == NULL) {
        cli->persona = "plain";
    }
    cli->sampler.max_tokens = (int64_t)options.tokens;
    cli->sampler.ignore_end = options.free_length ? 0 : 1;
    struct bench bench = {.cli = cli, .options = &options};
    bench.users = calloc(options.users, sizeof *bench.users);
    bench.first_ms = calloc(options.users * options.turns, sizeof *bench.first_ms);
    int status = bench.users != NULL && bench.first_ms != NULL ? cli_connect(cli) : CLI_FAILED;
    if (status == CLI_OK) {
        status = users_run(&bench);
    }
    if (status == CLI_OK) {
        const double seconds = (double)(bench.end_ns - bench.begin_ns) * 1e-9;
        qsort(bench.first_ms, bench.first_count, sizeof(double), by_value);
        if (bench.gap_count > 0) {
            qsort(bench.gap_ms, bench.gap_count, sizeof(double), by_value);
        }
        if (cli->json) {
            results_print_json(&bench, seconds);
        } else {
            results_print(&bench, seconds);
        }
    }
    free(bench.users);
    free(bench.first_ms);
    free(bench.gap_ms);
    return status;
}

const struct cli_command command_bench = {
    .name = "bench",
    .usage = "[OPTIONS]",
    .summary = "measure: N users, M turns each, all at once",
    .help =
        "With the persona `plain` (the default) a turn is a text and its continuation; with any\n"
        "other it is a say. Replies have exactly --tokens tokens unless --free-length is given.\n"
        "\"while all were generating\" counts from the moment when every user has a token to the\n"
        "first end of a reply.\n"
        "\n"
        "`persona bench --kernel` asks no daemon: it measures the backend of this machine, with\n"
        "weights of noise in the shape of a known model, and prints times, rates and shares of\n"
        "the device's own rates; `persona bench --kernel --help` lists its options.\n"
        "\n"
        "`persona bench --profile` asks no daemon either: it shows where the time of a step goes,\n"
        "by operation, waiting of threads, sampling and planning, for 1, 4, 16 and 64 branches\n"
        "and a prefill of 512 tokens (--model FILE, --threads N, --context TOKENS, --json;\n"
        "--best: each part's fastest time, where other work disturbs).\n"
        "\n"
        "`persona bench --engine` asks no daemon either: N replies at once by an engine alone,\n"
        "what a daemon could do at most (--model FILE, --users N, --context TOKENS, --tokens R,\n"
        "--temperature T, --rounds K, --json).",
    .takes = CLI_TAKES_PERSONA | CLI_TAKES_GENERATION,
    .extras = extras,
    .run = run,
};
