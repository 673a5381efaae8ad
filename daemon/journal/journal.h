/* Where nodes become durable: the seam for it. THIS VERSION KEEPS NOTHING ON DISK; every commit
 * succeeds at once, and all that is said here is lost with the process.
 *
 * The seam has the shape that storage needs, so that its callers do not change when it comes:
 *
 *   intent   before the first token of a node may leave: who it is, where it hangs, its seed
 *   finish   before a node is acknowledged as finished: where it ended and why
 *
 * Entries are committed in the order in which they were given, in groups; a group commits or fails
 * as a whole. Every entry gives exactly one completion, in the same order. Contexts, sampler steps
 * and tokens are not part of the messages while nothing is stored.
 *
 * Thread: the loop thread gives entries and pops completions; the journal thread, a loop around
 * journal_wait() and journal_step(), commits them. A simulator may call all of it on one thread.
 * Messages are copied, so the journal borrows nothing.
 *
 * Bounded: at most JOURNAL_QUEUE_COUNT_MAX entries are between their call and the pop of their
 * completion. An intent reserves the place of its finish, so a finish never meets that limit.
 *
 * The first failed commit is the last one: entries behind it complete with STORAGE, new ones are
 * refused with STORAGE, and the daemon serves reads only.
 */
#ifndef PERSONAD_JOURNAL_JOURNAL_H
#define PERSONAD_JOURNAL_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

struct journal;

struct journal_intent {
    uint64_t node_id;
    uint64_t session_id;
    uint64_t parent_id; /* 0: none */
    uint64_t seed;
    uint32_t parent_offset_tokens; /* how much of the parent's content the node hangs on */
    uint32_t ordinal;              /* among the siblings */
};

struct journal_finish {
    uint64_t node_id;
    uint32_t sampled_token_count;
    uint32_t kept_token_count; /* of the sampled ones, those that are content */
    uint32_t finish_reason;    /* the session's own number */
};

enum journal_kind { JOURNAL_INTENT, JOURNAL_FINISH };

struct journal_completion {
    uint64_t completion_id; /* the caller's, handed back */
    uint64_t node_id;
    enum journal_kind kind;
    enum status status; /* OK: committed; STORAGE: it was not */
};

MUST_USE enum status journal_create(struct journal **out);

/* Both threads have stopped using it. Entries that are not committed are dropped; NULL is fine. */
void journal_destroy(struct journal *journal);

/* on_completed runs on the journal thread after completions were added (uv_async_send). */
void journal_on_completed(struct journal *journal, void (*on_completed)(void *context),
                          void *context);

/* Loop thread. LIMIT: too many entries are under way, pop completions first. STORAGE: read only. */
MUST_USE enum status journal_intent(struct journal *journal, const struct journal_intent *intent,
                                    uint64_t completion_id);

/* Loop thread. One for each intent that was taken, which need not have completed yet; none is due
 * after STORAGE. STORAGE: read only.
 */
MUST_USE enum status journal_finish(struct journal *journal, const struct journal_finish *finish,
                                    uint64_t completion_id);

/* Loop thread. AGAIN when no completion is ready. */
MUST_USE enum status journal_completed_pop(struct journal *journal,
                                           struct journal_completion *completion);

/* Loop thread. Entries whose completion has not been popped: 0 means that all is told. */
uint32_t journal_pending_count(const struct journal *journal);

/* Journal thread. Commits one group; how many entries it held, 0 when nothing waited. */
uint32_t journal_step(struct journal *journal);

/* Journal thread. Sleeps until an entry waits, journal_wake() was called, or timeout_ms passed
 * (negative: no limit).
 */
void journal_wait(struct journal *journal, int timeout_ms);

/* Any thread. */
void journal_wake(struct journal *journal);

/* Any thread. False once a commit has failed. */
bool journal_is_writable(const struct journal *journal);

/* Any thread. For tests: from now on every commit fails. */
void journal_fault_raise(struct journal *journal);

#endif
