#include "reply.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"

struct replies {
    struct cli *cli;
    uint64_t session;
    uint32_t n;
    uint32_t *context; /* owned */
    size_t context_count;
    bool at_line_start;
    bool failed;
};

static void tops_print(struct json *json, const struct personad_numbers *numbers)
{
    json_list(json, "top");
    for (size_t i = 0; i < numbers->count; i++) {
        json_list(json, NULL);
        for (uint32_t k = 0; k < numbers->top_count; k++) {
            const size_t at = i * numbers->top_count + k;
            json_list(json, NULL);
            json_u64(json, NULL, numbers->top_tokens[at]);
            json_float(json, NULL, numbers->top_logprobs[at]);
            json_list_end(json);
        }
        json_list_end(json);
    }
    json_list_end(json);
}

void reply_print_json(uint64_t session, const struct personad_node *node, const uint32_t *context,
                      size_t context_count)
{
    struct json json;
    json_start(&json, stdout);
    json_u64(&json, "session", session);
    json_u64(&json, "node", node->id);
    json_u64(&json, "ordinal", node->ordinal);
    json_u64(&json, "seed", node->seed);
    json_ids(&json, "prompt_tokens", context, context_count);
    json_ids(&json, "tokens", node->numbers.tokens, node->numbers.count);
    json_floats(&json, "logprobs", node->numbers.logprobs, node->numbers.count);
    json_floats(&json, "entropies", node->numbers.entropies, node->numbers.count);
    tops_print(&json, &node->numbers);
    json_text(&json, "text", node->text);
    json_text_of(&json, "finish", personad_finish_name(node->finish));
    if (node->finish == PERSONAD_FINISH_FAILED) {
        json_text(&json, "error", node->error_text);
    }
    json_end(&json);
}

static void node_print(struct replies *replies, const struct personad_node *node)
{
    if (replies->cli->json) {
        reply_print_json(replies->session, node, replies->context, replies->context_count);
    } else if (replies->n > 1) {
        const char *bold = cli_has_colour(stdout) ? "\033[1m" : "";
        (void)printf("%s--- %u, %s%s\n", bold, node->ordinal, personad_finish_name(node->finish),
                     bold[0] != '\0' ? "\033[0m" : "");
        cli_print_text(stdout, node->text);
        (void)fputc('\n', stdout);
    } else if (!replies->at_line_start) {
        (void)fputc('\n', stdout);
    }
    (void)fflush(stdout);
    if (node->finish == PERSONAD_FINISH_INTERRUPTED) {
        replies->failed = true;
        cli_complain("the daemon stopped before the reply ended");
    }
    if (node->finish == PERSONAD_FINISH_FAILED) {
        replies->failed = true;
        cli_complain("the reply failed: %.*s", (int)node->error_text.size,
                     node->error_text.data != NULL ? node->error_text.data : "");
    }
}

static int context_keep(struct replies *replies, const struct personad_event *event)
{
    if (event->context_count == 0) {
        return CLI_OK;
    }
    uint32_t *copy = malloc(event->context_count * sizeof *copy);
    if (copy == NULL) {
        cli_complain("out of memory");
        return CLI_FAILED;
    }
    memcpy(copy, event->context, event->context_count * sizeof *copy);
    free(replies->context);
    replies->context = copy;
    replies->context_count = event->context_count;
    return CLI_OK;
}

static int event_take(struct replies *replies, const struct personad_event *event)
{
    switch (event->type) {
    case PERSONAD_EVENT_CREATED:
        return context_keep(replies, event);
    case PERSONAD_EVENT_TOKENS:
        cli_print_text(stdout, event->text);
        (void)fflush(stdout);
        if (event->text.size > 0) {
            replies->at_line_start = event->text.data[event->text.size - 1] == '\n';
        }
        return CLI_OK;
    case PERSONAD_EVENT_FINISHED:
        node_print(replies, &event->nodes[0]);
        return CLI_OK;
    case PERSONAD_EVENT_ERROR:
        cli_complain("%s", event->error.text);
        return CLI_FAILED;
    default:
        return CLI_OK;
    }
}

int reply_follow(struct cli *cli, uint64_t session, uint64_t request, uint32_t n)
{
    struct replies replies = {.cli = cli, .session = session, .n = n, .at_line_start = true};
    int status = request == 0 ? cli_failed(cli) : CLI_OK;
    bool last = false;
    while (status == CLI_OK && !last) {
        const struct personad_event *event = NULL;
        const int code = personad_next(cli->client, -1, &event);
        if (code == PERSONAD_AGAIN) {
            continue; /* stopped and resumed */
        }
        if (code != PERSONAD_OK) {
            status = cli_failed(cli);
            break;
        }
        if (event->request == request) {
            last = event->last;
            status = event_take(&replies, event);
        }
    }
    free(replies.context);
    return status == CLI_OK && replies.failed ? CLI_FAILED : status;
}
