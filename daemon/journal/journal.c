#include "journal/journal.h"

#include "base/check.h"
#include "base/memory.h"
#include "base/queue.h"
#include "limits.h"

struct journal_entry {
    uint64_t completion_id;
    enum journal_kind kind;
    union {
        struct journal_intent intent;
        struct journal_finish finish;
    } message;
};

struct journal {
    struct queue *entries;     /* loop to journal thread */
    struct queue *completions; /* journal thread to loop */
    struct flag *is_failed;
    struct flag *is_faulty;

    /* Journal thread. */
    struct journal_entry group[JOURNAL_GROUP_COUNT_MAX];

    /* Loop thread. pending + reserved stays within the bound of both queues. */
    uint32_t pending_count;  /* given, completion not yet popped */
    uint32_t reserved_count; /* intents whose finish has not been given */
};

enum status journal_create(struct journal **out)
{
    struct journal *journal = memory_alloc(1, sizeof(*journal));
    enum status status = STATUS_MEMORY;

    if (journal == NULL) {
        return STATUS_MEMORY;
    }
    if (queue_create(sizeof(struct journal_entry), JOURNAL_QUEUE_COUNT_MAX, &journal->entries) !=
            STATUS_OK ||
        queue_create(sizeof(struct journal_completion), JOURNAL_QUEUE_COUNT_MAX,
                     &journal->completions) != STATUS_OK ||
        flag_create(&journal->is_failed) != STATUS_OK ||
        flag_create(&journal->is_faulty) != STATUS_OK) {
        goto done;
    }
    *out = journal;
    journal = NULL; /* handed over */
    status = STATUS_OK;
done:
    journal_destroy(journal);
    return status;
}

void journal_destroy(struct journal *journal)
{
    if (journal == NULL) {
        return;
    }
    flag_destroy(journal->is_faulty);
    flag_destroy(journal->is_failed);
    queue_destroy(journal->completions);
    queue_destroy(journal->entries);
    memory_free(journal);
}

void journal_on_completed(struct journal *journal, void (*on_completed)(void *context),
                          void *context)
{
    queue_on_ready(journal->completions, on_completed, context);
}

static void give(struct journal *journal, const struct journal_entry *entry)
{
    /* The counts of the loop thread have made sure that there is room. */
    CHECK(queue_push(journal->entries, entry) == STATUS_OK);
    journal->pending_count++;
}

enum status journal_intent(struct journal *journal, const struct journal_intent *intent,
                           uint64_t completion_id)
{
    const struct journal_entry entry = {
        .completion_id = completion_id, .kind = JOURNAL_INTENT, .message.intent = *intent};

    if (!journal_is_writable(journal)) {
        return STATUS_STORAGE;
    }
    if (journal->pending_count + journal->reserved_count + 2 > JOURNAL_QUEUE_COUNT_MAX) {
        return STATUS_LIMIT;
    }
    give(journal, &entry);
    journal->reserved_count++;
    return STATUS_OK;
}

enum status journal_finish(struct journal *journal, const struct journal_finish *finish,
                           uint64_t completion_id)
{
    const struct journal_entry entry = {
        .completion_id = completion_id, .kind = JOURNAL_FINISH, .message.finish = *finish};

    CHECK(journal->reserved_count > 0);
    journal->reserved_count--;
    if (!journal_is_writable(journal)) {
        return STATUS_STORAGE;
    }
    give(journal, &entry);
    return STATUS_OK;
}

enum status journal_completed_pop(struct journal *journal, struct journal_completion *completion)
{
    TRY(queue_pop(journal->completions, completion));
    CHECK(journal->pending_count > 0);
    journal->pending_count--;
    return STATUS_OK;
}

uint32_t journal_pending_count(const struct journal *journal)
{
    return journal->pending_count;
}

/* One transaction, once there is something to write to. */
static enum status commit_group(struct journal *journal)
{
    if (flag_is_raised(journal->is_failed) || flag_is_raised(journal->is_faulty)) {
        return STATUS_STORAGE;
    }
    return STATUS_OK;
}

static struct journal_completion complete(const struct journal_entry *entry, enum status status)
{
    const bool is_intent = entry->kind == JOURNAL_INTENT;

    return (struct journal_completion){
        .completion_id = entry->completion_id,
        .node_id = is_intent ? entry->message.intent.node_id : entry->message.finish.node_id,
        .kind = entry->kind,
        .status = status,
    };
}

uint32_t journal_step(struct journal *journal)
{
    enum status status;
    uint32_t count = 0;

    while (count < JOURNAL_GROUP_COUNT_MAX &&
           queue_pop(journal->entries, &journal->group[count]) == STATUS_OK) {
        count++;
    }
    if (count == 0) {
        return 0;
    }
    status = commit_group(journal);
    if (status != STATUS_OK) {
        /* Before the completions: who learns of the failure must not get another entry in. */
        flag_raise(journal->is_failed);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct journal_completion completion = complete(&journal->group[i], status);

        CHECK(queue_push(journal->completions, &completion) == STATUS_OK);
    }
    return count;
}

void journal_wait(struct journal *journal, int timeout_ms)
{
    queue_wait(journal->entries, timeout_ms);
}

void journal_wake(struct journal *journal)
{
    queue_wake(journal->entries);
}

bool journal_is_writable(const struct journal *journal)
{
    return !flag_is_raised(journal->is_failed);
}

void journal_fault_raise(struct journal *journal)
{
    flag_raise(journal->is_faulty);
}
