#include "unit/journal/damage.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "journal/database.h"

enum { BLOB_MAX = 65536, NAME_MAX_BYTES = 64 };

struct place {
    char table[NAME_MAX_BYTES], column[NAME_MAX_BYTES];
};

static uint32_t draw(uint64_t *state, uint32_t below)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33) % below;
}

/* Row number `at` of a query with one text column, or of all rows' count. */
static uint32_t list(sqlite3 *handle, const char *sql, uint32_t at, char *out)
{
    sqlite3_stmt *statement = NULL;
    uint32_t count = 0;

    CHECK(sqlite3_prepare_v2(handle, sql, -1, &statement, NULL) == SQLITE_OK);
    for (; sqlite3_step(statement) == SQLITE_ROW; count++) {
        if (count == at && out != NULL) {
            (void)snprintf(out, NAME_MAX_BYTES, "%s",
                           (const char *)sqlite3_column_text(statement, 0));
        }
    }
    sqlite3_finalize(statement);
    return count;
}

static void pick(sqlite3 *handle, uint64_t *state, struct place *place)
{
    static const char tables[] = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    char sql[200];

    (void)list(handle, tables, draw(state, list(handle, tables, 0, NULL)), place->table);
    (void)snprintf(sql, sizeof(sql), "SELECT name FROM pragma_table_info('%s')", place->table);
    (void)list(handle, sql, draw(state, list(handle, sql, 0, NULL)), place->column);
}

static int64_t change_number(uint64_t *state, int64_t value)
{
    const int64_t others[] = {
        value + 1,  value - 1, 0,         -1,          value ^ (int64_t)1 << draw(state, 40),
        UINT32_MAX, INT32_MAX, INT64_MAX, value + 4096};

    return others[draw(state, sizeof(others) / sizeof(others[0]))];
}

/* Flipped, cut, longer or empty. */
static size_t change_bytes(uint64_t *state, uint8_t *bytes, size_t size)
{
    const uint32_t what = draw(state, 6);

    if (what < 3 && size > 0) {
        bytes[draw(state, (uint32_t)size)] ^= (uint8_t)(1U << draw(state, 8));
    } else if (what == 3) {
        size -= size < 4 ? size : draw(state, 2) == 0 ? 1 : 4;
    } else if (what == 4) {
        memset(bytes + size, (int)draw(state, 256), 4);
        size += 4;
    } else {
        size = 0;
    }
    return size;
}

/* Binds the changed value as parameter 1, the old one as parameter 2. */
static void bind(sqlite3_stmt *update, sqlite3_stmt *found, uint64_t *state)
{
    static uint8_t bytes[BLOB_MAX + 4];
    const int type = sqlite3_column_type(found, 0);
    size_t size = (size_t)sqlite3_column_bytes(found, 0);

    CHECK(sqlite3_bind_value(update, 2, sqlite3_column_value(found, 0)) == SQLITE_OK);
    if (type == SQLITE_INTEGER) {
        CHECK(sqlite3_bind_int64(update, 1, change_number(state, sqlite3_column_int64(found, 0))) ==
              SQLITE_OK);
    } else if (type == SQLITE_NULL) {
        CHECK(sqlite3_bind_int64(update, 1, draw(state, 8)) == SQLITE_OK);
    } else {
        size = size < BLOB_MAX ? size : BLOB_MAX;
        if (size > 0) {
            memcpy(bytes, sqlite3_column_blob(found, 0), size);
        }
        size = change_bytes(state, bytes, size);
        CHECK((type == SQLITE_TEXT
                   ? sqlite3_bind_text(update, 1, (char *)bytes, (int)size, SQLITE_TRANSIENT)
                   : sqlite3_bind_blob(update, 1, bytes, (int)size, SQLITE_TRANSIENT)) ==
              SQLITE_OK);
    }
}

bool journal_damage(struct journal *journal, uint64_t seed, char *what, size_t size)
{
    sqlite3 *handle = journal_database(journal)->handle;
    uint64_t state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    sqlite3_stmt *found = NULL, *update = NULL;
    struct place place = {{0}, {0}};
    bool is_done = false;
    char sql[300];
    uint32_t rows;

    CHECK(sqlite3_exec(handle, "PRAGMA foreign_keys = OFF", NULL, NULL, NULL) == SQLITE_OK);
    pick(handle, &state, &place);
    (void)snprintf(sql, sizeof(sql), "SELECT %s FROM %s", place.column, place.table);
    rows = list(handle, sql, 0, NULL);
    if (rows == 0) {
        return false;
    }
    (void)snprintf(sql, sizeof(sql), "SELECT %s FROM %s LIMIT 1 OFFSET %u", place.column,
                   place.table, draw(&state, rows));
    CHECK(sqlite3_prepare_v2(handle, sql, -1, &found, NULL) == SQLITE_OK);
    (void)snprintf(sql, sizeof(sql), "UPDATE %s SET %s = ?1 WHERE %s IS ?2", place.table,
                   place.column, place.column);
    CHECK(sqlite3_prepare_v2(handle, sql, -1, &update, NULL) == SQLITE_OK);
    if (sqlite3_step(found) == SQLITE_ROW) {
        bind(update, found, &state);
        sqlite3_reset(found); /* else it would hold the table */
        is_done = sqlite3_step(update) == SQLITE_DONE;
    }
    sqlite3_finalize(found);
    sqlite3_finalize(update);
    (void)snprintf(what, size, "%s.%s", place.table, place.column);
    return is_done;
}
