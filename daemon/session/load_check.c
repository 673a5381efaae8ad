#include "session/load_check.h"

#include <string.h>

#include "session/context.h"

struct checking {
    const struct tokenizer *tokenizer;
    uint32_t vocabulary_count;
};

static bool fits(const struct checking *checking, const uint32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ids[i] >= checking->vocabulary_count) {
            return false;
        }
    }
    return true;
}

/* Whether the ids show exactly that text. */
static bool shows(const struct checking *checking, const uint32_t *ids, uint32_t count,
                  struct bytes text)
{
    size_t at = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct bytes bytes = tokenizer_token_bytes(checking->tokenizer, ids[i]);

        if (bytes.size > text.size - at ||
            (bytes.size > 0 && memcmp(text.data + at, bytes.data, bytes.size) != 0)) {
            return false;
        }
        at += bytes.size;
    }
    return at == text.size;
}

/* What each token shows: its bytes, or nothing where it ended the reply. */
static bool tokens_show(const struct checking *checking, const struct branch_output *output,
                        uint32_t count)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct bytes bytes = tokenizer_token_bytes(checking->tokenizer, output->tokens[i]);
        const uint32_t size = output->text_ends[i] - at; /* they ascend */
        const bool is_silent =
            size == 0 && tokenizer_is_end(checking->tokenizer, output->tokens[i]);

        if (!is_silent && (size != bytes.size ||
                           (size > 0 && memcmp(output->text + at, bytes.data, size) != 0))) {
            return false;
        }
        at = output->text_ends[i];
    }
    return true;
}

static bool tops_fit(const struct checking *checking, const struct branch_output *output,
                     uint32_t count)
{
    for (size_t i = 0; i < (size_t)count * output->top_count; i++) {
        if (output->tops[i].token >= checking->vocabulary_count) {
            return false;
        }
    }
    return true;
}

/* Segments of its own: those of its base are checked where that is first used. */
static bool context_fits(const struct checking *checking, const struct context *context)
{
    for (uint32_t i = 0; i < context->own_count; i++) {
        const struct segment *segment = &context->own[i];

        if (segment->kind != SEGMENT_PROMPT && segment->kind != SEGMENT_NODE &&
            !fits(checking, segment->ids, segment->count)) {
            return false;
        }
    }
    return context->token_count > 0;
}

static bool sampled_fits(const struct checking *checking, const struct node *node)
{
    const struct node_sampled *sampled = node->sampled;
    const struct branch_output *output = &sampled->output;
    const struct branch_event *event = &sampled->event;
    const uint32_t kept_bytes = event->kept == 0 ? 0 : output->text_ends[event->kept - 1];

    if (!fits(checking, output->tokens, event->sampled_count) ||
        !tops_fit(checking, output, event->sampled_count) ||
        !tokens_show(checking, output, event->sampled_count) ||
        !context_fits(checking, sampled->context) || sampled->room > CONTEXT_TOKEN_COUNT_MAX ||
        sampled->context->token_count > sampled->room ||
        event->sampled_count > sampled->room - sampled->context->token_count) {
        return false;
    }
    if (node->ids != NULL) {
        return fits(checking, node->ids, node->id_count) &&
               shows(checking, node->ids, node->id_count,
                     bytes_of(output->text, event->content_bytes));
    }
    return kept_bytes <= event->content_bytes;
}

static struct checking checking_of(const struct store *store)
{
    return (struct checking){
        .tokenizer = store->settings.tokenizer,
        .vocabulary_count = tokenizer_vocabulary(store->settings.tokenizer)->token_count,
    };
}

bool load_check_node(const struct store *store, const struct node *node)
{
    const struct checking checking = checking_of(store);

    if (node->is_purged) {
        return true;
    }
    if (node->sampled != NULL) {
        return sampled_fits(&checking, node);
    }
    return fits(&checking, node->ids, node->id_count) &&
           shows(&checking, node->ids, node->id_count, bytes_of(node->text, node->text_bytes));
}

static bool prompt_fits(const struct checking *checking, const struct prompt *prompt)
{
    if (!fits(checking, prompt->ids.ids, prompt->ids.count)) {
        return false;
    }
    for (uint32_t i = 0; i < prompt->persona->card->greeting_count; i++) {
        if (!fits(checking, prompt->greetings[i].ids, prompt->greetings[i].count)) {
            return false;
        }
    }
    return true;
}

bool load_check_prompts(const struct store *store, const struct session *session)
{
    const struct checking checking = checking_of(store);

    for (uint32_t i = 0; i < session->cast.count; i++) {
        const struct prompt *prompt = session->cast.members[i].prompt;

        if (prompt != NULL && !prompt_fits(&checking, prompt)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < session->cast.joint_count; i++) {
        if (!prompt_fits(&checking, session->cast.joints[i].prompt)) {
            return false;
        }
    }
    return true;
}
