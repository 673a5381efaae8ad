/* The commands of the chat that look at what a reply could have been. */
#include <inttypes.h>
#include <string.h>

#include "chat.h"

enum { DEPTH_DEFAULT = 6, WIDTH_DEFAULT = 3 };

/* "DEPTH WIDTH", either left out. */
static bool counts_parse(char *arguments, uint64_t *depth, uint64_t *width)
{
    uint64_t *const counts[] = {depth, width};
    size_t at = 0;
    for (char *rest = NULL, *word = strtok_r(arguments, " \t", &rest); word != NULL;
         word = strtok_r(NULL, " \t", &rest)) {
        if (at == 2 || !cli_parse_u64(word, UINT32_MAX, counts[at]) || *counts[at] == 0) {
            return false;
        }
        at++;
    }
    return true;
}

int chat_expand(struct chat *chat, char *arguments)
{
    uint64_t depth = DEPTH_DEFAULT, width = WIDTH_DEFAULT;
    struct personad_expansion seen;
    if (chat->reply == 0) {
        cli_complain("there is no reply yet");
        return CLI_OK;
    }
    if (!counts_parse(arguments, &depth, &width)) {
        cli_complain("/expand [DEPTH [WIDTH]]: two whole numbers, tokens and alternatives");
        return CLI_OK;
    }
    const struct personad_expand_options options = {
        .place = {.session = chat->session,
                  .position = &chat->reply_parent,
                  .has_speaker = chat->reply_opens_turn,
                  .speaker = chat->reply_speaker,
                  .continuing = !chat->reply_opens_turn},
        .depth = (uint32_t)depth,
        .width = (uint32_t)width,
    };
    if (personad_expand(chat->cli->client, &options, NULL, NULL, &seen) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    if (!expand_print(stdout, &seen) || !expand_shape_take(&chat->expanded, &seen)) {
        cli_complain("out of memory");
        return CLI_OK;
    }
    (void)puts("/keep PATH takes one of them as the reply.");
    return CLI_OK;
}

int chat_keep(struct chat *chat, char *arguments)
{
    const struct personad_node *node = NULL;
    const uint32_t number = expand_find(&chat->expanded, arguments);
    if (chat->expanded.parents == NULL || number == 0) {
        cli_complain("/keep PATH, such as 1.2: a path that /expand has shown last");
        return CLI_OK;
    }
    if (personad_keep(chat->cli->client, chat->expanded.id, number, &node) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    return chat_enter(chat, (struct personad_position){node->id, PERSONAD_END});
}
