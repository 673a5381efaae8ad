#include "session/inspect.h"

#include "base/memory.h"
#include "session/answer.h"

enum {
    /* Texts and ids of one page: half a frame, since an id takes at most five bytes there. */
    PAGE_BYTES_MAX = FRAME_BODY_BYTES_MAX / 2,
    ID_BYTES_MAX = 5,
    SEGMENT_BYTES_MAX = 48, /* beside its ids and text */
};

/* A joint prompt holds what all personas are told. */
bool inspect_may_see(const struct session *session, const struct prompt *prompt)
{
    const struct cast *cast = &session->cast;

    for (uint32_t i = 0; cast->mode == GROUP_JOINT && i < cast->count; i++) {
        const struct prompt *part = cast->members[i].prompt;

        if (part != NULL && part->persona->owner_uid != session->owner_uid &&
            !prompt_is_bare(part)) {
            return false;
        }
    }
    if (cast->mode == GROUP_JOINT) {
        return true;
    }
    return prompt->persona->owner_uid == session->owner_uid || prompt_is_bare(prompt);
}

/* The making of one page. */
struct inspecting {
    struct store *store;
    const struct request_context *asked;
    struct node *node;
    struct segment *segments;   /* owned: all of them */
    struct segment_view *views; /* owned */
    size_t *text_starts;        /* owned: in `text`, which moves while it grows */
    struct range_view *omitted; /* owned */
    struct buffer text;         /* owned */
    size_t bytes;
};

static enum context_part part_of(enum segment_kind kind)
{
    static const enum context_part parts[] = {
        [SEGMENT_PROMPT] = CONTEXT_PROMPT, [SEGMENT_NODE] = CONTEXT_NODE,
        [SEGMENT_FRAME] = CONTEXT_FRAME,   [SEGMENT_START] = CONTEXT_START,
        [SEGMENT_INSERT] = CONTEXT_INSERT,
    };

    return parts[kind];
}

static enum status show(struct inspecting *inspecting, const uint32_t *ids, uint32_t count)
{
    const struct tokenizer *tokenizer = inspecting->store->settings.tokenizer;

    for (uint32_t i = 0; i < count; i++) {
        struct bytes bytes = tokenizer_token_bytes(tokenizer, ids[i]);

        if (bytes.size == 0) {
            bytes = tokenizer_token_name(tokenizer, ids[i]);
        }
        TRY(buffer_append(&inspecting->text, bytes));
    }
    return STATUS_OK;
}

/* An insert may be the instruction after the history, so it is the persona's; a frame was that in
 * older journals. */
static bool is_hidden(const struct inspecting *inspecting, const struct segment *segment)
{
    const struct context *context = inspecting->node->sampled->context;

    return (segment->kind == SEGMENT_PROMPT || segment->kind == SEGMENT_FRAME ||
            segment->kind == SEGMENT_INSERT) &&
           !inspect_may_see(inspecting->node->session, context->prompt);
}

static enum status fill_segment(struct inspecting *inspecting, const struct segment *segment,
                                uint32_t at)
{
    struct segment_view *view = &inspecting->views[at];

    *view = (struct segment_view){
        .kind = part_of(segment->kind),
        .node = segment->kind == SEGMENT_NODE ? segment->node->id : 0,
        .from = segment->from,
        .count = segment->count,
        .is_hidden = is_hidden(inspecting, segment),
    };
    inspecting->bytes += SEGMENT_BYTES_MAX;
    inspecting->text_starts[at] = inspecting->text.size;
    if (view->is_hidden) {
        return STATUS_OK;
    }
    if (inspecting->asked->tokens) {
        view->ids = context_segment_ids(segment);
        inspecting->bytes += (size_t)segment->count * ID_BYTES_MAX;
    }
    if (inspecting->asked->text) {
        TRY(show(inspecting, context_segment_ids(segment), segment->count));
        view->text.size = inspecting->text.size - inspecting->text_starts[at];
        inspecting->bytes += view->text.size;
    }
    return STATUS_OK;
}

static enum status fill_segments(struct inspecting *inspecting, struct context_view *out)
{
    const struct request_context *asked = inspecting->asked;
    uint32_t at = asked->skip;

    while (at < out->segment_count && out->count < asked->count) {
        TRY(fill_segment(inspecting, &inspecting->segments[at], out->count));
        if (out->count > 0 && inspecting->bytes > PAGE_BYTES_MAX) {
            break;
        }
        out->count++;
        at++;
    }
    out->end = at >= out->segment_count;
    for (uint32_t i = 0; i < out->count; i++) {
        struct bytes *text = &inspecting->views[i].text;

        text->data = text->size > 0 ? inspecting->text.data + inspecting->text_starts[i] : NULL;
    }
    out->segments = inspecting->views;
    return STATUS_OK;
}

/* The window leaves out whole turns from the root side: all before the first node that is there. */
static enum status fill_omitted(struct inspecting *inspecting, struct context_view *out)
{
    struct node *node = inspecting->node;
    const struct place place = {node->parent, node->parent_offset};
    const struct node *first = NULL;
    struct tree_path path = {0};

    if (out->turns_left_out == 0 || inspecting->asked->skip > 0) {
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < out->segment_count && first == NULL; i++) {
        first = inspecting->segments[i].node;
    }
    TRY(tree_path_create(place, &path));
    for (uint32_t i = 0;
         i < path.count && path.steps[i].node != first && out->omitted_count < LIST_PAGE_COUNT_MAX;
         i++) {
        inspecting->omitted[out->omitted_count++] =
            (struct range_view){path.steps[i].node->id, 0, path.steps[i].count};
    }
    tree_path_finish(&path);
    out->omitted = inspecting->omitted;
    return STATUS_OK;
}

static enum status inspect(struct inspecting *inspecting, struct context_view *out)
{
    const struct context *context = inspecting->node->sampled->context;
    const struct cast *cast = &inspecting->node->session->cast;
    const struct prompt *viewer = cast->mode == GROUP_JOINT
                                      ? cast->members[cast_viewpoint(cast, context->speaker)].prompt
                                      : context->prompt;

    *out = (struct context_view){
        .segment_count = context_segment_count(context),
        .token_count = context->token_count,
        .speaker = context->speaker,
        .turns_left_out = context_turns_left_out(context),
        .persona = viewer->persona->id,
    };
    inspecting->segments = memory_alloc(out->segment_count, sizeof(*inspecting->segments));
    inspecting->views = memory_alloc(inspecting->asked->count, sizeof(*inspecting->views));
    inspecting->text_starts = memory_alloc(inspecting->asked->count, sizeof(size_t));
    inspecting->omitted = memory_alloc(LIST_PAGE_COUNT_MAX, sizeof(*inspecting->omitted));
    if (inspecting->segments == NULL || inspecting->views == NULL ||
        inspecting->text_starts == NULL || inspecting->omitted == NULL) {
        return STATUS_MEMORY;
    }
    context_segments(context, inspecting->segments);
    TRY(fill_segments(inspecting, out));
    return fill_omitted(inspecting, out);
}

static enum status find_node(struct store *store, const struct request *request,
                             struct error *error, struct node **out)
{
    struct node *node = NULL;

    TRY(state_node_open(store, request->u.context.node, request->uid, error, &node));
    if (node->sampled == NULL) {
        return error_set(error, STATUS_CONFLICT,
                         "node %llu was given, not sampled: no model saw anything before it",
                         (unsigned long long)node->id);
    }
    *out = node;
    return STATUS_OK;
}

void inspect_context(struct store *store, const struct request *request, struct reply_to to)
{
    struct inspecting inspecting = {.store = store, .asked = &request->u.context};
    struct reply reply = {.type = REPLY_CONTEXT, .request = request->type};
    struct error error = {0};
    enum status status;

    buffer_init(&inspecting.text, FRAME_BODY_BYTES_MAX);
    status = find_node(store, request, &error, &inspecting.node);
    if (status == STATUS_OK) {
        status = inspect(&inspecting, &reply.u.context);
        if (status == STATUS_LIMIT) {
            error_set_limit(&error, "FRAME_BODY_BYTES_MAX", FRAME_BODY_BYTES_MAX,
                            "the text of one segment does not fit a reply; ask for tokens only");
        } else if (status != STATUS_OK) {
            error_set(&error, status, "out of memory while a context was shown");
        }
    }
    if (status == STATUS_OK) {
        store->settings.events.on_reply(store->settings.events.context, to, &reply, false);
    } else {
        answer_error(store, to, request->type, &error);
    }
    memory_free(inspecting.segments);
    memory_free(inspecting.views);
    memory_free(inspecting.text_starts);
    memory_free(inspecting.omitted);
    buffer_finish(&inspecting.text);
}
