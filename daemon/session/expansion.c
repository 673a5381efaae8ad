#include "session/expansion.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

static const uint64_t idle_ns = (uint64_t)EXPANSION_IDLE_MS_MAX * 1000000;

/* ---- making ---- */

/* The user's one that was named longest ago and is not going, or NULL. */
static struct expansion *find_oldest(const struct store *store, const struct user *user)
{
    struct expansion *oldest = NULL;
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *value = NULL;

    while (table_next(&store->expansions, &cursor, &id, &value)) {
        struct expansion *expansion = value;

        if (expansion->user == user && !expansion->is_going &&
            (oldest == NULL || expansion->used_ns < oldest->used_ns ||
             (expansion->used_ns == oldest->used_ns && expansion->id < oldest->id))) {
            oldest = expansion;
        }
    }
    return oldest;
}

static enum status make_room(struct store *store, struct user *user, struct error *error)
{
    struct expansion *oldest;

    if (user->expansion_count < EXPANSION_PER_USER_COUNT_MAX) {
        return STATUS_OK;
    }
    oldest = find_oldest(store, user);
    if (oldest == NULL) {
        return error_set_limit(error, "EXPANSION_PER_USER_COUNT_MAX", EXPANSION_PER_USER_COUNT_MAX,
                               "you have %u expansions going; wait for one to end",
                               user->expansion_count);
    }
    expansion_forget(store, oldest);
    return STATUS_OK;
}

static void destroy(struct expansion *expansion)
{
    if (expansion != NULL) {
        memory_free(expansion->nodes);
        memory_free(expansion);
    }
}

enum status expansion_create(struct store *store, struct user *user, uint64_t connection,
                             uint32_t node_count_max, struct error *error, struct expansion **out)
{
    struct expansion *expansion;

    TRY(make_room(store, user, error));
    expansion = memory_alloc(1, sizeof(*expansion));
    if (expansion != NULL) {
        expansion->nodes = memory_alloc(node_count_max, sizeof(*expansion->nodes));
    }
    if (expansion == NULL || expansion->nodes == NULL ||
        table_insert(&store->expansions, store->last_expansion_id + 1, expansion) != STATUS_OK) {
        destroy(expansion);
        return error_set(error, STATUS_MEMORY, "out of memory for an expansion of %u nodes",
                         node_count_max);
    }
    expansion->id = ++store->last_expansion_id;
    expansion->connection = connection;
    expansion->uid = user->uid;
    expansion->user = user;
    expansion->is_going = true;
    expansion->used_ns = clock_monotonic_ns();
    expansion->node_count_max = node_count_max;
    user->expansion_count++;
    *out = expansion;
    return STATUS_OK;
}

/* ---- finding ---- */

enum status expansion_find(struct store *store, uint64_t id, uint32_t uid, struct error *error,
                           struct expansion **out)
{
    struct expansion *expansion;

    expansion_forget_idle(store);
    expansion = table_find(&store->expansions, id);
    if (expansion == NULL) {
        return error_set(error, STATUS_NOT_FOUND,
                         "there is no expansion %llu (any more): expand again, on this connection",
                         (unsigned long long)id);
    }
    if (expansion->uid != uid) {
        return error_set(error, STATUS_DENIED, "expansion %llu belongs to another user",
                         (unsigned long long)id);
    }
    expansion->used_ns = clock_monotonic_ns();
    *out = expansion;
    return STATUS_OK;
}

uint64_t expansion_session(const struct store *store, uint64_t id)
{
    const struct expansion *expansion = table_find(&store->expansions, id);

    return expansion != NULL ? expansion->session_id : 0;
}

enum status expansion_path(const struct expansion *expansion, uint32_t number, struct id_list *out)
{
    uint32_t count = 0;

    CHECK(number <= expansion->node_count);
    for (uint32_t at = number; at != 0; at = expansion->nodes[at - 1].parent) {
        count++;
    }
    TRY(id_list_reserve(out, count));
    out->count += count;
    for (uint32_t at = number, i = out->count; at != 0; at = expansion->nodes[at - 1].parent) {
        out->ids[--i] = expansion->nodes[at - 1].token;
    }
    return STATUS_OK;
}

/* ---- forgetting ---- */

void expansion_rest(struct store *store, struct expansion *expansion)
{
    CHECK(expansion->is_going);
    expansion->is_going = false;
    expansion->used_ns = clock_monotonic_ns();
    if (expansion->is_abandoned) {
        expansion_forget(store, expansion);
    }
}

void expansion_forget(struct store *store, struct expansion *expansion)
{
    CHECK(table_remove(&store->expansions, expansion->id) == expansion);
    expansion->user->expansion_count--;
    destroy(expansion);
}

enum forgotten { OF_CONNECTION, OF_SESSION, OF_TIME };

static bool is_forgotten(const struct expansion *expansion, enum forgotten what, uint64_t value)
{
    switch (what) {
    case OF_CONNECTION:
        return expansion->connection == value;
    case OF_SESSION:
        return expansion->session_id == value;
    default:
        return !expansion->is_going && value - expansion->used_ns > idle_ns;
    }
}

static void forget(struct store *store, enum forgotten what, uint64_t value)
{
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *found = NULL;

    while (table_next(&store->expansions, &cursor, &id, &found)) {
        struct expansion *expansion = found;

        if (!is_forgotten(expansion, what, value)) {
            continue;
        }
        if (expansion->is_going) {
            expansion->is_abandoned = true;
        } else {
            expansion_forget(store, expansion);
        }
    }
}

void expansion_forget_connection(struct store *store, uint64_t connection)
{
    forget(store, OF_CONNECTION, connection);
}

void expansion_forget_session(struct store *store, uint64_t session)
{
    forget(store, OF_SESSION, session);
}

void expansion_forget_idle(struct store *store)
{
    const uint64_t now_ns = clock_monotonic_ns();

    if (now_ns - store->expansions_checked_ns > idle_ns / 64) {
        store->expansions_checked_ns = now_ns;
        forget(store, OF_TIME, now_ns);
    }
}

void expansion_finish(struct store *store)
{
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *value = NULL;

    while (table_next(&store->expansions, &cursor, &id, &value)) {
        destroy(value);
    }
    table_finish(&store->expansions);
}
