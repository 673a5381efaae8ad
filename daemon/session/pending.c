#include "session/pending.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/import.h"
#include "session/import_save.h"
#include "session/key.h"

enum status pending_create(uint32_t node_count, struct bytes key, struct error *error,
                           struct pending **out)
{
    struct pending *pending = memory_alloc(1, sizeof(*pending));

    if (pending != NULL) {
        pending->nodes = memory_alloc(node_count, sizeof(struct node *));
        pending->waiters = memory_alloc(node_count, sizeof(struct waiter));
        pending->key = bytes_of(memory_copy_text((const char *)key.data, key.size), key.size);
    }
    if (pending == NULL || pending->nodes == NULL || pending->waiters == NULL ||
        pending->key.data == NULL) {
        pending_destroy(pending);
        return error_set(error, STATUS_MEMORY, "out of memory while an answer was prepared");
    }
    pending->node_count = node_count;
    *out = pending;
    return STATUS_OK;
}

void pending_ask(struct pending *pending, const struct request_generation *generation)
{
    if (generation != NULL) {
        pending->delivery = generation->delivery;
        pending->numbers = generation->numbers;
        pending->context = generation->context;
    }
}

void pending_destroy(struct pending *pending)
{
    if (pending != NULL) {
        memory_free((void *)(uintptr_t)pending->key.data);
        memory_free(pending->nodes);
        memory_free(pending->waiters);
        memory_free(pending);
    }
}

/* Those that are answered by Done once they are committed. */
static bool is_note(enum request_type type)
{
    return type == REQUEST_DELETE || type == REQUEST_UNDELETE || type == REQUEST_PURGE ||
           type == REQUEST_LABEL || type == REQUEST_NOTE || type == REQUEST_BOOKMARK ||
           type == REQUEST_SESSION_DELETE || type == REQUEST_PERSONA_DELETE ||
           type == REQUEST_BACKUP;
}

/* A commit has its status alone; a backup tells more, since its path is the caller's. */
static void tell_why(const struct store *store, const struct pending *pending, struct error *out)
{
    const struct error *error = journal_backup_error(store->settings.journal);

    if (pending->type == REQUEST_BACKUP && error->status == pending->status) {
        *out = *error;
    } else {
        error_set(out, pending->status, "%s", status_text(pending->status));
    }
}

static void complete(struct store *store, struct pending *pending)
{
    store->pending_count--;
    if (pending->transfer != 0) {
        import_saved(store, pending->transfer, pending->status);
    } else if (pending->status != STATUS_OK) {
        struct error error = {0};

        tell_why(store, pending, &error);
        key_forget(store, pending->uid, pending->key);
        answer_error(store, pending->to, pending->type, &error);
    } else if (pending->type == REQUEST_PERSONA_PUT) {
        answer_persona(store, pending->to, pending->type, pending->uid, pending->persona);
    } else if (pending->type == REQUEST_HEAD) {
        answer_head(store, pending->to, pending->head);
    } else if (pending->type == REQUEST_SESSION_SET) {
        answer_session(store, pending->to, pending->type, pending->session);
    } else if (pending->type == REQUEST_CANCEL || is_note(pending->type)) {
        answer_done(store, pending->to, pending->type);
    } else if (pending->type == REQUEST_SESSION_IMPORT) {
        import_answer(store, pending->to, pending->session);
    } else if (pending->type == REQUEST_SESSION_OPEN) {
        pending->session->is_open = true;
        answer_session(store, pending->to, pending->type, pending->session);
    } else {
        answer_created(store, pending);
    }
    pending_destroy(pending);
}

void pending_start(struct store *store, struct pending *pending, bool for_finish)
{
    store->pending_count++;
    for (uint32_t i = 0; i < pending->node_count; i++) {
        struct node *node = pending->nodes[i];
        struct waiter *waiter = &pending->waiters[i];

        if (for_finish ? node->is_finish_visible : node->is_visible) {
            continue;
        }
        waiter->pending = pending;
        waiter->for_finish = for_finish;
        waiter->next = node->waiters;
        node->waiters = waiter;
        pending->outstanding++;
    }
    if (pending->outstanding == 0) {
        complete(store, pending);
    }
}

void pending_start_ticket(struct store *store, struct pending *pending, uint64_t ticket)
{
    const enum status status = table_insert(&store->tickets, ticket, pending);

    CHECK(status == STATUS_OK); /* there is a place for all that the journal takes */
    store->pending_count++;
}

void pending_wake_ticket(struct store *store, uint64_t ticket, enum status status)
{
    struct pending *pending = ticket == 0 ? NULL : table_remove(&store->tickets, ticket);

    if (pending != NULL) {
        pending->status = status;
        complete(store, pending);
    }
}

void pending_wake(struct store *store, struct node *node, enum status status)
{
    struct waiter **link = &node->waiters;
    struct waiter *ready = NULL;

    /* First all are taken out: an answer may make its reader ask again. */
    while (*link != NULL) {
        struct waiter *waiter = *link;
        const bool is_ready = waiter->for_finish ? node->is_finish_visible : node->is_visible;

        if (!is_ready && status == STATUS_OK) {
            link = &waiter->next;
            continue;
        }
        *link = waiter->next;
        waiter->next = ready;
        ready = waiter;
    }
    while (ready != NULL) {
        struct pending *pending = ready->pending;

        ready = ready->next;
        if (status != STATUS_OK && pending->type != REQUEST_CANCEL) {
            pending->status = status;
        }
        CHECK(pending->outstanding > 0);
        if (--pending->outstanding == 0) {
            complete(store, pending);
        }
    }
}

void pending_drop(struct node *node)
{
    while (node->waiters != NULL) {
        struct pending *pending = node->waiters->pending;

        node->waiters = node->waiters->next;
        if (--pending->outstanding == 0) {
            pending_destroy(pending);
        }
    }
}
