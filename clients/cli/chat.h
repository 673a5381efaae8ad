/* The chat: its state, what a reply does to it, and the commands that start with a slash.
 *
 * Thread: one. The place in the tree where the next turn goes is `place`; the daemon's head follows
 * it.
 */
#ifndef PERSONAD_CLIENTS_CLI_CHAT_H
#define PERSONAD_CLIENTS_CLI_CHAT_H

#include "cast.h"
#include "cli.h"
#include "expand.h"

struct chat {
    struct cli *cli;
    uint64_t session;
    struct personad_position place; /* where the next turn goes */
    uint64_t reply;                 /* the node shown last, 0: none */
    bool reply_opens_turn;          /* false: it goes on behind a prefix or a reply */
    char *prefill;                  /* owned: how the next reply begins; NULL: as it likes */
    char **texts;                   /* owned: what settings were given */
    size_t text_count;
    uint64_t going; /* the node that is being generated, 0: none */
    struct personad_position reply_parent;
    uint32_t *context; /* owned: ids that the model saw before that reply */
    size_t context_count;
    struct expand_shape expanded; /* owned: what /expand showed last */
    uint32_t reply_speaker;       /* whose that reply is */
    struct cast cast;
    bool is_terminal; /* standard input: prompts and line editing */
    bool quit;
};

/* Opens a session as the options say, prints who speaks and the greeting. */
int chat_open(struct chat *chat);
void chat_finish(struct chat *chat);

/* Streams the reply of chat->reply_speaker, moves the place behind it. Ctrl-C ends the reply at
 * what was shown. CLI_FAILED only when the connection is gone. */
int chat_follow(struct chat *chat, uint64_t request, bool continuing);

/* One reply of chat->reply_speaker, delivered as the options want it. */
struct personad_generation chat_generation(const struct chat *chat);

/* The one who answers what you say: the first persona. */
uint32_t chat_first_persona(const struct chat *chat);

bool chat_is_human(const struct chat *chat, uint32_t speaker);

/* Executes "/name arguments". CLI_FAILED only when the connection is gone. */
int chat_command(struct chat *chat, char *line);

/* Moves the place and tells the daemon. CLI_FAILED only when the connection is gone; the place
 * stays when the daemon refuses. */
int chat_move(struct chat *chat, struct personad_position place);

/* Moves there and shows where that is; a reply there becomes the current one. */
int chat_enter(struct chat *chat, struct personad_position place);

/* Shows the last turns on the way to the place; a reply there becomes the current one. */
int chat_recall(struct chat *chat);

/* Prints a node that is there already: a greeting, a sibling, the reply before. */
void chat_node_print(const struct chat *chat, const struct personad_node *node);

/* Complains about the last failed call. CLI_FAILED only when the connection is gone. */
int chat_refused(struct chat *chat);

/* The commands that are about places (chat_tree.c); as chat_command(). */
int chat_fork(struct chat *chat, char *arguments);
int chat_go(struct chat *chat, char *arguments);
int chat_back(struct chat *chat, char *arguments);
int chat_edit(struct chat *chat, char *arguments);
int chat_prefill(struct chat *chat, char *arguments);
int chat_as(struct chat *chat, char *arguments);
int chat_note(struct chat *chat, char *arguments);
int chat_save(struct chat *chat, char *arguments);
int chat_saved(struct chat *chat, char *arguments);

/* And those about what could have been said (chat_expand.c). */
int chat_expand(struct chat *chat, char *arguments);
int chat_keep(struct chat *chat, char *arguments);

/* Prints "Name: " in colour. */
void chat_name_print(const struct chat *chat, uint32_t speaker);

#endif
