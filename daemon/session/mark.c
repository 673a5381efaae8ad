#include "session/mark.h"

#include "base/check.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/author_note.h"
#include "session/bookmark.h"
#include "session/expansion.h"
#include "session/generate.h"
#include "session/noting.h"

/* ---- subtrees ---- */

void mark_cancel_below(struct store *store, struct node *top)
{
    for (struct node *node = top; node != NULL; node = tree_next_of_all(top, node)) {
        if (node->sampled != NULL && !node->is_finish_visible) {
            generate_cancel(store, node);
        }
    }
}

static bool is_busy(const struct node *node)
{
    return node->parent != NULL && !node->is_purged &&
           (!node->is_finish_visible || node->waiters != NULL ||
            (node->sampled != NULL && node->sampled->generation != NULL));
}

enum status mark_check_idle(struct node *top, struct error *error)
{
    if (top->session->loan_count > 0) {
        return error_set(error, STATUS_CONFLICT,
                         "session %llu is being computed with; try again when that has ended",
                         (unsigned long long)top->session->id);
    }
    for (struct node *node = top; node != NULL; node = tree_next_of_all(top, node)) {
        if (is_busy(node)) {
            return error_set(error, STATUS_CONFLICT,
                             "node %llu is still being generated or stored; cancel it and wait",
                             (unsigned long long)node->id);
        }
    }
    return STATUS_OK;
}

/* ---- requests ---- */

/* What one request does to each of its nodes. */
struct marking {
    enum status (*check)(struct node *node, struct error *error);
    enum status (*note)(struct journal_batch *batch, struct node *node);
    void (*apply)(struct store *store, struct node *node);
};

static enum status prepare(struct store *store, const struct request *request,
                           const struct marking *marking, struct noting *noting)
{
    const struct request_nodes *asked = &request->u.nodes;
    enum status added = STATUS_OK;
    struct node *node = NULL;

    for (uint32_t i = 0; i < asked->count; i++) {
        TRY(state_node_open(store, asked->nodes[i], request->uid, noting->error, &node));
        TRY(marking->check(node, noting->error));
    }
    for (uint32_t i = 0; i < asked->count && added == STATUS_OK; i++) {
        added = marking->note(noting->batch, table_find(&store->nodes, asked->nodes[i]));
    }
    return noting_submit(noting, added);
}

/* All of them are checked before the first one is touched. */
static void run(struct store *store, const struct request *request, struct reply_to to,
                const struct marking *marking)
{
    const struct request_nodes *asked = &request->u.nodes;
    struct noting noting;
    struct error error = {0};
    enum status status = noting_init(&noting, store, request, to, &error);

    if (status == STATUS_OK) {
        status = prepare(store, request, marking, &noting);
    }
    if (status == STATUS_OK) {
        for (uint32_t i = 0; i < asked->count; i++) {
            marking->apply(store, table_find(&store->nodes, asked->nodes[i]));
        }
        noting_answer(&noting);
    } else {
        answer_error(store, to, request->type, &error);
    }
    noting_finish(&noting);
}

static enum status check_nothing(struct node *node, struct error *error)
{
    (void)node;
    (void)error;
    return STATUS_OK;
}

static enum status note_delete(struct journal_batch *batch, struct node *node)
{
    return record_add_mark(batch, node, true, node->is_purged);
}

/* Its reader is left standing where the deleted node hangs. */
static void apply_delete(struct store *store, struct node *node)
{
    struct session *session = node->session;
    const struct node *before = session->head;
    uint64_t ticket = 0;

    node->is_deleted = true;
    mark_cancel_below(store, node);
    state_head_leave(session);
    if (session->head != before && record_head(store, session, NULL, &ticket) != STATUS_OK) {
        return; /* a later start finds out by itself where the reader has to stand */
    }
}

void mark_delete(struct store *store, const struct request *request, struct reply_to to)
{
    static const struct marking marking = {check_nothing, note_delete, apply_delete};

    run(store, request, to, &marking);
}

static enum status note_undelete(struct journal_batch *batch, struct node *node)
{
    return record_add_mark(batch, node, false, node->is_purged);
}

static void apply_undelete(struct store *store, struct node *node)
{
    (void)store;
    node->is_deleted = false;
}

void mark_undelete(struct store *store, const struct request *request, struct reply_to to)
{
    static const struct marking marking = {check_nothing, note_undelete, apply_undelete};

    run(store, request, to, &marking);
}

static enum status check_purge(struct node *node, struct error *error)
{
    if (tree_hidden_by(node) == NULL) {
        return error_set(error, STATUS_CONFLICT,
                         "node %llu is not deleted; only what is deleted can be purged",
                         (unsigned long long)node->id);
    }
    return mark_check_idle(node, error);
}

static enum status note_purge(struct journal_batch *batch, struct node *top)
{
    for (struct node *node = top; node != NULL; node = tree_next_of_all(top, node)) {
        if (!node->is_purged) {
            TRY(record_add_mark(batch, node, node->is_deleted, true));
        }
    }
    return STATUS_OK;
}

static void apply_purge(struct store *store, struct node *top)
{
    struct session *session = top->session;

    for (struct node *node = top; node != NULL; node = tree_next_of_all(top, node)) {
        if (!node->is_purged) {
            state_account_bytes(store, session, sizeof(*node) - node_stored_bytes(node));
            node_purge(node);
        }
    }
    bookmark_drop_purged(session);
    author_note_drop_purged(store, session);
    expansion_forget_session(store, session->id);
}

void mark_purge(struct store *store, const struct request *request, struct reply_to to)
{
    static const struct marking marking = {check_purge, note_purge, apply_purge};

    run(store, request, to, &marking);
}

/* ---- labels ---- */

static enum status label(struct noting *noting, struct node *node, struct bytes text)
{
    const struct journal_note note = {.kind = JOURNAL_NOTE_NODE, .id = node->id, .label = text};
    char *copy = memory_copy_text((const char *)text.data, text.size);
    enum status status;

    if (copy == NULL) {
        return error_set(noting->error, STATUS_MEMORY, "out of memory for a label");
    }
    status = noting_submit(noting, record_add_note(noting->batch, &note));
    if (status != STATUS_OK) {
        memory_free(copy);
        return status;
    }
    memory_free(node->label);
    node->label = copy;
    node->label_bytes = (uint32_t)text.size;
    noting_answer(noting);
    return STATUS_OK;
}

void mark_label(struct store *store, const struct request *request, struct reply_to to)
{
    const struct request_label *asked = &request->u.label;
    struct node *node = NULL;
    struct noting noting;
    struct error error = {0};
    enum status status = noting_init(&noting, store, request, to, &error);

    if (status == STATUS_OK) {
        status = state_node_open(store, asked->node, request->uid, &error, &node);
    }
    if (status == STATUS_OK) {
        status = label(&noting, node, asked->label);
    }
    if (status != STATUS_OK) {
        answer_error(store, to, request->type, &error);
    }
    noting_finish(&noting);
}
