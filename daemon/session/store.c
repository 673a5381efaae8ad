#include "session/store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "session/answer.h"
#include "session/author_note.h"
#include "session/bookmark.h"
#include "session/catalog.h"
#include "session/change.h"
#include "session/compare.h"
#include "session/discard.h"
#include "session/distribution.h"
#include "session/edit.h"
#include "session/expand.h"
#include "session/expansion.h"
#include "session/export.h"
#include "session/group.h"
#include "session/import.h"
#include "session/inspect.h"
#include "session/keep.h"
#include "session/load.h"
#include "session/look.h"
#include "session/mark.h"
#include "session/open.h"
#include "session/record.h"
#include "session/residence.h"
#include "session/say.h"
#include "session/score.h"
#include "session/service.h"
#include "session/transfer.h"
#include "session/verify.h"

/* Each is of a batch in the journal's queue; one more of a backup, one that was refused. */
enum { TICKET_COUNT_MAX = JOURNAL_QUEUE_COUNT_MAX + 2 };

/* ---- life ---- */

static enum status init(struct store *store, const struct store_settings *settings)
{
    store->settings = *settings;
    if (settings->resident_bytes_max == 0) {
        store->settings.resident_bytes_max = (uint64_t)RESIDENT_MIB_MAX << 20;
    }
    store->started_ns = clock_monotonic_ns();
    table_init(&store->nodes);
    table_init(&store->prompts);
    table_init(&store->users);
    table_init(&store->keys);
    table_init(&store->expansions);
    for (uint32_t i = 0; i < BRANCH_COUNT_MAX; i++) {
        /* Low slots first, so that logs of a quiet daemon are easy to read. */
        store->free_slots[i] = BRANCH_COUNT_MAX - 1 - i;
    }
    store->free_slot_count = BRANCH_COUNT_MAX;
    /* What was given to the journal is waited for, whatever memory there is by then. */
    return table_init_fixed(&store->tickets, TICKET_COUNT_MAX);
}

enum status store_create(const struct store_settings *settings, struct error *error,
                         struct store **out)
{
    struct store *store = memory_alloc(1, sizeof(*store));
    enum status status;

    CHECK(settings->events.on_reply != NULL && settings->events.on_follow != NULL &&
          settings->events.on_progress != NULL);
    if (store == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory while the store was made");
    }
    status = init(store, settings);
    if (status == STATUS_OK) {
        status = encoder_init(&store->encoder, settings->tokenizer);
    }
    if (status != STATUS_OK) {
        error_set(error, status, "out of memory while the store was made");
        goto done;
    }
    status = template_detect(&store->encoder, settings->chat_format, error, &store->format);
    if (status != STATUS_OK) {
        goto done;
    }
    template_init(&store->template, &store->encoder, store->format);
    store->settings.info.chat_format = bytes_of_text(template_format_name(store->format));
    *out = store;
    store = NULL; /* handed over */
done:
    store_destroy(store);
    return status;
}

static void free_values(struct table *table, void (*destroy)(void *value))
{
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *value = NULL;

    while (table_next(table, &cursor, &id, &value)) {
        destroy(value);
    }
    table_finish(table);
}

static void destroy_key(void *value)
{
    key_destroy(value);
}

static void destroy_pending(void *value)
{
    pending_destroy(value);
}

void store_destroy(struct store *store)
{
    uint32_t cursor = 0;
    uint64_t id = 0;
    void *value = NULL;

    if (store == NULL) {
        return;
    }
    while (table_next(&store->nodes, &cursor, &id, &value)) {
        pending_drop(value);
    }
    free_values(&store->tickets, destroy_pending);
    transfer_finish(store);
    generate_finish(store);
    look_finish(store);
    expansion_finish(store);
    for (uint32_t i = 0; i < store->sessions.count; i++) {
        open_session_destroy(store, store->sessions.items[i]);
    }
    for (uint32_t i = 0; i < store->personas.count; i++) {
        persona_destroy(store->personas.items[i]);
    }
    memory_free(store->sessions.items);
    memory_free(store->personas.items);
    memory_free(store->built_in.items);
    free_values(&store->keys, destroy_key);
    free_values(&store->users, memory_free);
    CHECK(store->prompts.count == 0);
    table_finish(&store->prompts);
    table_finish(&store->nodes);
    encoder_finish(&store->encoder);
    memory_free(store);
}

enum status store_load(struct store *store, struct error *error)
{
    return load_all(store, error);
}

/* ---- personas from files ---- */

static enum status read_card(const char *path, struct error *error, struct buffer *out)
{
    FILE *file = fopen(path, "rb");
    size_t size = 0;
    enum status status = STATUS_OK;

    if (file == NULL) {
        return error_set(error, errno == ENOENT ? STATUS_NOT_FOUND : STATUS_IO, "%s: %s", path,
                         strerror(errno));
    }
    do {
        status = buffer_reserve(
            out, out->bytes_max - out->size < BUFSIZ ? out->bytes_max - out->size : BUFSIZ);
        if (status == STATUS_OK) {
            size = fread(out->data + out->size, 1, out->capacity - out->size, file);
            out->size += size;
        }
    } while (status == STATUS_OK && size > 0);
    if (status != STATUS_OK) {
        error_set(error, status, "%s: out of memory", path);
    } else if (ferror(file)) {
        status = error_set(error, STATUS_IO, "%s: it cannot be read", path);
    } else if (out->size > PERSONA_CARD_BYTES_MAX) {
        status = error_set_limit(error, "PERSONA_CARD_BYTES_MAX", PERSONA_CARD_BYTES_MAX,
                                 "%s: a card has at most %u bytes", path,
                                 (unsigned)PERSONA_CARD_BYTES_MAX);
    }
    fclose(file);
    return status;
}

enum status store_persona_load(struct store *store, const char *path, struct error *error)
{
    struct buffer card;
    enum status status;

    buffer_init(&card, PERSONA_CARD_BYTES_MAX + 1);
    status = read_card(path, error, &card);
    if (status == STATUS_OK) {
        status = catalog_put_built_in(store, buffer_bytes(&card), error);
        if (status != STATUS_OK) {
            error_prefix(error, "%s", path);
        }
    }
    buffer_finish(&card);
    return status;
}

/* ---- requests ---- */

static bool makes_something(enum request_type type)
{
    return type == REQUEST_SAY || type == REQUEST_GENERATE || type == REQUEST_APPEND ||
           type == REQUEST_EDIT || type == REQUEST_KEEP || type == REQUEST_SESSION_OPEN ||
           type == REQUEST_PERSONA_PUT || type == REQUEST_SESSION_IMPORT;
}

static const struct request_generation *generation_of(const struct request *request)
{
    if (request->type == REQUEST_SAY) {
        return &request->u.say.generation;
    }
    return request->type == REQUEST_GENERATE ? &request->u.generate.generation : NULL;
}

/* What the key names. */
static enum status find_nodes(struct store *store, const struct key *key, struct error *error,
                              struct pending *pending)
{
    pending->session = state_session_find(store, key->session_id);
    if (pending->session == NULL) {
        return error_set(error, STATUS_NOT_FOUND, "what this client key made is gone");
    }
    for (uint32_t i = 0; i < key->node_count; i++) {
        pending->nodes[i] = table_find(&store->nodes, key->nodes[i]);
        if (pending->nodes[i] == NULL) {
            return error_set(error, STATUS_NOT_FOUND, "what this client key made is gone");
        }
    }
    return STATUS_OK;
}

/* A session without greetings has no node to wait for: it waits for all that was given before. */
static void start_repeat(struct store *store, struct pending *pending)
{
    struct error error = {0};
    uint64_t ticket = 0;

    if (pending->node_count > 0 || pending->session->is_open) {
        pending_start(store, pending, false);
    } else if (record_barrier(store, &error, &ticket) == STATUS_OK) {
        pending_start_ticket(store, pending, ticket);
    } else {
        answer_error(store, pending->to, pending->type, &error);
        pending_destroy(pending);
    }
}

/* The same key again: the answer to what was made then. */
static void repeat(struct store *store, const struct request *request, struct reply_to to,
                   const struct key *key)
{
    struct pending *pending = NULL;
    struct error error = {0};

    if (key->type != request->type) {
        error_set(&error, STATUS_CONFLICT, "this client key belongs to a request of another kind");
        answer_error(store, to, request->type, &error);
        return;
    }
    if (pending_create(key->node_count, bytes_of(NULL, 0), &error, &pending) != STATUS_OK ||
        find_nodes(store, key, &error, pending) != STATUS_OK) {
        pending_destroy(pending);
        answer_error(store, to, request->type, &error);
        return;
    }
    pending->to = to;
    pending->type = request->type;
    pending->uid = request->uid;
    pending_ask(pending, generation_of(request));
    start_repeat(store, pending);
}

static void dispatch(struct store *store, const struct request *request, struct reply_to to)
{
    static void (*const handlers[])(struct store * store, const struct request *request,
                                    struct reply_to to) = {
        [REQUEST_INFO] = service_info,
        [REQUEST_STATS] = service_stats,
        [REQUEST_PERSONA_PUT] = catalog_answer_put,
        [REQUEST_PERSONA_GET] = catalog_answer_get,
        [REQUEST_PERSONA_LIST] = catalog_answer_list,
        [REQUEST_SESSION_OPEN] = open_session,
        [REQUEST_SESSION_LIST] = open_answer_list,
        [REQUEST_SAY] = say_execute,
        [REQUEST_GENERATE] = say_generate,
        [REQUEST_APPEND] = say_append,
        [REQUEST_WALK] = service_walk,
        [REQUEST_FOLLOW] = service_follow,
        [REQUEST_CANCEL] = service_cancel,
        [REQUEST_HEAD] = service_head,
        [REQUEST_TOKENIZE] = service_tokenize,
        [REQUEST_DETOKENIZE] = service_detokenize,
        [REQUEST_PERSONA_DELETE] = discard_persona,
        [REQUEST_SESSION_DELETE] = discard_session,
        [REQUEST_SESSION_SET] = discard_set_session,
        [REQUEST_BOOKMARK] = bookmark_execute,
        [REQUEST_NOTE] = author_note_execute,
        [REQUEST_BOOKMARK_LIST] = bookmark_answer_list,
        [REQUEST_DELETE] = mark_delete,
        [REQUEST_UNDELETE] = mark_undelete,
        [REQUEST_PURGE] = mark_purge,
        [REQUEST_LABEL] = mark_label,
        [REQUEST_CONTEXT] = inspect_context,
        [REQUEST_DISTRIBUTION] = distribution_execute,
        [REQUEST_SCORE] = score_execute,
        [REQUEST_COMPARE] = compare_execute,
        [REQUEST_GROUP] = group_execute,
        [REQUEST_VERIFY] = verify_execute,
        [REQUEST_BACKUP] = service_backup,
        [REQUEST_EDIT] = edit_execute,
        [REQUEST_EXPAND] = expand_execute,
        [REQUEST_KEEP] = keep_execute,
        [REQUEST_SESSION_EXPORT] = export_execute,
        [REQUEST_SESSION_IMPORT] = import_execute,
    };

    CHECK((size_t)request->type < sizeof(handlers) / sizeof(handlers[0]));
    handlers[request->type](store, request, to);
}

void store_execute(struct store *store, const struct request *request, struct reply_to to)
{
    const struct key *key = key_find(store, request->uid, request->client_key);
    struct error error = {0};

    if (store->is_stopping) {
        error_set(&error, STATUS_STOPPING, "the daemon is stopping");
        answer_error(store, to, request->type, &error);
    } else if (key != NULL && makes_something(request->type)) {
        repeat(store, request, to, key);
    } else {
        dispatch(store, request, to);
    }
    residence_note(store, request);
}

enum status store_prepare(struct store *store, const struct request *request, struct error *error)
{
    return residence_prepare(store, request, error);
}

/* ---- the other threads' news ---- */

void store_pump(struct store *store)
{
    struct journal_completion completion;

    /* Commits first: what the engine tells then can be shown at once. */
    while (journal_completed_pop(store->settings.journal, &completion) == STATUS_OK) {
        if (completion.told == JOURNAL_TOLD_BATCH) {
            pending_wake_ticket(store, completion.id, completion.status);
            continue;
        }
        struct node *node = table_find(&store->nodes, completion.id);

        CHECK(node != NULL);
        if (node->sampled != NULL) {
            generate_commit(store, node, completion.told, completion.status);
        } else {
            change_given_committed(store, node, completion.status);
        }
    }
    generate_take(store);
    generate_park_unfollowed(store);
    expansion_forget_idle(store);
    residence_take(store);
    residence_trim(store);
    import_go_on(store);
}

bool store_has_work(const struct store *store)
{
    return import_is_going(store);
}

enum status store_node_view(struct store *store, uint32_t uid, uint64_t node_id,
                            struct error *error, struct node_view *out)
{
    struct node *node = NULL;

    TRY(state_node_open(store, node_id, uid, error, &node));
    *out = node_view_of(node);
    return STATUS_OK;
}

void store_node_follow(struct store *store, uint64_t node_id)
{
    struct node *node = table_find(&store->nodes, node_id);

    if (node != NULL) {
        node->session->follower_count++;
    }
    if (node != NULL && node->sampled != NULL) {
        generate_follow(store, node);
    }
}

void store_node_unfollow(struct store *store, uint64_t node_id)
{
    struct node *node = table_find(&store->nodes, node_id);

    if (node != NULL) {
        CHECK(node->session->follower_count > 0);
        node->session->follower_count--;
    }
    if (node != NULL && node->sampled != NULL) {
        generate_unfollow(store, node);
    }
}

void store_cancel_request(struct store *store, struct reply_to to)
{
    generate_cancel_request(store, to);
    look_cancel_request(store, to);
}

void store_connection_closed(struct store *store, uint64_t connection)
{
    expansion_forget_connection(store, connection);
    transfer_connection_closed(store, connection);
}

void store_stop(struct store *store)
{
    store->is_stopping = true;
}

bool store_is_idle(const struct store *store)
{
    return store->free_slot_count == BRANCH_COUNT_MAX && store->pending_count == 0 &&
           !store_has_work(store) && journal_pending_count(store->settings.journal) == 0;
}
