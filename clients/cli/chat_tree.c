/* The commands of the chat that are about places: where one is, moving, editing, bookmarks. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"

enum { RECALL_COUNT = 4 }; /* nodes that are shown where a conversation goes on */

static struct personad_text text_of_string(const char *string)
{
    return (struct personad_text){string, strlen(string)};
}

/* *out: the node at the place, NULL at the root; valid until the next call. */
static int node_at(struct chat *chat, struct personad_position place, bool content,
                   const struct personad_node **out)
{
    *out = NULL;
    if (place.node == 0) {
        return PERSONAD_OK;
    }
    const struct personad_walk_options options = {
        .session = chat->session,
        .position = &place,
        .what = PERSONAD_NODE,
        .text = true,
        .content = content,
    };
    size_t count = 0;
    bool end = false;
    const struct personad_node *nodes = NULL;
    const int code = personad_walk(chat->cli->client, &options, &nodes, &count, &end);
    *out = code == PERSONAD_OK && count > 0 ? &nodes[0] : NULL;
    return code;
}

/* The node's name and what it shows up to the offset. */
static int part_print(const struct chat *chat, const struct personad_node *node, uint32_t offset)
{
    chat_name_print(chat, node->speaker);
    if (offset >= node->content_tokens || node->content_count < offset) {
        cli_print_text(stdout, node->text);
        return PERSONAD_OK;
    }
    /* Copied, since asking for the text ends the life of the walk. */
    uint32_t *tokens = calloc((size_t)offset + 1, sizeof *tokens);
    int code = PERSONAD_OUT_OF_MEMORY;
    struct personad_text text = {NULL, 0};
    if (tokens != NULL) {
        if (offset > 0) {
            memcpy(tokens, node->content, offset * sizeof *tokens);
        }
        code = offset == 0 ? PERSONAD_OK
                           : personad_detokenize(chat->cli->client, tokens, offset, false, &text);
    }
    if (code == PERSONAD_OK) {
        cli_print_text(stdout, text);
    }
    free(tokens);
    return code;
}

/* What the node shows up to the place, then where that is. */
static int place_print(const struct chat *chat, const struct personad_node *node)
{
    const uint32_t offset = chat->place.offset;
    const uint64_t id = node->id;
    const uint32_t token_count = node->content_tokens;
    const int code = part_print(chat, node, offset);
    if (code == PERSONAD_OK && offset >= token_count) {
        (void)printf("\n[at node %" PRIu64 ", its end]\n", id);
    } else if (code == PERSONAD_OK) {
        (void)printf("\n[at node %" PRIu64 ", token %u of %u]\n", id, offset, token_count);
    }
    return code;
}

/* Shows where one is; a reply there becomes the current one. */
static int place_show(struct chat *chat)
{
    const struct personad_node *node = NULL;
    if (node_at(chat, chat->place, true, &node) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    chat->context_count = 0;
    chat->reply = 0;
    if (node == NULL) {
        if (!chat->cli->json) {
            (void)puts("[at the root, before everything]");
        }
        return CLI_OK;
    }
    if (!chat_is_human(chat, node->speaker)) {
        chat->reply_speaker = node->speaker;
        chat->reply = node->id;
        chat->reply_parent = node->parent;
        chat->reply_opens_turn = node->opens_turn;
    }
    if (chat->cli->json) {
        chat_node_print(chat, node);
        return CLI_OK;
    }
    return place_print(chat, node) == PERSONAD_OK ? CLI_OK : chat_refused(chat);
}

int chat_enter(struct chat *chat, struct personad_position place)
{
    if (personad_head(chat->cli->client, chat->session, &place, &chat->place) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    return place_show(chat);
}

int chat_recall(struct chat *chat)
{
    struct personad_position places[RECALL_COUNT];
    struct personad_position place = chat->place;
    const struct personad_node *node = NULL;
    size_t count = 0;
    while (!chat->cli->json && place.node != 0 && count < RECALL_COUNT) {
        if (node_at(chat, place, false, &node) != PERSONAD_OK || node == NULL) {
            return chat_refused(chat);
        }
        places[count++] = place;
        place = node->parent;
    }
    for (; count > 1; count--) {
        if (node_at(chat, places[count - 1], true, &node) != PERSONAD_OK || node == NULL ||
            part_print(chat, node, places[count - 1].offset) != PERSONAD_OK) {
            return chat_refused(chat);
        }
        (void)fputc('\n', stdout);
    }
    return place_show(chat);
}

/* Looks through all pages. False with *code not OK: the daemon refused. */
static bool bookmark_find(struct chat *chat, const char *name, struct personad_position *out,
                          int *code)
{
    const size_t size = strlen(name);
    uint32_t skip = 0;
    bool end = false;
    *code = PERSONAD_OK;
    while (!end) {
        const struct personad_bookmark *marks = NULL;
        size_t count = 0;
        *code =
            personad_bookmark_list(chat->cli->client, chat->session, skip, &marks, &count, &end);
        if (*code != PERSONAD_OK) {
            return false;
        }
        for (size_t i = 0; i < count; i++) {
            if (marks[i].name.size == size && memcmp(marks[i].name.data, name, size) == 0) {
                *out = marks[i].position;
                return true;
            }
        }
        skip += (uint32_t)count;
    }
    return false;
}

int chat_go(struct chat *chat, char *arguments)
{
    struct personad_position place = {0, PERSONAD_END};
    if (arguments[0] == '\0') {
        cli_complain("/go NODE[:OFFSET] or the name of a bookmark; /tree and /saved show them");
        return CLI_OK;
    }
    if (cli_parse_position(arguments, &place)) {
        return chat_enter(chat, place);
    }
    int code = PERSONAD_OK;
    if (bookmark_find(chat, arguments, &place, &code)) {
        return chat_enter(chat, place);
    }
    if (code != PERSONAD_OK) {
        return chat_refused(chat);
    }
    cli_complain("/go: '%s' is neither NODE[:OFFSET] nor a bookmark; /saved lists those",
                 arguments);
    return CLI_OK;
}

int chat_fork(struct chat *chat, char *arguments)
{
    struct personad_position place = {0, PERSONAD_END};
    if (arguments[0] == '\0') {
        return place_show(chat);
    }
    if (!cli_parse_position(arguments, &place)) {
        cli_complain("/fork: '%s' is no NODE[:OFFSET]; /tree shows the nodes", arguments);
        return CLI_OK;
    }
    return chat_enter(chat, place);
}

/* ---------------------------------------------------------------- bookmarks */

int chat_save(struct chat *chat, char *arguments)
{
    struct personad_position place = {0, PERSONAD_END};
    if (arguments[0] == '\0' || cli_parse_position(arguments, &place)) {
        cli_complain("/save NAME puts a bookmark here; a name is no number, /go takes those for "
                     "nodes");
        return CLI_OK;
    }
    if (personad_bookmark(chat->cli->client, chat->session, text_of_string(arguments),
                          &chat->place) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    if (!chat->cli->json) {
        (void)printf("[saved; /go %s comes back here]\n", arguments);
    }
    return CLI_OK;
}

int chat_saved(struct chat *chat, char *arguments)
{
    (void)arguments;
    uint32_t skip = 0;
    bool end = false;
    while (!end) {
        const struct personad_bookmark *marks = NULL;
        size_t count = 0;
        if (personad_bookmark_list(chat->cli->client, chat->session, skip, &marks, &count, &end) !=
            PERSONAD_OK) {
            return chat_refused(chat);
        }
        for (size_t i = 0; i < count; i++) {
            (void)fputs("  ", stdout);
            cli_print_line(stdout, marks[i].name, 40);
            (void)printf("  at node %" PRIu64 ", token %u\n", marks[i].position.node,
                         marks[i].position.offset);
        }
        skip += (uint32_t)count;
    }
    if (skip == 0) {
        (void)puts("[no bookmarks; /save NAME makes one]");
    }
    return CLI_OK;
}

/* ---------------------------------------------------------------- other words */

/* *out: the node that opens the user's last turn, 0: there is none. */
static int user_turn_find(struct chat *chat, uint64_t *out)
{
    struct personad_position place = chat->place;
    *out = 0;
    while (place.node != 0) {
        const struct personad_node *node = NULL;
        const int code = node_at(chat, place, false, &node);
        if (code != PERSONAD_OK || node == NULL) {
            return code;
        }
        if (chat_is_human(chat, node->speaker) && node->opens_turn) {
            *out = node->id;
            return PERSONAD_OK;
        }
        place = node->parent;
    }
    return PERSONAD_OK;
}

/* To before that turn: behind the reply that stood there. */
int chat_back(struct chat *chat, char *arguments)
{
    (void)arguments;
    const struct personad_node *node = NULL;
    uint64_t turn = 0;
    if (user_turn_find(chat, &turn) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    if (turn == 0) {
        cli_complain("this is the beginning");
        return CLI_OK;
    }
    if (node_at(chat, (struct personad_position){turn, PERSONAD_END}, false, &node) !=
            PERSONAD_OK ||
        node == NULL) {
        return chat_refused(chat);
    }
    if (!chat->cli->json) {
        (void)fputs("Taken back: ", stdout);
        (void)cli_print_line(stdout, node->text, 70);
        (void)fputc('\n', stdout);
    }
    return chat_enter(chat, node->parent);
}

int chat_edit(struct chat *chat, char *arguments)
{
    if (arguments[0] == '\0') {
        cli_complain("/edit TEXT puts TEXT in the place of your last turn");
        return CLI_OK;
    }
    uint64_t turn = 0;
    if (user_turn_find(chat, &turn) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    if (turn == 0) {
        cli_complain("you said nothing yet that could be edited");
        return CLI_OK;
    }
    const struct personad_edit_options options = {
        .node = turn,
        .to_byte = PERSONAD_END,
        .text = text_of_string(arguments),
        .carry = chat->place.node != turn,
        .until = chat->place.node != turn ? &chat->place : NULL,
    };
    const struct personad_node *nodes = NULL;
    size_t count = 0;
    if (personad_edit(chat->cli->client, &options, &nodes, &count) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    const struct personad_position edited = {count > 0 ? nodes[0].id : 0, PERSONAD_END};
    chat->reply_speaker = chat_first_persona(chat);
    struct personad_generation generation = chat_generation(chat);
    generation.position = &edited;
    return chat_follow(chat, personad_generate(chat->cli->client, false, &generation), false);
}

int chat_prefill(struct chat *chat, char *arguments)
{
    free(chat->prefill);
    chat->prefill = arguments[0] != '\0' ? strdup(arguments) : NULL;
    if (arguments[0] != '\0' && chat->prefill == NULL) {
        cli_complain("out of memory");
    }
    return CLI_OK;
}

/* ---------------------------------------------------------------- other speakers */

static int text_give(struct chat *chat, uint32_t speaker, const char *text)
{
    const struct personad_append_options options = {
        .session = chat->session,
        .position = &chat->place,
        .speaker = speaker,
        .text = text_of_string(text),
    };
    const struct personad_node *node = NULL;
    if (personad_append(chat->cli->client, &options, &node) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    chat->place = (struct personad_position){node->id, PERSONAD_END};
    return CLI_OK;
}

int chat_as(struct chat *chat, char *arguments)
{
    const char *text = NULL;
    uint32_t speaker = 0;
    if (arguments[0] == '\0') {
        cli_complain("/as NAME TEXT says TEXT as NAME; /as NAME lets the model write NAME's turn");
        return CLI_OK;
    }
    if (!cast_find(&chat->cast, arguments, &speaker, &text)) {
        return CLI_OK;
    }
    if (text[0] != '\0') {
        return text_give(chat, speaker, text);
    }
    chat->reply_speaker = speaker;
    struct personad_generation generation = chat_generation(chat);
    generation.position = &chat->place;
    return chat_follow(chat, personad_generate(chat->cli->client, false, &generation), false);
}
