/* persona chat: a conversation in the terminal. */
#include "chat.h"

#include <editline/readline.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reply.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

bool chat_is_human(const struct chat *chat, uint32_t speaker)
{
    return speaker < chat->cast.count && chat->cast.members[speaker].is_human;
}

uint32_t chat_first_persona(const struct chat *chat)
{
    uint32_t speaker = 0;
    while (speaker + 1 < chat->cast.count && chat_is_human(chat, speaker)) {
        speaker++;
    }
    return speaker;
}

void chat_name_print(const struct chat *chat, uint32_t speaker)
{
    const bool colour = cli_has_colour(stdout);
    const char *name = speaker < chat->cast.count ? chat->cast.members[speaker].name : "?";
    (void)fputs(!colour ? "" : chat_is_human(chat, speaker) ? "\033[1;34m" : "\033[1;32m", stdout);
    cli_print_line(stdout, (struct personad_text){name, strlen(name)}, 64);
    (void)fputs(colour ? ":\033[0m " : ": ", stdout);
}

int chat_move(struct chat *chat, struct personad_position place)
{
    if (personad_head(chat->cli->client, chat->session, &place, &chat->place) != PERSONAD_OK) {
        cli_complain("%s", personad_last_error(chat->cli->client)->text);
        return personad_last_error(chat->cli->client)->code < 0 ? CLI_FAILED : CLI_OK;
    }
    return CLI_OK;
}

/* ---------------------------------------------------------------- a reply */

static int context_keep(struct chat *chat, const struct personad_event *event)
{
    uint32_t *copy = malloc((event->context_count + 1) * sizeof *copy);
    if (copy == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    if (event->context_count > 0) {
        memcpy(copy, event->context, event->context_count * sizeof *copy);
    }
    free(chat->context);
    chat->context = copy;
    chat->context_count = event->context_count;
    return CLI_OK;
}

/* Why a reply ended, where that is no plain end; NULL: it is. */
static const char *finish_note(const struct personad_node *node)
{
    switch (node->finish) {
    case PERSONAD_FINISH_LENGTH:
        return "max tokens; /continue goes on";
    case PERSONAD_FINISH_CONTEXT:
        return "the context is full";
    case PERSONAD_FINISH_CUT:
        return "stopped";
    default:
        return node->content_tokens == 0 ? "nothing came; /again tries another" : NULL;
    }
}

static void finish_print(const struct personad_node *node)
{
    const char *dim = cli_has_colour(stdout) ? "\033[2m" : "";
    const char *plain = cli_has_colour(stdout) ? "\033[0m" : "";
    const char *note = finish_note(node);
    if (note != NULL) {
        (void)printf(" %s[%s]%s", dim, note, plain);
    }
    if (node->turns_left_out > 0) {
        (void)printf(" %s[%u oldest turns left out]%s", dim, node->turns_left_out, plain);
    }
    (void)fputc('\n', stdout);
    (void)fflush(stdout);
    if (node->finish == PERSONAD_FINISH_FAILED) {
        cli_complain("the reply failed: %.*s", (int)node->error_text.size,
                     node->error_text.data != NULL ? node->error_text.data : "");
    }
}

void chat_node_print(const struct chat *chat, const struct personad_node *node)
{
    if (chat->cli->json) {
        reply_print_json(chat->session, node, NULL, 0);
        return;
    }
    chat_name_print(chat, node->speaker);
    cli_print_text(stdout, node->text);
    (void)fputc('\n', stdout);
}

/* What was given stands in a node of its own before the reply; the event leaves out its text. */
static void prefix_print(const struct chat *chat, const struct personad_event *event)
{
    const size_t last = event->node_count - 1;
    if (last > 0 && !chat->cli->json &&
        event->nodes[last - 1].speaker == event->nodes[last].speaker) {
        const char *prefix = chat->prefill != NULL ? chat->prefill : chat->cli->prefix;
        cli_print_text(stdout, (struct personad_text){prefix, prefix != NULL ? strlen(prefix) : 0});
    }
}

/* The reply is the last node that was created: a prefix and the user's turn come before it. */
static int event_take(struct chat *chat, const struct personad_event *event)
{
    if (event->type == PERSONAD_EVENT_CREATED && event->node_count > 0) {
        const struct personad_node *node = &event->nodes[event->node_count - 1];
        chat->reply = node->id;
        chat->going = node->id;
        chat->reply_parent = node->parent;
        chat->reply_opens_turn = node->opens_turn;
        chat->reply_speaker = node->speaker;
        prefix_print(chat, event);
        free(chat->prefill); /* spent */
        chat->prefill = NULL;
        chat->place = (struct personad_position){node->id, PERSONAD_END};
        return context_keep(chat, event);
    }
    if (event->type == PERSONAD_EVENT_FINISHED && chat->cli->json) {
        reply_print_json(chat->session, &event->nodes[0], chat->context, chat->context_count);
    } else if (event->type == PERSONAD_EVENT_TOKENS && !chat->cli->json) {
        cli_print_text(stdout, event->text);
        (void)fflush(stdout);
    } else if (event->type == PERSONAD_EVENT_FINISHED) {
        finish_print(&event->nodes[0]);
    } else if (event->type == PERSONAD_EVENT_ERROR) {
        (void)fputs(chat->cli->json ? "" : "\n", stdout);
        cli_complain("%s", event->error.text);
    }
    return CLI_OK;
}

/* Ctrl-C before the node exists waits until it does. */
static void cancel_if_interrupted(struct chat *chat)
{
    if (interrupted && chat->going != 0) {
        interrupted = 0;
        (void)personad_cancel_send(chat->cli->client, &chat->going, 1);
        chat->going = 0;
    }
}

int chat_follow(struct chat *chat, uint64_t request, bool continuing)
{
    personad_client *client = chat->cli->client;
    if (request == 0) {
        return cli_failed(chat->cli);
    }
    if (!continuing && !chat->cli->json) {
        chat_name_print(chat, chat->reply_speaker);
        (void)fflush(stdout);
    }
    interrupted = 0;
    chat->going = 0;
    bool last = false;
    while (!last) {
        const struct personad_event *event = NULL;
        const int code = personad_next(client, -1, &event);
        if (code == PERSONAD_OK && event->request == request) {
            last = event->last;
            if (event_take(chat, event) != CLI_OK) {
                return CLI_FAILED;
            }
        } else if (code != PERSONAD_OK && code != PERSONAD_AGAIN) {
            return cli_failed(chat->cli);
        }
        cancel_if_interrupted(chat);
    }
    return CLI_OK;
}

/* ---------------------------------------------------------------- opening */

static void session_print(const struct chat *chat)
{
    if (!chat->cli->json) {
        const bool colour = cli_has_colour(stdout);
        (void)printf("%sSession %" PRIu64 ". /help lists what you can do.%s\n\n",
                     colour ? "\033[2m" : "", chat->session, colour ? "\033[0m" : "");
    }
}

int chat_open(struct chat *chat)
{
    struct cli *cli = chat->cli;
    const struct personad_open_options options = cli_open_options(cli);
    const struct personad_session *session = NULL;
    const struct personad_node *greetings = NULL;
    size_t greeting_count = 0;
    if (personad_session_open(cli->client, &options, &session, &greetings, &greeting_count) !=
        PERSONAD_OK) {
        return cli_failed(cli);
    }
    cast_take(&chat->cast, session);
    chat->reply_speaker = chat_first_persona(chat);
    chat->session = session->id;
    chat->place = session->head;
    chat->reply = 0;
    chat->reply_opens_turn = true;
    chat->context_count = 0;
    session_print(chat);
    if (greeting_count > 0) {
        chat->reply = greetings[0].id;
        chat->reply_parent = greetings[0].parent;
        chat_node_print(chat, &greetings[0]);
    }
    return CLI_OK;
}

/* A session that is there goes on where its reader was, or at --at. */
static int chat_return(struct chat *chat)
{
    struct cli *cli = chat->cli;
    const int status = cast_read(cli, cli->session, &chat->cast);
    if (status != CLI_OK) {
        return status;
    }
    chat->session = cli->session;
    chat->reply_speaker = chat_first_persona(chat);
    chat->reply_opens_turn = true;
    if (personad_head(cli->client, chat->session, cli->has_position ? &cli->position : NULL,
                      &chat->place) != PERSONAD_OK) {
        return cli_failed(cli);
    }
    session_print(chat);
    return chat_recall(chat);
}

void chat_finish(struct chat *chat)
{
    free(chat->context);
    free(chat->prefill);
    for (size_t i = 0; i < chat->text_count; i++) {
        free(chat->texts[i]);
    }
    free(chat->texts);
    expand_shape_finish(&chat->expanded);
}

/* ---------------------------------------------------------------- input */

/* NULL at the end of input; an interrupted line comes back empty. The caller frees. */
static char *line_read(const struct chat *chat)
{
    if (!chat->is_terminal) {
        char *line = NULL;
        size_t capacity = 0;
        if (getline(&line, &capacity, stdin) < 0) {
            free(line);
            return NULL;
        }
        line[strcspn(line, "\n")] = '\0';
        return line;
    }
    interrupted = 0;
    char prompt[sizeof chat->cast.members[0].name + 2];
    (void)snprintf(prompt, sizeof prompt,
                   "%s: ", chat->cast.count > 0 ? chat->cast.members[0].name : "");
    char *line = readline(prompt);
    if (line == NULL && interrupted) {
        (void)fputc('\n', stdout);
        return calloc(1, 1);
    }
    if (line != NULL && line[0] != '\0') {
        (void)add_history(line);
    }
    return line;
}

struct personad_generation chat_generation(const struct chat *chat)
{
    struct personad_generation generation = cli_generation(chat->cli, chat->session);
    generation.n = 1;
    generation.context = true;
    generation.has_speaker = true;
    generation.speaker = chat->reply_speaker;
    if (chat->prefill != NULL) {
        generation.prefix = (struct personad_text){chat->prefill, strlen(chat->prefill)};
    }
    generation.numbers = chat->cli->json;
    generation.delivery = chat->cli->json ? PERSONAD_FINAL_ONLY : PERSONAD_EACH_TOKEN;
    return generation;
}

static int line_say(struct chat *chat, const char *line)
{
    const struct personad_text text = {line, strlen(line)};
    chat->reply_speaker = chat_first_persona(chat);
    struct personad_generation generation = chat_generation(chat);
    generation.position = &chat->place;
    return chat_follow(chat, personad_say(chat->cli->client, text, 0, &generation), false);
}

static int chat_loop(struct chat *chat)
{
    int status = chat->cli->session != 0 ? chat_return(chat) : chat_open(chat);
    while (status == CLI_OK && !chat->quit) {
        char *line = line_read(chat);
        if (line == NULL) {
            break;
        }
        if (line[0] == '/') {
            status = chat_command(chat, line);
        } else if (line[strspn(line, " \t")] != '\0') {
            status = line_say(chat, line);
        }
        free(line);
    }
    if (chat->is_terminal && chat->session != 0) {
        (void)printf("\n[kept as session %" PRIu64 "; --session %" PRIu64 " goes on there]\n",
                     chat->session, chat->session);
    }
    return status;
}

static int run(struct cli *cli, int argument_count, char **arguments)
{
    const int parsed = cli_parse(cli, &command_chat, argument_count, arguments, NULL);
    if (parsed != CLI_OK) {
        return parsed < 0 ? CLI_OK : parsed;
    }
    if (cli_has_extra(&command_chat, argument_count, arguments)) {
        return CLI_USAGE;
    }
    if (cli_lacks_session(cli)) {
        return CLI_USAGE;
    }
    if (cli->sampler.top_count < 0) {
        cli->sampler.top_count = 5; /* for /probs */
    }
    int status = cli_connect(cli);
    if (status != CLI_OK) {
        return status;
    }
    /* tidy: allow banned-call: the line editor must read what the terminal sends */
    (void)setlocale(LC_CTYPE, "");
    /* Without SA_RESTART, so that waiting for a token or a line ends. */
    const struct sigaction stop = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &stop, NULL);
    struct chat chat = {.cli = cli, .is_terminal = !cli->json && isatty(STDIN_FILENO) != 0};
    status = chat_loop(&chat);
    chat_finish(&chat);
    return status;
}

const struct cli_command command_chat = {
    .name = "chat",
    .usage = "[OPTIONS]",
    .summary = "hold a conversation with a persona",
    .help = "Ctrl-C stops a reply, Ctrl-D ends the chat. Lines that start with / are commands:\n"
            "/help lists them. With --json standard input is read the same way, and each greeting\n"
            "and reply is printed as one object, like those of persona say --json.",
    .takes = CLI_TAKES_PERSONA | CLI_TAKES_GENERATION | CLI_TAKES_SESSION,
    .run = run,
};
