#include "sim/tree_check.h"

#include <string.h>

#include "base/check.h"

enum { PAGE_COUNT = 48 };

/* What one walk is held against. */
struct checking {
    struct tree_world *world;
    struct tree_model *model;
    int session;
    int order[MODEL_NODE_COUNT]; /* the nodes that must come, in that order */
    uint32_t count, at;
    uint32_t uid;
    bool end;
};

static void differs(const struct checking *checking, const struct model_node *node,
                    const char *what)
{
    world_fail(checking->world, "node %llu: its %s is not what it must be",
               (unsigned long long)node->id, what);
}

/* ---- one node ---- */

static void check_place(const struct checking *checking, const struct model_node *node,
                        const struct node_view *view)
{
    const uint64_t parent =
        node->parent == MODEL_ROOT ? 0 : checking->model->nodes[node->parent].id;

    if (view->parent.node != parent || view->parent.offset != node->parent_offset) {
        differs(checking, node, "parent");
    }
    if (view->ordinal != node->ordinal) {
        differs(checking, node, "ordinal");
    }
    if (view->speaker != node->speaker || view->opens_turn != node->opens_turn) {
        differs(checking, node, "turn");
    }
    const uint64_t original =
        node->original == MODEL_ROOT ? 0 : checking->model->nodes[node->original].id;

    if (view->origin != node->origin || view->original != original) {
        differs(checking, node, "origin");
    }
    if (view->is_deleted != node->is_deleted) {
        differs(checking, node, "mark");
    }
    if (!bytes_equal(view->label, bytes_of_text(node->label))) {
        differs(checking, node, "label");
    }
    if (node->origin == ORIGIN_SAMPLED &&
        (view->seed != node->seed || view->context_token_count != node->context_count ||
         view->turns_left_out != node->first_turn)) {
        world_fail(checking->world,
                   "node %llu: it has %u context tokens from turn %u, it should have %u from turn "
                   "%u, or its seed differs",
                   (unsigned long long)node->id, view->context_token_count, view->turns_left_out,
                   node->context_count, node->first_turn);
    }
}

/* Children hang on what can never go again. */
static uint32_t children_need(const struct tree_model *model, int node)
{
    uint32_t need = 0;

    for (int i = 0; i < model->count; i++) {
        if (model->nodes[i].parent == node && model->nodes[i].parent_offset > need) {
            need = model->nodes[i].parent_offset;
        }
    }
    return need;
}

static bool leads(const uint32_t *part, uint32_t count, const uint32_t *whole, uint32_t whole_count)
{
    return count <= whole_count && (count == 0 || memcmp(part, whole, count * sizeof(*part)) == 0);
}

/* The first `count` sampled tokens and their numbers, by their bits. */
static void check_numbers(const struct checking *checking, const struct model_node *node,
                          const struct node_view *view)
{
    const size_t bytes = view->sampled_count * sizeof(float);

    if (view->sampled_count > node->sampled_count) {
        differs(checking, node, "count of sampled tokens");
    } else if (bytes > 0 && (memcmp(view->sampled, node->sampled, bytes) != 0 ||
                             memcmp(view->logprobs, node->logprobs, bytes) != 0 ||
                             memcmp(view->logprobs_sampler, node->logprobs_sampler, bytes) != 0 ||
                             memcmp(view->entropies, node->entropies, bytes) != 0)) {
        differs(checking, node, "numbers");
    }
}

/* The nodes of a session that was imported have their ids in the order in which they were made. */
static void learn_copies(const struct checking *checking, const struct model_node *of, uint64_t id)
{
    struct tree_model *model = checking->model;

    for (const struct model_node *node = model->nodes; node < of; node++) {
        id -= node->session == checking->session;
    }
    for (int i = 0; i < model->count; i++) {
        if (model->nodes[i].session == checking->session) {
            if (model_find(model, id) != MODEL_ROOT) {
                world_fail(checking->world, "node %llu is made a second time",
                           (unsigned long long)id);
            }
            model->nodes[i].id = id++;
        }
    }
}

static void check_text(const struct checking *checking, const struct model_node *node,
                       const struct node_view *view)
{
    uint8_t text[MODEL_CONTENT_MAX * 4];
    const uint32_t size = model_show(checking->model, node->ids, view->content_count, text);
    /* While it grows, bytes of a token of which a part is held are shown already. */
    const bool is_whole = view->finish != NODE_GOING;

    if ((is_whole ? view->text_bytes != size : view->text_bytes < size) ||
        (size > 0 && memcmp(view->text, text, size) != 0)) {
        differs(checking, node, "text");
    }
}

void check_draw_marks_in(struct tree_model *model, const struct model_node *node)
{
    struct model_session *session = &model->sessions[node->session];
    const int at = (int)(node - model->nodes);
    struct model_note *last = NULL;

    for (uint32_t i = 0; i < MODEL_BOOKMARK_COUNT; i++) {
        struct model_bookmark *mark = &session->bookmarks[i];

        if (mark->name[0] != '\0' && mark->node == at && mark->offset > node->count) {
            mark->offset = node->count;
        }
    }
    for (uint32_t i = 0; i < MODEL_NOTE_COUNT; i++) {
        struct model_note *note = &session->notes[i];

        if (!note->is_there || note->node != at || note->offset < node->count) {
            continue;
        }
        if (last != NULL && last->offset > note->offset) {
            note->is_there = false;
            continue;
        }
        if (last != NULL) {
            last->is_there = false;
        }
        last = note;
    }
    if (last != NULL) {
        last->offset = node->count;
    }
}

/* Where a cut fell is for the daemon to say, to the byte: behind what was shown, and before any
 * stop. The rest follows. */
static void take_cut(const struct checking *checking, struct model_node *node,
                     const struct node_view *view)
{
    uint8_t text[MODEL_CONTENT_MAX * 4];

    if (!node->may_be_cut && view->finish == NODE_CUT) {
        differs(checking, node, "end (nobody has cut it)");
    } else if (view->text_bytes > model_show(checking->model, node->ids, node->count, text) ||
               view->sampled_count > node->sampled_count) {
        differs(checking, node, "cut");
    } else {
        node->finish = view->finish;
        node->sampled_count = view->sampled_count;
        model_cut(checking->model, node, view->text_bytes);
        if (node->is_copy) {
            check_draw_marks_in(checking->model, node);
        }
    }
}

static void check_content(const struct checking *checking, struct model_node *node,
                          const struct node_view *view)
{
    const uint32_t need = children_need(checking->model, (int)(node - checking->model->nodes));
    const bool is_going = view->finish == NODE_GOING;

    if (view->content_count < node->seen || view->content_count < need ||
        view->text_bytes < node->seen_bytes) {
        differs(checking, node, "content (less than before)");
    } else if (is_going && (node->has_ended || node->is_copy)) {
        differs(checking, node, "end (it had one)");
    } else if (!is_going && !node->has_ended &&
               (view->finish == NODE_CUT || (node->is_copy && view->finish == NODE_INTERRUPTED))) {
        take_cut(checking, node, view);
    }
    if (!is_going && (view->finish != node->finish || view->content_count != node->count ||
                      view->sampled_count != node->sampled_count)) {
        differs(checking, node, "end");
    } else if (!leads(view->content, view->content_count, node->ids,
                      is_going ? node->kept : node->count)) {
        differs(checking, node, "content");
    }
    node->has_ended = !is_going;
    node->seen = view->content_count;
    node->seen_bytes = view->text_bytes;
}

static void check_node(struct checking *checking, const struct node_view *view)
{
    struct model_node *node;

    if (checking->at == checking->count) {
        world_fail(checking->world, "node %llu should not be there", (unsigned long long)view->id);
        return;
    }
    node = &checking->model->nodes[checking->order[checking->at++]];
    if (node->id == 0) {
        learn_copies(checking, node, view->id);
    }
    if (view->id != node->id || view->session != checking->model->sessions[node->session].id) {
        world_fail(checking->world, "node %llu came where %llu should",
                   (unsigned long long)view->id, (unsigned long long)node->id);
        return;
    }
    check_place(checking, node, view);
    check_content(checking, node, view);
    check_numbers(checking, node, view);
    check_text(checking, node, view);
}

/* ---- one session ---- */

/* Depth first, children by offset and then by ordinal. */
static void list_below(struct checking *checking, int parent)
{
    const struct tree_model *model = checking->model;
    int last = MODEL_ROOT;

    for (;;) {
        int next = MODEL_ROOT;

        for (int i = 0; i < model->count; i++) {
            const struct model_node *node = &model->nodes[i];
            const struct model_node *other = next == MODEL_ROOT ? NULL : &model->nodes[next];
            const struct model_node *before = last == MODEL_ROOT ? NULL : &model->nodes[last];

            if (node->session != checking->session || node->parent != parent || node->is_purged ||
                (before != NULL && (node->parent_offset < before->parent_offset ||
                                    (node->parent_offset == before->parent_offset &&
                                     node->ordinal <= before->ordinal)))) {
                continue;
            }
            if (other == NULL || node->parent_offset < other->parent_offset ||
                (node->parent_offset == other->parent_offset && node->ordinal < other->ordinal)) {
                next = i;
            }
        }
        if (next == MODEL_ROOT) {
            return;
        }
        checking->order[checking->count++] = next;
        list_below(checking, next); /* as deep as the tree, which is bounded */
        last = next;
    }
}

static void look_at_walk(void *context, const struct reply *reply)
{
    struct checking *checking = context;

    if (reply->type == REPLY_WALK) {
        for (uint32_t i = 0; i < reply->u.walk.count; i++) {
            check_node(checking, &reply->u.walk.nodes[i]);
        }
        checking->end = reply->u.walk.end;
    }
}

static void look_at_bookmarks(void *context, const struct reply *reply)
{
    struct checking *checking = context;
    const struct tree_model *model = checking->model;
    const struct model_session *session = &model->sessions[checking->session];
    uint32_t count = 0;

    if (reply->type != REPLY_BOOKMARK_LIST) {
        return;
    }
    for (uint32_t i = 0; i < MODEL_BOOKMARK_COUNT; i++) {
        const struct model_bookmark *bookmark = &session->bookmarks[i];

        if (bookmark->name[0] == '\0' || model_hidden_by(model, bookmark->node) != MODEL_ROOT) {
            continue;
        }
        const struct bookmark_view *view = &reply->u.bookmarks.items[count++];
        if (count > reply->u.bookmarks.count ||
            !bytes_equal(view->name, bytes_of_text(bookmark->name)) ||
            view->position.node !=
                (bookmark->node == MODEL_ROOT ? 0 : model->nodes[bookmark->node].id) ||
            view->position.offset != bookmark->offset) {
            world_fail(checking->world, "bookmark %s of session %llu is not where it was set",
                       bookmark->name, (unsigned long long)session->id);
            return;
        }
    }
    if (count != reply->u.bookmarks.count) {
        world_fail(checking->world, "session %llu has %u bookmarks more than were set",
                   (unsigned long long)session->id, reply->u.bookmarks.count - count);
    }
}

static void check_head(const struct checking *checking)
{
    const struct model_session *session = &checking->model->sessions[checking->session];
    const struct model_node *node =
        session->head == MODEL_ROOT ? NULL : &checking->model->nodes[session->head];
    const uint32_t count = node != NULL ? node->seen : 0;
    const uint32_t offset = session->head_offset < count ? session->head_offset : count;
    struct request request = {.type = REQUEST_HEAD, .uid = session->uid};

    request.u.head.session = session->id;
    world_ask(checking->world, &request);
    if (checking->world->type != REPLY_HEAD ||
        checking->world->head.node != (node != NULL ? node->id : 0) ||
        checking->world->head.offset != offset) {
        world_fail(checking->world,
                   "the head of session %llu is at (%llu, %u), it should be at (%llu, %u)",
                   (unsigned long long)session->id, (unsigned long long)checking->world->head.node,
                   checking->world->head.offset, (unsigned long long)(node != NULL ? node->id : 0),
                   offset);
    }
}

static void walk(struct checking *checking)
{
    struct request request = {.type = REQUEST_WALK,
                              .uid = checking->model->sessions[checking->session].uid};

    request.u.walk = (struct request_walk){
        .session = checking->model->sessions[checking->session].id,
        .has_position = true,
        .what = WALK_SUBTREE,
        .count = PAGE_COUNT,
        .text = true,
        .content = true,
        .numbers = true,
        .deleted = true,
    };
    do {
        checking->end = true;
        request.u.walk.skip = checking->at;
        world_ask(checking->world, &request);
    } while (!checking->end && checking->world->problem[0] == '\0');
    if (checking->at != checking->count) {
        world_fail(checking->world, "session %llu misses node %llu",
                   (unsigned long long)request.u.walk.session,
                   (unsigned long long)checking->model->nodes[checking->order[checking->at]].id);
    }
}

void check_session(struct tree_world *world, struct tree_model *model, int session)
{
    struct request request = {.type = REQUEST_BOOKMARK_LIST, .uid = model->sessions[session].uid};
    struct checking checking = {.world = world, .model = model, .session = session};

    if (model->sessions[session].is_deleted || world->problem[0] != '\0') {
        return;
    }
    list_below(&checking, MODEL_ROOT);
    world->look = look_at_walk;
    world->look_context = &checking;
    walk(&checking);
    world->look = look_at_bookmarks;
    request.u.bookmark_list.session = model->sessions[session].id;
    request.u.bookmark_list.count = 64;
    world_ask(world, &request);
    world->look = NULL;
    check_head(&checking);
}

/* ---- all of them ---- */

static bool is_cast(const struct model_session *session, const struct session_view *view)
{
    if (view->cast_count != session->speaker_count || view->owner_uid != session->uid ||
        (view->group_mode == GROUP_JOINT) != session->is_joint) {
        return false;
    }
    for (uint32_t i = 0; i < view->cast_count; i++) {
        const struct model_member *member = &session->members[i];

        if (!bytes_equal(view->cast[i].name, bytes_of_text(member->name)) ||
            (view->cast[i].persona != 0) != (member->card != CAST_NOBODY)) {
            return false;
        }
    }
    return true;
}

static void check_listed(struct checking *checking, const struct session_view *view)
{
    const struct model_session *session = &checking->model->sessions[checking->at];
    uint64_t count = 0;

    for (int i = 0; i < checking->model->count; i++) {
        count += checking->model->nodes[i].session == (int)checking->at;
    }
    if (view->id != session->id || view->is_deleted != session->is_deleted ||
        view->node_count != count || !bytes_equal(view->label, bytes_of_text(session->label)) ||
        view->seed != session->seed || !is_cast(session, view)) {
        world_fail(checking->world, "session %llu is listed as what it is not",
                   (unsigned long long)session->id);
    }
}

/* To the next one that its owner must see. */
static void skip_unlisted(struct checking *checking)
{
    const struct tree_model *model = checking->model;

    while ((int)checking->at < model->session_count &&
           (model->sessions[checking->at].is_purged ||
            model->sessions[checking->at].uid != checking->uid)) {
        checking->at++;
    }
}

static void look_at_list(void *context, const struct reply *reply)
{
    struct checking *checking = context;

    for (uint32_t i = 0; reply->type == REPLY_SESSION_LIST && i < reply->u.sessions.count; i++) {
        skip_unlisted(checking);
        if ((int)checking->at == checking->model->session_count) {
            world_fail(checking->world, "a session is listed that should not be there");
            return;
        }
        check_listed(checking, &reply->u.sessions.items[i]);
        checking->at++;
    }
}

static void check_list(struct tree_world *world, struct tree_model *model, uint32_t uid)
{
    struct request request = {.type = REQUEST_SESSION_LIST, .uid = uid};
    struct checking checking = {.world = world, .model = model, .uid = uid};

    request.u.page.count = 64;
    request.u.page.deleted = true;
    world->look = look_at_list;
    world->look_context = &checking;
    world_ask(world, &request);
    world->look = NULL;
    skip_unlisted(&checking);
    if ((int)checking.at < model->session_count) {
        world_fail(world, "session %llu is not listed",
                   (unsigned long long)model->sessions[checking.at].id);
    }
}

void check_all(struct tree_world *world, struct tree_model *model)
{
    for (int i = 0; i < model->session_count; i++) {
        check_session(world, model, i);
    }
    check_list(world, model, WORLD_UID);
    check_list(world, model, WORLD_UID + 1);
}

void check_restarted(struct tree_model *model)
{
    for (int i = 0; i < model->count; i++) {
        model->nodes[i].is_followed = false;
        if (!model->nodes[i].has_ended) {
            model->nodes[i].seen = model->nodes[i].seen_bytes = 0;
        }
    }
}
