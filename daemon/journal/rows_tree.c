#include <string.h>

#include "base/memory.h"
#include "journal/database.h"
#include "journal/rows.h"
#include "limits.h"

struct reading {
    struct database *database;
    struct rows_tree *tree;
    struct error *error;
    enum status status; /* of the first copy that failed */
};

static uint64_t number(sqlite3_stmt *row, int column)
{
    return (uint64_t)sqlite3_column_int64(row, column);
}

static uint32_t small(sqlite3_stmt *row, int column)
{
    return (uint32_t)sqlite3_column_int64(row, column);
}

/* A copy in the tree's arena; empty after a failure. */
static struct bytes copy(struct reading *reading, sqlite3_stmt *row, int column)
{
    const struct bytes bytes = database_column(row, column);
    void *made;

    if (bytes.size == 0) {
        return bytes_of(NULL, 0);
    }
    made = arena_copy(&reading->tree->arena, bytes.data, bytes.size);
    if (made == NULL) {
        const bool is_full = reading->tree->arena.used_bytes + bytes.size > TREE_BYTES_MAX;

        reading->status = is_full
                              ? error_set_limit(reading->error, "TREE_BYTES_MAX", TREE_BYTES_MAX,
                                                "session %llu holds more than can be loaded",
                                                (unsigned long long)reading->tree->session_id)
                              : error_set(reading->error, STATUS_MEMORY,
                                          "out of memory while a session was loaded");
        return bytes_of(NULL, 0);
    }
    return bytes_of(made, bytes.size);
}

static enum status copy_digest(struct reading *reading, sqlite3_stmt *row, int column,
                               uint8_t out[JOURNAL_DIGEST_BYTES])
{
    const struct bytes bytes = database_column(row, column);

    if (bytes.size != JOURNAL_DIGEST_BYTES) {
        return error_set(reading->error, STATUS_STORAGE, "a digest in the journal is damaged");
    }
    memcpy(out, bytes.data, JOURNAL_DIGEST_BYTES);
    return STATUS_OK;
}

static enum status added(struct reading *reading, enum status status)
{
    return status == STATUS_OK
               ? STATUS_OK
               : error_set(reading->error, status, "out of memory while a session was loaded");
}

/* ---- rows ---- */

static enum status add_context(struct reading *reading, sqlite3_stmt *row)
{
    struct rows_tree *tree = reading->tree;
    struct journal_context context = {
        .id = number(row, 0),
        .session_id = tree->session_id,
        .base_id = number(row, 1),
        .base_count = small(row, 2),
        .speaker = small(row, 3),
        .token_count = small(row, 5),
        .first_turn = small(row, 6),
        .scope_token_count = small(row, 7),
        .segments = copy(reading, row, 8),
    };

    TRY(copy_digest(reading, row, 4, context.prompt_digest));
    return added(reading, rows_tree_add_context(tree, &context));
}

static enum status add_steps(struct reading *reading, sqlite3_stmt *row)
{
    struct rows_tree *tree = reading->tree;
    struct journal_steps steps = {
        .sampler = copy(reading, row, 1),
        .cues = copy(reading, row, 2),
    };

    TRY(copy_digest(reading, row, 0, steps.digest));
    return added(reading, rows_tree_add_steps(tree, &steps));
}

static void fill_sampled(struct reading *reading, sqlite3_stmt *row, struct rows_node *node)
{
    int at = 12;

    node->seed = number(row, at++);
    node->context_id = number(row, at++);
    node->room = small(row, at++);
    node->top_count = small(row, at++);
    node->sampled_count = small(row, at++);
    node->kept = small(row, at++);
    node->content_bytes = small(row, at++);
    node->cue_pattern = small(row, at++);
    node->queued_ns = number(row, at++);
    node->first_token_ns = number(row, at++);
    node->last_token_ns = number(row, at++);
    node->cached_count = small(row, at++);
    node->computed_count = small(row, at++);
    node->error_status = small(row, at++);
    node->steps_digest = copy(reading, row, at++);
    node->tail = copy(reading, row, at++);
    node->error_text = copy(reading, row, at++);
    node->model_hash = copy(reading, row, at++);
    node->numerics_id = copy(reading, row, at++);
}

static enum status add_node(struct reading *reading, sqlite3_stmt *row)
{
    struct rows_tree *tree = reading->tree;
    struct rows_node node = {
        .node =
            {
                .id = number(row, 0),
                .session_id = tree->session_id,
                .parent_id = number(row, 1),
                .parent_offset = small(row, 2),
                .ordinal = small(row, 3),
                .speaker = small(row, 4),
                .origin = small(row, 5),
                .flags = small(row, 6),
                .created_us = number(row, 7),
            },
        .finish = small(row, 8),
        .finished_us = number(row, 9),
        .ids = copy(reading, row, 10),
        .text = copy(reading, row, 11),
        .is_sampled = sqlite3_column_type(row, 12) != SQLITE_NULL,
        .original = number(row, 31),
    };

    if (node.is_sampled) {
        fill_sampled(reading, row, &node);
    }
    return added(reading, rows_tree_add_node(tree, &node));
}

/* Chunks come by ascending key, nodes by ascending id: one walk over both. */
static enum status add_chunk(struct reading *reading, sqlite3_stmt *row)
{
    struct rows_tree *tree = reading->tree;
    const uint64_t key = number(row, 0);
    struct journal_chunk chunk = {
        .first = (uint32_t)(key & 0xffff),
        .tokens = copy(reading, row, 1),
        .logprobs = copy(reading, row, 2),
        .logprobs_sampler = copy(reading, row, 3),
        .entropies = copy(reading, row, 4),
        .text_ends = copy(reading, row, 5),
        .tops = copy(reading, row, 6),
        .text = copy(reading, row, 7),
    };

    chunk.count = (uint32_t)(chunk.tokens.size / 4);
    return added(reading, rows_tree_add_chunk(tree, &chunk));
}

static enum status add_note(struct reading *reading, sqlite3_stmt *row)
{
    struct rows_tree *tree = reading->tree;
    const struct journal_note note = {
        .kind = small(row, 0),
        .id = number(row, 1),
        .name = copy(reading, row, 2),
        .flags = small(row, 3),
        .label = copy(reading, row, 4),
        .node_id = number(row, 5),
        .node_offset = small(row, 6),
        .created_us = number(row, 7),
    };

    return added(reading, rows_tree_add_note(tree, &note));
}

static enum status add_author_note(struct reading *reading, sqlite3_stmt *row)
{
    struct rows_tree *tree = reading->tree;
    const struct journal_author_note note = {
        .session_id = tree->session_id,
        .node_id = number(row, 0),
        .node_offset = small(row, 1),
        .depth = small(row, 2),
        .role = small(row, 3),
        .created_us = number(row, 4),
        .text = copy(reading, row, 5),
    };

    return added(reading, rows_tree_add_author_note(tree, &note));
}

static enum status query(struct reading *reading, const char *sql,
                         enum status (*on_row)(struct reading *reading, sqlite3_stmt *row),
                         uint64_t id)
{
    sqlite3_stmt *statement = NULL;
    enum status status = STATUS_OK;
    int code = SQLITE_DONE;

    TRY(database_prepare(reading->database, sql, reading->error, &statement));
    (void)sqlite3_bind_int64(statement, 1, (sqlite3_int64)id);
    while (status == STATUS_OK && (code = sqlite3_step(statement)) == SQLITE_ROW) {
        status = on_row(reading, statement);
        status = status == STATUS_OK ? reading->status : status;
    }
    if (status == STATUS_OK && code != SQLITE_DONE) {
        status = database_fail(reading->database, code, reading->error);
    }
    sqlite3_finalize(statement);
    return status;
}

static enum status read_chunks(struct reading *reading)
{
    struct rows_tree *tree = reading->tree;

    for (uint32_t i = 0; i < tree->node_count; i++) {
        struct rows_node *node = &tree->nodes[i];

        if (node->sampled_count == 0) {
            continue;
        }
        node->first_chunk = tree->chunk_count;
        TRY(query(reading,
                  "SELECT key, tokens, logprobs, logprobs_sampler, entropies, text_ends, tops, "
                  "text FROM chunk WHERE key >= ?1 << 16 AND key < (?1 + 1) << 16 ORDER BY key",
                  add_chunk, node->node.id));
        node = &tree->nodes[i];
        node->chunk_count = tree->chunk_count - node->first_chunk;
    }
    return STATUS_OK;
}

static enum status take_origin(struct reading *reading, sqlite3_stmt *row)
{
    reading->tree->model_hash = copy(reading, row, 0);
    reading->tree->numerics_id = copy(reading, row, 1);
    return STATUS_OK;
}

static enum status read_tree(struct reading *reading)
{
    const uint64_t id = reading->tree->session_id;

    TRY(query(reading,
              "SELECT o.model_hash, o.numerics_id FROM session s JOIN origin o "
              "ON o.id = s.origin_id WHERE s.id = ?",
              take_origin, id));
    TRY(query(reading,
              "SELECT id, base_id, base_count, speaker, prompt_digest, token_count, first_turn, "
              "scope_token_count, segments FROM context WHERE session_id = ? ORDER BY id",
              add_context, id));
    TRY(query(reading,
              "SELECT digest, sampler, cues FROM steps WHERE digest IN (SELECT s.steps_digest "
              "FROM node n JOIN sampled s ON s.node_id = n.id WHERE n.session_id = ?)",
              add_steps, id));
    TRY(query(reading,
              "SELECT n.id, n.parent_id, n.parent_offset, n.ordinal, n.speaker, n.origin, n.flags, "
              "n.created_us, n.finish, n.finished_us, g.ids, g.text, s.seed, s.context_id, s.room, "
              "s.top_count, s.sampled_count, s.kept, s.content_bytes, s.cue_pattern, s.queued_ns, "
              "s.first_token_ns, s.last_token_ns, s.cached_count, s.computed_count, "
              "s.error_status, s.steps_digest, s.tail, s.error_text, o.model_hash, o.numerics_id, "
              "coalesce(g.original, 0) "
              "FROM node n LEFT JOIN given g ON g.node_id = n.id "
              "LEFT JOIN sampled s ON s.node_id = n.id LEFT JOIN origin o ON o.id = s.origin_id "
              "WHERE n.session_id = ? ORDER BY n.id",
              add_node, id));
    TRY(query(reading,
              "SELECT kind, id, name, flags, label, node_id, node_offset, created_us FROM note "
              "WHERE kind = 0 AND id IN (SELECT id FROM node WHERE session_id = ?1) "
              "UNION ALL "
              "SELECT kind, id, name, flags, label, node_id, node_offset, created_us FROM note "
              "WHERE kind = 3 AND id = ?1",
              add_note, id));
    TRY(query(reading,
              "SELECT node_id, node_offset, depth, role, created_us, text FROM author_note "
              "WHERE session_id = ?",
              add_author_note, id));
    return read_chunks(reading);
}

enum status rows_read_tree(struct database *database, uint64_t session_id, struct error *error,
                           struct rows_tree **out)
{
    struct rows_tree *tree = NULL;
    struct reading reading = {.database = database, .error = error};
    enum status status;

    if (rows_tree_create(session_id, &tree) != STATUS_OK) {
        return error_set(error, STATUS_MEMORY, "out of memory while a session was loaded");
    }
    reading.tree = tree;
    status = read_tree(&reading);
    if (status != STATUS_OK) {
        rows_tree_destroy(tree);
        return status;
    }
    *out = tree;
    return STATUS_OK;
}
