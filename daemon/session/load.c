#include "session/load.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/key.h"
#include "session/open.h"
#include "session/residence.h"
#include "session/resume.h"

/* One start. */
struct loading {
    struct store *store;
    struct table prompts; /* first bytes of the digest -> struct prompt, a share each */
    struct unfinished_list {
        struct unfinished_node {
            uint64_t node, session;
        } * ids; /* owned */
        uint32_t count, capacity;
    } unfinished;
};

static enum status damaged(struct error *error, const char *what, uint64_t id)
{
    return error_set(error, STATUS_STORAGE,
                     "the journal is damaged: %s %llu; put a backup in its place, or move it away "
                     "to start empty",
                     what, (unsigned long long)id);
}

/* ---- personas and prompts ---- */

static enum status on_persona(void *context, const struct journal_persona *row, struct error *error)
{
    struct store *store = ((struct loading *)context)->store;
    struct persona *persona = NULL;
    struct card *card = NULL;
    struct user *user = NULL;

    TRY(state_user(store, row->owner_uid, error, &user));
    TRY(card_parse_stored(row->card, error, &card));
    if (persona_create(card, &persona) != STATUS_OK) {
        card_destroy(card);
        return error_set(error, STATUS_MEMORY, "out of memory while personas were loaded");
    }
    persona->id = row->id;
    persona->version = row->version;
    persona->owner_uid = row->owner_uid;
    persona->visibility =
        row->visibility == VISIBILITY_PUBLIC ? VISIBILITY_PUBLIC : VISIBILITY_PRIVATE;
    persona->created_us = row->created_us;
    if (state_push(&store->personas, persona) != STATUS_OK) {
        persona_destroy(persona);
        return error_set(error, STATUS_MEMORY, "out of memory while personas were loaded");
    }
    user->content_bytes += card->arena.used_bytes;
    return STATUS_OK;
}

static struct prompt *find_prompt(const struct loading *loading, struct bytes digest,
                                  uint64_t *place)
{
    struct prompt *prompt;

    for (*place = bytes_load_u64(digest.data);; ++*place) {
        *place = *place == 0 ? 1 : *place;
        prompt = table_find(&loading->prompts, *place);
        if (prompt == NULL || memcmp(prompt->digest, digest.data, JOURNAL_DIGEST_BYTES) == 0) {
            return prompt;
        }
    }
}

static enum status on_prompt(void *context, const struct journal_prompt *row, struct error *error)
{
    struct loading *loading = context;
    const struct persona *persona = state_persona_find(loading->store, row->persona_id);
    struct prompt *prompt = NULL;
    uint64_t place = 0;

    if (persona == NULL) {
        return damaged(error, "a prompt of persona", row->persona_id);
    }
    TRY(prompt_restore(persona, &loading->store->template, row, error, &prompt));
    TRY(state_prompt_share(loading->store, prompt, error, &prompt));
    if (find_prompt(loading, bytes_of(row->digest, JOURNAL_DIGEST_BYTES), &place) != NULL ||
        table_insert(&loading->prompts, place, prompt) != STATUS_OK) {
        state_prompt_release(loading->store, prompt);
        return error_set(error, STATUS_MEMORY, "out of memory while prompts were loaded");
    }
    return STATUS_OK;
}

static void release_prompts(struct loading *loading)
{
    uint32_t cursor = 0;
    uint64_t place = 0;
    void *prompt = NULL;

    while (table_next(&loading->prompts, &cursor, &place, &prompt)) {
        state_prompt_release(loading->store, prompt);
    }
    table_finish(&loading->prompts);
}

/* ---- sessions ---- */

static enum status fill_session(struct store *store, const struct journal_session *row,
                                struct session *session)
{
    session->id = row->id;
    session->owner_uid = row->owner_uid;
    session->seed = row->seed;
    session->created_us = row->created_us;
    session->context_tokens = row->context_tokens;
    session->cast.mode = (enum group_mode)row->group_mode;
    session->root.session = session;
    session->root.is_visible = true;
    session->head = &session->root;
    session->is_open = true;
    session->is_foreign =
        memcmp(row->origin.model_hash, store->settings.model_hash, JOURNAL_DIGEST_BYTES) != 0;
    session->is_elsewhere =
        !bytes_equal(row->origin.numerics_id, bytes_of_text(store->settings.numerics_id));
    session->label = memory_copy_text((const char *)row->label.data, row->label.size);
    session->label_bytes = (uint32_t)row->label.size;
    session->stored_head = (struct position){row->head_node, row->head_offset};
    return session->label != NULL ? STATUS_OK : STATUS_MEMORY;
}

static enum status on_session(void *context, const struct journal_session *row,
                              const struct rows_session *more, struct error *error)
{
    struct store *store = ((struct loading *)context)->store;
    struct session *session;
    struct user *user = NULL;

    if (row->group_mode > GROUP_JOINT) {
        return damaged(error, "the cast of session", row->id);
    }
    TRY(state_user(store, row->owner_uid, error, &user));
    session = memory_alloc(1, sizeof(*session));
    if (session == NULL || fill_session(store, row, session) != STATUS_OK ||
        state_push(&store->sessions, session) != STATUS_OK) {
        open_session_destroy(store, session);
        return error_set(error, STATUS_MEMORY, "out of memory while sessions were loaded");
    }
    session->node_count = more->node_count;
    session->stored_head_count = more->head_content_count;
    session->residence = SESSION_ABSENT;
    user->session_count++;
    return STATUS_OK;
}

static enum status on_member(void *context, const struct journal_member *row, struct error *error)
{
    struct loading *loading = context;
    struct store *store = loading->store;
    struct session *session = state_session_find(store, row->session_id);
    struct prompt *prompt = NULL;
    uint64_t place = 0;
    enum status status;

    if (session == NULL || row->speaker != session->cast.count) {
        return damaged(error, "the cast of session", row->session_id);
    }
    if (row->prompt_digest.size > 0) {
        prompt = row->prompt_digest.size == JOURNAL_DIGEST_BYTES
                     ? find_prompt(loading, row->prompt_digest, &place)
                     : NULL;
        if (prompt == NULL) {
            return damaged(error, "the cast of session", row->session_id);
        }
        prompt->reference_count++;
    }
    status = cast_add(&session->cast, row->name, prompt, error);
    if (status != STATUS_OK && prompt != NULL) {
        state_prompt_release(store, prompt);
    }
    return status;
}

static enum status on_preamble(void *context, const struct journal_preamble *row,
                               struct error *error)
{
    struct store *store = ((struct loading *)context)->store;
    struct session *session = state_session_find(store, row->session_id);
    struct cast_member *member;

    if (session == NULL || session->cast.mode != GROUP_JOINT ||
        row->speaker >= session->cast.count) {
        return damaged(error, "the cast of session", row->session_id);
    }
    member = &session->cast.members[row->speaker];
    if (member->prompt == NULL || member->system.data != NULL) {
        return damaged(error, "the cast of session", row->session_id);
    }
    return cast_keep_texts(member, row->system, row->examples, error);
}

static enum status on_joint(void *context, const struct journal_joint *row, struct error *error)
{
    struct loading *loading = context;
    struct session *session = state_session_find(loading->store, row->session_id);
    uint64_t place = 0;
    struct prompt *prompt =
        find_prompt(loading, bytes_of(row->prompt_digest, JOURNAL_DIGEST_BYTES), &place);

    if (session == NULL || session->cast.mode != GROUP_JOINT || prompt == NULL ||
        row->member_count > session->cast.count) {
        return damaged(error, "the cast of session", row->session_id);
    }
    TRY(cast_add_joint(&session->cast, prompt, row->member_count, error));
    prompt->reference_count++;
    return STATUS_OK;
}

/* ---- keys and unfinished nodes ---- */

static enum status on_key(void *context, const struct journal_key *row, struct error *error)
{
    struct store *store = ((struct loading *)context)->store;
    struct key *key = NULL;
    enum status status;

    if (row->nodes.size % sizeof(uint64_t) != 0 || row->request >= REQUEST_COUNT) {
        return damaged(error, "a client key of user", row->uid);
    }
    status = key_create(store, row->uid, row->key, (uint32_t)(row->nodes.size / sizeof(uint64_t)),
                        error, &key);
    if (status == STATUS_LIMIT) {
        return STATUS_OK; /* the oldest promise that can be kept is kept */
    }
    TRY(status);
    if (key == NULL) {
        return damaged(error, "a client key of user", row->uid);
    }
    key->type = (enum request_type)row->request;
    key->session_id = row->session_id;
    if (key->node_count > 0) {
        memcpy(key->nodes, row->nodes.data, row->nodes.size);
    }
    status = key_remember(store, key, error);
    if (status != STATUS_OK) {
        key_destroy(key);
    }
    return status;
}

static enum status set_label(char **label, uint32_t *bytes, struct bytes text)
{
    char *copy = memory_copy_text((const char *)text.data, text.size);

    if (copy == NULL) {
        return STATUS_MEMORY;
    }
    memory_free(*label);
    *label = copy;
    *bytes = (uint32_t)text.size;
    return STATUS_OK;
}

static enum status on_note(void *context, const struct journal_note *row, struct error *error)
{
    struct loading *loading = context;
    struct session *session = state_session_find(loading->store, row->id);
    struct persona *persona = state_persona_find(loading->store, row->id);
    const bool is_deleted = (row->flags & JOURNAL_NOTE_DELETED) != 0;
    enum status status = STATUS_OK;

    if (row->name.size > LABEL_BYTES_MAX || row->label.size > LABEL_BYTES_MAX ||
        row->kind > JOURNAL_NOTE_BOOKMARK) {
        return damaged(error, "a note about", row->id);
    }
    if (row->kind == JOURNAL_NOTE_SESSION && session != NULL) {
        session->is_deleted = is_deleted;
        status = set_label(&session->label, &session->label_bytes, row->label);
    } else if (row->kind == JOURNAL_NOTE_PERSONA && persona != NULL) {
        persona->is_deleted = is_deleted;
        persona->is_from_file = (row->flags & JOURNAL_NOTE_FROM_FILE) != 0;
    }
    return status == STATUS_OK ? STATUS_OK
                               : error_set(error, status, "out of memory while notes were loaded");
}

static enum status on_unfinished(void *context, uint64_t node_id, uint64_t session_id,
                                 struct error *error)
{
    struct loading *loading = context;
    struct unfinished_list *list = &loading->unfinished;

    if (list->count == list->capacity) {
        const uint32_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        struct unfinished_node *ids = memory_resize(list->ids, capacity, sizeof(*ids));

        if (ids == NULL) {
            return error_set(error, STATUS_MEMORY, "out of memory while sessions were loaded");
        }
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = (struct unfinished_node){node_id, session_id};
    return STATUS_OK;
}

static enum status check_casts(struct store *store, struct error *error)
{
    for (uint32_t i = 0; i < store->sessions.count; i++) {
        const struct session *session = store->sessions.items[i];

        const struct cast *cast = &session->cast;

        if (cast->count == 0 || cast_first_persona(cast) == CAST_START ||
            (cast->mode == GROUP_JOINT) != (cast->joint_count > 0)) {
            return damaged(error, "the cast of session", session->id);
        }
    }
    return STATUS_OK;
}

static enum status load_last(struct store *store, struct error *error)
{
    struct rows_last last = {0};

    TRY(rows_read_last(journal_database(store->settings.journal), error, &last));
    store->last_persona_id = last.persona_id;
    store->last_session_id = last.session_id;
    store->last_node_id = last.node_id;
    return STATUS_OK;
}

static void go_on(struct store *store, const struct loading *loading)
{
    uint32_t resumed_count = 0;

    for (uint32_t i = 0; i < loading->unfinished.count; i++) {
        const uint64_t id = loading->unfinished.ids[i].node;
        struct session *session = state_session_find(store, loading->unfinished.ids[i].session);

        if (session != NULL && residence_load_now(store, session)) {
            resumed_count += resume_node(store, table_find(&store->nodes, id));
        }
    }
    if (loading->unfinished.count > 0) {
        log_line(LOG_INFO, "session", "%u of %u unfinished replies go on", resumed_count,
                 loading->unfinished.count);
    }
}

enum status load_all(struct store *store, struct error *error)
{
    const uint64_t started_ns = clock_monotonic_ns();
    struct loading loading = {.store = store};
    const struct rows_visitor visitor = {&loading,  on_persona,   on_prompt, on_session,
                                         on_member, on_preamble,  on_joint,  on_key,
                                         on_note,   on_unfinished};
    enum status status;

    table_init(&loading.prompts);
    status = rows_read_all(journal_database(store->settings.journal), &visitor, error);
    if (status == STATUS_OK) {
        status = load_last(store, error);
    }
    if (status == STATUS_OK) {
        status = check_casts(store, error);
    }
    if (status == STATUS_OK) {
        go_on(store, &loading);
        log_line(LOG_INFO, "session", "%u sessions and %u personas in %llu ms",
                 store->sessions.count, store->personas.count,
                 (unsigned long long)((clock_monotonic_ns() - started_ns) / 1000000));
    }
    release_prompts(&loading);
    memory_free(loading.unfinished.ids);
    return status;
}
