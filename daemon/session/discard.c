#include "session/discard.h"

#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/author_note.h"
#include "session/casting.h"
#include "session/expansion.h"
#include "session/key.h"
#include "session/mark.h"
#include "session/noting.h"
#include "session/open.h"

/* ---- purging a session ---- */

/* Out of the table of nodes, and out of what its user has stored. */
static void forget_nodes(struct store *store, struct session *session)
{
    state_account_bytes(store, session, 0 - author_note_bytes(session));
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
    expansion_forget_session(store, session->id);
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

/* One SessionSet. What it does to the cast is taken back when it cannot be stored. */
struct setting {
    const struct request_session_set *asked;
    struct session *session;
    struct casting casting;
    struct noting *noting;
    uint32_t cast_count, joint_count; /* before */
    struct bytes label;               /* owned, until it has taken the place of the other */
    struct bytes name;                /* likewise */
    bool is_renamed;
};

static enum status copy_text(struct setting *setting, struct bytes text, struct bytes *out)
{
    char *copy = memory_copy_text((const char *)text.data, text.size);

    if (copy == NULL) {
        return error_set(setting->noting->error, STATUS_MEMORY, "out of memory for a label");
    }
    *out = bytes_of(copy, text.size);
    return STATUS_OK;
}

/* The mark of SessionDelete stays as it is: a deleted session is found by nobody. */
static enum status note_set(struct setting *setting)
{
    const struct session *session = setting->session;
    struct journal_batch *batch = setting->noting->batch;
    const struct journal_note note = {
        .kind = JOURNAL_NOTE_SESSION, .id = session->id, .label = setting->label};
    enum status added = STATUS_OK;

    if (setting->is_renamed) {
        added = record_add_member(batch, session, setting->asked->speaker);
    }
    for (uint32_t i = setting->cast_count; i < session->cast.count && added == STATUS_OK; i++) {
        added = record_add_member(batch, session, i);
    }
    if (added == STATUS_OK && session->cast.joint_count > setting->joint_count) {
        added = record_add_joint(batch, session, session->cast.joint_count - 1);
    }
    if (added == STATUS_OK) {
        added = record_add_note(batch, &note);
    }
    return noting_submit(setting->noting, added);
}

static enum status change_set(struct setting *setting)
{
    const struct request_session_set *asked = setting->asked;
    const struct bytes label =
        asked->has_label ? asked->label
                         : bytes_of(setting->session->label, setting->session->label_bytes);

    TRY(copy_text(setting, label, &setting->label));
    if (asked->has_name) {
        TRY(casting_check_rename(&setting->casting, asked->speaker, asked->name));
        TRY(copy_text(setting, asked->name, &setting->name));
        cast_swap_name(&setting->session->cast, asked->speaker, &setting->name);
        setting->is_renamed = true;
    }
    TRY(casting_add(&setting->casting, asked->members, asked->member_count, true));
    TRY(casting_join(&setting->casting));
    return note_set(setting);
}

static enum status execute_set(struct store *store, const struct request *request,
                               struct noting *noting)
{
    struct setting setting = {.asked = &request->u.session_set, .noting = noting};
    struct session *session = NULL;
    enum status status;

    TRY(state_session_open(store, setting.asked->session, request->uid, noting->error, &session));
    noting->pending->session = session;
    setting.session = session;
    setting.cast_count = session->cast.count;
    setting.joint_count = session->cast.joint_count;
    setting.casting = (struct casting){store, session, noting->error};
    status = change_set(&setting);
    if (status == STATUS_OK) {
        const struct bytes before = bytes_of(session->label, session->label_bytes);

        session->label = (char *)(uintptr_t)setting.label.data;
        session->label_bytes = (uint32_t)setting.label.size;
        setting.label = before;
        noting_answer(noting);
    } else {
        casting_cut(&setting.casting, setting.cast_count);
        if (setting.is_renamed) {
            cast_swap_name(&session->cast, setting.asked->speaker, &setting.name);
        }
    }
    memory_free((void *)(uintptr_t)setting.label.data);
    memory_free((void *)(uintptr_t)setting.name.data);
    return status;
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
