/* A session as a file, and a session from it: of the same user or of another one. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "sim/tree_playing.h"

enum { FILE_BYTES_MAX = 1 << 20, COPIED_NODE_COUNT_MAX = 80 };

struct file {
    uint8_t data[FILE_BYTES_MAX];
    uint32_t size;
    uint64_t transfer;
    bool has_ended;
};

static void look_at_page(void *context, const struct reply *reply)
{
    struct file *file = context;
    const struct exported_view *view = &reply->u.exported;

    if (reply->type != REPLY_EXPORT) {
        return;
    }
    CHECK(view->data.size <= FILE_BYTES_MAX - file->size);
    memcpy(file->data + file->size, view->data.data, view->data.size);
    file->size += (uint32_t)view->data.size;
    file->transfer = view->transfer;
    file->has_ended = view->end;
}

/* Page by page, while the daemon does other things. False: it was refused. */
static bool export(int session, struct file *file)
{
    struct request request = play_request(REQUEST_SESSION_EXPORT);

    file->size = 0;
    file->transfer = 0;
    file->has_ended = false;
    play_as(&request, session);
    request.u.session_export.session = playing.model.sessions[session].id;
    playing.world.look = look_at_page;
    playing.world.look_context = file;
    do {
        request.u.session_export.transfer = file->transfer;
        world_ask(&playing.world, &request);
        for (uint32_t i = play_draw(4); i > 0; i--) {
            world_step(&playing.world);
        }
    } while (!playing.world.has_error && !file->has_ended && playing.world.problem[0] == '\0');
    playing.world.look = NULL;
    return !playing.world.has_error;
}

/* In pieces, each with the client key. dies: the daemon, some steps after it has the last one. */
static void send_pieces(const struct file *file, struct request *request, uint32_t piece_count,
                        bool dies)
{
    const uint32_t steps = play_draw(40);
    uint64_t transfer = 0;

    for (uint32_t i = 0, at = 0; i < piece_count; i++) {
        const bool is_last = i + 1 == piece_count;
        const uint32_t end = is_last ? file->size : file->size / piece_count * (i + 1);

        request->u.session_import =
            (struct request_import){transfer, bytes_of(file->data + at, end - at), is_last};
        at = end;
        if (dies && is_last) {
            world_begin(&playing.world, request);
            for (uint32_t k = 0; k < steps; k++) {
                world_step(&playing.world);
            }
            play_tell(", killed after %u steps", steps);
            return;
        }
        world_ask(&playing.world, request);
        transfer = playing.world.transfer;
        if (playing.world.has_error || playing.world.problem[0] != '\0' || playing.world.id != 0) {
            return; /* refused, or a repeat: it is there already */
        }
    }
}

/* What it makes is there once, though the daemon dies under it and all is sent again. */
static void import(const struct file *file, uint32_t uid)
{
    struct request request = play_request(REQUEST_SESSION_IMPORT);
    const uint32_t piece_count = 1 + play_draw(3);
    const uint32_t fate = play_draw(8);

    request.uid = uid;
    (void)snprintf(playing.key_text, sizeof(playing.key_text), "key %u", ++playing.key);
    request.client_key = bytes_of_text(playing.key_text);
    if (fate < 2) {
        send_pieces(file, &request, piece_count, true);
        playing.counts.repeats++;
        play_restart(fate == 0 ? TREE_KILL : TREE_POWER);
    }
    if (playing.world.problem[0] == '\0') {
        send_pieces(file, &request, piece_count, false);
    }
}

/* In the twin: the same nodes, whose ids the first look will tell. */
static int copy(int from, uint32_t uid)
{
    struct tree_model *model = &playing.model;
    const int to = model->session_count++, count = model->count;
    struct model_session *session = &model->sessions[to];
    static int moved[MODEL_NODE_COUNT];

    *session = model->sessions[from];
    session->id = playing.world.id;
    session->uid = uid;
    for (int i = 0; i < count; i++) {
        struct model_node *node = &model->nodes[model->count];

        if (model->nodes[i].session != from) {
            continue;
        }
        *node = model->nodes[i];
        node->id = 0;
        node->session = to;
        node->is_copy = true;
        node->seen = node->seen_bytes = 0;
        node->parent = node->parent == MODEL_ROOT ? MODEL_ROOT : moved[node->parent];
        node->original = node->original == MODEL_ROOT ? MODEL_ROOT : moved[node->original];
        moved[i] = model->count++;
    }
    session->head = session->head == MODEL_ROOT ? MODEL_ROOT : moved[session->head];
    for (uint32_t i = 0; i < MODEL_BOOKMARK_COUNT; i++) {
        struct model_bookmark *mark = &session->bookmarks[i];

        mark->node =
            mark->name[0] == '\0' || mark->node == MODEL_ROOT ? MODEL_ROOT : moved[mark->node];
    }
    for (uint32_t i = 0; i < MODEL_NOTE_COUNT; i++) {
        struct model_note *note = &session->notes[i];

        note->node = !note->is_there || note->node == MODEL_ROOT ? MODEL_ROOT : moved[note->node];
    }
    for (int i = count; i < model->count; i++) {
        if (model->nodes[i].has_ended) {
            check_draw_marks_in(model, &model->nodes[i]);
        }
    }
    return to;
}

/* Where all of them are purged none is seen: they get ids that nobody has. */
static void name_unseen(int session)
{
    for (int i = 0; i < playing.model.count; i++) {
        struct model_node *node = &playing.model.nodes[i];

        if (node->session == session && node->id == 0) {
            node->id = (UINT64_C(1) << 40) + (uint64_t)i;
        }
    }
}

/* How many nodes a session has; *is_still: none of them is under way. */
static uint32_t count_nodes(int session, bool *is_still)
{
    uint32_t count = 0;

    *is_still = true;
    for (int i = 0; i < playing.model.count; i++) {
        const struct model_node *node = &playing.model.nodes[i];

        count += node->session == session;
        *is_still = *is_still && (node->session != session || node->has_ended);
    }
    return count;
}

void make_copy(void)
{
    static struct file file, again;
    const int at = play_pick_session();
    const struct model_session *session = &playing.model.sessions[at];
    const uint32_t uid = WORLD_UID + play_draw(USER_COUNT);
    enum status refused = session->is_deleted ? STATUS_NOT_FOUND : STATUS_OK;
    bool is_still;

    check_session(&playing.world, &playing.model, at);
    const uint32_t count = count_nodes(at, &is_still);
    if (count > COPIED_NODE_COUNT_MAX || playing.model.session_count == MODEL_SESSION_COUNT ||
        playing.model.count + (int)count + 32 > MODEL_NODE_COUNT ||
        playing.world.problem[0] != '\0') {
        return;
    }
    play_tell("export session %llu", (unsigned long long)session->id);
    (void)export(at, &file);
    play_expect(refused);
    if (refused != STATUS_OK || playing.world.problem[0] != '\0') {
        return;
    }
    play_tell("import it for user %u", uid);
    import(&file, uid);
    play_expect(STATUS_OK);
    if (playing.world.problem[0] != '\0') {
        return;
    }
    playing.counts.copies++;
    const int to = copy(at, uid);
    check_session(&playing.world, &playing.model, to);
    name_unseen(to);
    if (is_still && (!export(to, &again) || again.size != file.size ||
                     memcmp(again.data, file.data, file.size) != 0)) {
        world_fail(&playing.world, "what was imported is exported as another file");
    }
}
