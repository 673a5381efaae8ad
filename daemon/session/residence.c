#include "session/residence.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "journal/rows.h"
#include "session/author_note.h"
#include "session/bookmark.h"
#include "session/expansion.h"
#include "session/export.h"
#include "session/key.h"
#include "session/load_tree.h"

enum { TRIM_LOOK_COUNT = 256 };

/* After the last sign of a request that needs all trees. */
static const uint64_t hold_ns = UINT64_C(10) * 1000 * 1000 * 1000;

/* ---- what a request names ---- */

struct naming {
    uint64_t session_id; /* 0: none */
    const uint64_t *nodes;
    uint32_t node_count;
};

static struct naming naming_of_look(const struct store *store, const struct request *request)
{
    struct naming naming = {0};

    switch (request->type) {
    case REQUEST_NOTE:
        naming.session_id = request->u.note.session;
        break;
    case REQUEST_DISTRIBUTION:
        naming.session_id = request->u.distribution.place.session;
        break;
    case REQUEST_COMPARE:
        naming.session_id = request->u.compare.session;
        break;
    case REQUEST_GROUP:
        naming.session_id = request->u.group.session;
        break;
    case REQUEST_VERIFY:
        naming.session_id = request->u.verify.session;
        naming.nodes = &request->u.verify.node;
        naming.node_count = request->u.verify.node != 0;
        break;
    case REQUEST_EXPAND:
        naming.session_id = request->u.expand.place.session;
        break;
    case REQUEST_KEEP:
        naming.session_id = expansion_session(store, request->u.keep.expansion);
        break;
    default:
        break;
    }
    return naming;
}

static struct naming naming_of(const struct store *store, const struct request *request)
{
    const struct key *key = key_find(store, request->uid, request->client_key);
    struct naming naming = {0};

    if (key != NULL) {
        naming.session_id = key->session_id; /* it may be repeated */
        return naming;
    }
    switch (request->type) {
    case REQUEST_SAY:
        naming.session_id = request->u.say.session;
        break;
    case REQUEST_GENERATE:
        naming.session_id = request->u.generate.session;
        break;
    case REQUEST_APPEND:
        naming.session_id = request->u.append.session;
        break;
    case REQUEST_WALK:
        naming.session_id = request->u.walk.session;
        break;
    case REQUEST_HEAD:
        naming.session_id = request->u.head.session;
        break;
    case REQUEST_FOLLOW:
        naming.nodes = &request->u.follow.node;
        naming.node_count = 1;
        break;
    case REQUEST_EDIT:
        naming.nodes = &request->u.edit.node;
        naming.node_count = 1;
        break;
    case REQUEST_CANCEL:
        naming.session_id = request->u.cancel.session;
        naming.nodes = request->u.cancel.nodes;
        naming.node_count = request->u.cancel.node_count;
        break;
    case REQUEST_SESSION_DELETE:
        naming.session_id = request->u.session_delete.session;
        break;
    case REQUEST_SESSION_SET:
        naming.session_id = request->u.session_set.session;
        break;
    case REQUEST_BOOKMARK:
        naming.session_id = request->u.bookmark.session;
        break;
    case REQUEST_BOOKMARK_LIST:
        naming.session_id = request->u.bookmark_list.session;
        break;
    case REQUEST_DELETE:
    case REQUEST_UNDELETE:
    case REQUEST_PURGE:
        naming.nodes = request->u.nodes.nodes;
        naming.node_count = request->u.nodes.count;
        break;
    case REQUEST_LABEL:
        naming.nodes = &request->u.label.node;
        naming.node_count = 1;
        break;
    case REQUEST_CONTEXT:
        naming.nodes = &request->u.context.node;
        naming.node_count = 1;
        break;
    default:
        naming = naming_of_look(store, request);
        break;
    }
    return naming;
}

/* ---- asking ---- */

static enum status ask_session(struct store *store, struct session *session, uint32_t uid,
                               struct error *error)
{
    const struct journal_read read = {.session_id = session->id};

    if (session->owner_uid != uid || session->residence == SESSION_RESIDENT) {
        return STATUS_OK; /* the request itself answers that it is another user's */
    }
    if (session->is_damaged) {
        return error_set(error, STATUS_STORAGE,
                         "session %llu cannot be read; the daemon's log says why",
                         (unsigned long long)session->id);
    }
    if (session->residence == SESSION_ABSENT &&
        journal_read(store->settings.journal, &read) == STATUS_OK) {
        session->residence = SESSION_LOADING;
    }
    return STATUS_AGAIN;
}

static bool is_absent(const struct store *store, uint64_t node)
{
    if (node == 0 || node > store->last_node_id) {
        return true;
    }
    for (uint32_t i = 0; i < ABSENT_COUNT; i++) {
        if (store->absent_nodes[i] == node) {
            return true;
        }
    }
    return false;
}

/* A node whose session is not known: the journal knows it. */
static enum status ask_node(struct store *store, uint64_t node)
{
    const struct journal_read read = {.node_id = node};

    if (table_find(&store->nodes, node) != NULL || is_absent(store, node)) {
        return STATUS_OK;
    }
    if (journal_read(store->settings.journal, &read) != STATUS_OK) {
        return STATUS_AGAIN; /* the queue is full: it is asked for again */
    }
    return STATUS_AGAIN;
}

/* Requests that name many sessions. */
static enum status ask_many(struct store *store, const struct request *request, struct error *error)
{
    const bool is_all = request->type == REQUEST_VERIFY && request->u.verify.all;
    enum status status = STATUS_OK;

    for (uint32_t i = 0; request->type == REQUEST_SCORE && i < request->u.score.item_count; i++) {
        struct session *session =
            state_session_find(store, request->u.score.items[i].place.session);

        if (session != NULL && status == STATUS_OK) {
            status = ask_session(store, session, request->uid, error);
        }
    }
    if (is_all) {
        /* All of them at once: the bound on memory waits until they are through. */
        store->held_until_ns = clock_monotonic_ns() + hold_ns;
    }
    for (uint32_t i = 0; is_all && i < store->sessions.count; i++) {
        struct session *session = store->sessions.items[i];

        if (!session->is_damaged && !session->is_deleted &&
            ask_session(store, session, request->uid, error) == STATUS_AGAIN) {
            status = STATUS_AGAIN;
        }
    }
    return status;
}

enum status residence_prepare(struct store *store, const struct request *request,
                              struct error *error)
{
    const struct naming naming = naming_of(store, request);
    struct session *session =
        naming.session_id != 0 ? state_session_find(store, naming.session_id) : NULL;
    enum status status = ask_many(store, request, error);

    if (session != NULL && status == STATUS_OK) {
        status = ask_session(store, session, request->uid, error);
    }
    for (uint32_t i = 0; i < naming.node_count && status == STATUS_OK; i++) {
        status = ask_node(store, naming.nodes[i]);
    }
    return status;
}

/* ---- taking ---- */

static void take_tree(struct store *store, struct session *session, struct journal_tree *read)
{
    if (session->residence == SESSION_RESIDENT) {
        return; /* it came twice: by its own id and by a node's */
    }
    session->residence = SESSION_ABSENT;
    if (read->status == STATUS_OK) {
        read->status = load_tree(store, session, read->tree, &read->error);
    }
    if (read->status == STATUS_OK) {
        residence_used(store, session);
        return;
    }
    /* Memory may be there another time. */
    session->is_damaged = read->status != STATUS_MEMORY;
    log_line(LOG_ERROR, "session", "session %llu: %s", (unsigned long long)session->id,
             read->error.text);
}

void residence_take(struct store *store)
{
    struct journal_tree read;
    bool has_news = false;

    while (journal_tree_pop(store->settings.journal, &read) == STATUS_OK) {
        struct session *session = state_session_find(store, read.session_id);

        if (read.read.transfer != 0) {
            export_take(store, &read);
            rows_tree_destroy(read.tree);
            continue;
        }
        if (session != NULL) {
            take_tree(store, session, &read);
        }
        if (read.read.node_id != 0 && table_find(&store->nodes, read.read.node_id) == NULL) {
            store->absent_nodes[store->absent_at++ % ABSENT_COUNT] = read.read.node_id;
        }
        rows_tree_destroy(read.tree);
        has_news = true;
    }
    if (has_news && store->settings.events.on_loaded != NULL) {
        store->settings.events.on_loaded(store->settings.events.context);
    }
}

bool residence_load_now(struct store *store, struct session *session)
{
    struct journal_tree read = {.session_id = session->id};

    if (session->residence != SESSION_RESIDENT && !session->is_damaged) {
        read.status = rows_read_tree(journal_database(store->settings.journal), session->id,
                                     &read.error, &read.tree);
        take_tree(store, session, &read);
        rows_tree_destroy(read.tree);
    }
    return session->residence == SESSION_RESIDENT;
}

/* ---- letting go ---- */

void residence_used(struct store *store, struct session *session)
{
    session->is_used = true;
    session->idle_mark = journal_submitted_count(store->settings.journal);
}

void residence_note(struct store *store, const struct request *request)
{
    const struct naming naming = naming_of(store, request);
    struct session *session =
        naming.session_id != 0 ? state_session_find(store, naming.session_id) : NULL;

    if (session != NULL) {
        residence_used(store, session);
    }
    for (uint32_t i = 0; i < naming.node_count; i++) {
        const struct node *node = table_find(&store->nodes, naming.nodes[i]);

        if (node != NULL) {
            residence_used(store, node->session);
        }
    }
}

static bool is_resting(const struct store *store, const struct session *session)
{
    return journal_is_writable(store->settings.journal) && session->residence == SESSION_RESIDENT &&
           session->is_open && session->node_count > 0 && session->branch_count == 0 &&
           session->follower_count == 0 && session->loan_count == 0 &&
           journal_told_count(store->settings.journal) >= session->idle_mark;
}

void residence_let_go(struct store *store, struct session *session)
{
    uint32_t count = 0;

    node_content(session->head, &count);
    session->stored_head = (struct position){session->head->id, session->head_offset};
    session->stored_head_count = count;
    for (struct node *node = tree_next_of_all(&session->root, &session->root); node != NULL;
         node = tree_next_of_all(&session->root, node)) {
        state_account(store, node, false);
        CHECK(table_remove(&store->nodes, node->id) == node);
    }
    count = session->node_count;
    state_account_bytes(store, session, 0 - author_note_bytes(session));
    author_note_finish(session);
    bookmark_finish(session);
    tree_finish(session);
    memset(&session->root.children, 0, sizeof(session->root.children));
    session->node_count = count;
    session->head = &session->root;
    session->residence = SESSION_ABSENT;
    log_line(LOG_DEBUG, "session", "the tree of session %llu is left to the journal",
             (unsigned long long)session->id);
    CHECK(session->resident_bytes == 0);
}

/* Second chance: who was used since the last look stays for one more. */
void residence_trim(struct store *store)
{
    const uint64_t most = store->settings.resident_bytes_max;

    if (store->held_until_ns != 0 && clock_monotonic_ns() < store->held_until_ns) {
        return;
    }

    for (uint32_t i = 0; i < TRIM_LOOK_COUNT && i < store->sessions.count; i++) {
        struct session *session;

        if (store->resident_bytes <= most || store->look_count > 0) {
            return; /* looks borrow from trees */
        }
        session = store->sessions.items[store->trim_at++ % store->sessions.count];
        if (session->is_used) {
            session->is_used = false;
        } else if (is_resting(store, session)) {
            residence_let_go(store, session);
        }
    }
}
