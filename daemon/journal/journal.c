#include "journal/journal.h"

#include "base/check.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/queue.h"
#include "journal/backup.h"
#include "journal/database.h"
#include "journal/rows.h"
#include "journal/writer.h"
#include "limits.h"

struct journal {
    struct queue *batches;     /* struct journal_batch *: loop to journal thread */
    struct queue *completions; /* journal thread to loop */
    struct queue *reads;       /* struct journal_read: loop to journal thread */
    struct queue *trees;       /* struct journal_tree: journal thread to loop */
    struct queue *backups;     /* struct backup_order: loop to journal thread */
    struct flag *is_failed;
    struct flag *is_faulty;

    /* Journal thread. */
    struct database *database;
    struct writer *writer;
    struct backup *backup; /* under way, or NULL */
    uint64_t backup_ticket;
    struct error backup_error; /* of the last one; the loop's from its end to the next */
    struct journal_batch *group[JOURNAL_GROUP_COUNT_MAX];

    /* Loop thread. pending + reserved stays within the bound of both queues. */
    uint32_t pending_count;  /* completions that are due */
    uint32_t reserved_count; /* completions of finishes whose intent was given */
    uint64_t pending_bytes;
    uint32_t read_count; /* trees that have not been popped */
    uint64_t submitted_count, told_count;
    uint64_t backing_up; /* the ticket of the backup that is under way; 0: none */
};

struct backup_order {
    char *path; /* owned */
    uint64_t ticket;
};

/* A finish is a batch of its own: a node and a batch to be told. */
enum { FINISH_TOLD_COUNT = 2 };

enum status journal_open(const char *path, struct error *error, struct journal **out)
{
    struct journal *journal = memory_alloc(1, sizeof(*journal));
    enum status status = STATUS_MEMORY;

    if (journal == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for the journal");
    }
    if (queue_create(sizeof(struct journal_batch *), JOURNAL_QUEUE_COUNT_MAX, &journal->batches) !=
            STATUS_OK ||
        queue_create(sizeof(struct journal_completion), JOURNAL_QUEUE_COUNT_MAX,
                     &journal->completions) != STATUS_OK ||
        queue_create(sizeof(struct backup_order), 1, &journal->backups) != STATUS_OK ||
        queue_create(sizeof(struct journal_read), JOURNAL_READ_COUNT_MAX, &journal->reads) !=
            STATUS_OK ||
        queue_create(sizeof(struct journal_tree), JOURNAL_READ_COUNT_MAX, &journal->trees) !=
            STATUS_OK ||
        flag_create(&journal->is_failed) != STATUS_OK ||
        flag_create(&journal->is_faulty) != STATUS_OK) {
        error_set(error, status, "out of memory for the journal");
        goto done;
    }
    status = database_open(path, error, &journal->database);
    if (status == STATUS_OK) {
        status = writer_create(journal->database, error, &journal->writer);
    }
    if (status == STATUS_OK) {
        status = writer_clean(journal->writer, error);
    }
    if (status != STATUS_OK) {
        goto done;
    }
    *out = journal;
    journal = NULL; /* handed over */
done:
    journal_close(journal);
    return status;
}

void journal_close(struct journal *journal)
{
    struct journal_batch *batch = NULL;
    struct journal_tree tree;
    struct backup_order order;

    if (journal == NULL) {
        return;
    }
    while (journal->batches != NULL && queue_pop(journal->batches, &batch) == STATUS_OK) {
        journal_batch_destroy(batch);
    }
    while (journal->trees != NULL && queue_pop(journal->trees, &tree) == STATUS_OK) {
        rows_tree_destroy(tree.tree);
    }
    while (journal->backups != NULL && queue_pop(journal->backups, &order) == STATUS_OK) {
        memory_free(order.path);
    }
    backup_finish(journal->backup);
    queue_destroy(journal->backups);
    queue_destroy(journal->trees);
    queue_destroy(journal->reads);
    writer_destroy(journal->writer);
    database_close(journal->database);
    flag_destroy(journal->is_faulty);
    flag_destroy(journal->is_failed);
    queue_destroy(journal->completions);
    queue_destroy(journal->batches);
    memory_free(journal);
}

void journal_on_completed(struct journal *journal, void (*on_completed)(void *context),
                          void *context)
{
    queue_on_ready(journal->completions, on_completed, context);
    queue_on_ready(journal->trees, on_completed, context);
}

struct database *journal_database(struct journal *journal)
{
    return journal->database;
}

enum status journal_check(const struct journal *journal, uint32_t node_count, uint32_t intent_count,
                          struct error *error)
{
    const uint64_t wanted = (uint64_t)journal->pending_count + journal->reserved_count +
                            node_count + 1 + (uint64_t)intent_count * FINISH_TOLD_COUNT;

    if (!journal_is_writable(journal)) {
        return error_set(error, STATUS_STORAGE,
                         "the journal cannot be written any more; the daemon serves reads only");
    }
    if (wanted > JOURNAL_QUEUE_COUNT_MAX) {
        return error_set_limit(error, "JOURNAL_QUEUE_COUNT_MAX", JOURNAL_QUEUE_COUNT_MAX,
                               "too many nodes wait to be stored; try again");
    }
    if (journal->pending_bytes > JOURNAL_QUEUE_BYTES_MAX) {
        return error_set_limit(error, "JOURNAL_QUEUE_BYTES_MAX", JOURNAL_QUEUE_BYTES_MAX,
                               "too much waits to be stored; try again");
    }
    return STATUS_OK;
}

enum status journal_submit(struct journal *journal, struct journal_batch *batch)
{
    const bool is_reserved =
        batch->finish_count == 1 && batch->told_count == 1 && batch->intent_count == 0;

    if (!is_reserved) {
        TRY(journal_check(journal, batch->told_count, batch->intent_count, NULL));
    } else if (!journal_is_writable(journal)) {
        return STATUS_STORAGE;
    } else {
        journal_unreserve(journal);
    }
    /* The counts have made sure that there is room. */
    journal->pending_count += batch->told_count + 1;
    journal->reserved_count += batch->intent_count * FINISH_TOLD_COUNT;
    journal->pending_bytes += batch->bytes;
    journal->submitted_count++;
    CHECK(queue_push(journal->batches, &batch) == STATUS_OK);
    return STATUS_OK;
}

void journal_reserve(struct journal *journal)
{
    journal->reserved_count += FINISH_TOLD_COUNT;
}

void journal_unreserve(struct journal *journal)
{
    CHECK(journal->reserved_count >= FINISH_TOLD_COUNT);
    journal->reserved_count -= FINISH_TOLD_COUNT;
}

enum status journal_completed_pop(struct journal *journal, struct journal_completion *completion)
{
    TRY(queue_pop(journal->completions, completion));
    CHECK(journal->pending_count > 0);
    journal->pending_count--;
    if (completion->told == JOURNAL_TOLD_BATCH) {
        journal->pending_bytes -= completion->bytes;
        journal->told_count++;
        journal->backing_up = completion->id == journal->backing_up ? 0 : journal->backing_up;
    }
    return STATUS_OK;
}

uint32_t journal_pending_count(const struct journal *journal)
{
    return journal->pending_count;
}

uint64_t journal_submitted_count(const struct journal *journal)
{
    return journal->submitted_count;
}

uint64_t journal_told_count(const struct journal *journal)
{
    return journal->told_count;
}

enum status journal_read(struct journal *journal, const struct journal_read *read)
{
    if (journal->read_count == JOURNAL_READ_COUNT_MAX) {
        return STATUS_LIMIT;
    }
    journal->read_count++;
    CHECK(queue_push(journal->reads, read) == STATUS_OK);
    queue_wake(journal->batches);
    return STATUS_OK;
}

const struct error *journal_backup_error(const struct journal *journal)
{
    return &journal->backup_error;
}

enum status journal_backup(struct journal *journal, struct bytes path, uint64_t ticket,
                           struct error *error)
{
    struct backup_order order = {.ticket = ticket};

    if (journal->backing_up != 0) {
        return error_set(error, STATUS_CONFLICT, "a backup is being written already");
    }
    if (journal->pending_count + journal->reserved_count + 1 > JOURNAL_QUEUE_COUNT_MAX) {
        return error_set_limit(error, "JOURNAL_QUEUE_COUNT_MAX", JOURNAL_QUEUE_COUNT_MAX,
                               "too much waits to be stored; try again");
    }
    order.path = memory_copy_text((const char *)path.data, path.size);
    if (order.path == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for a backup");
    }
    journal->backing_up = ticket;
    journal->pending_count++;
    journal->submitted_count++;
    CHECK(queue_push(journal->backups, &order) == STATUS_OK);
    queue_wake(journal->batches);
    return STATUS_OK;
}

enum status journal_tree_pop(struct journal *journal, struct journal_tree *out)
{
    TRY(queue_pop(journal->trees, out));
    journal->read_count--;
    return STATUS_OK;
}

/* ---- journal thread ---- */

/* Reads one tree, so that what is to be written does not wait for many. */
static bool read_one(struct journal *journal)
{
    struct journal_tree tree = {0};

    if (queue_pop(journal->reads, &tree.read) != STATUS_OK) {
        return false;
    }
    tree.session_id = tree.read.session_id;
    if (tree.session_id == 0) {
        tree.status = rows_read_node_session(journal->database, tree.read.node_id, &tree.error,
                                             &tree.session_id);
        tree.status = tree.status == STATUS_NOT_FOUND ? STATUS_OK : tree.status;
    }
    if (tree.status == STATUS_OK && tree.session_id != 0) {
        tree.status = rows_read_tree(journal->database, tree.session_id, &tree.error, &tree.tree);
    }
    CHECK(queue_push(journal->trees, &tree) == STATUS_OK);
    return true;
}

/* One transaction. */
static enum status commit_group(struct journal *journal, uint32_t count)
{
    struct error error = {0};
    enum status status;

    if (flag_is_raised(journal->is_failed)) {
        return STATUS_STORAGE;
    }
    if (flag_is_raised(journal->is_faulty)) {
        status = error_set(&error, STATUS_STORAGE, "a failure was asked for");
    } else {
        status = writer_commit(journal->writer, journal->group, count, &error);
    }
    if (status != STATUS_OK) {
        log_line(LOG_ERROR, "journal", "%s; from now on the daemon serves reads only", error.text);
        status = STATUS_STORAGE;
    }
    return status;
}

static void tell(struct journal *journal, enum journal_told told, uint64_t id, enum status status,
                 uint64_t bytes)
{
    const struct journal_completion completion = {
        .told = told, .id = id, .status = status, .bytes = bytes};

    CHECK(queue_push(journal->completions, &completion) == STATUS_OK);
}

static void tell_batch(struct journal *journal, const struct journal_batch *batch,
                       enum status status)
{
    for (const struct journal_batch_record *at = batch->is_silent ? NULL : batch->first; at != NULL;
         at = at->next) {
        if (at->record.kind == JOURNAL_GIVEN) {
            tell(journal, JOURNAL_TOLD_NODE, at->record.u.given.node.id, status, 0);
        } else if (at->record.kind == JOURNAL_INTENT) {
            tell(journal, JOURNAL_TOLD_NODE, at->record.u.intent.node.id, status, 0);
        } else if (at->record.kind == JOURNAL_FINISH) {
            tell(journal, JOURNAL_TOLD_FINISH, at->record.u.finish.node_id, status, 0);
        }
    }
    tell(journal, JOURNAL_TOLD_BATCH, batch->ticket, status, batch->bytes);
}

/* One slice of a backup, or its beginning. */
static bool back_up(struct journal *journal)
{
    struct backup_order order;
    struct error *error = &journal->backup_error;
    enum status status = STATUS_OK;

    if (journal->backup == NULL) {
        if (queue_pop(journal->backups, &order) != STATUS_OK) {
            return false;
        }
        journal->backup_ticket = order.ticket;
        journal->backup_error = (struct error){0};
        status = backup_start(journal->database, order.path, error, &journal->backup);
    }
    if (status == STATUS_OK) {
        status = backup_step(journal->backup, error);
    }
    if (status == STATUS_AGAIN) {
        return true;
    }
    if (status != STATUS_OK) {
        log_line(LOG_ERROR, "journal", "%s", error->text);
    }
    backup_finish(journal->backup);
    journal->backup = NULL;
    tell(journal, JOURNAL_TOLD_BATCH, journal->backup_ticket, status, 0);
    return true;
}

uint32_t journal_step(struct journal *journal)
{
    const uint32_t read_count = (uint32_t)read_one(journal) + back_up(journal);
    enum status status;
    uint32_t count = 0;

    while (count < JOURNAL_GROUP_COUNT_MAX &&
           queue_pop(journal->batches, &journal->group[count]) == STATUS_OK) {
        count++;
    }
    if (count == 0) {
        return read_count;
    }
    status = commit_group(journal, count);
    if (status != STATUS_OK) {
        /* Before the completions: who learns of the failure must not get another batch in. */
        flag_raise(journal->is_failed);
    }
    for (uint32_t i = 0; i < count; i++) {
        tell_batch(journal, journal->group[i], status);
        journal_batch_destroy(journal->group[i]);
    }
    return count + read_count;
}

void journal_wait(struct journal *journal, int timeout_ms)
{
    queue_wait(journal->batches, timeout_ms);
}

void journal_wake(struct journal *journal)
{
    queue_wake(journal->batches);
}

bool journal_is_writable(const struct journal *journal)
{
    return !flag_is_raised(journal->is_failed);
}

void journal_fault_raise(struct journal *journal)
{
    flag_raise(journal->is_faulty);
}
