#include "session/edit.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/change.h"

/* The making of one edited node. */
struct editing {
    struct store *store;
    const struct request_edit *asked;
    struct node *node;
    const uint32_t *ids; /* borrowed: its content as it is now */
    uint32_t count;
    struct bytes text;     /* borrowed */
    uint32_t prefix_count; /* tokens that stay in front */
    uint32_t suffix_first; /* tokens from here on stay behind */
    uint32_t middle_count; /* tokens in between, after the edit */
    struct id_list made;   /* owned */
    struct error *error;
};

static struct bytes part(struct bytes text, size_t from, size_t to)
{
    return bytes_of(text.data + from, to - from);
}

/* The range in bytes becomes one in tokens; *left and *right are what the cut tokens show outside
 * of it. */
static void cut(struct editing *editing, uint32_t from, uint32_t to, struct bytes *left,
                struct bytes *right)
{
    const struct tokenizer *tokenizer = editing->store->settings.tokenizer;
    size_t at = 0;
    uint32_t i = 0;

    while (i < editing->count) {
        const size_t size = tokenizer_token_bytes(tokenizer, editing->ids[i]).size;

        if (at + size > from) {
            break;
        }
        at += size;
        i++;
    }
    editing->prefix_count = i;
    *left = part(editing->text, at, from);
    while (i < editing->count && at < to) {
        at += tokenizer_token_bytes(tokenizer, editing->ids[i]).size;
        i++;
    }
    editing->suffix_first = i;
    *right = part(editing->text, to, at > to ? at : to);
}

/* Bytes that a cut token leaves may be no characters: those enter by merges only. */
static enum status encode(struct editing *editing, struct bytes left, struct bytes right)
{
    struct encoder *encoder = &editing->store->encoder;
    struct buffer middle;
    enum status status;

    buffer_init(&middle, TEXT_BYTES_MAX + 2 * (size_t)TOKEN_BYTES_MAX);
    status = buffer_append(&middle, left);
    if (status == STATUS_OK) {
        status = buffer_append(&middle, editing->asked->text);
    }
    if (status == STATUS_OK) {
        status = buffer_append(&middle, right);
    }
    if (status != STATUS_OK) {
        error_set(editing->error, status, "out of memory while a text was edited");
    } else if (middle.size > 0 && utf8_is_valid(buffer_bytes(&middle))) {
        status =
            encoder_text(encoder, buffer_bytes(&middle), false, editing->error, &editing->made);
    } else if (middle.size > 0) {
        status = encoder_bytes(encoder, buffer_bytes(&middle), &editing->made);
        if (status != STATUS_OK) {
            error_set(editing->error, status,
                      "the range cuts a character, and what is left of it has no tokens");
        }
    }
    buffer_finish(&middle);
    return status;
}

static enum status make_ids(struct editing *editing)
{
    const struct request_edit *asked = editing->asked;
    const uint32_t size = (uint32_t)editing->text.size;
    const uint32_t to = asked->to_byte == OFFSET_END ? size : asked->to_byte;
    struct bytes left, right;

    if (asked->from_byte > to || to > size) {
        return error_set(editing->error, STATUS_BAD_INPUT,
                         "bytes %u to %u are no range of the %u bytes of node %llu",
                         asked->from_byte, to, size, (unsigned long long)editing->node->id);
    }
    cut(editing, asked->from_byte, to, &left, &right);
    if (id_list_append(&editing->made, editing->ids, editing->prefix_count) != STATUS_OK) {
        return error_set(editing->error, STATUS_MEMORY, "out of memory while a text was edited");
    }
    TRY(encode(editing, left, right));
    editing->middle_count = editing->made.count - editing->prefix_count;
    if (id_list_append(&editing->made, editing->ids + editing->suffix_first,
                       editing->count - editing->suffix_first) != STATUS_OK) {
        return error_set(editing->error, STATUS_MEMORY, "out of memory while a text was edited");
    }
    if (editing->made.count == 0) {
        return error_set(editing->error, STATUS_BAD_INPUT,
                         "nothing would be left of node %llu; delete it instead",
                         (unsigned long long)editing->node->id);
    }
    return STATUS_OK;
}

static enum status give(struct change *change, const struct node *original, struct place *place,
                        const uint32_t *ids, uint32_t count)
{
    const struct change_given given = {
        .place = *place,
        .speaker = original->speaker,
        .opens_turn = original->opens_turn,
        .original = original->id,
        .ids = ids,
        .count = count,
    };

    return change_give(change, &given, place);
}

/* ---- the path below ---- */

/* Where the path leaves the edited node, or an error when that is before the edit. */
static enum status map_offset(const struct editing *editing, uint32_t offset, uint32_t *out)
{
    const uint32_t end = editing->prefix_count + editing->middle_count;

    if (offset >= editing->suffix_first) {
        *out = end + (offset - editing->suffix_first);
        return STATUS_OK;
    }
    if (offset > editing->prefix_count) {
        *out = end;
        return STATUS_OK;
    }
    return error_set(editing->error, STATUS_CONFLICT,
                     "the path to carry leaves node %llu before the edited bytes",
                     (unsigned long long)editing->node->id);
}

static uint32_t find_step(const struct tree_path *path, const struct node *node)
{
    uint32_t at = 0;

    while (at < path->count && path->steps[at].node != node) {
        at++;
    }
    return at;
}

/* steps: those below the edited node. Only what lies on the path is attached again. */
static enum status carry(const struct editing *editing, struct change *change,
                         const struct tree_step *steps, uint32_t count, struct place place)
{
    if (count > 0) {
        TRY(map_offset(editing, steps[0].node->parent_offset, &place.offset));
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t content_count = 0;
        const uint32_t *ids = node_content(steps[i].node, &content_count);

        CHECK(steps[i].count <= content_count);
        TRY(give(change, steps[i].node, &place, ids, steps[i].count));
    }
    return STATUS_OK;
}

/* ---- the request ---- */

static enum status collect(struct editing *editing, struct change *change, struct place until)
{
    struct place place = {editing->node->parent, editing->node->parent_offset};
    struct tree_path path = {0};
    enum status status;
    uint32_t at = 0;

    if (tree_path_create(until, &path) != STATUS_OK) {
        return error_set(editing->error, STATUS_MEMORY, "out of memory while a text was edited");
    }
    at = find_step(&path, editing->node);
    if (editing->asked->carry && editing->asked->has_until && at == path.count) {
        status = error_set(editing->error, STATUS_BAD_INPUT,
                           "the position to carry until does not lie below node %llu",
                           (unsigned long long)editing->node->id);
    } else {
        const uint32_t below = editing->asked->carry && at < path.count ? path.count - at - 1 : 0;

        status =
            change_init(change, editing->store, editing->node->session, below + 1, editing->error);
        if (status == STATUS_OK) {
            status = give(change, editing->node, &place, editing->made.ids, editing->made.count);
        }
        if (status == STATUS_OK) {
            status = carry(editing, change, path.steps + at + 1, below, place);
        }
    }
    tree_path_finish(&path);
    return status;
}

static enum status execute(struct store *store, const struct request *request, struct reply_to to,
                           struct change *change, struct editing *editing)
{
    const struct request_edit *asked = editing->asked;
    struct change_answer answer = {
        .to = to, .type = request->type, .uid = request->uid, .key = request->client_key};
    struct session *session;
    struct place until;

    TRY(state_node_open(store, asked->node, request->uid, editing->error, &editing->node));
    session = editing->node->session;
    TRY(state_place(store, session, true, (struct position){asked->node, 0}, editing->error,
                    &until)); /* refuses what is deleted */
    TRY(state_place(store, session, asked->has_until, asked->until, editing->error, &until));
    editing->ids = node_content(editing->node, &editing->count);
    editing->text = node_text_until(editing->node, OFFSET_END, store->settings.tokenizer);
    TRY(make_ids(editing));
    TRY(collect(editing, change, until));
    answer.head = change->nodes[change->count - 1];
    TRY(change_commit(change, &answer));
    session->head = answer.head;
    session->head_offset = OFFSET_END;
    return STATUS_OK;
}

void edit_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct change change = {0};
    struct error error = {0};
    struct editing editing = {.store = store, .asked = &request->u.edit, .error = &error};
    const enum status status = execute(store, request, to, &change, &editing);

    change_finish(&change);
    id_list_finish(&editing.made);
    if (status != STATUS_OK) {
        CHECK(error.status == status);
        answer_error(store, to, request->type, &error);
    }
}
