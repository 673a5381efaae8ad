/* Where everything becomes durable: a SQLite database, and the thread that alone writes it.
 *
 * Records are given in batches (batch.h). A batch is committed whole or not at all, batches in the
 * order in which they were submitted, several in one transaction (group commit). What the loop must
 * keep to, so that promise 2 holds:
 *
 *   intent      before the first token of a node leaves
 *   checkpoint  tokens since the last one; before a child that hangs on them
 *   finish      before a node is acknowledged as finished
 *
 * Every submitted batch gives one completion for each node that it makes or finishes, in order, and
 * then one of its own (JOURNAL_TOLD_BATCH).
 *
 * Thread: the loop thread submits and pops completions; the journal thread, a loop around
 * journal_wait() and journal_step(), commits. A simulator may call all of it on one thread; what is
 * read at start (rows.h) is read before the journal thread lives.
 *
 * Bounded: at most JOURNAL_QUEUE_COUNT_MAX completions and JOURNAL_QUEUE_BYTES_MAX bytes are
 * between their submission and the pop of their completion. An intent reserves the place of its
 * finish, so a finish never meets that limit.
 *
 * The first failed commit is the last one: what waits behind it completes with STORAGE, new batches
 * are refused with STORAGE, and the daemon serves reads only.
 */
#ifndef PERSONAD_JOURNAL_JOURNAL_H
#define PERSONAD_JOURNAL_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/status.h"
#include "journal/batch.h"

struct journal;
struct database;

enum journal_told { JOURNAL_TOLD_NODE, JOURNAL_TOLD_FINISH, JOURNAL_TOLD_BATCH };

struct journal_completion {
    enum journal_told told;
    uint64_t id;        /* of the node, or the batch's ticket */
    enum status status; /* OK: committed; STORAGE: it was not */
    uint64_t bytes;     /* the journal's own, with TOLD_BATCH */
};

/* path: of the database file, made when it is missing; NULL: in memory, for tests. CONFLICT when
 * another process has it open, UNSUPPORTED for the database of a newer version, STORAGE when it is
 * damaged, IO when it cannot be read or written; the sentence says what to do. An older version is
 * copied beside itself before it is migrated. */
MUST_USE enum status journal_open(const char *path, struct error *error, struct journal **out);

/* Both threads have stopped using it. Batches that are not committed are dropped; NULL is fine. */
void journal_close(struct journal *journal);

/* on_completed runs on the journal thread after completions were added (uv_async_send). */
void journal_on_completed(struct journal *journal, void (*on_completed)(void *context),
                          void *context);

/* Loop thread. Takes the batch over when it succeeds. LIMIT: too much is under way, pop completions
 * first; never for a batch whose nodes all were reserved by intents. STORAGE: read only. */
MUST_USE enum status journal_submit(struct journal *journal, struct journal_batch *batch);

/* Loop thread. A place for the finish of a node whose intent was given before the start. */
void journal_reserve(struct journal *journal);

/* Loop thread. The place that an intent had reserved for its finish is not needed: the node goes on
 * after the next start, or its finish could not be made. */
void journal_unreserve(struct journal *journal);

/* Loop thread. Whether a batch with so many nodes and intents would be taken now. */
MUST_USE enum status journal_check(const struct journal *journal, uint32_t node_count,
                                   uint32_t intent_count, struct error *error);

/* Loop thread. AGAIN when no completion is ready. */
MUST_USE enum status journal_completed_pop(struct journal *journal,
                                           struct journal_completion *completion);

/* Loop thread. Completions that have not been popped: 0 means that all is told. */
uint32_t journal_pending_count(const struct journal *journal);

/* Journal thread. Reads what was asked for, a bounded part of it, and commits one group; how much
 * of both it did, 0 when nothing waited. */
uint32_t journal_step(struct journal *journal);

/* Journal thread. Sleeps until a batch waits, journal_wake() was called, or timeout_ms passed
 * (negative: no limit). */
void journal_wait(struct journal *journal, int timeout_ms);

/* Any thread. */
void journal_wake(struct journal *journal);

/* Any thread. False once a commit has failed. */
bool journal_is_writable(const struct journal *journal);

/* Any thread. For tests: from now on every commit fails. */
void journal_fault_raise(struct journal *journal);

/* ---- reading while the daemon runs ---- */

struct rows_tree;

/* The tree of a session, or of the session that a node is in. */
struct journal_read {
    uint64_t session_id; /* 0: that of the node */
    uint64_t node_id;
    uint64_t transfer; /* who asked (session/transfer.h); 0: the tree itself is wanted */
};

struct journal_tree {
    struct journal_read read;
    uint64_t session_id; /* 0: there is no such node */
    enum status status;  /* with a sentence, where it is not OK */
    struct error error;
    struct rows_tree *tree; /* the caller's; NULL without a session or where the status is not OK */
};

/* Loop thread. LIMIT past JOURNAL_READ_COUNT_MAX. */
MUST_USE enum status journal_read(struct journal *journal, const struct journal_read *read);

/* Loop thread. AGAIN when none is ready. */
MUST_USE enum status journal_tree_pop(struct journal *journal, struct journal_tree *out);

/* Loop thread. A copy of the whole database while it is in use; path: copied. Its end is told as
 * that of a batch with this ticket. CONFLICT: one is under way. */
MUST_USE enum status journal_backup(struct journal *journal, struct bytes path, uint64_t ticket,
                                    struct error *error);

/* Loop thread. Why the last one failed, once its end was told and until the next is asked for. */
const struct error *journal_backup_error(const struct journal *journal);

/* Loop thread. Batches submitted, and of those the ones that were told, since the start. */
uint64_t journal_submitted_count(const struct journal *journal);
uint64_t journal_told_count(const struct journal *journal);

/* For what is read at the start: rows.h. */
struct database *journal_database(struct journal *journal);

#endif
