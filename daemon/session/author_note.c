#include "session/author_note.h"

#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/noting.h"

static uint32_t find(const struct session *session, struct place place)
{
    uint32_t at = 0;

    while (at < session->author_note_count && (session->author_notes[at].node != place.node ||
                                               session->author_notes[at].offset != place.offset)) {
        at++;
    }
    return at;
}

static uint64_t bytes_of_note(const struct author_note *note)
{
    return sizeof(*note) + note->text.size;
}

uint64_t author_note_bytes(const struct session *session)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < session->author_note_count; i++) {
        bytes += bytes_of_note(&session->author_notes[i]);
    }
    return bytes;
}

static void drop(struct session *session, uint32_t at)
{
    memory_free((void *)(uintptr_t)session->author_notes[at].text.data);
    session->author_note_count--;
    memmove(session->author_notes + at, session->author_notes + at + 1,
            (session->author_note_count - at) * sizeof(*session->author_notes));
}

/* Takes the text over when it succeeds. */
static enum status append(struct session *session, const struct author_note *note,
                          struct error *error)
{
    struct author_note *notes;

    if (session->author_note_count >= AUTHOR_NOTE_COUNT_MAX) {
        return error_set_limit(error, "AUTHOR_NOTE_COUNT_MAX", AUTHOR_NOTE_COUNT_MAX,
                               "the session has %u notes, which is the most",
                               session->author_note_count);
    }
    notes = memory_resize(session->author_notes, session->author_note_count + 1, sizeof(*notes));
    if (notes == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a note");
    }
    session->author_notes = notes;
    notes[session->author_note_count++] = *note;
    return STATUS_OK;
}

/* ---- which one is in force ---- */

/* Whether the note stands on the way. A node that was carried along by an edit is as deep as its
 * original, so that one step has to be looked at. */
static bool is_on(const struct author_note *note, const struct tree_step *steps, uint32_t count)
{
    const struct tree_step *step;

    if (note->node->parent == NULL) {
        return true;
    }
    if (note->node->depth >= count) {
        return false;
    }
    step = &steps[note->node->depth];
    return step->node == note->node ? note->offset <= step->count
                                    : step->node->original == note->node->id;
}

/* Nearer to the end of the way; at one place the copy's, whose node is the later one. */
static bool is_nearer(const struct author_note *a, const struct author_note *b)
{
    const int64_t depth = a->node->parent == NULL ? -1 : (int64_t)a->node->depth;
    const int64_t than = b->node->parent == NULL ? -1 : (int64_t)b->node->depth;

    if (depth != than) {
        return depth > than;
    }
    return a->offset != b->offset ? a->offset > b->offset : a->node->id > b->node->id;
}

const struct author_note *author_note_in_force(const struct session *session,
                                               const struct tree_step *steps, uint32_t count)
{
    const struct author_note *found = NULL;

    for (uint32_t i = 0; i < session->author_note_count; i++) {
        const struct author_note *note = &session->author_notes[i];

        if (is_on(note, steps, count) && (found == NULL || is_nearer(note, found))) {
            found = note;
        }
    }
    return found != NULL && found->text.size > 0 ? found : NULL;
}

static void answer(struct store *store, const struct author_note *note, struct reply_to to)
{
    struct reply reply = {.type = REPLY_NOTE, .request = REQUEST_NOTE};

    if (note != NULL) {
        reply.u.note = (struct note_view){
            .is_there = true,
            .position = {note->node->id, note->offset},
            .depth = note->depth,
            .role = (uint32_t)note->role,
            .created_us = note->created_us,
            .text = note->text,
        };
    }
    store->settings.events.on_reply(store->settings.events.context, to, &reply, false);
}

static enum status answer_in_force(struct store *store, struct place place, struct reply_to to,
                                   struct error *error)
{
    struct tree_path path = {0};

    if (tree_path_create(place, &path) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory while a note was looked for");
    }
    answer(store, author_note_in_force(place.node->session, path.steps, path.count), to);
    tree_path_finish(&path);
    return STATUS_OK;
}

/* ---- setting ---- */

static enum status check_play(const struct session *session, struct error *error)
{
    const struct cast *cast = &session->cast;

    for (uint32_t i = 0; i < cast->count; i++) {
        const struct prompt *prompt = cast->members[i].prompt;

        if (prompt != NULL && prompt->template.format != TEMPLATE_PLAIN) {
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_CONFLICT,
                     "what plays plainly has no notes: append the text instead");
}

static struct journal_author_note row_of(struct place place, const struct author_note *note)
{
    return (struct journal_author_note){
        .session_id = place.node->session->id,
        .node_id = place.node->id,
        .node_offset = place.offset,
        .depth = note->depth,
        .role = (uint32_t)note->role,
        .created_us = note->created_us,
        .text = note->text,
        .is_removed = note->node == NULL,
    };
}

/* Everything is at hand before it is submitted, since what is stored stays. */
static enum status store_note(struct noting *noting, struct place place, struct author_note *note)
{
    struct session *session = place.node->session;
    const struct journal_record record = {.kind = JOURNAL_AUTHOR_NOTE,
                                          .u.author_note = row_of(place, note)};
    const uint32_t at = find(session, place);
    const bool is_new = at == session->author_note_count;
    enum status status;

    if (is_new) {
        TRY(append(session, note, noting->error));
    }
    status = noting_submit(noting, journal_batch_add(noting->batch, &record));
    if (status != STATUS_OK) {
        session->author_note_count -= is_new;
        return status;
    }
    if (!is_new) {
        state_account_bytes(noting->store, session, 0 - bytes_of_note(&session->author_notes[at]));
        memory_free((void *)(uintptr_t)session->author_notes[at].text.data);
        session->author_notes[at] = *note;
    }
    state_account_bytes(noting->store, session, bytes_of_note(note));
    note->text.data = NULL; /* handed over */
    return STATUS_OK;
}

static enum status set(struct noting *noting, const struct request_note *asked, struct place place)
{
    struct author_note note = {
        .node = place.node,
        .offset = place.offset,
        .depth = asked->depth,
        .role = (enum insert_role)asked->role,
        .created_us = clock_wall_us(),
    };
    struct user *user = NULL;
    char *copy;
    enum status status;

    TRY(check_play(place.node->session, noting->error));
    TRY(state_user(noting->store, place.node->session->owner_uid, noting->error, &user));
    TRY(state_content_check(user, asked->text.size + sizeof(note), noting->error));
    copy = memory_copy_text((const char *)asked->text.data, asked->text.size);
    if (copy == NULL) {
        return error_set(noting->error, STATUS_MEMORY, "out of memory for a note");
    }
    note.text = bytes_of(copy, asked->text.size);
    status = store_note(noting, place, &note);
    memory_free((void *)(uintptr_t)note.text.data);
    return status;
}

static enum status take_away(struct noting *noting, struct place place)
{
    struct session *session = place.node->session;
    const struct author_note none = {0};
    const struct journal_record record = {.kind = JOURNAL_AUTHOR_NOTE,
                                          .u.author_note = row_of(place, &none)};
    const uint32_t at = find(session, place);

    if (at == session->author_note_count) {
        return error_set(noting->error, STATUS_NOT_FOUND, "no note is set at this position");
    }
    TRY(noting_submit(noting, journal_batch_add(noting->batch, &record)));
    state_account_bytes(noting->store, session, 0 - bytes_of_note(&session->author_notes[at]));
    drop(session, at);
    return STATUS_OK;
}

static enum status execute(struct store *store, const struct request *request, struct reply_to to,
                           struct noting *noting)
{
    const struct request_note *asked = &request->u.note;
    struct session *session = NULL;
    struct place place;

    TRY(state_session_open(store, asked->session, request->uid, noting->error, &session));
    TRY(state_place(store, session, asked->has_position, asked->position, noting->error, &place));
    if (!asked->has_text && !asked->clear) {
        return answer_in_force(store, place, to, noting->error);
    }
    TRY(asked->clear ? take_away(noting, place) : set(noting, asked, place));
    noting_answer(noting);
    return STATUS_OK;
}

void author_note_execute(struct store *store, const struct request *request, struct reply_to to)
{
    struct noting noting;
    struct error error = {0};
    enum status status = noting_init(&noting, store, request, to, &error);

    if (status == STATUS_OK) {
        status = execute(store, request, to, &noting);
    }
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
    }
    noting_finish(&noting);
}

/* ---- its life ---- */

enum status author_note_load(const struct table *nodes, struct session *session,
                             const struct journal_author_note *row)
{
    struct node *node = row->node_id == 0 ? &session->root : table_find(nodes, row->node_id);
    struct author_note note = {
        .node = node,
        .offset = row->node_offset,
        .depth = row->depth,
        .role = (enum insert_role)row->role,
        .created_us = row->created_us,
    };
    enum status status;
    char *copy;

    if (row->role > INSERT_PERSONA || row->text.size > NOTE_BYTES_MAX) {
        return STATUS_BAD_INPUT;
    }
    if (node == NULL || node->session != session || node->is_purged ||
        session->author_note_count >= AUTHOR_NOTE_COUNT_MAX) {
        return STATUS_OK;
    }
    copy = memory_copy_text((const char *)row->text.data, row->text.size);
    if (copy == NULL) {
        return STATUS_MEMORY;
    }
    note.text = bytes_of(copy, row->text.size);
    status = append(session, &note, NULL);
    if (status != STATUS_OK) {
        memory_free(copy);
    }
    return status;
}

void author_note_drop_purged(struct store *store, struct session *session)
{
    for (uint32_t at = session->author_note_count; at > 0; at--) {
        struct author_note *note = &session->author_notes[at - 1];

        if (note->node->is_purged) {
            state_account_bytes(store, session, 0 - bytes_of_note(note));
            drop(session, at - 1);
        }
    }
}

void author_note_finish(struct session *session)
{
    while (session->author_note_count > 0) {
        drop(session, session->author_note_count - 1);
    }
    memory_free(session->author_notes);
    session->author_notes = NULL;
}
