/* The commands of the chat that start with a slash. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "options.h"
#include "outline.h"

enum { OUTLINE_CHILDREN = 12, PROBS_TOKEN_COUNT_MAX = 400 };

int chat_refused(struct chat *chat)
{
    (void)cli_failed(chat->cli);
    return personad_last_error(chat->cli->client)->code < 0 ? CLI_FAILED : CLI_OK;
}

static int nothing_yet(void)
{
    cli_complain("there is no reply yet");
    return CLI_OK;
}

static int on_again(struct chat *chat, char *arguments)
{
    (void)arguments;
    if (chat->reply == 0) {
        return nothing_yet();
    }
    struct personad_generation generation = chat_generation(chat);
    generation.position = &chat->reply_parent;
    const bool continuing = !chat->reply_opens_turn;
    generation.has_speaker = !continuing;
    if (continuing && chat->prefill == NULL) {
        generation.prefix = (struct personad_text){NULL, 0}; /* it stands there already */
    }
    return chat_follow(chat, personad_generate(chat->cli->client, continuing, &generation), false);
}

static int on_continue(struct chat *chat, char *arguments)
{
    (void)arguments;
    if (chat->reply == 0) {
        return nothing_yet();
    }
    struct personad_generation generation = chat_generation(chat);
    generation.position = &chat->place;
    generation.has_speaker = false; /* whose turn it is there */
    return chat_follow(chat, personad_generate(chat->cli->client, true, &generation), true);
}

/* Shows one node as the current reply and goes behind it. */
static int node_show(struct chat *chat, const struct personad_node *node, size_t at, size_t count)
{
    const struct personad_position place = {node->id, PERSONAD_END};
    chat->reply = node->id;
    chat->reply_parent = node->parent;
    chat->reply_opens_turn = node->opens_turn;
    chat->reply_speaker = node->speaker;
    chat->context_count = 0;
    if (!chat->cli->json) {
        (void)printf("[%zu of %zu] ", at + 1, count);
    }
    chat_node_print(chat, node);
    return chat_move(chat, place);
}

static bool same_place(struct personad_position a, struct personad_position b)
{
    return a.node == b.node && a.offset == b.offset;
}

/* step: +1 the next sibling, -1 the one before; round at the ends. */
static int sibling_show(struct chat *chat, int step)
{
    if (chat->reply == 0) {
        return nothing_yet();
    }
    const struct personad_walk_options options = {
        .session = chat->session,
        .position = &chat->reply_parent,
        .what = PERSONAD_CHILDREN,
        .text = true,
    };
    const struct personad_node *nodes = NULL;
    size_t count = 0;
    bool end = false;
    if (personad_walk(chat->cli->client, &options, &nodes, &count, &end) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    const struct personad_node **siblings = calloc(count + 1, sizeof(struct personad_node *));
    size_t sibling_count = 0;
    size_t at = 0;
    for (size_t i = 0; siblings != NULL && i < count; i++) {
        if (same_place(nodes[i].parent, chat->reply_parent)) {
            at = nodes[i].id == chat->reply ? sibling_count : at;
            siblings[sibling_count++] = &nodes[i];
        }
    }
    int status = CLI_OK;
    if (sibling_count < 2) {
        cli_complain("this reply has no siblings yet; /again makes one");
    } else {
        at = step > 0 ? (at + 1) % sibling_count : (at + sibling_count - 1) % sibling_count;
        status = node_show(chat, siblings[at], at, sibling_count);
    }
    free(siblings);
    return status;
}

static int on_next(struct chat *chat, char *arguments)
{
    (void)arguments;
    return sibling_show(chat, 1);
}

static int on_prev(struct chat *chat, char *arguments)
{
    (void)arguments;
    return sibling_show(chat, -1);
}

static int on_tree(struct chat *chat, char *arguments)
{
    (void)arguments;
    (void)outline_print(chat->cli, chat->session, 0, OUTLINE_CHILDREN, cli_columns(stdout));
    return personad_last_error(chat->cli->client)->code < 0 ? CLI_FAILED : CLI_OK;
}

/* ---------------------------------------------------------------- numbers */

/* Copies what a walk said, since asking for the texts of tokens ends its life. */
struct probs {
    uint32_t *tokens, *top_tokens;
    float *logprobs, *entropies, *top_logprobs;
    size_t count;
    uint32_t top_count;
};

static void probs_finish(struct probs *probs)
{
    free(probs->tokens);
    free(probs->top_tokens);
    free(probs->logprobs);
    free(probs->entropies);
    free(probs->top_logprobs);
}

static void *copy_of(const void *from, size_t bytes)
{
    void *copy = calloc(1, bytes + 1);
    if (copy != NULL && bytes > 0) {
        memcpy(copy, from, bytes);
    }
    return copy;
}

static bool probs_take(struct probs *probs, const struct personad_numbers *numbers)
{
    const size_t count =
        numbers->count < PROBS_TOKEN_COUNT_MAX ? numbers->count : PROBS_TOKEN_COUNT_MAX;
    const size_t top = count * numbers->top_count;
    probs->count = count;
    probs->top_count = numbers->top_count;
    probs->tokens = copy_of(numbers->tokens, count * sizeof(uint32_t));
    probs->logprobs = copy_of(numbers->logprobs, count * sizeof(float));
    probs->entropies = copy_of(numbers->entropies, count * sizeof(float));
    probs->top_tokens = copy_of(numbers->top_tokens, top * sizeof(uint32_t));
    probs->top_logprobs = copy_of(numbers->top_logprobs, top * sizeof(float));
    return probs->tokens != NULL && probs->logprobs != NULL && probs->entropies != NULL &&
           probs->top_tokens != NULL && probs->top_logprobs != NULL;
}

static bool token_print(struct chat *chat, uint32_t token, size_t columns)
{
    struct personad_text text = {NULL, 0};
    if (personad_detokenize(chat->cli->client, &token, 1, true, &text) != PERSONAD_OK) {
        return false;
    }
    (void)fputc('"', stdout);
    cli_print_line(stdout, text, columns);
    (void)fputc('"', stdout);
    return true;
}

static int probs_print(struct chat *chat, const struct probs *probs)
{
    for (size_t i = 0; i < probs->count; i++) {
        (void)printf("%5.1f%%  %4.2f nats  ", 100.0 * exp((double)probs->logprobs[i]),
                     (double)probs->entropies[i]);
        if (!token_print(chat, probs->tokens[i], 24)) {
            return chat_refused(chat);
        }
        for (uint32_t k = 0; k < probs->top_count; k++) {
            const size_t at = i * probs->top_count + k;
            (void)fputs(k == 0 ? "   of " : "  ", stdout);
            if (!token_print(chat, probs->top_tokens[at], 16)) {
                return chat_refused(chat);
            }
            (void)printf(" %.0f%%", 100.0 * exp((double)probs->top_logprobs[at]));
        }
        (void)fputc('\n', stdout);
    }
    return CLI_OK;
}

static int on_probs(struct chat *chat, char *arguments)
{
    (void)arguments;
    if (chat->reply == 0) {
        return nothing_yet();
    }
    const struct personad_position place = {chat->reply, PERSONAD_END};
    const struct personad_walk_options options = {
        .session = chat->session,
        .position = &place,
        .what = PERSONAD_NODE,
        .numbers = true,
    };
    const struct personad_node *nodes = NULL;
    size_t count = 0;
    bool end = false;
    if (personad_walk(chat->cli->client, &options, &nodes, &count, &end) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    if (count == 0 || nodes[0].numbers.count == 0) {
        cli_complain("this text was given, not sampled");
        return CLI_OK;
    }
    struct probs probs = {0};
    int status = CLI_OK;
    if (probs_take(&probs, &nodes[0].numbers)) {
        status = probs_print(chat, &probs);
    } else {
        cli_complain("out of memory");
    }
    probs_finish(&probs);
    return status;
}

static int on_raw(struct chat *chat, char *arguments)
{
    (void)arguments;
    if (chat->context_count == 0) {
        cli_complain("the context is known for the reply that was made last; say something first");
        return CLI_OK;
    }
    struct personad_text text;
    if (personad_detokenize(chat->cli->client, chat->context, chat->context_count, true, &text) !=
        PERSONAD_OK) {
        return chat_refused(chat);
    }
    cli_print_text(stdout, text);
    (void)printf("\n[%zu tokens]\n", chat->context_count);
    return CLI_OK;
}

/* ---------------------------------------------------------------- settings */

static int on_persona(struct chat *chat, char *arguments)
{
    if (arguments[0] == '\0') {
        cli_complain("/persona NAME opens a new session with that persona");
        return CLI_OK;
    }
    const char *before = chat->cli->persona;
    const size_t cast_count = chat->cli->cast_count;
    char *name = strdup(arguments);
    chat->cli->persona = name;
    chat->cli->cast_count = 0;
    const int status = chat_open(chat);
    chat->cli->persona = before;
    chat->cli->cast_count = cast_count;
    free(name);
    return status == CLI_OK || personad_last_error(chat->cli->client)->code > 0 ? CLI_OK
                                                                                : CLI_FAILED;
}

/* A copy that lives as long as the chat: settings borrow their texts. NULL without memory. */
static char *text_keep(struct chat *chat, const char *text)
{
    char **moved = realloc(chat->texts, (chat->text_count + 1) * sizeof *moved);
    if (moved == NULL) {
        return NULL;
    }
    chat->texts = moved;
    char *copy = strdup(text);
    if (copy != NULL) {
        chat->texts[chat->text_count++] = copy;
    }
    return copy;
}

static void settings_print(const struct chat *chat)
{
    (void)puts("/set KEY VALUE, KEY one of:");
    for (int i = 0; i < option_row_count; i++) {
        const char *given = chat->cli->given[i];
        if (option_rows[i].group != CLI_TAKES_GENERATION) {
            continue;
        }
        (void)printf("  %-20s %s", option_rows[i].name, option_rows[i].help);
        if (given[0] != '\0') {
            (void)fputs(" [now ", stdout);
            (void)cli_print_line(stdout, (struct personad_text){given, strlen(given)},
                                 CLI_GIVEN_BYTES_MAX + 1);
            (void)fputc(']', stdout);
        }
        (void)fputc('\n', stdout);
    }
}

/* The row of a setting, "_" being as good as "-"; -1: there is none. */
static int setting_find(char *name)
{
    for (char *at = strchr(name, '_'); at != NULL; at = strchr(at, '_')) {
        *at = '-';
    }
    for (int i = 0; i < option_row_count; i++) {
        if (option_rows[i].group == CLI_TAKES_GENERATION &&
            strcmp(option_rows[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static int on_set(struct chat *chat, char *arguments)
{
    char *value = arguments + strcspn(arguments, " \t");
    if (arguments[0] == '\0') {
        settings_print(chat);
        return CLI_OK;
    }
    if (*value != '\0') {
        *value++ = '\0';
        value += strspn(value, " \t");
    }
    const int row = setting_find(arguments);
    if (row < 0) {
        cli_complain("/set: '%s' is no key; /set alone lists them", arguments);
        return CLI_OK;
    }
    const char *kept = text_keep(chat, value);
    if (kept == NULL || !option_set(chat->cli, row, kept)) {
        cli_complain("%s: '%s' is no good value (%s)", option_rows[row].name, value,
                     option_rows[row].help);
    }
    return CLI_OK;
}

static int on_quit(struct chat *chat, char *arguments)
{
    (void)arguments;
    chat->quit = true;
    return CLI_OK;
}

static int on_help(struct chat *chat, char *arguments);

static const struct chat_row {
    const char *name, *help;
    int (*run)(struct chat *chat, char *arguments);
    bool for_people; /* prints what is no reply */
} rows[] = {
    {"as", "NAME [TEXT]: NAME says TEXT; alone: the model writes NAME's turn", chat_as, false},
    {"again", "another reply to the same turn", on_again, false},
    {"next", "the next of these replies", on_next, false},
    {"prev", "the one before", on_prev, false},
    {"back", "take back your last turn; nothing is lost, /tree shows it", chat_back, false},
    {"go", "NODE[:OFFSET] or NAME: to that place of the tree, or bookmark", chat_go, false},
    {"fork", "NODE[:OFFSET]: the same; alone it shows where you are", chat_fork, false},
    {"save", "NAME: put a bookmark here", chat_save, false},
    {"saved", "list the bookmarks", chat_saved, true},
    {"edit", "TEXT: this instead of your last turn, and a new reply to it", chat_edit, false},
    {"note", "[DEPTH] TEXT: the model reads it so many turns back; off; alone: show it", chat_note,
     false},
    {"prefill", "TEXT: the next reply begins so; alone: as it likes", chat_prefill, false},
    {"expand", "[DEPTH [WIDTH]]: what this reply could have been, as a tree", chat_expand, true},
    {"keep", "PATH: take one of these as the reply", chat_keep, false},
    {"continue", "let the reply go on", on_continue, false},
    {"tree", "draw this conversation with all its branches", on_tree, true},
    {"probs", "the reply token by token: probability, entropy, alternatives", on_probs, true},
    {"raw", "what the model saw before the reply, template and all", on_raw, true},
    {"persona", "NAME: open a new session with that persona", on_persona, false},
    {"set", "KEY VALUE: sampler settings; alone it lists them and what you set", on_set, false},
    {"help", "this list", on_help, true},
    {"quit", "end the chat (Ctrl-D does too)", on_quit, false},
};

static int on_help(struct chat *chat, char *arguments)
{
    (void)chat;
    (void)arguments;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        (void)printf("  /%-10s %s\n", rows[i].name, rows[i].help);
    }
    (void)puts("Ctrl-C stops a reply.");
    return CLI_OK;
}

int chat_command(struct chat *chat, char *line)
{
    char *name = line + 1;
    char *arguments = name + strcspn(name, " \t");
    if (*arguments != '\0') {
        *arguments++ = '\0';
        arguments += strspn(arguments, " \t");
    }
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].name, name) == 0 && rows[i].for_people && chat->cli->json) {
            cli_complain("/%s is for people, not with --json", name);
            return CLI_OK;
        }
        if (strcmp(rows[i].name, name) == 0) {
            return rows[i].run(chat, arguments);
        }
    }
    cli_complain("/%s is no command; /help lists them", name);
    return CLI_OK;
}
