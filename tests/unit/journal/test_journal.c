/* Goal: the journal tells every batch exactly once and in order, keeps its bounds, always takes the
 * finish of an intent that it took, commits a batch whole or not at all, and turns read only with
 * the first failed commit.
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
#include "journal/rows.h"
#include "limits.h"
#include "unit/journal/journal_rig.h"

static struct journal_rig rig;

static int set_up(void **state)
{
    (void)state;
    journal_rig_init(&rig);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    journal_rig_finish(&rig);
    return memory_live_count() == 0 ? 0 : -1;
}

static enum status give_intent(uint64_t node)
{
    const struct journal_record records[] = {rig_context(node), rig_steps(), rig_intent(node, 0)};

    return journal_rig_submit(&rig, records, 3);
}

static enum status give_finish(uint64_t node)
{
    const struct journal_record record = rig_finish(node, 0, 3);

    return journal_rig_submit(&rig, &record, 1);
}

static void assert_next(enum journal_told told, uint64_t id, enum status status)
{
    struct journal_completion completion;

    assert_int_equal(journal_completed_pop(rig.journal, &completion), STATUS_OK);
    assert_int_equal(completion.told, told);
    assert_true(completion.id == id);
    assert_int_equal(completion.status, status);
}

static void assert_told(enum journal_told told, uint64_t id, enum status status)
{
    assert_next(told, id, status);
    assert_next(JOURNAL_TOLD_BATCH, 0, status);
}

static void assert_none(void)
{
    struct journal_completion completion;

    assert_int_equal(journal_completed_pop(rig.journal, &completion), STATUS_AGAIN);
}

static uint32_t node_count(void)
{
    struct rows_tree *tree = NULL;
    uint32_t count;

    assert_int_equal(rows_read_tree(journal_database(rig.journal), RIG_SESSION, NULL, &tree),
                     STATUS_OK);
    count = tree->node_count;
    rows_tree_destroy(tree);
    return count;
}

static void test_nothing_is_told_before_the_step_that_commits_it(void **state)
{
    (void)state;
    assert_int_equal(journal_step(rig.journal), 0);
    assert_int_equal(give_intent(1), STATUS_OK);
    assert_int_equal(give_intent(2), STATUS_OK);
    assert_int_equal(give_finish(1), STATUS_OK);
    assert_none();
    assert_int_equal(node_count(), 0);
    assert_int_equal(journal_pending_count(rig.journal), 6);
    assert_int_equal(journal_step(rig.journal), 3);
    assert_int_equal(journal_pending_count(rig.journal), 6);
    assert_told(JOURNAL_TOLD_NODE, 1, STATUS_OK);
    assert_told(JOURNAL_TOLD_NODE, 2, STATUS_OK);
    assert_told(JOURNAL_TOLD_FINISH, 1, STATUS_OK);
    assert_none();
    assert_int_equal(journal_pending_count(rig.journal), 0);
    assert_int_equal(journal_step(rig.journal), 0);
    assert_int_equal(node_count(), 2);
}

static void test_a_group_is_bounded_and_the_rest_waits_its_turn(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= JOURNAL_GROUP_COUNT_MAX + 3; id++) {
        assert_int_equal(give_intent(id), STATUS_OK);
    }
    assert_int_equal(journal_step(rig.journal), JOURNAL_GROUP_COUNT_MAX);
    assert_int_equal(journal_step(rig.journal), 3);
    for (uint64_t id = 1; id <= JOURNAL_GROUP_COUNT_MAX + 3; id++) {
        assert_told(JOURNAL_TOLD_NODE, id, STATUS_OK);
    }
    assert_none();
}

static void test_a_full_journal_refuses_intents_but_never_a_finish(void **state)
{
    uint64_t taken = 0;

    (void)state;
    while (give_intent(taken + 1) == STATUS_OK) {
        taken++;
    }
    assert_int_equal(taken, JOURNAL_QUEUE_COUNT_MAX / 4);
    assert_int_equal(give_intent(taken + 1), STATUS_LIMIT);
    for (uint64_t id = 1; id <= taken; id++) {
        assert_int_equal(give_finish(id), STATUS_OK);
    }
    assert_int_equal(give_intent(taken + 1), STATUS_LIMIT);

    /* Committing alone makes no room: the completions have to be popped. */
    while (journal_step(rig.journal) > 0) {
    }
    assert_int_equal(give_intent(taken + 1), STATUS_LIMIT);
    assert_told(JOURNAL_TOLD_NODE, 1, STATUS_OK);
    assert_int_equal(give_intent(taken + 1), STATUS_LIMIT);
    assert_told(JOURNAL_TOLD_NODE, 2, STATUS_OK);
    assert_int_equal(give_intent(taken + 1), STATUS_OK);
}

static void test_bytes_under_way_are_bounded_too(void **state)
{
    static uint8_t text[8 * 1024 * 1024];
    struct journal_record record = rig_given(1, 0);
    uint32_t count = 0;

    (void)state;
    record.u.given.text = bytes_of(text, sizeof(text));
    while (journal_rig_submit(&rig, &record, 1) == STATUS_OK) {
        record.u.given.node.id++;
        count++;
    }
    assert_true(count <= JOURNAL_QUEUE_BYTES_MAX / sizeof(text) + 1);
    assert_int_equal(journal_rig_settle(&rig), STATUS_OK);
    assert_int_equal(journal_rig_submit(&rig, &record, 1), STATUS_OK);
    assert_int_equal(journal_rig_settle(&rig), STATUS_OK);
}

static void test_a_batch_is_committed_whole_or_not_at_all(void **state)
{
    const struct journal_record records[] = {rig_given(1, 0), rig_given(2, 1), rig_given(3, 77)};

    (void)state;
    assert_int_equal(journal_rig_submit(&rig, records, 2), STATUS_OK);
    assert_int_equal(journal_rig_settle(&rig), STATUS_OK);
    assert_int_equal(node_count(), 2);
    journal_rig_finish(&rig);
    journal_rig_init(&rig);
    assert_int_equal(journal_rig_submit(&rig, records, 3), STATUS_OK);
    assert_int_equal(journal_rig_settle(&rig), STATUS_STORAGE);
    assert_int_equal(node_count(), 0);
    assert_false(journal_is_writable(rig.journal));
    journal_rig_reopen(&rig);
    assert_int_equal(node_count(), 0);
}

/* Each is an order that the session must keep; turned round on purpose, the journal refuses it. */
static void test_orders_that_are_wrong_are_caught(void **state)
{
    const struct journal_record child_first[] = {rig_given(2, 1), rig_given(1, 0)};
    const struct journal_record intent_without_context[] = {rig_steps(), rig_intent(1, 0)};
    const struct journal_record context_last[] = {rig_steps(), rig_intent(1, 0), rig_context(1)};
    const struct journal_record finish_first[] = {rig_context(1), rig_steps(), rig_finish(1, 0, 3),
                                                  rig_intent(1, 0)};
    const struct journal_record checkpoint_first[] = {rig_context(1), rig_steps(),
                                                      rig_checkpoint(1, 0, 3), rig_intent(1, 0)};
    const struct journal_record finished_twice[] = {rig_context(1), rig_steps(), rig_intent(1, 0),
                                                    rig_finish(1, 0, 3), rig_finish(1, 3, 1)};
    const struct journal_record same_tokens[] = {rig_context(1), rig_steps(), rig_intent(1, 0),
                                                 rig_checkpoint(1, 0, 3), rig_finish(1, 0, 4)};
    const struct {
        const struct journal_record *records;
        uint32_t count;
    } orders[] = {{child_first, 2},  {intent_without_context, 2}, {context_last, 3},
                  {finish_first, 4}, {checkpoint_first, 4},       {finished_twice, 5},
                  {same_tokens, 5}};

    (void)state;
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        assert_int_equal(journal_rig_submit(&rig, orders[i].records, orders[i].count), STATUS_OK);
        if (journal_rig_settle(&rig) != STATUS_STORAGE) {
            fail_msg("order %zu was taken", i);
        }
        assert_int_equal(node_count(), 0);
        journal_rig_finish(&rig);
        journal_rig_init(&rig);
    }
}

static void test_the_first_failed_commit_turns_the_journal_read_only(void **state)
{
    (void)state;
    assert_int_equal(give_intent(1), STATUS_OK);
    assert_int_equal(journal_step(rig.journal), 1);
    assert_int_equal(give_intent(2), STATUS_OK);
    assert_int_equal(give_finish(1), STATUS_OK);
    journal_fault_raise(rig.journal);
    assert_true(journal_is_writable(rig.journal));
    assert_int_equal(journal_step(rig.journal), 2);
    assert_false(journal_is_writable(rig.journal));
    assert_int_equal(give_intent(3), STATUS_STORAGE);
    assert_int_equal(give_finish(2), STATUS_STORAGE);

    /* What was committed stays committed; what came later is told once, too. */
    assert_told(JOURNAL_TOLD_NODE, 1, STATUS_OK);
    assert_told(JOURNAL_TOLD_NODE, 2, STATUS_STORAGE);
    assert_told(JOURNAL_TOLD_FINISH, 1, STATUS_STORAGE);
    assert_none();
    assert_int_equal(journal_pending_count(rig.journal), 0);
    assert_int_equal(node_count(), 1);
}

static void count_call(void *context)
{
    ++*(uint32_t *)context;
}

static void test_the_hook_tells_that_completions_wait(void **state)
{
    uint32_t count = 0;

    (void)state;
    journal_on_completed(rig.journal, count_call, &count);
    assert_int_equal(give_intent(1), STATUS_OK);
    assert_int_equal(count, 0);
    assert_int_equal(journal_step(rig.journal), 1);
    assert_true(count >= 1);
}

static void test_a_ticket_is_told_behind_its_nodes(void **state)
{
    const struct journal_record record = rig_given(1, 0);
    struct journal_batch *batch = NULL;

    (void)state;
    assert_int_equal(journal_batch_create(&batch), STATUS_OK);
    assert_int_equal(journal_batch_add(batch, &record), STATUS_OK);
    batch->ticket = 4711;
    assert_int_equal(journal_submit(rig.journal, batch), STATUS_OK);
    assert_int_equal(journal_batch_create(&batch), STATUS_OK);
    batch->ticket = 4712; /* without records: all that came before is committed */
    assert_int_equal(journal_submit(rig.journal, batch), STATUS_OK);
    assert_int_equal(journal_step(rig.journal), 2);
    assert_next(JOURNAL_TOLD_NODE, 1, STATUS_OK);
    assert_next(JOURNAL_TOLD_BATCH, 4711, STATUS_OK);
    assert_next(JOURNAL_TOLD_BATCH, 4712, STATUS_OK);
    assert_none();
}

/* ---- two threads ---- */

struct writer_thread {
    pthread_t thread;
    struct flag *is_stopping;
    uint64_t committed_count;
};

static void *run_journal(void *context)
{
    struct writer_thread *writer = context;
    uint32_t count;

    do {
        journal_wait(rig.journal, -1);
        do {
            count = journal_step(rig.journal);
            writer->committed_count += count;
        } while (count > 0);
    } while (!flag_is_raised(writer->is_stopping));
    return NULL;
}

static void writer_start(struct writer_thread *writer)
{
    writer->committed_count = 0;
    assert_int_equal(flag_create(&writer->is_stopping), STATUS_OK);
    assert_int_equal(pthread_create(&writer->thread, NULL, run_journal, writer), 0);
}

static void writer_stop(struct writer_thread *writer)
{
    flag_raise(writer->is_stopping);
    journal_wake(rig.journal);
    assert_int_equal(pthread_join(writer->thread, NULL), 0);
    flag_destroy(writer->is_stopping);
}

/* More entries than fit, so that the giver meets the limit and has to pop on the way. */
static void test_two_threads_tell_every_batch_once_and_in_order(void **state)
{
    const uint64_t count = JOURNAL_QUEUE_COUNT_MAX / 2;
    struct journal_completion completion;
    struct writer_thread writer;
    uint64_t given = 0;
    uint64_t told = 0;

    (void)state;
    writer_start(&writer);
    while (told < 4 * count) {
        while (given < count && give_intent(given + 1) == STATUS_OK) {
            given++;
            assert_int_equal(give_finish(given), STATUS_OK);
        }
        while (journal_completed_pop(rig.journal, &completion) == STATUS_OK) {
            static const enum journal_told expected[] = {JOURNAL_TOLD_NODE, JOURNAL_TOLD_BATCH,
                                                         JOURNAL_TOLD_FINISH, JOURNAL_TOLD_BATCH};

            if (completion.status != STATUS_OK || completion.told != expected[told % 4] ||
                (told % 2 == 0 && completion.id != told / 4 + 1)) {
                fail_msg("completion %u is wrong", (unsigned)told);
            }
            told++;
        }
        sched_yield();
    }
    assert_none();
    assert_int_equal(journal_pending_count(rig.journal), 0);
    writer_stop(&writer);
    assert_true(writer.committed_count == 2 * count);
    assert_int_equal(node_count(), count);
}

static void test_a_failure_in_mid_stream_splits_it_once(void **state)
{
    struct journal_completion completion;
    struct writer_thread writer;
    uint64_t given = 0;
    uint64_t told = 0;
    uint32_t stored = 0;
    bool is_failed = false;
    enum status status;

    (void)state;
    writer_start(&writer);
    while ((status = give_intent(given + 1)) != STATUS_STORAGE) {
        given += status == STATUS_OK; /* a slow thread lets the giver meet the limit */
        if (given == 1000) {
            journal_fault_raise(rig.journal);
        }
        sched_yield();
    }
    while (journal_pending_count(rig.journal) > 0) {
        if (journal_completed_pop(rig.journal, &completion) != STATUS_OK) {
            sched_yield();
            continue;
        }
        if (completion.told == JOURNAL_TOLD_BATCH) {
            continue;
        }
        assert_true(completion.id == ++told);
        if (completion.status == STATUS_OK) {
            assert_false(is_failed);
            stored++;
        } else {
            assert_int_equal(completion.status, STATUS_STORAGE);
            is_failed = true;
        }
    }
    assert_true(is_failed);
    assert_true(told == given);
    writer_stop(&writer);
    assert_int_equal(node_count(), stored);
}

static void test_every_allocation_of_a_batch_may_fail(void **state)
{
    const struct journal_record record = rig_given(1, 0);
    const int64_t live = memory_live_count();

    (void)state;
    for (int64_t survivors = 0;; survivors++) {
        struct journal_batch *batch = NULL;
        enum status status;

        memory_fault_set(survivors);
        status = journal_batch_create(&batch);
        if (status == STATUS_OK) {
            status = journal_batch_add(batch, &record);
        }
        memory_fault_set(-1);
        journal_batch_destroy(batch);
        assert_true(memory_live_count() == live);
        if (status == STATUS_OK) {
            break;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_true(survivors < 10);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_told_before_the_step_that_commits_it),
        TEST(test_a_group_is_bounded_and_the_rest_waits_its_turn),
        TEST(test_a_full_journal_refuses_intents_but_never_a_finish),
        TEST(test_bytes_under_way_are_bounded_too),
        TEST(test_a_batch_is_committed_whole_or_not_at_all),
        TEST(test_orders_that_are_wrong_are_caught),
        TEST(test_the_first_failed_commit_turns_the_journal_read_only),
        TEST(test_the_hook_tells_that_completions_wait),
        TEST(test_a_ticket_is_told_behind_its_nodes),
        TEST(test_two_threads_tell_every_batch_once_and_in_order),
        TEST(test_a_failure_in_mid_stream_splits_it_once),
        TEST(test_every_allocation_of_a_batch_may_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
