#include "journal/writer.h"

#include <string.h>

#include "base/check.h"
#include "base/memory.h"
#include "journal/database.h"
#include "journal/statements.h"

static const char *const statement_sql[] = {
#define X(name, sql) [STATEMENT_##name] = (sql),
    STATEMENT_MAP(X)
#undef X
};

struct writer {
    struct database *database;
    sqlite3_stmt *statements[STATEMENT_COUNT]; /* owned */
    /* The statement that is being bound. */
    sqlite3_stmt *bound;
    int at;
    int code; /* the first failure */
};

enum status writer_create(struct database *database, struct error *error, struct writer **out)
{
    struct writer *writer = memory_alloc(1, sizeof(*writer));
    enum status status = STATUS_OK;

    if (writer == NULL) {
        return error_set(error, STATUS_MEMORY, "out of memory for the journal");
    }
    writer->database = database;
    for (int i = 0; i < STATEMENT_COUNT && status == STATUS_OK; i++) {
        status = database_prepare(database, statement_sql[i], error, &writer->statements[i]);
    }
    if (status != STATUS_OK) {
        writer_destroy(writer);
        return status;
    }
    *out = writer;
    return STATUS_OK;
}

void writer_destroy(struct writer *writer)
{
    if (writer == NULL) {
        return;
    }
    for (int i = 0; i < STATEMENT_COUNT; i++) {
        sqlite3_finalize(writer->statements[i]);
    }
    memory_free(writer);
}

/* ---- binding, in the order of the statement ---- */

static void start(struct writer *writer, enum statement statement)
{
    writer->bound = writer->statements[statement];
    writer->at = 0;
    writer->code = SQLITE_OK;
}

static void keep(struct writer *writer, int code)
{
    writer->code = writer->code == SQLITE_OK ? code : writer->code;
}

static void put(struct writer *writer, uint64_t value)
{
    keep(writer, sqlite3_bind_int64(writer->bound, ++writer->at, (sqlite3_int64)value));
}

static void put_or_null(struct writer *writer, uint64_t value)
{
    if (value == 0) {
        keep(writer, sqlite3_bind_null(writer->bound, ++writer->at));
    } else {
        put(writer, value);
    }
}

/* Borrowed until the statement is reset; an empty one is an empty blob, not NULL. */
static void put_bytes(struct writer *writer, struct bytes bytes)
{
    keep(writer, sqlite3_bind_blob64(writer->bound, ++writer->at,
                                     bytes.size > 0 ? (const void *)bytes.data : "", bytes.size,
                                     SQLITE_STATIC));
}

static void put_digest(struct writer *writer, const uint8_t digest[JOURNAL_DIGEST_BYTES])
{
    put_bytes(writer, bytes_of(digest, JOURNAL_DIGEST_BYTES));
}

static void put_text(struct writer *writer, struct bytes text)
{
    keep(writer, sqlite3_bind_text64(writer->bound, ++writer->at,
                                     text.size > 0 ? (const char *)text.data : "", text.size,
                                     SQLITE_STATIC, SQLITE_UTF8));
}

/* Runs what was bound; SQLITE_DONE or SQLITE_ROW is fine. `out` takes a row's first number. */
static enum status finish(struct writer *writer, struct error *error, int64_t *out)
{
    int code = writer->code;
    enum status status = STATUS_OK;

    if (code == SQLITE_OK) {
        code = sqlite3_step(writer->bound);
    }
    if (code == SQLITE_ROW && out != NULL) {
        *out = sqlite3_column_int64(writer->bound, 0);
    } else if (code != SQLITE_DONE) {
        status = database_fail(writer->database, code, error);
    }
    (void)sqlite3_reset(writer->bound);
    (void)sqlite3_clear_bindings(writer->bound);
    return status;
}

static enum status run(struct writer *writer, struct error *error)
{
    return finish(writer, error, NULL);
}

/* An update of a row that has to be there, in the state that it has to be in. */
static enum status run_update(struct writer *writer, const char *what, uint64_t id,
                              struct error *error)
{
    TRY(run(writer, error));
    if (sqlite3_changes(writer->database->handle) != 1) {
        return error_set(error, STATUS_STORAGE, "the journal has no %s %llu to change", what,
                         (unsigned long long)id);
    }
    return STATUS_OK;
}

/* ---- records ---- */

static enum status find_origin(struct writer *writer, const struct journal_origin *origin,
                               struct error *error, int64_t *out)
{
    start(writer, STATEMENT_ORIGIN_ADD);
    put_digest(writer, origin->model_hash);
    put_text(writer, origin->numerics_id);
    TRY(run(writer, error));
    start(writer, STATEMENT_ORIGIN_FIND);
    put_digest(writer, origin->model_hash);
    put_text(writer, origin->numerics_id);
    return finish(writer, error, out);
}

static enum status write_persona(struct writer *writer, const struct journal_record *record,
                                 struct error *error)
{
    const struct journal_persona *persona = &record->u.persona;

    start(writer, STATEMENT_PERSONA);
    put(writer, persona->id);
    put(writer, persona->version);
    put(writer, persona->owner_uid);
    put(writer, persona->visibility);
    put(writer, persona->created_us);
    put_bytes(writer, persona->card);
    return run(writer, error);
}

static enum status write_prompt(struct writer *writer, const struct journal_record *record,
                                struct error *error)
{
    const struct journal_prompt *prompt = &record->u.prompt;

    start(writer, STATEMENT_PROMPT);
    put_digest(writer, prompt->digest);
    put(writer, prompt->persona_id);
    put(writer, prompt->scope);
    put(writer, prompt->format);
    put(writer, prompt->end_side);
    put(writer, prompt->is_open);
    put_bytes(writer, prompt->character);
    put_bytes(writer, prompt->user);
    put_bytes(writer, prompt->post_history);
    put_bytes(writer, prompt->ids);
    put_bytes(writer, prompt->greetings);
    put_bytes(writer, prompt->inserts);
    return run(writer, error);
}

static enum status write_session(struct writer *writer, const struct journal_record *record,
                                 struct error *error)
{
    const struct journal_session *session = &record->u.session;
    int64_t origin = 0;

    TRY(find_origin(writer, &session->origin, error, &origin));
    start(writer, STATEMENT_SESSION);
    put(writer, session->id);
    put(writer, session->owner_uid);
    put(writer, session->seed);
    put(writer, session->created_us);
    put(writer, session->context_tokens);
    put(writer, (uint64_t)origin);
    put_bytes(writer, session->label);
    put(writer, session->head_node);
    put(writer, session->head_offset);
    put(writer, session->group_mode);
    return run(writer, error);
}

static enum status write_member(struct writer *writer, const struct journal_record *record,
                                struct error *error)
{
    const struct journal_member *member = &record->u.member;

    start(writer, STATEMENT_MEMBER);
    put(writer, member->session_id);
    put(writer, member->speaker);
    put_bytes(writer, member->name);
    if (member->prompt_digest.size > 0) {
        put_bytes(writer, member->prompt_digest);
    }
    return run(writer, error);
}

static enum status write_head(struct writer *writer, const struct journal_record *record,
                              struct error *error)
{
    const struct journal_head *head = &record->u.head;

    start(writer, STATEMENT_HEAD);
    put(writer, head->session_id);
    put(writer, head->node_id);
    put(writer, head->offset);
    return run_update(writer, "session", head->session_id, error);
}

static enum status write_steps(struct writer *writer, const struct journal_record *record,
                               struct error *error)
{
    const struct journal_steps *steps = &record->u.steps;

    start(writer, STATEMENT_STEPS);
    put_digest(writer, steps->digest);
    put_bytes(writer, steps->sampler);
    put_bytes(writer, steps->cues);
    return run(writer, error);
}

static enum status write_context(struct writer *writer, const struct journal_record *record,
                                 struct error *error)
{
    const struct journal_context *context = &record->u.context;

    start(writer, STATEMENT_CONTEXT);
    put(writer, context->id);
    put(writer, context->session_id);
    put_or_null(writer, context->base_id);
    put(writer, context->base_count);
    put(writer, context->speaker);
    put_digest(writer, context->prompt_digest);
    put(writer, context->token_count);
    put(writer, context->first_turn);
    put(writer, context->scope_token_count);
    put_bytes(writer, context->segments);
    return run(writer, error);
}

static enum status write_node(struct writer *writer, const struct journal_node *node,
                              uint32_t finish, struct error *error)
{
    start(writer, STATEMENT_NODE);
    put(writer, node->id);
    put(writer, node->session_id);
    put_or_null(writer, node->parent_id);
    put(writer, node->parent_offset);
    put(writer, node->ordinal);
    put(writer, node->speaker);
    put(writer, node->origin);
    put(writer, node->flags);
    put(writer, node->created_us);
    put(writer, finish);
    put(writer, finish != 0 ? node->created_us : 0);
    return run(writer, error);
}

static enum status write_given(struct writer *writer, const struct journal_record *record,
                               struct error *error)
{
    const struct journal_given *given = &record->u.given;

    TRY(write_node(writer, &given->node, given->finish, error));
    start(writer, STATEMENT_GIVEN);
    put(writer, given->node.id);
    put_bytes(writer, given->ids);
    put_bytes(writer, given->text);
    put(writer, given->original);
    return run(writer, error);
}

static enum status write_intent(struct writer *writer, const struct journal_record *record,
                                struct error *error)
{
    const struct journal_intent *intent = &record->u.intent;
    int64_t origin = 0;

    TRY(find_origin(writer, &intent->origin, error, &origin));
    TRY(write_node(writer, &intent->node, 0, error));
    start(writer, STATEMENT_SAMPLED);
    put(writer, intent->node.id);
    put(writer, intent->seed);
    put(writer, intent->context_id);
    put_digest(writer, intent->steps_digest);
    put(writer, (uint64_t)origin);
    put(writer, intent->room);
    put(writer, intent->top_count);
    return run(writer, error);
}

static enum status write_chunk(struct writer *writer, uint64_t node_id,
                               const struct journal_chunk *chunk, struct error *error)
{
    if (chunk->count == 0) {
        return STATUS_OK;
    }
    start(writer, STATEMENT_CHUNK);
    put(writer, (node_id << 16) + chunk->first);
    put_bytes(writer, chunk->tokens);
    put_bytes(writer, chunk->logprobs);
    put_bytes(writer, chunk->logprobs_sampler);
    put_bytes(writer, chunk->entropies);
    put_bytes(writer, chunk->text_ends);
    put_bytes(writer, chunk->tops);
    put_bytes(writer, chunk->text);
    return run(writer, error);
}

static enum status write_checkpoint(struct writer *writer, const struct journal_record *record,
                                    struct error *error)
{
    const struct journal_checkpoint *checkpoint = &record->u.checkpoint;

    TRY(write_chunk(writer, checkpoint->node_id, &checkpoint->chunk, error));
    start(writer, STATEMENT_CHECKPOINT);
    put(writer, checkpoint->node_id);
    put(writer, (uint64_t)checkpoint->chunk.first + checkpoint->chunk.count);
    put(writer, checkpoint->released_count);
    put(writer, checkpoint->released_bytes);
    return run_update(writer, "node", checkpoint->node_id, error);
}

static enum status write_finish(struct writer *writer, const struct journal_record *record,
                                struct error *error)
{
    const struct journal_finish *ending = &record->u.finish;

    TRY(write_chunk(writer, ending->node_id, &ending->chunk, error));
    start(writer, STATEMENT_FINISH);
    put(writer, ending->node_id);
    put(writer, ending->finish);
    put(writer, ending->finished_us);
    TRY(run_update(writer, "unfinished node", ending->node_id, error));
    start(writer, STATEMENT_ENDING);
    put(writer, ending->node_id);
    put(writer, (uint64_t)ending->chunk.first + ending->chunk.count);
    put(writer, ending->kept);
    put(writer, ending->content_bytes);
    put_bytes(writer, ending->tail);
    put(writer, ending->cue_pattern);
    put(writer, ending->queued_ns);
    put(writer, ending->first_token_ns);
    put(writer, ending->last_token_ns);
    put(writer, ending->cached_count);
    put(writer, ending->computed_count);
    put(writer, ending->error_status);
    put_text(writer, ending->error_text);
    return run_update(writer, "sampled node", ending->node_id, error);
}

static enum status write_key(struct writer *writer, const struct journal_record *record,
                             struct error *error)
{
    const struct journal_key *key = &record->u.key;

    start(writer, STATEMENT_KEY);
    put(writer, key->uid);
    put_bytes(writer, key->key);
    put(writer, key->request);
    put(writer, key->session_id);
    put_bytes(writer, key->nodes);
    return run(writer, error);
}

/* Runs statements whose one parameter is that id. */
static enum status erase(struct writer *writer, const enum statement *statements, uint32_t count,
                         uint64_t id, struct error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        start(writer, statements[i]);
        put(writer, id);
        TRY(run(writer, error));
    }
    return STATUS_OK;
}

static enum status write_node_mark(struct writer *writer, const struct journal_record *record,
                                   struct error *error)
{
    static const enum statement erasing[] = {
        STATEMENT_NODE_GIVEN_ERASE, STATEMENT_NODE_CHUNKS_ERASE, STATEMENT_NODE_SAMPLED_ERASE,
        STATEMENT_NODE_NOTE_ERASE, STATEMENT_NODE_AUTHOR_NOTES_ERASE};
    const struct journal_node_mark *mark = &record->u.node_mark;

    start(writer, STATEMENT_NODE_MARK);
    put(writer, mark->node_id);
    put(writer, mark->flags);
    TRY(run_update(writer, "node", mark->node_id, error));
    if ((mark->flags & JOURNAL_NODE_PURGED) == 0) {
        return STATUS_OK;
    }
    return erase(writer, erasing, sizeof(erasing) / sizeof(erasing[0]), mark->node_id, error);
}

static enum status erase_session(struct writer *writer, uint64_t id, struct error *error)
{
    static const enum statement erasing[] = {
        STATEMENT_SESSION_GIVEN_ERASE,       STATEMENT_SESSION_CHUNKS_ERASE,
        STATEMENT_SESSION_TAILS_ERASE,       STATEMENT_SESSION_CONTEXTS_ERASE,
        STATEMENT_SESSION_LABEL_ERASE,       STATEMENT_SESSION_NOTES_ERASE,
        STATEMENT_SESSION_AUTHOR_NOTES_ERASE};

    return erase(writer, erasing, sizeof(erasing) / sizeof(erasing[0]), id, error);
}

static enum status write_note(struct writer *writer, const struct journal_record *record,
                              struct error *error)
{
    const struct journal_note *note = &record->u.note;

    start(writer, STATEMENT_NOTE);
    put(writer, note->kind);
    put(writer, note->id);
    put_bytes(writer, note->name);
    put(writer, note->flags);
    put_bytes(writer, note->label);
    put(writer, note->node_id);
    put(writer, note->node_offset);
    put(writer, note->created_us);
    TRY(run(writer, error));
    if (note->kind != JOURNAL_NOTE_SESSION || (note->flags & JOURNAL_NOTE_PURGED) == 0) {
        return STATUS_OK;
    }
    return erase_session(writer, note->id, error);
}

static enum status write_preamble(struct writer *writer, const struct journal_record *record,
                                  struct error *error)
{
    const struct journal_preamble *preamble = &record->u.preamble;

    start(writer, STATEMENT_PREAMBLE);
    put(writer, preamble->session_id);
    put(writer, preamble->speaker);
    put_bytes(writer, preamble->system);
    put_bytes(writer, preamble->examples);
    return run(writer, error);
}

static enum status write_joint(struct writer *writer, const struct journal_record *record,
                               struct error *error)
{
    const struct journal_joint *joint = &record->u.joint;

    start(writer, STATEMENT_JOINT);
    put(writer, joint->session_id);
    put(writer, joint->member_count);
    put_digest(writer, joint->prompt_digest);
    return run(writer, error);
}

static enum status write_author_note(struct writer *writer, const struct journal_record *record,
                                     struct error *error)
{
    const struct journal_author_note *note = &record->u.author_note;

    start(writer, note->is_removed ? STATEMENT_AUTHOR_NOTE_REMOVE : STATEMENT_AUTHOR_NOTE);
    put(writer, note->session_id);
    put(writer, note->node_id);
    put(writer, note->node_offset);
    if (!note->is_removed) {
        put(writer, note->depth);
        put(writer, note->role);
        put(writer, note->created_us);
        put_bytes(writer, note->text);
    }
    return run(writer, error);
}

static enum status write_batch(struct writer *writer, const struct journal_batch *batch,
                               struct error *error)
{
    static enum status (*const writers[JOURNAL_KIND_COUNT])(
        struct writer * writer, const struct journal_record *record, struct error *error) = {
        [JOURNAL_PERSONA] = write_persona,
        [JOURNAL_PROMPT] = write_prompt,
        [JOURNAL_SESSION] = write_session,
        [JOURNAL_MEMBER] = write_member,
        [JOURNAL_HEAD] = write_head,
        [JOURNAL_STEPS] = write_steps,
        [JOURNAL_CONTEXT] = write_context,
        [JOURNAL_GIVEN] = write_given,
        [JOURNAL_INTENT] = write_intent,
        [JOURNAL_CHECKPOINT] = write_checkpoint,
        [JOURNAL_FINISH] = write_finish,
        [JOURNAL_KEY] = write_key,
        [JOURNAL_NODE_MARK] = write_node_mark,
        [JOURNAL_NOTE] = write_note,
        [JOURNAL_PREAMBLE] = write_preamble,
        [JOURNAL_JOINT] = write_joint,
        [JOURNAL_AUTHOR_NOTE] = write_author_note,
    };

    for (const struct journal_batch_record *at = batch->first; at != NULL; at = at->next) {
        CHECK(writers[at->record.kind] != NULL);
        TRY(writers[at->record.kind](writer, &at->record, error));
    }
    return STATUS_OK;
}

enum status writer_commit(struct writer *writer, struct journal_batch *const *batches,
                          uint32_t count, struct error *error)
{
    enum status status;

    start(writer, STATEMENT_BEGIN);
    TRY(run(writer, error));
    status = STATUS_OK;
    for (uint32_t i = 0; i < count && status == STATUS_OK; i++) {
        status = write_batch(writer, batches[i], error);
    }
    if (status == STATUS_OK) {
        start(writer, STATEMENT_COMMIT);
        status = run(writer, error);
    }
    if (status != STATUS_OK && sqlite3_get_autocommit(writer->database->handle) == 0) {
        struct error ignored = {0};

        start(writer, STATEMENT_ROLLBACK);
        if (run(writer, &ignored) != STATUS_OK) {
            error_prefix(error, "the transaction stays open");
        }
    }
    return status;
}

/* One commit: else a crash in the middle would lose the mark and leave what it stands for. */
static enum status clean(struct writer *writer, uint64_t id, struct error *error)
{
    const struct journal_record note = {
        .kind = JOURNAL_NOTE,
        .u.note = {.kind = JOURNAL_NOTE_SESSION,
                   .id = id,
                   .flags = JOURNAL_NOTE_DELETED | JOURNAL_NOTE_PURGED},
    };
    struct journal_batch *batch = NULL;
    enum status status = journal_batch_create(&batch);

    if (status == STATUS_OK) {
        status = journal_batch_add(batch, &note);
    }
    status = status == STATUS_OK
                 ? writer_commit(writer, &batch, 1, error)
                 : error_set(error, status, "out of memory while an import was erased");
    journal_batch_destroy(batch);
    return status;
}

enum status writer_clean(struct writer *writer, struct error *error)
{
    static const char find[] =
        "SELECT coalesce(min(id), 0) FROM note WHERE kind = 1 AND flags = 3 AND "
        "label = CAST('" JOURNAL_IMPORTING "' AS BLOB)";
    int64_t id = 0;

    TRY(database_read_number(writer->database, find, error, &id));
    while (id != 0) {
        TRY(clean(writer, (uint64_t)id, error));
        TRY(database_read_number(writer->database, find, error, &id));
    }
    return STATUS_OK;
}
