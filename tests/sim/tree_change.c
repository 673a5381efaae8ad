/* Operations that make nothing: cuts, heads, bookmarks, notes, labels, marks. */
#include <stdio.h>
#include <string.h>

#include "sim/tree_playing.h"

static void note_cut_below(int top)
{
    for (int i = 0; i < playing.model.count; i++) {
        if (model_is_below(&playing.model, i, top) && !playing.model.nodes[i].has_ended) {
            playing.model.nodes[i].may_be_cut = true;
        }
    }
}

void change_cancel(void)
{
    struct tree_model *model = &playing.model;
    struct model_place place = play_pick_place();
    struct request request = play_request(REQUEST_CANCEL);
    bool all = play_draw(4) == 0;
    enum status refused = STATUS_OK;

    play_look_at(&place);
    play_as(&request, place.session);
    all = all || place.node == MODEL_ROOT;
    const struct model_session *session = &model->sessions[place.session];
    if (session->is_deleted || session->is_purged || (!all && model->nodes[place.node].is_purged)) {
        refused = STATUS_NOT_FOUND;
    }
    if (all) {
        request.u.cancel.session = session->id;
    } else {
        request.u.cancel.nodes = &model->nodes[place.node].id;
        request.u.cancel.node_count = 1;
    }
    for (int i = 0; i < model->count && refused == STATUS_OK; i++) {
        struct model_node *node = &model->nodes[i];

        if (node->session == place.session && (all || i == place.node) && !node->has_ended) {
            node->may_be_cut = true;
        }
    }
    play_tell("cancel %s %llu", all ? "all of session" : "node",
              (unsigned long long)(all ? session->id : model->nodes[place.node].id));
    world_ask(&playing.world, &request);
    play_expect(refused);
    check_session(&playing.world, model, place.session);
    if (refused == STATUS_OK && !all && !model->nodes[place.node].has_ended) {
        world_fail(&playing.world, "a cancelled node goes on");
    }
}

void change_head(void)
{
    struct model_place place = play_pick_place();
    struct request request = play_request(REQUEST_HEAD);

    play_look_at(&place);
    play_as(&request, place.session);
    request.u.head.session = playing.model.sessions[place.session].id;
    request.u.head.has_position = true;
    request.u.head.position = play_position(place);
    play_tell("move the head of session %llu to (%llu, %u)",
              (unsigned long long)request.u.head.session,
              (unsigned long long)request.u.head.position.node, place.offset);
    const enum status refused = play_check_place(place);
    world_ask(&playing.world, &request);
    play_expect(refused);
    if (refused == STATUS_OK) {
        playing.model.sessions[place.session].head = place.node;
        playing.model.sessions[place.session].head_offset = request.u.head.position.offset;
    }
}

void change_bookmark(void)
{
    struct model_place place = play_pick_place();
    struct request request = play_request(REQUEST_BOOKMARK);
    const uint32_t choice = play_draw(MODEL_BOOKMARK_COUNT);
    char name[8];
    enum status refused;

    play_look_at(&place);
    play_as(&request, place.session);
    struct model_session *session = &playing.model.sessions[place.session];
    struct model_bookmark *mark = &session->bookmarks[choice];
    (void)snprintf(name, sizeof(name), "mark%u", choice);
    request.u.bookmark.session = session->id;
    request.u.bookmark.name = bytes_of_text(name);
    request.u.bookmark.remove = play_draw(4) == 0;
    request.u.bookmark.has_position = !request.u.bookmark.remove;
    request.u.bookmark.position = play_position(place);
    refused = play_check_place(place);
    if (request.u.bookmark.remove) {
        refused = session->is_deleted || session->is_purged || mark->name[0] == '\0'
                      ? STATUS_NOT_FOUND
                      : STATUS_OK;
    }
    play_tell("%s bookmark %s of session %llu at (%llu, %u)",
              request.u.bookmark.remove ? "remove" : "set", name, (unsigned long long)session->id,
              (unsigned long long)request.u.bookmark.position.node, place.offset);
    world_ask(&playing.world, &request);
    play_expect(refused);
    if (refused == STATUS_OK && request.u.bookmark.remove) {
        mark->name[0] = '\0';
    } else if (refused == STATUS_OK) {
        *mark = (struct model_bookmark){.node = place.node, .offset = place.offset};
        memcpy(mark->name, name, sizeof(name));
    }
}

/* The one at that place, or room for one; NULL: there is none. */
static struct model_note *find_note(struct model_session *session, struct model_place place)
{
    struct model_note *free_note = NULL;

    for (uint32_t i = 0; i < MODEL_NOTE_COUNT; i++) {
        struct model_note *note = &session->notes[i];

        if (note->is_there && note->node == place.node && note->offset == place.offset) {
            return note;
        }
        free_note = note->is_there ? free_note : note;
    }
    return free_note;
}

static bool plays_plainly(const struct model_session *session)
{
    for (uint32_t i = 0; i < session->speaker_count; i++) {
        if (session->members[i].card != CAST_NOBODY && model_play(session, i) != CAST_PLAIN) {
            return false;
        }
    }
    return true;
}

static void look_at_note(void *context, const struct reply *reply)
{
    const struct model_note *note = context;
    const struct note_view *view = &reply->u.note;

    if (reply->type == REPLY_NOTE &&
        (view->is_there != (note != NULL) ||
         (note != NULL && (!bytes_equal(view->text, bytes_of_text(note->text)) ||
                           view->depth != note->depth || view->role != note->role)))) {
        world_fail(&playing.world, "the note in force is not the one that must be");
    }
}

static void ask_for_note(struct request *request, struct model_place place)
{
    const struct model_note *note = model_note_at(&playing.model, place);

    play_tell("ask for the note at (%llu, %u)", (unsigned long long)request->u.note.position.node,
              place.offset);
    playing.world.look = look_at_note;
    playing.world.look_context = (void *)(uintptr_t)note;
    world_ask(&playing.world, request);
    playing.world.look = NULL;
    play_expect(play_check_place(place));
}

void change_note(void)
{
    static const char *const texts[] = {"", "rain", "a cab", "be brief"};
    struct model_place place = play_pick_place();
    struct request request = play_request(REQUEST_NOTE);
    const uint32_t what = play_draw(8);
    const char *text = texts[play_draw(4)];
    enum status refused;

    play_look_at(&place);
    play_as(&request, place.session);
    struct model_session *session = &playing.model.sessions[place.session];
    struct model_note *note = find_note(session, place);
    request.u.note.session = session->id;
    request.u.note.has_position = true;
    request.u.note.position = play_position(place);
    if (note == NULL || what == 0) {
        ask_for_note(&request, place);
        return;
    }
    request.u.note.clear = what == 1;
    request.u.note.has_text = what > 1;
    request.u.note.text = bytes_of_text(text);
    request.u.note.depth = play_draw(4);
    request.u.note.role = play_draw(3);
    refused = play_check_place(place);
    if (refused == STATUS_OK && request.u.note.clear) {
        refused = note->is_there ? STATUS_OK : STATUS_NOT_FOUND;
    } else if (refused == STATUS_OK && plays_plainly(session)) {
        refused = STATUS_CONFLICT;
    }
    play_tell("%s a note '%s', depth %u, role %u, at (%llu, %u) of session %llu",
              request.u.note.clear ? "clear" : "set", text, request.u.note.depth,
              request.u.note.role, (unsigned long long)request.u.note.position.node, place.offset,
              (unsigned long long)session->id);
    world_ask(&playing.world, &request);
    play_expect(refused);
    if (refused == STATUS_OK) {
        playing.counts.notes++;
        *note = (struct model_note){!request.u.note.clear, place.node,          place.offset,
                                    request.u.note.depth,  request.u.note.role, ""};
        memcpy(note->text, text, strlen(text));
    }
}

void change_label(void)
{
    struct request request = play_request(REQUEST_LABEL);
    const int at = play_pick_node();
    char text[8] = {0};

    if (at == MODEL_ROOT) {
        return;
    }
    struct model_node *node = &playing.model.nodes[at];
    (void)snprintf(text, sizeof(text), "%.*s", play_draw(3) == 0 ? 0 : 8, "label");
    text[0] = (char)(text[0] == '\0' ? '\0' : 'a' + play_draw(26));
    play_as(&request, node->session);
    request.u.label.node = node->id;
    request.u.label.label = bytes_of_text(text);
    play_tell("label node %llu '%s'", (unsigned long long)node->id, text);
    world_ask(&playing.world, &request);
    const enum status refused = node->is_purged || playing.model.sessions[node->session].is_deleted
                                    ? STATUS_NOT_FOUND
                                    : STATUS_OK;
    play_expect(refused);
    if (refused == STATUS_OK) {
        memcpy(node->label, text, sizeof(text));
    }
}

static void drop_purged(struct model_session *session)
{
    for (uint32_t i = 0; i < MODEL_BOOKMARK_COUNT; i++) {
        struct model_bookmark *mark = &session->bookmarks[i];

        if (mark->name[0] != '\0' && mark->node != MODEL_ROOT &&
            playing.model.nodes[mark->node].is_purged) {
            mark->name[0] = '\0';
        }
    }
    for (uint32_t i = 0; i < MODEL_NOTE_COUNT; i++) {
        struct model_note *note = &session->notes[i];

        note->is_there = note->is_there &&
                         (note->node == MODEL_ROOT || !playing.model.nodes[note->node].is_purged);
    }
}

static enum status check_purge(int top)
{
    const struct tree_model *model = &playing.model;

    if (model_hidden_by(model, top) == MODEL_ROOT) {
        return STATUS_CONFLICT;
    }
    for (int i = 0; i < model->count; i++) {
        if (model_is_below(model, i, top) && !model->nodes[i].is_purged &&
            !model->nodes[i].has_ended) {
            return STATUS_CONFLICT;
        }
    }
    return STATUS_OK;
}

static void apply_mark(enum tree_kind kind, int at)
{
    struct tree_model *model = &playing.model;
    struct model_node *node = &model->nodes[at];
    struct model_session *session = &model->sessions[node->session];

    if (kind == TREE_DELETE) {
        node->is_deleted = true;
        note_cut_below(at);
        model_head_leave(model, session);
    } else if (kind == TREE_UNDELETE) {
        node->is_deleted = false;
    } else {
        for (int i = 0; i < model->count; i++) {
            if (model_is_below(model, i, at)) {
                model->nodes[i].is_purged = true;
            }
        }
        drop_purged(session);
    }
}

void change_mark(enum tree_kind kind)
{
    static const enum request_type types[] = {REQUEST_DELETE, REQUEST_UNDELETE, REQUEST_PURGE};
    struct tree_model *model = &playing.model;
    struct request request = play_request(types[kind - TREE_DELETE]);
    int at = play_pick_node();

    /* Mostly one that it fits. */
    for (int i = 0; at != MODEL_ROOT && kind != TREE_DELETE && i < 20 &&
                    (!model->nodes[at].is_deleted || model->nodes[at].is_purged);
         i++) {
        at = play_pick_node();
    }
    if (at == MODEL_ROOT) {
        return;
    }
    struct model_place place = {model->nodes[at].session, at, 0};
    enum status refused = STATUS_OK;
    play_look_at(&place);
    play_as(&request, place.session);
    request.u.nodes.nodes = &model->nodes[at].id;
    request.u.nodes.count = 1;
    if (model->nodes[at].is_purged || model->sessions[place.session].is_deleted) {
        refused = STATUS_NOT_FOUND;
    } else if (kind == TREE_PURGE) {
        refused = check_purge(at);
    }
    play_tell("%s node %llu",
              kind == TREE_DELETE     ? "delete"
              : kind == TREE_UNDELETE ? "undelete"
                                      : "purge",
              (unsigned long long)model->nodes[at].id);
    world_ask(&playing.world, &request);
    play_expect(refused);
    if (refused == STATUS_OK) {
        apply_mark(kind, at);
    }
}
