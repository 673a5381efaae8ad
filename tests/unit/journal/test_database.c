/* Goal: a file that cannot be served is refused with a sentence that says why, and stays as it was;
 * all that was written comes back as it was.
 * Method: journals in folders of their own, damaged, locked, made newer or foreign on purpose, and
 * compared byte by byte; every kind of record written and read again.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/sha256.h"
#include "journal/database.h"
#include "journal/rows.h"
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

/* Opening must fail so, with these words, and change nothing. */
static void assert_refused(enum status expected, const char *words)
{
    uint8_t before[SHA256_BYTES];
    uint8_t after[SHA256_BYTES];
    struct journal *journal = NULL;
    struct error error = {0};

    assert_int_equal(sha256_file(rig.path, NULL, before), STATUS_OK);
    assert_int_equal(journal_open(rig.path, &error, &journal), expected);
    assert_null(journal);
    if (strstr(error.text, words) == NULL || strstr(error.text, rig.path) == NULL) {
        fail_msg("the sentence is: %s", error.text);
    }
    assert_int_equal(sha256_file(rig.path, NULL, after), STATUS_OK);
    assert_memory_equal(before, after, SHA256_BYTES);
}

static void close_journal(void)
{
    journal_close(rig.journal);
    rig.journal = NULL;
}

static void overwrite(off_t at, const void *bytes, size_t size)
{
    const int file = open(rig.path, O_WRONLY | O_CLOEXEC);

    assert_true(file >= 0);
    assert_true(pwrite(file, bytes, size, at) == (ssize_t)size);
    assert_int_equal(close(file), 0);
}

/* Runs SQL on the closed file. */
static void change(const char *sql)
{
    struct database *database = NULL;

    assert_int_equal(database_open(rig.path, NULL, &database), STATUS_OK);
    assert_int_equal(database_run(database, sql, NULL), STATUS_OK);
    database_close(database);
}

static void test_a_second_daemon_on_the_same_file_is_refused(void **state)
{
    (void)state;
    assert_refused(STATUS_CONFLICT, "another program has it open");
}

static void test_a_newer_version_is_refused(void **state)
{
    (void)state;
    close_journal();
    change("PRAGMA user_version = 99");
    assert_refused(STATUS_UNSUPPORTED, "a newer personad wrote it (version 99");
}

static void test_another_database_is_refused(void **state)
{
    (void)state;
    close_journal();
    assert_int_equal(unlink(rig.path), 0);
    /* A database that is no journal: one table, version 0. */
    sqlite3 *other = NULL;
    assert_int_equal(sqlite3_open(rig.path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "CREATE TABLE x (y)", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    assert_refused(STATUS_UNSUPPORTED, "not a journal of personad");
}

static void test_what_is_no_database_is_refused(void **state)
{
    (void)state;
    close_journal();
    overwrite(0, "This is a letter.", 17);
    assert_refused(STATUS_STORAGE, "it is damaged");
}

static void test_a_damaged_page_is_found_at_the_start(void **state)
{
    static const uint8_t garbage[4096] = {0xff, 0xff, 0xff, 0xff, 0xff};
    struct stat info;

    (void)state;
    close_journal();
    assert_int_equal(stat(rig.path, &info), 0);
    overwrite(info.st_size / 4096 / 2 * 4096, garbage, sizeof(garbage));
    assert_refused(STATUS_STORAGE, "it is damaged");
}

static void test_a_folder_that_cannot_be_written_is_named(void **state)
{
    struct journal *journal = NULL;
    struct error error = {0};
    char path[RIG_PATH_BYTES_MAX + 16];

    (void)state;
    (void)snprintf(path, sizeof(path), "%s/none/x.db", rig.folder);
    assert_int_equal(journal_open(path, &error, &journal), STATUS_IO);
    assert_non_null(strstr(error.text, path));
}

/* ---- what was written ---- */

/* All fields, without what pads the struct. */
static void assert_skeleton(const struct journal_node *a, const struct journal_node *b)
{
    const size_t size = offsetof(struct journal_node, flags) + sizeof(a->flags);

    assert_memory_equal(a, b, size);
}

static void test_a_tree_comes_back_as_it_was_given(void **state)
{
    const struct journal_record records[] = {
        rig_given(10, 0),   rig_context(11),          rig_steps(),
        rig_intent(11, 10), rig_checkpoint(11, 0, 2), rig_key(4)};
    const struct journal_record more[] = {rig_finish(11, 2, 3), rig_context(12), rig_steps(),
                                          rig_intent(12, 11), rig_checkpoint(12, 0, 1)};
    struct rows_tree *tree = NULL;

    (void)state;
    assert_int_equal(journal_rig_submit(&rig, records, 6), STATUS_OK);
    assert_int_equal(journal_rig_settle(&rig), STATUS_OK);
    assert_int_equal(journal_rig_submit(&rig, more, 5), STATUS_OK);
    assert_int_equal(journal_rig_settle(&rig), STATUS_OK);
    journal_rig_reopen(&rig);
    assert_int_equal(rows_read_tree(journal_database(rig.journal), RIG_SESSION, NULL, &tree),
                     STATUS_OK);
    assert_int_equal(tree->node_count, 3);
    assert_int_equal(tree->context_count, 2);
    assert_int_equal(tree->steps_count, 1);
    assert_int_equal(tree->chunk_count, 3);

    const struct rows_node *given = &tree->nodes[0];
    const struct journal_given *was = &records[0].u.given;
    assert_skeleton(&given->node, &was->node);
    assert_true(bytes_equal(given->ids, was->ids) && bytes_equal(given->text, was->text));
    assert_int_equal(given->finish, was->finish);
    assert_false(given->is_sampled);

    const struct rows_node *ended = &tree->nodes[1];
    const struct journal_intent *intent = &records[3].u.intent;
    const struct journal_finish *finish = &more[0].u.finish;
    assert_skeleton(&ended->node, &intent->node);
    assert_true(ended->seed == intent->seed && ended->context_id == intent->context_id);
    assert_true(ended->finished_us == finish->finished_us);
    assert_int_equal(ended->sampled_count, 5);
    assert_int_equal(ended->kept, finish->kept);
    assert_true(bytes_equal(ended->tail, finish->tail));
    assert_true(bytes_equal(ended->numerics_id, intent->origin.numerics_id));
    assert_memory_equal(ended->model_hash.data, intent->origin.model_hash, JOURNAL_DIGEST_BYTES);
    assert_int_equal(ended->chunk_count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        const struct journal_chunk *chunk = &tree->chunks[ended->first_chunk + i];
        const struct journal_chunk *expected =
            i == 0 ? &records[4].u.checkpoint.chunk : &finish->chunk;

        assert_int_equal(chunk->first, expected->first);
        assert_int_equal(chunk->count, expected->count);
        assert_true(bytes_equal(chunk->tokens, expected->tokens));
        assert_true(bytes_equal(chunk->tops, expected->tops));
        assert_true(bytes_equal(chunk->text, expected->text));
    }
    assert_int_equal(tree->nodes[2].finish, 0);
    assert_int_equal(tree->nodes[2].sampled_count, 1);
    rows_tree_destroy(tree);
}

static void test_reading_survives_every_failed_allocation(void **state)
{
    const struct journal_record records[] = {rig_given(10, 0), rig_context(11), rig_steps(),
                                             rig_intent(11, 10), rig_checkpoint(11, 0, 2)};
    int64_t live;

    (void)state;
    assert_int_equal(journal_rig_submit(&rig, records, 5), STATUS_OK);
    assert_int_equal(journal_rig_settle(&rig), STATUS_OK);
    live = memory_live_count();
    for (int64_t survivors = 0;; survivors++) {
        struct rows_tree *tree = NULL;
        enum status status;

        memory_fault_set(survivors);
        status = rows_read_tree(journal_database(rig.journal), RIG_SESSION, NULL, &tree);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            rows_tree_destroy(tree);
            break;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_true(memory_live_count() == live);
        assert_true(survivors < 100);
    }
    assert_true(memory_live_count() == live);
}

static void test_opening_survives_every_failed_allocation(void **state)
{
    (void)state;
    close_journal();
    for (int64_t survivors = 0;; survivors++) {
        struct journal *journal = NULL;
        enum status status;

        memory_fault_set(survivors);
        status = journal_open(rig.path, NULL, &journal);
        memory_fault_set(-1);
        if (status == STATUS_OK) {
            journal_close(journal);
            break;
        }
        assert_int_equal(status, STATUS_MEMORY);
        assert_true(memory_live_count() == 0);
        assert_true(survivors < 100);
    }
}

/* Places that wrap around, digests that begin alike, and one that comes twice. */
static void test_steps_are_found_by_all_of_their_digest(void **state)
{
    enum { COUNT = 6 };
    struct rows_tree *tree = NULL;
    struct journal_steps steps = {.digest = {0}};
    struct journal_context context = {0};

    (void)state;
    assert_int_equal(rows_tree_create(1, &tree), STATUS_OK);
    memset(steps.digest, 0xff, 8);
    assert_int_equal(rows_tree_find_steps(tree, bytes_of(steps.digest, sizeof(steps.digest))),
                     ROWS_NONE);
    for (uint32_t i = 0; i < COUNT; i++) {
        steps.digest[31] = (uint8_t)i;
        assert_int_equal(rows_tree_add_steps(tree, &steps), STATUS_OK);
        assert_int_equal(rows_tree_add_steps(tree, &steps), STATUS_OK);
        context.id = 10 + 2 * i;
        assert_int_equal(rows_tree_add_context(tree, &context), STATUS_OK);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        steps.digest[31] = (uint8_t)i;
        assert_int_equal(rows_tree_find_steps(tree, bytes_of(steps.digest, sizeof(steps.digest))),
                         2 * i);
        assert_int_equal(rows_tree_find_context(tree, 10 + 2 * i), i);
        assert_int_equal(rows_tree_find_context(tree, 9 + 2 * i), ROWS_NONE);
    }
    steps.digest[31] = COUNT;
    assert_int_equal(rows_tree_find_steps(tree, bytes_of(steps.digest, sizeof(steps.digest))),
                     ROWS_NONE);
    assert_int_equal(rows_tree_find_steps(tree, bytes_of(steps.digest, 31)), ROWS_NONE);
    assert_int_equal(rows_tree_find_context(tree, UINT64_MAX), ROWS_NONE);
    rows_tree_destroy(tree);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_second_daemon_on_the_same_file_is_refused),
        TEST(test_a_newer_version_is_refused),
        TEST(test_another_database_is_refused),
        TEST(test_what_is_no_database_is_refused),
        TEST(test_a_damaged_page_is_found_at_the_start),
        TEST(test_a_folder_that_cannot_be_written_is_named),
        TEST(test_a_tree_comes_back_as_it_was_given),
        TEST(test_reading_survives_every_failed_allocation),
        TEST(test_opening_survives_every_failed_allocation),
        cmocka_unit_test(test_steps_are_found_by_all_of_their_digest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
