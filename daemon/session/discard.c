#include "session/discard.h"

#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/key.h"
#include "session/mark.h"
#include "session/noting.h"
#include "session/open.h"

/* ---- purging a session ---- */

/* Out of the table of nodes, and out of what its user has stored. */
static void forget_nodes(struct store *store, struct session *session)
{
    for (struct node *node = tree_next_of_all(&session->root, &session->root); node != NULL;
         node = tree_next_of_all(&session->root, node)) {
        state_account(store, node, false);
        CHECK(table_remove(&store->nodes, node->id) == node);
    }
}

static void purge_session(struct store *store, struct session *session)
{
    struct user *user = table_find(&store->users, (uint64_t)session->owner_uid + 1);
    const uint32_t at = state_session_index(store, session->id) - 1;

    CHECK(user != NULL && store->sessions.items[at] == session);
    key_forget_session(store, session);
    forget_nodes(store, session);
    if (engine_release_scope(store->settings.engine, session->id) != STATUS_OK) {
        log_line(LOG_WARN, "session", "the cache of a session was not told that it is gone");
    }
    store->sessions.count--;
    memmove(store->sessions.items + at, store->sessions.items + at + 1,
            (store->sessions.count - at) * sizeof(void *));
    user->session_count--;
    open_session_destroy(store, session);
}

/* ---- requests ---- */

/* Deleted or not, but not another's. */
static enum status find_session(const struct store *store, uint64_t id, uint32_t uid,
                                struct error *error, struct session **out)
{
    struct session *session = state_session_find(store, id);

    if (session != NULL && session->is_deleted && session->owner_uid == uid) {
        *out = session;
        return STATUS_OK;
    }
    return state_session_open(store, id, uid, error, out);
}

static enum status note_session(struct noting *noting, const struct session *session,
                                uint32_t flags)
{
    const bool is_purged = (flags & JOURNAL_NOTE_PURGED) != 0;
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_SESSION,
        .id = session->id,
        .flags = flags,
        .label = bytes_of(session->label, is_purged ? 0 : session->label_bytes),
    };

    return noting_submit(noting, record_add_note(noting->batch, &note));
}

static enum status purge(struct store *store, struct session *session, struct noting *noting)
{
    if (!session->is_deleted) {
        return error_set(noting->error, STATUS_CONFLICT,
                         "session %llu is not deleted; only what is deleted can be purged",
                         (unsigned long long)session->id);
    }
    TRY(mark_check_idle(&session->root, noting->error));
    TRY(note_session(noting, session, JOURNAL_NOTE_DELETED | JOURNAL_NOTE_PURGED));
    purge_session(store, session);
    return STATUS_OK;
}

static enum status execute_session(struct store *store, const struct request *request,
                                   struct noting *noting)
{
    const struct request_session_delete *asked = &request->u.session_delete;
    struct session *session = NULL;

    TRY(find_session(store, asked->session, request->uid, noting->error, &session));
    if (asked->purge) {
        TRY(purge(store, session, noting));
    } else {
        TRY(note_session(noting, session, asked->undo ? 0 : JOURNAL_NOTE_DELETED));
        session->is_deleted = !asked->undo;
        if (session->is_deleted) {
            mark_cancel_below(store, &session->root);
        }
    }
    noting_answer(noting);
    return STATUS_OK;
}

static enum status execute_persona(struct store *store, const struct request *request,
                                   struct noting *noting)
{
    const uint64_t id = request->u.persona_delete;
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_PERSONA, .id = id, .flags = JOURNAL_NOTE_DELETED};
    struct persona *persona = state_persona_find(store, id);

    if (persona == NULL || (persona->is_deleted && persona->owner_uid != request->uid)) {
        return error_set(noting->error, STATUS_NOT_FOUND, "there is no persona %llu",
                         (unsigned long long)id);
    }
    if (persona->owner_uid != request->uid) {
        return error_set(noting->error, STATUS_DENIED, "persona %llu belongs to another user",
                         (unsigned long long)id);
    }
    if (persona->is_built_in) {
        return error_set(noting->error, STATUS_CONFLICT,
                         "persona %llu comes with the daemon; take its file out of the folder of "
                         "personas instead",
                         (unsigned long long)id);
    }
    TRY(noting_submit(noting, record_add_note(noting->batch, &note)));
    persona->is_deleted = true;
    noting_answer(noting);
    return STATUS_OK;
}

/* The mark of SessionDelete stays as it is: a deleted session is found by nobody. */
static enum status execute_set(struct store *store, const struct request *request,
                               struct noting *noting)
{
    const struct request_session_set *set = &request->u.session_set;
    struct journal_note note = {.kind = JOURNAL_NOTE_SESSION, .label = set->label};
    struct session *session = NULL;
    enum status status;
    char *label;

    TRY(state_session_open(store, set->session, request->uid, noting->error, &session));
    noting->pending->session = session;
    note.id = session->id;
    if (!set->has_label) {
        note.label = bytes_of(session->label, session->label_bytes);
    }
    label = memory_copy_text((const char *)note.label.data, note.label.size);
    if (label == NULL) {
        return error_set(noting->error, STATUS_MEMORY, "out of memory for a label");
    }
    status = noting_submit(noting, record_add_note(noting->batch, &note));
    if (status != STATUS_OK) {
        memory_free(label);
        return status;
    }
    memory_free(session->label);
    session->label = label;
    session->label_bytes = (uint32_t)note.label.size;
    noting_answer(noting);
    return STATUS_OK;
}

static void run(struct store *store, const struct request *request, struct reply_to to,
                enum status (*execute)(struct store *store, const struct request *request,
                                       struct noting *noting))
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

void discard_session(struct store *store, const struct request *request, struct reply_to to)
{
    run(store, request, to, execute_session);
}

void discard_persona(struct store *store, const struct request *request, struct reply_to to)
{
    run(store, request, to, execute_persona);
}

void discard_set_session(struct store *store, const struct request *request, struct reply_to to)
{
    run(store, request, to, execute_set);
}
