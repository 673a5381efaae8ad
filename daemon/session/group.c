#include "session/group.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "session/answer.h"
#include "session/state.h"

static bool is_blank(uint8_t byte)
{
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Bytes of other scripts are neither: what they separate is not known here. */
static bool is_edge(uint8_t byte)
{
    const bool is_letter = (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
    const bool is_digit = byte >= '0' && byte <= '9';

    return byte < 0x80 && !is_letter && !is_digit;
}

enum status group_fold(struct bytes text, struct buffer *out)
{
    size_t begin = 0, end = text.size;

    while (begin < end && is_edge(text.data[begin])) {
        begin++;
    }
    while (end > begin && is_edge(text.data[end - 1])) {
        end--;
    }
    TRY(buffer_reserve(out, end - begin));
    for (size_t i = begin; i < end; i++) {
        const uint8_t byte = text.data[i];

        if (!is_blank(byte)) {
            out->data[out->size++] = byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte;
        } else if (!is_blank(text.data[i - 1])) {
            out->data[out->size++] = ' ';
        }
    }
    return STATUS_OK;
}

/* An answer, and what it is compared by. */
struct answer {
    const struct node *node;
    struct bytes text; /* in grouping.texts */
    uint32_t place;    /* among the nodes of the request */
};

struct grouping {
    struct answer *answers; /* owned */
    uint32_t count;
    struct buffer texts;              /* owned */
    uint64_t *nodes;                  /* owned; in the order of the answers */
    struct answer_group_view *groups; /* owned */
};

/* ---- which nodes ---- */

static enum status add(struct grouping *grouping, struct node *node, struct error *error)
{
    if (!node->is_finish_visible) {
        return error_set(error, STATUS_CONFLICT,
                         "node %llu is still being generated: group when it has ended",
                         (unsigned long long)node->id);
    }
    grouping->answers[grouping->count] = (struct answer){.node = node, .place = grouping->count};
    grouping->count++;
    return STATUS_OK;
}

static enum status room_for(struct grouping *grouping, uint32_t count, struct error *error)
{
    if (count == 0) {
        return error_set(error, STATUS_BAD_INPUT, "there are no answers here to group");
    }
    if (count > GROUP_NODE_COUNT_MAX) {
        return error_set_limit(error, "GROUP_NODE_COUNT_MAX", GROUP_NODE_COUNT_MAX,
                               "%u answers are more than one request groups", count);
    }
    grouping->answers = memory_alloc(count, sizeof(*grouping->answers));
    grouping->nodes = memory_alloc(count, sizeof(*grouping->nodes));
    grouping->groups = memory_alloc(count, sizeof(*grouping->groups));
    if (grouping->answers == NULL || grouping->nodes == NULL || grouping->groups == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while answers were grouped");
    }
    return STATUS_OK;
}

static bool hangs_at(const struct node *child, const struct place *place)
{
    return child->is_visible && !child->is_deleted && child->parent_offset == place->offset;
}

static enum status add_children(struct grouping *grouping, struct place place, struct error *error)
{
    const struct node_children *children = &place.node->children;
    uint32_t count = 0;

    for (uint32_t i = 0; i < children->count; i++) {
        count += hangs_at(children->items[i], &place);
    }
    TRY(room_for(grouping, count, error));
    for (uint32_t i = 0; i < children->count; i++) {
        if (hangs_at(children->items[i], &place)) {
            TRY(add(grouping, children->items[i], error));
        }
    }
    return STATUS_OK;
}

static enum status collect(struct store *store, const struct request *request,
                           struct grouping *grouping, struct error *error)
{
    const struct request_group *asked = &request->u.group;
    struct session *session = NULL;
    struct place place;

    TRY(state_session_open(store, asked->session, request->uid, error, &session));
    if (asked->node_count == 0) {
        TRY(state_place(store, session, asked->has_position, asked->position, error, &place));
        if (!asked->has_position && place.node->parent != NULL) {
            place = (struct place){place.node->parent, place.node->parent_offset};
        }
        return add_children(grouping, place, error);
    }
    TRY(room_for(grouping, asked->node_count, error));
    for (uint32_t i = 0; i < asked->node_count; i++) {
        struct node *node = NULL;

        TRY(state_node_open(store, asked->nodes[i], request->uid, error, &node));
        if (node->session != session) {
            return error_set(error, STATUS_BAD_INPUT, "node %llu is not in session %llu",
                             (unsigned long long)node->id, (unsigned long long)session->id);
        }
        TRY(add(grouping, node, error));
    }
    return STATUS_OK;
}

/* ---- folding and sorting ---- */

static enum status fold_all(struct grouping *grouping, struct error *error)
{
    enum status status = STATUS_OK;

    for (uint32_t i = 0; i < grouping->count && status == STATUS_OK; i++) {
        const struct node_view view = node_view_of(grouping->answers[i].node);
        const size_t before = grouping->texts.size;

        status = group_fold(bytes_of(view.text, view.text_bytes), &grouping->texts);
        grouping->answers[i].text = bytes_of(NULL, grouping->texts.size - before);
    }
    if (status == STATUS_LIMIT) {
        return error_set_limit(error, "GROUP_TEXT_BYTES_MAX", GROUP_TEXT_BYTES_MAX,
                               "the answers have more text than one request groups");
    }
    if (status != STATUS_OK) {
        return error_set(error, status, "out of memory while answers were grouped");
    }
    size_t at = 0;
    for (uint32_t i = 0; i < grouping->count; i++) {
        grouping->answers[i].text.data = grouping->texts.data + at;
        at += grouping->answers[i].text.size;
    }
    return STATUS_OK;
}

static int compare_texts(const void *a, const void *b)
{
    const struct answer *one = a, *other = b;
    const size_t least = one->text.size < other->text.size ? one->text.size : other->text.size;
    const int order = least == 0 ? 0 : memcmp(one->text.data, other->text.data, least);

    if (order != 0 || one->text.size != other->text.size) {
        return order != 0 ? order : (one->text.size > other->text.size) * 2 - 1;
    }
    return (one->place > other->place) - (one->place < other->place);
}

/* The largest first, then the text that came first. */
static int compare_groups(const void *a, const void *b)
{
    const struct answer_group_view *one = a, *other = b;

    if (one->node_count != other->node_count) {
        return one->node_count < other->node_count ? 1 : -1;
    }
    return (one->nodes > other->nodes) - (one->nodes < other->nodes);
}

/* ---- probabilities ---- */

static bool is_same_sequence(const struct node *a, const struct node *b)
{
    const uint32_t count = a->sampled->event.sampled_count;

    return b->sampled->event.sampled_count == count &&
           (count == 0 || memcmp(a->sampled->output.tokens, b->sampled->output.tokens,
                                 count * sizeof(uint32_t)) == 0);
}

/* Of different sequences of sampled tokens, each once. Groups are small or their texts short. */
static void sum_mass(const struct answer *answers, uint32_t count, struct answer_group_view *group)
{
    group->has_mass = true;
    for (uint32_t i = 0; i < count; i++) {
        const struct node *node = answers[i].node;
        bool is_new = true;
        double logprob = 0;

        if (node->sampled == NULL) {
            group->has_mass = false;
            return;
        }
        for (uint32_t k = 0; k < i && is_new; k++) {
            is_new = !is_same_sequence(node, answers[k].node);
        }
        for (uint32_t k = 0; is_new && k < node->sampled->event.sampled_count; k++) {
            logprob += (double)node->sampled->output.logprobs[k];
        }
        group->mass += is_new ? exp(logprob) : 0;
    }
}

static uint32_t make_groups(struct grouping *grouping, double *entropy)
{
    uint32_t group_count = 0;

    qsort(grouping->answers, grouping->count, sizeof(*grouping->answers), compare_texts);
    for (uint32_t first = 0, end = 0; first < grouping->count; first = end) {
        struct answer_group_view *group = &grouping->groups[group_count++];
        const struct bytes text = grouping->answers[first].text;

        while (end < grouping->count && bytes_equal(grouping->answers[end].text, text)) {
            grouping->nodes[end] = grouping->answers[end].node->id;
            end++;
        }
        *group = (struct answer_group_view){
            .text = text,
            .nodes = grouping->nodes + first,
            .node_count = end - first,
            .share = (double)(end - first) / grouping->count,
        };
        sum_mass(grouping->answers + first, end - first, group);
        *entropy -= group->share * log(group->share);
    }
    *entropy += 0.0; /* one group has 0, not -0 */
    qsort(grouping->groups, group_count, sizeof(*grouping->groups), compare_groups);
    return group_count;
}

void group_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct reply reply = {.type = REPLY_GROUP, .request = request->type};
    struct grouping grouping = {0};
    struct error error = {0};
    enum status status;

    buffer_init(&grouping.texts, GROUP_TEXT_BYTES_MAX);
    status = collect(store, request, &grouping, &error);
    if (status == STATUS_OK) {
        status = fold_all(&grouping, &error);
    }
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
    } else {
        reply.u.group.count = make_groups(&grouping, &reply.u.group.entropy);
        reply.u.group.groups = grouping.groups;
        store->settings.events.on_reply(store->settings.events.context, to, &reply, false);
    }
    memory_free(grouping.answers);
    memory_free(grouping.nodes);
    memory_free(grouping.groups);
    buffer_finish(&grouping.texts);
}
