#include "session/transfer.h"

#include "base/memory.h"
#include "session/import_make.h"
#include "session/import_save.h"
#include "session/key.h"

/* How many there are, and of this user; where there is room. */
static uint32_t count_all(const struct store *store, uint32_t uid, uint32_t *of_user,
                          uint32_t *free_at)
{
    uint32_t count = 0;

    *of_user = 0;
    *free_at = TRANSFER_COUNT_MAX;
    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        if (store->transfers[i] == NULL) {
            *free_at = i;
            continue;
        }
        count++;
        *of_user += store->transfers[i]->uid == uid;
    }
    return count;
}

enum status transfer_create(struct store *store, uint32_t uid, struct reply_to to, bool is_import,
                            struct error *error, struct transfer **out)
{
    struct transfer *transfer;
    struct user *user = NULL;
    uint32_t of_user = 0;
    uint32_t at = 0;

    TRY(state_user(store, uid, error, &user));
    if (count_all(store, uid, &of_user, &at) == TRANSFER_COUNT_MAX) {
        return error_set_limit(error, "TRANSFER_COUNT_MAX", TRANSFER_COUNT_MAX,
                               "%u exports and imports are under way; try again",
                               (unsigned)TRANSFER_COUNT_MAX);
    }
    if (of_user >= TRANSFER_PER_USER_COUNT_MAX) {
        return error_set_limit(error, "TRANSFER_PER_USER_COUNT_MAX", TRANSFER_PER_USER_COUNT_MAX,
                               "%u exports and imports of yours are under way; end one first",
                               of_user);
    }
    transfer = memory_alloc(1, sizeof(*transfer));
    if (transfer == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a transfer");
    }
    transfer->id = ++store->last_transfer_id;
    transfer->uid = uid;
    transfer->to = to;
    transfer->is_import = is_import;
    transfer->user = user;
    buffer_init(&transfer->out, TREE_BYTES_MAX);
    store->transfers[at] = transfer;
    *out = transfer;
    return STATUS_OK;
}

struct transfer *transfer_of(const struct store *store, uint64_t id)
{
    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        if (store->transfers[i] != NULL && store->transfers[i]->id == id) {
            return store->transfers[i];
        }
    }
    return NULL;
}

enum status transfer_find(const struct store *store, uint64_t id, uint32_t uid, struct reply_to to,
                          bool is_import, struct error *error, struct transfer **out)
{
    struct transfer *transfer = transfer_of(store, id);

    if (transfer != NULL && transfer->uid == uid && transfer->to.connection == to.connection &&
        transfer->is_import == is_import) {
        *out = transfer;
        return STATUS_OK;
    }
    return error_set(error, STATUS_NOT_FOUND, "there is no %s %llu on this connection",
                     is_import ? "import" : "export", (unsigned long long)id);
}

enum status transfer_count(struct transfer *transfer, struct error *error)
{
    const struct rows_tree *tree = transfer->portable.tree;
    const uint64_t bytes = tree->arena.used_bytes +
                           (uint64_t)tree->node_capacity * sizeof(struct rows_node) +
                           (uint64_t)tree->chunk_capacity * sizeof(struct journal_chunk);

    if (bytes > transfer->counted_bytes) {
        TRY(state_content_check(transfer->user, bytes - transfer->counted_bytes, error));
        transfer->user->content_bytes += bytes - transfer->counted_bytes;
        transfer->counted_bytes = bytes;
    }
    return STATUS_OK;
}

void transfer_answer(struct store *store, struct transfer *transfer, const struct reply *reply,
                     bool is_end)
{
    transfer->is_answering = true;
    store->settings.events.on_reply(store->settings.events.context, transfer->to, reply, false);
    transfer->is_answering = false;
    if (is_end || transfer->is_gone) {
        transfer_destroy(store, transfer);
    }
}

/* What is being made is taken down in slices; what is being stored becomes a session. */
void transfer_connection_closed(struct store *store, uint64_t connection)
{
    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        struct transfer *transfer = store->transfers[i];

        if (transfer == NULL || transfer->to.connection != connection || transfer->saving != NULL) {
            continue;
        }
        transfer->is_gone = true;
        if (!transfer->is_answering && transfer->making == NULL) {
            transfer_destroy(store, transfer);
        }
    }
}

void transfer_destroy(struct store *store, struct transfer *transfer)
{
    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        if (store->transfers[i] == transfer) {
            store->transfers[i] = NULL;
        }
    }
    transfer->user->content_bytes -= transfer->counted_bytes;
    import_making_destroy(transfer->making);
    import_save_destroy(store, transfer->saving);
    key_destroy(transfer->key);
    portable_writer_destroy(transfer->writer);
    portable_reader_finish(&transfer->reader);
    portable_finish(&transfer->portable);
    buffer_finish(&transfer->out);
    memory_free(transfer);
}

void transfer_finish(struct store *store)
{
    for (uint32_t i = 0; i < TRANSFER_COUNT_MAX; i++) {
        if (store->transfers[i] != NULL) {
            transfer_destroy(store, store->transfers[i]);
        }
    }
}
