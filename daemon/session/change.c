#include "session/change.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"
#include "session/branching.h"
#include "session/record.h"

enum status change_init(struct change *change, struct store *store, struct session *session,
                        uint32_t count_max, struct error *error)
{
    *change =
        (struct change){.store = store, .session = session, .error = error, .count_max = count_max};
    if (session->is_foreign) {
        return error_set(error, STATUS_CONFLICT,
                         "session %llu was made with another model: it can be read, not continued",
                         (unsigned long long)session->id);
    }
    if (session->is_elsewhere) {
        return error_set(error, STATUS_CONFLICT,
                         "session %llu was made with other arithmetic than this daemon's (%s): it "
                         "can be read and looked into, not continued; start the daemon as it was "
                         "(--backend, --kv-type, --numerics), or export the session and import it",
                         (unsigned long long)session->id, store->settings.numerics_id);
    }
    change->nodes = memory_alloc(count_max, sizeof(struct node *));
    if (change->nodes == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for %u nodes", count_max);
    }
    return STATUS_OK;
}

void change_finish(struct change *change)
{
    if (change->generation != NULL) {
        generate_abandon(change->generation, change->nodes + change->given_count);
    }
    for (uint32_t i = 0; i < change->given_count; i++) {
        node_destroy(change->nodes[i]);
    }
    memory_free(change->nodes);
    pending_destroy(change->pending);
    key_destroy(change->key);
    journal_batch_destroy(change->batch);
    memset(change, 0, sizeof(*change));
}

/* ---- given nodes ---- */

static enum status fill_given(struct change *change, struct node *node,
                              const struct change_given *given)
{
    struct buffer text;
    enum status status;

    buffer_init(&text, 4 * (size_t)TEXT_BYTES_MAX);
    status = encoder_show(&change->store->encoder, given->ids, given->count, &text);
    node->ids = memory_alloc(given->count, sizeof(*node->ids));
    if (status != STATUS_OK || node->ids == NULL) {
        buffer_finish(&text);
        return error_set(change->error, status == STATUS_OK ? STATUS_MEMORY : status,
                         "a text could not be kept: %s",
                         status_text(status == STATUS_OK ? STATUS_MEMORY : status));
    }
    if (given->count > 0) {
        memcpy(node->ids, given->ids, given->count * sizeof(*node->ids));
    }
    node->id_count = given->count;
    node->text = text.data; /* handed over */
    node->text_bytes = (uint32_t)text.size;
    return STATUS_OK;
}

enum status change_give(struct change *change, const struct change_given *given, struct place *out)
{
    struct user *user = NULL;
    struct node *node = NULL;
    enum status status;

    CHECK(change->generation == NULL && change->count < change->count_max);
    TRY(state_user(change->store, change->session->owner_uid, change->error, &user));
    TRY(state_content_check(user, (uint64_t)given->count * 16, change->error));
    TRY(tree_node_create(change->session, given->place, given->speaker, change->error, &node));
    status = fill_given(change, node, given);
    if (status != STATUS_OK) {
        node_destroy(node);
        return status;
    }
    node->ordinal = tree_next_ordinal(given->place);
    node->origin = given->original != 0 ? ORIGIN_EDITED
                   : given->is_expanded ? ORIGIN_EXPANDED
                                        : ORIGIN_GIVEN;
    node->original = given->original;
    node->finish = NODE_WHOLE;
    node->opens_turn = given->opens_turn;
    node->is_greeting = given->is_greeting;
    node->created_us = clock_wall_us();
    node->finished_us = node->created_us;
    change->nodes[change->count++] = node;
    change->given_count = change->count;
    *out = (struct place){node, node->id_count};
    return STATUS_OK;
}

enum status change_generate(struct change *change, const struct generate_query *query)
{
    CHECK(change->generation == NULL && change->count + query->request->n <= change->count_max);
    TRY(generate_prepare(change->store, query, change->error, &change->generation,
                         change->nodes + change->count));
    change->count += query->request->n;
    return STATUS_OK;
}

/* ---- committing ---- */

static enum status check_journal(struct change *change)
{
    return journal_check(change->store->settings.journal, change->count,
                         change->count - change->given_count, change->error);
}

static enum status check_counts(struct change *change)
{
    const struct session *session = change->session;

    if (session->node_count + change->count > SESSION_NODE_COUNT_MAX) {
        return error_set_limit(change->error, "SESSION_NODE_COUNT_MAX", SESSION_NODE_COUNT_MAX,
                               "the session has %u nodes and would get %u more",
                               session->node_count, change->count);
    }
    if (change->store->nodes.count + change->count > NODE_COUNT_MAX) {
        return error_set_limit(change->error, "NODE_COUNT_MAX", NODE_COUNT_MAX,
                               "the daemon holds %u nodes, which is the most",
                               change->store->nodes.count);
    }
    return STATUS_OK;
}

static enum status out_of_memory(struct change *change)
{
    return error_set(change->error, STATUS_MEMORY, "out of memory while nodes were made");
}

/* Ids, places among siblings, and entries of the table of nodes: all of it can be undone. */
static enum status reserve(struct change *change, uint32_t *inserted)
{
    struct store *store = change->store;

    for (uint32_t i = 0; i < change->count; i++) {
        struct node *node = change->nodes[i];

        if (tree_reserve(node->parent, change->count) != STATUS_OK) {
            return out_of_memory(change);
        }
        node->id = store->last_node_id + 1;
        if (table_insert(&store->nodes, node->id, node) != STATUS_OK) {
            return out_of_memory(change);
        }
        store->last_node_id++;
        (*inserted)++;
    }
    return STATUS_OK;
}

static enum status prepare_answer(struct change *change, const struct change_answer *answer)
{
    TRY(pending_create(change->count, answer->key, change->error, &change->pending));
    TRY(key_create(change->store, answer->uid, answer->key, change->count, change->error,
                   &change->key));
    change->pending->to = answer->to;
    change->pending->type = answer->type;
    change->pending->uid = answer->uid;
    change->pending->session = change->session;
    pending_ask(change->pending, answer->generation);
    for (uint32_t i = 0; i < change->count; i++) {
        change->pending->nodes[i] = change->nodes[i];
    }
    if (change->key != NULL) {
        change->key->type = answer->type;
        change->key->session_id = change->session->id;
        for (uint32_t i = 0; i < change->count; i++) {
            change->key->nodes[i] = change->nodes[i]->id;
        }
        TRY(key_remember(change->store, change->key, change->error));
        change->key = NULL; /* handed over */
    }
    return STATUS_OK;
}

/* From here on nothing fails. */
static void apply(struct change *change)
{
    struct store *store = change->store;
    const uint32_t count = change->count;
    struct pending *pending = change->pending;
    struct node **nodes = change->nodes;
    enum status status;
    uint64_t ticket;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t ordinal = nodes[i]->ordinal;

        tree_link(nodes[i]);
        CHECK(nodes[i]->ordinal == ordinal); /* the seed was made from it */
    }
    for (uint32_t i = 0; i < change->given_count; i++) {
        state_account(store, nodes[i], true);
    }
    change->generation = NULL;
    change->pending = NULL;
    change->nodes = NULL;                          /* all handed over */
    ticket = count > 0 ? 0 : ++store->last_ticket; /* without nodes the batch itself is told */
    change->batch->ticket = ticket;
    status = journal_submit(store->settings.journal, change->batch);
    if (status == STATUS_OK) {
        change->batch = NULL; /* handed over */
    }
    if (ticket != 0) {
        pending_start_ticket(store, pending, ticket);
    } else {
        pending_start(store, pending, false);
    }
    if (ticket != 0 && status != STATUS_OK) {
        pending_wake_ticket(store, ticket, STATUS_STORAGE);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (nodes[i]->sampled != NULL) {
            generate_intent_given(store, nodes[i], status);
        } else if (status != STATUS_OK) {
            pending_wake(store, nodes[i], STATUS_STORAGE);
        }
    }
    memory_free(nodes);
    change->count = 0;
    change->given_count = 0;
}

enum status change_commit(struct change *change, const struct change_answer *answer)
{
    struct store *store = change->store;
    uint32_t inserted = 0;
    bool is_remembered = false;
    enum status status;

    TRY(check_journal(change));
    TRY(check_counts(change));
    status = reserve(change, &inserted);
    if (status == STATUS_OK) {
        status = prepare_answer(change, answer);
        is_remembered = status == STATUS_OK;
    }
    if (status == STATUS_OK) {
        status = record_change(change, answer, &change->batch);
        if (status == STATUS_LIMIT) {
            error_set_limit(change->error, "JOURNAL_QUEUE_COUNT_MAX", JOURNAL_QUEUE_COUNT_MAX,
                            "too much waits to be stored; try again");
        } else if (status != STATUS_OK) {
            error_set(change->error, status, "a change could not be stored: %s",
                      status_text(status));
        }
    }
    if (status == STATUS_OK && change->generation != NULL) {
        change->generation->to = answer->to;
        status = generate_submit(store, change->generation, change->nodes + change->given_count,
                                 change->error);
    }
    if (status != STATUS_OK) {
        for (uint32_t i = 0; i < inserted; i++) {
            table_remove(&store->nodes, change->nodes[i]->id);
        }
        if (is_remembered) {
            key_forget(store, answer->uid, answer->key);
        }
        return status;
    }
    apply(change);
    return STATUS_OK;
}

void change_given_committed(struct store *store, struct node *node, enum status status)
{
    if (status == STATUS_OK) {
        node->is_visible = true;
        node->is_finish_visible = true;
    }
    pending_wake(store, node, status);
}
