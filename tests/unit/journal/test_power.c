/* Goal: what the journal has told as committed survives a loss of power at any moment, and a write
 * or sync that fails at any place fails its batch whole and nothing before it. Method: the journal
 * on a disk in memory (power_disk.h). The same random batches run again and again; each time the
 * disk dies at another operation and keeps a seeded subset of what was not synced. The twin runs
 * with synchronous=OFF, which must be caught. Then every single write and sync fails once; and what
 * a daemon left unsynced when it ended is on the disk before the next one reads it, and an import
 * that did not end is erased in one commit: a start that dies in it leaves the next one all to do.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/memory.h"
#include "journal/database.h"
#include "journal/rows.h"
#include "unit/journal/journal_rig.h"
#include "unit/journal/power_disk.h"

enum { NODE_COUNT = 30, CUT_COUNT = 200 };

static struct journal_rig rig;

/* Every batch makes a node and, from the second on, ends the one before. */
static enum status give(uint64_t node)
{
    const struct journal_record records[] = {rig_context(node), rig_steps(), rig_intent(node, 0),
                                             rig_checkpoint(node, 0, 3)};
    const struct journal_record finish = rig_finish(node - 1, 3, 2);
    enum status status = journal_rig_submit(&rig, records, 4);

    if (status == STATUS_OK && node > 1) {
        status = journal_rig_submit(&rig, &finish, 1);
    }
    return status;
}

/* What was told. */
struct told {
    uint64_t node_count; /* nodes 1 to that */
    uint64_t finished_count;
};

static void take(struct told *told)
{
    struct journal_completion completion;

    while (journal_step(rig.journal) > 0) {
    }
    while (journal_completed_pop(rig.journal, &completion) == STATUS_OK) {
        if (completion.status == STATUS_OK && completion.told == JOURNAL_TOLD_NODE) {
            told->node_count = completion.id;
        } else if (completion.status == STATUS_OK && completion.told == JOURNAL_TOLD_FINISH) {
            told->finished_count = completion.id;
        }
    }
}

static struct told play(const char *planted)
{
    struct told told = {0};

    assert_int_equal(
        database_run(journal_database(rig.journal), "PRAGMA wal_autocheckpoint = 12", NULL),
        STATUS_OK);
    if (planted != NULL) {
        assert_int_equal(database_run(journal_database(rig.journal), planted, NULL), STATUS_OK);
    }
    for (uint64_t node = 1; node <= NODE_COUNT; node++) {
        if (give(node) != STATUS_OK) {
            break;
        }
        if (node % 3 != 0) {
            take(&told);
        }
    }
    take(&told);
    return told;
}

/* False when something told is missing, or the file is damaged. */
static bool holds(const struct told *told)
{
    struct rows_tree *tree = NULL;
    struct error error = {0};
    bool is_whole;

    if (journal_open(rig.path, &error, &rig.journal) != STATUS_OK) {
        print_message("%s\n", error.text);
        return false;
    }
    if (rows_read_tree(journal_database(rig.journal), RIG_SESSION, &error, &tree) != STATUS_OK) {
        print_message("%s\n", error.text);
        return false;
    }
    is_whole = tree->node_count >= told->node_count;
    for (uint32_t i = 0; i < tree->node_count && is_whole; i++) {
        const struct rows_node *node = &tree->nodes[i];
        const bool is_finished = node->finish != 0;

        is_whole = node->node.id == i + 1 && node->sampled_count == (is_finished ? 5 : 3) &&
                   node->chunk_count == (is_finished ? 2 : 1) &&
                   (is_finished || node->node.id > told->finished_count);
    }
    rows_tree_destroy(tree);
    return is_whole;
}

/* The disk of a journal that was set up and synced. */
static void begin(void)
{
    power_disk_install();
    journal_rig_init(&rig);
}

static void end(void)
{
    journal_rig_finish(&rig);
    power_disk_remove();
}

/* How many of the cuts lose something. */
static uint32_t cut_often(const char *planted, uint32_t count)
{
    uint64_t first;
    uint64_t last;
    uint32_t lost_count = 0;

    begin();
    first = power_disk_operation_count();
    (void)play(planted);
    last = power_disk_operation_count();
    end();
    for (uint32_t i = 0; i < count; i++) {
        struct told told;

        begin();
        power_disk_fail_at(first + 1 + (uint64_t)i * (last - first) / count, false, false);
        told = play(planted);
        journal_close(rig.journal);
        rig.journal = NULL;
        power_disk_cut(i);
        lost_count += !holds(&told);
        end();
    }
    return lost_count;
}

static void test_what_was_told_survives_a_loss_of_power(void **state)
{
    (void)state;
    assert_int_equal(cut_often(NULL, CUT_COUNT), 0);
}

static void test_a_journal_that_does_not_sync_is_caught(void **state)
{
    (void)state;
    assert_true(cut_often("PRAGMA synchronous = OFF", CUT_COUNT) > CUT_COUNT / 10);
}

/* Each operation fails once, or from then on, as an error or as a full disk; without loss of power.
 */
static void fail_everywhere(bool only_one, bool full)
{
    for (uint64_t operation = 1;; operation++) {
        struct told told;
        uint64_t first;
        bool is_over;

        begin();
        first = power_disk_operation_count();
        power_disk_fail_at(first + operation, only_one, full);
        told = play(NULL);
        is_over = power_disk_operation_count() < first + operation;
        power_disk_fail_at(0, false, false);
        journal_close(rig.journal);
        rig.journal = NULL;
        assert_true(holds(&told));
        end();
        if (is_over) {
            assert_int_equal(told.node_count, NODE_COUNT);
            assert_true(operation > 100);
            return;
        }
    }
}

static void test_every_write_and_sync_may_fail(void **state)
{
    (void)state;
    fail_everywhere(true, false);
    fail_everywhere(false, false);
}

static void test_the_disk_may_be_full_at_every_write(void **state)
{
    (void)state;
    fail_everywhere(false, true);
}

/* Nodes that a query counts. */
static int64_t count_nodes(struct database *database)
{
    int64_t count = -1;

    assert_int_equal(database_read_number(database, "SELECT count(*) FROM node", NULL, &count),
                     STATUS_OK);
    return count;
}

static int64_t count_raw(void)
{
    struct database raw = {NULL, rig.path};
    int64_t count;

    assert_int_equal(sqlite3_open(rig.path, &raw.handle), SQLITE_OK);
    assert_int_equal(database_run(&raw, "PRAGMA locking_mode = EXCLUSIVE", NULL), STATUS_OK);
    count = count_nodes(&raw);
    power_disk_fail_at(1, false, false); /* it writes nothing more, closing neither */
    assert_int_equal(sqlite3_close(raw.handle), SQLITE_OK);
    return count;
}

/* The sync of a commit fails and the daemon is killed; who opens the file again reads that commit.
 * Then the power goes. How many nodes were read, and are gone. */
static int64_t lose_what_was_read(bool opens_as_daemon, uint64_t seed)
{
    int64_t seen, left;

    begin();
    assert_int_equal(give(1), STATUS_OK);
    power_disk_fail_at(power_disk_operation_count() + 1 + seed, false, false);
    while (journal_step(rig.journal) > 0) {
    }
    journal_close(rig.journal);
    rig.journal = NULL;
    power_disk_fail_at(0, false, false);
    if (opens_as_daemon) {
        assert_int_equal(journal_open(rig.path, NULL, &rig.journal), STATUS_OK);
        seen = count_nodes(journal_database(rig.journal));
        power_disk_fail_at(1, false, false);
        journal_close(rig.journal);
        rig.journal = NULL;
    } else {
        seen = count_raw();
    }
    power_disk_cut(seed);
    assert_int_equal(journal_open(rig.path, NULL, &rig.journal), STATUS_OK);
    left = count_nodes(journal_database(rig.journal));
    end();
    return seen - left;
}

static void test_what_is_read_at_a_start_is_on_the_disk(void **state)
{
    int64_t lost = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        assert_int_equal(lose_what_was_read(true, seed), 0);
        lost += lose_what_was_read(false, seed);
    }
    assert_true(lost > 0); /* the twin, which does not care */
}

/* The mark of an import that did not end, and what had come of it. */
static void leave_import(void)
{
    const struct journal_record mark = {
        .kind = JOURNAL_NOTE,
        .u.note = {.kind = JOURNAL_NOTE_SESSION,
                   .id = RIG_SESSION,
                   .flags = JOURNAL_NOTE_DELETED | JOURNAL_NOTE_PURGED,
                   .label = bytes_of_text(JOURNAL_IMPORTING)},
    };

    assert_int_equal(journal_rig_submit(&rig, &mark, 1), STATUS_OK);
    for (uint64_t node = 1; node <= NODE_COUNT; node++) {
        assert_int_equal(give(node), STATUS_OK);
        assert_int_equal(journal_rig_settle(&rig), STATUS_OK);
    }
    journal_close(rig.journal);
    rig.journal = NULL;
}

/* The twin of a start: the mark goes in a commit of its own. */
static void clean_in_two(void)
{
    struct database raw = {NULL, rig.path};
    static const char *const commits[] = {"PRAGMA locking_mode = EXCLUSIVE",
                                          "UPDATE note SET label = x''", "DELETE FROM chunk"};
    enum status status = STATUS_OK;

    assert_int_equal(sqlite3_open(rig.path, &raw.handle), SQLITE_OK);
    for (size_t i = 0; i < sizeof(commits) / sizeof(commits[0]) && status == STATUS_OK; i++) {
        status = database_run(&raw, commits[i], NULL);
    }
    (void)sqlite3_close(raw.handle);
}

/* A start dies at one operation of the disk after the other, and the power goes. How often the next
 * start leaves something of the import. */
static uint32_t die_while_cleaning(bool in_two)
{
    uint32_t left_count = 0;
    bool is_over = false;

    for (uint64_t operation = 1; !is_over; operation++) {
        int64_t chunk_count = -1;
        uint64_t first;

        begin();
        leave_import();
        first = power_disk_operation_count();
        power_disk_fail_at(first + operation, false, false);
        if (in_two) {
            clean_in_two();
        } else if (journal_open(rig.path, NULL, &rig.journal) == STATUS_OK) {
            journal_close(rig.journal);
        }
        rig.journal = NULL;
        is_over = power_disk_operation_count() < first + operation;
        power_disk_fail_at(0, false, false);
        power_disk_cut(operation);
        assert_int_equal(journal_open(rig.path, NULL, &rig.journal), STATUS_OK);
        assert_int_equal(database_read_number(journal_database(rig.journal),
                                              "SELECT count(*) FROM chunk", NULL, &chunk_count),
                         STATUS_OK);
        left_count += chunk_count != 0;
        end();
    }
    return left_count;
}

static void test_an_import_that_did_not_end_is_erased_in_one_commit(void **state)
{
    (void)state;
    assert_int_equal(die_while_cleaning(false), 0);
    assert_true(die_while_cleaning(true) > 0);
}

static int set_up(void **state)
{
    (void)state;
    /* Hundreds of failures are meant. */
    (void)freopen("/dev/null", "w", stderr);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_told_survives_a_loss_of_power),
        cmocka_unit_test(test_a_journal_that_does_not_sync_is_caught),
        cmocka_unit_test(test_what_is_read_at_a_start_is_on_the_disk),
        cmocka_unit_test(test_an_import_that_did_not_end_is_erased_in_one_commit),
        cmocka_unit_test(test_every_write_and_sync_may_fail),
        cmocka_unit_test(test_the_disk_may_be_full_at_every_write),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
