/* Goal: an older journal is copied, then brought to the newest version, one version a transaction;
 * whatever ends the program meanwhile, the file has a whole version and the next start goes on; a
 * migrated database has the tables of a new one.
 * Method: a schema of the test's own with three versions, whose migrations can kill the process
 * between any two statements; power that goes at every write (power_disk.h); tables compared column
 * by column, with a twin whose migration forgets an index. The golden files of tests/fixtures too.
 */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/memory.h"
#include "journal/database.h"
#include "journal/migration.h"
#include "journal/schema.h"
#include "unit/journal/power_disk.h"

enum { PATH_MAX_BYTES = 600, SHAPE_BYTES_MAX = 64 * 1024, STEP_COUNT = 8 };

/* die(N) ends the process as a kill does, if N is asked for. */
static const char sql_1[] = "CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL) STRICT;"
                            "CREATE TABLE b (id INTEGER PRIMARY KEY,"
                            "                a_id INTEGER NOT NULL REFERENCES a(id)) STRICT;";
static const char to_2[] = "SELECT die(0); ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7;"
                           "SELECT die(1); UPDATE a SET y = id * 10;"
                           "SELECT die(2); CREATE INDEX a_by_y ON a(y); SELECT die(3);";
/* A table is made anew, which foreign keys would forbid. */
static const char to_3[] =
    "SELECT die(4);"
    "CREATE TABLE new_a (id INTEGER PRIMARY KEY, x BLOB NOT NULL,"
    "                    y INTEGER NOT NULL DEFAULT 7) STRICT; SELECT die(5);"
    "INSERT INTO new_a SELECT id, CAST(x AS BLOB), y FROM a; DROP TABLE a; SELECT die(6);"
    "ALTER TABLE new_a RENAME TO a; CREATE INDEX a_by_y ON a(y); SELECT die(7);";
static const char sql_3[] =
    "CREATE TABLE a (id INTEGER PRIMARY KEY, x BLOB NOT NULL, y INTEGER NOT NULL DEFAULT 7) STRICT;"
    "CREATE INDEX a_by_y ON a(y);"
    "CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INTEGER NOT NULL REFERENCES a(id)) STRICT;";

static const struct schema schema_1 = {.sql = sql_1};
static const char *const both[] = {to_2, to_3, NULL};
static const struct schema schema_2 = {.sql = sql_1, .migrations = both, .migration_count = 1};
static const struct schema schema_3 = {.sql = sql_3, .migrations = both, .migration_count = 2};

static char folder[PATH_MAX_BYTES];
static char path[PATH_MAX_BYTES];
static int64_t dies_at = -1;

static void die(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)context;
    (void)count;
    if (sqlite3_value_int64(values[0]) == dies_at) {
        (void)raise(SIGKILL);
    }
}

static int add_function(sqlite3 *handle, const char **text, const void *routines)
{
    (void)text;
    (void)routines;
    return sqlite3_create_function(handle, "die", 1, SQLITE_UTF8, NULL, die, NULL, NULL);
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/pd-migration-XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%.500s/journal.db", folder);
    dies_at = -1;
    return 0;
}

static int tear_down(void **state)
{
    DIR *open_folder = opendir(folder);

    (void)state;
    for (struct dirent *at = readdir(open_folder); at != NULL; at = readdir(open_folder)) {
        char name[2 * PATH_MAX_BYTES];

        (void)snprintf(name, sizeof(name), "%s/%s", folder, at->d_name);
        (void)unlink(name);
    }
    (void)closedir(open_folder);
    return rmdir(folder) == 0 && memory_live_count() == 0 ? 0 : -1;
}

static struct database *open_as(const char *name, const struct schema *schema)
{
    struct database *database = NULL;
    struct error error = {0};

    if (database_open_as(name, schema, &error, &database) != STATUS_OK) {
        fail_msg("%s", error.text);
    }
    return database;
}

static int64_t number(struct database *database, const char *sql)
{
    int64_t found = 0;

    assert_int_equal(database_read_number(database, sql, NULL, &found), STATUS_OK);
    return found;
}

static void make_version_1(const char *name)
{
    struct database *database = open_as(name, &schema_1);

    assert_int_equal(database_run(database,
                                  "INSERT INTO a VALUES (1, 'one'), (2, 'two');"
                                  "INSERT INTO b VALUES (1, 2)",
                                  NULL),
                     STATUS_OK);
    database_close(database);
}

static void assert_version_3(struct database *database)
{
    assert_int_equal(number(database, "PRAGMA user_version"), 3);
    assert_int_equal(number(database, "SELECT count(*) FROM a WHERE y = id * 10 AND "
                                      "typeof(x) = 'blob' AND x IN (x'6f6e65', x'74776f')"),
                     2);
    assert_int_equal(number(database, "SELECT a_id FROM b"), 2);
    assert_int_equal(number(database, "PRAGMA foreign_keys"), 1);
}

static bool exists(const char *suffix, off_t *size)
{
    char name[2 * PATH_MAX_BYTES];
    struct stat info;

    (void)snprintf(name, sizeof(name), "%s%s", path, suffix);
    if (stat(name, &info) != 0) {
        return false;
    }
    *size = info.st_size;
    return true;
}

/* ---- a migration ---- */

static void test_an_older_journal_is_copied_and_migrated(void **state)
{
    char name[2 * PATH_MAX_BYTES];
    struct database *database;
    struct stat info;
    off_t size = 0;

    (void)state;
    make_version_1(path);
    database = open_as(path, &schema_3);
    assert_version_3(database);
    database_close(database);
    (void)snprintf(name, sizeof(name), "%s.v1", path);
    assert_int_equal(stat(name, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_false(exists(".v1.part", &size) || exists(".v1.2", &size) || exists(".v2", &size));
    /* The copy is the old journal: the old program opens it. */
    database = open_as(name, &schema_1);
    assert_int_equal(number(database, "SELECT count(*) FROM a"), 2);
    assert_int_equal(number(database, "SELECT count(*) FROM sqlite_schema WHERE name = 'a_by_y'"),
                     0);
    database_close(database);
    /* Nothing more happens at the next start. */
    database = open_as(path, &schema_3);
    assert_version_3(database);
    database_close(database);
    assert_false(exists(".v1.2", &size) || exists(".v3", &size));
}

static void test_no_copy_is_ever_replaced(void **state)
{
    struct error error = {0};
    struct database *database = NULL;
    off_t size = 0;

    (void)state;
    for (uint32_t i = 1; i <= 9; i++) {
        char name[2 * PATH_MAX_BYTES];
        FILE *file;

        (void)snprintf(name, sizeof(name), i > 1 ? "%s.v1.%u" : "%s.v1", path, i);
        file = fopen(name, "w");
        assert_non_null(file);
        /* The fifth is what a killed copy left to hold the name. */
        assert_true(i == 5 || fputs("another's", file) >= 0);
        assert_int_equal(fclose(file), 0);
    }
    make_version_1(path);
    database = open_as(path, &schema_3);
    assert_version_3(database);
    database_close(database);
    assert_true(exists(".v1", &size) && size == 9);
    assert_true(exists(".v1.9", &size) && size == 9);
    assert_true(exists(".v1.5", &size) && size > 4096);
    assert_int_equal(unlink(path), 0);
    make_version_1(path);
    assert_int_equal(database_open_as(path, &schema_3, &error, &database), STATUS_CONFLICT);
    assert_non_null(strstr(error.text, "move them away"));
    database = open_as(path, &schema_1);
    database_close(database);
}

static void test_a_failed_migration_leaves_the_version_before(void **state)
{
    static const char *const broken[] = {to_2, "UPDATE a SET y = 1; SELECT x FROM nowhere", NULL};
    static const char *const orphans[] = {to_2, "DELETE FROM a WHERE id = 2", NULL};
    const char *const *lists[] = {broken, orphans};
    const char *const words[] = {"nowhere", "points at none of table a"};

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        const struct schema schema = {.sql = sql_3, .migrations = lists[i], .migration_count = 2};
        struct error error = {0};
        struct database *database = NULL;

        make_version_1(path);
        assert_int_equal(database_open_as(path, &schema, &error, &database), STATUS_STORAGE);
        if (strstr(error.text, words[i]) == NULL || strstr(error.text, "to version 3") == NULL) {
            fail_msg("the sentence is: %s", error.text);
        }
        /* The right program goes on from version 2. */
        database = open_as(path, &schema_3);
        assert_version_3(database);
        database_close(database);
        assert_int_equal(unlink(path), 0);
    }
}

static void test_a_kill_in_the_middle_leaves_a_whole_version(void **state)
{
    (void)state;
    for (int64_t step = 0; step < STEP_COUNT; step++) {
        struct database *database = NULL;
        int status = 0;
        pid_t child;

        make_version_1(path);
        child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            dies_at = step;
            _exit(database_open_as(path, &schema_3, NULL, &database) == STATUS_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (step < 4) {
            database = open_as(path, &schema_1);
            assert_int_equal(number(database, "SELECT count(*) FROM a"), 2);
            database_close(database);
        }
        database = open_as(path, &schema_3);
        assert_version_3(database);
        database_close(database);
        assert_int_equal(tear_down(NULL), 0);
        assert_int_equal(set_up(NULL), 0);
    }
}

/* What the disk holds is a whole version, from which the migration goes on. */
static void assert_goes_on(const char *name)
{
    struct database *database = NULL;
    int64_t version;

    assert_int_equal(database_open_as(name, &schema_1, NULL, &database) == STATUS_OK ||
                         database_open_as(name, &schema_2, NULL, &database) == STATUS_OK ||
                         database_open_as(name, &schema_3, NULL, &database) == STATUS_OK,
                     true);
    version = number(database, "PRAGMA user_version");
    assert_int_equal(number(database, "SELECT count(*) FROM a"), 2);
    assert_int_equal(number(database, "SELECT count(*) FROM sqlite_schema WHERE name = 'a_by_y'"),
                     version > 1);
    assert_int_equal(migration_apply(database, &schema_3, NULL), STATUS_OK);
    assert_version_3(database);
    database_close(database);
}

/* The power goes at every operation of the migration; the copy is no part of this. */
static void test_a_loss_of_power_leaves_a_whole_version(void **state)
{
    uint64_t operation = 1;
    bool is_over = false;

    (void)state;
    for (; !is_over; operation++) {
        struct database *database;
        uint64_t first;

        power_disk_install();
        power_disk_reset();
        make_version_1("x");
        database = open_as("x", &schema_1);
        first = power_disk_operation_count();
        power_disk_fail_at(first + operation, false, false);
        is_over = migration_apply(database, &schema_3, NULL) == STATUS_OK;
        is_over &= power_disk_operation_count() < first + operation;
        database_close(database);
        power_disk_cut(operation);
        assert_goes_on("x");
        power_disk_remove();
    }
    assert_true(operation > 10);
}

static void test_a_newer_version_is_refused(void **state)
{
    struct error error = {0};
    struct database *database = NULL;

    (void)state;
    database_close(open_as(path, &schema_3));
    assert_int_equal(database_open_as(path, &schema_1, &error, &database), STATUS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "a newer personad wrote it (version 3, this one knows 1)"));
}

/* ---- equal tables ---- */

/* Everything that SQLite knows of the tables, whatever text made them. */
static void read_shape(struct database *database, char *out)
{
    static const char sql[] =
        "SELECT line FROM ("
        "SELECT 'table ' || name || ' ' || type || ' ' || wr || ' ' || strict AS line"
        "  FROM pragma_table_list WHERE name NOT LIKE 'sqlite_%' AND schema = 'main' UNION ALL "
        "SELECT 'column ' || t.name || '.' || c.name || ' ' || c.cid || ' ' || c.type || ' ' ||"
        "  c.\"notnull\" || ' ' || ifnull(c.dflt_value, '-') || ' ' || c.pk || ' ' || c.hidden"
        "  FROM pragma_table_list t, pragma_table_xinfo(t.name) c WHERE t.name NOT LIKE 'sqlite_%'"
        "  UNION ALL "
        "SELECT 'index ' || t.name || ' ' || i.name || ' ' || i.\"unique\" || ' ' || i.partial ||"
        "  ' ' || x.seqno || ' ' || ifnull(x.name, '-') || ' ' || x.desc || ' ' || x.key"
        "  FROM pragma_table_list t, pragma_index_list(t.name) i, pragma_index_xinfo(i.name) x"
        "  UNION ALL "
        "SELECT 'key ' || t.name || ' ' || f.\"from\" || ' ' || f.\"table\" || ' ' ||"
        "  ifnull(f.\"to\", '-') || ' ' || f.on_delete || ' ' || f.on_update"
        "  FROM pragma_table_list t, pragma_foreign_key_list(t.name) f UNION ALL "
        "SELECT 'where ' || name || ' ' || substr(sql, instr(sql, ' WHERE '))"
        "  FROM sqlite_schema WHERE type = 'index' AND sql LIKE '% WHERE %'"
        ") ORDER BY line";
    sqlite3_stmt *statement = NULL;
    size_t size = 0;

    assert_int_equal(database_prepare(database, sql, NULL, &statement), STATUS_OK);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        size += (size_t)snprintf(out + size, SHAPE_BYTES_MAX - size, "%s\n",
                                 (const char *)sqlite3_column_text(statement, 0));
        assert_true(size < SHAPE_BYTES_MAX);
    }
    sqlite3_finalize(statement);
    assert_true(size > 100);
}

static void shape_of(const char *name, const struct schema *schema, char *out)
{
    struct database *database = open_as(name, schema);

    read_shape(database, out);
    database_close(database);
}

static char new_shape[SHAPE_BYTES_MAX];
static char old_shape[SHAPE_BYTES_MAX];

static void test_a_migrated_database_has_the_tables_of_a_new_one(void **state)
{
    (void)state;
    make_version_1(path);
    shape_of(path, &schema_3, old_shape);
    shape_of(NULL, &schema_3, new_shape);
    assert_string_equal(old_shape, new_shape);
}

/* Each forgets one thing, or does it otherwise. */
static void test_a_migration_that_forgets_something_is_caught(void **state)
{
#define ADD_Y "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 7; "
    static const char *const forgetful[] = {
        ADD_Y,
        "ALTER TABLE a ADD COLUMN y INTEGER NOT NULL DEFAULT 8; CREATE INDEX a_by_y ON a(y)",
        "ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 7; CREATE INDEX a_by_y ON a(y)",
        (ADD_Y "CREATE INDEX a_by_y ON a(id)"),
        (ADD_Y "CREATE INDEX a_by_y ON a(y) WHERE y = 0"),
    };

    (void)state;
    for (uint32_t i = 0; i < sizeof(forgetful) / sizeof(forgetful[0]); i++) {
        const char *const list[] = {forgetful[i], NULL};
        const struct schema schema = {
            .sql = "CREATE TABLE a (id INTEGER PRIMARY KEY, x TEXT NOT NULL,"
                   "                y INTEGER NOT NULL DEFAULT 7) STRICT;"
                   "CREATE INDEX a_by_y ON a(y);"
                   "CREATE TABLE b (id INTEGER PRIMARY KEY,"
                   "                a_id INTEGER NOT NULL REFERENCES a(id)) STRICT;",
            .migrations = list,
            .migration_count = 1};

        make_version_1(path);
        shape_of(path, &schema, old_shape);
        shape_of(NULL, &schema, new_shape);
        assert_string_not_equal(old_shape, new_shape);
        assert_int_equal(unlink(path), 0);
    }
}

static bool copy_golden(uint32_t version)
{
    static char bytes[4 * 1024 * 1024];
    char name[PATH_MAX_BYTES];
    FILE *from;
    FILE *to;
    size_t size;

    (void)snprintf(name, sizeof(name), "tests/fixtures/journal/v%u.db", version);
    from = fopen(name, "rb");
    if (from == NULL) {
        return false;
    }
    size = fread(bytes, 1, sizeof(bytes), from);
    assert_true(size > 0 && size < sizeof(bytes));
    assert_int_equal(fclose(from), 0);
    to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(bytes, 1, size, to), size);
    assert_int_equal(fclose(to), 0);
    return true;
}

static void test_every_golden_journal_gets_the_tables_of_a_new_one(void **state)
{
    (void)state;
    for (uint32_t version = 1; version <= schema_current.migration_count + 1; version++) {
        struct database *database = NULL;

        assert_true(copy_golden(version));
        database = open_as(path, &schema_current);
        read_shape(database, old_shape);
        assert_int_equal(number(database, "PRAGMA user_version"),
                         schema_current.migration_count + 1);
        database_close(database);
        shape_of(NULL, &schema_current, new_shape);
        assert_string_equal(old_shape, new_shape);
        assert_int_equal(unlink(path), 0);
    }
}

static int add_functions(void **state)
{
    (void)state;
    (void)sqlite3_auto_extension((void (*)(void))add_function);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_older_journal_is_copied_and_migrated),
        TEST(test_no_copy_is_ever_replaced),
        TEST(test_a_failed_migration_leaves_the_version_before),
        TEST(test_a_kill_in_the_middle_leaves_a_whole_version),
        TEST(test_a_loss_of_power_leaves_a_whole_version),
        TEST(test_a_newer_version_is_refused),
        TEST(test_a_migrated_database_has_the_tables_of_a_new_one),
        TEST(test_a_migration_that_forgets_something_is_caught),
        TEST(test_every_golden_journal_gets_the_tables_of_a_new_one),
    };

    return cmocka_run_group_tests(tests, add_functions, NULL);
}
