#include "session/bookmark.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/noting.h"

static int compare(struct bytes a, struct bytes b)
{
    const int order = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);

    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

/* The first whose name is not before that one. */
static uint32_t lower_bound(const struct session *session, struct bytes name)
{
    uint32_t from = 0;
    uint32_t to = session->bookmark_count;

    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;

        if (compare(session->bookmarks[middle].name, name) < 0) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

static bool is_at(const struct session *session, uint32_t at, struct bytes name)
{
    return at < session->bookmark_count && bytes_equal(session->bookmarks[at].name, name);
}

static enum status insert(struct session *session, uint32_t at, struct bytes name,
                          struct error *error)
{
    const uint32_t count = session->bookmark_count;
    struct bookmark *bookmarks;
    char *copy;

    if (count >= BOOKMARK_COUNT_MAX) {
        return error_set_limit(error, "BOOKMARK_COUNT_MAX", BOOKMARK_COUNT_MAX,
                               "the session has %u bookmarks, which is the most", count);
    }
    copy = memory_copy_text((const char *)name.data, name.size);
    bookmarks = memory_resize(session->bookmarks, count + 1, sizeof(*bookmarks));
    if (bookmarks != NULL) {
        session->bookmarks = bookmarks;
    }
    if (copy == NULL || bookmarks == NULL) {
        memory_free(copy);
        return error_set(error, STATUS_MEMORY, "out of memory for a bookmark");
    }
    memmove(bookmarks + at + 1, bookmarks + at, (count - at) * sizeof(*bookmarks));
    bookmarks[at] = (struct bookmark){.name = bytes_of(copy, name.size)};
    session->bookmark_count++;
    return STATUS_OK;
}

static void drop(struct session *session, uint32_t at)
{
    memory_free((void *)(uintptr_t)session->bookmarks[at].name.data);
    session->bookmark_count--;
    memmove(session->bookmarks + at, session->bookmarks + at + 1,
            (session->bookmark_count - at) * sizeof(*session->bookmarks));
}

static struct bookmark_view view_of(const struct bookmark *bookmark)
{
    return (struct bookmark_view){
        .name = bookmark->name,
        .position = {bookmark->node->id, bookmark->offset},
        .created_us = bookmark->created_us,
    };
}

/* Reserved before it is stored, since what is stored stays. */
static enum status set(struct noting *noting, struct session *session, struct bytes name,
                       struct place place)
{
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_BOOKMARK,
        .id = session->id,
        .name = name,
        .node_id = place.node->id,
        .node_offset = place.offset,
        .created_us = clock_wall_us(),
    };
    const uint32_t at = lower_bound(session, name);
    const bool is_new = !is_at(session, at, name);
    enum status status;

    if (is_new) {
        TRY(insert(session, at, name, noting->error));
    }
    status = noting_submit(noting, record_add_note(noting->batch, &note));
    if (status != STATUS_OK) {
        if (is_new) {
            drop(session, at);
        }
        return status;
    }
    session->bookmarks[at].node = place.node;
    session->bookmarks[at].offset = place.offset;
    session->bookmarks[at].created_us = note.created_us;
    return STATUS_OK;
}

static enum status take_away(struct noting *noting, struct session *session, struct bytes name)
{
    const struct journal_note note = {.kind = JOURNAL_NOTE_BOOKMARK,
                                      .id = session->id,
                                      .name = name,
                                      .flags = JOURNAL_NOTE_DELETED};
    const uint32_t at = lower_bound(session, name);

    if (!is_at(session, at, name)) {
        return error_set(noting->error, STATUS_NOT_FOUND, "the session has no bookmark \"%.*s\"",
                         (int)name.size, (const char *)name.data);
    }
    TRY(noting_submit(noting, record_add_note(noting->batch, &note)));
    drop(session, at);
    return STATUS_OK;
}

static enum status execute(struct store *store, const struct request *request,
                           struct noting *noting)
{
    const struct request_bookmark *asked = &request->u.bookmark;
    struct session *session = NULL;
    struct place place;

    TRY(state_session_open(store, asked->session, request->uid, noting->error, &session));
    if (asked->remove) {
        TRY(take_away(noting, session, asked->name));
    } else {
        TRY(state_place(store, session, asked->has_position, asked->position, noting->error,
                        &place));
        TRY(set(noting, session, asked->name, place));
    }
    noting_answer(noting);
    return STATUS_OK;
}

void bookmark_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct noting noting;
    struct error error = {0};
    enum status status = noting_init(&noting, store, request, to, &error);

    if (status == STATUS_OK) {
        status = execute(store, request, &noting);
    }
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
    }
    noting_finish(&noting);
}

/* One that names what is not there any more is left out. */
enum status bookmark_load(const struct table *nodes, struct session *session,
                          const struct journal_note *note)
{
    struct node *node = note->node_id == 0 ? &session->root : table_find(nodes, note->node_id);
    const uint32_t at = lower_bound(session, note->name);

    if ((note->flags & JOURNAL_NOTE_DELETED) != 0 || node == NULL || node->session != session ||
        node->is_purged || note->name.size == 0 || session->bookmark_count >= BOOKMARK_COUNT_MAX) {
        return STATUS_OK;
    }
    TRY(insert(session, at, note->name, NULL));
    session->bookmarks[at].node = node;
    session->bookmarks[at].offset = note->node_offset;
    session->bookmarks[at].created_us = note->created_us;
    return STATUS_OK;
}

void bookmark_answer_list(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_bookmark_list *asked = &request->u.bookmark_list;
    struct reply reply = {.type = REPLY_BOOKMARK_LIST, .request = request->type};
    struct bookmark_view *views = memory_alloc(asked->count, sizeof(*views));
    struct session *session = NULL;
    struct error error = {0};
    enum status status = STATUS_OK;
    uint32_t at = 0;
    uint32_t skipped = 0;

    if (views == NULL) {
        status = error_set(&error, STATUS_MEMORY, "out of memory while bookmarks were listed");
    }
    if (status == STATUS_OK) {
        status = state_session_open(store, asked->session, request->uid, &error, &session);
    }
    if (status != STATUS_OK) {
        memory_free(views);
        answer_error(store, to, request->type, &error);
        return;
    }
    while (at < session->bookmark_count && reply.u.bookmarks.count < asked->count) {
        const struct bookmark *bookmark = &session->bookmarks[at++];

        if (tree_hidden_by(bookmark->node) == NULL && skipped++ >= asked->skip) {
            views[reply.u.bookmarks.count++] = view_of(bookmark);
        }
    }
    reply.u.bookmarks.items = views;
    reply.u.bookmarks.end = at == session->bookmark_count;
    store->settings.events.on_reply(store->settings.events.context, to, &reply, false);
    memory_free(views);
}

void bookmark_drop_purged(struct session *session)
{
    for (uint32_t at = session->bookmark_count; at > 0; at--) {
        if (session->bookmarks[at - 1].node->is_purged) {
            drop(session, at - 1);
        }
    }
}

void bookmark_finish(struct session *session)
{
    while (session->bookmark_count > 0) {
        drop(session, session->bookmark_count - 1);
    }
    memory_free(session->bookmarks);
    session->bookmarks = NULL;
}
