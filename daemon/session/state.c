#include "session/state.h"

#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"

enum status state_push(struct id_array *array, void *item)
{
    if (array->count == array->capacity) {
        const uint32_t capacity = array->capacity == 0 ? 8 : array->capacity * 2;
        void **items = memory_resize(array->items, capacity, sizeof(*items));

        if (items == NULL) {
            return STATUS_MEMORY;
        }
        array->items = items;
        array->capacity = capacity;
    }
    array->items[array->count++] = item;
    return STATUS_OK;
}

static uint64_t persona_id(const void *item)
{
    return ((const struct persona *)item)->id;
}

static uint64_t session_id(const void *item)
{
    return ((const struct session *)item)->id;
}

static uint32_t index_after(const struct id_array *array, uint64_t after,
                            uint64_t (*id_of)(const void *item))
{
    uint32_t from = 0;
    uint32_t to = array->count;

    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;

        if (id_of(array->items[middle]) <= after) {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    return from;
}

static void *find(const struct id_array *array, uint64_t id, uint64_t (*id_of)(const void *item))
{
    const uint32_t at = id == 0 ? array->count : index_after(array, id - 1, id_of);

    return at < array->count && id_of(array->items[at]) == id ? array->items[at] : NULL;
}

struct persona *state_persona_find(const struct store *store, uint64_t id)
{
    return find(&store->personas, id, persona_id);
}

struct session *state_session_find(const struct store *store, uint64_t id)
{
    return find(&store->sessions, id, session_id);
}

uint32_t state_persona_index(const struct store *store, uint64_t after)
{
    return index_after(&store->personas, after, persona_id);
}

uint32_t state_session_index(const struct store *store, uint64_t after)
{
    return index_after(&store->sessions, after, session_id);
}

enum status state_session_open(const struct store *store, uint64_t id, uint32_t uid,
                               struct error *error, struct session **out)
{
    struct session *session = state_session_find(store, id);

    if (session == NULL) {
        return error_set(error, STATUS_NOT_FOUND, "there is no session %llu",
                         (unsigned long long)id);
    }
    if (session->owner_uid != uid) {
        return error_set(error, STATUS_DENIED, "session %llu belongs to another user",
                         (unsigned long long)id);
    }
    if (session->is_deleted) {
        return error_set(error, STATUS_NOT_FOUND,
                         "session %llu is deleted; SessionDelete with undo brings it back",
                         (unsigned long long)id);
    }
    if (session->residence != SESSION_RESIDENT) {
        return error_set(error, STATUS_STORAGE,
                         "the tree of session %llu was not loaded for this request",
                         (unsigned long long)id);
    }
    *out = session;
    return STATUS_OK;
}

enum status state_node_open(const struct store *store, uint64_t id, uint32_t uid,
                            struct error *error, struct node **out)
{
    struct node *node = id == 0 ? NULL : table_find(&store->nodes, id);

    if (node == NULL || (node->session->owner_uid == uid && !node->is_visible)) {
        return error_set(error, STATUS_NOT_FOUND, "there is no node %llu", (unsigned long long)id);
    }
    if (node->session->owner_uid != uid) {
        return error_set(error, STATUS_DENIED, "node %llu belongs to another user",
                         (unsigned long long)id);
    }
    if (node->is_purged || node->session->is_deleted) {
        return error_set(error, STATUS_NOT_FOUND, "%s %llu is %s",
                         node->is_purged ? "node" : "session",
                         (unsigned long long)(node->is_purged ? id : node->session->id),
                         node->is_purged ? "purged" : "deleted");
    }
    *out = node;
    return STATUS_OK;
}

struct position state_head_position(const struct session *session)
{
    uint32_t count = session->stored_head_count;
    struct position head = session->stored_head;

    if (session->residence == SESSION_RESIDENT) {
        node_content(session->head, &count);
        head = (struct position){session->head->id, session->head_offset};
    }
    head.offset = head.offset < count ? head.offset : count;
    return head;
}

struct place state_head(const struct session *session)
{
    return (struct place){session->head, state_head_position(session).offset};
}

enum status state_place(const struct store *store, struct session *session, bool has_position,
                        struct position position, struct error *error, struct place *out)
{
    return state_place_any(store, session, has_position, position, false, error, out);
}

static enum status check_hidden(struct node *node, struct error *error)
{
    const struct node *hidden_by = tree_hidden_by(node);

    if (hidden_by == NULL) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_NOT_FOUND, "node %llu is deleted; Undelete brings it back",
                     (unsigned long long)hidden_by->id);
}

enum status state_place_any(const struct store *store, struct session *session, bool has_position,
                            struct position position, bool deleted, struct error *error,
                            struct place *out)
{
    struct place place = {&session->root, 0};
    uint32_t count = 0;

    if (!has_position) {
        *out = state_head(session);
        return STATUS_OK;
    }
    if (position.node != 0) {
        TRY(state_node_open(store, position.node, session->owner_uid, error, &place.node));
        if (place.node->session != session) {
            return error_set(error, STATUS_BAD_INPUT, "node %llu is not in session %llu",
                             (unsigned long long)position.node, (unsigned long long)session->id);
        }
        if (!deleted) {
            TRY(check_hidden(place.node, error));
        }
    }
    node_content(place.node, &count);
    place.offset = position.offset == OFFSET_END ? count : position.offset;
    if (place.offset > count) {
        return error_set(error, STATUS_BAD_INPUT,
                         "offset %u lies behind the %u tokens that node %llu has", position.offset,
                         count, (unsigned long long)position.node);
    }
    *out = place;
    return STATUS_OK;
}

void state_head_leave(struct session *session)
{
    for (struct node *hidden_by = tree_hidden_by(session->head); hidden_by != NULL;
         hidden_by = tree_hidden_by(session->head)) {
        session->head = hidden_by->parent;
        session->head_offset = hidden_by->parent_offset;
    }
}

enum status state_user(struct store *store, uint32_t uid, struct error *error, struct user **out)
{
    struct user *user = table_find(&store->users, (uint64_t)uid + 1);

    if (user == NULL) {
        if (store->users.count >= USER_COUNT_MAX) {
            return error_set_limit(error, "USER_COUNT_MAX", USER_COUNT_MAX,
                                   "the daemon serves at most %u users", (unsigned)USER_COUNT_MAX);
        }
        user = memory_alloc(1, sizeof(*user));
        if (user == NULL || table_insert(&store->users, (uint64_t)uid + 1, user) != STATUS_OK) {
            memory_free(user);
            return error_set(error, STATUS_MEMORY, "out of memory for another user");
        }
        user->uid = uid;
    }
    *out = user;
    return STATUS_OK;
}

void state_account_bytes(struct store *store, struct session *session, uint64_t bytes)
{
    struct user *user = table_find(&store->users, (uint64_t)session->owner_uid + 1);

    CHECK(user != NULL);
    user->content_bytes += bytes;
    session->resident_bytes += bytes;
    store->resident_bytes += bytes;
}

void state_account(struct store *store, struct node *node, bool is_added)
{
    const uint64_t bytes = node_stored_bytes(node);

    state_account_bytes(store, node->session, is_added ? bytes : 0 - bytes);
}

enum status state_content_check(const struct user *user, uint64_t bytes, struct error *error)
{
    const uint64_t most = (uint64_t)CONTENT_MIB_PER_USER_MAX << 20;

    if (bytes > most || user->content_bytes > most - bytes) {
        return error_set_limit(error, "CONTENT_MIB_PER_USER_MAX", CONTENT_MIB_PER_USER_MAX,
                               "your sessions and personas hold %llu MiB, which is the most",
                               (unsigned long long)(user->content_bytes >> 20));
    }
    return STATUS_OK;
}

/* Whether two prompts are the same in all that a session takes from them. */
static bool is_same_prompt(const struct prompt *a, const struct prompt *b)
{
    return a->persona == b->persona && a->template.format == b->template.format &&
           a->end.side == b->end.side && a->is_open == b->is_open && a->ids.count == b->ids.count &&
           (a->ids.count == 0 ||
            memcmp(a->ids.ids, b->ids.ids, a->ids.count * sizeof(uint32_t)) == 0) &&
           bytes_equal(buffer_bytes(&a->names), buffer_bytes(&b->names)) &&
           bytes_equal(a->character, b->character) &&
           bytes_equal(buffer_bytes(&a->post_history), buffer_bytes(&b->post_history)) &&
           bytes_equal(buffer_bytes(&a->inserts.stored), buffer_bytes(&b->inserts.stored));
}

enum status state_prompt_share(struct store *store, struct prompt *made, struct error *error,
                               struct prompt **out)
{
    struct prompt *prompt = table_find(&store->prompts, made->scope);

    /* A scope is a short hash: two prompts may meet, and must not share. */
    while (prompt != NULL && !is_same_prompt(prompt, made)) {
        made->scope++;
        prompt = table_find(&store->prompts, made->scope);
    }
    if (prompt != NULL) {
        prompt_destroy(made);
    } else if (table_insert(&store->prompts, made->scope, made) == STATUS_OK) {
        prompt = made;
    } else {
        prompt_destroy(made);
        return error_set(error, STATUS_MEMORY, "out of memory for another prompt");
    }
    prompt->reference_count++;
    *out = prompt;
    return STATUS_OK;
}

void state_prompt_release(void *context, struct prompt *prompt)
{
    struct store *store = context;

    if (--prompt->reference_count > 0) {
        return;
    }
    CHECK(table_remove(&store->prompts, prompt->scope) == prompt);
    if (engine_release_scope(store->settings.engine, prompt->scope) != STATUS_OK) {
        log_line(LOG_WARN, "session", "the cache of a prompt was not told that it is gone");
    }
    prompt_destroy(prompt);
}
