/* Goal: the journal tells every entry exactly once and in order, keeps its bound, always takes the
 * finish of an intent that it took, and turns read only with the first failed commit.
 * Method: all calls on one thread, step by step; then the two threads that the daemon has; then
 * commits that fail on purpose, also in the middle of a stream.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/queue.h"
#include "journal/journal.h"
#include "limits.h"

static struct journal *create(void)
{
    struct journal *journal = NULL;

    assert_int_equal(journal_create(&journal), STATUS_OK);
    return journal;
}

static enum status give_intent(struct journal *journal, uint64_t node_id)
{
    const struct journal_intent intent = {.node_id = node_id, .session_id = 1, .seed = 7};

    return journal_intent(journal, &intent, node_id * 10);
}

static enum status give_finish(struct journal *journal, uint64_t node_id)
{
    const struct journal_finish finish = {.node_id = node_id, .sampled_token_count = 5};

    return journal_finish(journal, &finish, node_id * 10 + 1);
}

static void assert_next(struct journal *journal, uint64_t node_id, enum journal_kind kind,
                        enum status status)
{
    struct journal_completion completion;

    assert_int_equal(journal_completed_pop(journal, &completion), STATUS_OK);
    assert_true(completion.node_id == node_id);
    assert_int_equal(completion.kind, kind);
    assert_int_equal(completion.status, status);
    assert_true(completion.completion_id == node_id * 10 + (kind == JOURNAL_FINISH));
}

static void assert_none(struct journal *journal)
{
    struct journal_completion completion;

    assert_int_equal(journal_completed_pop(journal, &completion), STATUS_AGAIN);
}

static void test_nothing_is_told_before_the_step_that_commits_it(void **state)
{
    struct journal *journal = create();

    (void)state;
    assert_int_equal(journal_step(journal), 0);
    assert_int_equal(give_intent(journal, 1), STATUS_OK);
    assert_int_equal(give_intent(journal, 2), STATUS_OK);
    assert_int_equal(give_finish(journal, 1), STATUS_OK);
    assert_none(journal);
    assert_int_equal(journal_pending_count(journal), 3);
    assert_int_equal(journal_step(journal), 3);
    assert_int_equal(journal_pending_count(journal), 3);
    assert_next(journal, 1, JOURNAL_INTENT, STATUS_OK);
    assert_next(journal, 2, JOURNAL_INTENT, STATUS_OK);
    assert_next(journal, 1, JOURNAL_FINISH, STATUS_OK);
    assert_none(journal);
    assert_int_equal(journal_pending_count(journal), 0);
    assert_int_equal(journal_step(journal), 0);
    journal_destroy(journal);
    journal_destroy(NULL);
}

static void test_a_group_is_bounded_and_the_rest_waits_its_turn(void **state)
{
    struct journal *journal = create();

    (void)state;
    for (uint64_t id = 1; id <= JOURNAL_GROUP_COUNT_MAX + 3; id++) {
        assert_int_equal(give_intent(journal, id), STATUS_OK);
    }
    assert_int_equal(journal_step(journal), JOURNAL_GROUP_COUNT_MAX);
    assert_int_equal(journal_step(journal), 3);
    for (uint64_t id = 1; id <= JOURNAL_GROUP_COUNT_MAX + 3; id++) {
        assert_next(journal, id, JOURNAL_INTENT, STATUS_OK);
    }
    assert_none(journal);
    journal_destroy(journal);
}

static void test_a_full_journal_refuses_intents_but_never_a_finish(void **state)
{
    struct journal *journal = create();
    uint64_t taken = 0;

    (void)state;
    while (give_intent(journal, taken + 1) == STATUS_OK) {
        taken++;
    }
    assert_int_equal(taken, JOURNAL_QUEUE_COUNT_MAX / 2);
    assert_int_equal(give_intent(journal, taken + 1), STATUS_LIMIT);
    for (uint64_t id = 1; id <= taken; id++) {
        assert_int_equal(give_finish(journal, id), STATUS_OK);
    }
    assert_int_equal(give_intent(journal, taken + 1), STATUS_LIMIT);

    /* Committing alone makes no room: the completions have to be popped. */
    while (journal_step(journal) > 0) {
    }
    assert_int_equal(give_intent(journal, taken + 1), STATUS_LIMIT);
    assert_next(journal, 1, JOURNAL_INTENT, STATUS_OK);
    assert_int_equal(give_intent(journal, taken + 1), STATUS_LIMIT);
    assert_next(journal, 2, JOURNAL_INTENT, STATUS_OK);
    assert_int_equal(give_intent(journal, taken + 1), STATUS_OK);
    journal_destroy(journal);
}

static void test_the_first_failed_commit_turns_the_journal_read_only(void **state)
{
    struct journal *journal = create();

    (void)state;
    assert_int_equal(give_intent(journal, 1), STATUS_OK);
    assert_int_equal(journal_step(journal), 1);
    assert_int_equal(give_intent(journal, 2), STATUS_OK);
    assert_int_equal(give_finish(journal, 1), STATUS_OK);
    journal_fault_raise(journal);
    assert_true(journal_is_writable(journal));
    assert_int_equal(journal_step(journal), 2);
    assert_false(journal_is_writable(journal));
    assert_int_equal(give_intent(journal, 3), STATUS_STORAGE);
    assert_int_equal(give_finish(journal, 2), STATUS_STORAGE);

    /* What was committed stays committed; what came later is told once, too. */
    assert_next(journal, 1, JOURNAL_INTENT, STATUS_OK);
    assert_next(journal, 2, JOURNAL_INTENT, STATUS_STORAGE);
    assert_next(journal, 1, JOURNAL_FINISH, STATUS_STORAGE);
    assert_none(journal);
    assert_int_equal(journal_pending_count(journal), 0);
    journal_destroy(journal);
}

static void test_groups_behind_a_failed_one_fail_too(void **state)
{
    struct journal *journal = create();
    const uint64_t count = 2 * JOURNAL_GROUP_COUNT_MAX;

    (void)state;
    for (uint64_t id = 1; id <= count; id++) {
        assert_int_equal(give_intent(journal, id), STATUS_OK);
    }
    assert_int_equal(journal_step(journal), JOURNAL_GROUP_COUNT_MAX);
    journal_fault_raise(journal);
    assert_int_equal(journal_step(journal), JOURNAL_GROUP_COUNT_MAX);
    for (uint64_t id = 1; id <= count; id++) {
        assert_next(journal, id, JOURNAL_INTENT,
                    id <= JOURNAL_GROUP_COUNT_MAX ? STATUS_OK : STATUS_STORAGE);
    }
    journal_destroy(journal);
}

static void count_call(void *context)
{
    ++*(uint32_t *)context;
}

static void test_the_hook_tells_that_completions_wait(void **state)
{
    struct journal *journal = create();
    uint32_t count = 0;

    (void)state;
    journal_on_completed(journal, count_call, &count);
    assert_int_equal(give_intent(journal, 1), STATUS_OK);
    assert_int_equal(count, 0);
    assert_int_equal(journal_step(journal), 1);
    assert_true(count >= 1);
    journal_destroy(journal);
}

struct writer {
    struct journal *journal;
    struct flag *is_stopping;
    uint64_t committed_count;
};

static void *run_journal(void *context)
{
    struct writer *writer = context;
    uint32_t count;

    do {
        journal_wait(writer->journal, -1);
        do {
            count = journal_step(writer->journal);
            writer->committed_count += count;
        } while (count > 0);
    } while (!flag_is_raised(writer->is_stopping));
    return NULL;
}

static void writer_start(struct writer *writer, pthread_t *thread)
{
    writer->journal = create();
    writer->committed_count = 0;
    assert_int_equal(flag_create(&writer->is_stopping), STATUS_OK);
    assert_int_equal(pthread_create(thread, NULL, run_journal, writer), 0);
}

static void writer_stop(struct writer *writer, pthread_t thread)
{
    flag_raise(writer->is_stopping);
    journal_wake(writer->journal);
    assert_int_equal(pthread_join(thread, NULL), 0);
    journal_destroy(writer->journal);
    flag_destroy(writer->is_stopping);
}

/* Twice as many entries as fit, so that the giver meets the limit and has to pop on the way. */
static void test_two_threads_tell_every_entry_once_and_in_order(void **state)
{
    const uint64_t node_count = 2 * JOURNAL_QUEUE_COUNT_MAX;
    struct journal_completion completion;
    struct writer writer;
    pthread_t thread;
    uint64_t given = 0;
    uint64_t told = 0;

    (void)state;
    writer_start(&writer, &thread);
    while (told < 2 * node_count) {
        while (given < node_count && give_intent(writer.journal, given + 1) == STATUS_OK) {
            given++;
            assert_int_equal(give_finish(writer.journal, given), STATUS_OK);
        }
        while (journal_completed_pop(writer.journal, &completion) == STATUS_OK) {
            if (completion.status != STATUS_OK || completion.node_id != told / 2 + 1 ||
                completion.kind != (told % 2 == 0 ? JOURNAL_INTENT : JOURNAL_FINISH)) {
                fail_msg("completion %u is wrong", (unsigned)told);
            }
            told++;
        }
        sched_yield();
    }
    assert_none(writer.journal);
    assert_int_equal(journal_pending_count(writer.journal), 0);
    writer_stop(&writer, thread);
    assert_true(writer.committed_count == 2 * node_count);
}

static void test_a_failure_in_mid_stream_splits_it_once(void **state)
{
    struct journal_completion completion;
    struct writer writer;
    pthread_t thread;
    uint64_t given = 0;
    uint64_t told = 0;
    bool is_failed = false;

    (void)state;
    writer_start(&writer, &thread);
    while (give_intent(writer.journal, given + 1) != STATUS_STORAGE) {
        given++;
        assert_true(given < JOURNAL_QUEUE_COUNT_MAX / 2);
        if (given == 1000) {
            journal_fault_raise(writer.journal);
        }
        sched_yield();
    }
    while (journal_pending_count(writer.journal) > 0) {
        if (journal_completed_pop(writer.journal, &completion) != STATUS_OK) {
            sched_yield();
            continue;
        }
        assert_true(completion.node_id == ++told);
        if (completion.status == STATUS_OK) {
            assert_false(is_failed);
        } else {
            assert_int_equal(completion.status, STATUS_STORAGE);
            is_failed = true;
        }
    }
    assert_true(is_failed);
    assert_true(told == given);
    writer_stop(&writer, thread);
}

static void test_a_steady_journal_allocates_nothing(void **state)
{
    struct journal *journal = create();
    const uint64_t made = memory_thread_allocation_count();

    (void)state;
    for (uint64_t id = 1; id <= 100; id++) {
        assert_int_equal(give_intent(journal, id), STATUS_OK);
        assert_int_equal(journal_step(journal), 1);
        assert_next(journal, id, JOURNAL_INTENT, STATUS_OK);
    }
    assert_true(memory_thread_allocation_count() == made);
    journal_destroy(journal);
}

static void test_creation_survives_every_failed_allocation(void **state)
{
    const int64_t live = memory_live_count();
    int failures = 0;

    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        void *untouched = &failures;
        struct journal *journal = untouched;
        enum status status;

        memory_fault_set(survivors);
        status = journal_create(&journal);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            journal_destroy(journal);
            break;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_ptr_equal(journal, untouched);
        assert_true(memory_live_count() == live);
        failures++;
    }
    assert_true(failures >= 4);
    assert_true(memory_live_count() == live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_told_before_the_step_that_commits_it),
        cmocka_unit_test(test_a_group_is_bounded_and_the_rest_waits_its_turn),
        cmocka_unit_test(test_a_full_journal_refuses_intents_but_never_a_finish),
        cmocka_unit_test(test_the_first_failed_commit_turns_the_journal_read_only),
        cmocka_unit_test(test_groups_behind_a_failed_one_fail_too),
        cmocka_unit_test(test_the_hook_tells_that_completions_wait),
        cmocka_unit_test(test_two_threads_tell_every_entry_once_and_in_order),
        cmocka_unit_test(test_a_failure_in_mid_stream_splits_it_once),
        cmocka_unit_test(test_a_steady_journal_allocates_nothing),
        cmocka_unit_test(test_creation_survives_every_failed_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
