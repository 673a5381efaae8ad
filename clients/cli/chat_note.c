/* The chat's command about notes. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chat.h"
#include "json.h"

enum { NOTE_DEPTH_DEFAULT = 4 };

/* In front of the reply that was made last, so that /again sees the note too. */
static struct personad_position note_place(const struct chat *chat)
{
    return chat->reply != 0 && chat->place.node == chat->reply ? chat->reply_parent : chat->place;
}

static int note_show(struct chat *chat)
{
    struct personad_note note;
    if (personad_note(chat->cli->client, chat->session, &chat->place, &note) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    if (chat->cli->json) {
        struct json json;
        json_start(&json, stdout);
        json_text(&json, "note", note.text);
        json_u64(&json, "depth", note.depth);
        json_u64(&json, "node", note.position.node);
        json_end(&json);
        return CLI_OK;
    }
    if (!note.is_there) {
        (void)puts("[no note; /note [DEPTH] TEXT sets one]");
        return CLI_OK;
    }
    cli_print_text(stdout, note.text);
    (void)printf("\n[%u turn%s back, set at node %" PRIu64 "]\n", note.depth,
                 note.depth == 1 ? "" : "s", note.position.node);
    return CLI_OK;
}

int chat_note(struct chat *chat, char *arguments)
{
    if (arguments[0] == '\0') {
        return note_show(chat);
    }
    uint64_t depth = NOTE_DEPTH_DEFAULT;
    char *text = arguments;
    const size_t word = strcspn(arguments, " \t");
    if (arguments[word] != '\0') {
        arguments[word] = '\0';
        if (cli_parse_u64(arguments, UINT32_MAX, &depth)) {
            text = arguments + word + 1;
            text += strspn(text, " \t");
        }
        arguments[word] = ' ';
    }
    const bool off = strcmp(arguments, "off") == 0;
    const struct personad_text note = {text, off ? 0 : strlen(text)};
    const struct personad_position place = note_place(chat);
    if (personad_note_set(chat->cli->client, chat->session, &place, note, (uint32_t)depth,
                          PERSONAD_AS_SYSTEM) != PERSONAD_OK) {
        return chat_refused(chat);
    }
    if (!chat->cli->json) {
        (void)puts(off ? "[no note from here on]" : "[noted; /note off takes it away]");
    }
    return CLI_OK;
}
