#include "journal/rows.h"

#include <string.h>

#include "base/memory.h"
#include "journal/database.h"

static uint64_t number(sqlite3_stmt *statement, int column)
{
    return (uint64_t)sqlite3_column_int64(statement, column);
}

static uint32_t small(sqlite3_stmt *statement, int column)
{
    return (uint32_t)sqlite3_column_int64(statement, column);
}

/* False when the column is no digest, which our own writer cannot have made. */
static bool digest(sqlite3_stmt *statement, int column, uint8_t out[JOURNAL_DIGEST_BYTES])
{
    const struct bytes bytes = database_column(statement, column);

    if (bytes.size != JOURNAL_DIGEST_BYTES) {
        return false;
    }
    memcpy(out, bytes.data, JOURNAL_DIGEST_BYTES);
    return true;
}

static enum status damaged(const struct database *database, struct error *error, const char *what)
{
    return error_set(error, STATUS_STORAGE,
                     "%s: it is damaged: %s; put a backup in its place, or move it away to start "
                     "empty",
                     database->path != NULL ? database->path : "the journal", what);
}

/* ---- lists ---- */

struct listing {
    struct database *database;
    const struct rows_visitor *visitor;
    struct error *error;
};

/* Calls on_row for every row of a query. */
static enum status list(const struct listing *listing, const char *sql,
                        enum status (*on_row)(const struct listing *listing, sqlite3_stmt *row))
{
    sqlite3_stmt *statement = NULL;
    enum status status = STATUS_OK;
    int code = SQLITE_DONE;

    TRY(database_prepare(listing->database, sql, listing->error, &statement));
    while (status == STATUS_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        status = on_row(listing, statement);
    }
    if (status == STATUS_OK && code != SQLITE_DONE) {
        status = database_fail(listing->database, code, listing->error);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum status on_persona(const struct listing *listing, sqlite3_stmt *row)
{
    const struct journal_persona persona = {
        .id = number(row, 0),
        .version = small(row, 1),
        .owner_uid = small(row, 2),
        .visibility = small(row, 3),
        .created_us = number(row, 4),
        .card = database_column(row, 5),
    };

    return listing->visitor->on_persona(listing->visitor->context, &persona, listing->error);
}

static enum status on_prompt(const struct listing *listing, sqlite3_stmt *row)
{
    struct journal_prompt prompt = {
        .persona_id = number(row, 1),
        .scope = number(row, 2),
        .format = small(row, 3),
        .end_side = small(row, 4),
        .is_open = small(row, 5),
        .character = database_column(row, 6),
        .user = database_column(row, 7),
        .post_history = database_column(row, 8),
        .ids = database_column(row, 9),
        .greetings = database_column(row, 10),
        .inserts = database_column(row, 11),
    };

    if (!digest(row, 0, prompt.digest)) {
        return damaged(listing->database, listing->error, "a prompt's digest");
    }
    return listing->visitor->on_prompt(listing->visitor->context, &prompt, listing->error);
}

static enum status on_session(const struct listing *listing, sqlite3_stmt *row)
{
    struct journal_session session = {
        .id = number(row, 0),
        .owner_uid = small(row, 1),
        .seed = number(row, 2),
        .created_us = number(row, 3),
        .context_tokens = small(row, 4),
        .label = database_column(row, 5),
        .head_node = number(row, 6),
        .head_offset = small(row, 7),
        .origin.numerics_id = database_column(row, 9),
    };

    if (!digest(row, 8, session.origin.model_hash)) {
        return damaged(listing->database, listing->error, "a model's hash");
    }
    session.group_mode = small(row, 10);
    const struct rows_session more = {.node_count = small(row, 11),
                                      .head_content_count = small(row, 12)};

    return listing->visitor->on_session(listing->visitor->context, &session, &more, listing->error);
}

static enum status on_member(const struct listing *listing, sqlite3_stmt *row)
{
    const struct journal_member member = {
        .session_id = number(row, 0),
        .speaker = small(row, 1),
        .name = database_column(row, 2),
        .prompt_digest = database_column(row, 3),
    };

    return listing->visitor->on_member(listing->visitor->context, &member, listing->error);
}

static enum status on_preamble(const struct listing *listing, sqlite3_stmt *row)
{
    const struct journal_preamble preamble = {
        .session_id = number(row, 0),
        .speaker = small(row, 1),
        .system = database_column(row, 2),
        .examples = database_column(row, 3),
    };

    return listing->visitor->on_preamble(listing->visitor->context, &preamble, listing->error);
}

static enum status on_joint(const struct listing *listing, sqlite3_stmt *row)
{
    struct journal_joint joint = {
        .session_id = number(row, 0),
        .member_count = small(row, 1),
    };

    if (!digest(row, 2, joint.prompt_digest)) {
        return damaged(listing->database, listing->error, "a prompt's digest");
    }
    return listing->visitor->on_joint(listing->visitor->context, &joint, listing->error);
}

static enum status on_key(const struct listing *listing, sqlite3_stmt *row)
{
    const struct journal_key key = {
        .uid = small(row, 0),
        .key = database_column(row, 1),
        .request = small(row, 2),
        .session_id = number(row, 3),
        .nodes = database_column(row, 4),
    };

    return listing->visitor->on_key(listing->visitor->context, &key, listing->error);
}

static enum status on_note(const struct listing *listing, sqlite3_stmt *row)
{
    const struct journal_note note = {
        .kind = small(row, 0),
        .id = number(row, 1),
        .name = database_column(row, 2),
        .flags = small(row, 3),
        .label = database_column(row, 4),
        .node_id = number(row, 5),
        .node_offset = small(row, 6),
        .created_us = number(row, 7),
    };

    return listing->visitor->on_note(listing->visitor->context, &note, listing->error);
}

static enum status on_unfinished(const struct listing *listing, sqlite3_stmt *row)
{
    return listing->visitor->on_unfinished(listing->visitor->context, number(row, 0),
                                           number(row, 1), listing->error);
}

#define NOT_PURGED(session) \
    "NOT EXISTS (SELECT 1 FROM note p WHERE p.kind = 1 AND p.id = " session " AND p.flags & 2)"

enum status rows_read_all(struct database *database, const struct rows_visitor *visitor,
                          struct error *error)
{
    const struct listing listing = {database, visitor, error};

    TRY(list(&listing,
             "SELECT id, version, owner_uid, visibility, created_us, card FROM persona ORDER BY id",
             on_persona));
    TRY(list(&listing,
             "SELECT digest, persona_id, scope, format, end_side, is_open, character, user, "
             "post_history, ids, greetings, inserts FROM prompt",
             on_prompt));
    TRY(list(&listing,
             "SELECT s.id, s.owner_uid, s.seed, s.created_us, s.context_tokens, s.label, "
             "s.head_node, s.head_offset, o.model_hash, o.numerics_id, s.group_mode, "
             "(SELECT count(*) FROM node n WHERE n.session_id = s.id), "
             "coalesce((SELECT length(ids) / 4 FROM given WHERE node_id = s.head_node), "
             "(SELECT CASE WHEN length(tail) > 0 THEN length(tail) / 4 ELSE kept END FROM sampled "
             "WHERE node_id = s.head_node), 0) "
             "FROM session s JOIN origin o ON o.id = s.origin_id WHERE " NOT_PURGED(
                 "s.id") " ORDER BY s.id",
             on_session));
    TRY(list(&listing,
             "SELECT session_id, speaker, name, prompt_digest FROM member "
             "WHERE " NOT_PURGED("session_id") " ORDER BY session_id, speaker",
             on_member));
    TRY(list(&listing,
             "SELECT session_id, speaker, system, examples FROM preamble "
             "WHERE " NOT_PURGED("session_id"),
             on_preamble));
    TRY(list(&listing,
             "SELECT session_id, member_count, prompt_digest FROM joint "
             "WHERE " NOT_PURGED("session_id") " ORDER BY session_id, member_count",
             on_joint));
    TRY(list(&listing, "SELECT uid, key, request, session_id, nodes FROM client_key", on_key));
    TRY(list(&listing,
             "SELECT kind, id, name, flags, label, node_id, node_offset, created_us FROM note "
             "WHERE kind IN (1, 2)",
             on_note));
    return list(&listing,
                "SELECT id, session_id FROM node WHERE finish = 0 AND " NOT_PURGED(
                    "session_id") " ORDER BY id",
                on_unfinished);
}

/* ---- single values ---- */

static enum status one_row(struct database *database, sqlite3_stmt *statement, const char *what,
                           struct error *error)
{
    const int code = sqlite3_step(statement);

    if (code == SQLITE_DONE) {
        return error_set(error, STATUS_NOT_FOUND, "the journal has no such %s", what);
    }
    return code == SQLITE_ROW ? STATUS_OK : database_fail(database, code, error);
}

enum status rows_read_last(struct database *database, struct error *error, struct rows_last *out)
{
    sqlite3_stmt *statement = NULL;
    enum status status;

    TRY(database_prepare(database,
                         "SELECT coalesce((SELECT max(id) FROM persona), 0), "
                         "coalesce((SELECT max(id) FROM session), 0), "
                         "coalesce((SELECT max(id) FROM node), 0)",
                         error, &statement));
    status = one_row(database, statement, "ids", error);
    if (status == STATUS_OK) {
        *out = (struct rows_last){number(statement, 0), number(statement, 1), number(statement, 2)};
    }
    sqlite3_finalize(statement);
    return status;
}

enum status rows_read_node_session(struct database *database, uint64_t node_id, struct error *error,
                                   uint64_t *out)
{
    sqlite3_stmt *statement = NULL;
    enum status status;

    TRY(database_prepare(database, "SELECT session_id FROM node WHERE id = ?", error, &statement));
    (void)sqlite3_bind_int64(statement, 1, (sqlite3_int64)node_id);
    status = one_row(database, statement, "node", error);
    if (status == STATUS_OK) {
        *out = number(statement, 0);
    }
    sqlite3_finalize(statement);
    return status;
}
