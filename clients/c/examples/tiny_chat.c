/* A chat in a page: every line of standard input is said, every reply streams to standard
 * output.
 *
 *   cc tiny_chat.c $(pkg-config --cflags --libs personad_client) -o tiny_chat
 *   ./tiny_chat [PERSONA]
 */
#include <personad_client.h>
#include <stdio.h>
#include <string.h>

static int reply_print(personad_client *client)
{
    const struct personad_event *event = NULL;
    do {
        int code;
        do {
            code = personad_next(client, -1, &event);
        } while (code == PERSONAD_AGAIN); /* a signal came */
        if (code != PERSONAD_OK) {
            fprintf(stderr, "%s\n", personad_last_error(client)->text);
            return 1;
        }
        if (event->type == PERSONAD_EVENT_TOKENS) {
            fwrite(event->text.data, 1, event->text.size, stdout);
            fflush(stdout);
        } else if (event->type == PERSONAD_EVENT_ERROR) {
            fprintf(stderr, "%s\n", event->error.text);
        }
    } while (!event->last);
    puts("");
    return 0;
}

int main(int argument_count, char **arguments)
{
    struct personad_error error;
    personad_client *client = personad_connect(NULL, &error);
    const struct personad_open_options options = {
        .persona_name = argument_count > 1 ? arguments[1] : NULL,
    };
    const struct personad_session *session = NULL;
    if (client == NULL ||
        personad_session_open(client, &options, &session, NULL, NULL) != PERSONAD_OK) {
        fprintf(stderr, "%s\n", client == NULL ? error.text : personad_last_error(client)->text);
        personad_close(client);
        return 1;
    }
    const struct personad_generation generation = {.session = session->id};
    char line[4096];
    int failed = 0;
    while (!failed && fgets(line, sizeof line, stdin) != NULL) {
        const struct personad_text text = {line, strcspn(line, "\n")};
        failed = personad_say(client, text, 0, &generation) == 0;
        if (failed) {
            fprintf(stderr, "%s\n", personad_last_error(client)->text);
        } else {
            failed = reply_print(client);
        }
    }
    personad_close(client);
    return failed;
}
