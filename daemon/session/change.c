#include "session/change.h"

#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/memory.h"

enum status change_init(struct change *change, struct store *store, struct session *session,
                        uint32_t count_max, struct error *error)
{
    *change =
        (struct change){.store = store, .session = session, .error = error, .count_max = count_max};
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
    node->origin = ORIGIN_GIVEN;
    node->finish = NODE_WHOLE;
    node->opens_turn = given->opens_turn;
    node->is_greeting = given->is_greeting;
    node->created_us = clock_wall_us();
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

/* Every node needs an intent and a finish, and the journal refuses nothing that has a place. */
static enum status check_journal(struct change *change)
{
    struct store *store = change->store;
    const uint64_t wanted = (uint64_t)journal_pending_count(store->settings.journal) +
                            store->intent_open_count + 2 * (uint64_t)change->count;

    if (!journal_is_writable(store->settings.journal)) {
        return error_set(change->error, STATUS_STORAGE,
                         "the journal cannot be written any more; the daemon serves reads only");
    }
    if (wanted > JOURNAL_QUEUE_COUNT_MAX) {
        return error_set_limit(change->error, "JOURNAL_QUEUE_COUNT_MAX", JOURNAL_QUEUE_COUNT_MAX,
                               "too many nodes wait to be stored; try again");
    }
    return STATUS_OK;
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
    if (answer->generation != NULL) {
        change->pending->delivery = answer->generation->delivery;
        change->pending->numbers = answer->generation->numbers;
    }
    change->pending->context = answer->context;
    for (uint32_t i = 0; i < change->count; i++) {
        change->pending->nodes[i] = change->nodes[i];
    }
    if (change->key != NULL) {
        change->key->type = answer->type;
        change->key->session = change->session;
        memcpy(change->key->nodes, change->nodes, change->count * sizeof(struct node *));
        TRY(key_remember(change->store, change->key, change->error));
        change->key = NULL; /* handed over */
    }
    return STATUS_OK;
}

static void give_to_journal(struct store *store, struct node *node)
{
    const struct journal_intent intent = {
        .node_id = node->id,
        .session_id = node->session->id,
        .parent_id = node->parent->id,
        .parent_offset_tokens = node->parent_offset,
        .ordinal = node->ordinal,
    };
    const struct journal_finish row = {
        .node_id = node->id,
        .finish_reason = NODE_WHOLE,
    };
    struct journal *journal = store->settings.journal;

    if (journal_intent(journal, &intent, node->id) != STATUS_OK ||
        journal_finish(journal, &row, node->id) != STATUS_OK) {
        pending_wake(store, node, STATUS_STORAGE);
    }
}

static void account_given(struct change *change)
{
    struct user *user = table_find(&change->store->users, (uint64_t)change->session->owner_uid + 1);

    CHECK(user != NULL);
    for (uint32_t i = 0; i < change->given_count; i++) {
        user->content_bytes += sizeof(struct node) + change->nodes[i]->text_bytes +
                               change->nodes[i]->id_count * sizeof(uint32_t);
    }
}

/* From here on nothing fails. */
static void apply(struct change *change)
{
    struct store *store = change->store;
    const uint32_t count = change->count;
    struct pending *pending = change->pending;
    struct node **nodes = change->nodes;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t ordinal = nodes[i]->ordinal;

        tree_link(nodes[i]);
        CHECK(nodes[i]->ordinal == ordinal); /* the seed was made from it */
    }
    account_given(change);
    change->generation = NULL;
    change->pending = NULL;
    change->nodes = NULL; /* all handed over */
    pending_start(store, pending, false);
    for (uint32_t i = 0; i < count; i++) {
        if (nodes[i]->sampled != NULL) {
            generate_give_intent(store, nodes[i]);
        } else {
            give_to_journal(store, nodes[i]);
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
    if (status == STATUS_OK && change->generation != NULL) {
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

void change_given_committed(struct store *store, struct node *node, enum journal_kind kind,
                            enum status status)
{
    if (status != STATUS_OK) {
        pending_wake(store, node, status);
    } else if (kind == JOURNAL_FINISH) {
        node->is_visible = true;
        node->is_finish_visible = true;
        node->finished_us = clock_wall_us();
        pending_wake(store, node, STATUS_OK);
    }
}
