#include "session/answer.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/context.h"
#include "session/inspect.h"

static void send(struct store *store, struct reply_to to, const struct reply *reply, bool more)
{
    store->settings.events.on_reply(store->settings.events.context, to, reply, more);
}

void answer_error(struct store *store, struct reply_to to, enum request_type type,
                  const struct error *error)
{
    const struct reply reply = {.type = REPLY_ERROR, .request = type, .error = *error};

    send(store, to, &reply, false);
}

static void answer_memory(struct store *store, struct reply_to to, enum request_type type)
{
    struct error error = {0};

    error_set(&error, STATUS_MEMORY, "out of memory while an answer was made");
    answer_error(store, to, type, &error);
}

void answer_done(struct store *store, struct reply_to to, enum request_type type)
{
    const struct reply reply = {.type = REPLY_DONE, .request = type};

    send(store, to, &reply, false);
}

void answer_head(struct store *store, struct reply_to to, struct position head)
{
    const struct reply reply = {.type = REPLY_HEAD, .request = REQUEST_HEAD, .u.head = head};

    send(store, to, &reply, false);
}

void answer_persona(struct store *store, struct reply_to to, enum request_type type, uint32_t uid,
                    const struct persona *persona)
{
    struct reply reply = {.type = REPLY_PERSONA, .request = type};

    reply.u.persona.persona = persona_view_of(persona);
    if (persona->owner_uid == uid) {
        reply.u.persona.card = persona->card->json;
    }
    send(store, to, &reply, false);
}

/* ---- sessions ---- */

void answer_fill_session(const struct session *session, struct cast_view *cast,
                         struct session_view *out)
{
    for (uint32_t i = 0; i < session->cast.count; i++) {
        const struct cast_member *member = &session->cast.members[i];

        cast[i] = (struct cast_view){
            .speaker = i,
            .name = member->name,
            .persona = member->prompt != NULL ? member->prompt->persona->id : 0,
        };
    }
    *out = (struct session_view){
        .id = session->id,
        .seed = session->seed,
        .created_us = session->created_us,
        .owner_uid = session->owner_uid,
        .context_tokens = session->context_tokens,
        .node_count = session->node_count,
        .label = bytes_of(session->label, session->label_bytes),
        .cast = cast,
        .cast_count = session->cast.count,
        .group_mode = session->cast.mode,
        .is_deleted = session->is_deleted,
    };
    if (session->residence != SESSION_RESIDENT || session->head->is_visible) {
        out->head = state_head_position(session);
    }
}

void answer_session(struct store *store, struct reply_to to, enum request_type type,
                    struct session *session)
{
    struct reply reply = {.type = REPLY_SESSION, .request = type};
    struct cast_view cast[SESSION_CAST_COUNT_MAX];
    const struct node_children *children = &session->root.children;
    struct node_view *views = memory_alloc(children->count, sizeof(*views));
    uint32_t count = 0;

    if (views == NULL) {
        answer_memory(store, to, type);
        return;
    }
    for (uint32_t i = 0; i < children->count; i++) {
        const struct node *child = children->items[i];

        if (type == REQUEST_SESSION_OPEN && child->is_greeting && child->is_visible &&
            !child->is_purged) {
            views[count++] = node_view_of(child);
        }
    }
    answer_fill_session(session, cast, &reply.u.session.session);
    reply.u.session.greetings = views;
    reply.u.session.greeting_count = count;
    send(store, to, &reply, false);
    memory_free(views);
}

/* ---- created nodes ---- */

/* The context's ids one after another. NULL when memory is short. */
static uint32_t *flatten(const struct context *context)
{
    const uint32_t count = context_segment_count(context);
    struct segment *segments = memory_alloc(count, sizeof(*segments));
    uint32_t *ids = memory_alloc(context->token_count, sizeof(*ids));
    uint32_t at = 0;

    if (segments == NULL || ids == NULL) {
        memory_free(segments);
        memory_free(ids);
        return NULL;
    }
    context_segments(context, segments);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(ids + at, context_segment_ids(&segments[i]), segments[i].count * sizeof(*ids));
        at += segments[i].count;
    }
    CHECK(at == context->token_count);
    memory_free(segments);
    return ids;
}

static void follow_created(struct store *store, const struct pending *pending, uint64_t *ids)
{
    struct follow follow = {
        .nodes = ids, .delivery = pending->delivery, .numbers = pending->numbers};

    for (uint32_t i = 0; i < pending->node_count; i++) {
        if (pending->nodes[i]->sampled != NULL) {
            ids[follow.node_count++] = pending->nodes[i]->id;
        }
    }
    store->settings.events.on_follow(store->settings.events.context, pending->to, &follow);
}

void answer_created(struct store *store, const struct pending *pending)
{
    const uint32_t count = pending->node_count;
    const struct node *last = pending->nodes[count - 1];
    const bool is_stream = last->sampled != NULL && pending->delivery != DELIVERY_NO_FOLLOW;
    struct node_view *views = memory_alloc(count, sizeof(*views));
    uint64_t *ids = memory_alloc(count, sizeof(*ids));
    uint32_t *context = NULL;
    struct reply reply = {.type = REPLY_CREATED, .request = pending->type};

    if (last->sampled != NULL && pending->context &&
        inspect_may_see(last->session, last->sampled->context->prompt)) {
        context = flatten(last->sampled->context);
        reply.u.created.context_count = last->sampled->context->token_count;
    }
    if (views == NULL || ids == NULL || (context == NULL && reply.u.created.context_count > 0)) {
        answer_memory(store, pending->to, pending->type);
        goto done;
    }
    for (uint32_t i = 0; i < count; i++) {
        views[i] = node_view_of(pending->nodes[i]);
    }
    reply.u.created.nodes = views;
    reply.u.created.count = count;
    reply.u.created.context = context;
    send(store, pending->to, &reply, is_stream);
    if (is_stream) {
        follow_created(store, pending, ids);
    }
done:
    memory_free(context);
    memory_free(ids);
    memory_free(views);
}

/* ---- walks ---- */

/* Estimates are rough, so a page leaves a quarter of its frame free. */
enum { PAGE_BYTES_MAX = FRAME_BODY_BYTES_MAX / 4 * 3 };

struct walking {
    const struct request_walk *walk;
    struct node_view *views; /* owned; [walk->count] */
    uint32_t count;
    uint32_t skipped;
    uint64_t bytes;
    bool is_full;
};

/* What a node takes in a message, about. */
static uint64_t estimate_bytes(const struct request_walk *walk, const struct node_view *view)
{
    uint64_t bytes = 256 + view->label.size;

    bytes += walk->text ? view->text_bytes : 0;
    bytes += walk->content ? (uint64_t)view->content_count * 4 : 0;
    if (walk->numbers) {
        bytes += (uint64_t)view->sampled_count * (16 + (uint64_t)view->top_count * 9);
    }
    return bytes;
}

/* Adds a node to the page; false when it has to wait for the next page. */
static bool add_node(struct walking *walking, const struct node *node)
{
    struct node_view view;
    uint64_t bytes;

    if (walking->skipped < walking->walk->skip) {
        walking->skipped++;
        return true;
    }
    view = node_view_of(node);
    bytes = estimate_bytes(walking->walk, &view);
    if (walking->count == walking->walk->count ||
        (walking->count > 0 && walking->bytes + bytes > PAGE_BYTES_MAX)) {
        walking->is_full = true;
        return false;
    }
    walking->views[walking->count++] = view;
    walking->bytes += bytes;
    return true;
}

static enum status walk_path(struct walking *walking, struct place place)
{
    struct tree_path path = {0};

    TRY(tree_path_create(place, &path));
    for (uint32_t i = 0; i < path.count && add_node(walking, path.steps[i].node); i++) {
    }
    tree_path_finish(&path);
    return STATUS_OK;
}

static void walk_children(struct walking *walking, const struct node *node)
{
    for (uint32_t i = 0; i < node->children.count; i++) {
        const struct node *child = node->children.items[i];
        const bool is_shown = child->is_visible && !child->is_purged &&
                              (walking->walk->deleted || !child->is_deleted);

        if (is_shown && !add_node(walking, child)) {
            return;
        }
    }
}

static void walk_subtree(struct walking *walking, struct node *top)
{
    struct node *node = tree_next(top, top, walking->walk->deleted);

    while (node != NULL && add_node(walking, node)) {
        node = tree_next(top, node, walking->walk->deleted);
    }
}

void answer_walk(struct store *store, struct reply_to to, const struct session *session,
                 struct place place, const struct request_walk *walk)
{
    struct reply reply = {.type = REPLY_WALK, .request = REQUEST_WALK};
    struct walking walking = {.walk = walk};
    enum status status = STATUS_OK;

    walking.views = memory_alloc(walk->count, sizeof(*walking.views));
    if (walking.views == NULL) {
        answer_memory(store, to, REQUEST_WALK);
        return;
    }
    if (walk->what == WALK_PATH) {
        status = walk_path(&walking, place);
    } else if (walk->what == WALK_CHILDREN) {
        walk_children(&walking, place.node);
    } else if (walk->what == WALK_SUBTREE) {
        walk_subtree(&walking, place.node);
    } else if (place.node != &session->root) {
        add_node(&walking, place.node);
    }
    if (status != STATUS_OK) {
        answer_memory(store, to, REQUEST_WALK);
    } else {
        reply.u.walk.nodes = walking.views;
        reply.u.walk.count = walking.count;
        reply.u.walk.end = !walking.is_full;
        reply.u.walk.text = walk->text;
        reply.u.walk.content = walk->content;
        reply.u.walk.numbers = walk->numbers;
        send(store, to, &reply, false);
    }
    memory_free(walking.views);
}
