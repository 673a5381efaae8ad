/* persona batch: the conversations of a file, many at once over one connection. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "batch_input.h"
#include "cli.h"
#include "json.h"

enum {
    PARALLEL_DEFAULT = 64,
    PARALLEL_MAX = 1024,
    PROGRESS_MS = 500,
    KEY_BYTES = 64,
    REPLY_BYTES_FIRST = 1024,
};

struct options {
    const char *out; /* NULL: standard output, and nothing to go on from */
    uint64_t parallel;
};

/* One reply, kept until its conversation ends. */
struct reply_kept {
    uint64_t node, seed, token_count;
    char *text; /* owned */
    size_t size;
    int finish;
};

/* A conversation that is going on. */
struct talk {
    struct batch_item item;
    size_t line; /* index */
    uint64_t session, request;
    size_t turn;
    struct reply_kept *replies; /* owned, [turn_count] */
    bool is_busy;
};

struct batch {
    struct cli *cli;
    const struct options *options;
    struct batch_input input;
    struct talk *talks; /* owned, [parallel] */
    size_t next_line, busy_count, done_count, earlier_count, failed_count, total_count;
    FILE *out;
    int64_t told_ms;
    bool shows_progress;
};

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void progress(struct batch *batch, bool at_once)
{
    const int64_t now = now_ms();
    if (!batch->shows_progress || (!at_once && now - batch->told_ms < PROGRESS_MS)) {
        return;
    }
    batch->told_ms = now;
    (void)fprintf(stderr, "\r%zu of %zu conversations, %zu failed, %zu going on ",
                  batch->earlier_count + batch->done_count, batch->total_count, batch->failed_count,
                  batch->busy_count);
    (void)fflush(stderr);
}

/* ---------------------------------------------------------------- results */

static void result_begin(const struct batch *batch, struct json *json, size_t line, const char *id)
{
    char name[32];
    (void)snprintf(name, sizeof name, "%016" PRIx64, batch->input.hash);
    json_start(json, batch->out);
    json_text_of(json, "batch", name);
    json_u64(json, "line", line + 1);
    if (id != NULL) {
        json_text_of(json, "id", id);
    }
}

static int result_end(struct batch *batch, struct json *json)
{
    json_end(json);
    batch->done_count++;
    if (ferror(batch->out)) {
        cli_complain("%s: %s", batch->options->out != NULL ? batch->options->out : "output",
                     strerror(errno));
        return CLI_FAILED;
    }
    return CLI_OK;
}

static int failure_print(struct batch *batch, size_t line, const char *id, const char *reason)
{
    struct json json;
    batch->failed_count++;
    cli_complain("%sline %zu: %s", batch->shows_progress ? "\n" : "", line + 1, reason);
    result_begin(batch, &json, line, id);
    json_text_of(&json, "error", reason);
    return result_end(batch, &json);
}

static int talk_print(struct batch *batch, const struct talk *talk)
{
    struct json json;
    result_begin(batch, &json, talk->line, talk->item.id);
    json_u64(&json, "session", talk->session);
    json_list(&json, "replies");
    for (size_t i = 0; i < talk->item.turn_count; i++) {
        const struct reply_kept *reply = &talk->replies[i];
        json_object_start(&json, NULL);
        json_u64(&json, "node", reply->node);
        json_u64(&json, "seed", reply->seed);
        json_u64(&json, "tokens", reply->token_count);
        json_text_of(&json, "finish", personad_finish_name(reply->finish));
        json_text(&json, "text", (struct personad_text){reply->text, reply->size});
        json_object_end(&json);
    }
    json_list_end(&json);
    return result_end(batch, &json);
}

static void talk_finish(struct batch *batch, struct talk *talk)
{
    for (size_t i = 0; talk->replies != NULL && i < talk->item.turn_count; i++) {
        free(talk->replies[i].text);
    }
    free(talk->replies);
    batch_item_finish(&talk->item);
    batch->busy_count -= talk->is_busy ? 1 : 0;
    *talk = (struct talk){0};
}

/* ---------------------------------------------------------------- one conversation */

/* Repeats of a line, also by another process, ask under the same keys. */
static void key_set(struct batch *batch, const struct talk *talk, const char *what, size_t turn)
{
    char key[KEY_BYTES];
    (void)snprintf(key, sizeof key, "batch-%016" PRIx64 "-%zu-%s%zu", batch->input.hash,
                   talk->line + 1, what, turn);
    personad_next_key(batch->cli->client, key);
}

static bool turn_send(struct batch *batch, struct talk *talk)
{
    struct personad_generation generation = cli_generation(batch->cli, talk->session);
    generation.delivery = PERSONAD_FINAL_ONLY;
    generation.numbers = true;
    generation.batch = true;
    generation.n = 1;
    key_set(batch, talk, "turn", talk->turn);
    talk->request = personad_say(
        batch->cli->client,
        (struct personad_text){talk->item.turns[talk->turn], talk->item.turn_sizes[talk->turn]}, 0,
        &generation);
    return talk->request != 0;
}

/* CLI_USAGE: only this line failed, and that is printed. */
static int talk_start(struct batch *batch, struct talk *talk, size_t line)
{
    char error[BATCH_ERROR_BYTES];
    const struct cli *cli = batch->cli;
    talk->line = line;
    if (!batch_item_parse(&batch->input.lines[line], &talk->item, error)) {
        const int status = failure_print(batch, line, talk->item.id, error);
        return status == CLI_OK ? CLI_USAGE : status;
    }
    talk->replies = calloc(talk->item.turn_count, sizeof *talk->replies);
    if (talk->replies == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    struct personad_open_options options = cli_open_options(cli);
    options.label = talk->item.label;
    if (talk->item.persona != NULL) {
        options.persona_name = talk->item.persona;
    }
    if (talk->item.user != NULL) {
        options.user_name = talk->item.user;
    }
    if (talk->item.has_seed) {
        options.has_seed = true;
        options.seed = talk->item.seed;
    }
    const struct personad_session *session = NULL;
    key_set(batch, talk, "open", 0);
    const int code = personad_session_open(cli->client, &options, &session, NULL, NULL);
    if (code < 0) {
        return cli_failed(batch->cli); /* not the line's fault */
    }
    if (code != PERSONAD_OK) {
        const int status =
            failure_print(batch, line, talk->item.id, personad_last_error(cli->client)->text);
        return status == CLI_OK ? CLI_USAGE : status;
    }
    talk->session = session->id;
    talk->is_busy = true;
    batch->busy_count++;
    return turn_send(batch, talk) ? CLI_OK : cli_failed(batch->cli);
}

static int reply_keep(struct talk *talk, const struct personad_node *node)
{
    struct reply_kept *reply = &talk->replies[talk->turn];
    free(reply->text); /* of an earlier answer to the same turn */
    reply->text = malloc(node->text.size + 1);
    if (reply->text == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    if (node->text.size > 0) {
        memcpy(reply->text, node->text.data, node->text.size);
    }
    reply->size = node->text.size;
    reply->node = node->id;
    reply->seed = node->seed;
    reply->token_count = node->numbers.count;
    reply->finish = node->finish;
    return CLI_OK;
}

/* The turn's stream has ended: the next one, or the result. */
static int turn_end(struct batch *batch, struct talk *talk)
{
    const struct reply_kept *reply = &talk->replies[talk->turn];
    int status = CLI_OK;
    if (reply->finish == PERSONAD_FINISH_FAILED || reply->finish == PERSONAD_FINISH_INTERRUPTED) {
        status = failure_print(batch, talk->line, talk->item.id, "a reply failed");
    } else if (++talk->turn < talk->item.turn_count) {
        return turn_send(batch, talk) ? CLI_OK : cli_failed(batch->cli);
    } else {
        status = talk_print(batch, talk);
    }
    talk_finish(batch, talk);
    return status;
}

static int event_take(struct batch *batch, const struct personad_event *event)
{
    struct talk *talk = NULL;
    for (size_t i = 0; i < batch->options->parallel && talk == NULL; i++) {
        if (batch->talks[i].is_busy && batch->talks[i].request == event->request) {
            talk = &batch->talks[i];
        }
    }
    if (talk == NULL) {
        return CLI_OK;
    }
    if (event->type == PERSONAD_EVENT_FINISHED) {
        return reply_keep(talk, &event->nodes[0]);
    }
    if (event->type == PERSONAD_EVENT_ERROR) {
        const int status = failure_print(batch, talk->line, talk->item.id, event->error.text);
        talk_finish(batch, talk);
        return status;
    }
    return event->last ? turn_end(batch, talk) : CLI_OK;
}

/* ---------------------------------------------------------------- all of them */

static int talks_fill(struct batch *batch)
{
    for (size_t i = 0; i < batch->options->parallel; i++) {
        struct talk *talk = &batch->talks[i];
        while (!talk->is_busy && batch->next_line < batch->input.line_count) {
            const size_t line = batch->next_line++;
            if (batch->input.lines[line].is_done) {
                continue;
            }
            const int status = talk_start(batch, talk, line);
            if (status != CLI_OK) {
                talk_finish(batch, talk);
            }
            if (status != CLI_OK && status != CLI_USAGE) {
                return status;
            }
        }
    }
    return CLI_OK;
}

static int batch_run(struct batch *batch)
{
    int status = CLI_OK;
    while (status == CLI_OK) {
        status = talks_fill(batch);
        progress(batch, false);
        if (status != CLI_OK || batch->busy_count == 0) {
            break;
        }
        const struct personad_event *event = NULL;
        const int code = personad_next(batch->cli->client, PROGRESS_MS, &event);
        if (code == PERSONAD_OK) {
            status = event_take(batch, event);
        } else if (code != PERSONAD_AGAIN) {
            status = cli_failed(batch->cli);
        }
    }
    progress(batch, true);
    if (batch->shows_progress) {
        (void)fputc('\n', stderr);
    }
    return status == CLI_OK && batch->failed_count > 0 ? CLI_FAILED : status;
}

static int batch_prepare(struct batch *batch, const char *path)
{
    int status = batch_input_read(&batch->input, path);
    if (status == CLI_OK && batch->options->out != NULL) {
        status = batch_input_resume(&batch->input, batch->options->out, &batch->earlier_count);
    }
    if (status != CLI_OK) {
        return status;
    }
    for (size_t i = 0; i < batch->input.line_count; i++) {
        batch->total_count += batch->input.lines[i].is_done ? 0 : 1;
    }
    batch->total_count += batch->earlier_count;
    batch->out = stdout;
    if (batch->options->out != NULL) {
        batch->out = fopen(batch->options->out, "ab");
    }
    batch->talks = calloc(batch->options->parallel, sizeof *batch->talks);
    if (batch->out == NULL || batch->talks == NULL) {
        cli_complain("%s: %s", batch->options->out != NULL ? batch->options->out : "batch",
                     strerror(errno));
        return CLI_FAILED;
    }
    batch->shows_progress = isatty(STDERR_FILENO) && batch->options->out != NULL;
    return CLI_OK;
}

static void batch_finish(struct batch *batch)
{
    for (size_t i = 0; batch->talks != NULL && i < batch->options->parallel; i++) {
        talk_finish(batch, &batch->talks[i]);
    }
    free(batch->talks);
    if (batch->out != NULL && batch->out != stdout) {
        (void)fclose(batch->out);
    }
    batch_input_finish(&batch->input);
}

static bool on_out(void *context, const char *value)
{
    ((struct options *)context)->out = value;
    return value[0] != '\0';
}

static bool on_parallel(void *context, const char *value)
{
    uint64_t *parallel = &((struct options *)context)->parallel;
    return cli_parse_u64(value, PARALLEL_MAX, parallel) && *parallel > 0;
}

static const struct cli_extra extras[] = {
    {"out", "FILE", "append results there; a second run goes on where the first stopped", on_out},
    {"parallel", "N", "conversations at once (default 64)", on_parallel},
    {NULL, NULL, NULL, NULL},
};

static int run(struct cli *cli, int argument_count, char **arguments)
{
    struct options options = {NULL, PARALLEL_DEFAULT};
    const int parsed = cli_parse(cli, &command_batch, argument_count, arguments, &options);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (argument_count - optind != 1) {
        cli_complain("name one file of lines, or - for standard input; see persona batch --help");
        return CLI_USAGE;
    }
    struct batch batch = {.cli = cli, .options = &options};
    int status = batch_prepare(&batch, arguments[optind]);
    if (status == CLI_OK) {
        status = cli_connect(cli);
    }
    if (status == CLI_OK) {
        status = batch_run(&batch);
    }
    batch_finish(&batch);
    return status;
}

const struct cli_command command_batch = {
    .name = "batch",
    .usage = "[OPTIONS] FILE.jsonl",
    .summary = "hold the conversations of a file, many at once",
    .help =
        "Each line is a JSON object: text, or turns (a list of texts), and if wanted id,\n"
        "persona, user, label, seed. Each conversation is a new session; when it has ended its\n"
        "replies are printed as one object. With --out, a batch that was stopped goes on where\n"
        "it stopped, and no turn is computed twice.",
    .takes = CLI_TAKES_PERSONA | CLI_TAKES_GENERATION,
    .extras = extras,
    .run = run,
};
